//! What is removed and what is not, on a store in memory.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use super::*;
use crate::catalog::{BackupInfo, BackupWal, INFO_FORMAT, Saying, WalRange};
use crate::chunk::{ChunkContent, ChunkId, ChunkRef, EntryPath, Place, frame};
use crate::codec::{Compression, Details, Origin};
use crate::manifest::{FileEntry, MANIFEST_FORMAT, ManifestHeader, ManifestStop, ManifestWriter};
use crate::repository::notes::Author;
use crate::repository::wal::NewWalFile;
use crate::repository::{Remembering, Repository, RepositoryError, ServerRepository};
use crate::storage::{Memory, Storage};
use crate::wal::{BackupSource, Lsn, PostgresMajor, SegmentName, SegmentNo, SegmentSize, TimelineId};

pub(super) const MIB: u64 = 1 << 20;
pub(super) const HOUR: i64 = 3_600_000_000;
pub(super) const DAY: i64 = 24 * HOUR;
/// How long marks stand.
pub(super) const AGE: i64 = 3 * DAY;
/// When the story begins.
pub(super) const BEGIN: i64 = 9_000 * DAY;

pub(super) fn size() -> SegmentSize {
    SegmentSize::try_from(1 << 20).expect("a size")
}

pub(super) fn record() -> ServerRecord {
    serde_json::from_str(
        r#"{"system_identifier": "7", "major": 16, "segment_size_bytes": 1048576, "page_checksums": true,
            "created_at": "2024-01-01T00:00:00Z", "created_by": "db1"}"#,
    )
    .expect("a record")
}

pub(super) fn open(storage: Arc<dyn Storage>) -> ServerRepository {
    let repository = Repository::open(storage.clone()).or_else(|_| Repository::create(storage, PgTime(BEGIN)));
    repository.expect("a repository").cluster(&"main".parse().expect("a name")).server(SystemIdentifier(7))
}

pub(super) fn id(at: i64, random: u32) -> BackupId {
    BackupId::new(PgTime(at), random)
}

pub(super) fn rules(now: i64, count: Option<u32>) -> Rules {
    let retention = Retention { days: None, count };
    Rules { retention, age_us: AGE, host: "keeper".to_owned(), now: PgTime(now), superseded: false }
}

/// Stores the pack 0 of a backup; where its only chunk lies.
pub(super) fn put_pack(server: &ServerRepository, backup: BackupId) -> Result<Place, RepositoryError> {
    let pack = PackId { backup, number: 0 };
    let stored = frame::compress(backup.to_string().as_bytes(), Compression::Lz4).expect("memory");
    let mut object = server.create_pack(pack)?;
    object.write_all(&stored).map_err(|error| server.pack_failed(pack, &error))?;
    server.publish_pack(pack, object)?;
    Ok(Place { source: 0, pack: 0, offset: 0, length: u32::try_from(stored.len()).expect("small") })
}

/// Declares a backup of one segment complete, with a chunk from its own pack and one from each of `parents`.
pub(super) fn commit(
    server: &ServerRepository,
    backup: BackupId,
    own: Place,
    parents: &[(BackupId, Place)],
    segment: u64,
    clock: &dyn Fn() -> PgTime,
) -> Result<(), RepositoryError> {
    let (start, stop) = (Lsn(segment * MIB + 100), Lsn(segment * MIB + 200));
    let timeline = TimelineId(1);
    let (major, at) = (record().major, PgTime(backup.started_at().0));
    let wal_ranges = vec![WalRange { timeline, start_lsn: start, end_lsn: stop }];
    let info = info(backup, major, start, stop, &wal_ranges);
    let sources = std::iter::once(backup).chain(parents.iter().map(|(parent, _)| *parent)).collect();
    let header = header(&info, sources);
    let manifest = ManifestWriter::new(server.create_manifest(backup)?, header);
    let failed = |error| server.manifest_failed(backup, &error);
    let mut manifest = manifest.map_err(failed)?;
    let mut packs = BTreeSet::from([PackId { backup, number: 0 }]);
    for (source, (of, place)) in std::iter::once((backup, own)).chain(parents.iter().copied()).enumerate() {
        let raw = of.to_string().into_bytes();
        let base = Place { source: u16::try_from(source).expect("few"), ..place };
        let content = ChunkContent::Stored { id: ChunkId::of(&raw), base, sets: Vec::new() };
        let raw_length = u32::try_from(raw.len()).expect("short");
        let path = EntryPath::new(format!("f{source}").as_bytes()).expect("a path");
        let chunks = vec![ChunkRef { raw_length, crc32c: None, content }];
        let size = u64::from(raw_length);
        let file =
            FileEntry { path, tablespace: None, mode: 0o600, size, modified_at: 0, from: 0, chunks, crc32c: None };
        manifest.write(crate::manifest::ManifestLine::File(file)).map_err(failed)?;
        packs.insert(PackId { backup: of, number: 0 });
    }
    let stop = ManifestStop {
        source: BackupSource::Primary,
        stop_lsn: stop,
        stop_timeline: timeline,
        stop_time: at,
        wal_ranges,
        bad_pages: Vec::new(),
    };
    let (object, _) = manifest.finish(stop).map_err(failed)?;
    server.put_backup_info(&info)?;
    server.commit_manifest(backup, object, &packs, "db1", clock)
}

