//! The beginning of the pipeline: what the data directory has, handed on as directories, links, files and chunks still to be read.
//!
//! One thread lists and opens, so that all stands in the manifest in one order; the reading itself is done by the workers, which are
//! told of a file's next chunks while they are still at earlier ones, and the operating system with them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::worker::{Known, Raw, Span};
use super::super::writer::{FileKind, FileMeta, Item};
use super::super::{BackupError, Feed, Reading, Task};
use super::passed_over::PassedOver;
use crate::catalog::WalRange;
use crate::chunk::{CHUNK_BYTES, ChunkRef, EntryPath, page};
use crate::command::host;
use crate::command::pace::Pace;
use crate::manifest::{Directory, Symlink};
use crate::pgdata::living::{LivingDirectory, LivingEntry, LivingFile};
use crate::replication::{LowLevelBackup, LowLevelEnd};

/// How often the server is asked whether it still knows of the backup.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Hands on what is found.
pub(super) struct Reader<'a> {
    task: &'a Task<'a>,
    feed: &'a Feed,
    reading: &'a Reading<'a>,
    backup: LowLevelBackup,
    /// What need not be read.
    passed_over: Option<&'a PassedOver<'a>>,
    looked: Instant,
    pace: Pace,
}

impl<'a> Reader<'a> {
    pub(super) fn new(task: &'a Task<'a>, feed: &'a Feed, reading: &'a Reading<'a>, backup: LowLevelBackup) -> Self {
        let pace = Pace::new(task.args.rate_limit.map(|rate| rate.0));
        Reader { task, feed, reading, backup, passed_over: None, looked: Instant::now(), pace }
    }

    /// What need not be read from now on.
    pub(super) fn pass_over(&mut self, unchanged: Option<&'a PassedOver<'a>>) {
        self.passed_over = unchanged;
    }

    /// The next thing.
    pub(super) fn entry(&mut self, entry: LivingEntry, tablespace: Option<u32>) -> Result<(), BackupError> {
        self.look()?;
        match entry {
            LivingEntry::Directory { path, mode } => {
                self.feed.item(Item::Directory(Directory { path, tablespace, mode }))
            }
            LivingEntry::Link { path, target } => self.feed.item(Item::Symlink(Symlink { path, target })),
            LivingEntry::File(file) => self.file(file, tablespace),
        }
    }

    fn file(&mut self, file: LivingFile, tablespace: Option<u32>) -> Result<(), BackupError> {
        let check = self.task.check_pages();
        let first_block = check.then(|| page::first_block(&file.path, tablespace.is_some())).flatten();
        let earlier = self.task.earlier.as_ref();
        let earlier = earlier.and_then(|earlier| Some((earlier, earlier.file(&file.path, tablespace)?)));
        self.feed.item(Item::Begin(FileKind::Data(meta(&file, tablespace))))?;
        let partly = self.passed_over.and_then(|unchanged| unchanged.file(&file.path, tablespace));
        let file = Arc::new(file);
        let mut same = Vec::new();
        for offset in (0..file.size).step_by(CHUNK_BYTES) {
            let bytes = (file.size - offset).min(CHUNK_BYTES as u64);
            if let Some(chunk) = partly.as_ref().and_then(|partly| partly.chunk(offset, bytes)) {
                same.push(chunk.clone());
                self.reading.progress.advance(bytes);
                continue;
            }
            self.unchanged(&mut same)?;
            file.will_read(offset, bytes);
            self.pace.spend(bytes, &self.task.context.interrupt);
            self.look()?;
            self.reading.progress.advance(bytes);
            let known = Known {
                first_block,
                earlier: earlier.and_then(|(earlier, file)| earlier.chunk(file, offset)).cloned(),
            };
            // At most a chunk's.
            let bytes = bytes as usize;
            self.feed.chunk(Raw::File(Span { file: Arc::clone(&file), offset, bytes }), known)?;
        }
        self.unchanged(&mut same)?;
        self.feed.item(Item::End(None))
    }

    /// Hands on chunks that were not read, if there are any.
    fn unchanged(&self, chunks: &mut Vec<ChunkRef>) -> Result<(), BackupError> {
        if chunks.is_empty() {
            return Ok(());
        }
        self.feed.item(Item::Unchanged(std::mem::take(chunks)))
    }

    /// `pg_control`, after everything else: what the workers read later than that would be newer than the end of the backup.
    pub(super) fn control_file(&mut self, root: &LivingDirectory) -> Result<(), BackupError> {
        self.feed.settle()?;
        let (file, content, _) = root.control_file()?;
        self.feed.small_file(FileKind::Data(meta(&file, None)), content)
    }

    /// Ends the backup.
    pub(super) fn stop(&mut self, patience: Duration) -> Result<LowLevelEnd, BackupError> {
        Ok(self.backup.stop(patience)?)
    }

    /// `backup_label`, with the permissions that the server gives its files in this directory.
    pub(super) fn label(&self, content: Vec<u8>, root: &LivingDirectory) -> Result<(), BackupError> {
        let path = EntryPath::new(b"backup_label").map_err(|_| BackupError::Broken)?;
        let (mode, size) = (0o600 | (root.mode()? & 0o040), content.len() as u64);
        let modified_at = host::now().to_timestamp().as_second();
        self.feed.small_file(FileKind::Data(FileMeta { path, tablespace: None, mode, size, modified_at }), content)
    }

    /// `backup_manifest`, of all that was handed on.
    pub(super) fn manifest(&self, ranges: &[WalRange]) -> Result<(), BackupError> {
        self.feed.item(Item::OwnManifest(ranges.to_vec()))
    }

    /// Whether there is still use in going on.
    pub(super) fn look(&mut self) -> Result<(), BackupError> {
        if self.task.context.interrupt.requested() {
            return Err(BackupError::Interrupted);
        }
        if self.reading.streaming.is_some_and(super::super::Streaming::has_ended) {
            return Err(BackupError::Broken);
        }
        if self.looked.elapsed() >= LOOK_EVERY {
            self.backup.look()?;
            self.looked = Instant::now();
        }
        Ok(())
    }
}

fn meta(file: &LivingFile, tablespace: Option<u32>) -> FileMeta {
    let LivingFile { path, mode, size, modified_at, .. } = file;
    FileMeta { path: path.clone(), tablespace, mode: *mode, size: *size, modified_at: *modified_at }
}
