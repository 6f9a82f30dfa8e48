//! What the spool promises: it vouches for one file in one state, and trusts nobody else's notes.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::Arc;
use std::time::SystemTime;

use super::*;
use crate::repository::{Repository, RepositoryId};
use crate::storage::Memory;
use crate::wal::PgTime;

const CLUSTER: SystemIdentifier = SystemIdentifier(7);

fn repository() -> RepositoryId {
    Repository::create(Arc::new(Memory::default()), PgTime(0)).expect("a repository").id().clone()
}

fn file() -> WalFileName {
    "000000010000000000000005".parse().expect("a name")
}

fn segment() -> SegmentName {
    "000000010000000000000005".parse().expect("a name")
}

/// The file as it is now.
fn state(path: &Path, repositories: &[RepositoryId]) -> Acknowledgement {
    Acknowledgement::new(&fs::metadata(path).expect("the file is there"), repositories)
}

/// An acknowledgement holds for the very file in the very repositories, and for nothing else.
#[test]
fn bound_to_file_and_repositories() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (path, other) = (directory.path().join("segment"), directory.path().join("other"));
    fs::write(&path, b"WAL").expect("written");
    fs::write(&other, b"WAL").expect("written");
    let spool = Spool::open_or_make(&directory.path().join("spool"), CLUSTER).expect("a spool");
    let (one, two) = (repository(), repository());
    let acknowledged = state(&path, std::slice::from_ref(&one));
    assert!(!spool.has_note_for(file()) && !spool.is_acknowledged(file(), &acknowledged));
    spool.acknowledge(file(), &acknowledged).expect("noted");
    assert!(spool.has_note_for(file()) && spool.is_acknowledged(file(), &acknowledged));

    let next = "000000010000000000000006".parse().expect("a name");
    assert!(!spool.is_acknowledged(next, &acknowledged), "another name");
    assert!(!spool.is_acknowledged(file(), &state(&other, std::slice::from_ref(&one))), "another inode");
    assert!(!spool.is_acknowledged(file(), &state(&path, std::slice::from_ref(&two))), "another repository");
    assert!(!spool.is_acknowledged(file(), &state(&path, &[one.clone(), two.clone()])), "one more repository");
    let elsewhere = Spool::open_or_make(&directory.path().join("spool"), SystemIdentifier(8)).expect("a spool");
    assert!(!elsewhere.is_acknowledged(file(), &acknowledged), "another cluster");
    fs::write(&path, b"LAW").expect("written");
    assert!(!spool.is_acknowledged(file(), &state(&path, &[one])), "other content");

    spool.forget(file());
    assert!(!spool.is_acknowledged(file(), &acknowledged));
}

/// A note that was cut short, changed, exchanged for a link, or that is too old does not count.
#[test]
fn mutilated_notes() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("segment");
    fs::write(&path, b"WAL").expect("written");
    let spool = Spool::open_or_make(directory.path(), CLUSTER).expect("a spool");
    let acknowledged = state(&path, &[repository()]);
    let note = directory.path().join("7").join("000000010000000000000005.stored");
    spool.acknowledge(file(), &acknowledged).expect("noted");
    assert_eq!(fs::metadata(&note).expect("it is there").permissions().mode() & 0o777, 0o600);
    let good = fs::read(&note).expect("readable");
    for length in 0..good.len() {
        fs::write(&note, &good[..length]).expect("written");
        assert!(!spool.is_acknowledged(file(), &acknowledged), "cut to {length} bytes");
    }
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs::write(&note, &bad).expect("written");
        assert!(!spool.is_acknowledged(file(), &acknowledged), "byte {at}");
    }
    fs::write(directory.path().join("good"), &good).expect("written");
    fs::remove_file(&note).expect("removed");
    symlink(directory.path().join("good"), &note).expect("linked");
    assert!(!spool.is_acknowledged(file(), &acknowledged), "a link");
    spool.acknowledge(file(), &acknowledged).expect("noted in place of the link");
    assert!(spool.is_acknowledged(file(), &acknowledged));
    for moment in [SystemTime::now() - ACKNOWLEDGED_FOR * 2, SystemTime::now() + ACKNOWLEDGED_FOR] {
        File::options().write(true).open(&note).and_then(|file| file.set_modified(moment)).expect("set");
        assert!(!spool.is_acknowledged(file(), &acknowledged), "a note of another time");
        spool.sweep(segment());
        assert!(!note.exists(), "nobody came for it");
        spool.acknowledge(file(), &acknowledged).expect("noted");
        spool.sweep(segment());
        assert!(note.exists(), "a fresh one stays");
    }
}