fn header(info: &BackupInfo, pack_sources: Vec<BackupId>) -> ManifestHeader {
    ManifestHeader {
        format: MANIFEST_FORMAT,
        id: info.id,
        cluster: info.cluster.clone(),
        system_identifier: info.system_identifier,
        postgres_major: info.postgres_major,
        postgres_version: info.postgres_version.clone(),
        segment_size: info.segment_size,
        block_size: 8192,
        page_checksums: true,
        label: String::new(),
        start_lsn: info.start_lsn,
        start_timeline: info.start_timeline,
        start_time: info.start_time,
        tablespaces: Vec::new(),
        compression: "lz4".to_owned(),
        tool_version: "test".to_owned(),
        pack_sources,
    }
}

fn info(id: BackupId, postgres_major: PostgresMajor, start: Lsn, stop: Lsn, ranges: &[WalRange]) -> BackupInfo {
    BackupInfo {
        format: INFO_FORMAT,
        id,
        cluster: "main".to_owned(),
        system_identifier: SystemIdentifier(7),
        postgres_major,
        postgres_version: "16.1".to_owned(),
        segment_size: size(),
        label: String::new(),
        source: BackupSource::Primary,
        start_lsn: start,
        start_timeline: TimelineId(1),
        start_time: id.started_at(),
        stop_lsn: stop,
        stop_timeline: TimelineId(1),
        stop_time: id.started_at(),
        wal_ranges: ranges.to_vec(),
        tablespaces: Vec::new(),
        files: 1,
        raw_bytes: 1,
        stored_bytes: 1,
        packs: 1,
        parent: None,
        referenced_bytes: 0,
        changed_only: false,
        read: crate::catalog::ReadBy::Protocol,
        compression: "lz4".to_owned(),
        page_checksums: true,
        bad_pages: 0,
        wal: BackupWal::Archive,
        configuration_missing: Vec::new(),
        tool_version: "test".to_owned(),
    }
}

/// Archives segments of timeline 1.
pub(super) fn put_wal(server: &ServerRepository, segments: impl IntoIterator<Item = u64>) {
    for segment in segments {
        let name = SegmentName::new(TimelineId(1), SegmentNo(segment), size());
        let file = NewWalFile {
            file: name.to_string().parse().expect("a name"),
            raw: &segment.to_le_bytes(),
            written_by: None,
            facts: None,
            details: Details { archived_by: Origin::default(), ..Details::default() },
            archived_at: PgTime(BEGIN),
        };
        server.archive(&file, Compression::Lz4).expect("archived");
    }
}

/// A complete backup.
pub(super) fn backup(
    server: &ServerRepository,
    at: i64,
    segment: u64,
    parents: &[(BackupId, Place)],
) -> (BackupId, Place) {
    let backup = id(at, 1);
    let place = put_pack(server, backup).expect("stored");
    commit(server, backup, place, parents, segment, &|| PgTime(at)).expect("complete");
    (backup, place)
}

/// Plans and carries out; what was removed.
pub(super) fn collect(server: &ServerRepository, rules: &Rules) -> Collected {
    let plan = server.plan_collection(&record(), rules).expect("planned");
    let mut said = Vec::new();
    let done =
        server.collect(&plan, &|| rules.now, &|| true, &mut |going| said.push(going.clone())).expect("carried out");
    assert_eq!(said, plan.going, "what the plan shows is what is done");
    assert_eq!(done.removed, said);
    done
}

pub(super) fn forget(server: &ServerRepository, backup: BackupId, now: i64) {
    let notes = server.backup_notes(backup).expect("notes");
    let says = Saying::Forgotten { why: "a test".to_owned() };
    server.add_note(backup, &notes, &author(now), says).expect("noted");
}

