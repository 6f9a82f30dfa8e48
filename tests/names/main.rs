//! Names of relations are what SQL says, at every moment: real servers of every major are the judge.
//!
//! A server goes through DDL of every kind. After each step the test asks SQL for the name of every relation's file, and for the
//! LSN. Then the archived WAL is read from a base backup on, and at each of those LSNs the names are compared: a name that is given
//! must be SQL's, and in ordinary cases one is given.

#[path = "../harness/mod.rs"]
mod harness;
mod reader;
mod work;

use harness::{Options, Postgres, Site, majors, newest};
use pitr::catalog::BackupId;
use reader::{Outcome, read};
use work::{Work, ordinary};

/// What a test wants of the server.
fn options(segment_size_mib: u32) -> Options {
    Options::default()
        .segment_size_mib(segment_size_mib)
        .set("autovacuum", "off")
        .set("max_prepared_transactions", 7)
        .set("allow_in_place_tablespaces", "off")
}

fn site(postgres: &Postgres, options: Options) -> Site {
    // 13 and 14 do not have the setting, and know no tablespace inside the data directory.
    let mut options = options;
    options.settings.retain(|(name, _)| name != "allow_in_place_tablespaces");
    Site::with(postgres, options, "")
}

/// Backs up, works, and reads the WAL from the backup on.
fn names_after(site: &Site, steps: impl FnOnce(&mut Work<'_>)) -> Outcome {
    let mut work = Work::new(site);
    work.prepare();
    site.backup();
    let backup: BackupId = site.archived().backups().expect("backups").pop().expect("one backup").id;
    work.look("after the backup");
    steps(&mut work);
    site.server.archive_all();
    let start = site.archived().backup_info(backup).expect("readable").expect("there").start_lsn;
    let seeded = site.archived().names_of_backup(backup).expect("the catalog is in the backup");
    read(site, start, seeded, work.looks())
}

/// Promise: after DDL of every kind every relation has the name that SQL tells, at every step, on every major; and what a commit
/// is said to change is what changed.
#[test]
fn every_name_is_right_and_there() {
    for postgres in majors() {
        let site = site(&postgres, options(16));
        let outcome = names_after(&site, |work| ordinary(work, "fast"));
        outcome.assert_right();
        outcome.assert_complete();
    }
}

/// Promise: borders of segments in the middle of records, compressed images and logical WAL change nothing.
#[test]
fn small_segments_compression_and_logical_wal() {
    let options = options(1).set("wal_compression", "on").set("wal_level", "logical");
    let site = site(&newest(), options);
    let outcome = names_after(&site, |work| ordinary(work, "spread"));
    outcome.assert_right();
    outcome.assert_known(0.9);
}

/// Promise: without a base backup from before, fewer names are known, and none of them is wrong.
#[test]
fn without_a_backup() {
    let site = site(&newest(), options(16));
    let mut work = Work::new(&site);
    work.prepare();
    let start = site.server.ask("SELECT pg_current_wal_insert_lsn()").parse().expect("an LSN");
    ordinary(&mut work, "fast");
    site.server.archive_all();
    let major = pitr::wal::PostgresMajor(u16::try_from(site.server.postgres.major).expect("small"));
    let outcome = read(&site, start, pitr::wal::names::RelationNames::new(major), work.looks());
    outcome.assert_right();
    outcome.assert_known(0.01);
}
