//! The beginning of a WAL segment: page headers and records. Checksums are mended, so that mutations of a record's content
//! reach its parser; the file is called what its first header says.

#![no_main]

use everything::Everything;
use pitr::wal::{
    Borders, Completeness, LONG_HEADER_SIZE, Lsn, SegmentHeader, SegmentName, SegmentNo, SegmentScan, SegmentScanner,
    SegmentSize, TimelineId, WAL_PAGE_SIZE, scan_segment,
};

#[path = "../everything.rs"]
mod everything;

/// Bytes of a record's header; its checksum is in the last four.
const HEADER: usize = 24;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    mend_checksums(&mut bytes);
    let Some((name, size)) = name_in_header(&bytes) else { return };
    let Ok(header) = pitr::wal::check_segment_header(&bytes, name, size.bytes()) else { return };
    // A segment beside itself: pieces that no server makes.
    let mut borders = Borders::new();
    for completeness in [Completeness::Complete, Completeness::MayEnd] {
        let mut scanner = SegmentScanner::new(&header, completeness);
        let mut last = Lsn(0);
        scanner.feed(&bytes, &mut |event| {
            assert!(event.lsn >= last, "events come in the order of the WAL");
            last = event.lsn;
        });
        let scan = scanner.finish();
        assert!(completeness == Completeness::Complete || scan.damage.is_none(), "what may end is not damaged");
        let whole = scan_segment(&bytes, &header, completeness);
        assert_eq!(in_pieces(&bytes, &header, completeness), whole, "the size of pieces must not matter");
        let mut everything = Everything::new(header.major);
        let mut scanner = SegmentScanner::new(&header, completeness).after(borders.clone());
        scanner.feed_to(&bytes, &mut everything);
        everything.finish();
        assert_eq!(
            SegmentScan { events: whole.events, ..scanner.finish() },
            scan_segment(&bytes, &header, completeness)
        );
        borders.pass(scan.head, scan.tail, header.major);
    }
});

fn in_pieces(bytes: &[u8], header: &SegmentHeader, completeness: Completeness) -> SegmentScan {
    let mut events = Vec::new();
    let mut scanner = SegmentScanner::new(header, completeness);
    for piece in bytes.chunks(1000) {
        scanner.feed(piece, &mut |event| events.push(event));
    }
    SegmentScan { events, ..scanner.finish() }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn name_in_header(bytes: &[u8]) -> Option<(SegmentName, SegmentSize)> {
    let timeline = TimelineId(u32_at(bytes, 4)?);
    let address = Lsn(u64::from(u32_at(bytes, 12)?) << 32 | u64::from(u32_at(bytes, 8)?));
    let size = SegmentSize::try_from(u32_at(bytes, 32)?).ok()?;
    (timeline.0 > 0).then(|| (SegmentName::new(timeline, SegmentNo::of(address, size), size), size))
}

/// Gives the records of the first page that lie in it whole their right checksums: CRC-32C of the body, then of the header before it.
fn mend_checksums(bytes: &mut [u8]) {
    let page = bytes.len().min(WAL_PAGE_SIZE);
    let mut at = LONG_HEADER_SIZE;
    while let Some(length) = u32_at(bytes, at).map(|length| length as usize) {
        if length < HEADER || at + length > page {
            return;
        }
        let body = crc32c::crc32c(&bytes[at + HEADER..at + length]);
        let crc = crc32c::crc32c_append(body, &bytes[at..at + 20]);
        bytes[at + 20..at + 24].copy_from_slice(&crc.to_le_bytes());
        at += length.next_multiple_of(8);
    }
}