pub(super) fn author(now: i64) -> Author {
    Author { host: "db1".to_owned(), now: PgTime(now) }
}

/// Every live backup can be read to its last byte.
pub(super) fn prove(server: &ServerRepository) -> Vec<BackupId> {
    let live = server.live_backups().expect("listed");
    live.iter().for_each(|info| read_through(server, info.id).expect("whole"));
    live.iter().map(|info| info.id).collect()
}

/// Reads a backup as a restore does.
pub(super) fn read_through(server: &ServerRepository, id: BackupId) -> Result<(), RepositoryError> {
    let mut manifest = server.open_manifest(id)?;
    let sources = manifest.header().pack_sources.clone();
    for line in manifest.by_ref() {
        if let crate::manifest::ManifestLine::File(file) = line.map_err(|error| server.manifest_error(id, error))? {
            for chunk in &file.chunks {
                server.read_chunk(&sources, chunk)?;
            }
        }
    }
    Ok(())
}

pub(super) fn segments(server: &ServerRepository) -> Vec<u64> {
    let objects = server.wal_objects(TimelineId(1)).expect("listed");
    objects.iter().map(|object| object.name.segment().number(size()).expect("ours").0).collect()
}

/// All names in a store.
pub(super) fn all_keys(storage: &dyn Storage) -> BTreeSet<String> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![crate::storage::Key::root()]);
    while let Some(folder) = folders.pop() {
        for entry in storage.list(&folder).expect("listed") {
            let key = folder.join(&entry.name).expect("a key");
            if entry.folder {
                folders.push(key);
            } else {
                found.insert(key.to_string());
            }
        }
    }
    found
}

/// A forgotten backup goes when its mark is due, with its packs and the WAL before the others, and nothing else does; packs that
/// another one refers to stay.
#[test]
fn forgotten_backups_go() {
    let server = open(Arc::new(Memory::default()));
    put_wal(&server, 1..=40);
    let (a, at_a) = backup(&server, BEGIN, 5, &[]);
    let (b, at_b) = backup(&server, BEGIN + DAY, 15, &[]);
    let (c, _) = backup(&server, BEGIN + 2 * DAY, 25, &[(a, at_a)]);
    let now = BEGIN + 3 * DAY;
    // Nothing was forgotten, and there are no rules: even what lies before the first backup stays.
    let all = all_keys(server.storage().as_ref());
    assert!(server.plan_collection(&record(), &rules(now, None)).expect("planned").is_empty());
    forget(&server, a, now);
    forget(&server, b, now + HOUR);
    assert_eq!(prove(&server), [c]);
    assert_eq!(collect(&server, &rules(now + HOUR, None)), Collected::default());
    assert_eq!(collect(&server, &rules(now + AGE, None)), Collected::default(), "a mark stands for its time");
    let marks = all_keys(server.storage().as_ref()).difference(&all).count();
    assert_eq!(marks, 3, "two notes and one mark");
    let done = collect(&server, &rules(now + HOUR + AGE, None));
    assert_eq!(done.removed.len(), 4, "two backups, one of two packs, WAL: {:?}", done.removed);
    assert_eq!(prove(&server), [c], "a pack of a forgotten backup is still there for it");
    let content = ChunkContent::Stored { id: ChunkId([0; 32]), base: at_b, sets: Vec::new() };
    let gone = server.fetch_frames(&[b], [&ChunkRef { raw_length: 1, crc32c: None, content }]);
    assert!(matches!(gone, Err(RepositoryError::Storage(error)) if error.is_not_found()));
    assert!(!server.is_complete(a).expect("tells"));
    assert_eq!(segments(&server), (1..5).chain(25..=40).collect::<Vec<_>>());
    let expired = server.expired_wal(size()).expect("read");
    assert_eq!(expired[&TimelineId(1)].len(), 20);
    // The last one that needed it goes, and so does the pack.
    let last = now + 2 * AGE;
    let (d, _) = backup(&server, last, 35, &[]);
    forget(&server, c, last);
    collect(&server, &rules(last, None));
    collect(&server, &rules(last + AGE, None));
    assert_eq!(prove(&server), [d]);
    assert_eq!(server.packs().expect("listed").len(), 1);
    assert!(server.plan_collection(&record(), &rules(last + 9 * AGE, None)).expect("planned").is_empty());
}

