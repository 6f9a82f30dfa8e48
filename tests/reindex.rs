//! The index of real servers' WAL: how large it is, and that roll-ups made from it change no answer.

mod harness;

use std::fs;
use std::time::Duration;

use harness::{Options, Run, Server, Site, Stop, Writer, majors, newest, small, wait_for};
use pitr::codec::INDEX_LIMIT_BYTES;
use pitr::repository::wal::WalObjectName;
use pitr::wal::TimelineId;

/// About six segments of 1 MiB.
const BULK: &str =
    "CREATE TABLE bulk AS SELECT md5(n::text) AS a, md5((n + 1)::text) AS b FROM generate_series(1, 50000) AS n";

/// Bytes of each stored segment, and of its index.
fn sizes(site: &Site, segments: &[String]) -> Vec<(u64, u64)> {
    let archive = site.archived();
    let sizes = segments.iter().map(|segment| {
        let stored = archive.describe(WalObjectName::Segment(segment.parse().expect("a name"))).expect("described");
        (stored.stored_bytes, stored.stored_bytes - stored.footer.body_length)
    });
    sizes.collect()
}

/// Segments that `work` fills.
fn filled(site: &Site, count: usize, mut work: impl FnMut()) -> Vec<String> {
    let current = || site.server.ask("SELECT pg_walfile_name(pg_current_wal_lsn())");
    site.server.switch_wal();
    let mut names = Vec::new();
    let mut last = current();
    while names.len() < count {
        work();
        let now = current();
        if now != last {
            names.push(std::mem::replace(&mut last, now));
        }
    }
    site.server.switch_wal();
    site.server.archive_all();
    names
}

/// Promise: the index of a segment takes under 0.5 % of a busy archive and at most 8 KiB anywhere, whatever happens in it:
/// ordinary traffic, schema changes, a commit that drops very many relations, or nothing.
#[test]
fn size_of_the_index() {
    let site = Site::with(&newest(), Options::default().set("max_locks_per_transaction", 4000), "");
    site.server.run("CREATE TABLE accounts AS SELECT n, 0 AS balance, repeat('x', 80) AS filler FROM generate_series(1, 50000) AS n");
    site.server.run("ALTER TABLE accounts ADD PRIMARY KEY (n)");
    let busy = "DO $$ DECLARE k int; BEGIN FOR i IN 1..5000 LOOP k := 1 + (random() * 49999)::int; \
                UPDATE accounts SET balance = balance + i WHERE n = k; COMMIT; END LOOP; END $$";
    let busy = sizes(&site, &filled(&site, 4, || site.server.run(busy)));
    let (stored, index) = busy.iter().fold((0, 0), |(stored, index), (a, b)| (stored + a, index + b));
    assert!(index * 200 < stored, "{index} bytes of index in {stored} of a busy archive");

    let idle: Vec<String> = (0..3)
        .map(|_| {
            site.server.run("CHECKPOINT");
            site.server.switch_wal()
        })
        .collect();
    let changes = "DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE 'CREATE TABLE t (a int PRIMARY KEY, b text)'; \
                   EXECUTE 'DROP TABLE t'; COMMIT; END LOOP; END $$";
    let changing = filled(&site, 1, || site.server.run(changes));
    site.server.run(
        "DO $$ BEGIN FOR i IN 1..3000 LOOP EXECUTE format('CREATE TABLE many.t%s (a int)', i); END LOOP; END $$"
            .replace("DO $$ BEGIN", "CREATE SCHEMA many; DO $$ BEGIN")
            .as_str(),
    );
    site.server.switch_wal();
    site.server.run("DROP SCHEMA many CASCADE");
    let dropping = site.server.switch_wal();
    site.server.archive_all();
    let stored =
        site.archived().describe(WalObjectName::Segment(dropping.parse().expect("a name"))).expect("described");
    assert!(stored.footer.facts.expect("it was read").dropped_relations >= 3000);
    for (_, index) in sizes(&site, &[idle, changing, vec![dropping]].concat()).into_iter().chain(busy) {
        assert!(index <= INDEX_LIMIT_BYTES as u64, "{index} bytes of index");
    }
}

/// What a program says of the repository, but for how long ago that was.
fn answers(site: &Site, targets: &[Vec<&str>]) -> Vec<String> {
    let status = site.pitr(&["status", "--json"]).run().ok().stdout;
    let status = status.lines().filter(|line| !line.contains("age_seconds")).collect();
    let plan = |target: &Vec<&str>| {
        let words = [&["restore", "--dry-run", "--json", "--target", "/nowhere/at/all"][..], target].concat();
        let said: serde_json::Value = serde_json::from_str(&site.pitr(&words).run().ok().stdout).expect("JSON");
        said["plan"].to_string()
    };
    [status].into_iter().chain(targets.iter().map(plan)).collect()
}

