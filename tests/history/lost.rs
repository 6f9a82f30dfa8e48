//! Tables lost in every way, found, and brought back to the last row before.

use std::time::Duration;

use pitr::wal::Lsn;
use serde_json::Value;

use super::harness::{Options, Postgres, Random, Row, Run, Server, Site, Stop, majors, newest, seed, wait_for};
use super::{Busy, found, json, only};

/// How a table is lost, how it is found, and what SQL says of it when it is back.
struct Loss {
    sql: &'static str,
    find: &'static [&'static str],
    rows: &'static str,
    expected: &'static str,
}

const LOSSES: &[Loss] = &[
    Loss {
        sql: "DROP TABLE orders",
        find: &["drop", "public.orders"],
        rows: "SELECT count(*) FROM orders",
        expected: "1000",
    },
    Loss {
        sql: "DROP SCHEMA shop CASCADE",
        find: &["drop", "baskets"],
        rows: "SELECT count(*) FROM shop.baskets, shop.prices",
        expected: "10000",
    },
    Loss {
        sql: "BEGIN; SELECT 1; SAVEPOINT a; DROP TABLE pending; PREPARE TRANSACTION 'drop';",
        find: &["drop", "pending"],
        rows: "SELECT count(*) FROM pending",
        expected: "100",
    },
    Loss { sql: "VACUUM FULL moved", find: &["drop", "moved"], rows: "SELECT count(*) FROM moved", expected: "100" },
    Loss {
        sql: "TRUNCATE cleared",
        find: &["truncate", "cleared"],
        rows: "SELECT count(*) FROM cleared",
        expected: "100",
    },
    Loss {
        sql: "BEGIN; SAVEPOINT a; DELETE FROM emptied WHERE id > 400; RELEASE a; DELETE FROM emptied WHERE id > 10; COMMIT;",
        find: &["delete", "emptied", "--at-least", "500"],
        rows: "SELECT count(*) FROM emptied",
        expected: "999",
    },
    Loss {
        sql: "UPDATE items SET note = 'all the same'",
        find: &["update", "items"],
        rows: "SELECT count(DISTINCT note) FROM items",
        expected: "1000",
    },
    Loss {
        sql: "ALTER TABLE \"Odd.Name\" RENAME TO \"Odder\"; DROP TABLE \"Odder\"",
        find: &["drop", "\"Odd.Name\""],
        rows: "SELECT count(*) FROM \"Odd.Name\"",
        expected: "100",
    },
];

/// Loses everything, one after the other, with harmless things in between.
fn lose(busy: &Busy) {
    for loss in LOSSES {
        busy.harm(loss.sql);
        match loss.find[1] {
            "pending" => {
                busy.harm("DELETE FROM emptied WHERE id = 5");
                busy.harm("COMMIT PREPARED 'drop'");
            }
            "moved" => busy.harm("DROP TABLE moved"),
            "cleared" => {
                busy.harm("BEGIN; DELETE FROM emptied; ROLLBACK");
                busy.harm("VACUUM FULL refilled");
            }
            _ => {}
        }
    }
}

