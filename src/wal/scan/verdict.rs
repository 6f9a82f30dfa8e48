//! Damage, or the end of what was written?
//!
//! PostgreSQL's recovery takes the first record it cannot read for the end of the WAL; it has no other way to find
//! the end. An archive must not: a segment under its full name was written to its end (or switched), and what cannot
//! be read in it was written and lost. But such a file may also end early without harm: a standby with
//! `archive_mode = always` archives, when it follows to another timeline, what it has received of the old one's last
//! segment, and behind that stands whatever the recycled file held. Told apart by these rules:
//!
//! - A later page of the segment has its right address: WAL was written beyond. Damage.
//! - The bytes are a record of this very place: it names the last good record as the one before it, or would have a
//!   right checksum if it did. Damage. So any single flipped bit of a record is found.
//! - The place is on the segment's last page, and not all zero. Damage: the segment was written to its end.
//! - A page header is neither right, nor zero, nor one that this place had when the file held an earlier segment.
//!   Damage.
//! - Else nothing was written there: an end.

use super::super::bytes::array_at;
use super::super::page::{ALL_FLAGS, LONG_HEADER, PageHeader, SHORT_HEADER_SIZE};
use super::super::record::{HEADER_SIZE, RecordHeader};
use super::super::record_crc::finish_crc;
use super::super::{Damage, Flaw, Lsn, WAL_PAGE_SIZE};
use super::walk::previous_record;
use super::{OpenRecord, SegmentScanner};

/// Why reading ends before the segment does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    /// A segment switch.
    Switch,
    /// Something cannot be read.
    Flawed {
        /// What and where.
        damage: Damage,
        /// It was written there; else that depends on what later pages show.
        certain: bool,
    },
}

impl Stop {
    pub(super) fn certain(lsn: Lsn, why: Flaw) -> Self {
        Stop::Flawed { damage: Damage { lsn, why }, certain: true }
    }
}

impl SegmentScanner {
    /// Reads the page's header, which must be that of this place.
    pub(super) fn page_header(&mut self, page: &[u8], address: Lsn) -> Result<PageHeader, Stop> {
        let lsn = self.open_start(address);
        let header = PageHeader::read(page).ok_or(Stop::certain(lsn, Flaw::PageZero))?;
        if header.magic != self.magic || header.address != address {
            return Err(self.foreign_page(page, &header, address));
        }
        let long = header.flags & LONG_HEADER != 0;
        if header.flags & !ALL_FLAGS != 0 || long != (address == self.segment.start) {
            return Err(Stop::certain(lsn, Flaw::PageFlags { found: header.flags }));
        }
        if header.timeline < self.timeline || header.timeline > self.segment.name.timeline().0 {
            return Err(Stop::certain(lsn, Flaw::PageTimeline { found: header.timeline }));
        }
        self.timeline = header.timeline;
        Ok(header)
    }

    /// The page was written as part of this segment.
    pub(super) fn is_written(&self, page: &[u8], address: Lsn) -> bool {
        PageHeader::read(page).is_some_and(|header| header.magic == self.magic && header.address == address)
    }

    /// The page does not carry the address of its place.
    #[cold]
    fn foreign_page(&self, page: &[u8], header: &PageHeader, address: Lsn) -> Stop {
        let zero = page.iter().all(|byte| *byte == 0);
        let old = header.magic == self.magic
            && address.checked_sub(header.address).is_some_and(|age| age % self.segment.segment_size.bytes() == 0)
            && !self.follows(page, header);
        let why = if zero || old { self.open_flaw() } else { None };
        let why = why.unwrap_or(if zero {
            Flaw::PageZero
        } else if header.magic != self.magic {
            Flaw::PageMagic { found: header.magic }
        } else {
            Flaw::PageAddress { expected: address, found: header.address }
        });
        let certain = !(zero || old) || self.open_is_ours();
        Stop::Flawed { damage: Damage { lsn: self.open_start(address), why }, certain }
    }

    /// But for its address, the page is what must come next.
    fn follows(&self, page: &[u8], header: &PageHeader) -> bool {
        match self.lacks() {
            0 => {
                let first = page.get(SHORT_HEADER_SIZE..).and_then(previous_record);
                first.is_some() && first == self.last_record
            }
            lacks => header.continues_record() && header.remaining == lacks,
        }
    }

    /// What is wrong with the open record (or head) if nothing more of it was written.
    fn open_flaw(&self) -> Option<Flaw> {
        match (&self.open, &self.head) {
            (Some(open), _) => Some(Flaw::CutOff { expected: open.length, found: open.have }),
            (None, Some(head)) if self.head_open => Some(Flaw::CutOff { expected: head.remaining, found: head.length }),
            _ => None,
        }
    }

    /// The open record (or head) was written at this place, so its rest was too.
    fn open_is_ours(&self) -> bool {
        match &self.open {
            Some(open) => self.is_ours(&open.header[..HEADER_SIZE.min(open.have as usize)], None),
            None => self.head_open,
        }
    }

    /// An open record that ends before its header does: no length that [`super::super::record::check_length`] lets
    /// pass does that.
    #[cold]
    pub(super) fn cut_off(&self, open: &OpenRecord) -> Stop {
        Stop::certain(open.start, Flaw::CutOff { expected: open.length, found: open.have })
    }

    /// A record's length is zero: `rest` is the page from there on.
    #[cold]
    pub(super) fn no_record(&self, start: Lsn, rest: &[u8]) -> Stop {
        if rest.iter().all(|byte| *byte == 0) {
            return Stop::Flawed { damage: Damage { lsn: start, why: Flaw::RecordMissing }, certain: false };
        }
        self.bad_record(start, Flaw::RecordMissing, rest, None)
    }

    /// A record that cannot be right. `header` begins with the record's header as far as it is there, `body` is the
    /// CRC-32C of what follows it, if that is known.
    #[cold]
    pub(super) fn bad_record(&self, start: Lsn, why: Flaw, header: &[u8], body: Option<u32>) -> Stop {
        let page_end = start.0 / WAL_PAGE_SIZE as u64 * WAL_PAGE_SIZE as u64 + WAL_PAGE_SIZE as u64;
        let certain = page_end == self.segment.end().0 || self.is_ours(header, body);
        Stop::Flawed { damage: Damage { lsn: start, why }, certain }
    }

    /// The record was written at this place, whatever happened to it since.
    fn is_ours(&self, header: &[u8], body: Option<u32>) -> bool {
        let Some(last) = self.last_record else {
            return true;
        };
        if previous_record(header) == Some(last) {
            return true;
        }
        let mended = || {
            let mut header: [u8; HEADER_SIZE] = array_at(header, 0)?;
            header[8..16].copy_from_slice(&last.0.to_le_bytes());
            Some(finish_crc(body?, &header) == RecordHeader::read(&header)?.crc)
        };
        mended().unwrap_or(false)
    }
}
