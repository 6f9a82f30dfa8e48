//! What happened, read out of the archive: the log, the finder, and the restore to just before a table was lost.
//!
//! A ledger is written all the while, so that "just before" can be checked to the row.

#[path = "../harness/mod.rs"]
mod harness;
mod lost;
mod told;

use std::time::Duration;

use harness::{Options, Postgres, Run, Site, Writer};
use serde_json::Value;

/// A server that archives, with tables to be lost, a base backup, and a ledger being written.
struct Busy {
    site: Site,
    writer: Writer,
}

impl Busy {
    fn new(postgres: &Postgres, options: Options) -> Busy {
        let options = options.set("max_prepared_transactions", 7).set("autovacuum", "off");
        let site = Site::with(postgres, options, "");
        site.server.run(
            "CREATE TABLE orders (id int PRIMARY KEY, note text);
             CREATE TABLE items (id int PRIMARY KEY, note text);
             CREATE TABLE pending (id int);
             CREATE TABLE moved (id int);
             CREATE TABLE cleared (id int);
             CREATE TABLE refilled (id int);
             CREATE TABLE emptied (id int, note text);
             CREATE TABLE \"Odd.Name\" (id int);
             CREATE SCHEMA shop;
             CREATE TABLE shop.baskets (id int);
             CREATE TABLE shop.prices (id int);",
        );
        for table in ["orders", "items", "emptied"] {
            site.server.run(&format!("INSERT INTO {table} SELECT n, 'note ' || n FROM generate_series(1, 1000) AS n"));
        }
        for table in ["pending", "moved", "cleared", "refilled", "\"Odd.Name\"", "shop.baskets", "shop.prices"] {
            site.server.run(&format!("INSERT INTO {table} SELECT generate_series(1, 100)"));
        }
        site.backup();
        let writer = Writer::start(&site.server, Duration::from_millis(2), 200);
        writer.wait_for_more(20);
        Busy { site, writer }
    }

    /// Does something, with the ledger going on before and after; gives the transaction's id if `sql` ends with a query for it.
    fn harm(&self, sql: &str) {
        self.writer.wait_for_more(10);
        self.site.server.run(sql);
        self.writer.wait_for_more(10);
    }
}

/// Runs `pitr` and reads its JSON document.
fn json(site: &Site, words: &[&str]) -> Value {
    let said = site.pitr(&[words, &["--json"]].concat()).run_within(Duration::from_secs(120));
    serde_json::from_str(&said.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}: {said}"))
}

/// The candidates that `pitr find` lists.
fn found(site: &Site, words: &[&str]) -> Vec<Value> {
    let answer = json(site, &[&["find"], words].concat());
    answer["candidates"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
}

/// The only candidate that `pitr find` lists.
fn only(site: &Site, words: &[&str]) -> Value {
    let mut found = found(site, words);
    assert_eq!(found.len(), 1, "{words:?}: {found:#?}");
    found.remove(0)
}

/// The lines that `pitr log --json` writes.
fn log(site: &Site, words: &[&str]) -> Vec<Value> {
    let said = site.pitr(&[&["log", "--json"], words].concat()).run_within(Duration::from_secs(120)).ok();
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    said.stdout.lines().map(read).collect()
}
