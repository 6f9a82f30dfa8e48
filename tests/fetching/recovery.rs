//! Real recoveries: they end where the archive ends, and nowhere before.

use std::fs;

use crate::harness::{Postgres, Run, Server, Site, Stop, as_test_user, client_tool, majors, newest, small};

/// A base backup without WAL, and rows in several segments behind it; the primary is stopped. The copy is not started.
fn rows_behind_a_backup(postgres: &Postgres) -> (Site, Server, Vec<String>) {
    let mut site = Site::with(postgres, small(), "fetch_timeout = \"3s\"");
    site.server.run("CREATE TABLE t (n int)");
    let mut copy = Server::adopt(&site.dir, postgres, "copy", &site.dir.join("copy"));
    let mut backup = as_test_user(client_tool("pg_basebackup"));
    backup.arg("--pgdata").arg(copy.data_dir()).arg("--dbname").arg(site.server.conninfo());
    backup.args(["--wal-method=none", "--checkpoint=fast", "--no-sync"]).run().ok();
    let segments = (1..=4)
        .map(|n| {
            site.server.run(&format!("INSERT INTO t VALUES ({n})"));
            site.server.archive_all()
        })
        .collect();
    site.server.stop(Stop::Fast);
    copy.configure("restore_command", &site.fetch_command());
    copy.configure("archive_mode", "off");
    site.dir.write("copy/recovery.signal", "");
    (site, copy, segments)
}

/// The copy opened with all rows.
fn assert_opens_whole(copy: &mut Server) {
    copy.start();
    crate::harness::wait_for("the end of recovery", || (copy.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    assert_eq!(copy.ask_all("SELECT n FROM t ORDER BY n"), ["1", "2", "3", "4"]);
}

/// The copy ends with an error of `pitr-wal-fetch` and has not opened: no second timeline was begun.
fn assert_stops(copy: &mut Server, said: &str) {
    copy.spawn();
    assert!(!copy.wait_for_end(), "it should have stopped with an error; its log:\n{}", copy.log());
    assert!(copy.log().contains(said) && copy.log().contains("pitr-wal-fetch: ERROR:  "), "{}", copy.log());
    assert!(!copy.data_dir().join("pg_wal/00000002.history").exists(), "the database was opened");
}

/// Promise: on every major, recovery finds all that was archived, ends behind it, and its log stays free of complaints about
/// files that are not there because WAL ends.
#[test]
fn recovery_ends_where_the_archive_ends() {
    for postgres in majors() {
        let (_site, mut copy, _) = rows_behind_a_backup(&postgres);
        assert_opens_whole(&mut copy);
        assert!(!copy.log().contains("pitr-wal-fetch:"), "PostgreSQL {}: {}", postgres.major, copy.log());
    }
}

/// Promise: a damaged object stops the server instead of opening the database in front of it; mended, recovery goes on.
#[test]
fn damage_stops_a_recovery() {
    let (site, mut copy, segments) = rows_behind_a_backup(&newest());
    let path = site.stored_path(&segments[2]);
    let good = fs::read(&path).expect("readable");
    for cut in [good.len() / 2, 0] {
        fs::write(&path, &good[..cut]).expect("written");
        assert_stops(&mut copy, "is not to be used");
    }
    fs::write(&path, good).expect("written");
    assert_opens_whole(&mut copy);
}

/// Promise: a hole in the archive stops the server instead of opening the database in front of it; filled, recovery goes on.
#[test]
fn a_gap_stops_a_recovery() {
    let (site, mut copy, segments) = rows_behind_a_backup(&newest());
    let path = site.stored_path(&segments[1]);
    let away = site.dir.join("away");
    fs::rename(&path, &away).expect("moved");
    assert_stops(&mut copy, &format!("WAL segment \"{}\" is missing", segments[1]));
    fs::rename(&away, &path).expect("moved back");
    assert_opens_whole(&mut copy);
}

/// Promise: a repository that is away stops a recovery, and does not end it.
#[test]
fn an_unmounted_repository_stops_a_recovery() {
    let (site, mut copy, _) = rows_behind_a_backup(&newest());
    let away = site.dir.join("away");
    fs::rename(site.repository(), &away).expect("moved");
    site.dir.make_dir("repository");
    assert_stops(&mut copy, "is not a pitr repository");
    fs::remove_dir(site.repository()).expect("removed");
    fs::rename(&away, site.repository()).expect("moved back");
    assert_opens_whole(&mut copy);
}
