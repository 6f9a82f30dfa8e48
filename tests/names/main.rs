//! Names of relations are what SQL says, at every moment: real servers of every major are the judge.
//!
//! A server goes through DDL of every kind. After each step the test asks SQL for the name of every relation's file, and for the
//! LSN. Then the archived WAL is read from a base backup on, and at each of those LSNs the names are compared: a name that is given
//! must be SQL's, and in ordinary cases one is given.

#[path = "../harness/mod.rs"]
mod harness;
mod reader;
mod work;

use std::time::Duration;

use harness::{Options, Postgres, Run, Site, majors, newest};
use pitr::catalog::BackupId;
use reader::{Outcome, read};
use work::{Churn, Work, ordinary};

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
    let majors = majors();
    let ends = [majors.first(), majors.last().filter(|_| majors.len() > 1)];
    ends.into_iter().flatten().for_each(every_name);
}

/// The same on the majors between.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn every_name_on_every_major() {
    let majors = majors();
    majors.iter().skip(1).take(majors.len().saturating_sub(2)).for_each(every_name);
}

fn every_name(postgres: &Postgres) {
    let site = site(postgres, options(16));
    let outcome = names_after(&site, |work| ordinary(work, "fast"));
    outcome.assert_right();
    outcome.assert_complete();
}

/// Promise: a base backup that is taken while tables are made, renamed and dropped in several sessions, and a crash in the middle of
/// such work, give no wrong name.
#[test]
fn a_busy_backup_and_a_crash() {
    let mut site = site(&newest(), options(16));
    let mut work = Work::new(&site);
    work.prepare();
    let sessions: Vec<Churn> = (0..3).map(|number| Churn::start(&site, number)).collect();
    std::thread::sleep(Duration::from_millis(300));
    site.pitr(&["backup", "--checkpoint", "fast"]).run_within(Duration::from_secs(60)).ok();
    std::thread::sleep(Duration::from_millis(300));
    drop(sessions);
    work.look("after the busy time");
    work.run("postgres", "ALTER TABLE \"Odd \"\"name\" RENAME TO even");
    let mut looks = work.looks();
    let id = site.archived().backups().expect("backups").pop().expect("one backup").id;

    let mut open = site.server.client();
    open.batch_execute(
        "BEGIN; ALTER TABLE even RENAME TO never; CREATE TABLE never2(i int); DROP TABLE shop.carts CASCADE",
    )
    .expect("it waits");
    // What is written after it makes its WAL durable.
    site.server.run("CREATE TABLE before_the_crash(i int)");
    site.server.kill9();
    drop(open);
    site.server.start();
    let mut work = Work::new(&site);
    work.look("after the crash");
    work.run(
        "postgres",
        "ALTER TABLE even RENAME TO odd\nCREATE TABLE after_the_crash(i int)\nVACUUM pg_class\nDROP TABLE odd",
    );
    for number in 0..3 {
        drop(Churn::start(&site, 10 + number));
    }
    work.look("at the end");
    looks.extend(work.looks());
    site.server.archive_all();
    let start = site.archived().backup_info(id).expect("readable").expect("there").start_lsn;
    let outcome = read(&site, start, site.archived().names_of_backup(id).expect("the catalog is in the backup"), looks);
    outcome.assert_right();
    outcome.assert_known(0.99);
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
