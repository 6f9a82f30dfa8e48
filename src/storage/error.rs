//! What can go wrong with a store, sorted by what the caller can do about it.

use std::io;

use super::Key;

/// A failed operation on one object.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} \"{key}\" in {storage}: {reason}")]
pub struct StorageError {
    /// The store, as [`super::Storage::describe`] names it.
    pub storage: String,
    /// The object or folder.
    pub key: String,
    /// What was being done, as a verb.
    pub action: &'static str,
    /// What kind of failure it was.
    pub kind: StorageErrorKind,
    /// The failure in words.
    pub reason: String,
}

/// Kinds of failure, by what helps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StorageErrorKind {
    /// The object is certainly not there; nothing else may be reported so.
    NotFound,
    /// The store is full (ENOSPC, EDQUOT).
    NoSpace,
    /// This user may not do that here.
    Denied,
    /// The store takes no writes.
    ReadOnly,
    /// The store or the object does not answer as it should; another try may succeed.
    Unreachable,
    /// The store asks for fewer requests; later ones will succeed.
    Throttled,
    /// There is no such bucket; what should be in it may lie elsewhere.
    NoBucket,
    /// The bucket lies in another region.
    WrongRegion,
    /// No credentials were found, or the store does not accept them (any more).
    Credentials,
    /// This host's clock and the store's differ too much for a signature to count.
    ClockSkew,
    /// The object was moved to an archive class and has to be brought back before it can be read.
    Frozen,
    /// The object ends before the bytes that were stored in it.
    TooShort,
    /// The object is larger than anything that belongs here.
    TooLarge,
}

impl StorageError {
    /// Dresses an error of the operating system.
    #[must_use]
    pub fn new(storage: String, key: &Key, action: &'static str, error: &io::Error) -> Self {
        let kind = StorageErrorKind::of(error);
        StorageError { storage, key: key.to_string(), action, kind, reason: error.to_string() }
    }

    /// The object is certainly not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == StorageErrorKind::NotFound
    }

    /// Trying the same again cannot help: somebody has to change something first.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        !matches!(self.kind, StorageErrorKind::Unreachable | StorageErrorKind::Throttled)
    }
}

impl StorageErrorKind {
    /// Sorts an error of the operating system.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => StorageErrorKind::NotFound,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StorageErrorKind::NoSpace,
            io::ErrorKind::PermissionDenied => StorageErrorKind::Denied,
            io::ErrorKind::ReadOnlyFilesystem => StorageErrorKind::ReadOnly,
            _ => StorageErrorKind::Unreachable,
        }
    }
}
