//! The threads that fetch chunks and write them where they belong.

use std::cell::RefCell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Timespec, Timestamps, UTIME_OMIT};

use super::super::PgDataError;
use super::Options;
use crate::chunk::{ChunkContent, ChunkId, ChunkRef};

/// Bytes that are stored of what a thread takes at a time, and bytes of files: it is read in as few requests as possible. Data that
/// compresses ten times would cost ten times the requests if its own bytes alone counted; and all threads are to have something to do.
const BATCH_STORED_BYTES: u64 = 8 << 20;
const BATCH_BYTES: u64 = 64 << 20;
/// Most files whose pieces wait or are worked on: each is open until it is written.
const MOST_OPEN: usize = 512;

/// A file being written.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) file: File,
    pub(super) path: PathBuf,
    /// As far as this the file held something before that may be right already. Beyond it there are only zero bytes.
    pub(super) compare: u64,
    /// The time that it gets when nobody writes to it any more, in seconds since the Unix epoch.
    pub(super) modified_at: Option<i64>,
}

impl Drop for Target {
    fn drop(&mut self) {
        let Some(seconds) = self.modified_at else { return };
        let untouched = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let last_modification = Timespec { tv_sec: seconds, tv_nsec: 0 };
        // One that keeps another time is only read once more by a later restore.
        let _ = rustix::fs::futimens(&self.file, &Timestamps { last_access: untouched, last_modification });
    }
}

/// A chunk and its place in a file.
struct Piece {
    target: Arc<Target>,
    at: u64,
    chunk: ChunkRef,
}

/// Pieces that one thread takes together: chunks of a large file, or many small files, in the order of the manifest.
#[derive(Default)]
struct Work {
    pieces: Vec<Piece>,
    /// Files that they are of.
    files: usize,
    bytes: u64,
    stored_bytes: u64,
}

/// Running threads that take work.
pub(super) struct Pool<'a> {
    sender: SyncSender<Work>,
    gathered: RefCell<Work>,
    most_files: usize,
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
        // One batch waits for each thread, one is worked on, and one is gathered.
        let (sender, receiver) = sync_channel(jobs);
        let most_files = (MOST_OPEN / (2 * jobs + 1)).max(16);
        let receiver = Mutex::new(receiver);
        let fed = std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| work(&receiver, &failure, options));
            }
            // Dropped with its sender when `feed` is done, whereupon the threads end.
            let pool = Pool { sender, gathered: RefCell::default(), most_files, failure: &failure, options };
            feed(&pool).and_then(|()| pool.send())
        });
        // What went wrong in a thread came first; `feed` only noticed.
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => fed,
        }
    }

    /// Gives the chunk that belongs at `at` in a file to whichever thread is free, together with its neighbours.
    pub(super) fn give(&self, target: &Arc<Target>, at: u64, chunk: ChunkRef) -> Result<(), PgDataError> {
        let full = {
            let mut gathered = self.gathered.borrow_mut();
            let same = gathered.pieces.last().is_some_and(|last| Arc::ptr_eq(&last.target, target));
            gathered.files += usize::from(!same);
            gathered.bytes += u64::from(chunk.raw_length);
            gathered.stored_bytes += chunk.places().map(|place| u64::from(place.length)).sum::<u64>();
            gathered.pieces.push(Piece { target: Arc::clone(target), at, chunk });
            gathered.bytes >= BATCH_BYTES
                || gathered.stored_bytes >= BATCH_STORED_BYTES
                || gathered.files >= self.most_files
        };
        if full { self.send() } else { Ok(()) }
    }

    fn send(&self) -> Result<(), PgDataError> {
        self.check()?;
        let work = self.gathered.take();
        // The threads go on taking work, without doing it, after a failure: they never close the channel.
        if work.pieces.is_empty() { Ok(()) } else { self.sender.send(work).map_err(|_| PgDataError::Interrupted) }
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
    let mut missing = Vec::with_capacity(work.pieces.len());
    for piece in &work.pieces {
        if piece.target.holds(piece.at, &piece.chunk)? {
            let length = u64::from(piece.chunk.raw_length);
            options.progress.kept_bytes.fetch_add(length, Ordering::Relaxed);
            options.progress.bytes.fetch_add(length, Ordering::Relaxed);
        } else {
            missing.push(piece);
        }
    }
    let frames = (options.read)(&missing.iter().map(|piece| &piece.chunk).collect::<Vec<_>>())?;
    for Piece { target, at, chunk } in missing {
        let raw = frames.chunk(chunk)?;
        target.file.write_all_at(&raw, *at).map_err(PgDataError::io("write", &target.path))?;
        options.progress.bytes.fetch_add(u64::from(chunk.raw_length), Ordering::Relaxed);
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
