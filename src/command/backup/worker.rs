//! The work on one chunk: identity, checksums, compression. Runs on as many threads as `jobs` says.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender};

use super::BackupError;
use crate::chunk::cut::Piece;
use crate::chunk::page::{self, BLOCK_BYTES, PageState};
use crate::chunk::{ChunkId, PageHash, frame, identify};
use crate::codec::Compression;
use crate::wal::Lsn;

/// A chunk to be worked on.
pub(super) struct Job {
    pub(super) piece: Piece,
    /// Number of the file's first block, if it consists of data pages with checksums.
    pub(super) first_block: Option<u32>,
    pub(super) done: SyncSender<Result<Done, BackupError>>,
}

/// A chunk that was worked on.
pub(super) struct Done {
    pub(super) raw_length: u32,
    /// CRC-32C of the raw bytes.
    pub(super) crc32c: u32,
    /// Blocks whose checksum does not match.
    pub(super) bad_blocks: Vec<u32>,
    /// What is to be stored; `None` for nothing but zero bytes.
    pub(super) stored: Option<Stored>,
}

/// What becomes of a chunk in a pack.
pub(super) struct Stored {
    pub(super) id: ChunkId,
    pub(super) pages: Vec<PageHash>,
    pub(super) frame: Vec<u8>,
}

/// Works until there are no more jobs.
pub(super) fn work(jobs: &Mutex<Receiver<Job>>, compression: Compression, start: Lsn) {
    loop {
        // A poisoned lock means that another worker panicked; there is nothing behind the lock that could be half done.
        let next = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        let Ok(Job { piece, first_block, done }) = next else { return };
        // If nobody waits for the result any more, the backup has failed elsewhere.
        let _ = done.send(process(&piece, first_block, compression, start));
    }
}

fn process(piece: &Piece, first: Option<u32>, compression: Compression, start: Lsn) -> Result<Done, BackupError> {
    let raw = &piece.raw;
    let crc32c = crc32c::crc32c(raw);
    // A chunk never has more than CHUNK_BYTES.
    let raw_length = raw.len() as u32;
    if raw.iter().all(|&b| b == 0) {
        return Ok(Done { raw_length, crc32c, bad_blocks: Vec::new(), stored: None });
    }
    let bad_blocks = first.map_or_else(Vec::new, |first| bad_blocks(piece, first, start));
    let (id, pages) = identify(raw);
    let frame = frame::compress(raw, compression)
        .map_err(|source| BackupError::Local { action: "compress a chunk", source })?;
    Ok(Done { raw_length, crc32c, bad_blocks, stored: Some(Stored { id, pages, frame }) })
}

/// Blocks of the relation fork in this chunk whose checksum does not match. A short last page is left to the server to report.
fn bad_blocks(piece: &Piece, first_block: u32, start: Lsn) -> Vec<u32> {
    let before = u32::try_from(piece.offset / BLOCK_BYTES as u64).unwrap_or(u32::MAX);
    let blocks = first_block.saturating_add(before)..;
    let pages = piece.raw.as_chunks::<BLOCK_BYTES>().0;
    let bad = blocks.zip(pages).filter(|(block, page)| page::check(page, *block, start) == PageState::Bad);
    bad.map(|(block, _)| block).collect()
}
