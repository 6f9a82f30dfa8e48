//! `backup_manifest` where no server writes one: made of what is stored, piece by piece while it is.

use super::BackupError;
use super::writer::{FileMeta, entry};
use crate::catalog::WalRange;
use crate::chunk::cut::{Cutter, Piece};
use crate::chunk::{ChunkRef, EntryPath};
use crate::manifest::server_writer::ServerManifestWriter;
use crate::manifest::{FileEntry, MAX_CHUNKS_PER_LINE};
use crate::wal::{PostgresMajor, SystemIdentifier};

/// The manifest so far. What fills a chunk is handed out to be stored.
pub(super) struct OwnManifest {
    text: ServerManifestWriter,
    cutter: Cutter,
    chunks: Vec<ChunkRef>,
    size: u64,
    crc32c: u32,
}

impl OwnManifest {
    pub(super) fn begin(major: PostgresMajor, system_identifier: SystemIdentifier) -> OwnManifest {
        let (text, first) = ServerManifestWriter::begin(major, system_identifier);
        let mut manifest = OwnManifest { text, cutter: Cutter::default(), chunks: Vec::new(), size: 0, crc32c: 0 };
        // A few bytes, which fill no chunk.
        let none = manifest.take(&first);
        debug_assert!(none.is_empty());
        manifest
    }

    /// A file of the backup is complete.
    pub(super) fn file(&mut self, meta: &FileMeta, size: u64, crc32c: u32) -> Vec<Piece> {
        let path = match meta.tablespace {
            Some(oid) => [format!("pg_tblspc/{oid}/").as_bytes(), meta.path.as_bytes()].concat(),
            None => meta.path.as_bytes().to_vec(),
        };
        let line = self.text.file(&path, size, meta.modified_at, crc32c);
        self.take(&line)
    }

    /// A piece was stored.
    pub(super) fn stored(&mut self, chunk: ChunkRef) {
        self.chunks.push(chunk);
    }

    /// The last pieces.
    pub(super) fn finish(&mut self, ranges: &[WalRange]) -> Vec<Piece> {
        let last = self.text.finish(ranges);
        let mut pieces = self.take(&last);
        pieces.extend(self.cutter.finish());
        pieces
    }

    /// The file, once all its pieces have been stored.
    pub(super) fn entry(self) -> Result<FileEntry, BackupError> {
        if self.chunks.len() > MAX_CHUNKS_PER_LINE {
            return Err(BackupError::ManifestTooLarge);
        }
        let path = EntryPath::new(b"backup_manifest").map_err(|_| BackupError::Broken)?;
        let meta = FileMeta { path, tablespace: None, mode: 0o600, size: self.size, modified_at: 0 };
        Ok(entry(&meta, 0, self.chunks, Some(self.crc32c)))
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<Piece> {
        self.size += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
        let (mut pieces, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            pieces.extend(self.cutter.push(&mut rest));
        }
        pieces
    }
}
