//! `CallError`: what stops either of the two small programs before its own work begins.

use std::io;
use std::path::PathBuf;

use crate::config::ConfigError;
use crate::repository::RepositoryError;
use crate::storage::StorageError;
use crate::wal::ControlFileError;

/// Why a call cannot begin. `report::call` has the advice for each.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The command line cannot be understood.
    #[error("{wrong}")]
    Usage {
        /// What is wrong with it.
        wrong: String,
    },
    /// The configuration cannot be used, or does not name this cluster.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `global/pg_control` exists and cannot be read.
    #[error("could not read \"{}\": {source}", path.display())]
    ControlFileRead {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// `global/pg_control` is not what a supported server writes.
    #[error("cannot understand \"{}\": {source}", path.display())]
    ControlFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: ControlFileError,
    },
    /// There is no `global/pg_control`, and nothing else tells the system identifier.
    #[error("cannot tell which cluster is meant: there is no global/pg_control in \"{}\"", looked_in.display())]
    NoIdentity {
        /// Where it was looked for.
        looked_in: PathBuf,
    },
    /// The repository cannot be used.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A file or a signal on this machine.
    #[error("could not {action}: {source}")]
    Local {
        /// What was being done.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl From<StorageError> for CallError {
    fn from(error: StorageError) -> Self {
        CallError::Repository(error.into())
    }
}
