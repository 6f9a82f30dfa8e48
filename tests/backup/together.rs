//! Two backups of one cluster at the same time.

use std::time::Duration;

use pitr::catalog::BackupInfo;

use crate::harness::{Options, Postgres, Row, Server, Site, Stop, Writer, majors, newest};
use crate::slow::Slow;
use crate::unpacked::{Unpacked, repository};
use crate::verbs::{expire, forget, ids};
use crate::{fill, judge};

const PROTOCOL: &[&str] = &[];
const LOCAL: &[&str] = &["--source", "local"];
const PATIENCE: Duration = Duration::from_secs(90);

/// Promise: two backups that are taken at the same time, by whichever sources, both come to their end, refer to what was before both and not
/// to each other, and each comes back when the other and the one before are gone.
#[test]
fn both_come_back() {
    take_two(&newest(), PROTOCOL, LOCAL);
}

/// The same on every major.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn both_come_back_on_every_major() {
    for postgres in majors() {
        for (one, two) in [(PROTOCOL, LOCAL), (PROTOCOL, PROTOCOL), (LOCAL, LOCAL)] {
            take_two(&postgres, one, two);
        }
    }
}

fn take_two(postgres: &Postgres, one: &[&str], two: &[&str]) {
    let site = Site::with(postgres, Options::default().page_checksums(), "");
    fill(&site.server);
    site.backup();
    let writer = Writer::start(&site.server, Duration::from_millis(2), 500);
    let first = Slow::begin(&site, &site.server, one, "8MB");
    let second = Slow::begin_beside(&site, &site.server, two, "8MB");
    for backup in [first, second] {
        let (status, stderr) = backup.ended(PATIENCE);
        assert_eq!(status, Some(0), "{stderr}");
    }
    let rows = writer.stop();
    let mut taken = repository(&site).backups().expect("the list of backups");
    taken.sort_by_key(|info| info.start_time);
    let [before, first, second] = taken.as_slice() else { panic!("{taken:?}") };
    assert!(second.start_time < first.stop_time, "they were taken one after the other: {taken:?}");
    assert_eq!((first.parent, second.parent), (Some(before.id), Some(before.id)));
    let (goes, stays) = if one == two { (second, first) } else { (first, second) };
    come_back(&site, postgres, goes, &rows);
    forget(&site, &before.id.to_string());
    forget(&site, &goes.id.to_string());
    expire(&site, 0);
    expire(&site, 4);
    assert_eq!(ids(&site), [stays.id.to_string()]);
    come_back(&site, postgres, stays, &rows);
}

/// Restores a backup to its own end: the rows that were committed by then, and no others.
fn come_back(site: &Site, postgres: &Postgres, info: &BackupInfo, rows: &[Row]) {
    Unpacked::of(site, info.id, &format!("files-{}", info.id)).verify(postgres);
    let id = info.id.to_string();
    let mut copy: Server = site.restore(&format!("copy-{id}"), &["--backup", &id, "--to", "immediate"]);
    copy.start();
    copy.wait_open();
    judge(&copy);
    let found = copy.ask_all("SELECT n || ' ' || xmin FROM ledger ORDER BY n");
    let expected: Vec<String> = rows.iter().map(|row| format!("{} {}", row.n, row.xid)).collect();
    let committed = rows.iter().filter(|row| row.lsn_after <= info.stop_lsn.0).count();
    // The last one may have been committed just before and seen just behind.
    assert!((committed..=committed + 1).contains(&found.len()), "{} rows, {committed} committed", found.len());
    assert_eq!(found, expected[..found.len()]);
    copy.stop(Stop::Immediate);
}
