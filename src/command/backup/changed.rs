//! What a server sends that knows what has changed (17 and later): files put together from it and from the earlier backup.
//!
//! Nothing of it reaches a restore: each file is stored as the whole that it stands for. A chunk without a changed block is referred to unread
//! (unless its pack is mostly dead); any other is read from the repository, laid over, and proved as always.
//!
//! `backup_manifest` has a checksum over each whole file. It is put together from those of the chunks, so that nothing else has to be read;
//! backups of early versions have none, and their chunks are read.

use super::BackupError;
use super::ahead::Batches;
use super::pipeline::Feed;
use super::worker::{Known, Over, Raw};
use super::writer::{FileKind, FileMeta, Item, Sent};
use crate::chunk::incremental::{ChangedChunk, Header, IncrementalReader, PREFIX};
use crate::chunk::{CHUNK_BYTES, ChunkContent, ChunkRef, EntryPath};
use crate::repository::earlier::{EarlierBackup, EarlierFile, Moving};

/// Names of lines in `backup_label` by which a server knows a copy that is not whole.
const LABEL_LINES: &[u8] = b"INCREMENTAL FROM ";

/// Chunks that are passed on in one go.
const AS_THEY_ARE: usize = 256;

/// A file of which changed blocks are coming.
pub(super) struct ChangedFile<'a> {
    /// The file that it stands for; its size is known with the header.
    meta: FileMeta,
    sent: Sent,
    reader: IncrementalReader,
    block_size: u64,
    /// First block of the file, if its pages are to be checked.
    first_block: Option<u32>,
    earlier: &'a EarlierBackup,
    /// Known once the file has begun.
    before: Option<Before<'a>>,
    as_they_are: Vec<ChunkRef>,
}

/// What the earlier backup has of a file.
struct Before<'a> {
    file: &'a EarlierFile,
    batches: Batches<'a>,
}

/// The path of the file that an incremental one stands for; `None` if it is none.
pub(super) fn stands_for(path: &EntryPath) -> Option<EntryPath> {
    let bytes = path.as_bytes();
    let name = bytes.iter().rposition(|byte| *byte == b'/')? + 1;
    let rest = bytes[name..].strip_prefix(PREFIX)?;
    EntryPath::new(&[&bytes[..name], rest].concat()).ok()
}

