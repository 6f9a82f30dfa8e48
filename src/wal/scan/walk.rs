//! From record to record: proves each, and reads those of interest.

use super::super::bytes::{u32_at, u64_at};
use super::super::page::{LONG_HEADER_SIZE, PageHeader, SHORT_HEADER_SIZE};
use super::super::piece::{HEADERS_LIMIT, HeadPiece, PIECE_BYTES_LIMIT};
use super::super::record::{HEADER_SIZE, RecordHeader, check_length, read_event};
use super::super::record_crc::{finish_crc, record_crc};
use super::super::{Event, Flaw, Lsn, RawRecord, RecordVisitor, WAL_PAGE_SIZE};
use super::verdict::Stop;
use super::{GATHER_LIMIT, OpenRecord, SegmentScanner};

/// Rounds up to the 8 bytes that records are aligned to (`MAXALIGN`).
fn aligned(length: usize) -> usize {
    length.next_multiple_of(8)
}

/// The record before, as far as the header is there.
pub(super) fn previous_record(header: &[u8]) -> Option<Lsn> {
    u64_at(header, 8).map(Lsn)
}

impl SegmentScanner {
    /// Reads one page, all records that begin or end on it.
    pub(super) fn read_page(
        &mut self,
        page: &[u8],
        address: Lsn,
        visitor: &mut impl RecordVisitor,
    ) -> Result<(), Stop> {
        let header = self.page_header(page, address)?;
        let mut at = SHORT_HEADER_SIZE;
        if address == self.segment.start {
            at = LONG_HEADER_SIZE;
            self.begin_head(&header)?;
        }
        if self.goes_on(&header, address)? {
            at = self.go_on(page, address, at, visitor)?;
        }
        while at < WAL_PAGE_SIZE {
            at = self.record(page, address, at, visitor)?;
        }
        Ok(())
    }

    /// Takes note of what the segment's first page says about a record from an earlier segment.
    fn begin_head(&mut self, header: &PageHeader) -> Result<(), Stop> {
        if !header.continues_record() && !header.overwrites_record() {
            return Ok(());
        }
        let start = self.segment.start;
        if header.continues_record() {
            let plausible = header.remaining > 0 && check_length(header.remaining.max(HEADER_SIZE as u32)).is_ok();
            if !plausible {
                return Err(Stop::certain(start, Flaw::RecordLength { found: header.remaining }));
            }
        }
        let remaining = if header.continues_record() { header.remaining } else { 0 };
        let overwrites = header.overwrites_record();
        self.head_open = !overwrites;
        self.head = Some(HeadPiece { start, remaining, length: 0, crc: 0, end: start, overwrites, bytes: Vec::new() });
        Ok(())
    }

    /// Whether the page begins with the rest of the open record (or head), which it must if there is one.
    fn goes_on(&mut self, header: &PageHeader, address: Lsn) -> Result<bool, Stop> {
        if header.overwrites_record() {
            if header.continues_record() {
                return Err(Stop::certain(self.open_start(address), Flaw::PageFlags { found: header.flags }));
            }
            // A crash lost the rest; the server wrote on from here. The record that stands here names the one before
            // the lost one, which is left to its checksum.
            self.open = None;
            self.last_record = None;
            if self.head_open {
                self.head_open = false;
                if let Some(head) = &mut self.head {
                    head.overwrites = true;
                }
            }
            return Ok(false);
        }
        let expected = self.lacks();
        let found = if header.continues_record() { header.remaining } else { 0 };
        if expected != found || (found == 0 && header.continues_record()) {
            return Err(Stop::certain(self.open_start(address), Flaw::Continuation { expected, found }));
        }
        Ok(expected > 0)
    }

    /// Bytes that the open record (or head) lacks; 0 if none is open.
    pub(super) fn lacks(&self) -> u32 {
        match (&self.open, &self.head) {
            (Some(open), _) => open.lacks(),
            (None, Some(head)) if self.head_open => head.remaining - head.length,
            _ => 0,
        }
    }

    /// Where the open record begins; `otherwise` if none is open.
    pub(super) fn open_start(&self, otherwise: Lsn) -> Lsn {
        self.open.as_ref().map_or(otherwise, |open| open.start)
    }

