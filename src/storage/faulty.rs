//! A store that fails on purpose: at one chosen step, in one chosen way.
//!
//! Tests run the same work again and again and let it fail at step 0, 1, 2, … until it gets through: whatever was
//! promised before the fault must hold after it.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Key, Listed, NewObject, Put, Storage, StorageError, StorageErrorKind, Suffix};

/// How the chosen step fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The step is not done, and says so with this kind of error.
    Refuse(StorageErrorKind),
    /// The step is done, but the answer is lost: the caller is told that the store is unreachable.
    LoseAnswer,
    /// The step and every later one fail, as if the process or the store had died.
    Die,
}

/// A store in front of another, with one fault.
#[derive(Clone, Debug)]
pub struct Faulty {
    inner: Arc<dyn Storage>,
    fault: Fault,
    at_step: u64,
    steps: Arc<AtomicU64>,
}

impl Faulty {
    /// Fails the step of number `at_step`, counted from 0 over everything that is asked of the store.
    #[must_use]
    pub fn new(inner: Arc<dyn Storage>, at_step: u64, fault: Fault) -> Faulty {
        Faulty { inner, fault, at_step, steps: Arc::default() }
    }

    /// Steps taken so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::SeqCst)
    }

    fn step<T>(
        &self,
        action: &'static str,
        key: &Key,
        work: impl FnOnce() -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst);
        let fails = step == self.at_step || (self.fault == Fault::Die && step > self.at_step);
        if !fails {
            return work();
        }
        let mut failed = self.failed(action, key, &io::Error::other(format!("fault at step {step}")));
        match self.fault {
            Fault::Refuse(kind) => failed.kind = kind,
            Fault::LoseAnswer => drop(work()?),
            Fault::Die => {}
        }
        Err(failed)
    }
}

struct NewFaultyObject {
    storage: Faulty,
    key: Key,
    inner: Box<dyn NewObject>,
}

impl Write for NewFaultyObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl NewObject for NewFaultyObject {
    fn publish(self: Box<Self>) -> Result<Put, StorageError> {
        let NewFaultyObject { storage, key, inner } = *self;
        storage.step("write", &key, || inner.publish())
    }
}

impl Storage for Faulty {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn threads_for(&self, requests: usize) -> usize {
        self.inner.threads_for(requests)
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    fn weakness(&self) -> Option<&'static str> {
        self.inner.weakness()
    }

    fn create(&self, key: &Key) -> Result<Box<dyn NewObject>, StorageError> {
        let inner = self.step("write", key, || self.inner.create(key))?;
        Ok(Box::new(NewFaultyObject { storage: self.clone(), key: key.clone(), inner }))
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.step("read", key, || self.inner.get(key, limit_bytes))
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.step("read", key, || self.inner.get_range(key, range))
    }

    fn get_suffix(&self, key: &Key, bytes: u64) -> Result<Suffix, StorageError> {
        self.step("read", key, || self.inner.get_suffix(key, bytes))
    }

    fn open(&self, key: &Key) -> Result<Box<dyn Read + Send>, StorageError> {
        self.step("read", key, || self.inner.open(key))
    }

    fn size(&self, key: &Key) -> Result<Option<u64>, StorageError> {
        self.step("look for", key, || self.inner.size(key))
    }

    fn list(&self, folder: &Key) -> Result<Vec<Listed>, StorageError> {
        self.step("list", folder, || self.inner.list(folder))
    }

    fn names(&self, folder: &Key) -> Result<Vec<String>, StorageError> {
        self.step("list", folder, || self.inner.names(folder))
    }

    fn settle(&self, key: &Key) -> Result<(), StorageError> {
        self.step("sync", key, || self.inner.settle(key))
    }

    fn sweep(&self, age: std::time::Duration) -> Result<u64, StorageError> {
        self.step("sweep up in", &Key::root(), || self.inner.sweep(age))
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.step("delete", key, || self.inner.delete(key))
    }

    fn deletes_at_once(&self) -> usize {
        self.inner.deletes_at_once()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;

    /// Without its fault in reach, it behaves like every other store.
    #[test]
    fn conforms() {
        super::super::conformance::run(&Faulty::new(Arc::new(Memory::default()), u64::MAX, Fault::Die));
    }
}
