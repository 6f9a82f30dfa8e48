//! The bucket's server is away for a while, or the bucket is gone, in the middle of everything: with a real PostgreSQL.
//!
//! A minute is made shorter by settings; what matters is that it is longer than a request and shorter than the patience.

use std::time::{Duration, Instant};

use super::S3Server;
use super::harness::{Run, Server, Site, Stop, newest, wait_for};
use super::road::{rows, site};

/// How long the server is away.
const AWAY: Duration = Duration::from_secs(6);
const LONG: Duration = Duration::from_secs(120);

/// Runs the work; the server goes away when it has been asked `count` times for something like this meanwhile, and comes back.
fn with_outage<T: Send>(server: &S3Server, kind: &str, path: &str, count: usize, work: impl FnOnce() -> T + Send) -> T {
    server.faults.take_seen();
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        let begun = Instant::now();
        let mut met = 0;
        while met < count && !working.is_finished() && begun.elapsed() < LONG {
            let seen = server.faults.take_seen();
            met += seen.iter().filter(|seen| seen.kind().starts_with(kind) && seen.path.contains(path)).count();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(met >= count && !working.is_finished(), "it was in the middle: {met} of {count} requests for {path}");
        server.faults.set_away(true);
        std::thread::sleep(AWAY);
        server.faults.set_away(false);
        working.join().expect("it did not panic")
    })
}

fn site_with_rows(server: &S3Server, settings: &str) -> Site {
    let site = site(server, &newest(), settings);
    site.server.run("CREATE TABLE words(word text); INSERT INTO words VALUES ('before')");
    // Several packs, so that there is a middle.
    site.server.run(
        "CREATE TABLE bulk AS SELECT md5(n::text) || md5((n + 1)::text) AS text FROM generate_series(1, 500000) AS n",
    );
    site
}

/// Promise: a server that is away in the middle of archiving, of a backup and of a restore costs time, and nothing has to be done
/// by hand. No attempt of the archiver fails, since each waits longer.
#[test]
fn away_in_the_middle() {
    let server = S3Server::start();
    let site = site_with_rows(&server, "s3_attempt_timeout = \"2s\"\n");
    site.server.archive_all();
    with_outage(&server, "PUT", "/wal/", 1, || {
        for number in 0..3 {
            site.server.run(&format!("INSERT INTO words VALUES ('while it is away {number}')"));
            site.server.switch_wal();
        }
        // Until it is back.
        site.server.archive_all();
    });
    assert_eq!(site.server.ask("SELECT failed_count FROM pg_stat_archiver"), "0");
    server.faults.set_latency(Duration::from_millis(50));
    let taken = with_outage(&server, "PUT", "/packs/", 1, || site.pitr(&["backup"]).run_within(LONG));
    taken.ok();
    site.server.run("INSERT INTO words VALUES ('later')");
    site.server.archive_all();
    let target = site.dir.join("latest");
    with_outage(&server, "GET", "/packs/", 2, || site.try_restore(&target, &["--to", "latest"])).ok();
    server.faults.set_latency(Duration::ZERO);
    let mut latest = Server::adopt(&site.dir, &site.server.postgres, "latest", &target);
    latest.start();
    assert_eq!(rows(&latest), rows(&site.server));
}

/// A site with a backup, WAL behind it, and a restored server that was not started.
fn restored(server: &S3Server, settings: &str) -> (Site, Server) {
    let site = site_with_rows(server, settings);
    site.backup();
    for number in 0..4 {
        site.server.run(&format!("INSERT INTO words VALUES ('after the backup {number}')"));
        site.server.switch_wal();
    }
    site.server.archive_all();
    let latest = site.restore("latest", &["--to", "latest"]);
    (site, latest)
}

/// Whether the server has opened its database, or said that it would.
fn has_opened(server: &Server) -> bool {
    server.try_client().is_some() && server.ask("SELECT pg_is_in_recovery()") == "f"
        || server.log().contains("archive recovery complete")
}

/// Promise: a recovery whose server is away waits, and goes on by itself: it does not open before it has all.
#[test]
fn recovery_waits() {
    let server = S3Server::start();
    let (site, mut latest) = restored(&server, "s3_attempt_timeout = \"2s\"\nlook_ahead = 0\n");
    server.faults.take_seen();
    server.faults.set_away(true);
    latest.spawn();
    wait_for("a request of the recovery", || server.faults.take_seen().pop());
    let until = Instant::now() + AWAY;
    while Instant::now() < until {
        assert!(latest.is_running() && !has_opened(&latest), "{}", latest.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    server.faults.set_away(false);
    wait_for("the recovery to end", || has_opened(&latest).then_some(()));
    assert_eq!(rows(&latest), rows(&site.server));
}

/// Promise: a recovery whose server stays away longer than it may wait, or whose bucket is gone, stops with a reason and never opens;
/// started again when it is back, it gets to the end.
#[test]
fn recovery_stops() {
    let server = S3Server::start();
    let settings = "s3_attempt_timeout = \"1s\"\ns3_call_timeout = \"2s\"\nfetch_timeout = \"4s\"\n";
    let (site, mut latest) = restored(&server, settings);
    type Break<'a> = &'a dyn Fn(bool);
    let away: Break<'_> = &|broken| server.faults.set_away(broken);
    let gone: Break<'_> =
        &|broken| server.objects.rename_bucket(if broken { "another" } else { super::s3_server::BUCKET });
    for (what, broken) in [("the server", away), ("the bucket", gone)] {
        broken(true);
        latest.spawn();
        assert!(!latest.wait_for_end(), "{what} is gone: {}", latest.log());
        assert!(!latest.log().contains("archive recovery complete"), "{what} is gone: {}", latest.log());
        broken(false);
    }
    let log = latest.log();
    assert!(log.contains("NoSuchBucket") && log.contains("pitr-wal-fetch: "), "{log}");
    latest.start();
    wait_for("the recovery to end", || has_opened(&latest).then_some(()));
    assert_eq!(rows(&latest), rows(&site.server));
    latest.stop(Stop::Fast);
}
