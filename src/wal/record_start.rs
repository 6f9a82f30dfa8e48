//! Where records begin, without reading them: from a page's header and the lengths of the records on it.
//!
//! For WAL that was proved before ([`super::SegmentScanner`]): a length that cannot be is taken for the end.

use super::bytes::u32_at;
use super::page::{LONG_HEADER_SIZE, PageHeader, SHORT_HEADER_SIZE};
use super::record::check_length;
use super::{Lsn, SegmentSize, WAL_PAGE_SIZE};

/// What one page says about the first record that begins at or after an LSN.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordStart {
    /// It begins here.
    Begins(Lsn),
    /// None on this page; the next one tells.
    Further,
    /// Nothing more was written in this segment.
    End,
}

/// Looks for the first record that begins on a page at or after `lsn`. `page` has [`WAL_PAGE_SIZE`] bytes and begins at `address`.
#[must_use]
pub fn first_record_on_page(page: &[u8], address: Lsn, segment_size: SegmentSize, lsn: Lsn) -> RecordStart {
    let Some(header) = PageHeader::read(page).filter(|header| header.address == address) else {
        return RecordStart::End;
    };
    let long = address.0.is_multiple_of(segment_size.bytes());
    let mut at = if long { LONG_HEADER_SIZE } else { SHORT_HEADER_SIZE };
    if header.continues_record() {
        at += (header.remaining as usize).next_multiple_of(8);
    }
    while at < WAL_PAGE_SIZE {
        let length = u32_at(page, at).filter(|length| check_length(*length).is_ok());
        let Some(length) = length else { return RecordStart::End };
        let start = Lsn(address.0 + at as u64);
        if start >= lsn {
            return RecordStart::Begins(start);
        }
        at += (length as usize).next_multiple_of(8);
    }
    RecordStart::Further
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{MAJORS, segments};
    use super::super::{Completeness, scan_segment};
    use super::*;

    fn find(raw: &[u8], start: Lsn, lsn: Lsn) -> Option<Lsn> {
        let size = SegmentSize::try_from(1 << 20).expect("1 MiB is a segment size");
        let pages = raw.chunks_exact(WAL_PAGE_SIZE).zip((start.0..).step_by(WAL_PAGE_SIZE));
        for (page, address) in pages.filter(|(_, address)| address + WAL_PAGE_SIZE as u64 > lsn.0) {
            match first_record_on_page(page, Lsn(address), size, lsn) {
                RecordStart::Begins(lsn) => return Some(lsn),
                RecordStart::Further => {}
                RecordStart::End => return None,
            }
        }
        None
    }

    /// Every event of a real segment begins where its page says that a record does, and from one byte further on the next
    /// record is another one.
    #[test]
    fn agrees_with_the_scan() {
        for major in MAJORS {
            let mut seen = 0;
            for (header, raw) in segments(major) {
                let scan = scan_segment(&raw, &header, Completeness::MayEnd);
                assert_eq!(find(&raw, header.start, header.start), scan.facts.first_record, "{}", header.name);
                for event in scan.events {
                    seen += 1;
                    let from = |lsn| find(&raw, header.start, Lsn(lsn));
                    assert_eq!((from(event.lsn.0), from(event.lsn.0 - 7)), (Some(event.lsn), Some(event.lsn)));
                    let next = from(event.lsn.0 + 1);
                    assert!(next.is_none_or(|next| next >= event.end_lsn), "{next:?} after {event:?}");
                }
            }
            assert!(seen > 10, "PostgreSQL {major}: only {seen} events");
        }
    }
}
