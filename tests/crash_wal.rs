//! `pitr-wal-push` and `pitr-wal-fetch` killed at each system call that matters: nothing that was promised is lost, and
//! nothing that is left needs hands.

mod harness;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use harness::{Finished, Run, Site, newest, small, traced, waiting};

/// Calls of a push that change something or find something out. Where one is missing on this machine, nothing is killed.
const PUSH: [&str; 12] = [
    "openat",
    "openat2",
    "read",
    "write",
    "fsync",
    "linkat",
    "mkdir",
    "unlinkat",
    "clone3",
    "close",
    "futex",
    "exit_group",
];

/// The same of a fetch.
const FETCH: [&str; 9] = ["openat", "openat2", "read", "write", "linkat", "unlinkat", "lseek", "clone3", "exit_group"];

/// Runs the command, killed when it makes this call for the n-th time; `None` when it got through.
fn killed(command: &Command, call: &str, n: u32) -> Option<Finished> {
    let inject = format!("inject={call}:signal=SIGKILL:when={n}");
    let ended = traced(command, &["-e", &format!("trace={call}"), "-e", &inject]).run();
    match (ended.status.signal(), ended.status.code()) {
        (Some(9), _) | (_, Some(137)) => Some(ended),
        (_, Some(0)) => None,
        other => panic!("neither killed nor through at {call} {n}: {other:?}: {ended}"),
    }
}

fn remove_wal(site: &Site) {
    for cluster in fs::read_dir(site.repository().join("main")).expect("readable").flatten() {
        let _ = fs::remove_dir_all(cluster.path().join("wal"));
    }
    let _ = fs::remove_dir_all(site.dir.join("spool"));
    site.dir.make_dir("spool");
}

/// Promise: whenever a push is killed, the archive holds each file whole or not at all; the next attempt succeeds with nobody's
/// help, and no litter stays. Looking ahead included.
#[test]
fn a_killed_push() {
    for (settings, calls) in
        [("look_ahead = 0", &PUSH[..]), ("look_ahead = 2", &["fsync", "linkat", "write", "openat"][..])]
    {
        let (site, segments) = waiting(&newest(), small(), settings, 3);
        let mut kills = 0;
        for call in calls {
            for n in 1..200 {
                remove_wal(&site);
                let through = killed(&site.push(&segments[0]), call, n).is_none();
                // What stands there is whole: reading it back checks that.
                for path in site.stored_wal() {
                    let name = path.rsplit('/').next().expect("a name").to_owned();
                    assert!(segments.contains(&name), "{call} {n}: litter: {path}");
                    site.assert_archived(&name);
                }
                if through {
                    site.assert_archived(&segments[0]);
                    break;
                }
                kills += 1;
                site.push(&segments[0]).run().ok();
                site.assert_archived(&segments[0]);
            }
        }
        assert!(kills > 20, "the calls were hit {kills} times only");
    }
}

/// Promise: an acknowledgement vouches for nothing that is not durable: whenever a push that looks ahead is killed, each file
/// with a note in the spool is in the archive.
#[test]
fn notes_after_a_kill() {
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 2", 3);
    for call in ["linkat", "fsync"] {
        for n in 1..50 {
            remove_wal(&site);
            let through = killed(&site.push(&segments[0]), call, n).is_none();
            for noted in site.acknowledged() {
                site.assert_archived(&noted);
            }
            if through {
                break;
            }
        }
    }
}

/// Promise: whenever a fetch is killed, the file that recovery finds is whole or not there, and no litter stays in `pg_wal`.
#[test]
fn a_killed_fetch() {
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 0", 1);
    site.push(&segments[0]).run().ok();
    let original = fs::read(site.pg_wal(&segments[0])).expect("readable");
    let names = || {
        let entries = fs::read_dir(site.server.data_dir().join("pg_wal")).expect("readable").flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let _ = fs::remove_file(site.recovery_file());
    let before = names();
    let mut kills = 0;
    for call in FETCH {
        for n in 1..100 {
            // An older file that lies there is replaced in one step, or gone.
            site.dir.write(site.recovery_file(), "older");
            let through = killed(&site.fetch(&segments[0]), call, n).is_none();
            match fs::read(site.recovery_file()) {
                Ok(found) => assert!(found == original || (found == b"older" && !through), "{call} {n}: half a file"),
                Err(error) => assert!(!through && error.kind() == std::io::ErrorKind::NotFound, "{call} {n}: {error}"),
            }
            let _ = fs::remove_file(site.recovery_file());
            assert_eq!(names(), before, "{call} {n}");
            if through {
                break;
            }
            kills += 1;
            site.fetch(&segments[0]).run().ok();
            assert!(fs::read(site.recovery_file()).expect("delivered") == original, "{call} {n}");
        }
    }
    assert!(kills > 10, "the calls were hit {kills} times only");
}

/// Promise: a server that crashes with a push under way loses nothing and goes on by itself.
#[test]
fn a_killed_server() {
    let mut site = Site::with(&newest(), small(), "");
    for _ in 0..5 {
        let segments: Vec<String> = (0..4).map(|_| site.server.switch_wal()).collect();
        site.server.kill9();
        site.server.start();
        let last = site.server.archive_all();
        for segment in segments.iter().chain([&last]) {
            assert!(site.archived_bytes(segment).is_some(), "{segment}");
        }
        assert!(!site.stored_wal().iter().any(|path| path.contains(".pitr-tmp")));
    }
}
