//! `Location`: where a repository lies, as the configuration says it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Directory, S3, S3Settings, Storage, StorageError};

/// Where a repository lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Location {
    /// A directory, absolute.
    Directory(PathBuf),
    /// A bucket, with all that it takes to reach it.
    S3(Box<S3Settings>),
}

impl Location {
    /// Opens the store. A bucket is not asked for anything yet.
    ///
    /// # Errors
    /// A directory that is missing, not one, or not to be read by this user.
    pub fn open(&self) -> Result<Arc<dyn Storage>, StorageError> {
        Ok(match self {
            Location::Directory(path) => Arc::new(Directory::open(path)?),
            Location::S3(settings) => Arc::new(S3::new(S3Settings::clone(settings))),
        })
    }

    /// The server that holds a bucket, where the settings name one: the same bucket's name means another bucket elsewhere.
    #[must_use]
    pub fn endpoint(&self) -> Option<&str> {
        match self {
            Location::Directory(_) => None,
            Location::S3(settings) => settings.endpoint.as_deref(),
        }
    }

    /// The directory, if it is one.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Location::Directory(path) => Some(path),
            Location::S3(_) => None,
        }
    }
}

/// A path, or `s3://bucket/prefix`: as it is written in the configuration.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::Directory(path) => path.display().fmt(f),
            Location::S3(settings) => f.write_str(&settings.url()),
        }
    }
}