    /// Takes the page's part of the open record or head. Returns where on the page the next record begins.
    fn go_on(&mut self, page: &[u8], address: Lsn, at: usize, visitor: &mut impl RecordVisitor) -> Result<usize, Stop> {
        let part = (self.lacks() as usize).min(WAL_PAGE_SIZE - at);
        let bytes = &page[at..at + part];
        let next = at + aligned(part);
        let end = Lsn(address.0 + next as u64);
        if let Some(mut open) = self.open.take() {
            self.gather(&mut open, bytes, visitor)?;
            if open.lacks() == 0 {
                self.finish_open(&open, end, visitor)?;
            } else {
                self.open = Some(open);
            }
        } else if let Some(head) = &mut self.head {
            gather_head(head, bytes);
            head.end = end;
            self.facts.end = end;
            self.head_open = head.length < head.remaining;
            if !self.head_open {
                self.head_complete(visitor);
            }
        }
        Ok(next)
    }

    /// The record from the segment before is whole: hands it out, if its beginning is known.
    fn head_complete(&self, visitor: &mut impl RecordVisitor) {
        let (Some(before), Some(head)) = (&self.before, &self.head) else { return };
        let Ok(record) = before.complete(head, self.segment.major) else { return };
        if visitor.wants(&record.header) {
            visitor.record(&record.raw());
        }
        if let Some(event) = record.event(self.segment.major) {
            visitor.event(event);
        }
    }

    /// Takes more bytes of an open record.
    fn gather(&mut self, open: &mut OpenRecord, bytes: &[u8], visitor: &impl RecordVisitor) -> Result<(), Stop> {
        let have = open.have as usize;
        // A part of a page: fits 32 bits.
        #[allow(clippy::cast_possible_truncation)]
        let part = bytes.len() as u32;
        open.have += part;
        let mut body = bytes;
        if have < HEADER_SIZE {
            let (header, rest) = bytes.split_at((HEADER_SIZE - have).min(bytes.len()));
            open.header[have..have + header.len()].copy_from_slice(header);
            body = rest;
            if open.have as usize >= HEADER_SIZE {
                let header = RecordHeader::read(&open.header).ok_or_else(|| self.cut_off(open))?;
                header.check(self.segment.major).map_err(|why| self.bad_record(open.start, why, &open.header, None))?;
                open.keep = header.is_of_interest() || visitor.wants(&header);
                self.gathered.clear();
            }
        }
        open.crc = crc32c::crc32c_append(open.crc, body);
        if open.keep {
            let room = GATHER_LIMIT - self.gathered.len();
            self.gathered.extend_from_slice(&body[..body.len().min(room)]);
        }
        Ok(())
    }

    /// Proves a record over page borders that is whole now.
    fn finish_open(&mut self, open: &OpenRecord, end: Lsn, visitor: &mut impl RecordVisitor) -> Result<(), Stop> {
        let header = RecordHeader::read(&open.header).ok_or_else(|| self.cut_off(open))?;
        if !self.proves(&header, finish_crc(open.crc, &open.header)) {
            return Err(self.disproved(open.start, &header, &open.header, open.crc));
        }
        let gathered = std::mem::take(&mut self.gathered);
        let outcome = self.proved(open.start, &header, &gathered, end, visitor);
        self.gathered = gathered;
        outcome
    }

    /// Reads the record that begins at `at`. Returns where on the page the next one does.
    #[inline]
    fn record(
        &mut self,
        page: &[u8],
        address: Lsn,
        at: usize,
        visitor: &mut impl RecordVisitor,
    ) -> Result<usize, Stop> {
        let start = Lsn(address.0 + at as u64);
        let rest = &page[at..];
        let length = match u32_at(rest, 0) {
            None | Some(0) => return Err(self.no_record(start, rest)),
            Some(length) => length,
        };
        check_length(length).map_err(|why| self.bad_record(start, why, rest, None))?;
        let Some(record) = rest.get(..length as usize) else {
            return self.begin_open(start, length, rest, visitor);
        };
        let (header_bytes, body) = record.split_at(HEADER_SIZE);
        // `check_length` saw to it that the header is there.
        let header = RecordHeader::read(header_bytes).ok_or_else(|| self.no_record(start, rest))?;
        if !self.proves(&header, record_crc(record)) {
            return Err(self.disproved(start, &header, header_bytes, crc32c::crc32c(body)));
        }
        let next = at + aligned(record.len());
        self.proved(start, &header, body, Lsn(address.0 + next as u64), visitor)?;
        Ok(next)
    }

