//! The log: what it tells is what the server did, whatever is asked for.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use super::harness::{Options, Run, Site, majors, newest, wait_for};
use super::{Busy, found, log};

fn xid_of(entry: &Value) -> u64 {
    entry["xid"].as_u64().unwrap_or_default()
}

/// Promise: every commit of the ledger is in the log once, in order, with its time to the microsecond, its transaction, and one row
/// inserted into the table of that name, on every major.
#[test]
fn every_commit() {
    for postgres in majors() {
        let busy = Busy::new(&postgres, Options::default().segment_size_mib(1));
        busy.writer.wait_for_more(100);
        let Busy { site, writer } = busy;
        let rows = writer.stop();
        site.server.archive_all();
        let told = log(&site, &["--kind", "commit", "--relation", "ledger"]);
        let inserted: Vec<&Value> = told
            .iter()
            .filter(|entry| {
                let rows = entry["rows"].as_array().into_iter().flatten();
                { rows }.any(|rows| rows["relation"]["name"] == "ledger" && rows["inserted"] == 1)
            })
            .collect();
        assert_eq!(inserted.len(), rows.len(), "PostgreSQL {}", postgres.major);
        for (entry, row) in inserted.iter().zip(&rows) {
            let time = pitr::wal::PgTime(row.committed_at).to_string();
            assert_eq!((xid_of(entry), entry["time"].as_str()), (u64::from(row.xid), Some(time.as_str())), "{entry}");
            let end: pitr::wal::Lsn = entry["end_lsn"].as_str().expect("an LSN").parse().expect("an LSN");
            assert!(end.0 <= row.lsn_after, "{entry} {row:?}");
        }
    }
}

