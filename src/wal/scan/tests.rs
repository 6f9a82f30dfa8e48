//! The scan against real WAL, whole and mutilated.

use std::collections::BTreeMap;
use std::ops::Range;

use proptest::prelude::*;

use super::super::fixtures::{MAJORS, dir, segments};
use super::super::{
    Borders, Damage, Event, EventKind, Flaw, Joined, Lsn, PostgresMajor, SegmentEnding, SegmentHeader, WAL_PAGE_SIZE,
    join,
};
use super::{Completeness, SegmentScan, SegmentScanner, scan_segment};

/// What a row does to a segment, given where a record of it begins.
type Change<'a> = &'a dyn Fn(usize, &mut [u8]);

const PAGE: usize = WAL_PAGE_SIZE;

/// The first fixture of a major: records from one end to the other.
fn full_segment(major: u16) -> (SegmentHeader, Vec<u8>) {
    segments(major).remove(0)
}

fn complete(header: &SegmentHeader, raw: &[u8]) -> SegmentScan {
    scan_segment(raw, header, Completeness::Complete)
}

/// Every commit and abort is found with the time that SQL told, on every major, over segment borders too.
#[test]
fn commits_and_times() {
    for major in MAJORS {
        let mut borders = Borders::new();
        let mut found = BTreeMap::new();
        let mut facts = Vec::new();
        for (header, raw) in segments(major) {
            let mut scan = complete(&header, &raw);
            assert_eq!((scan.damage, scan.unread), (None, 0));
            let joined = borders.pass(scan.head.clone(), scan.tail.clone(), header.major);
            let mut events = scan.events;
            if let Joined::Proved { event: Some(event), .. } = joined {
                scan.facts.prepend(&event);
                events.insert(0, event);
            }
            check_facts(&scan.facts, &events);
            for event in events {
                match event.kind {
                    EventKind::Commit(end) => found.insert(event.xid.0, end.time.0.to_string()),
                    EventKind::Abort(_) => found.insert(event.xid.0, "abort".to_owned()),
                    _ => None,
                };
            }
            facts.push(scan.facts);
        }
        let truth = std::fs::read_to_string(dir(major).join("truth")).expect("the truth is there");
        for line in truth.lines() {
            let (xid, end) = line.split_once(' ').expect("xid and time");
            let xid = xid.parse().expect("a number");
            assert_eq!(found.get(&xid).map(String::as_str), Some(end), "PostgreSQL {major}, transaction {xid}");
        }
        assert_eq!(facts.last().map(|facts| facts.ending), Some(SegmentEnding::Switch));
    }
}

/// The facts of a segment are those of its events.
fn check_facts(facts: &super::SegmentFacts, events: &[Event]) {
    let ends: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Commit(end) | EventKind::Abort(end) => Some((end.time, event.xid)),
            _ => None,
        })
        .collect();
    let commits: Vec<_> = events.iter().filter(|event| matches!(event.kind, EventKind::Commit(_))).collect();
    assert_eq!(facts.min_time, ends.iter().map(|end| end.0).min());
    assert_eq!(facts.max_time, ends.iter().map(|end| end.0).max());
    assert_eq!((facts.first_time, facts.first_xid), (ends.first().map(|end| end.0), ends.first().map(|end| end.1)));
    assert_eq!((facts.last_time, facts.last_xid), (ends.last().map(|end| end.0), ends.last().map(|end| end.1)));
    assert_eq!(facts.commits as usize, commits.len());
    assert_eq!((facts.commits + facts.aborts) as usize, ends.len());
    assert_eq!(facts.last_commit, commits.last().map(|event| event.lsn));
}

/// It does not matter in what pieces a segment is fed.
#[test]
fn pieces_of_any_size() {
    for major in MAJORS {
        for (header, raw) in segments(major) {
            let whole = complete(&header, &raw);
            for size in [1000, 8192, 8193, 100_000] {
                let mut events = Vec::new();
                let mut scanner = SegmentScanner::new(&header, Completeness::Complete);
                raw.chunks(size).for_each(|piece| scanner.feed(piece, &mut |event| events.push(event)));
                assert_eq!(SegmentScan { events, ..scanner.finish() }, whole);
            }
        }
    }
}

/// Where the bytes of records are in a segment, record by record: what checksums cover. Follows lengths and pages only.
fn records(raw: &[u8]) -> Vec<Vec<Range<usize>>> {
    let length_at = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().expect("four bytes")) as usize;
    let mut at = 40;
    let mut lacks = if raw[2] & 1 == 1 { length_at(16) } else { 0 };
    let mut records = Vec::new();
    let mut record = Vec::new();
    loop {
        if at % PAGE == 0 {
            if at == raw.len() {
                break;
            }
            at += 24;
        }
        if lacks == 0 {
            records.push(std::mem::take(&mut record));
            lacks = length_at(at);
            if lacks == 0 {
                break;
            }
        }
        let part = lacks.min(PAGE - at % PAGE);
        record.push(at..at + part);
        lacks -= part;
        at = (at + part).next_multiple_of(8);
    }
    records.push(record);
    records
}

