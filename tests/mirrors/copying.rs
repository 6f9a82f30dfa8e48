//! `pitr copy`: a repository is brought up to date from another, and is as good as that one.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::process::{kill_tree, wait_until};
use crate::harness::{Options, Run, Site, newest};
use crate::s3_server::S3Server;
use crate::{bucket, first, wal_in, west};

const LONG: Duration = Duration::from_secs(120);

/// A site with one repository, a base backup and rows behind it.
fn with_a_backup() -> Site {
    let site = Site::with(&newest(), Options::default(), "");
    site.server.run("CREATE TABLE words(word text); INSERT INTO words VALUES ('before')");
    site.backup();
    site.server.run("INSERT INTO words VALUES ('later')");
    site.server.archive_all();
    site
}

/// Promise: a bucket and a directory that are copied into hold all, and a restore from either alone brings every row.
#[test]
fn a_copy_is_as_good() {
    let server = S3Server::start();
    let site = with_a_backup();
    site.configure(&format!("{}{}", west(&site.dir), bucket(&server)));
    site.dir.make_dir("west");
    let plan = site.pitr(&["copy", "--from", "first", "--to", "west", "--dry-run", "--json"]).run().ok().stdout;
    assert!(plan.contains("\"complete\": false") && wal_in(&site.dir.join("west")).is_empty(), "{plan}");
    for (from, to) in [("first", "west"), ("west", "bucket")] {
        let said = site.pitr(&["copy", "--from", from, "--to", to]).run_within(LONG).ok();
        assert!(said.stdout.contains("1 backups in "), "{}", said.stdout);
        let again = site.pitr(&["copy", "--from", from, "--to", to, "--json"]).run_within(LONG).ok();
        assert!(again.stdout.contains("\"complete\": true"), "{}", again.stdout);
    }
    assert_eq!(wal_in(&site.dir.join("west")), first(&site));
    fs::rename(site.repository(), site.dir.join("lost")).expect("moved");
    let listed = site.pitr(&["list", "--repository", "bucket"]).run_within(LONG).ok();
    assert!(listed.stdout.contains("pitr backup"), "{}", listed.stdout);
    // What is lost for good is taken out of the configuration: as long as it stands there, nobody can tell what it has.
    let alone = bucket(&server).replace("[cluster.main.mirror.bucket]\npath", "repository");
    for (name, settings) in
        [("west", format!("repository = \"{}\"", site.dir.join("west").display())), ("bucket", alone)]
    {
        site.configure(&settings);
        let mut restored = site.restore(&format!("from-{name}"), &["--to", "latest"]);
        restored.start();
        assert_eq!(restored.ask("SELECT string_agg(word, ' ' ORDER BY word) FROM words"), "before later");
    }
}

/// Promise: a copy that is killed leaves nothing that counts, and the same words finish it.
#[test]
fn killed_and_gone_on_with() {
    let server = S3Server::start();
    let site = with_a_backup();
    site.configure(&bucket(&server));
    let words = ["copy", "--from", "first", "--to", "bucket"];
    server.faults.set_latency(Duration::from_millis(30));
    for millis in [100, 400] {
        let mut copy = site.pitr(&words).spawn().expect("it runs");
        std::thread::sleep(Duration::from_millis(millis));
        kill_tree(copy.id());
        wait_until(&mut copy, Instant::now() + LONG);
        let names = server.objects.names();
        let manifest = names.iter().any(|name| name.ends_with("/manifest"));
        let packs = |names: &[String]| names.iter().filter(|name| name.contains("/packs/")).count();
        assert!(!manifest || packs(&names) > 0, "{names:?}");
    }
    server.faults.set_latency(Duration::ZERO);
    site.pitr(&words).run_within(LONG).ok();
    let mut restored = site.restore("restored", &["--to", "latest", "--repository", "bucket"]);
    restored.start();
    assert_eq!(restored.ask("SELECT string_agg(word, ' ' ORDER BY word) FROM words"), "before later");
}

/// Promise: what is damaged in the source is not copied, is told, and keeps nothing else from being copied; what is different in the
/// other repository is not touched.
#[test]
fn damage_is_not_copied() {
    let site = with_a_backup();
    site.configure(&west(&site.dir));
    site.dir.make_dir("west");
    let segments = first(&site);
    let segment = segments.iter().find(|name| name.len() == 24).expect("a segment");
    let path = site.stored_path(segment);
    let good = fs::read(&path).expect("readable");
    let mut bad = good.clone();
    bad[100] ^= 0x55;
    fs::write(&path, &bad).expect("written");
    let words = ["copy", "--from", "first", "--to", "west"];
    let said = site.pitr(&words).run_within(LONG).fails_with(11);
    assert!(said.stderr.contains("could not copy 1 of ") && said.stderr.contains(segment), "{}", said.stderr);
    assert_eq!(wal_in(&site.dir.join("west")).len(), segments.len() - 1);
    fs::write(&path, &good).expect("written");
    site.pitr(&words).run_within(LONG).ok();
    assert_eq!(wal_in(&site.dir.join("west")), segments);
    site.pitr(&["copy", "--from", "west", "--to", "west"]).run().fails_with(2).says("to itself");
    site.pitr(&["copy", "--from", "west", "--to", "east"]).run().fails_with(3).says("has no repository \"east\"");
}
