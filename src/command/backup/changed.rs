//! What a server sends that knows what has changed (17 and later): files put together from it and from the earlier backup.
//!
//! Nothing of it reaches a restore: each file is stored as the whole that it stands for. A chunk without a changed block in a file without
//! one is referred to unread (unless its pack is mostly dead); of any other file the chunks are read from the repository, laid over, and proved as always, since
//! `backup_manifest` has a checksum over the whole file.

use super::BackupError;
use super::pipeline::Feed;
use super::worker::{Known, Raw};
use super::writer::{FileKind, FileMeta, Item, Sent};
use crate::chunk::incremental::{ChangedChunk, IncrementalReader, PREFIX};
use crate::chunk::{ChunkRef, EntryPath};
use crate::repository::earlier::{EarlierBackup, Moving};

/// Names of lines in `backup_label` by which a server knows a copy that is not whole.
const LABEL_LINES: &[u8] = b"INCREMENTAL FROM ";

/// A file of which changed blocks are coming.
pub(super) struct ChangedFile {
    /// The file that it stands for; its size is known with the header.
    meta: FileMeta,
    sent: Sent,
    reader: IncrementalReader,
    begun: bool,
    /// First block of the file, if its pages are to be checked.
    first_block: Option<u32>,
    /// Nothing in it has changed: its chunks were passed on already.
    unchanged: bool,
}

/// The path of the file that an incremental one stands for; `None` if it is none.
pub(super) fn stands_for(path: &EntryPath) -> Option<EntryPath> {
    let bytes = path.as_bytes();
    let name = bytes.iter().rposition(|byte| *byte == b'/')? + 1;
    let rest = bytes[name..].strip_prefix(PREFIX)?;
    EntryPath::new(&[&bytes[..name], rest].concat()).ok()
}

impl ChangedFile {
    /// A file begins. `meta` is of the file as it is sent, `path` that of the file that it stands for.
    pub(super) fn begin(meta: FileMeta, path: EntryPath, block_size: u32, first_block: Option<u32>) -> ChangedFile {
        let sent = Sent { path: meta.path.clone(), size: 0, crc32c: 0 };
        let reader = IncrementalReader::new(block_size);
        ChangedFile { meta: FileMeta { path, ..meta }, sent, reader, begun: false, first_block, unchanged: false }
    }

    /// Takes the next bytes.
    pub(super) fn push(&mut self, bytes: &[u8], feed: &Feed, earlier: &EarlierBackup) -> Result<(), BackupError> {
        self.sent.take(bytes);
        let mut data = bytes;
        loop {
            let chunk = self.reader.push(&mut data).map_err(|error| self.wrong(error.to_string()))?;
            self.begin_file(feed, earlier)?;
            match chunk {
                Some(chunk) if !self.unchanged => {
                    let file = earlier.file(&self.meta.path, self.meta.tablespace);
                    let before = file.and_then(|file| earlier.chunk(file, chunk.offset)).cloned();
                    // Zero bytes must not stand for what it had.
                    if before.is_none() && file.is_some_and(|file| chunk.offset < file.size) {
                        return Err(self.wrong("a part of the earlier backup's file is missing".to_owned()));
                    }
                    let known = Known { first_block: self.first_block, earlier: before };
                    feed.chunk(Raw::Changed(chunk), known)?;
                }
                Some(_) => {}
                None if data.is_empty() => return Ok(()),
                None => {}
            }
        }
    }

    /// After the last byte.
    pub(super) fn finish(self, feed: &Feed) -> Result<(), BackupError> {
        self.reader.finish().map_err(|error| self.wrong(error.to_string()))?;
        feed.item(Item::End(Some(self.sent)))
    }

    /// Begins the file that is meant, once its size is known.
    fn begin_file(&mut self, feed: &Feed, earlier: &EarlierBackup) -> Result<(), BackupError> {
        let Some(header) = self.reader.header().filter(|_| !self.begun) else { return Ok(()) };
        self.begun = true;
        self.meta.size = header.size;
        let Some(file) = earlier.file(&self.meta.path, self.meta.tablespace) else {
            return Err(self.wrong("the earlier backup has no such file".to_owned()));
        };
        feed.item(Item::Begin(FileKind::Data(self.meta.clone())))?;
        if header.blocks.is_empty()
            && header.size == file.size
            && let Some(crc32c) = file.crc32c
            && let Some(chunks) = earlier.chunks_of(file)
        {
            self.unchanged = true;
            self.take_over(chunks, feed, earlier)?;
            feed.item(Item::Checksum(crc32c))?;
        }
        Ok(())
    }

    /// Passes the chunks of an unchanged file on: as they are, but for those that are to move to the new backup's packs.
    fn take_over(&self, chunks: Vec<ChunkRef>, feed: &Feed, earlier: &EarlierBackup) -> Result<(), BackupError> {
        let (mut offset, mut as_they_are) = (0, Vec::new());
        for chunk in chunks {
            let raw_length = chunk.raw_length;
            if earlier.moving(&chunk) == Moving::Nothing {
                as_they_are.push(chunk);
            } else {
                feed.item(Item::Unchanged(std::mem::take(&mut as_they_are)))?;
                let nothing = ChangedChunk { offset, raw_length, places: Vec::new(), bytes: Vec::new() };
                let known = Known { first_block: self.first_block, earlier: Some(chunk) };
                feed.chunk(Raw::Changed(nothing), known)?;
            }
            offset += u64::from(raw_length);
        }
        feed.item(Item::Unchanged(as_they_are))
    }

    fn wrong(&self, reason: String) -> BackupError {
        BackupError::Changed { path: self.sent.path.to_string(), reason }
    }
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
