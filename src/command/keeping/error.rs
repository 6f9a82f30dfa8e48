//! Why nothing was said about a backup.

use std::io;

use crate::catalog::BackupId;
use crate::command::LookError;
use crate::recovery::moment::MomentError;
use crate::repository::RepositoryError;
use crate::wal::{ClusterName, PgTime};

/// Why nothing was said about a backup.
#[derive(Debug, thiserror::Error)]
pub enum KeepingError {
    /// Configuration, repository, output.
    #[error(transparent)]
    Look(#[from] LookError),
    /// There is no such backup.
    #[error("cluster \"{cluster}\" has no complete backup {id}")]
    NoBackup {
        /// The id.
        id: BackupId,
        /// The cluster.
        cluster: ClusterName,
    },
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The time cannot be understood.
    #[error(transparent)]
    Moment(#[from] MomentError),
    /// It is kept, so it cannot be forgotten.
    #[error("backup {id} is kept {}", until.map_or_else(|| "until it is released".to_owned(), |until| format!("until {until}")))]
    Kept {
        /// The backup.
        id: BackupId,
        /// As long as this.
        until: Option<PgTime>,
    },
    /// It is forgotten, so it cannot be kept or forgotten again.
    #[error("backup {id} was forgotten at {since}")]
    Forgotten {
        /// The backup.
        id: BackupId,
        /// Since when.
        since: PgTime,
    },
    /// It is not forgotten.
    #[error("backup {0} is not forgotten")]
    NotForgotten(BackupId),
    /// Nothing could be restored without it.
    #[error("backup {0} is the last one that anything can be restored from")]
    Last(BackupId),
    /// Its removal had begun.
    #[error("the removal of backup {0} has begun")]
    TooLate(BackupId),
    /// The question was not answered with yes.
    #[error("{}", if *asked { "not forgotten" } else { "nobody to ask whether to forget the backup" })]
    Declined {
        /// There was a person to ask.
        asked: bool,
    },
}

impl From<RepositoryError> for KeepingError {
    fn from(error: RepositoryError) -> Self {
        KeepingError::Look(error.into())
    }
}

impl From<io::Error> for KeepingError {
    fn from(error: io::Error) -> Self {
        KeepingError::Look(error.into())
    }
}
