//! The whole road with a real server: init, archive, back up, restore, with the repository in a bucket.

use std::process::Command;
use std::time::Duration;

use super::S3Server;
use super::harness::{Options, Postgres, Run, Server, Site, wait_for};
use super::s3_server::{BUCKET, Fault};

/// A site whose repository lies in the server's bucket; archiving has begun.
pub(super) fn site(server: &S3Server, postgres: &Postgres, settings: &str) -> Site {
    site_with(server, postgres, Options::default(), settings)
}

/// As [`site`], with a server of the test's choice.
pub(super) fn site_with(server: &S3Server, postgres: &Postgres, options: Options, settings: &str) -> Site {
    let mut site = unprepared_with(server, postgres, options, settings);
    site.pitr(&["init"]).run().ok();
    site.archive();
    site
}

fn unprepared(server: &S3Server, postgres: &Postgres, settings: &str) -> Site {
    unprepared_with(server, postgres, Options::default(), settings)
}

fn unprepared_with(server: &S3Server, postgres: &Postgres, options: Options, settings: &str) -> Site {
    let site = Site::unprepared(postgres, options, "");
    let settings = format!(
        "repository = \"s3://{BUCKET}/pg\"\ns3_endpoint = \"{}\"\ns3_credentials_file = \"{}\"\n{settings}",
        server.endpoint(),
        server.credentials_file().display(),
    );
    site.configure(&settings);
    site
}

pub(super) fn rows(server: &Server) -> String {
    server.ask("SELECT string_agg(word, ' ' ORDER BY word) FROM words")
}

/// Promise: a bucket does all that a directory does: the rows of the moment asked for come back, and none that came later.
#[test]
fn there_and_back() {
    let server = S3Server::start();
    let site = site(&server, &super::harness::major(15), "");
    let shown = site.pitr(&["config", "show"]).run().ok().stdout;
    assert!(shown.contains("s3://pitr-test/pg") && !shown.contains("not-a-secret"), "{shown}");
    site.server.run("CREATE TABLE words(word text); INSERT INTO words VALUES ('before')");
    site.backup();
    site.server.run("INSERT INTO words VALUES ('between')");
    site.server.run("SELECT pg_create_restore_point('here')");
    site.server.run("INSERT INTO words VALUES ('later')");
    site.server.archive_all();
    for words in [&["check"][..], &["status"], &["list"], &["log"], &["timelines"]] {
        let finished = site.pitr(&[words, &["--stats"]].concat()).run_within(Duration::from_secs(60)).ok();
        assert!(!finished.stdout.is_empty(), "{words:?}");
        assert!(finished.stderr.contains("pitr: cost:  ") && finished.stderr.contains(" GET"), "{finished}");
    }
    // Neither a backup nor a restore asks for each of a thousand small files.
    let mut costs = Vec::new();
    for words in [&["backup"][..], &["restore", "--yes", "--to", "immediate", "--target"]] {
        let mut command = site.pitr(words);
        if words.len() > 1 {
            command.arg(site.dir.join("counted"));
        }
        let done = command.arg("--stats").run_within(Duration::from_secs(120)).ok();
        let cost = done.stderr.lines().find(|line| line.contains("pitr: cost:")).expect("its cost").to_owned();
        let requests = cost.split(" requests").next().and_then(|before| before.rsplit(' ').next());
        let requests: u32 = requests.and_then(|number| number.parse().ok()).expect("a number of requests");
        costs.push((requests, cost));
    }
    assert!(costs.iter().all(|(requests, _)| (1..100).contains(requests)), "{costs:?}");
    let mut here = site.restore("here", &["--to-name", "here"]);
    here.start();
    assert_eq!(rows(&here), "before between");
    let mut latest = site.restore("latest", &["--to", "latest"]);
    latest.start();
    assert_eq!(rows(&latest), "before between later");
    assert_eq!(server.objects.unfinished_uploads(), 0);
}

/// Promise: a server that was away, broke connections and lost answers costs time and nothing else.
#[test]
fn a_bad_network() {
    let server = S3Server::start();
    let site = site(&server, &super::harness::newest(), "s3_attempt_timeout = \"5s\"\n");
    site.server.run("CREATE TABLE words(word text); INSERT INTO words VALUES ('before')");
    for kind in ["PUT", "GET", "POST uploadId", "PUT uploadId"] {
        server.faults.add_after(2, kind, "", 1, Fault::LoseAnswer);
        server.faults.add_after(3, kind, "", 1, Fault::Reset);
        server.faults.add_after(4, kind, "", 2, Fault::Refuse(503, "SlowDown"));
    }
    site.backup();
    site.server.run("INSERT INTO words VALUES ('later')");
    site.server.archive_all();
    server.faults.clear();
    server.faults.add_after(1, "GET", "/packs/", 3, Fault::Truncate(1000));
    let mut latest = site.restore("latest", &["--to", "latest"]);
    latest.start();
    assert_eq!(rows(&latest), "before later");
}

/// Promise: in recovery, a bucket that is gone stops the server or lets it wait: never does it open the database early.
#[test]
fn a_vanished_bucket() {
    let server = S3Server::start();
    let site = site(&server, &super::harness::newest(), "s3_attempts = \"2\"\nfetch_timeout = \"5s\"\n");
    site.backup();
    site.server.archive_all();
    server.objects.rename_bucket("another");
    let mut fetch: Command = site.dir.pitr("pitr-wal-fetch");
    fetch.args(["--cluster", "main", "--config"]).arg(site.config());
    fetch.arg("000000010000000000000099").arg(site.dir.join("wal"));
    let finished = fetch.run_within(Duration::from_secs(60));
    assert!(finished.status.code().is_some_and(|code| code > 125), "{finished:?}");
    assert!(finished.stderr.contains("NoSuchBucket"), "{}", finished.stderr);
}

