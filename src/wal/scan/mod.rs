//! One pass over a segment: every record proved, and the events and facts in it.
//!
//! Takes the file in pieces of any size, as it is read, so that header check, proof, checksum and compression can all
//! see it while it is in the processor's cache, and a segment of 1 GiB needs no more memory than one of 1 MiB.
//! `walk` goes from record to record, `verdict` tells damage from the end of what was written. Records over a border
//! of two segments are left to [`join`](super::join).

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
mod verdict;
mod walk;

use super::record::HEADER_SIZE;
use super::{
    Borders, Damage, Event, EventsTo, Flaw, HeadPiece, Lsn, PIECE_BYTES_LIMIT, RecordVisitor, SegmentEnding,
    SegmentFacts, SegmentHeader, TailPiece, WAL_PAGE_SIZE,
};

/// Most bytes of a record over page borders that are gathered to read its event. The longest commit records list
/// thousands of dropped relations and invalidations; what exceeds this is cut ([`super::TransactionEnd::cut`]).
const GATHER_LIMIT: usize = 1024 * 1024;

/// What the file is that is scanned: tells the end of what was written from damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completeness {
    /// A segment under its full name, as the archiver hands it over: what cannot be read in it is damage, unless
    /// nothing was written there.
    Complete,
    /// A `.partial`, or the last segment of a server that crashed: whatever follows the last good record is the end.
    MayEnd,
}

/// Outcome of the scan of one segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentScan {
    /// What is to be known about the segment without reading it again.
    pub facts: SegmentFacts,
    /// What happened, in LSN order; empty if the events went to a sink of the caller's.
    pub events: Vec<Event>,
    /// The rest of a record that began in an earlier segment. Not proved by this scan.
    pub head: Option<HeadPiece>,
    /// The beginning of a record that goes on in the next segment. Not proved by this scan.
    pub tail: Option<TailPiece>,
    /// Where the segment is not what a server wrote.
    pub damage: Option<Damage>,
    /// Number of proved records of interest whose content has no form that is known here: events that are missing.
    pub unread: u32,
}

/// Scans a whole segment that is in memory.
#[must_use]
pub fn scan_segment(raw: &[u8], header: &SegmentHeader, completeness: Completeness) -> SegmentScan {
    scan_segment_for(raw, header, completeness, |_| true)
}

/// As [`scan_segment`], with only those events that are wanted: a segment of 1 GiB may hold millions of commits.
#[must_use]
pub fn scan_segment_for(
    raw: &[u8],
    header: &SegmentHeader,
    completeness: Completeness,
    wanted: impl Fn(&Event) -> bool,
) -> SegmentScan {
    let mut events = Vec::new();
    let mut scanner = SegmentScanner::new(header, completeness);
    scanner.feed(raw, &mut |event| {
        if wanted(&event) {
            events.push(event);
        }
    });
    SegmentScan { events, ..scanner.finish() }
}

/// Scans a segment piece by piece, in memory that does not grow with it.
#[derive(Debug)]
pub struct SegmentScanner {
    segment: SegmentHeader,
    magic: u16,
    completeness: Completeness,
    /// Address of the next page.
    next: Lsn,
    /// Timeline of the last page: it never goes back.
    timeline: u32,
    state: State,
    /// Where the last proved record begins, if the next one must name it as the one before it.
    last_record: Option<Lsn>,
    /// The record that goes on at the next page.
    open: Option<OpenRecord>,
    /// The head goes on at the next page.
    head_open: bool,
    /// Body of the open record, if it may be an event.
    gathered: Vec<u8>,
    /// Beginning of a page whose rest was not fed yet.
    page: Vec<u8>,
    facts: SegmentFacts,
    head: Option<HeadPiece>,
    /// What ended the segments before, if the record over the border is to be handed out.
    before: Option<Borders>,
    damage: Option<Damage>,
    unread: u32,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Records follow.
    Reading,
    /// Nothing readable follows; it is damage if a later page turns out to be written.
    Ended(Damage),
    /// What follows is of no interest.
    Done,
}

/// A record over a page border, as far as it was seen.
#[derive(Clone, Copy, Debug)]
struct OpenRecord {
    start: Lsn,
    length: u32,
    have: u32,
    /// CRC-32C of the body so far.
    crc: u32,
    header: [u8; HEADER_SIZE],
    /// It may be an event: its body is gathered.
    keep: bool,
}

impl OpenRecord {
    fn lacks(&self) -> u32 {
        self.length - self.have
    }
}

