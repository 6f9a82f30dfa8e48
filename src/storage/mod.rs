//! Storage: named objects, written once, read whole or in ranges.
//!
//! Layer 3. One trait, [`Storage`], and the stores behind it: [`Directory`] (the default), [`S3`], and [`Memory`] and
//! [`Faulty`] for tests that need what real stores cannot show. [`Location`] says which one a repository lies in. What the
//! objects mean is `repository`'s business.
//!
//! The trait is blocking. `pitr-wal-push` runs once a segment and may start nothing it does not need; the pipelines
//! of backup and restore are threads. A store that needs an asynchronous client keeps that client's runtime to itself.
//!
//! All stores pass one suite: [`conformance`].

#[doc(hidden)]
pub mod conformance;
mod directory;
mod error;
mod faulty;
mod key;
mod location;
mod memory;
mod s3;

use std::fmt::Debug;
use std::io::{Read, Write};
use std::ops::Range;

pub use directory::Directory;
pub use error::{StorageError, StorageErrorKind};
pub use faulty::{Fault, Faulty};
pub use key::{Key, KeyError};
pub use location::Location;
pub use memory::Memory;
pub use s3::{
    CustomerKey, Encryption, ObjectLock, RequestCounts, S3, S3Settings, StorageClass, Style, Tags, request_counts,
};

/// The folder of objects that only find out what a store can do. Whatever lies in it means nothing.
pub const PROBES: &str = "probes";

/// Whether a put found its name free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Put {
    /// The object is stored, durable.
    Created,
    /// Another object has the name; it was not touched, and may not be durable yet (see [`Storage::settle`]).
    Exists,
}

/// The last bytes of an object, and how large the whole is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suffix {
    /// At most as many bytes as were asked for; fewer only if the object is smaller.
    pub bytes: Vec<u8>,
    /// Size of the whole object in bytes.
    pub size: u64,
}

/// One line of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The last part of the key.
    pub name: String,
    /// Stored bytes; 0 for a folder.
    pub size: u64,
    /// Has objects below it rather than being one.
    pub folder: bool,
}

/// An object being written. Nobody sees it before it is published; dropped, it leaves nothing.
pub trait NewObject: Write + Send {
    /// Gives the object its name if that is free; durable when this returns [`Put::Created`].
    ///
    /// # Errors
    /// The object is not stored, or its durability is not certain; writing it again is safe.
    fn publish(self: Box<Self>) -> Result<Put, StorageError>;
}

/// A store of named objects that are written once.
pub trait Storage: Send + Sync + Debug {
    /// The store in words for messages, such as `directory "/var/lib/pitr"`. Never a secret.
    fn describe(&self) -> String;

    /// Begins an object of unknown size.
    ///
    /// # Errors
    /// The store takes no writes, is full or does not answer.
    fn create(&self, key: &Key) -> Result<Box<dyn NewObject>, StorageError>;

    /// Stores a whole object if its name is free; durable when this returns [`Put::Created`].
    ///
    /// # Errors
    /// As for [`NewObject::publish`].
    fn put(&self, key: &Key, bytes: &[u8]) -> Result<Put, StorageError> {
        let mut object = self.create(key)?;
        object.write_all(bytes).map_err(|error| self.failed("write", key, &error))?;
        object.publish()
    }

    /// A whole object of at most `limit_bytes`.
    ///
    /// # Errors
    /// [`StorageErrorKind::NotFound`] only when the store says so for certain; [`StorageErrorKind::TooLarge`].
    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Vec<u8>, StorageError>;

    /// The bytes of a range that lies wholly inside the object.
    ///
    /// # Errors
    /// As for [`Storage::get`]; [`StorageErrorKind::TooShort`] if the range goes beyond its end.
    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StorageError>;

    /// The last `bytes` of an object, or all of a smaller one.
    ///
    /// # Errors
    /// As for [`Storage::get`].
    fn get_suffix(&self, key: &Key, bytes: u64) -> Result<Suffix, StorageError>;

    /// Reads an object as a stream.
    ///
    /// # Errors
    /// As for [`Storage::get`].
    fn open(&self, key: &Key) -> Result<Box<dyn Read + Send>, StorageError>;

    /// Size in bytes, or `None` if the object is certainly not there.
    ///
    /// # Errors
    /// The store cannot tell.
    fn size(&self, key: &Key) -> Result<Option<u64>, StorageError>;

    /// What lies directly under a folder, sorted by name; a folder that is not there is empty.
    ///
    /// # Errors
    /// The store cannot tell.
    fn list(&self, folder: &Key) -> Result<Vec<Listed>, StorageError>;

    /// Names of the objects directly under a folder, in any order, without its folders. Where a size costs a look at each
    /// object this is far quicker than [`Storage::list`].
    ///
    /// # Errors
    /// The store cannot tell.
    fn names(&self, folder: &Key) -> Result<Vec<String>, StorageError> {
        let listed = self.list(folder)?;
        Ok(listed.into_iter().filter(|entry| !entry.folder).map(|entry| entry.name).collect())
    }

    /// Whether it lies behind a network: each request waits for an answer, and a listing tells the sizes at no cost, so that
    /// [`Storage::list`] is as quick as [`Storage::names`].
    fn is_remote(&self) -> bool {
        false
    }

    /// Makes an object that was found under its name durable: its writer may have died just before doing so.
    ///
    /// # Errors
    /// Its durability is not certain.
    fn settle(&self, key: &Key) -> Result<(), StorageError>;

    /// Removes an object; one that is not there is success.
    ///
    /// # Errors
    /// The store takes no deletions or does not answer.
    fn delete(&self, key: &Key) -> Result<(), StorageError>;

    /// How many objects one request can remove: what [`Storage::delete_all`] is best called with.
    fn deletes_at_once(&self) -> usize {
        1
    }

    /// Removes several objects, as [`Storage::delete`] does each. Gives the error of each one that may still be there; none keeps the others
    /// from being removed.
    fn delete_all(&self, keys: &[Key]) -> Vec<StorageError> {
        keys.iter().filter_map(|key| self.delete(key).err()).collect()
    }

    /// Removes what killed processes left of objects that never appeared, if it was begun longer than `age` ago: temporary
    /// files, unfinished uploads, empty folders. Returns how many. `age` must be longer than the longest write.
    ///
    /// # Errors
    /// They cannot be looked for, or not be removed.
    fn sweep(&self, _age: std::time::Duration) -> Result<u64, StorageError> {
        Ok(0)
    }

    /// How many threads are worth it for so many small requests: more than processors, since a store answers slower than its
    /// answers are read.
    fn threads_for(&self, requests: usize) -> usize {
        (requests / 8).clamp(1, 8)
    }

    /// What this store cannot promise though others do, as part of a sentence; `None` if it keeps all promises.
    fn weakness(&self) -> Option<&'static str> {
        None
    }

    /// Dresses an error of the operating system, met while using this store.
    fn failed(&self, action: &'static str, key: &Key, error: &std::io::Error) -> StorageError {
        StorageError::new(self.describe(), key, action, error)
    }
}
