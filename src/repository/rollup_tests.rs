//! Roll-ups beside the segments that they tell of: the same answers with and without, whatever is missing, new or damaged.

use std::sync::Arc;

use super::reindex::ProblemKind;
use super::wal::{NewWalFile, WalObjectName};
use super::*;
use crate::codec::Compression;
use crate::recovery::{WalCopy, WalEvidence, holes};
use crate::storage::{Fault, Faulty, Memory};
use crate::wal::fixtures::{MAJORS, segments};
use crate::wal::{
    Completeness, Event, PostgresMajor, SegmentFacts, SegmentHeader, SegmentName, SegmentSize, TimelineId, scan_segment,
};

const FIRST: TimelineId = TimelineId(1);

/// A repository in memory with a real server's segments.
struct Archive {
    memory: Memory,
    record: ServerRecord,
    segments: Vec<(SegmentHeader, Vec<u8>)>,
}

/// How a segment is archived.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// As always.
    Indexed,
    /// By somebody who does not read records.
    Unread,
    /// With the least of the records over its borders, as if those were very long.
    Trimmed,
}

impl Archive {
    fn new(major: u16) -> Archive {
        let memory = Memory::default();
        let repository = Repository::create(Arc::new(memory.clone()), PgTime(0)).expect("an empty store");
        let segments = segments(major);
        let record = ServerRecord {
            system_identifier: SystemIdentifier(7),
            major: PostgresMajor(major),
            segment_size_bytes: SegmentSize::try_from(1 << 20).expect("1 MiB is a segment size"),
            page_checksums: false,
            created_at: PgTime(0),
            created_by: String::new(),
            upgraded_from: None,
        };
        repository.cluster(&"main".parse().expect("a name")).add_server(&record).expect("memory takes it");
        Archive { memory, record, segments }
    }

    fn whole(major: u16, how: How) -> Archive {
        let archive = Archive::new(major);
        archive.segments.iter().for_each(|(header, raw)| archive.store(header, raw, how));
        archive
    }

    fn server_on(&self, storage: Arc<dyn Storage>) -> ServerRepository {
        Cluster { storage, name: "main".parse().expect("a name") }.server(self.record.system_identifier)
    }

    fn server(&self) -> ServerRepository {
        self.server_on(Arc::new(self.memory.clone()))
    }

    fn store(&self, header: &SegmentHeader, raw: &[u8], how: How) {
        let origin = Origin { host: "db1".to_owned(), source: "/data".to_owned(), program: "test".to_owned() };
        let mut new = NewWalFile::new(WalFileName::Segment(header.name), raw, origin, PgTime(1));
        if how != How::Unread {
            new = new.with_records(header);
        }
        if how == How::Trimmed {
            new.details.head = new.details.head.map(|head| head.trimmed(0));
            new.details.tail = new.details.tail.map(|tail| tail.trimmed(0));
        }
        self.server().archive(&new, Compression::Lz4).expect("memory takes it");
    }

    fn name(&self, at: usize) -> SegmentName {
        self.segments[at].0.name
    }

    fn key(&self, at: usize) -> Key {
        keys::object(self.server().folder(), WalObjectName::Segment(self.name(at)))
    }

    /// Everything that is asked about the stored segments.
    fn answers(&self) -> Vec<Answer> {
        let server = self.server();
        let mut evidence = server.evidence(&self.record);
        let snapshot = server.snapshot(&self.record).expect("memory answers");
        let numbers: Vec<_> = snapshot.timelines[&FIRST].segments.iter().collect();
        let copies = numbers
            .into_iter()
            .map(|number| WalCopy::Segment(SegmentName::new(FIRST, number, self.record.segment_size_bytes)));
        let answers = copies.map(|copy| Answer {
            facts: evidence.facts(&copy).expect("it is good"),
            stored_bytes: evidence.stored_bytes(&copy).expect("it is there"),
            remarkable: evidence.remarkable(&copy).expect("it is good"),
            events: evidence.events(&copy).expect("it is good"),
            copy,
        });
        answers.collect()
    }

    /// The part of it that is quick to ask for.
    fn facts(&self) -> Vec<SegmentFacts> {
        let mut evidence = self.server().evidence(&self.record);
        let copies = (0..self.segments.len()).map(|at| WalCopy::Segment(self.name(at)));
        copies.map(|copy| evidence.facts(&copy).expect("it is good")).collect()
    }