impl SegmentScanner {
    /// A scanner for the segment that `header` was read from.
    #[must_use]
    pub fn new(header: &SegmentHeader, completeness: Completeness) -> Self {
        SegmentScanner {
            segment: *header,
            magic: header.major.page_magic(),
            completeness,
            next: header.start,
            timeline: header.first_timeline.0,
            state: State::Reading,
            last_record: None,
            open: None,
            head_open: false,
            gathered: Vec::new(),
            page: Vec::new(),
            facts: SegmentFacts::new(header.start),
            head: None,
            before: None,
            damage: None,
            unread: 0,
        }
    }

    /// With what ended the segments before: the record over the border goes to the visitor too, when it is whole, before
    /// those behind it. Facts and pieces stay those of this segment alone.
    #[must_use]
    pub fn after(mut self, before: Borders) -> Self {
        self.before = Some(before);
        self
    }

    /// Takes the next bytes of the file, from its first on, in pieces of any size. Events go to `events` in LSN order.
    /// Bytes beyond the segment's size are ignored.
    pub fn feed(&mut self, bytes: &[u8], events: &mut dyn FnMut(Event)) {
        self.feed_to(bytes, &mut EventsTo(events));
    }

    /// As [`SegmentScanner::feed`], for a visitor that wants to see other records too.
    pub fn feed_to(&mut self, mut bytes: &[u8], visitor: &mut impl RecordVisitor) {
        if !self.page.is_empty() {
            let missing = WAL_PAGE_SIZE - self.page.len();
            let (rest, further) = bytes.split_at(missing.min(bytes.len()));
            self.page.extend_from_slice(rest);
            bytes = further;
            if self.page.len() < WAL_PAGE_SIZE {
                return;
            }
            let page = std::mem::take(&mut self.page);
            self.page(&page, visitor);
            self.page = page;
            self.page.clear();
        }
        let pages = bytes.chunks_exact(WAL_PAGE_SIZE);
        self.page.extend_from_slice(pages.remainder());
        for page in pages {
            self.page(page, visitor);
        }
    }

    fn page(&mut self, page: &[u8], visitor: &mut impl RecordVisitor) {
        let address = self.next;
        if address >= self.segment.end() {
            return;
        }
        self.next = Lsn(address.0 + WAL_PAGE_SIZE as u64);
        match self.state {
            State::Reading => {
                if let Err(stop) = self.read_page(page, address, visitor) {
                    self.stop(stop);
                }
            }
            State::Ended(damage) if self.is_written(page, address) => self.damaged(damage),
            State::Ended(_) | State::Done => {}
        }
    }

    /// The outcome, after the last byte of the file.
    #[must_use]
    pub fn finish(mut self) -> SegmentScan {
        let mut tail = None;
        if matches!(self.state, State::Reading) {
            if self.next < self.segment.end() {
                let found = self.next.0 - self.segment.start.0 + self.page.len() as u64;
                let damage = Damage { lsn: self.next, why: Flaw::Short { found } };
                self.stop(verdict::Stop::Flawed { damage, certain: true });
            } else if let Some(open) = self.open {
                tail = Some(self.tail(&open));
            }
        }
        SegmentScan {
            facts: self.facts,
            events: Vec::new(),
            head: self.head,
            tail,
            damage: self.damage,
            unread: self.unread,
        }
    }

    fn tail(&mut self, open: &OpenRecord) -> TailPiece {
        let header = &open.header[..HEADER_SIZE.min(open.have as usize)];
        if self.facts.first_record.is_none() {
            self.facts.first_record = Some(open.start);
            self.facts.before_first_record = walk::previous_record(header);
        }
        let body = &self.gathered[..self.gathered.len().min(PIECE_BYTES_LIMIT - header.len())];
        TailPiece {
            start: open.start,
            total_length: open.length,
            length: open.have,
            crc: open.crc,
            bytes: if open.keep { [header, body].concat() } else { header.to_vec() },
        }
    }

    /// Takes note of why reading ends before the segment does.
    fn stop(&mut self, stop: verdict::Stop) {
        self.open = None;
        self.head_open = false;
        self.facts.ending = SegmentEnding::Unfinished;
        self.state = State::Done;
        match (stop, self.completeness) {
            (verdict::Stop::Switch, _) => self.facts.ending = SegmentEnding::Switch,
            (verdict::Stop::Flawed { .. }, Completeness::MayEnd) => {}
            (verdict::Stop::Flawed { damage, certain: true }, Completeness::Complete) => self.damaged(damage),
            (verdict::Stop::Flawed { damage, certain: false }, Completeness::Complete) => {
                self.state = State::Ended(damage);
            }
        }
    }

    fn damaged(&mut self, damage: Damage) {
        self.damage = Some(damage);
        self.state = State::Done;
    }
}
