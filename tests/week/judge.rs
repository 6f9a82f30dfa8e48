//! A backup restored to its own end, and held against what the cluster was then.

use std::fs;

use super::cluster::{Cluster, Taken};
use super::compared::agrees_with_manifest;
use super::contents;
use super::failover::mapped;
use super::harness::{Server, Stop};

/// A restore puts its settings there.
const CHANGED: [&str; 1] = ["postgresql.auto.conf"];

/// Restores, compares file by file, starts, and compares by SQL.
pub fn check(cluster: &mut Cluster, taken: &Taken) {
    println!("restoring {}", taken.id);
    let name = format!("copy-{}", cluster.number());
    let moved = cluster.moved(&name, taken.locations.iter().cloned());
    let words = mapped(&["--backup", &taken.id, "--to", "immediate"], &moved);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut copy = cluster.site.restore(&name, &words);
    agrees_with_manifest(&copy.postgres, copy.data_dir(), &CHANGED);
    copy.start();
    copy.wait_open();
    assert_eq!(copy.ask("SHOW archive_mode"), "off");
    compare(&copy, taken);
    is_sound(&copy);
    copy.stop(Stop::Immediate);
    fs::remove_dir_all(copy.data_dir()).expect("the restored cluster can be removed");
    for (_, place) in moved {
        fs::remove_dir_all(place).expect("its tablespaces too");
    }
}

/// Compares what SQL shows; how many rows the ledger has.
pub fn compare(copy: &Server, taken: &Taken) -> usize {
    assert_eq!(contents::of(copy), taken.contents, "backup {}", taken.id);
    let found = copy.ask_all("SELECT n || ' ' || xmin FROM ledger ORDER BY n");
    let expected: Vec<String> = taken.rows.iter().map(|row| format!("{} {}", row.n, row.xid)).collect();
    let (least, most) = (taken.rows_before, expected.len());
    assert!((least..=most).contains(&found.len()), "{} rows of the ledger, not {least} to {most}", found.len());
    assert_eq!(found, expected[..found.len()], "backup {}", taken.id);
    found.len()
}

/// Lets PostgreSQL's `amcheck` look for pages that do not belong together: every index against its table, every row of every table.
fn is_sound(copy: &Server) {
    let indexes = "SELECT bt_index_check(c.oid, true) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid \
                   JOIN pg_am a ON a.oid = c.relam WHERE a.amname = 'btree' AND c.relkind = 'i' AND i.indisvalid AND c.relpersistence = 'p'";
    let tables = "SELECT c.relname || ': ' || v.msg FROM pg_class c, LATERAL verify_heapam(c.oid) v \
                  WHERE c.relkind IN ('r', 't', 'm') AND c.relpersistence = 'p'";
    for database in contents::databases(copy) {
        let mut client = contents::client(copy, &database);
        client.batch_execute("CREATE EXTENSION amcheck").expect("every server has it");
        assert!(contents::ask(&mut client, indexes).len() > 50, "the catalogs have more");
        if copy.postgres.major >= 14 {
            assert_eq!(contents::ask(&mut client, tables), Vec::<String>::new(), "{database}");
        }
    }
}
