//! Stored objects on their way from one repository into another: the same bytes, proved, and never over anything else.

use std::io::Write;
use std::sync::Arc;

use super::archiving::StoredAs;
use super::{RepositoryError, ServerRepository, keys};
use crate::codec::stored;
use crate::storage::{Key, Memory, Put};
use crate::wal::WalFileName;

/// Longest stored WAL file, in bytes: a segment of 1 GiB that does not compress, with what is said of it.
const OBJECT_BYTES: u64 = (1 << 30) + (128 << 20);

/// A stored WAL file, whole in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredObject {
    name: StoredAs,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for StoredObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StoredObject").field(&self.name).field(&self.bytes.len()).finish()
    }
}

impl StoredAs {
    /// The WAL file that it holds, a damaged segment's under its own name.
    #[must_use]
    pub fn file(self) -> WalFileName {
        match self {
            StoredAs::History(timeline) => WalFileName::History(timeline),
            StoredAs::Object(name) => name.file(),
        }
    }
}

impl ServerRepository {
    /// The same place in a repository that lies in memory: what is archived there can be put into several others.
    #[must_use]
    pub fn in_memory(&self) -> ServerRepository {
        ServerRepository { storage: Arc::new(Memory::default()), ..self.clone() }
    }

    fn key_of(&self, name: StoredAs) -> Key {
        match name {
            StoredAs::History(timeline) => keys::history(&self.folder, timeline),
            StoredAs::Object(name) => keys::object(&self.folder, name),
        }
    }

    /// Reads a stored WAL file as it is.
    ///
    /// # Errors
    /// The store fails; not found is an error here.
    pub fn stored_object(&self, name: StoredAs) -> Result<StoredObject, RepositoryError> {
        Ok(StoredObject { name, bytes: self.storage.get(&self.key_of(name), OBJECT_BYTES)? })
    }

    /// Copies a stored WAL file into another repository, after it was proved to the last byte. Returns the bytes that it takes, and
    /// whether it was new there.
    ///
    /// # Errors
    /// As for [`ServerRepository::place`]; [`RepositoryError::Damaged`] here.
    pub fn copy_to(&self, other: &ServerRepository, name: StoredAs) -> Result<(u64, Put), RepositoryError> {
        let object = self.stored_object(name)?;
        self.decode(&object, &mut std::io::sink())?;
        Ok((object.bytes.len() as u64, other.place(&object)?))
    }

    fn decode(&self, object: &StoredObject, out: &mut dyn Write) -> Result<(), RepositoryError> {
        let read = stored::read(object.bytes.as_slice(), object.name.file(), self.system_identifier, 1 << 30, out);
        read.map(drop).map_err(|error| self.damaged(&self.key_of(object.name), error))
    }

    /// Stores the object under its name, byte for byte: durable when this returns. Whether it was new here; a WAL file with the
    /// same raw bytes that was there already stays as it is.
    ///
    /// # Errors
    /// [`RepositoryError::Conflict`] if the name holds other content; the store fails; what stands under the name is damaged.
    pub fn place(&self, object: &StoredObject) -> Result<Put, RepositoryError> {
        let key = self.key_of(object.name);
        let put = self.storage.put(&key, &object.bytes)?;
        if put == Put::Exists {
            let file = object.name.file();
            let described = stored::describe(&object.bytes, file, self.system_identifier);
            let (footer, details) = described.map_err(|error| self.damaged(&key, error))?;
            let archived_by = details.unwrap_or_default().archived_by;
            self.confirm_same(file, &footer, &archived_by, &mut |out| self.decode(object, out), &key)?;
            self.storage.settle(&key)?;
        }
        Ok(put)
    }
}
