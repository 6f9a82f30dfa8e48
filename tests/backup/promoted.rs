//! Failovers while a backup goes on: what is no backup is refused, and what is one is right on its own timeline.

use std::time::Duration;

use pitr::catalog::BackupInfo;
use pitr::wal::TimelineId;

use crate::broken_off::no_backup;
use crate::harness::{Options, Postgres, Run, Server, Site, Stop, majors, newest, wait_for};
use crate::slow::Slow;
use crate::unpacked::{Unpacked, repository};
use crate::{fill, judge};

/// Both sources.
const SOURCES: [&[&str]; 2] = [&[], &["--source", "local"]];

/// Slow enough for a failover.
const RATE: &str = "6MB";

/// Time for the rest of a backup.
const PATIENCE: Duration = Duration::from_secs(90);

fn last(site: &Site) -> BackupInfo {
    repository(site).backups().expect("the list of backups").into_iter().max_by_key(|info| info.stop_time).expect("one")
}

/// A backup of a server that is not the site's own any more.
fn back_up(site: &Site, server: &Server, words: &[&str]) -> BackupInfo {
    let mut command = site.pitr(&["backup"]);
    command.args(words).env("PITR_CONNINFO", server.conninfo()).run_within(PATIENCE).ok();
    last(site)
}

/// Promise: a standby that is promoted meanwhile fails the backup with a status and a message that say so, nothing of it is in the list,
/// and what the message tells to do works.
#[test]
fn the_standby() {
    standby_is_promoted(&newest());
}

/// The same on every major.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn the_standby_of_every_major() {
    majors().iter().for_each(standby_is_promoted);
}

fn standby_is_promoted(postgres: &Postgres) {
    for source in SOURCES {
        let mut site = Site::with(postgres, Options::default(), "");
        fill(&site.server);
        let mut standby = Server::standby_of(&site.dir, &site.server, "standby", Some(&site.fetch_command()));
        standby.start();
        let backup = Slow::begin(&site, &standby, source, RATE);
        standby.promote();
        // With the protocol the server complains only when everything has been sent.
        let (status, stderr) = backup.ended(PATIENCE);
        assert_eq!(status, Some(15), "{source:?} {stderr}");
        assert!(stderr.contains("promoted") && stderr.contains("Take the backup again."), "{source:?} {stderr}");
        assert!(stderr.contains("There is no new backup"), "{source:?} {stderr}");
        no_backup(&site);
        site.server.stop(Stop::Fast);
        let info = back_up(&site, &standby, source);
        assert_eq!((info.start_timeline, info.stop_timeline), (TimelineId(2), TimelineId(2)));
        judge(&Unpacked::of(&site, info.id, "copy").start(&site, postgres));
    }
}

/// Promise: a standby that is not promoted itself, but follows its primary to another timeline, fails the backup as well: the timelines are
/// named.
#[test]
fn the_primary_of_the_standby() {
    primary_is_promoted(&newest());
}

/// The same on every major.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn the_primary_of_the_standby_of_every_major() {
    majors().iter().for_each(primary_is_promoted);
}

fn primary_is_promoted(postgres: &Postgres) {
    let mut site = Site::with(postgres, Options::default(), "");
    fill(&site.server);
    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", Some(&site.fetch_command()));
    standby.start();
    let mut behind = Server::standby_of(&site.dir, &standby, "behind", Some(&site.fetch_command()));
    behind.start();
    for (number, source) in SOURCES.into_iter().enumerate() {
        let (now, next) = (number + 1, number + 2);
        let backup = Slow::begin(&site, &behind, source, "4MB");
        standby.promote();
        standby.run(&format!("CREATE TABLE after_{next} AS SELECT 1 AS n; CHECKPOINT"));
        let moved = format!("SELECT min_recovery_end_timeline = {next} FROM pg_control_recovery()");
        wait_for("the standby behind to be on the new timeline", || {
            behind.run("CHECKPOINT");
            (behind.ask(&moved) == "t").then_some(())
        });
        let (status, stderr) = backup.ended(PATIENCE);
        assert_eq!(status, Some(15), "{source:?} {stderr}");
        let told = format!("changed from timeline {now} to {next}");
        assert!(stderr.contains(&told) && stderr.contains("Take the backup again."), "{source:?} {stderr}");
        no_backup(&site);
        // Its follower takes the place of the promoted one for the next round.
        site.server.stop(Stop::Fast);
        site.server = standby;
        let name = format!("standby-{next}");
        standby = Server::standby_of(&site.dir, &site.server, &name, Some(&site.fetch_command()));
        standby.start();
        behind.configure("primary_conninfo", &standby.conninfo());
        behind.reload();
    }
}

