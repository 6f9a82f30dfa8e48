//! The harness itself: what the other tests take for granted about their servers.

mod harness;

use std::time::{Duration, Instant};

use harness::{Options, Run, Server, Stop, TestDir, Writer, as_test_user, majors, newest};

/// Promise: each major can be made, started, killed with all its children, and started again with its committed row.
#[test]
fn each_major_survives_a_crash() {
    for postgres in majors() {
        let dir = TestDir::new();
        let mut server = Server::running(&dir, &postgres, &Options::default());
        assert!(server.ask("SHOW server_version_num").starts_with(&postgres.major.to_string()));
        server.run("CREATE TABLE t AS SELECT 'apple' AS word");
        server.kill9();
        assert!(server.try_client().is_none(), "a killed server must not answer");
        server.start();
        assert_eq!(server.ask("SELECT word FROM t"), "apple", "PostgreSQL {}", postgres.major);
        server.stop(Stop::Fast);
    }
}

/// Promise: archiving can be waited for, by the segment's name, with any segment size.
#[test]
fn archived_segments_are_seen() {
    let dir = TestDir::new();
    let archive = dir.make_dir("archive");
    let options = Options::default().segment_size_mib(1).archive_command(&format!("cp %p {}/%f", archive.display()));
    let server = Server::running(&dir, &newest(), &options);
    for _ in 0..3 {
        let segment = server.archive_all();
        let archived = std::fs::metadata(archive.join(&segment)).expect("the segment is in the archive");
        assert_eq!(archived.len(), 1 << 20);
    }
}

/// Promise: a standby follows its primary, and can be promoted.
#[test]
fn a_standby_follows_and_is_promoted() {
    for postgres in [majors().remove(0), newest()] {
        let dir = TestDir::new();
        let mut primary = Server::running(&dir, &postgres, &Options::default());
        let mut standby = Server::standby_of(&dir, &primary, "standby", None);
        standby.start();
        primary.run("CREATE TABLE t AS SELECT 'pear' AS word");
        harness::wait_for("the row on the standby", || {
            let table = standby.ask("SELECT coalesce(to_regclass('t')::text, '')");
            (table == "t" && standby.ask("SELECT count(*) FROM t") == "1").then_some(())
        });
        primary.stop(Stop::Fast);
        standby.promote();
        standby.run("INSERT INTO t VALUES ('plum')");
        let segment = standby.ask("SELECT pg_walfile_name(pg_current_wal_lsn())");
        assert!(segment.starts_with("00000002"), "the promoted server writes timeline 2, not {segment}");
    }
}

/// Promise: the ledger knows exactly the committed rows, with exact times and rising LSNs, across a crash too.
#[test]
fn the_ledger_agrees_with_the_server() {
    let dir = TestDir::new();
    let mut server = Server::running(&dir, &newest(), &Options::default());
    let writer = Writer::start(&server, Duration::ZERO, 100);
    writer.wait_for_more(20);
    server.kill9();
    server.start();
    writer.wait_for_more(20);
    let rows = writer.stop();

    let numbers: Vec<String> = rows.iter().map(|row| row.n.to_string()).collect();
    assert_eq!(numbers, server.ask_all("SELECT n FROM ledger ORDER BY n"));
    let pairs = rows.windows(2);
    assert!(pairs.clone().all(|pair| pair[0].n + 1 == pair[1].n && pair[0].xid < pair[1].xid));
    assert!(pairs.clone().all(|pair| pair[0].lsn_after < pair[1].lsn_after));
    let last = rows.last().expect("rows were written");
    let same = format!(
        "SELECT pg_xact_commit_timestamp('{}') = '2000-01-01 UTC'::timestamptz + '{} us'::interval",
        last.xid, last.committed_at
    );
    assert_eq!(server.ask(&same), "t");
}

/// Promise: a process that hangs fails its test soon, and leaves no children behind.
#[test]
fn a_hanging_process_is_ended() {
    let begun = Instant::now();
    let hung = std::panic::catch_unwind(|| {
        as_test_user("/bin/sh").args(["-c", "sleep 600 & sleep 600"]).run_within(Duration::from_millis(200))
    });
    assert!(hung.is_err(), "the deadline must fail the test");
    assert!(begun.elapsed() < Duration::from_secs(10), "the deadline came too late");
}