/// Damage in a segment or at its borders, once the neighbours are known.
fn is_reported(scan: &SegmentScan, before: &SegmentScan, after: &SegmentScan, major: PostgresMajor) -> bool {
    let damaged = |joined| matches!(joined, Joined::Damaged(_));
    scan.damage.is_some()
        || damaged(join(before.tail.as_ref(), &[scan.head.as_ref()], major))
        || damaged(join(scan.tail.as_ref(), &[after.head.as_ref()], major))
}

/// Any flipped bit of any record is reported: in the segment itself, or at the border for a record that straddles it.
#[test]
fn flipped_bits() {
    for major in [13, 18] {
        let mut three: Vec<_> = segments(major);
        three.truncate(3);
        let scans: Vec<_> = three.iter().map(|(header, raw)| complete(header, raw)).collect();
        let (header, raw) = &mut three[1];
        assert!(scans[1].head.is_some() && scans[1].tail.is_some());
        assert!(!is_reported(&scans[1], &scans[0], &scans[2], header.major));
        let bytes: Vec<usize> = records(raw).into_iter().flatten().flatten().collect();
        assert!(bytes.len() > 900_000);
        // Every bit of the first and last records and headers, then samples of the long messages between.
        let ends = bytes.len() - 150;
        let sample = (0..200).chain((200..ends).step_by(15_013)).chain(ends..bytes.len());
        for (at, bit) in sample.flat_map(|index| (0..8).map(move |bit| (index, bit))) {
            let at = bytes[at];
            raw[at] ^= 1 << bit;
            let scan = complete(header, raw);
            assert!(is_reported(&scan, &scans[0], &scans[2], header.major), "bit {bit} of byte {at}");
            raw[at] ^= 1 << bit;
        }
    }
}

/// As above, for every record of a segment full of small ones: a bit of each header field and of the body.
#[test]
fn flipped_bits_of_small_records() {
    let (header, mut raw) = full_segment(17);
    let records = records(&raw);
    assert!(records.len() > 200, "{}", records.len());
    for record in records.iter().filter(|record| !record.is_empty()).take(records.len() - 2).skip(1).step_by(7) {
        let bytes: Vec<usize> = record.iter().cloned().flatten().collect();
        for at in [0, 3, 5, 9, 14, 16, 17, 19, 20, bytes.len() - 1] {
            raw[bytes[at]] ^= 1 << (at % 8);
            assert!(complete(&header, &raw).damage.is_some(), "byte {at} of the record at {:X}", bytes[0]);
            raw[bytes[at]] ^= 1 << (at % 8);
        }
    }
}

/// A segment cut at the end of a record, with `behind` written over the rest.
fn ends_at_record(behind: impl Fn(usize, &mut [u8])) -> (SegmentHeader, Vec<u8>, usize) {
    let (header, mut raw) = full_segment(16);
    let record = records(&raw).remove(200);
    let at = record.last().expect("a record has bytes").end.next_multiple_of(8);
    behind(at, &mut raw);
    (header, raw, at)
}

/// Turns pages from `from` on into those of an earlier segment, as in a recycled file.
fn make_old(raw: &mut [u8], from: usize) {
    for at in (from.next_multiple_of(PAGE)..raw.len()).step_by(PAGE) {
        let address = u64::from_le_bytes(raw[at + 8..at + 16].try_into().expect("eight bytes"));
        raw[at + 8..at + 16].copy_from_slice(&(address - (4 << 20)).to_le_bytes());
    }
}

