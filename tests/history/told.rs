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

/// Promise: WAL that is damaged as it is stored, or missing, hides nothing but what happened in it: what lies before and behind is told and
/// found, the hole is told at its place, and what is lost is counted as "at least".
#[test]
fn around_holes() {
    let busy = Busy::new(&newest(), Options::default().segment_size_mib(1));
    let Busy { site, writer } = busy;
    writer.stop();
    let step = |sql: &str| {
        site.server.run(sql);
        let segment = site.server.archive_all();
        site.server.run("CREATE TABLE IF NOT EXISTS filler (n int)");
        site.server.archive_all();
        segment
    };
    step("DROP TABLE orders");
    let damaged = step("DROP TABLE items");
    step("DROP TABLE pending");
    let missing = step("DROP TABLE moved");
    step("SELECT pg_create_restore_point('behind the holes')");
    let path = site.stored_path(&damaged);
    let mut bytes = std::fs::read(&path).expect("readable");
    let middle = bytes.len() / 3;
    bytes[middle] ^= 0x10;
    std::fs::write(&path, bytes).expect("written");
    std::fs::remove_file(site.stored_path(&missing)).expect("removed");

    let said = site.pitr(&["find", "drop", "public.orders"]).run().ok().stdout;
    assert!(
        said.contains("pitr restore --before-xid") && said.contains("loses") && said.contains(" at least"),
        "{said}"
    );
    assert!(said.contains("is damaged as it is stored") && said.contains("note: WAL is missing between LSN"), "{said}");
    let plan = site.pitr(&["plan", "--before-drop", "orders"]).run();
    assert!(plan.status.success(), "{plan}");
    // A moment inside the damaged segment cannot be reached: the plan says which one is in the way, and what can be reached.
    let reader = site.pitr(&["--json", "log", "--kind", "restore-point"]).run().ok().stdout;
    assert!(reader.contains("behind the holes"), "{reader}");
    let number = u64::from_str_radix(&damaged[16..], 16).expect("a segment");
    let inside = format!("0/{:X}", number * (1 << 20) + (64 << 10));
    let planned = site.pitr(&["plan", "--to-lsn", &inside]).run().fails_with(19);
    let says = planned.to_string();
    assert!(says.contains(&damaged) && says.contains("its stored copy fails its checks"), "{says}");
    assert!(says.contains("Another repository") && says.contains("--to-lsn"), "{says}");
    for table in ["items", "moved"] {
        let said = site.pitr(&["find", "drop", table]).run().fails_with(1).stdout;
        assert!(said.contains("what happened there is not known") && said.contains("pg_switch_wal"), "{said}");
    }
    let text = site.pitr(&["log"]).run().ok().stdout;
    let places: Vec<_> =
        ["dropped table public.orders", "*** the WAL between", "*** WAL is missing", "behind the holes"]
            .iter()
            .map(|part| text.find(part).unwrap_or_else(|| panic!("{part}: {text}")))
            .collect();
    assert!(places.is_sorted(), "{places:?} {text}");
}

/// Promise: what was renamed before it was dropped is found by either name; a schema and a database are found by their own; where nothing
/// is meant, that is said; --follow waits for a range that is still to come.
#[test]
fn by_any_name() {
    let site = Site::with(&newest(), Options::default(), "");
    site.server.run(
        "CREATE TABLE carts (n int); CREATE SCHEMA shop; CREATE TABLE shop.a (n int); CREATE TABLE shop.b (n int)",
    );
    site.server.run("CREATE DATABASE crm");
    site.backup();
    site.server.run("ALTER TABLE carts RENAME TO trash");
    site.server.run("DROP TABLE trash");
    site.server.run("DROP SCHEMA shop CASCADE");
    site.server.run("DROP DATABASE crm");
    site.server.archive_all();
    let one = super::only(&site, &["drop", "public.carts"]);
    assert_eq!(one["what"], "dropped; before, it was public.carts", "{one}");
    assert_eq!(super::only(&site, &["drop", "trash"])["lsn"], one["lsn"]);
    let schema = super::only(&site, &["drop", "shop"]);
    assert_eq!(
        (&schema["what"], schema["relations"].as_array().map(Vec::len)),
        (&"dropped with schema shop".into(), Some(2))
    );
    let database = super::only(&site, &["drop", "crm"]);
    assert!(
        database["what"] == "dropped with database crm" || database["relations"].as_array().is_some_and(Vec::is_empty),
        "{database}"
    );
    site.pitr(&["plan", "--before-drop", "carts"]).run().ok();

    let nothing = site.pitr(&["log", "--relation", "public.crats"]).run().ok();
    assert!(nothing.stderr.contains("Nothing in this range is what was asked for"), "{nothing}");
    let zone = site.pitr(&["log", "--kind", "drop"]).env("TZ", "CET-1CEST").run().ok();
    assert!(zone.stderr.contains("time zone \"CET-1CEST\""), "{zone}");

    let mut following = site
        .pitr(&["log", "--follow", "--json", "--from", "1 sec ago", "--kind", "drop"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    std::thread::sleep(Duration::from_secs(2));
    assert!(following.try_wait().expect("a child").is_none(), "it waits");
    site.server.run("CREATE TABLE late (n int)");
    site.server.run("DROP TABLE late");
    site.server.archive_all();
    let mut line = String::new();
    BufReader::new(following.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    assert!(line.contains("late"), "{line}");
    following.kill().expect("killed");
    following.wait().expect("ended");
}