/// Promise: roll-ups change no answer, on any major: not of status, and not of a plan to a time, a name, an xid or the end, across a
/// crash and a switch. All borders of a healthy archive hold. A segment that is taken away by hand is a hole all the same.
#[test]
fn same_answers() {
    for postgres in majors() {
        let mut site = Site::with(&postgres, small(), "");
        site.backup();
        let writer = Writer::start(&site.server, Duration::from_millis(1), 4000);
        site.server.run(BULK);
        writer.wait_for_more(100);
        site.server.run("SELECT pg_create_restore_point('middle')");
        site.server.run("CREATE TABLE gone AS SELECT 1 AS n");
        site.server.run("DROP TABLE gone");
        writer.wait_for_more(100);
        site.server.run(&BULK.replace("bulk", "more"));
        site.server.kill9();
        site.server.start();
        site.server.run(&BULK.replace("bulk", "yet_more"));
        writer.wait_for_more(100);
        let rows = writer.stop();
        let last = site.server.switch_wal();
        site.server.wait_archived(&last);

        let xid = rows[rows.len() / 2].xid.to_string();
        let time = format!("--to={}", pitr::wal::PgTime(rows[rows.len() * 3 / 4].committed_at));
        let targets = [vec!["--to-name", "middle"], vec!["--to-xid", &xid], vec![&time], vec!["--to", "latest"]];
        let before = answers(&site, &targets);
        let said = site.pitr(&["reindex"]).run().ok().stdout;
        assert!(
            said.contains("1 roll-ups written") && !said.contains("DAMAGED"),
            "PostgreSQL {}: {said}",
            postgres.major
        );
        assert_eq!(answers(&site, &targets), before, "PostgreSQL {}", postgres.major);
        assert!(site.pitr(&["reindex", "--timeline", "1"]).run().ok().stdout.contains("0 roll-ups written"));
        site.pitr(&["reindex", "--timeline", "7"]).run().fails_with(1).says("has no WAL of timeline 7");

        let stored = site.archived().wal_objects(TimelineId(1)).expect("listed");
        let segments = stored.iter().filter(|object| matches!(object.name, WalObjectName::Segment(_)));
        let names: Vec<String> = segments.map(|object| object.name.to_string()).collect();
        let removed = &names[names.len() - 3];
        fs::remove_file(site.stored_path(removed)).expect("it is there");
        let status = site.pitr(&["status"]).run();
        assert!(status.stdout.contains(&format!("{removed} to {removed} (1)")), "{}", status.stdout);
        site.pitr(&["restore", "--dry-run", "--to", "latest", "--target", "/nowhere/at/all"]).run().fails_with(19);
        site.pitr(&["reindex"]).run().ok();
        assert!(site.pitr(&["status"]).run().stdout.contains(&format!("{removed} to {removed} (1)")));
    }
}

/// Promise: where a timeline forks off inside a segment, its borders hold too; and a damaged object is told with status 1, by name.
#[test]
fn forks_and_damage() {
    let mut site = Site::with(&newest(), small(), "");
    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", None);
    standby.configure("archive_command", &site.push_command());
    standby.start();
    let writer = Writer::start(&site.server, Duration::from_millis(1), 4000);
    site.server.run(BULK);
    writer.wait_for_more(50);
    let rows = writer.stop().len().to_string();
    let count = "SELECT count(*) FROM ledger";
    wait_for("the standby to follow", || (standby.ask(count) == rows).then_some(()));
    site.server.stop(Stop::Fast);
    standby.promote();
    standby.run(&BULK.replace("bulk", "more"));
    let last = standby.switch_wal();
    standby.wait_archived(&last);

    let found: serde_json::Value =
        serde_json::from_str(&site.pitr(&["reindex", "--json"]).run().ok().stdout).expect("JSON");
    let timelines = found["timelines"].as_array().expect("a list");
    assert_eq!((timelines.len(), &found["ok"], &found["problems"]), (2, &true.into(), &serde_json::json!([])));
    assert!(timelines.iter().all(|timeline| timeline["scanned"] == 0), "{found}");
    // The first timeline's roll-up came with the first segment of the second, and tells all.
    assert_eq!((&timelines[0]["written"], &timelines[1]["written"]), (&0.into(), &1.into()), "{found}");

    let path = site.stored_path(&last);
    let bytes = fs::read(&path).expect("it is there");
    fs::write(&path, &bytes[..bytes.len() - 300]).expect("it can be written");
    let said = site.pitr(&["reindex", "--force"]).run().fails_with(1).stdout;
    assert!(said.contains("DAMAGED") && said.contains(&last), "{said}");
}