/// Starts a restored server, and waits until it has opened.
fn open(clone: &mut Server) {
    clone.start();
    wait_for("the end of recovery", || (clone.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
}

/// The ledger of a restored server ends with the last row committed before `lsn`.
fn ends_before(rows: &[Row], restored: &str, lsn: Lsn, last_commit: &Value) {
    let count: usize = restored.parse().expect("a count");
    let (last, next) = (&rows[count - 1], rows.get(count));
    // A row's LSN was asked for after its commit: it tells of the row before the last for sure.
    assert!(rows[count - 2].lsn_after <= lsn.0, "{last:?} {lsn}");
    assert!(next.is_none_or(|next| next.lsn_after > lsn.0), "{next:?} was committed before {lsn}");
    if last_commit["xid"] != last.xid {
        // Another transaction came last; the row is older than that.
        assert!(last_commit["lsn"].as_str().expect("an LSN").parse::<Lsn>().expect("an LSN").0 >= last.lsn_after - 200);
    }
}

fn check(site: &Site, loss: &Loss, rows: &[Row], name: &str) {
    let candidate = only(site, loss.find);
    assert_eq!(candidate["reachable"], true, "{candidate}");
    let lsn: Lsn = candidate["lsn"].as_str().expect("an LSN").parse().expect("an LSN");
    let option = candidate["option"].as_str().expect("words").to_owned();
    let words: Vec<&str> = option.split_whitespace().collect();
    let mut clone = site.restore(name, &words);
    open(&mut clone);
    if candidate["prepared"] == true {
        // It is prepared there as well, with its locks, and waits for a decision.
        clone.run("ROLLBACK PREPARED 'drop'");
    }
    assert_eq!(clone.ask(loss.rows), loss.expected, "{candidate}");
    ends_before(rows, &clone.ask("SELECT count(*) FROM ledger"), lsn, &candidate["last_commit"]);
}

fn lost_and_found(postgres: &Postgres, options: Options, choose: impl Fn(usize) -> bool) {
    let busy = Busy::new(postgres, options);
    lose(&busy);
    let Busy { site, writer } = busy;
    let rows = writer.stop();
    site.server.archive_all();
    for (at, loss) in LOSSES.iter().enumerate() {
        if choose(at) {
            check(&site, loss, &rows, &format!("clone{at}"));
        } else {
            assert_eq!(only(&site, loss.find)["reachable"], true);
        }
    }
}

/// Promise: a table dropped, dropped with its schema, in a prepared transaction, after VACUUM FULL moved it, truncated, emptied by a
/// mass delete, overwritten: each is found as one moment, and the words that are told restore it with the last row before.
#[test]
fn on_the_newest() {
    lost_and_found(&newest(), Options::default().segment_size_mib(1), |_| true);
}

/// Promise: the same on every major, with logical WAL, compressed page images and ordinary segments in turn; two of the losses, chosen at
/// random, are restored on each.
#[test]
fn on_every_major() {
    let mut random = Random::new(seed());
    for postgres in majors().iter().filter(|postgres| postgres.major != newest().major) {
        let mut options = Options::default();
        if random.coin() {
            options = options.set("wal_level", "logical");
        }
        if random.coin() {
            options = options.set("wal_compression", "on");
        }
        let (one, other) = (random.between(0, LOSSES.len() - 1), random.between(0, LOSSES.len() - 1));
        eprintln!("PostgreSQL {}: {:?}, losses {one} and {other}", postgres.major, options.settings);
        lost_and_found(postgres, options, |at| at == one || at == other);
    }
}

/// Promise: what the WAL cannot tell apart is told so, and what it can is told for sure: a truncate at wal_level = logical, a rewrite of
/// a table with rows. A drop of the database is found by the table, and its files are still there in the restore.
#[test]
fn truncates_and_databases() {
    for level in ["replica", "logical"] {
        let busy = Busy::new(&newest(), Options::default().set("wal_level", level));
        lose(&busy);
        busy.harm(
            "CREATE TABLE sales (n int) PARTITION BY RANGE (n); CREATE TABLE sales_low PARTITION OF sales FOR VALUES FROM (0) TO (9); \
             INSERT INTO sales VALUES (1), (2)",
        );
        busy.harm("TRUNCATE sales");
        busy.harm("CREATE DATABASE other");
        let other = busy.site.server.conninfo().replace("dbname=postgres", "dbname=other");
        let mut client = postgres::Client::connect(&other, postgres::NoTls).expect("the new database");
        client.batch_execute("CREATE TABLE inside AS SELECT generate_series(1, 7) AS n").expect("a table");
        drop(client);
        busy.harm("DROP DATABASE other");
        let Busy { site, writer } = busy;
        let rows = writer.stop();
        site.server.archive_all();
        assert_eq!(only(&site, &["truncate", "cleared"])["certain"], level == "logical");
        assert_eq!(only(&site, &["truncate", "sales_low"])["certain"], level == "logical");
        let said = site.pitr(&["find", "truncate", "sales"]).run();
        assert!(said.stdout.contains("public.sales is a table of partitions"), "{said}");
        assert!(found(&site, &["truncate", "refilled"]).is_empty());
        assert!(found(&site, &["truncate", "moved"]).is_empty());
        if level == "logical" {
            continue;
        }
        let inside = only(&site, &["drop", "other.public.inside"]);
        let option = inside["option"].as_str().expect("words").to_owned();
        let mut clone = site.restore("clone", &option.split_whitespace().collect::<Vec<_>>());
        open(&mut clone);
        let conninfo = clone.conninfo().replace("dbname=postgres", "dbname=other");
        let mut client = postgres::Client::connect(&conninfo, postgres::NoTls).expect("it is there again");
        let count: i64 = client.query_one("SELECT count(*) FROM inside", &[]).expect("rows").get(0);
        assert_eq!(count, 7);
        let lsn = inside["lsn"].as_str().expect("an LSN").parse().expect("an LSN");
        ends_before(&rows, &clone.ask("SELECT count(*) FROM ledger"), lsn, &inside["last_commit"]);
    }
}

/// Promise: --before-drop restores to just before the drop in one step; where there are several, or none, it says so and names them.
#[test]
fn before_drop() {
    let busy = Busy::new(&newest(), Options::default());
    busy.harm("DROP TABLE orders");
    busy.harm("ALTER TABLE items RENAME TO items_old");
    busy.harm("CREATE TABLE twice (a int)");
    busy.harm("DROP TABLE twice");
    busy.harm("CREATE TABLE twice (a int)");
    busy.harm("DROP TABLE twice");
    let Busy { site, writer } = busy;
    let rows = writer.stop();
    site.server.archive_all();
    // A later backup, taken before anybody noticed, hides nothing.
    site.backup();
    site.server.run("CREATE TABLE later (a int)");
    site.server.archive_all();

    let plan = json(&site, &["plan", "--before-drop", "public.orders"]);
    assert_eq!(plan["reachable"], true, "{plan}");
    let mut clone = site.restore("clone", &["--before-drop", "public.orders"]);
    open(&mut clone);
    assert_eq!(clone.ask("SELECT count(*) FROM orders"), "1000");
    let lsn = only(&site, &["drop", "orders"])["lsn"].as_str().expect("an LSN").parse().expect("an LSN");
    ends_before(&rows, &clone.ask("SELECT count(*) FROM ledger"), lsn, &plan["plan"]["last_commit"]);

    let refused = |table: &str| site.pitr(&["plan", "--before-drop", table]).run_within(Duration::from_secs(60));
    let several = refused("twice").fails_with(2).says("more than once");
    assert_eq!(several.stderr.matches("--before-xid ").count(), 2, "{several}");
    refused("public.items").fails_with(19).says("public.items was renamed to public.items_old");
    refused("nothing_of_the_kind").fails_with(19).says("was dropped");
    let said = site.pitr(&["find", "drop", "nothing_of_the_kind"]).run().fails_with(1);
    assert!(said.stdout.contains("Nothing was found"), "{said}");
    let said = site.pitr(&["find", "drop", "items"]).run().fails_with(1);
    assert!(said.stdout.contains("public.items was not dropped but renamed to public.items_old"), "{said}");
    site.pitr(&["find", "drop", "\"open"]).run().fails_with(2).says("quotation mark");
}

/// Promise: names, losses and restores go over a promotion. What was made on the one timeline and renamed there is dropped on the other,
/// by its new name; a transaction that the promotion ended is no rename.
#[test]
fn over_a_promotion() {
    let Busy { mut site, writer } = Busy::new(&newest(), Options::default());
    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", None);
    standby.configure("archive_command", &site.push_command());
    standby.start();
    site.server.run("ALTER TABLE orders RENAME TO orders_2026");
    site.server
        .run("CREATE TABLE fresh AS SELECT generate_series(1, 30) AS n; ALTER TABLE shop.prices SET SCHEMA public");
    let mut open_transaction = site.server.client();
    open_transaction.batch_execute("BEGIN; ALTER TABLE items RENAME TO never; DELETE FROM emptied").expect("it waits");
    let rows = writer.stop();
    site.server.archive_all();
    site.server.run("CREATE TABLE last_of_the_old (n int)");
    wait_for("the standby to follow", || {
        let seen = standby.ask("SELECT count(*) FROM pg_class WHERE relname = 'last_of_the_old'");
        (seen == "1").then_some(())
    });
    standby.promote();
    drop(open_transaction);
    site.server.stop(Stop::Immediate);
    standby.run("ALTER TABLE fresh RENAME TO fresher");
    let losses = ["DROP TABLE orders_2026", "DROP TABLE fresher", "DROP TABLE prices", "DROP TABLE items"];
    losses.iter().for_each(|sql| standby.run(sql));
    standby.archive_all();

    for table in ["orders_2026", "public.fresher", "public.prices", "items"] {
        let candidate = only(&site, &["drop", table]);
        assert_eq!((&candidate["reachable"], &candidate["timeline"]), (&true.into(), &2.into()), "{candidate}");
    }
    assert!(found(&site, &["drop", "never"]).is_empty());
    for (once, table) in [("orders", "orders_2026"), ("shop.prices", "public.prices")] {
        assert_eq!(only(&site, &["drop", once])["lsn"], only(&site, &["drop", table])["lsn"], "by its earlier name");
    }
    assert!(found(&site, &["delete", "emptied"]).is_empty());
    let mut clone = site.restore("clone", &["--before-drop", "orders_2026"]);
    open(&mut clone);
    assert_eq!(clone.ask("SELECT count(*) FROM orders_2026, fresher"), "30000");
    assert_eq!(clone.ask("SELECT count(*) FROM ledger"), rows.len().to_string());
}
