//! The beginning of the pipeline: the server's stream, taken apart into directories, links, files and chunks.

use super::BackupError;
use super::changed::{self, ChangedFile};
use super::pages::Judge;
use super::pipeline::Feed;
use super::progress::Progress;
use super::stream::Streaming;
use super::worker::{Known, Raw};
use super::writer::{FileKind, FileMeta, Item, Sent};
use crate::catalog::WalRange;
use crate::chunk::cut::{Cutter, Piece};
use crate::chunk::page;
use crate::chunk::tar::{TarEntry, TarEvent, TarKind, TarParser};
use crate::manifest::server::{ServerManifest, ServerManifestEnd};
use crate::manifest::{Directory, Symlink};
use crate::replication::{BackupMessage, BaseBackup};
use crate::repository::earlier::{EarlierBackup, EarlierFile};
use crate::wal::{BackupLabel, Lsn, SystemIdentifier, TimelineId};

/// The longest `backup_label` that is looked at: a label of 1000 bytes and a handful of lines.
const LABEL_BYTES: usize = 64 << 10;

/// What is known of a backup now that all of it has come.
pub(super) struct Streamed {
    /// `backup_label`.
    pub(super) label: BackupLabel,
    /// The WAL that `backup_manifest` names, if it does.
    pub(super) wal_ranges: Vec<WalRange>,
    /// The cluster that `backup_manifest` names (17 and later).
    pub(super) system_identifier: Option<SystemIdentifier>,
    /// WAL up to here is needed.
    pub(super) stop_lsn: Lsn,
    /// The timeline of that WAL.
    pub(super) stop_timeline: TimelineId,
    /// Who says whether pages that look damaged are.
    pub(super) judge: Judge,
    /// Only what had changed was read.
    pub(super) changed_only: bool,
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
    earlier_file: Option<&'a EarlierFile>,
    /// The block size, if the server sends only what has changed since that one.
    changed_only: Option<u32>,
    changed: Option<ChangedFile<'a>>,
    /// `backup_label`, to be passed on when it is complete.
    held_label: Option<FileMeta>,
    /// A line of the server's manifest that is not complete.
    manifest_line: Vec<u8>,
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
            earlier_file: None,
            changed_only: None,
            changed: None,
            held_label: None,
            manifest_line: Vec::new(),
            in_file: false,
            label: None,
            in_label: false,
            manifest: ServerManifest::default(),
            streaming,
        }
    }

    /// The server sends only what has changed since the earlier backup; the cluster's block size in bytes.
    pub(super) fn changed_only(self, block_size: Option<u32>) -> Self {
        Source { changed_only: block_size, ..self }
    }

    /// Reads to the last byte.
    pub(super) fn read(mut self, mut backup: BaseBackup<'_>) -> Result<Streamed, BackupError> {
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
        if !self.manifest_line.is_empty() {
            self.feed.item(Item::ManifestLine(std::mem::take(&mut self.manifest_line)))?;
        }
        self.end_of_content()?;
        let ServerManifestEnd { wal_ranges, system_identifier } = self.manifest.finish()?;
        self.feed.item(Item::ClaimsEnd)?;
        let label = BackupLabel::parse(&self.label.ok_or(BackupError::NoLabel)?)?;
        let end = backup.finish()?;
        let (stop_lsn, stop_timeline, changed_only) = (end.stop_lsn, end.timeline, self.changed_only.is_some());
        let judge = Judge::Server(Box::new(end));
        Ok(Streamed { label, wal_ranges, system_identifier, stop_lsn, stop_timeline, judge, changed_only })
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
                    match &mut self.changed {
                        Some(changed) => changed.push(data, self.feed)?,
                        None if self.held_label.is_some() => {}
                        None => self.content(data)?,
                    }
                }
                TarEvent::End if self.in_file => self.end_of_entry()?,
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
                let stands_for = self.changed_only.and_then(|_| changed::stands_for(&path));
                let meta = FileMeta { path, tablespace, mode, size: size_bytes, modified_at };
                if let (Some(path), Some(block_size), Some(earlier)) = (stands_for, self.changed_only, self.earlier) {
                    let first_block =
                        self.page_checksums.then(|| page::first_block(&path, tablespace.is_some())).flatten();
                    self.changed = Some(ChangedFile::begin(meta, path, block_size, first_block, earlier));
                    return Ok(());
                }
                if self.in_label && self.changed_only.is_some() {
                    self.held_label = Some(meta);
                    return Ok(());
                }
                self.earlier_file = self.earlier.and_then(|earlier| earlier.file(&meta.path, tablespace));
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
        let earlier = self.earlier.zip(self.earlier_file);
        let earlier = earlier.and_then(|(earlier, file)| earlier.chunk(file, piece.offset)).cloned();
        self.feed.chunk(Raw::Whole(piece), Known { first_block: self.first_block, earlier })
    }

    /// An entry of the archive is complete.
    fn end_of_entry(&mut self) -> Result<(), BackupError> {
        if let Some(changed) = self.changed.take() {
            return changed.finish(self.feed);
        }
        let Some(meta) = self.held_label.take() else { return self.end_of_content() };
        let label = self.label.as_deref().unwrap_or_default();
        let mut sent = Sent { path: meta.path.clone(), size: 0, crc32c: 0 };
        sent.take(label);
        let whole = changed::whole_label(label);
        self.feed.item(Item::Begin(FileKind::Data(FileMeta { size: whole.len() as u64, ..meta })))?;
        self.feed.chunk(Raw::Whole(Piece { offset: 0, raw: whole }), Known::default())?;
        self.feed.item(Item::End(Some(sent)))
    }

    fn end_of_content(&mut self) -> Result<(), BackupError> {
        if let Some(piece) = self.cutter.finish() {
            self.chunk(piece)?;
        }
        self.feed.item(Item::End(None))
    }

    fn manifest(&mut self, bytes: &[u8]) -> Result<(), BackupError> {
        (self.first_block, self.earlier_file) = (None, None);
        if self.changed_only.is_some() {
            for part in bytes.split_inclusive(|byte| *byte == b'\n') {
                self.manifest_line.extend_from_slice(part);
                if part.ends_with(b"\n") {
                    self.feed.item(Item::ManifestLine(std::mem::take(&mut self.manifest_line)))?;
                }
            }
        } else {
            self.content(bytes)?;
        }
        let mut claims = Vec::new();
        self.manifest.push(bytes, |file| claims.push(file))?;
        self.feed.item(Item::Claims(claims))
    }
}
