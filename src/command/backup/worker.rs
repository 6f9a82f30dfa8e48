//! The work on one chunk: identity, checksums, what of it is new, compression. Runs on as many threads as `jobs` says.

use std::sync::mpsc::{Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::BackupError;
use super::ahead::Batch;
use super::pipeline::Settings;
use crate::chunk::change::{self, Change};
use crate::chunk::cut::Piece;
use crate::chunk::incremental::ChangedChunk;
use crate::chunk::page::{self, BLOCK_BYTES, PageState};
use crate::chunk::{ChunkId, ChunkRef, PageHash, PageSet, Place, frame, identify};
use crate::codec::Compression;
use crate::pgdata::living::LivingFile;
use crate::repository::earlier::Moving;

/// How often a page that looks damaged is read again, and how long apart. The server's own backup does so once.
const PAGE_READS: u32 = 5;
const PAGE_PAUSE: Duration = Duration::from_millis(10);

/// A chunk to be worked on.
pub(super) struct Job {
    pub(super) raw: Raw,
    pub(super) known: Known,
    pub(super) done: SyncSender<Result<Done, BackupError>>,
}

/// Where a chunk's bytes come from.
pub(super) enum Raw {
    /// The server sent them.
    Whole(Piece),
    /// The server sent what has changed of what the earlier backup had.
    Changed(Over),
    /// They are still to be read.
    File(Span),
}

/// Blocks that are laid over a chunk of the earlier backup.
pub(super) struct Over {
    pub(super) blocks: ChangedChunk,
    /// Has the earlier chunk; `None` stands for zero bytes.
    pub(super) batch: Option<Arc<Batch>>,
}

/// A chunk of a file in the server's data directory.
pub(super) struct Span {
    pub(super) file: Arc<LivingFile>,
    /// Its place in the file.
    pub(super) offset: u64,
    /// Bytes, at most those of a chunk.
    pub(super) bytes: usize,
}

/// What is known of a chunk before it is looked at.
#[derive(Default)]
pub(super) struct Known {
    /// Number of the file's first block, if it consists of data pages with checksums.
    pub(super) first_block: Option<u32>,
    /// What the earlier backup had at its place.
    pub(super) earlier: Option<ChunkRef>,
}

/// A chunk that was worked on.
pub(super) struct Done {
    pub(super) raw_length: u32,
    /// CRC-32C of the raw bytes.
    pub(super) crc32c: u32,
    /// Blocks whose checksum does not match.
    pub(super) bad_blocks: Vec<u32>,
    pub(super) content: Content,
}

/// What becomes of a chunk.
pub(super) enum Content {
    /// Nothing but zero bytes.
    Zero,
    /// It is the earlier backup's.
    Same(ChunkRef),
    /// It is stored.
    Anew(Frame),
    /// Pages that changed are stored, over what the earlier backup had.
    Pages {
        /// Identity of the chunk.
        id: ChunkId,
        base: Place,
        keep: Vec<PageSet>,
        pages: Vec<u8>,
        frame: Frame,
    },
}

/// What goes into a pack.
pub(super) struct Frame {
    /// Identity of the frame's content.
    pub(super) id: ChunkId,
    pub(super) raw_length: u32,
    pub(super) pages: Vec<PageHash>,
    pub(super) stored: Vec<u8>,
}

/// Works until there are no more jobs.
pub(super) fn work(jobs: &Mutex<Receiver<Job>>, settings: &Settings<'_>) {
    loop {
        // A poisoned lock means that another worker panicked; there is nothing behind the lock that could be half done.
        let next = jobs.lock().unwrap_or_else(std::sync::PoisonError::into_inner).recv();
        let Ok(Job { raw, known, done }) = next else { return };
        // If nobody waits for the result any more, the backup has failed elsewhere.
        let _ = done.send(work_on(raw, &known, settings));
    }
}

fn work_on(raw: Raw, known: &Known, settings: &Settings<'_>) -> Result<Done, BackupError> {
    match raw {
        Raw::File(span) => {
            let mut piece = Piece { offset: span.offset, raw: vec![0; span.bytes] };
            span.file.read_at(span.offset, &mut piece.raw)?;
            let bad_blocks = bad_blocks(&piece, known, settings);
            let bad_blocks = read_again(&span, &mut piece, bad_blocks, known, settings)?;
            process(&piece, bad_blocks, known, settings)
        }
        Raw::Whole(piece) => process(&piece, bad_blocks(&piece, known, settings), known, settings),
        Raw::Changed(over) => lay_over(&over, known, settings),
    }
}

/// Reads pages again that look damaged: most likely the server was writing them. Gives back those that still do.
fn read_again(
    span: &Span,
    piece: &mut Piece,
    mut bad: Vec<u32>,
    known: &Known,
    settings: &Settings<'_>,
) -> Result<Vec<u32>, BackupError> {
    for _ in 0..PAGE_READS {
        if bad.is_empty() {
            break;
        }
        std::thread::sleep(PAGE_PAUSE);
        let first = first_block_of(piece, known).unwrap_or(0);
        for block in &bad {
            // Blocks in the chunk at hand.
            let at = (block - first) as usize * BLOCK_BYTES;
            span.file.read_at(span.offset + at as u64, &mut piece.raw[at..at + BLOCK_BYTES])?;
        }
        bad = bad_blocks(piece, known, settings);
    }
    Ok(bad)
}

fn lay_over(over: &Over, known: &Known, settings: &Settings<'_>) -> Result<Done, BackupError> {
    let before = match (&over.batch, &known.earlier, settings.earlier) {
        (Some(batch), Some(chunk), Some(earlier)) => batch.chunk(chunk, earlier)?,
        _ => Vec::new(),
    };
    let piece = Piece { offset: over.blocks.offset, raw: over.blocks.over(before) };
    process(&piece, bad_blocks(&piece, known, settings), known, settings)
}

/// A chunk that is stored without looking for an earlier version.
pub(super) fn anew(raw: &[u8], compression: Compression) -> Result<Done, BackupError> {
    let (id, pages) = identify(raw);
    let content = Content::Anew(pack(raw, id, pages, compression)?);
    Ok(Done { raw_length: raw.len() as u32, crc32c: crc32c::crc32c(raw), bad_blocks: Vec::new(), content })
}

fn process(piece: &Piece, bad_blocks: Vec<u32>, known: &Known, settings: &Settings<'_>) -> Result<Done, BackupError> {
    let raw = &piece.raw;
    let crc32c = crc32c::crc32c(raw);
    // A chunk never has more than CHUNK_BYTES.
    let raw_length = raw.len() as u32;
    if raw.iter().all(|&b| b == 0) {
        return Ok(Done { raw_length, crc32c, bad_blocks: Vec::new(), content: Content::Zero });
    }
    let (id, pages) = identify(raw);
    let content = match known.earlier.as_ref().and_then(|earlier| since(earlier, raw, id, &pages, settings)) {
        Some(content) => content?,
        None => Content::Anew(pack(raw, id, pages, settings.compression)?),
    };
    Ok(Done { raw_length, crc32c, bad_blocks, content })
}

/// What becomes of a chunk of which an earlier version is stored; `None` if that is of no use.
fn since(
    earlier: &ChunkRef,
    raw: &[u8],
    id: ChunkId,
    pages: &[PageHash],
    settings: &Settings<'_>,
) -> Option<Result<Content, BackupError>> {
    let raw_length = raw.len() as u32;
    let moving = match settings.earlier?.moving(earlier) {
        Moving::All => return None,
        Moving::Pages(pages) => pages,
        Moving::Nothing if change::is_same(earlier, raw_length, id) => return Some(Ok(Content::Same(earlier.clone()))),
        Moving::Nothing => Vec::new(),
    };
    let before = settings.earlier?.page_hashes(earlier)?;
    match change::change(earlier, &before, raw_length, pages, &moving) {
        Change::Pages { base, keep, pages: changed } => {
            let content = change::cut_pages(raw, &changed);
            let hashes = changed.iter().map(|page| pages[usize::from(*page)]).collect();
            let frame = pack(&content, ChunkId::of(&content), hashes, settings.compression);
            Some(frame.map(|frame| Content::Pages { id, base, keep, pages: changed, frame }))
        }
        Change::Anew => None,
    }
}

fn pack(raw: &[u8], id: ChunkId, pages: Vec<PageHash>, compression: Compression) -> Result<Frame, BackupError> {
    let stored = frame::compress(raw, compression)
        .map_err(|source| BackupError::Local { action: "compress a chunk", source })?;
    Ok(Frame { id, raw_length: raw.len() as u32, pages, stored })
}

/// Blocks of the relation fork in this chunk whose checksum does not match. A short last page is left to the server to report.
fn bad_blocks(piece: &Piece, known: &Known, settings: &Settings<'_>) -> Vec<u32> {
    let Some(first) = first_block_of(piece, known) else { return Vec::new() };
    let pages = piece.raw.as_chunks::<BLOCK_BYTES>().0;
    let bad = (first..).zip(pages).filter(|(block, page)| page::check(page, *block, settings.start) == PageState::Bad);
    bad.map(|(block, _)| block).collect()
}

/// The number of the chunk's first block, if its pages are to be checked.
fn first_block_of(piece: &Piece, known: &Known) -> Option<u32> {
    let before = u32::try_from(piece.offset / BLOCK_BYTES as u64).unwrap_or(u32::MAX);
    known.first_block.map(|first| first.saturating_add(before))
}
