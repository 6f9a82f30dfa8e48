//! The threads that fetch chunks and write them where they belong.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::PgDataError;
use super::Options;
use crate::chunk::{ChunkContent, ChunkId, ChunkRef};

/// Pieces of work that wait for each thread. With at most sixteen chunk references each, they are small.
const WAITING: usize = 8;

/// A file being written.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// As far as this the file held something before that may be right already. Beyond it there are only zero bytes.
    pub(super) compare: u64,
}

/// Consecutive chunks of one file.
struct Work {
    target: Arc<Target>,
    at: u64,
    chunks: Vec<ChunkRef>,
}

/// Running threads that take work.
pub(super) struct Pool<'a> {
    sender: SyncSender<Work>,
    failure: &'a Mutex<Option<PgDataError>>,
    options: Options<'a>,
}

impl Pool<'_> {
    /// Runs `feed` with a pool, and waits until all work that it gave is done.
    pub(super) fn run(
        options: Options<'_>,
        feed: impl FnOnce(&Pool<'_>) -> Result<(), PgDataError>,
    ) -> Result<(), PgDataError> {
        let jobs = options.jobs.max(1);
        let failure = Mutex::new(None);
        let (sender, receiver) = sync_channel(WAITING * jobs);
        let receiver = Mutex::new(receiver);
        let fed = std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| work(&receiver, &failure, options));
            }
            // Dropped with its sender when `feed` is done, whereupon the threads end.
            let pool = Pool { sender, failure: &failure, options };
            feed(&pool)
        });
        // What went wrong in a thread came first; `feed` only noticed.
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => fed,
        }
    }

    /// Gives consecutive chunks of a file to whichever thread is free.
    pub(super) fn give(&self, target: &Arc<Target>, at: u64, chunks: Vec<ChunkRef>) -> Result<(), PgDataError> {
        self.check()?;
        let work = Work { target: Arc::clone(target), at, chunks };
        // The threads go on taking work, without doing it, after a failure: they never close the channel.
        self.sender.send(work).map_err(|_| PgDataError::Interrupted)
    }

    /// Fails when a thread has failed, or the user asked to stop.
    pub(super) fn check(&self) -> Result<(), PgDataError> {
        if self.options.interrupt.load(Ordering::Relaxed) || lock(self.failure).is_some() {
            return Err(PgDataError::Interrupted);
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What it guards is whole at any time: an option that is set once.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What each thread does until there is no more work.
fn work(receiver: &Mutex<Receiver<Work>>, failure: &Mutex<Option<PgDataError>>, options: Options<'_>) {
    loop {
        let Ok(work) = lock(receiver).recv() else { return };
        if options.interrupt.load(Ordering::Relaxed) || lock(failure).is_some() {
            continue;
        }
        if let Err(error) = write(&work, options) {
            lock(failure).get_or_insert(error);
        }
    }
}

fn write(work: &Work, options: Options<'_>) -> Result<(), PgDataError> {
    let mut at = work.at;
    for chunk in &work.chunks {
        let length = u64::from(chunk.raw_length);
        if work.target.holds(at, chunk)? {
            options.progress.kept_bytes.fetch_add(length, Ordering::Relaxed);
        } else {
            let raw = (options.read)(chunk)?;
            let written = work.target.file.write_all_at(&raw, at);
            written.map_err(PgDataError::io("write", &work.target.path))?;
        }
        options.progress.bytes.fetch_add(length, Ordering::Relaxed);
        at += length;
        if options.interrupt.load(Ordering::Relaxed) {
            return Err(PgDataError::Interrupted);
        }
    }
    Ok(())
}

impl Target {
    /// The file already has this chunk in its place.
    fn holds(&self, at: u64, chunk: &ChunkRef) -> Result<bool, PgDataError> {
        let length = u64::from(chunk.raw_length);
        let id = match &chunk.content {
            // What was set to its length anew reads as zero bytes.
            ChunkContent::Zero if at >= self.compare => return Ok(true),
            ChunkContent::Zero => None,
            ChunkContent::Stored { .. } if at + length > self.compare => return Ok(false),
            ChunkContent::Stored { id, .. } => Some(*id),
        };
        let mut found = vec![0; chunk.raw_length as usize];
        self.file.read_exact_at(&mut found, at).map_err(PgDataError::io("read", &self.path))?;
        Ok(match id {
            Some(id) => ChunkId::of(&found) == id,
            None => found.iter().all(|byte| *byte == 0),
        })
    }
}