    /// Takes the beginning of a record that goes on at the next page.
    fn begin_open(
        &mut self,
        start: Lsn,
        length: u32,
        bytes: &[u8],
        visitor: &impl RecordVisitor,
    ) -> Result<usize, Stop> {
        let mut open = OpenRecord { start, length, have: 0, crc: 0, header: [0; HEADER_SIZE], keep: false };
        self.gather(&mut open, bytes, visitor)?;
        self.open = Some(open);
        Ok(WAL_PAGE_SIZE)
    }

    /// Whether header, checksum and the link to the record before are right. `found` is the record's CRC-32C.
    #[inline]
    fn proves(&self, header: &RecordHeader, found: u32) -> bool {
        let linked = self.last_record.is_none_or(|last| last == header.previous);
        linked && found == header.crc && header.check(self.segment.major).is_ok()
    }

    /// What is wrong with a record that [`Self::proves`] refused. `body` is the CRC-32C of what follows the header.
    #[cold]
    fn disproved(&self, start: Lsn, header: &RecordHeader, header_bytes: &[u8], body: u32) -> Stop {
        let found = finish_crc(body, header_bytes);
        let why = match (header.check(self.segment.major), self.last_record) {
            (Err(why), _) => why,
            (Ok(()), _) if found != header.crc => Flaw::Checksum { expected: header.crc, found },
            (Ok(()), expected) => {
                Flaw::PreviousRecord { expected: expected.unwrap_or_default(), found: header.previous }
            }
        };
        self.bad_record(start, why, header_bytes, Some(body))
    }

    /// Takes note of a proved record, and hands out its event.
    #[inline]
    fn proved(
        &mut self,
        start: Lsn,
        header: &RecordHeader,
        body: &[u8],
        end: Lsn,
        visitor: &mut impl RecordVisitor,
    ) -> Result<(), Stop> {
        if self.facts.first_record.is_none() {
            self.facts.first_record = Some(start);
            self.facts.before_first_record = Some(header.previous);
        }
        self.last_record = Some(start);
        self.facts.last_record = Some(start);
        self.facts.end = end;
        if visitor.wants(header) {
            let whole = HEADER_SIZE + body.len() == header.length as usize;
            visitor.record(&RawRecord { lsn: start, end_lsn: end, header: *header, body, whole });
        }
        // Almost all records are neither; they pass here hundreds of thousands of times a segment.
        if header.is_of_interest() {
            self.event(start, header, body, end, visitor);
        }
        if header.is_switch() { Err(Stop::Switch) } else { Ok(()) }
    }

    fn event(&mut self, start: Lsn, header: &RecordHeader, body: &[u8], end: Lsn, visitor: &mut impl RecordVisitor) {
        match read_event(header, body, self.segment.major) {
            Some((xid, kind)) => {
                let event = Event { lsn: start, end_lsn: end, xid, kind };
                self.facts.append(&event);
                visitor.event(event);
            }
            None => self.unread += 1,
        }
    }
}

/// Takes more bytes of a head. If it is short enough to hold an event it is kept whole, else as much of it as may
/// complete the record's header and tell which blocks it is about.
fn gather_head(head: &mut HeadPiece, bytes: &[u8]) {
    head.crc = crc32c::crc32c_append(head.crc, bytes);
    // A part of a page: fits 32 bits.
    #[allow(clippy::cast_possible_truncation)]
    let part = bytes.len() as u32;
    head.length += part;
    let limit = if head.remaining as usize <= PIECE_BYTES_LIMIT { PIECE_BYTES_LIMIT } else { HEADERS_LIMIT };
    let room = limit.saturating_sub(head.bytes.len());
    head.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
}
