//! Archiving into several repositories.

use std::fs;
use std::time::Duration;

use crate::harness::{Options, Run, Site, newest, small, wait_for};
use crate::s3_server::{Fault, S3Server};
use crate::{bucket, first, forget_away, notes, take_away, wal_in, west};

/// A site that does not archive yet, with mirrors and a policy; segments are pushed by hand.
fn site(policy: &str, mirrors: impl Fn(&Site) -> String, count: usize) -> (Site, Vec<String>) {
    let site = Site::unprepared(&newest(), small(), "");
    site.configure(&format!("push_policy = \"{policy}\"\n{}", mirrors(&site)));
    site.pitr(&["init"]).run().ok();
    let segments = (0..count).map(|_| site.server.switch_wal()).collect();
    (site, segments)
}

/// Promise: every segment that counts as archived lies in a directory, another directory and a bucket, byte for byte the same object,
/// and the mirrors alone can tell as much as the first one.
#[test]
fn all_hold_every_segment() {
    let server = S3Server::start();
    let mut site = Site::unprepared(&newest(), Options::default(), "");
    site.configure(&format!("{}{}", west(&site.dir), bucket(&server)));
    site.pitr(&["init"]).run().ok();
    let again = site.pitr(&["init"]).run().ok().stdout;
    assert!(again.contains("mirror:      west, ") && again.contains("ready\nmirror:      bucket, "), "{again}");
    site.archive();
    site.server.run("CREATE TABLE words(word text)");
    for _ in 0..6 {
        site.server.run("INSERT INTO words VALUES ('x')");
        site.server.switch_wal();
    }
    site.server.archive_all();
    assert_eq!(site.server.ask("SELECT failed_count FROM pg_stat_archiver"), "0");
    let segments = first(&site);
    assert!(segments.len() >= 7, "{segments:?}");
    assert_eq!(wal_in(&site.dir.join("west")), segments);
    let in_bucket = server.objects.names();
    for segment in &segments {
        assert!(in_bucket.iter().any(|name| name.ends_with(segment)), "{segment}");
    }
    let path = site.stored_path(&segments[0]);
    let same = site.dir.join("west").join(path.strip_prefix(site.repository()).expect("in the repository"));
    assert_eq!(fs::read(path).expect("stored"), fs::read(same).expect("stored"));
    let shown = site.pitr(&["config", "show"]).run().ok();
    assert!(shown.stdout.contains("mirror.west.path") && shown.stdout.contains("push_policy"), "{}", shown.stdout);
    site.backup();
    let status = site.pitr(&["status"]).run_within(Duration::from_secs(60)).ok();
    assert!(status.stdout.contains("repository bucket") && status.stdout.contains("has all WAL"), "{}", status.stdout);
    let checked = site.pitr(&["check"]).run_within(Duration::from_secs(60)).ok();
    assert!(checked.stdout.contains("west: ") && checked.stdout.contains("bucket: "), "{}", checked.stdout);
    assert!(
        !notes(&site).iter().any(|note| note.starts_with("away") || note.starts_with("behind")),
        "{:?}",
        notes(&site)
    );
}

/// Promise: with a policy of 1, archiving goes on while a repository is away; status tells that it is behind; when it is back it is
/// caught up without hands.
#[test]
fn one_away_is_caught_up_without_hands() {
    for away in ["west", "repository"] {
        let (site, segments) = site("1", |site| west(&site.dir), 5);
        site.push(&segments[0]).run().ok();
        let back = take_away(site.dir.join(away));
        let said = site.push(&segments[1]).run().ok();
        if !said.stderr.is_empty() {
            assert!(said.stderr.contains("WARNING") && said.stderr.contains("left alone"), "{}", said.stderr);
        }
        for segment in &segments[2..] {
            site.push(segment).run().ok();
        }
        let (held, other) = if away == "west" { ("repository", "first") } else { ("west", "west") };
        assert_eq!(wal_in(&site.dir.join(held)), segments);
        let status = site.pitr(&["status", "--repository", other]).run();
        assert!(status.code() == 1 && status.stdout.contains("cannot be compared"), "{}", status.stdout);
        back();
        let status = site.pitr(&["status", "--repository", other]).run();
        let lacking = segments.len() - wal_in(&site.dir.join(away)).len();
        if lacking > 0 {
            assert!(status.stdout.contains(&format!("is behind: {lacking} segments")), "{}", status.stdout);
        }
        forget_away(&site);
        let next = site.server.switch_wal();
        site.push(&next).run().ok();
        let mut all = segments.clone();
        all.push(next);
        assert_eq!(wal_in(&site.dir.join(away)), all, "{away} is caught up");
        assert!(!notes(&site).iter().any(|note| note.starts_with("behind")), "{:?}", notes(&site));
    }
}

