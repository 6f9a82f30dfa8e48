//! What is kept and what goes: backups that are annotated, kept, forgotten and expired, on real servers. PostgreSQL is the judge
//! of what is left.

mod bucket;
mod crashes;
#[path = "../harness/mod.rs"]
mod harness;
mod moving;
mod order;
mod rules;
#[path = "../s3_server/mod.rs"]
mod s3_server;
mod verbs;

use harness::{Run, Site, Stop, wait_for};
use verbs::{LONG, UNDELETE_DAYS, expire, ids, json, try_expire};

/// A base backup after the row `n` of table `t`, which refers to what the ones before have; its id.
fn backup(site: &Site, n: usize) -> String {
    taken(site, n, &["backup"])
}

/// The same, which refers to nothing: when it goes, its packs go too.
fn full_backup(site: &Site, n: usize) -> String {
    taken(site, n, &["backup", "--full"])
}

fn taken(site: &Site, n: usize, words: &[&str]) -> String {
    let sql = if n == 1 {
        "CREATE TABLE t AS SELECT 1 AS n".to_owned()
    } else {
        format!("INSERT INTO t VALUES ({n}); UPDATE t SET n = n")
    };
    site.server.run(&sql);
    site.server.archive_all();
    site.pitr(words).run_within(LONG).ok();
    ids(site).pop().expect("the backup is listed")
}

/// Restores a backup to its own end; the rows that are in it.
fn rows_of(site: &Site, id: &str, number: usize) -> String {
    rows(site, &["--backup", id, "--to", "immediate"], number)
}

fn rows(site: &Site, words: &[&str], number: usize) -> String {
    let mut copy = site.restore(&format!("copy-{number}"), words);
    copy.start();
    wait_for("the restored server to open", || (copy.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    let found = copy.ask("SELECT string_agg(n::text, ' ' ORDER BY n) FROM t");
    copy.stop(Stop::Immediate);
    std::fs::remove_dir_all(copy.data_dir()).expect("removed");
    found
}

/// The numbers from 1 on.
fn up_to(n: usize) -> String {
    (1..=n).map(|n| n.to_string()).collect::<Vec<_>>().join(" ")
}
