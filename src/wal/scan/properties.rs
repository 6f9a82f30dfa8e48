//! What a visitor sees does not depend on how the WAL comes: in what pieces, from which segment on, and where the borders of
//! segments cut records.
//!
//! The truth is a reader of a few lines that takes consecutive segments for one stream, and proves nothing.

use std::sync::OnceLock;

use proptest::prelude::*;

use super::super::fixtures::{MAJORS, segments};
use super::super::record::{RecordHeader, read_event};
use super::super::{
    Borders, Event, Lsn, PIECE_BYTES_LIMIT, PostgresMajor, RawRecord, RecordVisitor, SegmentHeader, WAL_PAGE_SIZE,
};
use super::{Completeness, GATHER_LIMIT, SegmentScan, SegmentScanner};

/// What a visitor was called with.
#[derive(Clone, PartialEq, Debug)]
enum Call {
    Record { lsn: Lsn, end: Lsn, header: RecordHeader, body: Vec<u8>, whole: bool },
    Event(Event),
}

/// Takes note of all calls, and wants the records of some resource managers.
struct Notes {
    managers: u32,
    calls: Vec<Call>,
}

impl Notes {
    fn new(managers: u32) -> Self {
        Notes { managers, calls: Vec::new() }
    }
}

fn wants(managers: u32, header: &RecordHeader) -> bool {
    managers >> (header.manager % 32) & 1 == 1
}

impl RecordVisitor for Notes {
    fn event(&mut self, event: Event) {
        self.calls.push(Call::Event(event));
    }

    fn wants(&self, header: &RecordHeader) -> bool {
        wants(self.managers, header)
    }

    fn record(&mut self, record: &RawRecord<'_>) {
        let RawRecord { lsn, end_lsn, header, body, whole } = *record;
        self.calls.push(Call::Record { lsn, end: end_lsn, header, body: body.to_vec(), whole });
    }
}

/// The segments of a major, and all records that begin in them, as one stream.
struct Stream {
    segments: Vec<(SegmentHeader, Vec<u8>)>,
    records: Vec<(Lsn, Lsn, Vec<u8>)>,
}

fn stream(major: u16) -> &'static Stream {
    static STREAMS: [OnceLock<Stream>; MAJORS.len()] = [const { OnceLock::new() }; MAJORS.len()];
    let at = MAJORS.iter().position(|other| *other == major).expect("a major of the fixtures");
    STREAMS[at].get_or_init(|| {
        let segments = segments(major);
        let records = records(&segments);
        Stream { segments, records }
    })
}

/// Follows lengths from page to page, up to the segment switch. The first record is the one behind what an earlier segment began.
fn records(segments: &[(SegmentHeader, Vec<u8>)]) -> Vec<(Lsn, Lsn, Vec<u8>)> {
    let all: Vec<u8> = segments.iter().flat_map(|(_, raw)| raw).copied().collect();
    let (start, segment) = (segments[0].0.start.0, segments[0].1.len());
    let length_at = |at: usize| u32::from_le_bytes(all[at..at + 4].try_into().expect("four bytes")) as usize;
    // Passes over the header of a page that begins here.
    let content = |at: usize| match at {
        _ if at.is_multiple_of(segment) => at + 40,
        _ if at.is_multiple_of(WAL_PAGE_SIZE) => at + 24,
        _ => at,
    };
    let mut found: Vec<(Lsn, Lsn, Vec<u8>)> = Vec::new();
    let mut at = 0;
    let mut lacks = if all[2] & 1 == 1 { length_at(16) } else { 0 };
    let mut bytes = Vec::new();
    let mut first = 0;
    while at < all.len() {
        at = content(at);
        if lacks == 0 {
            (first, lacks) = (at, length_at(at));
            if lacks == 0 {
                break;
            }
        }
        let part = lacks.min(WAL_PAGE_SIZE - at % WAL_PAGE_SIZE);
        bytes.extend_from_slice(&all[at..at + part]);
        lacks -= part;
        at = (at + part).next_multiple_of(8);
        if lacks == 0 {
            found.push((Lsn(start + first as u64), Lsn(start + at as u64), std::mem::take(&mut bytes)));
        }
    }
    if all[2] & 1 == 1 {
        found.remove(0);
    }
    found
}