impl<'a> ChangedFile<'a> {
    /// A file begins. `meta` is of the file as it is sent, `path` that of the file that it stands for.
    pub(super) fn begin(
        meta: FileMeta,
        path: EntryPath,
        block_size: u32,
        first_block: Option<u32>,
        earlier: &'a EarlierBackup,
    ) -> ChangedFile<'a> {
        let sent = Sent { path: meta.path.clone(), size: 0, crc32c: 0 };
        ChangedFile {
            meta: FileMeta { path, ..meta },
            sent,
            reader: IncrementalReader::new(block_size),
            block_size: u64::from(block_size),
            first_block,
            earlier,
            before: None,
            as_they_are: Vec::new(),
        }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8], feed: &Feed) -> Result<(), BackupError> {
        self.sent.take(bytes);
        let mut data = bytes;
        loop {
            let chunk = self.reader.push(&mut data).map_err(|error| self.wrong(error.to_string()))?;
            if self.before.is_none()
                && let Some(header) = self.reader.header()
            {
                self.meta.size = header.size;
                self.before = Some(self.begin_file(header)?);
                feed.item(Item::Begin(FileKind::Data(self.meta.clone())))?;
            }
            match chunk {
                Some(chunk) => self.chunk(chunk, feed)?,
                None if data.is_empty() => return Ok(()),
                None => {}
            }
        }
    }

    /// After the last byte.
    pub(super) fn finish(mut self, feed: &Feed) -> Result<(), BackupError> {
        self.reader.finish().map_err(|error| self.wrong(error.to_string()))?;
        self.pass_on(feed)?;
        feed.item(Item::End(Some(self.sent)))
    }

    /// Finds out what is to be read, now that it is known what has changed.
    fn begin_file(&self, header: &Header) -> Result<Before<'a>, BackupError> {
        let Some(file) = self.earlier.file(&self.meta.path, self.meta.tablespace) else {
            return Err(self.wrong("the earlier backup has no such file".to_owned()));
        };
        let mut before = Before { file, batches: Batches::default() };
        let mut blocks = header.blocks.iter().map(|block| u64::from(*block) * self.block_size).peekable();
        let mut to_be_read = Vec::new();
        for offset in (0..header.size).step_by(CHUNK_BYTES) {
            let end = header.size.min(offset + CHUNK_BYTES as u64);
            let mut changed = false;
            while blocks.next_if(|block| *block < end).is_some() {
                changed = true;
            }
            let chunk = before.chunk(self.earlier, offset);
            if !before.stays(self.earlier, chunk, end - offset, changed) {
                to_be_read.extend(chunk.filter(|chunk| is_stored(chunk)));
            }
        }
        before.batches = Batches::of(to_be_read);
        Ok(before)
    }

    fn chunk(&mut self, blocks: ChangedChunk, feed: &Feed) -> Result<(), BackupError> {
        let Some(before) = &mut self.before else { return Err(BackupError::Broken) };
        let chunk = before.chunk(self.earlier, blocks.offset);
        let changed = !blocks.places.is_empty();
        if before.stays(self.earlier, chunk, u64::from(blocks.raw_length), changed) {
            self.as_they_are.extend(chunk.cloned());
            return if self.as_they_are.len() < AS_THEY_ARE { Ok(()) } else { self.pass_on(feed) };
        }
        // Zero bytes must not stand for what it had.
        if chunk.is_none() && blocks.offset < before.file.size {
            return Err(self.wrong("a part of the earlier backup's file is missing".to_owned()));
        }
        let batch = match chunk {
            Some(chunk) if is_stored(chunk) => {
                Some(before.batches.next(self.earlier, feed).ok_or(BackupError::Broken)?)
            }
            _ => None,
        };
        let over = Over { blocks, batch };
        self.pass_on(feed)?;
        feed.chunk(Raw::Changed(over), Known { first_block: self.first_block, earlier: chunk.cloned() })
    }

    /// Passes the chunks on that were gathered.
    fn pass_on(&mut self, feed: &Feed) -> Result<(), BackupError> {
        let chunks = std::mem::take(&mut self.as_they_are);
        if chunks.is_empty() { Ok(()) } else { feed.item(Item::Unchanged(chunks)) }
    }

    fn wrong(&self, reason: String) -> BackupError {
        BackupError::Changed { path: self.sent.path.to_string(), reason }
    }
}

impl<'a> Before<'a> {
    fn chunk(&self, earlier: &'a EarlierBackup, offset: u64) -> Option<&'a ChunkRef> {
        earlier.chunk(self.file, offset)
    }

    /// Whether a chunk is taken over as it is, unread.
    fn stays(&self, earlier: &EarlierBackup, chunk: Option<&ChunkRef>, bytes: u64, changed: bool) -> bool {
        let as_long = |chunk: &ChunkRef| u64::from(chunk.raw_length) == bytes;
        let known = |chunk: &ChunkRef| chunk.checksum().is_some() && earlier.moving(chunk) == Moving::Nothing;
        !changed && chunk.is_some_and(|chunk| as_long(chunk) && known(chunk))
    }
}

fn is_stored(chunk: &ChunkRef) -> bool {
    matches!(chunk.content, ChunkContent::Stored { .. })
}

/// `backup_label` as that of a whole copy: a server refuses to start with the lines about an incremental one.
pub(super) fn whole_label(label: &[u8]) -> Vec<u8> {
    label
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| !line.starts_with(LABEL_LINES))
        .flatten()
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Only names of relation files that begin so stand for others.
    #[test]
    fn names() {
        let of =
            |path: &str| stands_for(&EntryPath::new(path.as_bytes()).expect("a path")).map(|path| path.to_string());
        assert_eq!(of("base/5/INCREMENTAL.2619").as_deref(), Some("base/5/2619"));
        assert_eq!(of("PG_17_202406281/5/INCREMENTAL.16384.1").as_deref(), Some("PG_17_202406281/5/16384.1"));
        assert_eq!(of("base/5/2619"), None);
        assert_eq!(of("base/5/INCREMENTAL."), None);
    }

    /// The label of a whole copy has none of the lines about the incremental one.
    #[test]
    fn labels() {
        let label = b"START WAL LOCATION: 0/B000028 (file 00000001000000000000000B)\nINCREMENTAL FROM LSN: 0/9000028\nINCREMENTAL FROM TLI: 1\n";
        assert_eq!(whole_label(label), b"START WAL LOCATION: 0/B000028 (file 00000001000000000000000B)\n");
    }
}
