//! Looking for the first record at or after an LSN while a stored segment is unpacked.

use std::io::{self, Write};

use crate::wal::{Lsn, RecordStart, SegmentName, SegmentSize, WAL_PAGE_SIZE, first_record_on_page};

/// Takes a segment's bytes; passes over the pages before the LSN, and over everything once the record is found.
pub(super) struct Seeking {
    segment_size: SegmentSize,
    lsn: Lsn,
    /// Where the next byte belongs.
    at: Lsn,
    page: Vec<u8>,
    outcome: RecordStart,
}

impl Seeking {
    pub(super) fn new(segment: SegmentName, segment_size: SegmentSize, lsn: Lsn) -> Self {
        // A name that does not fit the size has no pages here.
        let (at, outcome) = match segment.number(segment_size) {
            Ok(number) => (number.start(segment_size), RecordStart::Further),
            Err(_) => (Lsn::INVALID, RecordStart::End),
        };
        Seeking { segment_size, lsn, at, page: Vec::with_capacity(WAL_PAGE_SIZE), outcome }
    }

    pub(super) fn found(&self) -> Option<Lsn> {
        match self.outcome {
            RecordStart::Begins(lsn) => Some(lsn),
            RecordStart::Further | RecordStart::End => None,
        }
    }
}

impl Write for Seeking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut rest = bytes;
        while !rest.is_empty() && self.outcome == RecordStart::Further {
            let (part, further) = rest.split_at(rest.len().min(WAL_PAGE_SIZE - self.page.len()));
            self.page.extend_from_slice(part);
            rest = further;
            if self.page.len() == WAL_PAGE_SIZE {
                let end = Lsn(self.at.0 + WAL_PAGE_SIZE as u64);
                if end > self.lsn {
                    self.outcome = first_record_on_page(&self.page, self.at, self.segment_size, self.lsn);
                }
                self.at = end;
                self.page.clear();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