impl Stream {
    /// The calls that a visitor is to see of the WAL from a segment on.
    fn calls(&self, from: usize, managers: u32) -> Vec<Call> {
        let (begin, major) = (self.segments[from].0.start, self.segments[0].0.major);
        let of_record = |(lsn, end, bytes): &(Lsn, Lsn, Vec<u8>)| {
            let header = RecordHeader::read(bytes).expect("a record has a header");
            let body = &bytes[24..];
            let record = wants(managers, &header).then(|| Call::Record {
                lsn: *lsn,
                end: *end,
                header,
                body: body.to_vec(),
                whole: true,
            });
            let event = header.is_of_interest().then(|| {
                let (xid, kind) = read_event(&header, body, major).expect("an event");
                Call::Event(Event { lsn: *lsn, end_lsn: *end, xid, kind })
            });
            [record, event]
        };
        self.records.iter().filter(|(lsn, ..)| *lsn >= begin).flat_map(of_record).flatten().collect()
    }
}

/// Reads segments one after the other, each in pieces cut at the given places.
fn read(
    segments: &[(SegmentHeader, Vec<u8>)],
    cuts: &[usize],
    managers: u32,
    by_note: bool,
) -> (Vec<Call>, Vec<SegmentScan>) {
    let mut notes = Notes::new(managers);
    let mut scans = Vec::new();
    let mut borders = Borders::new();
    for (header, raw) in segments {
        let mut scanner = SegmentScanner::new(header, Completeness::Complete).after(borders.clone());
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (raw.len() + 1)).collect();
        places.extend([0, raw.len()]);
        places.sort_unstable();
        places.windows(2).for_each(|pair| scanner.feed_to(&raw[pair[0]..pair[1]], &mut notes));
        let scan = scanner.finish();
        borders.pass(scan.head.clone(), scan.tail.clone(), header.major);
        if by_note {
            // As from one call of the archiver to the next.
            let json = serde_json::to_string(&borders).expect("plain data");
            borders = serde_json::from_str(&json).expect("our own JSON");
        }
        scans.push(scan);
    }
    (notes.calls, scans)
}

/// The same calls, but that a record which is too long to be kept may be handed out without its end.
fn assert_same(found: &[Call], expected: &[Call], major: PostgresMajor) {
    assert_eq!(found.len(), expected.len(), "{major:?}");
    for pair in found.iter().zip(expected) {
        match pair {
            (
                Call::Record { lsn, end, header, body, whole: false },
                Call::Record { lsn: l, end: e, header: h, body: b, .. },
            ) => {
                assert_eq!((lsn, end, header), (l, e, h));
                assert!(b.starts_with(body) && (b.len() > GATHER_LIMIT || b.len() + 24 > PIECE_BYTES_LIMIT), "{lsn}");
            }
            (found, expected) => assert_eq!(found, expected, "{major:?}"),
        }
    }
}

/// Some cuts anywhere, and some beside the borders of pages.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    let anywhere = prop::collection::vec(0..=1_usize << 20, 0..12);
    let beside = prop::collection::vec((0..=128_usize, 0..50_usize), 0..12);
    (anywhere, beside).prop_map(|(mut cuts, beside)| {
        cuts.extend(beside.into_iter().map(|(page, after)| (page * WAL_PAGE_SIZE + after).saturating_sub(25)));
        cuts
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Promise: however the WAL comes, a visitor sees each record and each event that is in it, once, in order and complete.
    #[test]
    fn the_same_calls(
        major in prop::sample::select(&MAJORS[..]),
        from in 0..7_usize,
        cuts in cuts(),
        managers in prop_oneof![Just(u32::MAX), Just(0), any::<u32>()],
        by_note in any::<bool>(),
    ) {
        let stream = stream(major);
        let segments = &stream.segments[from..];
        let (calls, scans) = read(segments, &cuts, managers, by_note);
        assert_same(&calls, &stream.calls(from, managers), segments[0].0.major);
        let (whole_calls, whole_scans) = read(segments, &[], managers, false);
        prop_assert!(calls == whole_calls, "pieces matter");
        prop_assert_eq!(scans, whole_scans);
    }
}

/// The fixtures have what the property is about.
#[test]
fn records_over_borders() {
    for major in MAJORS {
        let Stream { segments, records } = stream(major);
        let size = segments[0].1.len() as u64;
        let over = records.iter().filter(|(lsn, end, _)| lsn.0 / size != (end.0 - 1) / size);
        let spans: Vec<u64> = over.map(|(lsn, end, _)| (end.0 - 1) / size - lsn.0 / size).collect();
        assert!(spans.len() >= 4 && spans.contains(&2), "{major}: {spans:?}");
    }
}
