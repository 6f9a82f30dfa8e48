//! `--source local`: the files are read where they lie, on the server's host, by as many threads as there are jobs.
//!
//! The server is told over SQL that a backup goes on, and of nothing else: it neither reads nor sends. What it checks in its own base
//! backups is checked here: data page checksums ([`super::worker`] reads a suspicious page again, as the server does), and that each file
//! that was there when it was listed is in the copy. What the server adds is added here: `backup_label` as it hands it out at the end, and a
//! `backup_manifest` ([`super::own_manifest`]). `pg_control` is read after all other files, since the end of a standby's backup is in it.
//!
//! What the WAL proves unchanged since the earlier backup is not even read ([`passed_over`]).
//!
//! [`place`] makes sure that the directory is the server's, [`reader`] reads. `tablespace_map` is not stored: the links below `pg_tblspc` are.

mod passed_over;
mod place;
mod reader;

use std::time::Duration;

use self::passed_over::PassedOver;
use self::place::Place;
use self::reader::Reader;
use super::pages::Judge;
use super::source::Streamed;
use super::{BackupError, Begun, Feed, Reading, Task};
use crate::catalog::{Tablespace, WalRange};
use crate::command::server;
use crate::pgdata::living::LivingEntry;
use crate::replication::{LowLevelBackup, Patience, ReplicationError, Session, SessionKind};
use crate::wal::{BackupLabel, BackupSource, Lsn, TimelineId};

/// `ERRCODE_INSUFFICIENT_PRIVILEGE`.
const NOT_ALLOWED: &str = "42501";

/// How long the server may take to end a backup: it writes a record and ends a segment.
const STOP_PATIENCE: Duration = Duration::from_secs(600);

/// A backup that has begun, and where its files lie.
pub(super) struct Local {
    backup: LowLevelBackup,
    place: Place,
    timeline: TimelineId,
    estimate: Option<u64>,
}

impl Local {
    /// Finds the server's files, and starts the backup.
    pub(super) fn start(task: &Task<'_>) -> Result<Local, BackupError> {
        let patience = Patience { interrupt: task.context.interrupt.flag(), ..Patience::default() };
        let mut session = Session::connect(&task.conninfo, SessionKind::Sql, &patience)?;
        let root = place::find(&mut session, &task.facts)?;
        check_rights(&mut session)?;
        let estimate = estimate(&mut session);
        let backup = LowLevelBackup::start(session, &task.options(false)).map_err(allowed)?;
        let place = Place::open(root, &task.facts, backup.start_lsn())?;
        Ok(Local { backup, place, timeline: task.facts.timeline, estimate })
    }

    /// What is known now.
    pub(super) fn begun(&self) -> Begun {
        let tablespace = |(tablespace, _): &(Tablespace, _)| tablespace.clone();
        Begun {
            lsn: self.backup.start_lsn(),
            timeline: self.timeline,
            tablespaces: self.place.tablespaces.iter().map(tablespace).collect(),
            estimate: self.estimate,
        }
    }

    /// Reads everything, and ends the backup.
    pub(super) fn read(self, task: &Task<'_>, feed: &Feed, reading: &Reading<'_>) -> Result<Streamed, BackupError> {
        let Local { backup, place, timeline, .. } = self;
        let start_lsn = backup.start_lsn();
        let mut reader = Reader::new(task, feed, reading, backup);
        let passed_over = PassedOver::find(task, &place, start_lsn, timeline, &mut || reader.look())?;
        reader.pass_over(passed_over.as_ref());
        for (tablespace, directory) in &place.tablespaces {
            let Some(directory) = directory else { continue };
            directory.walk_tablespace(&place.version, &mut |entry| reader.entry(entry, Some(tablespace.oid)))?;
        }
        let elsewhere = place.tablespaces.iter().filter_map(|(_, directory)| directory.as_ref());
        place.root.walk(elsewhere, &mut |entry| match &entry {
            LivingEntry::Link { path, .. } if !place.has_link(path) => Ok(()),
            _ => reader.entry(entry, None),
        })?;
        reader.control_file(&place.root)?;
        let end = reader.stop(STOP_PATIENCE)?;
        let label = BackupLabel::parse(&end.label)?;
        reader.label(end.label, &place.root)?;
        let stop_timeline = stop_timeline(&place, &label, timeline)?;
        let wal_ranges = vec![WalRange { timeline, start_lsn, end_lsn: end.stop_lsn }];
        reader.manifest(&wal_ranges)?;
        Ok(Streamed {
            label,
            wal_ranges,
            system_identifier: Some(task.facts.system_identifier),
            stop_lsn: end.stop_lsn,
            stop_timeline,
            judge: Judge::Reread,
            changed_only: passed_over.is_some(),
        })
    }
}

/// The timeline on which the backup ended. A standby may follow its primary to another one; the server does not tell over SQL, but the
/// end of a standby's backup is the minimum recovery point of `pg_control`.
fn stop_timeline(place: &Place, label: &BackupLabel, start: TimelineId) -> Result<TimelineId, BackupError> {
    if label.from == BackupSource::Primary {
        return Ok(start);
    }
    let (_, _, control) = place.root.control_file()?;
    Ok(match control.min_recovery_point {
        Lsn(0) => start,
        _ => TimelineId(control.min_recovery_point_timeline),
    })
}

/// Whether the role may end what it begins: else that would show hours later.
fn check_rights(session: &mut Session) -> Result<(), BackupError> {
    let function = match session.server_major()? {
        ..=14 => "pg_catalog.pg_stop_backup(boolean, boolean)",
        _ => "pg_catalog.pg_backup_stop(boolean)",
    };
    let sql = format!("SELECT pg_catalog.has_function_privilege('{function}', 'execute')");
    match server::value(&server::row(session, &sql)?, 0) {
        "t" => Ok(()),
        _ => Err(BackupError::LocalRights(format!("permission denied for function {function}"))),
    }
}

/// How much there is to read, roughly, if the role may ask.
fn estimate(session: &mut Session) -> Option<u64> {
    let sql = "SELECT sum(pg_catalog.pg_tablespace_size(oid)) FROM pg_catalog.pg_tablespace";
    server::row(session, sql).ok().and_then(|row| server::value(&row, 0).parse().ok())
}

/// Tells a role that lacks rights from other failures.
fn allowed(error: ReplicationError) -> BackupError {
    match error {
        ReplicationError::Server(message) if message.sqlstate == NOT_ALLOWED => {
            BackupError::LocalRights(message.to_string())
        }
        other => other.into(),
    }
}
