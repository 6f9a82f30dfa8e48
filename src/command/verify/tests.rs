//! Backups that refer to the packs of earlier ones, page sets and cut chunks included: made by hand, verified, damaged.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use super::backups::{self, Look, Outcome};
use super::*;
use crate::catalog::{BackupInfo, BackupWal, INFO_FORMAT, PackId, WalRange};
use crate::chunk::pack::{PackEntry, PackIndex};
use crate::chunk::{
    CHUNK_BYTES, ChunkContent, ChunkId, ChunkRef, EntryPath, PAGE_BYTES, PageSet, Place, frame, identify,
};
use crate::codec::Compression;
use crate::command::Interrupt;
use crate::manifest::{FileEntry, MANIFEST_FORMAT, ManifestHeader, ManifestLine, ManifestStop, ManifestWriter};
use crate::repository::{ServerRecord, ServerRepository};
use crate::storage::{Key, Memory, Storage};
use crate::wal::{BackupSource, Lsn, PostgresMajor, SegmentSize, SystemIdentifier, TimelineId};

const CLUSTER: SystemIdentifier = SystemIdentifier(7);

struct World {
    storage: Arc<dyn Storage>,
    cluster: Cluster,
    old: BackupId,
    new: BackupId,
}

/// Random enough not to be compressed away.
fn raw(length: usize, seed: u8) -> Vec<u8> {
    let mut state = u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn put_pack(server: &ServerRepository, id: PackId, contents: &[&[u8]]) -> Vec<Place> {
    let mut object = server.create_pack(id).expect("memory");
    let (mut index, mut offset, mut places) = (PackIndex::default(), 0, Vec::new());
    for raw in contents {
        let stored = frame::compress(raw, Compression::Lz4).expect("memory");
        object.write_all(&stored).expect("memory");
        let (chunk, pages) = identify(raw);
        let stored_length = stored.len() as u32;
        let raw_length = raw.len() as u32;
        index.push(&PackEntry { id: chunk, offset, stored_length, raw_length, page_set: false, pages });
        places.push(Place { source: 0, pack: id.number, offset, length: stored_length });
        offset += u64::from(stored_length);
    }
    object.write_all(&index.finish(id, CLUSTER).expect("memory")).expect("memory");
    server.publish_pack(id, object).expect("memory");
    places
}

fn put_backup(server: &ServerRepository, id: BackupId, sources: Vec<BackupId>, files: Vec<FileEntry>, stored: u64) {
    let wal_ranges = vec![WalRange { timeline: TimelineId(1), start_lsn: Lsn(0x100_0028), end_lsn: Lsn(0x100_0100) }];
    let header = ManifestHeader {
        format: MANIFEST_FORMAT,
        id,
        cluster: "main".to_owned(),
        system_identifier: CLUSTER,
        postgres_major: PostgresMajor(16),
        postgres_version: "16.1".to_owned(),
        segment_size: SegmentSize::DEFAULT,
        block_size: 8192,
        page_checksums: false,
        label: String::new(),
        start_lsn: Lsn(0x100_0028),
        start_timeline: TimelineId(1),
        start_time: PgTime(0),
        tablespaces: Vec::new(),
        compression: "lz4".to_owned(),
        tool_version: "0".to_owned(),
        pack_sources: sources,
    };
    let source = BackupSource::Primary;
    let (stop_lsn, stop_timeline, stop_time) = (Lsn(0x100_0100), TimelineId(1), PgTime(1));
    let stop = ManifestStop {
        source,
        stop_lsn,
        stop_timeline,
        stop_time,
        wal_ranges: wal_ranges.clone(),
        bad_pages: Vec::new(),
    };
    let mut writer = ManifestWriter::new(server.create_manifest(id).expect("memory"), header.clone()).expect("memory");
    for file in files {
        writer.write(ManifestLine::File(file)).expect("memory");
    }
    let (object, counts) = writer.finish(stop).expect("memory");
    let info = BackupInfo {
        format: INFO_FORMAT,
        id,
        cluster: header.cluster,
        system_identifier: CLUSTER,
        postgres_major: header.postgres_major,
        postgres_version: header.postgres_version,
        segment_size: header.segment_size,
        label: header.label,
        source,
        start_lsn: header.start_lsn,
        start_timeline: header.start_timeline,
        start_time: header.start_time,
        stop_lsn,
        stop_timeline,
        stop_time,
        wal_ranges,
        tablespaces: Vec::new(),
        files: counts.files,
        raw_bytes: counts.raw_bytes,
        stored_bytes: stored,
        packs: 1,
        parent: None,
        referenced_bytes: 0,
        changed_only: false,
        read: crate::catalog::ReadBy::Protocol,
        compression: header.compression,
        page_checksums: false,
        bad_pages: 0,
        wal: BackupWal::Archive,
        configuration_missing: Vec::new(),
        tool_version: header.tool_version,
    };
    server.put_backup_info(&info).expect("memory");
    server.publish_manifest(id, object).expect("memory");
}

fn file(name: &str, content: &[u8], chunks: Vec<ChunkRef>) -> FileEntry {
    FileEntry {
        path: EntryPath::new(name.as_bytes()).expect("a good path"),
        tablespace: None,
        mode: 0o600,
        size: content.len() as u64,
        modified_at: 0,
        from: 0,
        chunks,
        crc32c: Some(format!("{:08x}", crc32c::crc32c(content))),
    }
}

fn stored(content: &[u8], base: Place, sets: Vec<PageSet>) -> ChunkRef {
    let id = ChunkId::of(content);
    let crc32c = Some(crc32c::crc32c(content));
    ChunkRef { raw_length: content.len() as u32, crc32c, content: ChunkContent::Stored { id, base, sets } }
}

impl World {
    /// A backup with two full chunks and a zero one; a later one with pages laid over the first, the second as it is, and a file that
    /// became shorter.
    fn new() -> World {
        let storage: Arc<dyn Storage> = Arc::new(Memory::default());
        let repository = Repository::create(Arc::clone(&storage), PgTime(0)).expect("an empty store");
        let cluster = repository.cluster(&"main".parse().expect("a good name"));
        let record = ServerRecord {
            system_identifier: CLUSTER,
            major: PostgresMajor(16),
            segment_size_bytes: SegmentSize::DEFAULT,
            page_checksums: false,
            created_at: PgTime(0),
            created_by: String::new(),
            upgraded_from: None,
        };
        cluster.add_server(&record).expect("memory");
        let server = cluster.server(CLUSTER);
        let [old, new] = [1, 2].map(|random| BackupId::new(PgTime(0), random));
        let (one, two, three) = (raw(CHUNK_BYTES, 1), raw(CHUNK_BYTES, 2), raw(5 * PAGE_BYTES, 3));
        let places = put_pack(&server, PackId { backup: old, number: 0 }, &[&one, &two, &three]);
        let zero = ChunkRef { raw_length: CHUNK_BYTES as u32, crc32c: None, content: ChunkContent::Zero };
        let whole = [&one[..], &two, &vec![0; CHUNK_BYTES]].concat();
        let chunks = vec![stored(&one, places[0], vec![]), stored(&two, places[1], vec![]), zero];
        let size = |server: &ServerRepository, backup| {
            let packs = server.packs().expect("memory");
            packs.iter().filter(|pack| pack.id.backup == backup).map(|pack| pack.stored_bytes).sum()
        };
        let files =
            vec![file("base/1", &whole, chunks), file("base/2", &three, vec![stored(&three, places[2], vec![])])];
        put_backup(&server, old, vec![old], files, size(&server, old));

        let set = raw(2 * PAGE_BYTES, 4);
        let own = put_pack(&server, PackId { backup: new, number: 0 }, &[&set]);
        let mut changed = one.clone();
        changed[3 * PAGE_BYTES..4 * PAGE_BYTES].copy_from_slice(&set[..PAGE_BYTES]);
        changed[9 * PAGE_BYTES..10 * PAGE_BYTES].copy_from_slice(&set[PAGE_BYTES..]);
        let of_old = |place: Place| Place { source: 1, ..place };
        let sets = vec![PageSet { place: own[0], pages: vec![3, 9] }];
        let chunks = vec![stored(&changed, of_old(places[0]), sets), stored(&two, of_old(places[1]), vec![])];
        let cut = &three[..4 * PAGE_BYTES];
        let whole = [&changed[..], &two].concat();
        let files =
            vec![file("base/1", &whole, chunks), file("base/2", cut, vec![stored(cut, of_old(places[2]), vec![])])];
        put_backup(&server, new, vec![new, old], files, size(&server, new));
        World { storage, cluster, old, new }
    }

    fn key(&self, part: &str) -> Key {
        Key::parse(&format!("main/7/{part}")).expect("a key")
    }

    fn change(&self, part: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let key = self.key(part);
        let mut bytes = self.storage.get(&key, 1 << 30).expect("it is there");
        change(&mut bytes);
        self.storage.delete(&key).expect("memory");
        self.storage.put(&key, &bytes).expect("memory");
    }

    /// Verifies everything; gives what was found, and the backups that cannot be restored.
    fn verify(&self) -> (Found, Vec<BackupId>) {
        let scopes = gather(&self.cluster).expect("memory");
        let wanted = Wanted::default();
        let (stages, _) = queue(&scopes, &wanted).expect("memory");
        let budget = Budget::new(None, None, Interrupt::default());
        let progress = Progress::begin(false, 0, &budget);
        let recorder = Recorder::new(SegmentSize::DEFAULT);
        let runs = vec![Run::new(&scopes[0], &budget, &recorder, &progress, None)];
        work::go(&runs, &stages, &budget, 2);
        runs[0].trace();
        let (found, _) = runs.into_iter().map(Run::into_found).next().expect("one");
        let bad = found.backups.iter().filter(|(_, damage)| !damage.is_restorable());
        let bad = bad.map(|(id, _)| *id).collect();
        (found, bad)
    }
}

/// Everything resolves: frames, page sets over another backup's base, and a base that was cut; files by their checksums.
#[test]
fn whole() {
    let (found, bad) = World::new().verify();
    assert_eq!((bad, found.packs.len(), found.no_answers.len()), (vec![], 0, 0), "{found:?}");
    let Counts { backups, packs, chunks, assembled, files, .. } = found.counts;
    assert_eq!((backups, packs, chunks, assembled, files), (2, 2, 4, 2, 4));
}

/// Damage in a page set hurts the backup that uses it, damage in a shared base both, and damage in an index neither.
#[test]
fn whom_it_hurts() {
    let world = World::new();
    let (old, new) = (world.old, world.new);
    let [of_old, of_new] = [old, new].map(|backup| format!("packs/{}", PackId { backup, number: 0 }));
    world.change(&of_new, |bytes| bytes[5000] ^= 1);
    assert_eq!(world.verify().1, [new]);
    world.change(&of_new, |bytes| bytes[5000] ^= 1);
    world.change(&of_old, |bytes| bytes[5000] ^= 1);
    let (found, bad) = world.verify();
    assert_eq!(bad, [old, new]);
    assert!(found.backups[&new].files.contains_key("base/1") && found.backups[&new].file_count == 1, "{found:?}");
    world.change(&of_old, |bytes| bytes[5000] ^= 1);
    // The index: all chunks are proved by their bytes instead.
    let last = |bytes: &mut Vec<u8>| {
        let at = bytes.len() - 20;
        bytes[at] ^= 1;
    };
    world.change(&of_old, last);
    let (found, bad) = world.verify();
    assert!(bad.is_empty() && found.packs[&PackId { backup: old, number: 0 }].index.is_some(), "{found:?}");
    // And a chunk under a bad index is found by its bytes.
    world.change(&of_old, |bytes| bytes[5000] ^= 1);
    assert_eq!(world.verify().1, [old, new]);
    world.storage.delete(&world.key(&of_old)).expect("memory");
    let (found, bad) = world.verify();
    assert!(bad == [old, new] && found.packs.len() == 1, "{found:?}");
}

/// A chunk whose checksum is not what the manifest says is damage, though its content has the right identity: later backups put the
/// checksums of files together from it.
#[test]
fn checksums_of_chunks() {
    let world = World::new();
    let server = world.cluster.server(CLUSTER);
    let id = BackupId::new(PgTime(0), 3);
    let content = raw(CHUNK_BYTES, 9);
    let place = put_pack(&server, PackId { backup: id, number: 0 }, &[&content])[0];
    let wrong = ChunkRef { crc32c: Some(7), ..stored(&content, place, vec![]) };
    let size = server.packs().expect("memory").iter().find(|pack| pack.id.backup == id).map(|pack| pack.stored_bytes);
    put_backup(&server, id, vec![id], vec![file("base/9", &content, vec![wrong])], size.expect("just put"));
    let (found, bad) = world.verify();
    assert_eq!(bad, [id]);
    assert!(format!("{found:?}").contains("the checksum of one of its chunks"), "{found:?}");
}

/// A run whose time is over puts one chunk together, notes how far it came, and the next goes on from there.
#[test]
fn piece_by_piece() {
    let world = World::new();
    let scopes = gather(&world.cluster).expect("memory");
    let budget = Budget::new(Some(Duration::ZERO), None, Interrupt::default());
    let progress = Progress::begin(false, 0, &budget);
    let recorder = Recorder::new(SegmentSize::DEFAULT);
    let run = |assembled_before| {
        let run = Run::new(&scopes[0], &budget, &recorder, &progress, None);
        backups::verify(&run, &mut run.hand(), world.new, Look::Full { assembled_before })
    };
    assert_eq!(run(0), Outcome::Partly(1));
    assert_eq!(run(1), Outcome::Good);
}