    /// Segments, read whole, roll-ups written, problems.
    fn reindex(&self, afresh: bool) -> (u64, u64, u64, Vec<(SegmentName, ProblemKind)>) {
        let server = self.server();
        let mut reindexer = server.reindexer(&self.record, afresh);
        let (mut segments, mut scanned, mut written, mut problems) = (0, 0, 0, Vec::new());
        for listing in server.listing(FIRST).expect("memory answers") {
            let report = reindexer.group(&listing, &|| true).expect("memory answers").expect("nobody stops it");
            segments += report.segments;
            scanned += report.scanned;
            written += u64::from(report.written);
            problems.extend(report.problems.into_iter().map(|problem| (problem.segment, problem.kind)));
        }
        (segments, scanned, written, problems)
    }

    fn roll_ups(&self) -> Vec<String> {
        self.server().storage().names(&keys::catalog(self.server().folder(), FIRST)).expect("memory answers")
    }
}

#[derive(Clone, PartialEq, Debug)]
struct Answer {
    copy: WalCopy,
    facts: SegmentFacts,
    stored_bytes: u64,
    remarkable: Vec<Event>,
    events: Vec<Event>,
}

/// A plan hears the same from a roll-up as from the segments, on every major, whether they were indexed when they were archived
/// or not, and however little their descriptions keep of the records over borders. A second run finds nothing to do.
#[test]
fn same_answers() {
    for major in MAJORS {
        let expected = Archive::whole(major, How::Indexed).answers();
        assert!(expected.iter().map(|answer| answer.remarkable.len()).sum::<usize>() > 0);
        for how in [How::Indexed, How::Unread, How::Trimmed] {
            let archive = Archive::whole(major, how);
            let count = archive.segments.len() as u64;
            let without: Vec<_> = archive.answers().into_iter().map(content).collect();
            assert_eq!(without, expected.iter().cloned().map(content).collect::<Vec<_>>(), "PostgreSQL {major}");
            let scanned = if how == How::Unread { count } else { 0 };
            assert_eq!(archive.reindex(false), (count, scanned, 1, Vec::new()));
            assert_eq!(archive.answers().into_iter().map(content).collect::<Vec<_>>(), without, "PostgreSQL {major}");
            assert_eq!(archive.reindex(false), (count, 0, 0, Vec::new()), "it is up to date");
            assert_eq!(archive.reindex(true), (count, scanned, 0, Vec::new()), "anew it comes out the same");
            assert_eq!(archive.roll_ups().len(), 1);
        }
    }
}

/// What does not depend on how a segment was archived.
fn content(answer: Answer) -> Answer {
    Answer { stored_bytes: 0, ..answer }
}

/// With a roll-up, the facts and sizes of all segments cost a listing of roll-ups, and one of them; and a look for what stands
/// before the first.
#[test]
fn requests() {
    let archive = Archive::whole(15, How::Indexed);
    archive.reindex(false);
    let counting = Faulty::new(Arc::new(archive.memory.clone()), u64::MAX, Fault::Die);
    let mut evidence = archive.server_on(Arc::new(counting.clone())).evidence(&archive.record);
    for at in 0..archive.segments.len() {
        let copy = WalCopy::Segment(archive.name(at));
        evidence.facts(&copy).expect("it is known");
        assert!(evidence.stored_bytes(&copy).expect("it is known") > 0);
        evidence.remarkable(&copy).expect("it is known");
    }
    assert_eq!(counting.steps(), 3);
}

/// An object that is gone is a hole although the roll-up still tells of it, and one that is new counts although no roll-up does.
#[test]
fn stale() {
    let archive = Archive::new(15);
    let last = archive.segments.len() - 1;
    archive.segments[..last].iter().for_each(|(header, raw)| archive.store(header, raw, How::Unread));
    assert_eq!(archive.reindex(false), (last as u64, last as u64, 1, Vec::new()));
    let expected = Archive::whole(15, How::Indexed).answers();
    let (header, raw) = &archive.segments[last];
    archive.store(header, raw, How::Indexed);
    let contents = |archive: &Archive| archive.answers().into_iter().map(content).collect::<Vec<_>>();
    assert_eq!(contents(&archive), expected.iter().cloned().map(content).collect::<Vec<_>>());
    // What was read whole once is not again.
    assert_eq!(archive.reindex(false), (last as u64 + 1, 0, 1, Vec::new()));
    assert_eq!(contents(&archive), expected.iter().cloned().map(content).collect::<Vec<_>>());
    assert_eq!(archive.roll_ups().len(), 1, "the fuller one replaces the other");

    archive.memory.delete(&archive.key(3)).expect("memory deletes");
    let found = holes(&archive.server().snapshot(&archive.record).expect("memory answers"));
    assert_eq!(found.iter().map(|hole| (hole.first, hole.segments)).collect::<Vec<_>>(), [(archive.name(3), 1)]);
    assert!(archive.answers().iter().all(|answer| answer.copy != WalCopy::Segment(archive.name(3))));
    assert_eq!(archive.reindex(false), (last as u64, 0, 1, Vec::new()), "a hole is no damage");
    assert_eq!(archive.roll_ups().len(), 1);
    // What leads into the segment behind the hole is not known now, and is again when the segment is back.
    let (header, raw) = &archive.segments[3];
    archive.store(header, raw, How::Indexed);
    assert_eq!(contents(&archive), expected.iter().cloned().map(content).collect::<Vec<_>>());
    archive.reindex(false);
    assert_eq!(contents(&archive), expected.into_iter().map(content).collect::<Vec<_>>());
}