/// Promise: a server that would overwrite is refused, until the configuration says that this is known.
#[test]
fn a_server_that_overwrites() {
    let server = S3Server::start();
    server.objects.ignore_conditions();
    let site = unprepared(&server, &super::harness::newest(), "");
    let refused = site.pitr(&["init"]).run();
    assert!(!refused.status.success() && refused.stderr.contains("s3_conditional_writes"), "{}", refused.stderr);
    assert_eq!(server.objects.names(), Vec::<String>::new(), "no repository was made");
    let mut site = site;
    let text = std::fs::read_to_string(site.config()).expect("the configuration");
    site.dir.write("pitr.toml", format!("{text}s3_conditional_writes = \"off\"\n"));
    let made = site.pitr(&["init"]).run().ok();
    assert!(made.stdout.contains("looks first"), "{}", made.stdout);
    site.archive();
    let checked = site.pitr(&["check"]).run_within(Duration::from_secs(60)).ok();
    assert!(checked.stdout.contains("looks first"), "{}", checked.stdout);
}

/// Promise: in steady state a segment costs one request, and a file that was archived ahead none at all.
#[test]
fn one_request_a_segment() {
    let server = S3Server::start();
    let mut site = site(&server, &super::harness::newest(), "look_ahead = 0\n");
    site.server.run("CREATE TABLE words(word text)");
    site.server.archive_all();
    site.server.run("INSERT INTO words VALUES ('x')");
    site.server.archive_all();
    server.faults.take_seen();
    for _ in 0..3 {
        site.server.run("INSERT INTO words VALUES ('y')");
        site.server.archive_all();
    }
    assert_eq!(server.faults.take_kinds(), ["PUT", "PUT", "PUT"]);
    site.server.configure("archive_command", "");
    site.server.reload();
    let segment = site.server.switch_wal();
    let mut push = site.push(&segment);
    let pushed = push.arg("--stats").run().ok();
    let cost = "pitr-wal-push: cost:  ";
    assert!(pushed.stderr.starts_with(cost) && pushed.stderr.contains(" 1 requests (1 PUT); sent "), "{pushed}");
    let fetched = site.fetch(&segment).arg("--stats").run().ok();
    let cost = "pitr-wal-fetch: cost:  ";
    assert!(fetched.stderr.starts_with(cost) && fetched.stderr.contains("(1 GET)"), "{fetched}");
    assert!(site.fetch(&segment).arg("--statistics").run().status.code().is_some_and(|code| code > 125));
}

/// Promise: a standby that polls for what is not there yet costs one request a poll; what comes is delivered by one as well.
#[test]
fn one_request_a_poll() {
    let server = S3Server::start();
    let site = site(&server, &super::harness::newest(), "look_ahead = 0\n");
    site.server.archive_all();
    let data = site.dir.make_dir("data");
    for folder in ["data/global", "data/pg_wal"] {
        site.dir.make_dir(folder);
    }
    let control = std::fs::read(site.server.data_dir().join("global/pg_control")).expect("there");
    site.dir.write("data/global/pg_control", control);
    site.dir.write("data/standby.signal", "");
    let next = site.server.ask("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
    let poll = |file: &str| site.fetch(file).current_dir(&data).run();
    for file in [&next, "00000002.history"] {
        poll(file).fails_with(1);
    }
    server.faults.take_seen();
    for _ in 0..3 {
        poll(&next).fails_with(1);
        poll("00000002.history").fails_with(1);
    }
    assert_eq!(server.faults.take_kinds(), ["GET"; 6]);
    site.server.run("SELECT pg_logical_emit_message(true, 'a', 'b')");
    site.server.archive_all();
    server.faults.take_seen();
    poll(&next).ok();
    assert_eq!(server.faults.take_kinds(), ["GET"]);
}

/// Promise: a recovery that replays more quickly than the network brings segments fetches each about once, and waits for what is coming
/// already.
#[test]
fn one_request_a_segment_in_recovery() {
    const SEGMENTS: usize = 60;
    let server = S3Server::start();
    let options = Options::default().segment_size_mib(1);
    let site = site_with(&server, &super::harness::newest(), options, "");
    site.backup();
    site.server.run("CREATE TABLE words(word text)");
    for _ in 0..SEGMENTS {
        site.server.run("INSERT INTO words VALUES ('x')");
        site.server.switch_wal();
    }
    site.server.archive_all();
    let mut restored = site.restore("restored", &["--to", "latest", "--action", "promote"]);
    server.faults.set_latency(Duration::from_millis(40));
    server.faults.take_seen();
    restored.start();
    wait_for("the end of recovery", || (restored.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    assert_eq!(restored.ask("SELECT count(*) FROM words"), SEGMENTS.to_string());
    let seen = server.faults.take_seen();
    let fetched = seen.iter().filter(|seen| seen.kind() == "GET" && seen.path.contains("/wal/")).count();
    assert!((SEGMENTS..SEGMENTS * 3 / 2).contains(&fetched), "{fetched} requests");
}
