//! `pitr progress`: how far a server in recovery has come, and when it will be there.
//!
//! **Where to?** What the server is set to recover to (`recovery_target_*`), as `pitr restore` or anybody else wrote it; planned anew
//! with the archive as it is now, so that a restore by other means is followed as well. A standby, and a recovery without a target,
//! go to the archive's end. For the plan only the way counts: where replay began is read from the backup label, whoever took
//! the backup.
//!
//! **Where is it?** With `--conninfo` the server says so to the byte, if it lets anybody in. Before it is consistent it does not;
//! then `--data` shows the segment in the title of its startup process, or the last restartpoint in `pg_control` (behind which it never
//! is). The commit time reached is the server's own, else that of the segment by the index.

mod look;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::server::ServerError;
use super::{Context, Position};
use crate::config::ConfigError;
use crate::pgdata::PgDataError;
use crate::recovery::{RecoveryTarget, TargetError, Unreachable};
use crate::report::ExitStatus;
use crate::repository::RepositoryError;
use crate::wal::{SystemIdentifier, TimelineId};
use look::Looking;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(2);

/// Show how far a server in recovery has come, and when it will be there
///
/// For a restored server that replays WAL, and for a standby: segments and bytes done of the total, the commit time reached, the rate,
/// and the time left. The target is read from the server's settings; without one it is the end of the archive. Ends with status 0
/// while the server is in recovery, and with 1 if it is not.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("server").required(true).multiple(true))]
pub struct Args {
    /// The server's data directory on this host
    #[arg(long, value_name = "DIRECTORY", group = "server")]
    pub data: Option<PathBuf>,
    /// Connection string of the server: exact, as soon as it lets anybody in
    #[arg(long, value_name = "CONNINFO", group = "server")]
    pub conninfo: Option<String>,
    /// Go on, a line every two seconds, until recovery has ended
    #[arg(long)]
    pub follow: bool,
}

/// Why that cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ProgressError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The data directory cannot be read.
    #[error(transparent)]
    PgData(#[from] PgDataError),
    /// The server cannot be asked.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The server's recovery target cannot be understood.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The archive does not lead to where the server is set to go.
    #[error("the server's recovery to {target} has no end in the archive: {why}")]
    Unreachable {
        /// Where it is set to go.
        target: RecoveryTarget,
        /// Why it will not get there.
        why: Box<Unreachable>,
    },
    /// Standard output cannot be written to.
    #[error("could not write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// How far a server is.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Progress {
    /// The server.
    pub system_identifier: SystemIdentifier,
    /// It is in recovery.
    pub in_recovery: bool,
    /// It runs; `None` if only the server itself could tell.
    pub running: Option<bool>,
    /// It is a standby: it follows the archive for ever.
    pub standby: bool,
    /// Replay is paused: at its target, or because somebody said so. Only the server itself can tell.
    pub paused: bool,
    /// Where it goes.
    pub target: RecoveryTarget,
    /// The timeline that the target lies on.
    pub timeline: Option<TimelineId>,
    /// Where it is; `None` once recovery has ended.
    pub position: Option<Position>,
}

/// Shows the progress, once or until recovery has ended.
///
/// # Errors
/// See [`ProgressError`].
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, ProgressError> {
    let mut looking = Looking::begin(args, context)?;
    loop {
        let progress = looking.look()?;
        let mut out = context.stdout();
        if context.json {
            out.json(&progress)?;
        } else {
            out.write_all(text(&progress).as_bytes())?;
            out.flush()?;
        }
        if !args.follow || !progress.in_recovery {
            return Ok(if progress.in_recovery { ExitStatus::Success } else { ExitStatus::No });
        }
        let pause = std::time::Instant::now();
        while pause.elapsed() < EVERY {
            if context.interrupt.requested() {
                return Ok(ExitStatus::Success);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn text(progress: &Progress) -> String {
    let Some(position) = &progress.position else {
        return "The server is not in recovery: it has ended, or there was none.\n".to_owned();
    };
    let what = match (progress.running, progress.standby) {
        (Some(false), _) => "NOT RUNNING; at its last restartpoint it had",
        _ if progress.paused => "PAUSED recovery",
        (_, true) => "standby,",
        (_, false) => "recovery",
    };
    let goal = if progress.standby { "the end of the archive".to_owned() } else { progress.target.to_string() };
    let timeline = progress.timeline.map_or_else(String::new, |timeline| format!(" on timeline {timeline}"));
    let waits = if progress.paused { "; it waits for pg_wal_replay_resume()" } else { "" };
    format!("{what} to {goal}{timeline}, {}: {}{waits}\n", position.stop_lsn, position.line())
}
