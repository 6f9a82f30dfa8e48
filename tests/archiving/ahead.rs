//! Archiving ahead: quick for a backlog, and never trusted beyond the file and the repository it was done for.

use std::fs;

use crate::harness::{Options, Run, Site, Stop, newest, small, waiting};
use crate::{INSIDE_A_RECORD, clone};

/// Promise: one call archives what waits behind its file too, and the calls for those return at once and use the notes up.
#[test]
fn what_waits_is_archived_ahead() {
    let (site, segments) = waiting(&newest(), small(), "", 6);
    let said = site.push(&segments[0]).run().ok();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""));
    site.assert_archived(&segments[0]);
    let ahead = site.acknowledged();
    assert!(!ahead.is_empty() && !ahead.contains(&segments[0]), "{ahead:?}");
    for segment in &ahead {
        site.assert_archived(segment);
        // The quick way does not look into the file: what it would find there now, it would refuse.
        let object = site.stored_path(segment);
        let before = fs::metadata(&object).expect("stored").modified().expect("a time");
        site.push(segment).run().ok();
        assert_eq!(fs::metadata(&object).expect("stored").modified().expect("a time"), before);
    }
    assert_eq!(site.acknowledged(), Vec::<String>::new(), "used up");
    for segment in &segments {
        site.push(segment).run().ok();
        site.assert_archived(segment);
    }
}

/// Promise: a backlog drains through the real archiver without one failed attempt, and leaves an empty spool.
#[test]
fn the_real_archiver_drains_a_backlog() {
    let (mut site, segments) = waiting(&newest(), small(), "", 40);
    site.archive();
    // A signal to read settings does not wake a sleeping archiver; the next segment does.
    let last = site.server.switch_wal();
    site.server.wait_archived(&last);
    for segment in &segments {
        assert!(site.archived_bytes(segment).is_some(), "{segment}");
    }
    assert_eq!(site.server.ask("SELECT failed_count FROM pg_stat_archiver"), "0");
    assert_eq!(site.acknowledged(), Vec::<String>::new());
}

/// Promise: `look_ahead` is a limit, and 0 turns it off.
#[test]
fn the_limit_holds() {
    for (limit, expected) in [(0, 1), (2, 3)] {
        let (site, segments) = waiting(&newest(), small(), &format!("look_ahead = {limit}"), 6);
        site.push(&segments[0]).run().ok();
        assert!(site.stored_wal().len() <= expected, "{limit}: {:?}", site.stored_wal());
    }
}

/// Promise: what PostgreSQL has not marked ready is not touched.
#[test]
fn only_what_is_ready() {
    let (site, segments) = waiting(&newest(), small(), "", 4);
    fs::remove_file(site.pg_wal(&format!("archive_status/{}.ready", segments[1]))).expect("removed");
    site.push(&segments[0]).run().ok();
    assert_eq!(site.stored_wal().len(), 1, "{:?}", site.stored_wal());
}

/// Promise: a note of an earlier life does not vouch for new WAL: after a restore the server writes another file under the
/// same name, and that is looked at, and refused here because the archive has the first one.
#[test]
fn a_stale_note_does_not_vouch_for_another_file() {
    let (mut site, segments) = waiting(&newest(), small(), "", 0);
    assert!(segments.is_empty());
    let mut other = clone(&mut site, "other");
    other.start();
    let names: Vec<String> = (0..3).map(|_| site.server.switch_wal()).collect();
    other.run("SELECT pg_logical_emit_message(false, 'test', 'another history')");
    let others: Vec<String> = (0..3).map(|_| other.switch_wal()).collect();
    assert_eq!(names, others, "the two histories use the same names");
    site.push(&names[0]).run().ok();
    let noted = site.acknowledged();
    assert!(noted.contains(&names[1]), "{noted:?}");
    other.stop(Stop::Fast);
    let foreign = fs::read(other.data_dir().join("pg_wal").join(&names[1])).expect("readable");
    let path = site.pg_wal(&names[1]);
    let times = fs::metadata(&path).expect("it is there");

    // In place, with the old time: only the change time tells.
    fs::write(&path, &foreign).expect("written");
    let file = fs::File::options().write(true).open(&path).expect("writable");
    file.set_modified(times.modified().expect("a time")).expect("set");
    site.push(&names[1]).run().fails_with(10).says("already in");
    assert!(!site.acknowledged().contains(&names[1]), "the stale note is gone");
}

/// Promise: a note does not vouch for another repository than the one the file went to: not for a new one in its place, nor for
/// one that is not mounted.
#[test]
fn a_note_does_not_vouch_for_another_repository() {
    let (site, segments) = waiting(&newest(), small(), "", 3);
    site.push(&segments[0]).run().ok();
    assert!(site.acknowledged().contains(&segments[1]));
    fs::rename(site.repository(), site.dir.join("old")).expect("renamed");
    site.dir.make_dir("repository");
    site.push(&segments[1]).run().fails_with(5).says("is not a pitr repository");
    fs::remove_dir(site.repository()).expect("removed");
    site.pitr(&["init"]).run().ok();
    site.push(&segments[1]).run().ok();
    site.assert_archived(&segments[1]);
}

/// Promise: the spool is an aid: without it, or when it is full of nonsense or open to others, each call works alone.
#[test]
fn without_a_spool() {
    use std::os::unix::fs::PermissionsExt;
    let (site, segments) = waiting(&newest(), small(), "", 4);
    let spool = site.dir.join("spool");
    fs::set_permissions(&spool, fs::Permissions::from_mode(0o500)).expect("set");
    let said = site.push(&segments[0]).run().ok();
    assert_eq!(said.stderr, "");
    assert_eq!(site.stored_wal().len(), 1, "nothing ahead that could not be noted");
    fs::remove_dir_all(&spool).expect("removed");
    site.dir.write("spool", "not a directory");
    site.push(&segments[1]).run().ok();
    fs::remove_file(&spool).expect("removed");
    site.push(&segments[2]).run().ok();
    site.push(&segments[3]).run().ok();
    for segment in &segments {
        site.assert_archived(segment);
    }
}

/// Promise: with 64 MiB segments too, looking ahead costs no memory that matters.
#[test]
fn memory_of_looking_ahead() {
    let options = Options::default().segment_size_mib(16);
    let (site, segments) = waiting(&newest(), options, "", 6);
    let (memory, status) = crate::peak_memory(&site.dir, &site.push(&segments[0]));
    assert_eq!(status, 0);
    assert!(site.stored_wal().len() > 1, "it did look ahead");
    assert!(memory < 64 << 20, "{} MiB of memory", memory >> 20);
}

/// Promise: a damaged segment is not passed over because it was archived ahead: its own call still warns.
#[test]
fn damage_is_told_by_the_segments_own_call() {
    let (site, segments) = waiting(&newest(), small(), "", 2);
    let mut bad = fs::read(site.pg_wal(&segments[1])).expect("readable");
    bad[INSIDE_A_RECORD] ^= 0xFF;
    site.dir.write(site.pg_wal(&segments[1]), &bad);
    let first: Site = site;
    assert_eq!(first.push(&segments[0]).run().ok().stderr, "");
    first.push(&segments[1]).run().ok().says("WARNING").says("is damaged on this server");
}