/// Promise: the same through the real archiver, with a bucket that does not answer at all: it does not hold archiving up for long.
#[test]
fn a_silent_bucket_does_not_stop_archiving() {
    let server = S3Server::start();
    let mut site = Site::unprepared(&newest(), small(), "");
    site.configure(&format!("push_policy = 1\n{}", bucket(&server)));
    site.pitr(&["init"]).run().ok();
    site.archive();
    site.server.archive_all();
    server.faults.add("PUT", "", 1000, Fault::Silence);
    for _ in 0..5 {
        site.server.switch_wal();
    }
    site.server.archive_all();
    assert_eq!(site.server.ask("SELECT failed_count FROM pg_stat_archiver"), "0");
    assert!(notes(&site).contains(&"behind.bucket".to_owned()), "{:?}", notes(&site));
    server.faults.clear();
    forget_away(&site);
    wait_for("the bucket to be caught up", || {
        site.server.switch_wal();
        site.server.archive_all();
        forget_away(&site);
        let in_bucket = server.objects.names();
        let all = first(&site).iter().all(|segment| in_bucket.iter().any(|name| name.ends_with(segment)));
        (all && !notes(&site).contains(&"behind.bucket".to_owned())).then_some(())
    });
}

/// Promise: where the note of what a repository lacks is lost with the spool, `status` and `check` tell it all the same, and `copy` makes
/// it good.
#[test]
fn a_lost_spool_hides_nothing() {
    let (mut site, segments) = site("1", |site| format!("look_ahead = 0\n{}", west(&site.dir)), 4);
    site.push(&segments[0]).run().ok();
    let back = take_away(site.dir.join("west"));
    site.push(&segments[1]).run().ok();
    site.push(&segments[2]).run().ok();
    back();
    for cluster in fs::read_dir(site.dir.join("spool")).expect("the spool").flatten() {
        fs::remove_dir_all(cluster.path()).expect("removed");
    }
    site.push(&segments[3]).run().ok();
    let lacking = segments.len() - wal_in(&site.dir.join("west")).len();
    assert!(lacking >= 2, "nobody knows that it has to be caught up: {lacking}");
    let behind = format!("repository west in {} is behind: {lacking} segments", site.dir.join("west").display());
    let status = site.pitr(&["status"]).run();
    assert!(status.code() == 1 && status.stdout.contains(&behind), "{behind}: {status}");
    site.archive();
    let checked = site.pitr(&["check"]).run_within(Duration::from_secs(60));
    assert!(checked.stdout.contains(&behind), "{checked}");
    site.pitr(&["copy", "--from", "first", "--to", "west", "--wal-only"]).run_within(Duration::from_secs(60)).ok();
    let checked = site.pitr(&["check"]).run_within(Duration::from_secs(60)).ok();
    assert!(!checked.stdout.contains("behind"), "{checked}");
    assert_eq!(wal_in(&site.dir.join("west")), first(&site));
}

/// Promise: with the policy "all" nothing counts as archived that a repository lacks; what the others have taken by then is no obstacle
/// later, and nothing is lost.
#[test]
fn all_waits_for_all() {
    let (site, segments) = site("all", |site| west(&site.dir), 3);
    site.push(&segments[0]).run().ok();
    let back = take_away(site.dir.join("west"));
    for _ in 0..2 {
        site.push(&segments[1]).run().fails_with(5).says("west: ").says("in 2 of the cluster's 2 repositories");
    }
    assert!(!site.acknowledged().contains(&segments[1]));
    back();
    for segment in &segments {
        site.push(segment).run().ok();
    }
    assert_eq!((first(&site), wal_in(&site.dir.join("west"))), (segments.clone(), segments));
}

/// Promise: an acknowledgement vouches for the repositories that hold the file, not for one that was added since.
#[test]
fn an_acknowledgement_does_not_vouch_for_an_added_repository() {
    let (site, segments) = site("all", |_| String::new(), 3);
    site.push(&segments[0]).run().ok();
    assert!(site.acknowledged().contains(&segments[1]));
    for policy in ["1", "all"] {
        site.configure(&format!("push_policy = \"{policy}\"\n{}", west(&site.dir)));
        site.pitr(&["init"]).run().ok();
        let segment = if policy == "1" { &segments[1] } else { &segments[2] };
        site.push(segment).run().ok();
        assert!(wal_in(&site.dir.join("west")).contains(segment), "{policy}");
    }
}

/// Promise: other bytes under the name in any of the repositories are an error, whatever the policy.
#[test]
fn a_split_brain_between_mirrors() {
    let (site, segments) = site("1", |site| west(&site.dir), 1);
    // The mirror has another history under this name: that of another server with the same identity.
    let from = site.pg_wal(&segments[0]);
    let mut other = fs::read(&from).expect("readable");
    let size = other.len();
    other[size - 1] ^= 1;
    let both = fs::read_to_string(site.config()).expect("the configuration");
    let only_west = both.replace(&format!("path = \"{}\"", site.repository().display()), "path = \"/other\"");
    let only_west = only_west.replace("/other", &site.dir.join("west").display().to_string());
    let only_west = only_west.split("[cluster.main.mirror").next().expect("a first part").to_owned();
    site.dir.write("pitr.toml", only_west);
    let good = fs::read(&from).expect("readable");
    site.dir.write(&from, &other);
    site.push(&segments[0]).run().ok();
    site.dir.write(&from, &good);
    site.dir.write("pitr.toml", both);
    site.push(&segments[0]).run().fails_with(10).says("already in").says("west");
}