/// A folder that others can write to or that is a link is not used: a forged note would be WAL that is never archived.
#[test]
fn folder_of_others() {
    let directory = tempfile::tempdir().expect("temporary directory");
    drop(Spool::open_or_make(directory.path(), CLUSTER).expect("a spool"));
    let folder = directory.path().join("7");
    assert_eq!(fs::metadata(&folder).expect("made").permissions().mode() & 0o777, 0o700);
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o770)).expect("set");
    assert!(Spool::open_or_make(directory.path(), CLUSTER).is_err(), "open to the group");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("set");
    fs::rename(&folder, directory.path().join("8")).expect("renamed");
    symlink(directory.path().join("8"), &folder).expect("linked");
    assert!(Spool::open_or_make(directory.path(), CLUSTER).is_err(), "a link");
}

/// That the repository does not answer is noted for the next call, until it answers.
#[test]
fn unreachable() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let spool = Spool::open_or_make(directory.path(), CLUSTER).expect("a spool");
    assert_eq!(spool.unreachable_since(), None);
    spool.note_unreachable().expect("noted");
    assert!(spool.unreachable_since().is_some_and(|age| age < Duration::from_secs(60)));
    spool.note_reachable();
    assert_eq!(spool.unreachable_since(), None);
}

/// Which repository lies in a bucket is believed for the very place and cluster, for some minutes, and only of a whole note.
#[test]
fn repository_of_a_bucket() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let spool = Spool::open_or_make(directory.path(), CLUSTER).expect("a spool");
    let (main, other): (ClusterName, ClusterName) = ("main".parse().expect("a name"), "other".parse().expect("a name"));
    let record = crate::repository::ServerRecord {
        system_identifier: CLUSTER,
        major: crate::wal::PostgresMajor(18),
        segment_size_bytes: crate::wal::SegmentSize::DEFAULT,
        page_checksums: false,
        created_at: PgTime(0),
        created_by: "alpha".to_owned(),
        upgraded_from: None,
    };
    let note = RepositoryNote { place: "s3://a".to_owned(), cluster: main.clone(), id: repository(), record };
    let first = RepositoryName::first();
    spool.note_repository(&first, &note).expect("noted");
    assert_eq!(spool.repository(&first, "s3://a", &main), Some(note));
    assert_eq!(spool.repository(&first, "s3://b", &main), None);
    assert_eq!(spool.repository(&first, "s3://a", &other), None);
    let path = path_of(directory.path(), CLUSTER).join(REPOSITORY);
    let bytes = fs::read(&path).expect("the note");
    let file = File::options().write(true).open(&path).expect("the note");
    file.set_modified(SystemTime::now() - REPOSITORY_KNOWN_FOR).expect("made older");
    assert_eq!(spool.repository(&first, "s3://a", &main), None, "too old");
    for length in [0, 20, bytes.len() - 1] {
        fs::write(&path, &bytes[..length]).expect("cut short");
        assert_eq!(spool.repository(&first, "s3://a", &main), None, "{length}");
    }
}

