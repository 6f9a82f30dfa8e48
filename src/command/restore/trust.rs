//! `--trust-times`: which files of the target may be taken for right by their length and time alone.
//!
//! The backup recorded of each file when it was last written, in whole seconds. A file that has that time still was not written
//! since, if whoever writes leaves times alone, except within the same second. So:
//! * a file counts only if it was last written well before the backup began: whatever wrote to it while or after it was copied
//!   gave it a later time;
//! * the target must hold the same cluster, shut down cleanly: after a crash of the machine, content may have reached the disk and
//!   the time not. A restored directory that no server has started on is as good: its restore wrote everything to the disk;
//! * in a broken-off restore no file counts, for the same reason.
//!
//! Only files of relations are trusted: the rest is small, and decides about everything else.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::replayed::Replayed;
use crate::catalog::BackupInfo;
use crate::pgdata::state::Holds;
use crate::wal::{CONTROL_FILE_READ_SIZE, ClusterState, ControlFile};

/// How much earlier than the backup's start a file must have been written, in seconds: clocks may differ by less than that.
const MARGIN_S: i64 = 120;

/// Whether times are trusted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Trust {
    /// Of files that were last written before this, in seconds since the Unix epoch.
    Before(i64),
    /// Of none: why not.
    Nothing(&'static str),
}

impl Trust {
    /// Files that were last written before this are trusted, in seconds since the Unix epoch.
    pub(super) fn before(&self) -> Option<i64> {
        match self {
            Trust::Before(seconds) => Some(*seconds),
            Trust::Nothing(_) => None,
        }
    }
}

/// Decides by what the target holds.
pub(super) fn trust(target: &Path, holds: &Holds, info: &BackupInfo, replayed: &Replayed) -> Trust {
    let begun = replayed.checkpoint.map_or(info.start_time, |checkpoint| checkpoint.min(info.start_time));
    let before = begun.to_timestamp().as_second() - MARGIN_S;
    match holds {
        Holds::Nothing | Holds::Empty => Trust::Nothing("there are none"),
        Holds::BrokenOffRestore { .. } => Trust::Nothing("they are of a restore that broke off"),
        Holds::Cluster { system_identifier: Some(found), .. } if *found == info.system_identifier => {
            if is_settled(target) {
                Trust::Before(before)
            } else {
                Trust::Nothing("their server was not shut down cleanly")
            }
        }
        Holds::Cluster { .. } | Holds::Running { .. } | Holds::Foreign { .. } => {
            Trust::Nothing("they are not of the same cluster")
        }
    }
}

/// Everything that was written reached the disk: a clean shutdown, or a restored directory on which no server has begun to
/// recover (it renames `backup_label` first, and a server that takes an exclusive backup has no `recovery.signal`).
fn is_settled(target: &Path) -> bool {
    let control = fs::read(target.join("global/pg_control")).ok();
    let control = control.and_then(|bytes| ControlFile::parse(bytes.get(..CONTROL_FILE_READ_SIZE)?).ok());
    let is_shut_down = control
        .is_some_and(|control| matches!(control.state, ClusterState::ShutDown | ClusterState::ShutDownInRecovery));
    is_shut_down || ["backup_label", "recovery.signal"].iter().all(|name| target.join(name).is_file())
}

/// What the user should know about it.
pub(super) fn note(trust: &Trust) -> String {
    match trust {
        Trust::Before(_) => {
            "files of the target with the recorded length and time are TRUSTED and not read: what changed them and \
                             left both as they were stays"
                .to_owned()
        }
        Trust::Nothing(why) => format!("--trust-times: no file of the target is trusted, since {why}; all are read"),
    }
}
