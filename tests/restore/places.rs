//! Where what is restored lies: tablespaces, and `pg_wal` on another disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::harness::dir::chown_to_test_user;
use super::harness::{Site, Stop, newest, wait_for};
use super::{commit, rows};

/// Promise: tablespaces go where they are mapped; unmapped, a directory that is in use is refused before anything is written; WAL
/// goes to `--waldir`.
#[test]
fn tablespaces_and_waldir() {
    let postgres = newest();
    let site = Site::new(&postgres);
    let old = site.dir.make_dir("old space");
    site.server.run(&format!("CREATE TABLESPACE one LOCATION '{}'", old.display()));
    site.server.run("CREATE TABLE t (n int) TABLESPACE one");
    site.backup();
    let mark = commit(&site.server, 1);
    site.server.archive_all();

    let refused = site.try_restore(&site.dir.join("a"), &["--to-xid", &mark.xid]).fails_with(20);
    refused.says("old space").says("--tablespace OLD=NEW");
    assert!(!site.dir.join("a").exists(), "nothing was written");
    let mapping = format!("{}={}", old.display(), site.dir.join("new space").display());
    let unknown = format!("/nowhere={}", site.dir.join("x").display());
    site.try_restore(&site.dir.join("a"), &["--to-xid", &mark.xid, "--tablespace", &unknown])
        .fails_with(2)
        .says("old space");

    let waldir = site.dir.join("wal elsewhere");
    let words = ["--to-xid", &mark.xid, "--tablespace", &mapping, "--waldir", waldir.to_str().expect("UTF-8")];
    let mut server = site.restore("b", &words);
    server.start();
    assert_eq!(rows(&server), "1");
    let location = server.ask("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'one'");
    assert_eq!(Path::new(&location), site.dir.join("new space"));
    assert_eq!(fs::read_link(server.data_dir().join("pg_wal")).expect("a link"), waldir);
    assert_eq!(site.server.ask("SELECT count(*) FROM t"), "1", "the living tablespace is untouched");
}

/// Promise: a tablespace created after the backup is never replayed into a directory that a living cluster uses; PostgreSQL
/// would remove what is there.
#[test]
fn a_tablespace_created_after_the_backup() {
    let postgres = newest();
    let site = Site::new(&postgres);
    site.backup();
    let place = site.dir.make_dir("space");
    site.server.run(&format!("CREATE TABLESPACE space LOCATION '{}'", place.display()));
    site.server.run("CREATE TABLE t TABLESPACE space AS SELECT 1 AS n");
    site.server.archive_all();
    let target = site.dir.join("restored");
    let refused = site.try_restore(&target, &["--to", "latest"]).fails_with(20);
    let refused = refused.says("CREATE TABLESPACE").says(&place.display().to_string());
    assert!(refused.stderr.contains("PG_"), "it names what is there: {}", refused.stderr);
    assert!(!target.exists(), "nothing is written");
    assert_eq!(site.server.ask("SELECT n FROM t"), "1", "the living tablespace is as it was");

    // As on another host: the directory is missing, then it is there and free.
    let mut server = site.server;
    server.stop(Stop::Fast);
    let away = site.dir.join("away");
    fs::rename(&place, &away).expect("the tablespace can be moved away");
    let site = Site { server, dir: site.dir };
    site.try_restore(&target, &["--to", "latest"]).fails_with(20).says("is missing");
    site.dir.make_dir("space");
    let mut restored = site.restore("restored", &["--to", "latest"]);
    restored.start();
    wait_for("the restored server to open", || (restored.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    assert_eq!(restored.ask("SELECT n FROM t"), "1");
}

/// Promise: what is a hole in the data directory takes no room in the restored one.
#[test]
fn holes_stay_holes() {
    let site = Site::new(&newest());
    let stray = site.server.data_dir().join("base/1/999999");
    let file = fs::File::create(&stray).expect("created");
    file.set_len(8 << 20).expect("set");
    chown_to_test_user(&stray);
    site.backup();
    site.server.archive_all();
    let target = site.dir.join("restored");
    site.try_restore(&target, &["--to", "immediate"]).ok();
    let restored = fs::metadata(target.join("base/1/999999")).expect("there");
    assert_eq!((restored.len(), restored.blocks()), (8 << 20, 0));
}
