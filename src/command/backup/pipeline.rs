//! From the server's stream to packs: one thread reads, several work, one writes, one makes packs durable.
//!
//! ```text
//! reader ──jobs──► workers ─┐ (each result over a channel of its own)
//!    └────items, in order───┴──► writer ──closed packs──► publisher
//! ```
//!
//! Where changed blocks are laid over the earlier backup's chunks, one more thread reads those ahead of the workers ([`super::ahead`]).
//!
//! Every channel is bounded, so memory is: the items that may wait, times the size of a chunk raw and stored, plus the
//! chunk being filled and the receive buffer of the session. Nothing grows with the database but 24 bytes a file
//! ([`super::check`]).

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ScopedJoinHandle};

use super::BackupError;
use super::ahead::Batch;
use super::worker::{self, Done, Job, Known, Raw};
use super::writer::{FileKind, Item, Publish, Writer, Written};
use crate::chunk::cut::Piece;
use crate::codec::Compression;
use crate::repository::ServerRepository;
use crate::repository::earlier::EarlierBackup;
use crate::wal::Lsn;

/// The reader's end of the pipeline.
pub(super) struct Feed {
    jobs: SyncSender<Job>,
    items: SyncSender<Item>,
    ahead: SyncSender<Arc<Batch>>,
}

impl Feed {
    /// Passes something on that needs no work.
    pub(super) fn item(&self, item: Item) -> Result<(), BackupError> {
        self.items.send(item).map_err(|_| BackupError::Broken)
    }

    /// Passes a chunk of the open file on.
    pub(super) fn chunk(&self, raw: Raw, known: Known) -> Result<(), BackupError> {
        let (done, result): (_, Receiver<Result<Done, BackupError>>) = sync_channel(1);
        // The item first: it is what bounds the number of chunks under way.
        self.item(Item::Chunk(result))?;
        self.jobs.send(Job { raw, known, done }).map_err(|_| BackupError::Broken)
    }

    /// Waits until all that was passed on has been read.
    pub(super) fn settle(&self) -> Result<(), BackupError> {
        let (told, reached) = sync_channel(1);
        self.item(Item::Reached(told))?;
        reached.recv().map_err(|_| BackupError::Broken)
    }

    /// Has a batch read that will be needed soon. If another one is being read, whoever needs this one reads it.
    pub(super) fn read_ahead(&self, batch: &Arc<Batch>) {
        let _ = self.ahead.try_send(Arc::clone(batch));
    }

    /// Passes a small file on in one go.
    pub(super) fn small_file(&self, kind: FileKind, content: Vec<u8>) -> Result<(), BackupError> {
        self.item(Item::Begin(kind))?;
        if !content.is_empty() {
            self.chunk(Raw::Whole(Piece { offset: 0, raw: content }), Known::default())?;
        }
        self.item(Item::End(None))
    }
}

/// What the pipeline needs to know.
pub(super) struct Settings<'a> {
    /// Worker threads, at least 1.
    pub(super) jobs: u32,
    pub(super) compression: Compression,
    /// The backup's start LSN.
    pub(super) start: Lsn,
    /// What need not be stored again.
    pub(super) earlier: Option<&'a EarlierBackup>,
}

/// Runs `read` with the other threads behind it; all packs are durable when this returns.
pub(super) fn run<'w, T>(
    repository: &ServerRepository,
    settings: &Settings<'_>,
    new_writer: impl FnOnce(SyncSender<Publish>) -> Writer<'w>,
    read: impl FnOnce(&Feed) -> Result<T, BackupError>,
) -> Result<(T, Written), BackupError> {
    let workers = settings.jobs.max(1) as usize;
    thread::scope(|scope| {
        let (publisher, closed) = sync_channel::<Publish>(0);
        let publishing = scope.spawn(move || publish(repository, closed));
        let (items, in_order) = sync_channel(workers * 4 + 4);
        let writer = new_writer(publisher);
        let writing = scope.spawn(move || writer.run(in_order));
        let (jobs, waiting) = sync_channel(workers);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..workers {
            let waiting = waiting.clone();
            scope.spawn(move || worker::work(&waiting, settings));
        }
        drop(waiting);
        let (ahead, batches) = sync_channel::<Arc<Batch>>(1);
        if let Some(earlier) = settings.earlier {
            // A batch that cannot be read fails the chunks that need it.
            scope.spawn(move || batches.iter().for_each(|batch| _ = batch.read(earlier)));
        }
        let feed = Feed { jobs, items, ahead };
        let read = read(&feed).and_then(|read| feed.item(Item::Finish).map(|()| read));
        drop(feed);
        let written = join(writing);
        let published = join(publishing);
        // The cause comes before its consequences: whoever says that another part ended early is not it.
        match (read, written, published) {
            (Ok(read), Ok(written), Ok(())) => Ok((read, written)),
            (read, written, published) => {
                let errors = [read.err(), written.err(), published.err()];
                let mut errors: Vec<BackupError> = errors.into_iter().flatten().collect();
                let cause = errors.iter().position(|error| !matches!(error, BackupError::Broken)).unwrap_or(0);
                Err(errors.swap_remove(cause))
            }
        }
    })
}

fn publish(repository: &ServerRepository, closed: Receiver<Publish>) -> Result<(), BackupError> {
    for (id, pack) in closed {
        repository.publish_pack(id, pack)?;
    }
    Ok(())
}

/// The thread's result; its panic goes on in this thread, where it is reported.
fn join<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
