//! A base backup by the low-level API: the server is told over SQL that its files are going to be copied, and who copies them is
//! somebody else.
//!
//! `pg_backup_start` and `pg_backup_stop`, in 13 and 14 `pg_start_backup` and `pg_stop_backup` with `exclusive := false` (manual, "Making
//! a Base Backup Using the Low Level API"). The backup is bound to the session: when that is lost, the server knows of no backup any
//! more, and what was copied is worth nothing. So [`LowLevelBackup::look`] asks now and then whether it is the same session still, which
//! also keeps whatever lies between from closing it.

use std::time::Duration;

use super::backup_command::BaseBackupOptions;
use super::error::ReplicationError;
use super::frames::out_of_step;
use super::session::{RawResult, Session};
use crate::wal::Lsn;

const STARTING: &str = "starting a base backup";
const LOOKING: &str = "looking after a base backup";
const ENDING: &str = "ending a base backup";

/// From this major version on the functions have their new names.
const FIRST_WITH_NEW_NAMES: u16 = 15;

/// A base backup that the server knows of.
#[derive(Debug)]
pub struct LowLevelBackup {
    session: Session,
    new_names: bool,
    start_lsn: Lsn,
    /// Which server process serves the session, and whether it is a standby's.
    served_by: Server,
}

/// Who answers in a session.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Server {
    process: Vec<u8>,
    in_recovery: bool,
}

/// What the server says at the end of a backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LowLevelEnd {
    /// WAL up to here is needed to use the backup.
    pub stop_lsn: Lsn,
    /// The content of `backup_label`.
    pub label: Vec<u8>,
}

impl LowLevelBackup {
    /// Starts a backup in a session for SQL, and waits for the server's checkpoint. Of the options label, checkpoint and wait count.
    ///
    /// # Errors
    /// [`ReplicationError`]; the server's own, if the role may not call the function.
    pub fn start(mut session: Session, options: &BaseBackupOptions) -> Result<Self, ReplicationError> {
        options.check_label()?;
        let major = session.server_major()?;
        // What may end the session, or a statement in it, while the backup lasts.
        let mut settings = vec!["statement_timeout", "lock_timeout"];
        settings.extend((major >= 14).then_some("idle_session_timeout"));
        for setting in settings {
            session.query_raw(&format!("SET {setting} = 0"), STARTING)?;
        }
        let served_by = server(&mut session, STARTING)?;
        let new_names = major >= FIRST_WITH_NEW_NAMES;
        let (label, fast) = (options.label.replace('\'', "''"), options.fast_checkpoint);
        let sql = match new_names {
            true => format!("SELECT pg_catalog.pg_backup_start('{label}', {fast})"),
            false => format!("SELECT pg_catalog.pg_start_backup('{label}', {fast}, false)"),
        };
        let usual = session.set_silence(options.checkpoint_wait);
        let started = values(&mut session, &sql, STARTING);
        session.set_silence(usual);
        let start_lsn = lsn(&started?, STARTING)?;
        Ok(LowLevelBackup { session, new_names, start_lsn, served_by })
    }

    /// WAL from here on is needed to use the backup.
    #[must_use]
    pub fn start_lsn(&self) -> Lsn {
        self.start_lsn
    }

    /// Makes sure that the backup still goes on.
    ///
    /// # Errors
    /// The session is lost, or served by another process; a standby was promoted.
    pub fn look(&mut self) -> Result<(), ReplicationError> {
        let served_by = server(&mut self.session, LOOKING)?;
        match (served_by.process == self.served_by.process, served_by.in_recovery == self.served_by.in_recovery) {
            (true, true) => Ok(()),
            (true, false) => Err(ReplicationError::Promoted),
            (false, _) => {
                Err(out_of_step(LOOKING, "from another server process: is there a pooler between?".to_owned()))
            }
        }
    }

    /// Ends the backup, without waiting for the archiver.
    ///
    /// # Errors
    /// [`ReplicationError`]: what was copied is no backup.
    pub fn stop(&mut self, patience: Duration) -> Result<LowLevelEnd, ReplicationError> {
        self.look()?;
        let sql = match self.new_names {
            true => "SELECT lsn, labelfile FROM pg_catalog.pg_backup_stop(false)",
            false => "SELECT lsn, labelfile FROM pg_catalog.pg_stop_backup(false, false)",
        };
        let usual = self.session.set_silence(patience);
        let ended = values(&mut self.session, sql, ENDING);
        self.session.set_silence(usual);
        let mut ended = ended?;
        let stop_lsn = lsn(&ended, ENDING)?;
        match ended.pop() {
            Some(Some(label)) if ended.len() == 1 => Ok(LowLevelEnd { stop_lsn, label }),
            _ => Err(out_of_step(ENDING, "no backup_label".to_owned())),
        }
    }
}

fn server(session: &mut Session, doing: &'static str) -> Result<Server, ReplicationError> {
    let sql = "SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery()";
    match values(session, sql, doing)?.as_slice() {
        [Some(process), Some(in_recovery)] => Ok(Server { process: process.clone(), in_recovery: in_recovery == b"t" }),
        _ => Err(out_of_step(doing, "not who it is".to_owned())),
    }
}

/// The only row of a query.
fn values(session: &mut Session, sql: &str, doing: &'static str) -> Result<Vec<Option<Vec<u8>>>, ReplicationError> {
    let results: Vec<RawResult> = session.query_raw(sql, doing)?;
    let row = results.into_iter().flat_map(|result| result.rows).next();
    row.ok_or_else(|| out_of_step(doing, "no row".to_owned()))
}

fn lsn(row: &[Option<Vec<u8>>], doing: &'static str) -> Result<Lsn, ReplicationError> {
    let text = row.first().and_then(Option::as_deref).and_then(|value| std::str::from_utf8(value).ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| out_of_step(doing, "no LSN".to_owned()))
}
