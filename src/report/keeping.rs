//! What to tell about backups that could not be kept, annotated, forgotten or removed.

use super::{ExitStatus, Explain, Report};
use crate::command::expire::ExpireError;
use crate::command::keeping::KeepingError;

/// Nothing happened.
const UNCHANGED: &str = "Nothing was changed.";

impl Explain for KeepingError {
    fn report(&self) -> Report {
        let what = self.to_string();
        let (status, meaning, hint) = match self {
            KeepingError::Look(error) => return error.report(),
            KeepingError::NoBackup { .. } => {
                (ExitStatus::No, UNCHANGED, "\"pitr list\" shows the backups of a cluster with their ids.".to_owned())
            }
            KeepingError::Usage(_) => (ExitStatus::Usage, UNCHANGED, "\"pitr help\" shows the options.".to_owned()),
            KeepingError::Moment(_) => (
                ExitStatus::Usage,
                UNCHANGED,
                "Write a day (2027-12-31), a moment (\"2027-12-31 12:00+01\"), or a time from now (90d).".to_owned(),
            ),
            KeepingError::Kept { id, .. } => (
                ExitStatus::No,
                "A kept backup is not forgotten. Nothing was changed.",
                format!("If it is not needed any more: \"pitr keep {id} --release\", then forget it."),
            ),
            KeepingError::Forgotten { id, .. } => (
                ExitStatus::No,
                UNCHANGED,
                format!(
                    "\"pitr forget --undo {id}\" brings it back; \"pitr expire\" removes it when its time is over."
                ),
            ),
            KeepingError::NotForgotten(_) => (ExitStatus::No, UNCHANGED, "There is nothing to undo.".to_owned()),
            KeepingError::Last(_) => (
                ExitStatus::No,
                "Without it no moment of this cluster can be restored. Nothing was changed.",
                "Take another base backup first (\"pitr backup\"); or say --even-the-last if that is what you want."
                    .to_owned(),
            ),
            KeepingError::TooLate(_) => (
                ExitStatus::No,
                "\"pitr expire\" is removing it, or something of it is gone already. If that is given up, the backup is used \
                 again: it was asked for.",
                "\"pitr list\" shows in a moment whether it is still there.".to_owned(),
            ),
            KeepingError::Declined { asked } => {
                let hint = if *asked { "" } else { "Read what closes, and run the command again with --yes." };
                (ExitStatus::Declined, UNCHANGED, hint.to_owned())
            }
        };
        Report::new(status, what, meaning, hint)
    }
}

impl Explain for ExpireError {
    fn report(&self) -> Report {
        match self {
            ExpireError::Look(error) => error.report(),
            ExpireError::Refused { .. } => Report::new(
                ExitStatus::Denied,
                self.to_string(),
                "What was refused is still there and marked; everything else was done. Of a backup the manifest goes first, so \
                 nothing half-removed is ever restored from.",
                "Removing takes rights that archiving and backups do without: for a bucket docs/S3.md has them, for a directory be \
                 its owner. What is under a lock (s3_object_lock, a retention rule of the bucket) goes when that is over, by the \
                 next \"pitr expire\".",
            ),
            ExpireError::Untold { .. } => Report::new(
                ExitStatus::Damaged,
                self.to_string(),
                "Everything else was done. Packs stay as long as nobody can tell what that backup needs of them.",
                "If it can be done without, forget that backup (\"pitr forget\"): then it needs nothing.",
            ),
        }
    }
}
