//! Replay that can be watched: by `pitr restore --start` itself, and by `pitr progress` from outside.

mod harness;

use std::path::PathBuf;
use std::time::Duration;

use harness::{Run, Server, Site, Stop, majors, newest, small, wait_for, wait_for_within};
use serde_json::Value;

/// A site with a backup and so many segments behind it, each with a commit, and a restore point at the end.
fn site(postgres: &harness::Postgres, segments: usize) -> Site {
    let site = Site::with(postgres, small(), "");
    site.server.run("CREATE TABLE t(n int)");
    site.backup();
    for number in 0..segments {
        site.server.run(&format!("INSERT INTO t VALUES ({number})"));
        site.server.archive_all();
    }
    site.server.run("SELECT pg_create_restore_point('end')");
    site.server.archive_all();
    site
}

/// A `pitr-wal-fetch` that takes its time.
fn slow(site: &Site, seconds: &str) -> PathBuf {
    let fetch = site.dir.binary("pitr-wal-fetch");
    let script = site.dir.write("slow-fetch", format!("#!/bin/sh\nsleep {seconds}\nexec {} \"$@\"\n", fetch.display()));
    harness::as_test_user("chmod").arg("0755").arg(&script).run().ok();
    script
}

fn progress(site: &Site, words: &[&str]) -> (i32, Value) {
    let mut all = vec!["progress", "--json"];
    all.extend(words);
    let said = site.pitr(&all).run();
    (said.code(), serde_json::from_str(&said.stdout).unwrap_or_else(|_| panic!("no JSON: {said}")))
}

/// Promise: from outside, before the server lets anybody in, its progress is told by the segment it replays: of the plan's
/// segments, with the commit time reached; at the target the server itself tells the exact place; after the end it says so.
#[test]
fn a_restored_server() {
    let majors = majors();
    // The oldest and the newest: what they say of themselves differs.
    let ends = [majors.first(), majors.last().filter(|_| majors.len() > 1)];
    for postgres in ends.into_iter().flatten() {
        let site = site(postgres, 6);
        let script = slow(&site, "0.7").display().to_string();
        let target = site.dir.join("clone").display().to_string();
        let words = ["--to-name", "end", "--action", "pause", "--wal-fetch", &script];
        let mut clone = site.restore("clone", &words);
        let plan = site.pitr(&["plan", "--to-name", "end", "--json"]).run().ok().stdout;
        let plan: Value = serde_json::from_str(&plan).expect("JSON");
        let total = plan["plan"]["wal_segments"].as_u64().expect("a number");

        clone.spawn();
        let mut seen = Vec::new();
        wait_for_within(Duration::from_secs(120), "the replay to be seen under way", || {
            let (code, found) = progress(&site, &["--data", &target]);
            assert_eq!(code, 0, "{found}");
            let position = &found["position"];
            assert_eq!(position["segments_total"].as_u64(), Some(total), "PostgreSQL {}: {found}", postgres.major);
            let done = position["segments_done"].as_u64().expect("a number");
            if seen.last() != Some(&done) {
                seen.push(done);
            }
            // From 15 on the server asks for what lies behind the target too, before it stops there.
            (done + 1 >= total && clone.try_client().is_some()).then_some(())
        });
        assert!(seen.len() >= 3 && seen.is_sorted(), "PostgreSQL {}: {seen:?} of {total}", postgres.major);

        let paused = "SELECT pg_is_wal_replay_paused()";
        wait_for("the pause at the target", || (clone.ask(paused) == "t").then_some(()));
        let conninfo = clone.conninfo();
        let exact = || {
            let (code, found) = progress(&site, &["--data", &target, "--conninfo", &conninfo]);
            (code == 0 && found["position"]["time_reached"].is_string()).then_some(found)
        };
        let found = wait_for("the server to tell", exact);
        let told = clone.ask("SELECT pg_last_wal_replay_lsn()");
        let lsn: pitr::wal::Lsn = found["position"]["lsn"].as_str().expect("an LSN").parse().expect("an LSN");
        assert_eq!(lsn, told.parse().expect("an LSN"));
        let expected = clone.ask("SELECT (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint");
        let reached: pitr::wal::PgTime =
            serde_json::from_value(found["position"]["time_reached"].clone()).expect("a time");
        assert_eq!((reached.0 + 946_684_800_000_000).to_string(), expected);
        let said = site.pitr(&["progress", "--conninfo", &conninfo]).run().ok();
        assert!(said.stdout.contains("PAUSED recovery to restore point \"end\""), "{said}");
        assert!(said.stdout.contains("waits for pg_wal_replay_resume()") && !said.stdout.contains(" left"), "{said}");

        clone.run("SELECT pg_wal_replay_resume()");
        wait_for("the end of recovery", || (clone.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
        let said = site.pitr(&["progress", "--data", &target]).run();
        assert!(said.code() == 1 && said.stdout.contains("not in recovery"), "{said}");
        let (code, found) = progress(&site, &["--conninfo", &conninfo]);
        assert_eq!((code, &found["in_recovery"]), (1, &Value::Bool(false)));
    }
}

/// Promise: a standby goes to the end of the archive, which grows; one that is stopped is told as such.
#[test]
fn a_standby() {
    let site = site(&newest(), 2);
    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", Some(&site.fetch_command()));
    standby.configure("primary_conninfo", "");
    standby.start();
    let target = standby.data_dir().display().to_string();
    let left = || {
        let (code, found) = progress(&site, &["--data", &target, "--conninfo", &standby.conninfo()]);
        assert_eq!((code, &found["standby"]), (0, &Value::Bool(true)), "{found}");
        found["position"]["bytes_left"].as_u64().expect("a number")
    };
    // The rest of a switched segment is nothing to be replayed.
    wait_for("the standby to be there", || (left() < 1 << 20).then_some(()));
    standby.run("SELECT pg_wal_replay_pause()");
    for _ in 0..4 {
        site.server.archive_all();
    }
    assert!(left() > 3 << 20);
    let said = site.pitr(&["progress", "--data", &target]).run().ok();
    assert!(said.stdout.contains("standby, to the end of the archive"), "{said}");
    standby.stop(Stop::Fast);
    let said = site.pitr(&["progress", "--data", &target]).run().ok();
    assert!(said.stdout.contains("NOT RUNNING"), "{said}");
}

/// Promise: a restore that starts the server shows segments, bytes, the commit time reached, the rate, and the time left.
#[test]
fn restore_and_start() {
    let site = site(&newest(), 14);
    let script = slow(&site, "1").display().to_string();
    let target = site.dir.join("clone");
    let binaries = site.server.postgres.bin("pg_ctl").parent().expect("its directory").display().to_string();
    let words = ["--to-name", "end", "--start", "--pg-bin", &binaries, "--wal-fetch", &script];
    let said = site.try_restore(&target, &words).ok();
    let line = said.stderr.lines().find(|line| line.starts_with("replayed ")).unwrap_or_else(|| panic!("{said}"));
    for part in [" WAL segments, ", "commits of 20", "/s, ", " left"] {
        assert!(line.contains(part), "{line}");
    }
    drop(Server::adopt(&site.dir, &site.server.postgres, "clone", &target));
    let pg_ctl = site.server.postgres.bin("pg_ctl");
    harness::as_test_user(pg_ctl).arg("stop").arg("-D").arg(&target).args(["-m", "immediate"]).run().ok();
}
