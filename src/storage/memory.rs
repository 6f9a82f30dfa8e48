//! A store in memory, for tests.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Key, Listed, NewObject, Put, Storage, StorageError, StorageErrorKind, Suffix};

/// A store that lives as long as its last clone.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    objects: Arc<Mutex<BTreeMap<Key, Arc<Vec<u8>>>>>,
}

impl Memory {
    /// Replaces an object's bytes, as damage on a disk would: nothing else in this program overwrites.
    pub fn damage(&self, key: &Key, change: impl FnOnce(&mut Vec<u8>)) {
        let mut objects = self.lock();
        if let Some(bytes) = objects.get_mut(key) {
            change(Arc::make_mut(bytes));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Vec<u8>>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, key: &Key) -> Result<Arc<Vec<u8>>, StorageError> {
        let missing = || self.failed("read", key, &io::Error::from(io::ErrorKind::NotFound));
        self.lock().get(key).cloned().ok_or_else(missing)
    }
}

struct NewMemoryObject {
    storage: Memory,
    key: Key,
    bytes: Vec<u8>,
}

impl Write for NewMemoryObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewObject for NewMemoryObject {
    fn publish(self: Box<Self>) -> Result<Put, StorageError> {
        match self.storage.lock().entry(self.key) {
            std::collections::btree_map::Entry::Occupied(_) => Ok(Put::Exists),
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(Arc::new(self.bytes));
                Ok(Put::Created)
            }
        }
    }
}

impl Storage for Memory {
    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn create(&self, key: &Key) -> Result<Box<dyn NewObject>, StorageError> {
        Ok(Box::new(NewMemoryObject { storage: self.clone(), key: key.clone(), bytes: Vec::new() }))
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        let bytes = self.find(key)?;
        if bytes.len() as u64 > limit_bytes {
            let mut failed = self.failed("read", key, &io::Error::other(format!("it has {} bytes", bytes.len())));
            failed.kind = StorageErrorKind::TooLarge;
            return Err(failed);
        }
        Ok(bytes.to_vec())
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let bytes = self.find(key)?;
        let (start, end) = (usize::try_from(range.start).ok(), usize::try_from(range.end).ok());
        let part = start.zip(end).and_then(|(start, end)| bytes.get(start..end));
        part.map(<[u8]>::to_vec).ok_or_else(|| {
            let mut failed = self.failed("read", key, &io::Error::other("it is shorter"));
            failed.kind = StorageErrorKind::TooShort;
            failed
        })
    }

    fn get_suffix(&self, key: &Key, bytes: u64) -> Result<Suffix, StorageError> {
        let object = self.find(key)?;
        let start = object.len().saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(Suffix { bytes: object[start..].to_vec(), size: object.len() as u64 })
    }

    fn open(&self, key: &Key) -> Result<Box<dyn Read + Send>, StorageError> {
        Ok(Box::new(Cursor::new(self.find(key)?.to_vec())))
    }

    fn size(&self, key: &Key) -> Result<Option<u64>, StorageError> {
        Ok(self.lock().get(key).map(|bytes| bytes.len() as u64))
    }

    fn list(&self, folder: &Key) -> Result<Vec<Listed>, StorageError> {
        let prefix = if folder.as_str().is_empty() { String::new() } else { format!("{folder}/") };
        let mut found = BTreeMap::new();
        for (key, bytes) in self.lock().iter() {
            let Some(rest) = key.as_str().strip_prefix(&prefix) else { continue };
            let (name, folder) = match rest.split_once('/') {
                Some((name, _)) => (name, true),
                None => (rest, false),
            };
            let size = if folder { 0 } else { bytes.len() as u64 };
            found.insert(name.to_owned(), Listed { name: name.to_owned(), size, folder });
        }
        Ok(found.into_values().collect())
    }

    fn settle(&self, key: &Key) -> Result<(), StorageError> {
        self.find(key).map(|_| ())
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.lock().remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    /// Memory behaves like every other store.
    #[test]
    fn conforms() {
        super::super::conformance::run(&super::Memory::default());
    }
}
