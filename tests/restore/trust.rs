//! `--trust-times`: what is taken for right without being read, and what never is.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::harness::{Options, Run, Server, Site, Stop, newest};
use super::{commit, json, rows};

/// Sets when files below a directory were last written.
fn age(directory: &Path, time: SystemTime) {
    for entry in fs::read_dir(directory).expect("there") {
        let path = entry.expect("read").path();
        if path.is_dir() {
            age(&path, time);
        } else {
            let file = File::options().write(true).open(&path).expect("opens");
            file.set_modified(time).expect("set");
        }
    }
}

/// A site whose data files were last written two days before its backup, and a restored directory.
fn aged() -> (Site, PathBuf, String) {
    let mut site = Site::with(&newest(), Options::default(), "");
    site.server.run("CREATE TABLE t (n int)");
    site.server.run("CREATE TABLE old AS SELECT generate_series(1, 20000) AS n");
    let file = site.server.ask("SELECT pg_relation_filepath('old')");
    site.server.run("VACUUM (FREEZE) old");
    site.server.stop(Stop::Fast);
    age(&site.server.data_dir().join("base"), SystemTime::now() - Duration::from_secs(2 * 86400));
    site.server.start();
    site.backup();
    commit(&site.server, 1);
    site.server.archive_all();
    let target = site.dir.join("restored");
    site.try_restore(&target, &["--to", "latest"]).ok();
    (site, target, file)
}

fn again(site: &Site, target: &Path, more: &[&str]) -> (u64, u64, u64) {
    let finished = site.try_restore(target, &[&["--to", "latest", "--json"], more].concat()).ok();
    let written = &json(&finished)["written"];
    let number = |name: &str| written[name].as_u64().expect("a number");
    (number("bytes"), number("kept_bytes"), number("trusted_bytes"))
}

/// Promise: restored files carry the recorded time, so that a second restore need not read them; whatever a server wrote
/// meanwhile has another time and is read; without the option everything is.
#[test]
fn what_nobody_wrote_to_is_not_read() {
    let (site, target, file) = aged();
    let (bytes, kept, trusted) = again(&site, &target, &["--delta", "--trust-times"]);
    assert!(trusted > bytes / 2 && kept > trusted && kept <= bytes, "{trusted} of {kept} of {bytes}");
    assert_eq!(again(&site, &target, &["--overwrite"]).2, 0);

    // A server ran on it, and changed the table.
    let mut server = Server::adopt(&site.dir, &newest(), "restored", &target);
    server.start();
    assert_eq!(rows(&server), "1");
    server.run("UPDATE old SET n = -n");
    server.stop(Stop::Fast);
    let (_, _, trusted) = again(&site, &target, &["--delta", "--trust-times"]);
    assert!(trusted > bytes / 4, "{trusted} of {bytes}");
    server.start();
    assert_eq!(server.ask("SELECT min(n) FROM old"), "1");
    assert_eq!(rows(&server), "1");

    // A crash may have lost times: then no file is trusted.
    server.kill9();
    let _ = fs::remove_file(target.join("postmaster.pid"));
    let words = ["restore", "--to", "latest", "--dry-run", "--delta", "--trust-times", "--target"];
    let plan = site.pitr(&words).arg(&target).run().ok();
    assert!(plan.stdout.contains("not shut down cleanly"), "{plan}");
    assert_eq!(again(&site, &target, &["--delta", "--trust-times"]).2, 0);

    // The danger, as told: a change that puts the time back is believed. Reading finds it.
    let path = target.join(&file);
    let (was, time) =
        (fs::read(&path).expect("read"), fs::metadata(&path).expect("there").modified().expect("has one"));
    fs::write(&path, vec![7; was.len()]).expect("written");
    File::options().write(true).open(&path).expect("opens").set_modified(time).expect("set");
    again(&site, &target, &["--delta", "--trust-times"]);
    assert_ne!(fs::read(&path).expect("read"), was, "it was believed");
    // A changed length, or another time, is not.
    let later = time + Duration::from_secs(1);
    File::options().write(true).open(&path).expect("opens").set_modified(later).expect("set");
    again(&site, &target, &["--delta", "--trust-times"]);
    assert_eq!(fs::read(&path).expect("read"), was);
    fs::write(&path, vec![7; was.len()]).expect("written");
    File::options().write(true).open(&path).expect("opens").set_modified(time).expect("set");
    again(&site, &target, &["--delta"]);
    assert_eq!(fs::read(&path).expect("read"), was);
}

/// Promise: what was written shortly before the backup or while it ran is never trusted, nor anything in a restore that broke off.
#[test]
fn what_may_deceive_is_read() {
    let site = Site::new(&newest());
    site.server.run("CREATE TABLE t (n int)");
    site.backup();
    commit(&site.server, 1);
    site.server.archive_all();
    let target = site.dir.join("restored");
    site.try_restore(&target, &["--to", "latest", "--trust-times"]).fails_with(2);
    site.try_restore(&target, &["--to", "latest"]).ok();
    // initdb has just run: every file is as young as the backup.
    assert_eq!(again(&site, &target, &["--delta", "--trust-times"]).2, 0);

    let (site, target, _) = aged();
    fs::rename(target.join("global/pg_control"), target.join("gone")).expect("renamed");
    site.dir.write("restored/pitr.restore", "{}");
    assert_eq!(again(&site, &target, &["--delta", "--trust-times"]).2, 0);
    assert!(again(&site, &target, &["--delta", "--trust-times"]).2 > 0);
}
