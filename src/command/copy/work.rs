//! Bringing what is lacking, in parallel. What fails is told at the end, and does not keep the rest from being copied.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::plan::Part;
use crate::catalog::BackupId;
use crate::command::{Context, host};
use crate::repository::notes::Author;
use crate::repository::{RepositoryError, ServerRepository};

/// How often it is told how far it is.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What came of it.
#[derive(Default)]
pub(super) struct Done {
    pub(super) wal_files: usize,
    pub(super) packs: usize,
    pub(super) backups: usize,
    pub(super) roll_ups: usize,
    /// Of WAL files and packs.
    pub(super) stored_bytes: u64,
    pub(super) failures: Vec<RepositoryError>,
    pub(super) interrupted: bool,
}

/// From one repository to another.
pub(super) struct Road<'a> {
    pub(super) source: ServerRepository,
    pub(super) target: ServerRepository,
    pub(super) jobs: usize,
    pub(super) context: &'a Context,
}

impl Road<'_> {
    /// Brings all of it.
    pub(super) fn bring(&self, part: &Part, done: &mut Done) {
        let wal = self.each("WAL files", &part.wal, done, |name| {
            let (bytes, _) = self.source.copy_to(&self.target, *name)?;
            Ok(bytes)
        });
        (done.wal_files, done.stored_bytes) = (done.wal_files + wal.count, done.stored_bytes + wal.bytes);
        let lost: Mutex<BTreeSet<BackupId>> = Mutex::default();
        let packs = self.each("packs", &part.packs, done, |pack| {
            let copied = self.source.copy_pack(&self.target, pack.id).map(|_| pack.stored_bytes);
            if copied.is_err() {
                lost.lock().unwrap_or_else(PoisonError::into_inner).insert(pack.id.backup);
            }
            copied
        });
        (done.packs, done.stored_bytes) = (done.packs + packs.count, done.stored_bytes + packs.bytes);
        let lost = lost.into_inner().unwrap_or_else(PoisonError::into_inner);
        // The manifest says that the backup is complete: not before all its packs are there.
        let whole = part.backups.iter().filter(|(_, sources)| sources.is_disjoint(&lost));
        let whole: Vec<BackupId> = whole.map(|(id, _)| *id).collect();
        if !done.interrupted {
            let copied = self.each("backups", &whole, done, |id| {
                let author = Author { host: host::host_name(), now: host::now() };
                self.source.copy_backup(&self.target, *id, &author).map(|()| 0)
            });
            done.backups += copied.count;
        }
        let roll_ups = self.each("parts of the index", &part.roll_ups, done, |name| {
            // One that is gone or not to be believed can be made anew from the WAL.
            if let Some(roll_up) = self.source.roll_up(*name)? {
                self.target.put_roll_up(&roll_up, &[])?;
            }
            Ok(0)
        });
        done.roll_ups += roll_ups.count;
    }

    /// Does something with each item, in the items' order, several at a time; stops when the user asks for it, and where a store
    /// does not answer any more.
    fn each<T: Sync>(
        &self,
        what: &str,
        items: &[T],
        done: &mut Done,
        work: impl Fn(&T) -> Result<u64, RepositoryError> + Sync,
    ) -> Sum {
        let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let progress = Mutex::new((Sum::default(), Instant::now()));
        let failures = Mutex::new(Vec::new());
        let go = || {
            while !stop.load(Ordering::Relaxed) && !self.context.interrupt.requested() {
                let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
                match work(item) {
                    Ok(bytes) => {
                        let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
                        progress.0.count += 1;
                        progress.0.bytes += bytes;
                        if progress.1.elapsed() >= TOLD_EVERY {
                            progress.1 = Instant::now();
                            let size = indicatif::HumanBytes(progress.0.bytes);
                            eprintln!("copied {} of {} {what}, {size}", progress.0.count, items.len());
                        }
                    }
                    Err(error) => {
                        if matches!(error, RepositoryError::Storage(_)) {
                            stop.store(true, Ordering::Relaxed);
                        }
                        failures.lock().unwrap_or_else(PoisonError::into_inner).push(error);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.jobs.min(items.len()) {
                scope.spawn(go);
            }
            go();
        });
        done.failures.extend(failures.into_inner().unwrap_or_else(PoisonError::into_inner));
        done.interrupted |= self.context.interrupt.requested();
        progress.into_inner().unwrap_or_else(PoisonError::into_inner).0
    }
}

/// How much was brought.
#[derive(Clone, Copy, Default)]
struct Sum {
    count: usize,
    bytes: u64,
}
