//! Fetching from several repositories: the next one is asked, and a recovery never ends early.

use std::fs;
use std::path::PathBuf;

use crate::harness::{Options, Run, Server, Site, Stop, newest, small, wait_for};
use crate::{first, take_away, wal_in, west};

/// A site with a mirror; both hold the segments, whose names it gives.
fn site(count: usize) -> (Site, Vec<String>) {
    let site = Site::unprepared(&newest(), small(), "");
    site.configure(&format!("look_ahead = 0\nfetch_timeout = \"4s\"\n{}", west(&site.dir)));
    site.pitr(&["init"]).run().ok();
    let segments: Vec<String> = (0..count).map(|_| site.server.switch_wal()).collect();
    for segment in &segments {
        site.push(segment).run().ok();
    }
    assert_eq!(first(&site), wal_in(&site.dir.join("west")));
    (site, segments)
}

fn in_west(site: &Site, segment: &str) -> PathBuf {
    let path = site.stored_path(segment);
    site.dir.join("west").join(path.strip_prefix(site.repository()).expect("in the repository"))
}

/// The segment is delivered as the server wrote it.
fn delivers(site: &Site, segment: &str) -> crate::harness::Finished {
    let finished = site.fetch(segment).run().ok();
    let delivered = fs::read(site.recovery_file()).expect("delivered");
    assert!(delivered == fs::read(site.pg_wal(segment)).expect("written"), "{segment}");
    finished
}

/// Promise: what one repository lacks, has damaged, or cannot give because it is away, comes from the other, and is told.
#[test]
fn the_other_has_it() {
    let (site, segments) = site(4);
    assert_eq!(delivers(&site, &segments[0]).stderr, "");
    // A hole.
    fs::remove_file(site.stored_path(&segments[1])).expect("removed");
    delivers(&site, &segments[1]);
    // Damage.
    let path = site.stored_path(&segments[2]);
    let good = fs::read(&path).expect("readable");
    fs::write(&path, &good[..good.len() / 2]).expect("cut");
    let said = delivers(&site, &segments[2]);
    assert!(said.stderr.contains("WARNING") && said.stderr.contains("west"), "{said}");
    // Away.
    let back = take_away(site.repository());
    delivers(&site, &segments[3]);
    back();
    // The mirror is away: nothing is asked of it.
    let back = take_away(site.dir.join("west"));
    delivers(&site, &segments[0]);
    back();
}

/// Promise: "not there" is said only if every repository says so; with one away, or with a gap in one, nobody can tell.
#[test]
fn absent_only_if_all_say_so() {
    let (site, segments) = site(3);
    let next = site.server.switch_wal();
    site.fetch(&next).run().fails_with(1);
    let back = take_away(site.dir.join("west"));
    let said = site.fetch(&next).run();
    assert!(said.status.code().is_some_and(|code| code > 125), "{said}");
    back();
    let back = take_away(site.repository());
    let said = site.fetch(&next).run();
    assert!(said.status.code().is_some_and(|code| code > 125), "{said}");
    back();
    // Both lack it, and both have what follows.
    for path in [in_west(&site, &segments[1]), site.stored_path(&segments[1])] {
        fs::remove_file(path).expect("removed");
    }
    let said = site.fetch(&segments[1]).run();
    assert!(said.status.code().is_some_and(|code| code > 125), "{said}");
}

/// Promise: a real recovery goes through with the first repository damaged in the middle of its WAL, and all rows are there.
#[test]
fn a_recovery_over_damage() {
    let mut site = Site::unprepared(&newest(), Options::default().segment_size_mib(1), "");
    site.configure(&west(&site.dir));
    site.pitr(&["init"]).run().ok();
    site.archive();
    site.server.run("CREATE TABLE t (n int)");
    site.backup();
    let segments: Vec<String> = (1..=6)
        .map(|n| {
            site.server.run(&format!("INSERT INTO t VALUES ({n})"));
            site.server.archive_all()
        })
        .collect();
    site.server.stop(Stop::Fast);
    let target = site.dir.join("copy");
    site.try_restore(&target, &["--to", "latest"]).ok();
    for segment in &segments[1..3] {
        let path = site.stored_path(segment);
        let good = fs::read(&path).expect("readable");
        fs::write(&path, &good[..good.len() / 2]).expect("cut");
    }
    let mut copy = Server::adopt(&site.dir, &newest(), "copy", &target);
    copy.start();
    wait_for("the end of recovery", || (copy.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    assert_eq!(copy.ask("SELECT count(*) FROM t"), "6");
}
