//! The WAL that makes a copy consistent: a backup is not declared done without it.

use std::fs;
use std::time::{Duration, Instant};

use pitr::catalog::BackupWal;
use pitr::wal::BackupSource;

use crate::harness::process::wait_until;
use crate::harness::{Options, Postgres, Run, Server, Site, majors, newest};
use crate::unpacked::{Unpacked, only_backup, repository};
use crate::{fill, judge};

/// Promise: where nothing brings the WAL, the backup is refused before anything is copied; where it does not arrive, the
/// backup fails at the deadline and says what would help.
#[test]
fn wal_that_never_comes() {
    let mut site = Site::unprepared(&newest(), Options::default(), "");
    site.pitr(&["init"]).run().ok();
    site.pitr(&["backup"]).run().fails_with(16).says("archive_command").says("--wal stream");
    site.server.configure("archive_command", "false");
    site.server.reload();
    let failed = site.pitr(&["backup", "--wal-timeout", "3s"]).run().fails_with(18);
    failed.says("WAL segment").says("pg_stat_archiver").says("There is no new backup");
    assert_eq!(repository(&site).backups().expect("the list of backups"), []);
}

/// Promise: `--wal stream` brings all WAL along that the copy needs, without any archiving, on a busy server too.
#[test]
fn streamed_along() {
    let all = majors();
    for postgres in [&all[0], &all[all.len() - 1]] {
        let site = Site::unprepared(postgres, Options::default().segment_size_mib(1), "");
        site.pitr(&["init"]).run().ok();
        fill(&site.server);
        let writer = crate::harness::Writer::start(&site.server, Duration::ZERO, 20_000);
        writer.wait_for_more(10);
        site.pitr(&["backup", "--wal", "stream"]).run().ok();
        let rows = writer.stop();
        let info = only_backup(&site);
        let BackupWal::Stream { tail } = &info.wal else { panic!("{info:?}") };
        let unpacked = Unpacked::of(&site, info.id, "copy");
        if let Some(tail) = tail {
            let mut raw = repository(&site).wal_tail(info.id, tail).expect("the tail");
            raw.resize(info.segment_size.bytes() as usize, 0);
            fs::write(unpacked.data.join("pg_wal").join(tail.segment.to_string()), raw).expect("the tail's segment");
            crate::harness::dir::chown_to_test_user(&unpacked.data.join("pg_wal").join(tail.segment.to_string()));
        }
        let copy = unpacked.start(&site, postgres);
        judge(&copy);
        let there: usize = copy.ask("SELECT count(*) FROM ledger").parse().expect("a number");
        assert!(there >= 10 && there <= rows.len(), "{there} of {}", rows.len());
        assert_eq!(site.server.ask("SELECT count(*) FROM pg_replication_slots"), "0", "the slot went with the session");
    }
}

/// Promise: a standby can be backed up; the backup waits for the WAL that only the primary can complete, and comes back.
#[test]
fn from_a_standby() {
    let all = majors();
    for postgres in [&all[0], &all[all.len() - 1]] {
        back_up_a_standby(postgres, &["backup"]);
    }
}

/// Backs a standby up, and proves the copy.
pub(crate) fn back_up_a_standby(postgres: &Postgres, words: &[&str]) {
    let site = Site::with(postgres, Options::default().segment_size_mib(1), "");
    fill(&site.server);
    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", None);
    // Only the primary archives, as is usual; a standby is not refused for that.
    standby.configure("archive_mode", "off");
    standby.start();
    site.server.run("CHECKPOINT");
    let config = fs::read_to_string(site.config()).expect("the configuration");
    site.dir.write("standby.toml", config.replace(&site.server.conninfo(), &standby.conninfo()));
    let mut command = site.dir.pitr("pitr");
    command.arg("--config").arg(site.dir.join("standby.toml")).args(words);
    let mut backup = command.spawn().expect("pitr starts");
    // Activity on the primary ends segments, which a standby cannot do.
    let status = loop {
        site.server.run("INSERT INTO word VALUES ('more'); SELECT pg_switch_wal()");
        if let Some(status) = wait_until(&mut backup, Instant::now() + Duration::from_millis(100)) {
            break status;
        }
    };
    assert!(status.success(), "{status}");
    let info = only_backup(&site);
    assert_eq!((info.source, info.wal.clone()), (BackupSource::Standby, BackupWal::Archive));
    let copy = Unpacked::of(&site, info.id, "copy").start(&site, postgres);
    assert_eq!(copy.ask("SELECT count(*) FROM big WHERE n > 0"), "20000");
    // No record in the WAL ends such a backup, so that it cannot be told from one of a server that was set back.
    let said = site.pitr(&["backup", "--source", "local"]).run().ok();
    said.says("all files are read").says("that one was taken of a standby");
}

/// Promise: a server that is not the one in the configuration, or that the repository does not know, is refused.
#[test]
fn the_wrong_server() {
    let site = Site::new(&newest());
    let other = Server::running(&site.dir, &newest(), &Options::named("other").set("archive_mode", "on"));
    let config = fs::read_to_string(site.config()).expect("the configuration");
    let wrong = config.replace(&site.server.conninfo(), &other.conninfo());
    site.dir.write("pitr.toml", &wrong);
    site.pitr(&["backup"]).run().fails_with(9);
    let identifier = other.ask("SELECT system_identifier FROM pg_control_system()");
    let own = site.server.ask("SELECT system_identifier FROM pg_control_system()");
    site.dir.write("pitr.toml", wrong.replace(&own, &identifier));
    site.pitr(&["backup"]).run().fails_with(9).says(&identifier);
}