/// What a repository lacks is noted shortly however much it is, is not forgotten while something is added, and ends with the last
/// timeline; who is away is noted by name.
#[test]
fn several_repositories() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let spool = Spool::open_or_make(directory.path(), CLUSTER).expect("a spool");
    let (west, east): (RepositoryName, RepositoryName) =
        ("west".parse().expect("a name"), "east".parse().expect("a name"));
    assert!(spool.behind(&west).is_empty() && spool.away_since(&west).is_none());
    spool.note_away(&west).expect("noted");
    assert!(spool.away_since(&west).is_some() && spool.away_since(&east).is_none());
    spool.note_back(&west);
    assert!(spool.away_since(&west).is_none());

    let name = |text: &str| text.parse::<WalFileName>().expect("a name");
    let (early, later) = (name("000000010000000000000003"), name("000000010000000000000009"));
    spool.note_behind(&west, later).expect("noted");
    assert!(spool.behind(&west).covers(later) && !spool.behind(&west).covers(early));
    spool.note_behind(&west, early).expect("noted");
    spool.note_behind(&west, name("00000002.history")).expect("noted");
    let noted = spool.behind(&west);
    assert!(noted.covers(early) && noted.covers(name("000000010000000000000003.00000028.backup")));
    assert!(noted.covers(name("00000002.history")) && !noted.covers(name("000000020000000000000009")));
    assert_eq!(noted.timelines().count(), 2);

    let mut rest = noted.clone();
    rest.remove(crate::wal::TimelineId(1));
    spool.note_behind(&west, name("000000030000000000000009")).expect("noted");
    spool.replace_behind(&west, &noted, &rest).expect("left alone");
    assert_eq!(spool.behind(&west).timelines().count(), 3, "something was added meanwhile");
    let noted = spool.behind(&west);
    spool.replace_behind(&west, &noted, &rest).expect("replaced");
    assert_eq!(spool.behind(&west), rest);
    let path = path_of(directory.path(), CLUSTER).join("behind.west");
    let bytes = fs::read(&path).expect("the note");
    fs::write(&path, &bytes[..bytes.len() - 1]).expect("cut short");
    assert!(spool.behind(&west).is_empty(), "a torn note is none");
    fs::write(&path, bytes).expect("whole again");
    spool.replace_behind(&west, &rest, &Behind::default()).expect("removed");
    assert!(!path.exists());
}

/// What is known of the segments of a group comes back in order and once; a torn, mixed or foreign line is none, and hides no other.
#[test]
fn entries_of_a_group() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let spool = Spool::open_or_make(directory.path(), CLUSTER).expect("a spool");
    let note = |low: u8| {
        let segment = segment().group().segment(low).expect("a segment");
        let json = serde_json::json!({
            "entry": {
                "segment": segment, "border": "open", "stored_bytes": 9, "raw_crc": 1, "archived_at": PgTime(5),
                "archived_by": crate::codec::Origin::default(), "notes": { "segment": segment },
                "facts": {
                    "end": "0/10", "ending": "full", "commits": 0, "aborts": 0, "dropped_relations": 0,
                    "restore_points": 0, "parameter_changes": 0, "checkpoints": 0
                },
            },
            "repositories": [repository()],
        });
        serde_json::from_value::<EntryNote>(json).expect("a note")
    };
    let group = segment().group();
    let notes: Vec<EntryNote> = (0..5).map(note).collect();
    notes.iter().for_each(|note| spool.note_entry(note).expect("noted"));
    assert_eq!(spool.noted_groups(), [group]);
    assert_eq!(spool.take_entries(group), notes);
    assert_eq!((spool.noted_groups(), spool.take_entries(group)), (Vec::new(), Vec::new()));

    notes.iter().for_each(|note| spool.note_entry(note).expect("noted"));
    let path = directory.path().join("7").join(format!("entries.{}.{group}", group.timeline().to_hex()));
    let whole = fs::read(&path).expect("there");
    let line = whole.len() / notes.len();
    // Without the end of the line the next one is lost with it.
    for at in 0..line - 1 {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        fs::write(&path, &bad).expect("written");
        assert_eq!(spool.take_entries(group), notes[1..], "byte {at}");
        fs::write(&path, &whole[..whole.len() - 1 - at]).expect("written");
        let expected = if at == 0 { &notes[..] } else { &notes[..4] };
        assert_eq!(spool.take_entries(group), expected, "cut by {at}");
    }
    let other = Spool::open_or_make(directory.path(), SystemIdentifier(8)).expect("a spool");
    fs::write(directory.path().join("8").join(path.file_name().expect("a name")), &whole).expect("written");
    assert_eq!(other.take_entries(group), [], "another cluster's");
}