/// A damaged roll-up is as good as none, and is made anew.
#[test]
fn damaged_roll_up() {
    let archive = Archive::whole(15, How::Indexed);
    let (expected, facts) = (archive.answers(), archive.facts());
    archive.reindex(false);
    let key = keys::catalog(archive.server().folder(), FIRST).join(&archive.roll_ups()[0]).expect("a key");
    let good = archive.memory.get(&key, 1 << 20).expect("it is there");
    for at in (0..good.len()).step_by(good.len() / 7) {
        archive.memory.damage(&key, |bytes| bytes[at] ^= 4);
        assert_eq!(archive.facts(), facts, "byte {at}");
        archive.memory.damage(&key, |bytes| bytes.clone_from(&good));
    }
    archive.memory.damage(&key, |bytes| bytes.truncate(good.len() / 2));
    assert_eq!(archive.answers(), expected);
    assert_eq!(archive.reindex(false).3, Vec::new());
    assert_eq!(archive.memory.get(&key, 1 << 20).expect("it is there"), good);
}

/// A record over a border that does not hold is found when the index is made, although both segments are good for themselves, and
/// closes what can be reached there. So is an object that cannot be read.
#[test]
fn damage() {
    for major in MAJORS {
        // The first byte that a segment has of the record over its border: nothing in the segment itself proves it.
        let mut archive = Archive::new(major);
        let begins_with_rest = |raw: &[u8]| raw[2] & 1 != 0;
        let at = (1..archive.segments.len()).find(|at| begins_with_rest(&archive.segments[*at].1)).expect("a border");
        archive.segments[at].1[40] ^= 1;
        archive.segments.iter().for_each(|(header, raw)| archive.store(header, raw, How::Indexed));
        let (count, name) = (archive.segments.len() as u64, archive.name(at));
        for (written, afresh) in [(1, false), (0, false), (0, true)] {
            let expected = (count, 0, written, vec![(name, ProblemKind::Border)]);
            assert_eq!(archive.reindex(afresh), expected, "PostgreSQL {major}");
        }
        let start =
            name.number(archive.record.segment_size_bytes).expect("its size").start(archive.record.segment_size_bytes);
        let facts = archive.server().evidence(&archive.record).facts(&WalCopy::Segment(name)).expect("it can be read");
        assert_eq!(facts, SegmentFacts::unreachable(start));

        let archive = Archive::whole(major, How::Indexed);
        archive.memory.damage(&archive.key(2), |bytes| bytes.truncate(5000));
        let expected = vec![(archive.name(2), ProblemKind::Unreadable)];
        assert_eq!(archive.reindex(false), (count - 1, 0, 1, expected));
        let mut evidence = archive.server().evidence(&archive.record);
        let refused = evidence.facts(&WalCopy::Segment(archive.name(2)));
        assert!(matches!(refused, Err(RepositoryError::Damaged { .. })), "{refused:?}");
    }
}

/// Two segments that both are good, of which one does not come after the other: the link to the record before tells.
#[test]
fn foreign_neighbours() {
    for major in MAJORS {
        let mut archive = Archive::new(major);
        let found = (1..archive.segments.len()).find_map(|at| {
            let (header, raw) = &archive.segments[at];
            let facts = scan_segment(raw, header, Completeness::Complete).facts;
            let record = usize::try_from(facts.first_record?.0 - header.start.0).ok()?;
            let length = u32::from_le_bytes(*raw[record..].first_chunk()?) as usize;
            // One that is whole on its page, so that its checksum is easily made right.
            (record % 8192 + length <= 8192).then_some((at, record, length))
        });
        let (at, record, length) = found.expect("a first record that is whole on its page");
        let raw = &mut archive.segments[at].1;
        raw[record + 8] ^= 8;
        let body = crc32c::crc32c(&raw[record + 24..record + length]);
        let crc = crc32c::crc32c_append(body, &raw[record..record + 20]);
        raw[record + 20..record + 24].copy_from_slice(&crc.to_le_bytes());
        archive.segments.iter().for_each(|(header, raw)| archive.store(header, raw, How::Indexed));
        assert_eq!(archive.reindex(false).3, [(archive.name(at), ProblemKind::Border)], "PostgreSQL {major}");
    }
}

