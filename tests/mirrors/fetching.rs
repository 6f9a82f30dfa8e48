//! Fetching from several repositories: from the one that has the file; absent only where all say so.

use std::fs;

use crate::harness::{Run, Server, Site, Stop, as_test_user, client_tool, newest, small, wait_for};
use crate::s3_server::{Fault, S3Server};
use crate::{bucket, take_away, west};

/// A file that was never archived.
const ABSENT: &str = "0000000100000000000000F0";

fn site(settings: &str, mirrors: impl Fn(&Site) -> String, count: usize) -> (Site, Vec<String>) {
    let site = Site::unprepared(&newest(), small(), "");
    site.configure(&format!("fetch_timeout = \"5s\"\nlook_ahead = 0\n{settings}{}", mirrors(&site)));
    site.pitr(&["init"]).run().ok();
    let segments: Vec<String> = (0..count).map(|_| site.server.switch_wal()).collect();
    for segment in &segments {
        site.push(segment).run().ok();
    }
    (site, segments)
}

fn assert_delivered(site: &Site, segment: &str) {
    let original = fs::read(site.pg_wal(segment)).expect("in pg_wal");
    assert!(fs::read(site.recovery_file()).expect("delivered") == original, "{segment}");
    fs::remove_file(site.recovery_file()).expect("removed");
}

/// Promise: damage, a gap and an outage of the first repository are each made good by the other, and told.
#[test]
fn falls_over() {
    let (site, segments) = site("", |site| west(&site.dir), 4);
    site.fetch(&segments[0]).run().ok();
    assert_delivered(&site, &segments[0]);

    let path = site.stored_path(&segments[1]);
    let mut bytes = fs::read(&path).expect("readable");
    bytes[50] ^= 0xFF;
    fs::write(&path, bytes).expect("written");
    site.fetch(&segments[1]).run().ok().says("is not to be used").says("Repository west had the file");
    assert_delivered(&site, &segments[1]);

    fs::remove_file(site.stored_path(&segments[2])).expect("removed");
    site.fetch(&segments[2]).run().ok().says("is missing in").says("Repository west had the file");
    assert_delivered(&site, &segments[2]);
    fs::remove_file(site.stored_path(&segments[3])).expect("removed");
    site.fetch(&segments[3]).run().ok().says("no such file").says("pitr copy --from west --to first");
    assert_delivered(&site, &segments[3]);

    let back = take_away(site.repository());
    site.fetch(&segments[0]).run().ok().says("is not a pitr repository");
    assert_delivered(&site, &segments[0]);
    back();
}

/// Promise: "not there" only if every repository says so for certain.
#[test]
fn absent_only_if_all_say_so() {
    let server = S3Server::start();
    let settings = "";
    let (site, segments) = site(settings, |site| west(&site.dir) + &bucket(&server), 2);
    site.fetch(ABSENT).run().fails_with(1);
    let back = take_away(site.dir.join("west"));
    let said = site.fetch(ABSENT).run();
    assert!(said.code() >= 200, "{said:?}");
    let said = said.says("cannot tell").says("first: no such file").says("west: ");
    assert!(said.stderr.contains("bucket: no such file"), "{}", said.stderr);
    back();
    site.fetch(ABSENT).run().fails_with(1);
    server.faults.add("GET", "", 1000, Fault::Refuse(500, "InternalError"));
    let said = site.fetch(ABSENT).run();
    assert!(said.code() >= 200, "{said:?}");
    // What one of them has is delivered all the same.
    site.fetch(&segments[1]).run().ok();
    assert_delivered(&site, &segments[1]);
    server.faults.clear();
    site.fetch(ABSENT).run().fails_with(1);
}

/// Promise: a silent first repository is not waited for when another has the file, also by a standby.
#[test]
fn a_silent_repository_is_not_waited_for() {
    let server = S3Server::start();
    let (site, segments) = site("", |_| bucket(&server), 3);
    server.faults.add("GET", "", 1000, Fault::Silence);
    // The bucket comes first when seen from here.
    let text = fs::read_to_string(site.config()).expect("the configuration");
    let swapped = text.replace(&format!("[repository]\npath = \"{}\"", site.repository().display()), "");
    let table = bucket(&server).replace("[cluster.main.mirror.bucket]\n", "[repository]\n");
    let swapped = swapped.replace(&bucket(&server), "");
    let mirror = format!("[cluster.main.mirror.home]\npath = \"{}\"\n", site.repository().display());
    site.dir.write("pitr.toml", format!("{table}\n{swapped}\n{mirror}"));
    for (segment, standby) in segments.iter().zip([false, true, true]) {
        if standby {
            site.dir.write("main/standby.signal", "");
        }
        site.fetch(segment).run().ok();
        assert_delivered(&site, segment);
    }
    fs::remove_file(site.dir.join("main/standby.signal")).expect("removed");
    let said = site.fetch(ABSENT).run();
    assert!(said.code() >= 200, "{said:?}");
}

/// Promise: a real recovery gets through although each of two repositories lacks some of the WAL, also what is fetched ahead; with one
/// of them away it stops and does not open early, and goes on when it is back.
#[test]
fn a_recovery_from_both() {
    let mut site = Site::unprepared(&newest(), small(), "");
    site.configure(&format!("fetch_timeout = \"3s\"\n{}", west(&site.dir)));
    site.pitr(&["init"]).run().ok();
    site.archive();
    site.server.run("CREATE TABLE t (n int)");
    let mut copy = Server::adopt(&site.dir, &newest(), "copy", &site.dir.join("copy"));
    let mut backup = as_test_user(client_tool("pg_basebackup"));
    backup.arg("--pgdata").arg(copy.data_dir()).arg("--dbname").arg(site.server.conninfo());
    backup.args(["--wal-method=none", "--checkpoint=fast", "--no-sync"]).run().ok();
    let mut segments = Vec::new();
    for n in 1..=8 {
        site.server.run(&format!("INSERT INTO t VALUES ({n})"));
        segments.push(site.server.archive_all());
    }
    site.server.stop(Stop::Fast);
    // Each has every other one; the last three are in the mirror only, and one is damaged instead of lost.
    for (number, segment) in segments.iter().enumerate() {
        let path = site.stored_path(segment);
        let other = site.dir.join("west").join(path.strip_prefix(site.repository()).expect("inside"));
        let lost = if number % 2 == 0 && number < 5 { other } else { path };
        if number == 3 {
            let stored = fs::read(&lost).expect("readable");
            fs::write(&lost, &stored[..stored.len() / 2]).expect("cut");
        } else {
            fs::remove_file(lost).expect("removed");
        }
    }
    copy.configure("restore_command", &site.fetch_command());
    copy.configure("archive_mode", "off");
    site.dir.write("copy/recovery.signal", "");
    let back = take_away(site.dir.join("west"));
    copy.spawn();
    assert!(!copy.wait_for_end(), "it should have stopped; its log:\n{}", copy.log());
    assert!(copy.log().contains("pitr-wal-fetch: ERROR:  "), "{}", copy.log());
    assert!(!copy.data_dir().join("pg_wal/00000002.history").exists(), "the database was opened");
    back();
    copy.start();
    wait_for("the end of recovery", || (copy.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    assert_eq!(copy.ask("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t"), "1 2 3 4 5 6 7 8");
}
