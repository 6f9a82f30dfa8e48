//! What the repository promises whatever the store does.

use super::wal::{Absence, Archived, NewWalFile, StoredAs, WalObjectName};
use super::*;
use crate::codec::{Compression, Details};
use crate::storage::{Fault, Faulty, Memory, StorageErrorKind};
use crate::wal::SegmentName;

fn server(storage: Arc<dyn Storage>) -> ServerRepository {
    let repository = Repository::open(storage.clone()).or_else(|_| Repository::create(storage, PgTime(0)));
    repository.expect("a repository").cluster(&"main".parse().unwrap()).server(SystemIdentifier(7))
}

fn file<'a>(name: &str, raw: &'a [u8], host: &str) -> NewWalFile<'a> {
    let archived_by = Origin { host: host.to_owned(), source: "/data".to_owned(), program: "test".to_owned() };
    NewWalFile {
        file: name.parse().unwrap(),
        raw,
        written_by: None,
        facts: None,
        details: Details { archived_by, ..Details::default() },
        archived_at: PgTime(1),
    }
}

fn fetched(server: &ServerRepository, name: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    server.fetch(name.parse().unwrap(), &mut out).expect("fetch").map(|_| out)
}

const SEGMENT: &str = "000000010000000000000005";

/// The same bytes twice is success, other bytes are refused with both origins, and the first stays.
#[test]
fn write_once() {
    let server = server(Arc::new(Memory::default()));
    let stored = StoredAs::Object(WalObjectName::Segment(SEGMENT.parse().unwrap()));
    let first = file(SEGMENT, b"content", "alpha");
    assert_eq!(server.archive(&first, Compression::Lz4).unwrap(), Archived::Stored(stored));
    let again = file(SEGMENT, b"content", "beta");
    assert_eq!(server.archive(&again, Compression::Zstd(3)).unwrap(), Archived::AlreadyThere(stored));
    let other = file(SEGMENT, b"CONTENT", "beta");
    match server.archive(&other, Compression::Lz4) {
        Err(RepositoryError::Conflict(conflict)) => {
            assert_eq!((conflict.ours.host.as_str(), conflict.theirs.host.as_str()), ("beta", "alpha"));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fetched(&server, SEGMENT).unwrap(), b"content");
}

/// Two different `.partial` files of one segment lie side by side, and neither is served for the full segment.
#[test]
fn partial_files() {
    let server = server(Arc::new(Memory::default()));
    let name = format!("{SEGMENT}.partial");
    server.archive(&file(&name, b"one", "alpha"), Compression::Lz4).unwrap();
    server.archive(&file(&name, b"two", "beta"), Compression::Lz4).unwrap();
    assert_eq!(fetched(&server, SEGMENT), None);
    let objects = server.wal_objects(crate::wal::TimelineId(1)).unwrap();
    let contents: Vec<_> = objects
        .iter()
        .map(|object| {
            let mut out = Vec::new();
            server.fetch_object(object.name, &mut out).unwrap();
            out
        })
        .collect();
    assert!(contents.len() == 2 && contents.contains(&b"one".to_vec()) && contents.contains(&b"two".to_vec()));
}

/// The end of the archive, a hole in it and a damaged copy are three different answers.
#[test]
fn absence() {
    let server = server(Arc::new(Memory::default()));
    let name = |number: u32| -> SegmentName { format!("0000000100000000000000{number:02X}").parse().unwrap() };
    for number in [1, 2, 4] {
        server.archive(&file(&name(number).to_string(), b"x", "a"), Compression::Lz4).unwrap();
    }
    assert_eq!(server.why_absent(name(5)).unwrap(), Absence::End);
    assert_eq!(server.why_absent(name(3)).unwrap(), Absence::Gap { next: name(4) });
    // The next group holds what comes next, and another timeline's segments prove nothing.
    server.archive(&file("000000010000000100000000", b"x", "a"), Compression::Lz4).unwrap();
    server.archive(&file("000000020000000200000000", b"x", "a"), Compression::Lz4).unwrap();
    let next: SegmentName = "000000010000000100000000".parse().unwrap();
    assert_eq!(server.why_absent(name(5)).unwrap(), Absence::Gap { next });
    assert_eq!(server.why_absent("000000010000000100000001".parse().unwrap()).unwrap(), Absence::End);
}

/// An object whose bytes changed, or that lies under another's name, never comes out as a WAL file.
#[test]
fn damage() {
    let memory = Memory::default();
    let server = server(Arc::new(memory.clone()));
    server.archive(&file(SEGMENT, b"content", "alpha"), Compression::Lz4).unwrap();
    let key = keys::object(server.folder(), WalObjectName::Segment(SEGMENT.parse().unwrap()));
    memory.damage(&key, |bytes| bytes[16] ^= 1);
    let refused = server.fetch(SEGMENT.parse().unwrap(), &mut Vec::new());
    assert!(matches!(refused, Err(RepositoryError::Damaged { .. })), "{refused:?}");
    memory.damage(&key, |bytes| bytes[16] ^= 1);
    let other = "000000010000000000000006";
    let bytes = memory.get(&key, 1 << 20).unwrap();
    memory.put(&keys::object(server.folder(), WalObjectName::Segment(other.parse().unwrap())), &bytes).unwrap();
    let refused = server.fetch(other.parse().unwrap(), &mut Vec::new());
    assert!(matches!(refused, Err(RepositoryError::Damaged { .. })), "{refused:?}");
}

/// Whatever step fails in whatever way, trying again succeeds, success means stored, and nothing else is left.
#[test]
fn faults() {
    let kinds = [Fault::Die, Fault::LoseAnswer, Fault::Refuse(StorageErrorKind::NoSpace)];
    for fault in kinds {
        for step in 0.. {
            let memory = Memory::default();
            server(Arc::new(memory.clone()));
            let faulty = Faulty::new(Arc::new(memory.clone()), step, fault);
            let new = file(SEGMENT, b"content", "alpha");
            let cluster = Cluster { storage: Arc::new(faulty.clone()), name: "main".parse().unwrap() };
            let outcome = cluster.server(SystemIdentifier(7)).archive(&new, Compression::Lz4);
            let good = server(Arc::new(memory));
            if outcome.is_ok() {
                assert_eq!(fetched(&good, SEGMENT).unwrap(), b"content", "{fault:?} at {step}");
            }
            if faulty.steps() <= step {
                assert!(outcome.is_ok(), "no fault was met");
                break;
            }
            good.archive(&new, Compression::Lz4).unwrap_or_else(|error| panic!("{fault:?} at {step}: {error}"));
            assert_eq!(fetched(&good, SEGMENT).unwrap(), b"content");
        }
    }
}

/// A store without the marker is no repository, one with other things in it does not become one, and a newer format
/// is refused by its number.
#[test]
fn marker() {
    let memory = Memory::default();
    let storage: Arc<dyn Storage> = Arc::new(memory.clone());
    assert!(matches!(Repository::open(storage.clone()), Err(RepositoryError::NotARepository { .. })));
    let made = Repository::create(storage.clone(), PgTime(0)).unwrap();
    assert_eq!(Repository::open(storage.clone()).unwrap().id(), made.id());
    assert!(matches!(Repository::create(storage.clone(), PgTime(0)), Err(RepositoryError::NotEmpty { .. })));
    memory.damage(&keys::marker(), |bytes| {
        *bytes = String::from_utf8_lossy(bytes).replace("\"format\": 1", "\"format\": 2").into_bytes();
    });
    assert!(matches!(Repository::open(storage.clone()), Err(RepositoryError::Format { found: 2, .. })));
    memory.damage(&keys::marker(), |bytes| bytes.truncate(10));
    assert!(matches!(Repository::open(storage), Err(RepositoryError::Malformed { .. })));
}
