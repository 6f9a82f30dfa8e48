//! Why the contents of a backup could not be told.

use std::io;

use crate::catalog::BackupId;
use crate::command::LookError;
use crate::repository::RepositoryError;
use crate::wal::{ClusterName, SystemIdentifier};

/// Why the contents of a backup could not be told.
#[derive(Debug, thiserror::Error)]
pub enum ContentsError {
    /// Configuration, repository, output.
    #[error(transparent)]
    Look(#[from] LookError),
    /// There is no such backup.
    #[error("cluster \"{cluster}\" has no complete base backup {meant}")]
    NoBackup {
        /// What was asked for.
        meant: String,
        /// The cluster.
        cluster: ClusterName,
    },
    /// Several backups have this label.
    #[error("{} base backups have the label \"{label}\"", ids.len())]
    SeveralBackups {
        /// The label.
        label: String,
        /// The backups, oldest first.
        ids: Vec<BackupId>,
    },
    /// There is no such database in it.
    #[error("base backup {id} has no database \"{name}\"")]
    NoDatabase {
        /// The backup.
        id: BackupId,
        /// What was asked for.
        name: String,
    },
    /// A backup is not compared with itself.
    #[error("both are base backup {0}")]
    Same(BackupId),
    /// Two servers have nothing in common that could be compared.
    #[error("base backups {before} and {after} are of different clusters: system identifiers {ours} and {theirs}")]
    Clusters {
        /// The first one.
        before: BackupId,
        /// The second one.
        after: BackupId,
        /// System identifier of the first one.
        ours: SystemIdentifier,
        /// System identifier of the second one.
        theirs: SystemIdentifier,
    },
    /// A signal came.
    #[error("reading the manifest was interrupted")]
    Interrupted,
}

impl From<RepositoryError> for ContentsError {
    fn from(error: RepositoryError) -> Self {
        ContentsError::Look(error.into())
    }
}

impl From<io::Error> for ContentsError {
    fn from(error: io::Error) -> Self {
        ContentsError::Look(error.into())
    }
}