/// Promise: what was done is told by name, by kind, by database and by transaction, in words and in the chart; a range is kept to.
#[test]
fn what_is_asked_for() {
    let busy = Busy::new(&newest(), Options::default());
    busy.harm("SELECT pg_create_restore_point('before the worst')");
    busy.harm("CREATE TABLE fresh AS SELECT generate_series(1, 50) AS n");
    let xid = busy.site.server.ask("WITH d AS (DELETE FROM orders RETURNING 1) SELECT txid_current() FROM d LIMIT 1");
    let after: String = busy.site.server.ask("SELECT now()::text");
    busy.harm("DROP TABLE items");
    busy.harm("BEGIN; DELETE FROM emptied; ROLLBACK");
    busy.harm("CHECKPOINT");
    busy.harm("CREATE DATABASE other");
    let site = busy.site;
    busy.writer.stop();
    site.server.archive_all();

    let one = log(&site, &["--xid", &xid]);
    assert_eq!(one.len(), 1, "{one:#?}");
    assert_eq!((&one[0]["database"], &one[0]["rows"][0]["deleted"]), (&"postgres".into(), &1000.into()), "{}", one[0]);
    assert!(one[0]["kinds"].as_array().is_some_and(|kinds| kinds.contains(&"delete".into())), "{}", one[0]);
    let names = |entries: &[Value]| entries.iter().map(|entry| entry["kinds"].to_string()).collect::<Vec<_>>();
    let drops = log(&site, &["--kind", "drop"]);
    assert_eq!(drops.len(), 1, "{drops:#?}");
    assert_eq!(drops[0]["changes"][0]["relation_dropped"]["database"], "postgres", "{}", drops[0]);
    assert!(names(&log(&site, &["--kind", "restore-point,checkpoint"])).len() >= 2);
    assert!(log(&site, &["--kind", "restore-point", "--from", &after]).is_empty());
    assert_eq!(log(&site, &["--kind", "restore-point", "--to", &after]).len(), 1);
    assert_eq!(log(&site, &["--database", "other", "--kind", "create"]).len(), 1);
    assert!(
        log(&site, &["--relation", "public.fresh"]).iter().any(|entry| entry["kinds"].to_string().contains("create"))
    );
    // Numbers instead of names: the same entries.
    let numbers = log(&site, &["--numbers", "--xid", &xid]);
    assert_eq!((numbers.len(), &numbers[0]["rows"][0]["deleted"]), (1, &1000.into()));

    let text = site.pitr(&["log"]).run().ok().stdout;
    for part in [
        "restore point \"before the worst\"",
        "created table public.fresh",
        "rows: public.orders 1,000 deleted",
        "dropped table public.items",
        "rolled back",
        "created database other",
        " UTC",
    ] {
        assert!(text.contains(part), "{part} is missing");
    }
    let zoned = site.pitr(&["log", "--kind", "drop"]).env("TZ", "Asia/Kolkata").run().ok().stdout;
    assert!(zoned.contains(" UTC (") && zoned.contains("+05:30 Asia/Kolkata"), "{zoned}");

    let chart = site.pitr(&["log", "--summary", "--per", "second", "--relation", "orders"]).run().ok().stdout;
    let burst = chart.lines().find(|line| line.contains("-----")).unwrap_or_else(|| panic!("{chart}"));
    assert!(burst.contains(&"-".repeat(50)) && burst.contains("1000"), "{chart}");
    let all = site.pitr(&["log", "--summary", "--json"]).run().ok().stdout;
    let lines: Vec<Value> = all.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let sum = |name: &str| lines.iter().map(|line| line[name].as_u64().expect("a number")).sum::<u64>();
    assert_eq!((sum("deleted"), sum("drops"), sum("truncates")), (1000, 1, 0), "{all}");

    let points = found(&site, &["restore-point", "before*"]);
    assert_eq!((points.len(), &points[0]["reachable"]), (1, &true.into()), "{points:#?}");
    assert!(points[0]["option"].as_str().is_some_and(|words| words.starts_with("--to-name 'before the worst'")));
    assert!(found(&site, &["restore-point", "after*"]).is_empty());

    // A backup behind the range changes nothing; without a range it is where the log begins.
    site.backup();
    assert_eq!(log(&site, &["--kind", "restore-point", "--to", &after]).len(), 1);
    assert!(log(&site, &["--kind", "restore-point"]).is_empty());
    let wide = ((1_u64 << 32) + xid.parse::<u64>().expect("a number")).to_string();
    assert_eq!(log(&site, &["--from", "0/1", "--xid", &wide]).len(), 1);

    site.pitr(&["log", "--from", "yesterday 10:00", "--to", "2001-01-01 00:00"])
        .run()
        .fails_with(2)
        .says("--from lies behind");
    site.pitr(&["log", "--from", "never"]).run().fails_with(2).says("not a time");
    site.pitr(&["log", "--timeline", "7"]).run().fails_with(19).says("timeline 7");
    let nothing = site.pitr(&["log", "--from", "0/FFFF0000"]).run().ok();
    assert!(nothing.stderr.contains("Nothing that is stored"), "{nothing}");
}

/// Promise: --follow shows what is archived while it runs, each entry once, over a switch of segments.
#[test]
fn follow() {
    let site = Site::with(&newest(), Options::default(), "");
    site.server.run("CREATE TABLE t (n int)");
    site.backup();
    let mut following = site
        .pitr(&["log", "--follow", "--json", "--kind", "restore-point"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(following.stdout.take().expect("piped")).lines();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = send.send(line);
        }
    });
    let mut seen: Vec<String> = Vec::new();
    for name in ["one", "two", "three"] {
        site.server.run(&format!("SELECT pg_create_restore_point('{name}')"));
        site.server.archive_all();
        wait_for("the entry", || {
            seen.extend(receive.try_iter());
            seen.iter().any(|line| line.contains(&format!("\"{name}\""))).then_some(())
        });
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    super::harness::process::signal(following.id(), rustix::process::Signal::TERM);
    let status =
        super::harness::process::wait_until(&mut following, std::time::Instant::now() + Duration::from_secs(20));
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}
