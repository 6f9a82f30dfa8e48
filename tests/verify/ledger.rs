//! Short runs take turns through all of it, and a run that is killed keeps what it had verified.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use crate::harness::process::{kill_tree, signal, wait_until};
use crate::harness::{Run, Site, newest, small, wait_for};
use crate::{LONG, count, findings, those, verify};

fn world(segments: usize) -> Site {
    let site = Site::with(&newest(), small(), "jobs = 2\n");
    site.server.run("CREATE TABLE big AS SELECT n, md5(n::text) FROM generate_series(1, 5000) n");
    site.backup();
    for _ in 0..segments {
        site.server.run("UPDATE big SET md5 = md5(md5) WHERE n % 10 = 0");
        site.server.archive_all();
    }
    site
}

/// How much `pitr status` says was verified, and how much never.
fn covered(site: &Site) -> (u64, u64) {
    let status = site.pitr(&["status", "--json"]).run_within(LONG).stdout;
    let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let verified = &status["servers"][0]["verified"];
    let never = ["never_backups", "never_packs", "never_segments"];
    let never = never.iter().map(|name| verified[name].as_u64().expect("a number")).sum();
    (verified["verified"].as_u64().expect("a number"), never)
}

/// Promise: runs that have no time at all verify one thing each, what was never verified first, and so come to the end; then they begin
/// with what was verified the longest ago. The ledger stays small.
#[test]
fn short_runs_cover_everything() {
    let site = world(4);
    let (before, all) = covered(&site);
    assert!(before == 0 && all > 5, "{before} {all}");
    let status = site.pitr(&["status"]).run_within(LONG).stdout;
    assert!(status.contains("  verified       never"), "{status}");
    let mut runs = 0;
    let mut last = 0;
    loop {
        let (status, document, said) = verify(&site, &["--for", "0s"]);
        assert_eq!((status, findings(&document)), (0, vec![]), "{said}");
        runs += 1;
        let verified = count(&document, "coverage", "verified");
        assert!(verified >= last && runs <= all + 4, "{verified} after {last}, {runs} runs: {said}");
        last = verified;
        if verified == all {
            break;
        }
        assert!(document["complete"] == false, "{said}");
    }
    assert!(runs > all / 2, "{runs} runs for {all}");
    assert_eq!(covered(&site), (all, 0));
    let objects = those(&site.repository(), "/verified/");
    assert!(objects.len() <= 13, "{objects:?}");
    // A whole run is one object more, and makes everything new.
    let (_, document, _) = verify(&site, &["--for", "1h"]);
    assert!(document["complete"] == true, "{document}");
    let begun = document["servers"][0]["coverage"]["oldest"].as_str().expect("a time").to_owned();
    let (_, document, _) = verify(&site, &["--for", "0s"]);
    assert_eq!(document["servers"][0]["coverage"]["oldest"], begun.as_str(), "one of many was made new: {document}");
    // Lost, damaged or of a newer version: then it is verified again, and nothing is wrong.
    for object in those(&site.repository(), "/verified/") {
        fs::write(object, b"{\"format\": 9").expect("written");
    }
    assert_eq!(covered(&site), (0, all));
}

/// Promise: a run that is killed has noted what it verified; one that is stopped ends in order and says so; the rate is kept.
#[test]
fn killed_and_stopped() {
    let site = world(6);
    let (_, all) = covered(&site);
    let words = ["verify", "--wal", "--rate-limit", "32kB"];
    let mut run = site.pitr(&words).spawn().expect("it runs");
    let noted = wait_for("something to be noted", || {
        let noted = those(&site.repository(), "/verified/").len();
        (noted > 0).then_some(noted)
    });
    kill_tree(run.id());
    wait_until(&mut run, Instant::now() + LONG);
    let (verified, never) = covered(&site);
    assert!(noted > 0 && verified > 0 && never > 0 && verified + never == all, "{verified} {never} {all}");

    let mut run = site.pitr(&words).spawn().expect("it runs");
    std::thread::sleep(Duration::from_secs(2));
    signal(run.id(), rustix::process::Signal::TERM);
    let ended = wait_until(&mut run, Instant::now() + LONG).expect("it ends");
    assert_eq!(ended.code(), Some(24));
    assert!(covered(&site).0 >= verified);
}

/// Promise: where the ledger cannot be written, everything is verified all the same, and that is said.
#[test]
fn nothing_can_be_noted() {
    let site = world(1);
    let folder = those(&site.repository(), "server.json").remove(0).parent().expect("a folder").to_owned();
    fs::set_permissions(&folder, Permissions::from_mode(0o555)).expect("changed");
    let said = site.pitr(&["verify"]).run_within(LONG).ok().stdout;
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("changed back");
    assert!(said.contains("nothing that was looked at is damaged") && said.contains("could not be noted"), "{said}");
}
