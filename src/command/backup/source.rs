//! The beginning of the pipeline: the server's stream, taken apart into directories, links, files and chunks.

use std::ops::Range;

use super::BackupError;
use super::pipeline::Feed;
use super::progress::Progress;
use super::stream::Streaming;
use super::worker::Known;
use super::writer::{FileKind, FileMeta, Item};
use crate::chunk::cut::{Cutter, Piece};
use crate::chunk::page;
use crate::chunk::tar::{TarEntry, TarEvent, TarKind, TarParser};
use crate::manifest::server::{ServerManifest, ServerManifestEnd};
use crate::manifest::{Directory, Symlink};
use crate::replication::{BackupMessage, BaseBackup};
use crate::repository::earlier::EarlierBackup;
use crate::wal::BackupLabel;

/// The longest `backup_label` that is looked at: a label of 1000 bytes and a handful of lines.
const LABEL_BYTES: usize = 64 << 10;

/// What the stream said, now that all of it has come.
pub(super) struct Streamed {
    /// The server's own manifest, beside its files.
    pub(super) manifest: ServerManifestEnd,
    /// `backup_label`.
    pub(super) label: BackupLabel,
}

/// Takes the stream apart.
pub(super) struct Source<'a> {
    feed: &'a Feed,
    progress: &'a Progress,
    /// Pages are to be checked.
    page_checksums: bool,
    tar: TarParser,
    tablespace: Option<u32>,
    cutter: Cutter,
    /// First block of the open file, if it consists of pages to be checked.
    first_block: Option<u32>,
    /// What need not be stored again, and which of its chunks the open file had.
    earlier: Option<&'a EarlierBackup>,
    earlier_file: Range<usize>,
    /// The open entry is a file.
    in_file: bool,
    /// Content of `backup_label`, once it has begun.
    label: Option<Vec<u8>>,
    in_label: bool,
    manifest: ServerManifest,
    /// Without the WAL that it brings there is no use in going on.
    streaming: Option<&'a Streaming>,
}

impl<'a> Source<'a> {
    pub(super) fn new(
        feed: &'a Feed,
        progress: &'a Progress,
        page_checksums: bool,
        earlier: Option<&'a EarlierBackup>,
        streaming: Option<&'a Streaming>,
    ) -> Self {
        Source {
            feed,
            progress,
            page_checksums,
            tar: TarParser::new(),
            tablespace: None,
            cutter: Cutter::default(),
            first_block: None,
            earlier,
            earlier_file: 0..0,
            in_file: false,
            label: None,
            in_label: false,
            manifest: ServerManifest::default(),
            streaming,
        }
    }

    /// Reads to the last byte.
    pub(super) fn read(mut self, backup: &mut BaseBackup<'_>) -> Result<Streamed, BackupError> {
        while let Some(message) = backup.next()? {
            if self.streaming.is_some_and(Streaming::has_ended) {
                return Err(BackupError::Broken);
            }
            match message {
                BackupMessage::ArchiveBegin { tablespace } => {
                    std::mem::take(&mut self.tar).finish()?;
                    self.tablespace = backup.tablespaces().get(tablespace).and_then(|tablespace| tablespace.oid);
                }
                BackupMessage::Data(bytes) => {
                    self.progress.advance(bytes.len() as u64);
                    self.archive(&bytes)?;
                }
                BackupMessage::ManifestBegin => {
                    std::mem::take(&mut self.tar).finish()?;
                    self.feed.item(Item::Begin(FileKind::ServerManifest))?;
                }
                BackupMessage::ManifestData(bytes) => self.manifest(&bytes)?,
                BackupMessage::Progress(_) => {}
            }
        }
        self.end_of_content()?;
        let manifest = self.manifest.finish()?;
        self.feed.item(Item::ClaimsEnd)?;
        let label = BackupLabel::parse(&self.label.ok_or(BackupError::NoLabel)?)?;
        Ok(Streamed { manifest, label })
    }

    fn archive(&mut self, mut input: &[u8]) -> Result<(), BackupError> {
        while let Some(event) = self.tar.next(&mut input)? {
            match event {
                TarEvent::Entry(entry) => self.entry(entry)?,
                TarEvent::Data(data) => {
                    if self.in_label {
                        let label = self.label.get_or_insert_default();
                        let room = LABEL_BYTES - label.len();
                        label.extend_from_slice(&data[..data.len().min(room)]);
                    }
                    self.content(data)?;
                }
                TarEvent::End if self.in_file => self.end_of_content()?,
                TarEvent::End => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: TarEntry) -> Result<(), BackupError> {
        let TarEntry { path, kind, mode, size_bytes, modified_at } = entry;
        let tablespace = self.tablespace;
        self.in_file = kind == TarKind::File;
        self.in_label = self.in_file && tablespace.is_none() && path.as_bytes() == b"backup_label";
        let refused = |reason| Err(BackupError::Entry { path: path.to_string(), reason });
        match kind {
            TarKind::Directory => self.feed.item(Item::Directory(Directory { path, tablespace, mode })),
            TarKind::Symlink(target) => {
                let number = path.as_bytes().strip_prefix(b"pg_tblspc/");
                if tablespace.is_some() || !number.is_some_and(|number| number.iter().all(u8::is_ascii_digit)) {
                    return refused("it is a symbolic link, and not that of a tablespace");
                }
                match String::from_utf8(target) {
                    Ok(target) => self.feed.item(Item::Symlink(Symlink { path, target })),
                    Err(_) => refused("the tablespace's location is not UTF-8"),
                }
            }
            TarKind::File => {
                self.first_block = match self.page_checksums {
                    true => page::first_block(&path, tablespace.is_some()),
                    false => None,
                };
                self.earlier_file = self.earlier.map(|earlier| earlier.file(&path, tablespace)).unwrap_or_default();
                let meta = FileMeta { path, tablespace, mode, size: size_bytes, modified_at };
                self.feed.item(Item::Begin(FileKind::Data(meta)))
            }
        }
    }

    fn content(&mut self, mut data: &[u8]) -> Result<(), BackupError> {
        while !data.is_empty() {
            if let Some(piece) = self.cutter.push(&mut data) {
                self.chunk(piece)?;
            }
        }
        Ok(())
    }

    fn chunk(&self, piece: Piece) -> Result<(), BackupError> {
        let earlier = self.earlier.and_then(|earlier| earlier.chunk(&self.earlier_file, piece.offset)).cloned();
        self.feed.chunk(piece, Known { first_block: self.first_block, earlier })
    }

    fn end_of_content(&mut self) -> Result<(), BackupError> {
        if let Some(piece) = self.cutter.finish() {
            self.chunk(piece)?;
        }
        self.feed.item(Item::End)
    }

    fn manifest(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        (self.first_block, self.earlier_file) = (None, 0..0);
        self.content(bytes)?;
        let mut claims = Vec::new();
        self.manifest.push(bytes, |file| claims.push(file))?;
        self.feed.item(Item::Claims(claims))
    }
}