/// A forgotten backup that is remembered is whole, whenever that happens, and its mark is taken back.
#[test]
fn remembered_backups_stay() {
    let server = open(Arc::new(Memory::default()));
    put_wal(&server, 1..=40);
    let (a, _) = backup(&server, BEGIN, 5, &[]);
    let (b, _) = backup(&server, BEGIN + DAY, 15, &[]);
    let now = BEGIN + 2 * DAY;
    forget(&server, a, now);
    collect(&server, &rules(now, None));
    assert!(server.doomed().expect("read").has_backup(a));
    assert_eq!(server.remember(a, &author(now)).expect("said"), Remembering::Done);
    assert_eq!(prove(&server), [a, b]);
    collect(&server, &rules(now + HOUR, None));
    assert!(!server.doomed().expect("read").has_backup(a), "others may build on it again");
    // Forgotten anew, it has its whole time again.
    forget(&server, a, now + 2 * DAY);
    collect(&server, &rules(now + AGE, None));
    assert!(server.is_complete(a).expect("tells"));
    assert_eq!(server.remember(a, &author(now + AGE)).expect("said"), Remembering::Done);
    assert_eq!(segments(&server).len(), 40);
    assert_eq!(prove(&server), [a, b]);
    forget(&server, a, now + AGE);
    let late = now + 3 * AGE;
    collect(&server, &rules(late, None));
    collect(&server, &rules(late + AGE, None));
    assert_eq!(server.remember(a, &author(late + AGE)).expect("said"), Remembering::TooLate);
    assert_eq!(prove(&server), [b]);
}

/// What broken-off backups left goes, long after they can still have been running; what may be running is left alone.
#[test]
fn leftovers_go() {
    let server = open(Arc::new(Memory::default()));
    put_wal(&server, 1..=20);
    let (a, _) = backup(&server, BEGIN, 5, &[]);
    let broken = id(BEGIN, 8);
    put_pack(&server, broken).expect("stored");
    let note = Saying::Released;
    server.add_note(broken, &Default::default(), &author(BEGIN), note).expect("a leftover");
    let running = id(BEGIN + AGE - HOUR, 9);
    let place = put_pack(&server, running).expect("stored");
    let now = BEGIN + AGE;
    assert!(server.plan_collection(&record(), &rules(now - 1, None)).expect("planned").is_empty());
    collect(&server, &rules(now, None));
    commit(&server, running, place, &[], 10, &|| PgTime(now + DAY)).expect("complete");
    // The one that was thought to be broken off would lose its pack soon: it must not become complete.
    let late = |at| commit(&server, broken, place, &[], 11, &move || PgTime(at));
    assert!(matches!(late(now + AGE - HOUR), Err(RepositoryError::Doomed { .. })));
    let done = collect(&server, &rules(now + AGE, None));
    assert_eq!(done.removed.len(), 2, "{:?}", done.removed);
    assert_eq!(prove(&server), [a, running]);
    assert_eq!(server.backup_folders().expect("listed"), [a, running]);
}

/// With a count, the older ones are forgotten by rule, a kept one is not and keeps its own WAL alone; released, it goes too.
#[test]
fn rules_and_holds() {
    let server = open(Arc::new(Memory::default()));
    put_wal(&server, 1..=50);
    let ids: Vec<_> = (0..5).map(|n| backup(&server, BEGIN + n * DAY, 5 + 10 * n as u64, &[]).0).collect();
    let now = BEGIN + 5 * DAY;
    let notes = server.backup_notes(ids[1]).expect("notes");
    server.add_note(ids[1], &notes, &author(now), Saying::Kept { until: Some(PgTime(now + 2 * AGE)) }).expect("kept");
    let plan = server.plan_collection(&record(), &rules(now, Some(2))).expect("planned");
    assert_eq!(plan.forgetting.iter().map(|it| it.id).collect::<Vec<_>>(), [ids[0], ids[2]]);
    collect(&server, &rules(now, Some(2)));
    assert_eq!(prove(&server), [ids[1], ids[3], ids[4]]);
    collect(&server, &rules(now + AGE, Some(2)));
    assert_eq!(segments(&server), std::iter::once(15).chain(35..=50).collect::<Vec<_>>());
    collect(&server, &rules(now + 2 * AGE, Some(2)));
    collect(&server, &rules(now + 3 * AGE, Some(2)));
    assert_eq!(prove(&server), [ids[3], ids[4]]);
    assert_eq!(segments(&server), (35..=50).collect::<Vec<_>>());
    // Everything is forgotten: without any backup, no WAL goes.
    for id in &ids[3..] {
        forget(&server, *id, now + 3 * AGE);
    }
    collect(&server, &rules(now + 3 * AGE, Some(2)));
    collect(&server, &rules(now + 4 * AGE, Some(2)));
    assert_eq!(prove(&server), []);
    assert_eq!(segments(&server), (35..=50).collect::<Vec<_>>());
    // Unless pg_upgrade left it all behind.
    for step in [5, 6] {
        collect(&server, &Rules { superseded: true, ..rules(now + step * AGE, Some(2)) });
    }
    assert_eq!(segments(&server), [0; 0]);
    assert_eq!(server.packs().expect("listed"), []);
}