/// What whoever archives knows makes the same roll-up, byte for byte, as reading the segments back, also of a segment that was there
/// already; what is missing from it is told by the segments.
#[test]
fn written_while_archiving() {
    let origin = || Origin { host: "db1".to_owned(), source: "/data".to_owned(), program: "test".to_owned() };
    for major in MAJORS {
        let archive = Archive::new(major);
        let (header, raw) = &archive.segments[1];
        archive.store(header, raw, How::Indexed);
        let server = archive.server();
        let (mut before, mut entries) = (None, Vec::new());
        for (header, raw) in &archive.segments {
            let mut new = server.begin_segment(header, Compression::Lz4).expect("memory takes it");
            new.write(raw).expect("memory takes it");
            let read = new.finish(before.as_ref(), Origin { program: "another".to_owned(), ..origin() });
            before = read.border().cloned();
            let stored = read.publish(PgTime(2), &mut raw.as_slice()).expect("memory takes it");
            entries.push(stored.entry.expect("it was read"));
        }
        let expected = archive.facts();
        server.put_entries(archive.name(0).group(), entries[1..].to_vec()).expect("memory takes it");
        assert_eq!(archive.facts(), expected, "PostgreSQL {major}: one entry is missing");
        entries.push(entries[0].clone());
        server.put_entries(archive.name(0).group(), entries).expect("memory takes it");
        assert_eq!(archive.facts(), expected, "PostgreSQL {major}");
        assert_eq!(archive.roll_ups().len(), 2);
        let count = archive.segments.len() as u64;
        assert_eq!(archive.reindex(false), (count, 0, 0, Vec::new()), "it is up to date");
        assert_eq!(archive.reindex(true), (count, 0, 0, Vec::new()), "anew it comes out the same");
    }
}

/// Whatever request fails, nothing is lost: the answers stay the same, and the next run brings the roll-up about.
#[test]
fn faults() {
    let archive = Archive::whole(15, How::Indexed);
    let expected = archive.facts();
    for step in 0.. {
        let faulty = Faulty::new(Arc::new(archive.memory.clone()), step, Fault::Die);
        let server = archive.server_on(Arc::new(faulty.clone()));
        let mut reindexer = server.reindexer(&archive.record, true);
        let listing = archive.server().listing(FIRST).expect("memory answers").remove(0);
        let outcome = reindexer.group(&listing, &|| true);
        assert_eq!(archive.facts(), expected, "fault at step {step}");
        archive.roll_ups().iter().for_each(|name| {
            let key = keys::catalog(archive.server().folder(), FIRST).join(name).expect("a key");
            archive.memory.delete(&key).expect("memory deletes");
        });
        if faulty.steps() <= step {
            assert!(outcome.is_ok(), "no fault was met");
            break;
        }
    }
}

/// A backup makes roll-ups of complete groups only, and leaves what has to be read whole to the command.
#[test]
fn beside_a_backup() {
    let archive = Archive::whole(15, How::Indexed);
    assert_eq!(archive.server().roll_up_complete(&archive.record, FIRST).expect("memory answers"), 0);
    assert_eq!(archive.roll_ups(), [""; 0]);
    let size = SegmentSize::try_from(1 << 30).expect("1 GiB is a segment size");
    let four = ServerRecord { segment_size_bytes: size, ..archive.record.clone() };
    let archive = Archive { record: four, ..archive };
    // With 1 GiB segments four make a group: the first four objects of any kind stand for one here.
    let server = archive.server();
    for low in 0..4 {
        let name = format!("000000020000000000{low:06X}");
        let new = NewWalFile::new(name.parse().expect("a name"), b"x", Origin::default(), PgTime(1));
        server.archive(&new, Compression::Lz4).expect("memory takes it");
    }
    assert_eq!(server.roll_up_complete(&archive.record, TimelineId(2)).expect("memory answers"), 1);
    let names = server.roll_ups(TimelineId(2)).expect("memory answers");
    assert_eq!(names.values().map(|name| name.count).collect::<Vec<_>>(), [0], "no segment has an index");
}
