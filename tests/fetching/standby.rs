//! Standbys: a passing fault of the archive neither kills them nor keeps them from streaming.

use std::fs;
use std::time::Duration;

use crate::hang;
use crate::harness::{Run, Server, Site, newest, small, wait_for, waiting};

/// Promise: a standby streams although its repository does not answer, and lives.
#[test]
fn streams_without_its_archive() {
    let site = Site::with(&newest(), small(), "");
    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", Some(&site.fetch_command()));
    site.server.archive_all();
    let moved = hang(&site.repository().join("pitr.json"));
    standby.start();
    site.server.run("CREATE TABLE t AS SELECT 1 AS n");
    wait_for("the row on the standby", || {
        (standby.ask("SELECT coalesce(to_regclass('t')::text, '')") == "t").then_some(())
    });
    assert!(standby.log().contains("pitr-wal-fetch: WARNING:  "), "{}", standby.log());
    assert!(standby.log().contains("so that it can stream"), "{}", standby.log());
    fs::rename(moved, site.repository().join("pitr.json")).expect("moved back");
}

/// Promise: beside `standby.signal`, which wins over `recovery.signal`, what cannot be told is 1 with a warning, within five
/// seconds; the next call knows and does not wait so long; when the repository answers again, that is forgotten.
#[test]
fn answered_soon() {
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 0", 2);
    for segment in &segments {
        site.push(segment).run().ok();
    }
    let data = site.dir.make_dir("data");
    for folder in ["data/global", "data/pg_wal"] {
        site.dir.make_dir(folder);
    }
    site.dir
        .write("data/global/pg_control", fs::read(site.server.data_dir().join("global/pg_control")).expect("there"));
    site.dir.write("data/standby.signal", "");
    site.dir.write("data/recovery.signal", "");
    let fetch = |name: &str| site.fetch(name).current_dir(&data).run();

    let marker = site.repository().join("pitr.json");
    let moved = hang(&marker);
    let first = fetch(&segments[0]).fails_with(1).says("pitr-wal-fetch: WARNING:  could not fetch");
    assert!(first.took > Duration::from_secs(2) && first.took < Duration::from_secs(6), "{first}");
    let second = fetch(&segments[0]).fails_with(1).says("WARNING");
    assert!(second.took < Duration::from_secs(3) && second.took < first.took, "{second}");
    fs::rename(&moved, &marker).expect("moved back");
    fetch(&segments[0]).ok();
    let notes = || fs::read_dir(site.dir.join("spool")).expect("there").flatten().map(|folder| folder.path());
    assert!(notes().all(|folder| !folder.join("unreachable").exists()), "it answered, so the note is gone");

    // An error instead of silence.
    fs::rename(site.repository(), site.dir.join("away")).expect("moved");
    site.dir.write("repository", "no directory");
    let said = fetch(&segments[0]).fails_with(1).says("WARNING").says("; tried ");
    assert!(said.took < Duration::from_secs(6), "{said}");
    fetch(&segments[0]).fails_with(1).says("tried 1 times");
    fs::remove_file(site.repository()).expect("removed");
    fetch(&segments[0]).fails_with(1).says("WARNING");
    fs::rename(site.dir.join("away"), site.repository()).expect("moved back");

    // Damage and gaps too: the standby may get the WAL by streaming.
    let path = site.stored_path(&segments[0]);
    let good = fs::read(&path).expect("readable");
    fs::write(&path, &good[..good.len() / 2]).expect("written");
    fetch(&segments[0]).fails_with(1).says("WARNING").says("is not to be used");
    fs::remove_file(&path).expect("removed");
    fetch(&segments[0]).fails_with(1).says("WARNING").says("is missing");
    assert!(!data.join("pg_wal/RECOVERYXLOG").exists() || fs::read(data.join("pg_wal/RECOVERYXLOG")).is_ok());

    // What no time will mend stops a standby too, and "stop" asks for it everywhere.
    let config = fs::read_to_string(site.config()).expect("readable");
    fetch("nonsense").fails_with(204);
    site.dir.write("pitr.toml", config.clone() + "on_unreachable = \"stop\"\n");
    fetch(&segments[0]).fails_with(202);
    site.dir.write("pitr.toml", &config);
    fs::remove_file(data.join("standby.signal")).expect("removed");
    fetch(&segments[0]).fails_with(202);
}