/// A manifest that cannot be read keeps every pack: nobody can tell which ones it needs.
#[test]
fn unreadable_manifests_keep_packs() {
    let storage = Memory::default();
    let server = open(Arc::new(storage.clone()));
    put_wal(&server, 1..=50);
    let (a, _) = backup(&server, BEGIN, 5, &[]);
    let (b, _) = backup(&server, BEGIN + DAY, 15, &[]);
    let key = crate::storage::Key::parse(&format!("main/7/backups/{b}/manifest")).expect("a key");
    storage.damage(&key, |bytes| bytes[20] ^= 1);
    let now = BEGIN + 2 * DAY;
    forget(&server, a, now);
    let plan = server.plan_collection(&record(), &rules(now, None)).expect("planned");
    assert_eq!(plan.problems.len(), 1, "{:?}", plan.problems);
    collect(&server, &rules(now, None));
    collect(&server, &rules(now + AGE, None));
    assert_eq!(server.packs().expect("listed").len(), 2);
    assert!(!server.is_complete(a).expect("tells"));
}

/// A damaged mark removes nothing, and blocks nothing: what it named is marked anew for the whole time; meanwhile a backup refers to nothing of
/// others. A newer version's mark is not touched.
#[test]
fn damaged_marks() {
    let storage = Memory::default();
    let server = open(Arc::new(storage.clone()));
    put_wal(&server, 1..=50);
    let (a, at_a) = backup(&server, BEGIN, 5, &[]);
    let (b, _) = backup(&server, BEGIN + DAY, 15, &[]);
    let now = BEGIN + 2 * DAY;
    forget(&server, a, now);
    collect(&server, &rules(now, None));
    let mark = || all_keys(&storage).into_iter().find(|key| key.contains("/doomed/")).expect("a mark");
    let first = mark();
    storage.damage(&crate::storage::Key::parse(&first).expect("a key"), |bytes| bytes[1] ^= 1);
    let dooms = server.doomed().expect("read");
    assert_eq!((dooms.marks.len(), dooms.unreadable.len()), (0, 1));
    let (c, d) = (id(now + HOUR, 3), id(now + HOUR, 4));
    let place = put_pack(&server, c).expect("stored");
    let late = commit(&server, c, place, &[(a, at_a)], 20, &|| PgTime(now + HOUR));
    assert!(matches!(late, Err(RepositoryError::UnreadableMark { .. })), "{late:?}");
    let place = put_pack(&server, d).expect("stored");
    commit(&server, d, place, &[], 20, &|| PgTime(now + HOUR)).expect("it needs nothing of others");
    // It was due, but is not read.
    let late = now + AGE;
    let done = collect(&server, &rules(late, None));
    assert!(done.removed.is_empty() && server.is_complete(a).expect("tells"), "{done:?}");
    assert_ne!(mark(), first);
    assert!(server.doomed().expect("read").has_backup(a));
    collect(&server, &rules(late + AGE - HOUR, None));
    assert!(server.is_complete(a).expect("tells"), "the new mark stands for its whole time");
    collect(&server, &rules(late + AGE, None));
    assert!(!server.is_complete(a).expect("tells"));
    assert_eq!(prove(&server), [b, d]);
    for step in 2..5 {
        collect(&server, &rules(late + step * AGE, None));
    }
    assert!(!all_keys(&storage).iter().any(|key| key.contains("/doomed/")), "nothing is left");

    let newer = crate::storage::Key::parse(&first).expect("a key");
    storage.put(&newer, br#"{"format": 2, "names": "what this version does not know"}"#).expect("stored");
    let refused = server.plan_collection(&record(), &rules(late, None));
    assert!(matches!(refused, Err(RepositoryError::Malformed { .. })), "{refused:?}");
    assert!(storage.get(&newer, 100).is_ok());
}
