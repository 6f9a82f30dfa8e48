//! Why a data directory could not be laid out.

use std::io;
use std::path::{Path, PathBuf};

use super::quote::UnquotablePath;
use crate::manifest::ManifestError;
use crate::repository::RepositoryError;

/// A failure while looking at, writing or starting a data directory.
#[derive(Debug, thiserror::Error)]
pub enum PgDataError {
    /// The operating system refused something.
    #[error("could not {action} \"{}\": {source}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A chunk of the backup could not be read, or is damaged.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The manifest of the backup is damaged.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The backup lacks what no data directory can do without.
    #[error("base backup holds no usable \"{file}\": {reason}")]
    Incomplete {
        /// The file.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The backup has files in a tablespace that it does not name.
    #[error("base backup has files in tablespace {oid}, which it does not list")]
    UnknownTablespace {
        /// The tablespace.
        oid: u32,
    },
    /// A path that cannot stand in a setting.
    #[error(transparent)]
    Unquotable(#[from] UnquotablePath),
    /// Another restore is writing there at this moment.
    #[error("another restore is writing into \"{}\"", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl PgDataError {
    /// What was to be opened is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, PgDataError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }

    /// The operating system does not let this user do it.
    #[must_use]
    pub fn is_not_permitted(&self) -> bool {
        matches!(self, PgDataError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Wraps an error of the operating system.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PgDataError {
        let path = path.to_owned();
        move |source| PgDataError::Io { action, path, source }
    }
}
