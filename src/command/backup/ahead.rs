//! What the earlier backup has of a file of which changed blocks come: read many chunks at a time, ahead of the workers.
//!
//! The file's header names its changed blocks before the first of them comes, so it is known at once which chunks have to be read. They are cut
//! into batches of a few mebibytes of stored bytes. A batch is read once, by whoever needs it first: a thread that does nothing else is
//! told of each one batch ahead. Memory is that of the batches whose chunks are on their way through the pipeline, and of the one ahead.

use std::sync::{Arc, OnceLock};

use super::BackupError;
use super::pipeline::Feed;
use crate::chunk::ChunkRef;
use crate::repository::RepositoryError;
use crate::repository::earlier::EarlierBackup;
use crate::repository::frames::Frames;

/// Chunks of one file that are read together.
pub(super) struct Batch {
    chunks: Vec<ChunkRef>,
    frames: OnceLock<Result<Frames, Arc<RepositoryError>>>,
}

impl Batch {
    /// Reads it, unless that was done or is being done: then waits for it.
    pub(super) fn read(&self, earlier: &EarlierBackup) -> &Result<Frames, Arc<RepositoryError>> {
        self.frames.get_or_init(|| {
            let chunks: Vec<&ChunkRef> = self.chunks.iter().collect();
            earlier.fetch(&chunks).map_err(Arc::new)
        })
    }

    /// The content of one of its chunks, proved.
    pub(super) fn chunk(&self, chunk: &ChunkRef, earlier: &EarlierBackup) -> Result<Vec<u8>, BackupError> {
        let content = match self.read(earlier) {
            Ok(frames) => frames.chunk(chunk).map_err(Arc::new),
            Err(error) => Err(Arc::clone(error)),
        };
        content.map_err(|error| match *error {
            RepositoryError::Chunk { .. } => BackupError::EarlierDamaged(error),
            _ => BackupError::EarlierUnread(error),
        })
    }
}

/// The chunks of a file that are to be read, batch after batch.
#[derive(Default)]
pub(super) struct Batches<'a> {
    /// In no batch yet, in the file's order.
    chunks: Vec<&'a ChunkRef>,
    /// Chunks of `current` that were not asked for yet.
    left: usize,
    current: Option<Arc<Batch>>,
    ahead: Option<Arc<Batch>>,
    cut: usize,
}

impl<'a> Batches<'a> {
    /// Those of these chunks, which are in the file's order.
    pub(super) fn of(chunks: Vec<&'a ChunkRef>) -> Batches<'a> {
        Batches { chunks, ..Batches::default() }
    }

    /// The batch of the next chunk; `None` behind the last one.
    pub(super) fn next(&mut self, earlier: &EarlierBackup, feed: &Feed) -> Option<Arc<Batch>> {
        if self.left == 0 {
            self.current = self.ahead.take().or_else(|| self.cut(earlier));
            self.ahead = self.cut(earlier);
            self.left = self.current.as_ref()?.chunks.len();
            if let Some(batch) = &self.ahead {
                feed.read_ahead(batch);
            }
        }
        self.left -= 1;
        self.current.clone()
    }

    fn cut(&mut self, earlier: &EarlierBackup) -> Option<Arc<Batch>> {
        let rest = &self.chunks[self.cut..];
        let chunks: Vec<ChunkRef> = rest[..earlier.at_once(rest)].iter().map(|chunk| (*chunk).clone()).collect();
        self.cut += chunks.len();
        if chunks.is_empty() { None } else { Some(Arc::new(Batch { chunks, frames: OnceLock::new() })) }
    }
}