/// The end of what was written is no damage: zeros, a recycled file's old pages, and old bytes right behind the last
/// record (a standby's last segment of a timeline that it left).
#[test]
fn ends() {
    let rows: [(&str, Change<'_>); 3] = [
        ("zeros", &|at, raw| raw[at..].fill(0)),
        ("old pages", &|at, raw| {
            raw[at..at.next_multiple_of(PAGE)].fill(0);
            make_old(raw, at);
        }),
        ("old bytes", &|at, raw| {
            make_old(raw, at);
            let page_end = at.next_multiple_of(PAGE);
            let old: Vec<u8> = raw[at - 4096..].iter().copied().take(page_end - at).collect();
            raw[at..page_end].copy_from_slice(&old);
        }),
    ];
    for (what, behind) in rows {
        let (header, raw, at) = ends_at_record(behind);
        for completeness in [Completeness::Complete, Completeness::MayEnd] {
            let scan = scan_segment(&raw, &header, completeness);
            assert_eq!(scan.damage, None, "{what}");
            assert_eq!(scan.facts.ending, SegmentEnding::Unfinished, "{what}");
            assert_eq!(scan.facts.end, Lsn(header.start.0 + at as u64), "{what}");
        }
    }
}

/// Damage is told from an end by what stands behind it, in a complete segment; a `.partial` just ends there.
#[test]
fn damage() {
    let rows: [(&str, Change<'_>); 9] = [
        ("a page of zeros", &|at, raw| raw[at.next_multiple_of(PAGE)..][..PAGE].fill(0)),
        ("a sector of zeros", &|at, raw| raw[at / 512 * 512..][..512].fill(0)),
        ("a file that ends in zeros within a record", &|at, raw| raw[at + 40..].fill(0)),
        ("old pages after a cut record", &|at, raw| make_old(raw, at)),
        ("a page of another place", &|at, raw| raw[at.next_multiple_of(PAGE) + 11] ^= 1),
        ("garbage", &|at, raw| raw[at.next_multiple_of(PAGE)..].fill(0x5A)),
        ("an unknown page flag", &|at, raw| raw[at.next_multiple_of(PAGE) + 2] |= 0x40),
        ("a later timeline", &|at, raw| raw[at.next_multiple_of(PAGE) + 4] = 2),
        ("another length to come", &|at, raw| raw[at.next_multiple_of(PAGE) + 16] ^= 1),
    ];
    for (what, change) in rows {
        let (header, raw, at) = ends_at_record(change);
        let damage = complete(&header, &raw).damage.unwrap_or_else(|| panic!("{what} is not reported"));
        let place = (damage.lsn.0 - header.start.0) as usize;
        assert!(place + 2 * PAGE > at && place <= at.next_multiple_of(PAGE), "{what}: {damage}");
        let partial = scan_segment(&raw, &header, Completeness::MayEnd);
        assert_eq!((partial.damage, partial.facts.ending), (None, SegmentEnding::Unfinished), "{what}");
    }
}

/// A file that is shorter than the segment is damaged, wherever it is cut.
#[test]
fn cut_short() {
    let (header, raw) = full_segment(15);
    for length in [0, 39, PAGE, PAGE + 1, raw.len() - 1] {
        let scan = complete(&header, &raw[..length]);
        let short = matches!(scan.damage, Some(Damage { why: Flaw::Short { found }, .. }) if found == length as u64);
        assert!(short, "{length}: {:?}", scan.damage);
    }
}

/// Pieces survive JSON, and still make the record.
#[test]
fn pieces_in_json() {
    let scans: Vec<_> = segments(18).iter().map(|(header, raw)| (header.major, complete(header, raw))).collect();
    let mut straddling = 0;
    for pair in scans.windows(2) {
        let json = serde_json::to_string(&(&pair[0].1.tail, &pair[1].1.head)).expect("plain data");
        let (tail, head): (Option<super::TailPiece>, Option<super::HeadPiece>) =
            serde_json::from_str(&json).expect("our own JSON");
        assert_eq!((&tail, &head), (&pair[0].1.tail, &pair[1].1.head));
        let joined = join(tail.as_ref(), &[head.as_ref()], pair[1].0);
        straddling += usize::from(matches!(joined, Joined::Proved { event: Some(_), .. }));
    }
    assert!(straddling >= 3, "{straddling}");
}

/// Neighbours that do not belong together are told apart.
#[test]
fn foreign_neighbours() {
    let scans: Vec<_> = segments(18).iter().map(|(header, raw)| complete(header, raw)).collect();
    let major = PostgresMajor(18);
    let (tail, head) = (scans[0].tail.as_ref(), scans[1].head.as_ref());
    assert!(matches!(join(tail, &[head], major), Joined::Proved { .. }));
    assert!(matches!(join(tail, &[None], major), Joined::Damaged(_)));
    assert!(matches!(join(None, &[head], major), Joined::Damaged(_)));
    assert!(matches!(join(tail, &[scans[2].head.as_ref()], major), Joined::Damaged(_)));
    assert_eq!(join(tail, &[], major), Joined::Incomplete);
    assert_eq!(join(None, &[None], major), Joined::Nothing);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in a segment, the scan ends, and with a result.
    #[test]
    fn mutated_segments(
        major in prop::sample::select(&MAJORS[..]),
        which in 0..4usize,
        changes in prop::collection::vec((0..1usize << 20, any::<u8>()), 1..20),
        block in (0..1usize << 20, 0..100_000usize, any::<u8>()),
        mode in prop::bool::ANY,
    ) {
        let (header, mut raw) = segments(major).remove(which);
        for (at, byte) in changes {
            raw[at] = byte;
        }
        let (at, length, byte) = block;
        let end = raw.len().min(at + length);
        raw[at..end].fill(byte);
        let completeness = if mode { Completeness::Complete } else { Completeness::MayEnd };
        let scan = scan_segment(&raw, &header, completeness);
        prop_assert!(scan.facts.end <= header.end());
        prop_assert!(completeness == Completeness::Complete || scan.damage.is_none());
    }

    /// So do random bytes behind a good page header.
    #[test]
    fn random_segments(bytes in prop::collection::vec(any::<u8>(), 0..40_000), major in prop::sample::select(&MAJORS[..])) {
        let (header, raw) = full_segment(major);
        let random = [&raw[..40], &bytes].concat();
        let scan = complete(&header, &random);
        prop_assert!(scan.damage.is_some());
    }
}