/// Promise: a backup of a primary that goes on while its standby is promoted is one of the old timeline, and comes back as that; nothing of
/// it gets into the backups of the new one, though they refer to it, and though a server of 17 and later would tell only what has changed on
/// its own timeline since.
#[test]
fn of_the_old_primary() {
    old_primary_goes_on(&newest());
}

/// The same on every major.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn of_the_old_primary_of_every_major() {
    majors().iter().for_each(old_primary_goes_on);
}

fn old_primary_goes_on(postgres: &Postgres) {
    let options = Options::default().page_checksums().segment_size_mib(1);
    let options = if postgres.major >= 17 { options.set("summarize_wal", "on") } else { options };
    let mut site = Site::with(postgres, options, "");
    fill(&site.server);
    site.server
        .run("CREATE TABLE fate AS SELECT n, 'kept'::text AS fate, repeat('x', 400) FROM generate_series(1, 20000) n");
    site.server.run("VACUUM FREEZE fate");
    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", Some(&site.fetch_command()));
    standby.start();
    let backup = Slow::begin(&site, &site.server, &[], "5MB");
    site.server.run("INSERT INTO word VALUES ('before the fork')");
    site.server.wait_for_standby(&standby);
    standby.promote();
    // Seen once, so that the pages say themselves that their old rows are gone.
    site.server.run("UPDATE fate SET fate = 'lost'");
    site.server.run("SELECT count(*) FROM fate; CHECKPOINT");
    let (status, stderr) = backup.ended(PATIENCE);
    assert_eq!(status, Some(0), "{stderr}");
    let old = last(&site);
    assert_eq!((old.start_timeline, old.stop_timeline), (TimelineId(1), TimelineId(1)));
    site.server.stop(Stop::Fast);

    let fates = "SELECT string_agg(fate || ' ' || count, ' ') FROM (SELECT fate, count(*) FROM fate GROUP BY fate) f";
    let passed = format!("SELECT pg_current_wal_lsn() > '{}'", old.stop_lsn);
    while standby.ask(&passed) != "t" {
        standby.archive_all();
    }
    for source in SOURCES {
        let new = back_up(&site, &standby, source);
        assert_eq!((new.start_timeline, new.stop_timeline), (TimelineId(2), TimelineId(2)));
        assert!(new.referenced_bytes > old.stored_bytes / 4, "{new:?}");
        let unpacked = Unpacked::of(&site, new.id, &format!("new-{}", new.id));
        unpacked.verify(postgres);
        let mut copy = unpacked.start(&site, postgres);
        assert_eq!(copy.ask(fates), "kept 20000", "{source:?}");
        assert_eq!(copy.ask("SELECT count(*) FROM word"), "2");
        copy.stop(Stop::Immediate);
        if source.is_empty() {
            assert_eq!((new.parent, new.changed_only), (Some(old.id), false));
        }
    }
    // From here on the server can tell again.
    let next = back_up(&site, &standby, &[]);
    assert_eq!(next.changed_only, postgres.major >= 17);
    let id = old.id.to_string();
    let mut restored = site.restore("old", &["--backup", &id, "--to", "immediate"]);
    restored.start();
    restored.wait_open();
    assert_eq!(restored.ask(fates), "lost 20000");
}
