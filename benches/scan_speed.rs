//! How quickly one core reads WAL that is in memory.
//!
//! `scan-speed ROUNDS FILE...` reads the segments, and prints as JSON what a second takes, in bytes: the best and the median round
//! of the scan with all its checks and events, and of three floors: the checksums of the same records, one checksum over each
//! page, and reading alone. The four take turns within each round.

use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use pitr::wal::{
    Completeness, Event, EventKind, RawRecord, RecordHeader, RecordVisitor, SegmentHeader, SegmentScanner,
    WAL_PAGE_SIZE, check_segment_header, scan_segment_for,
};
use serde_json::json;

/// Bytes of a record's header, and of the part that its checksum covers.
const HEADER: usize = 24;
const COVERED: usize = 20;

/// Something that goes over a segment.
type Way = fn(&Segment);

struct Segment {
    header: SegmentHeader,
    raw: Vec<u8>,
    /// Where the records are that lie on one page, header included.
    records: Vec<Range<usize>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [rounds, files @ ..] = words.as_slice() else {
        return Err("usage: scan-speed ROUNDS FILE...".into());
    };
    let segments: Vec<Segment> = files.iter().map(|file| read(Path::new(file))).collect::<Result<_, _>>()?;
    let bytes: usize = segments.iter().map(|segment| segment.raw.len()).sum();
    let records: usize = segments.iter().map(|segment| segment.records.len()).sum();
    let ways: [(&str, Way); 4] = [
        ("scan", scan),
        ("record_checksums", record_checksums),
        ("page_checksums", page_checksums),
        ("read", read_memory),
    ];
    let mut took = vec![Vec::new(); ways.len()];
    for _ in 0..rounds.parse::<usize>()? {
        for ((_, way), took) in ways.iter().zip(&mut took) {
            let begun = Instant::now();
            segments.iter().for_each(way);
            took.push(begun.elapsed().as_secs_f64());
        }
    }
    let rows = ways.iter().zip(&mut took).map(|((name, _), took)| {
        took.sort_by(f64::total_cmp);
        let speed = |seconds: f64| bytes as f64 / seconds;
        ((*name).to_owned(), json!({ "best": speed(took[0]), "median": speed(took[took.len() / 2]) }))
    });
    let speeds: serde_json::Map<_, _> = rows.collect();
    println!("{}", json!({ "bytes": bytes, "records": records, "bytes_a_second": speeds }));
    Ok(())
}

fn read(path: &Path) -> Result<Segment, Box<dyn Error>> {
    let raw = fs::read(path)?;
    let name = path.file_name().and_then(|name| name.to_str()).ok_or("no name")?.parse()?;
    let header = check_segment_header(&raw, name, raw.len() as u64)?;
    let mut places = Places { start: header.start.0, records: Vec::new() };
    SegmentScanner::new(&header, Completeness::Complete).feed_to(&raw, &mut places);
    Ok(Segment { header, raw, records: places.records })
}

/// Takes note of where records are.
struct Places {
    start: u64,
    records: Vec<Range<usize>>,
}

impl RecordVisitor for Places {
    fn event(&mut self, _: Event) {}

    fn wants(&self, _: &RecordHeader) -> bool {
        true
    }

    fn record(&mut self, record: &RawRecord<'_>) {
        let at = usize::try_from(record.lsn.0 - self.start).expect("within the segment");
        let end = at + HEADER + record.body.len();
        if at / WAL_PAGE_SIZE == (end - 1) / WAL_PAGE_SIZE {
            self.records.push(at..end);
        }
    }
}

fn scan(segment: &Segment) {
    // As archiving does it: ends of transactions go into the facts, and what is seldom is kept.
    let seldom = |event: &Event| !matches!(event.kind, EventKind::Commit(_) | EventKind::Abort(_));
    let scan = scan_segment_for(&segment.raw, &segment.header, Completeness::Complete, seldom);
    assert_eq!(scan.damage, None, "{}", segment.header.name);
    black_box(scan);
}

fn record_checksums(segment: &Segment) {
    let sum = segment.records.iter().fold(0, |sum, record| {
        let bytes = &segment.raw[record.clone()];
        sum ^ crc32c::crc32c_append(crc32c::crc32c(&bytes[HEADER..]), &bytes[..COVERED])
    });
    black_box(sum);
}

fn page_checksums(segment: &Segment) {
    let pages = segment.raw.chunks(WAL_PAGE_SIZE);
    black_box(pages.fold(0, |sum, page| sum ^ crc32c::crc32c(page)));
}

fn read_memory(segment: &Segment) {
    let words = segment.raw.as_chunks::<8>().0;
    black_box(words.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_ne_bytes(*word))));
}
