//! What need not be read: the parts of files that have not changed since the earlier backup, by the WAL between the two.
//!
//! All records from the earlier backup's start to the new one's are looked at, each proved and following the one before it
//! ([`crate::wal::ChangedBlocks`] says why that is enough). Segments come from the repository; those that are not archived yet, and always the
//! one in which the backup begins, from `pg_wal`: so the chain of records ends in this server's own WAL, and not in that of
//! a copy that went another way.
//!
//! Everything that the WAL does not prove unchanged is read: where a record is missing, damaged or unknown, all of it. Only main forks of relations are
//! ever passed over, and of those only what the earlier backup has at the same place in the same length. What is passed over is not looked
//! at for bad checksums either.

use std::collections::HashSet;
use std::io;

use super::super::{BackupError, Task};
use super::place::Place;
use crate::chunk::relation_file::Fork;
use crate::chunk::{CHUNK_BYTES, ChunkRef, EntryPath, PAGE_BYTES, page};
use crate::manifest::place::{FileKind, FilePlace, file_key};
use crate::recovery::WalCopy;
use crate::repository::earlier::{EarlierBackup, EarlierFile, Moving};
use crate::repository::{RepositoryError, Scanning};
use crate::wal::{
    Borders, ChangedBlocks, ChangedBlocksReader, Completeness, Lsn, NotProved, RelationFile, SegmentName, SegmentNo,
    SegmentScan, TimelineHistory, TimelineId, WalFileName,
};

/// WAL is read only if there is no more of it than this part of the data: one in so many. Reading and proving it takes about as long as
/// reading and hashing as much data.
const WAL_PART: u64 = 2;

/// Why all files are read.
#[derive(Debug, thiserror::Error)]
enum WhyAll {
    #[error(transparent)]
    NotProved(#[from] NotProved),
    #[error("WAL segment {0} is neither in the repository nor in pg_wal")]
    Missing(SegmentName),
    #[error("WAL segment {0} cannot be read: {1}")]
    Damaged(SegmentName, String),
    #[error("the history of timeline {0} is not known")]
    NoHistory(TimelineId),
    #[error("it was taken on a timeline, or beyond a point, that is no part of this server's history")]
    OtherHistory,
    #[error("page checksums were switched on or off")]
    Checksums,
    #[error("the cluster has blocks or relation files of another size than PostgreSQL's default")]
    Layout,
    #[error("the WAL written since is more than half as large as the data")]
    TooMuchWal,
}

/// What has not changed.
pub(super) struct Unread<'a> {
    earlier: &'a EarlierBackup,
    changed: ChangedBlocks,
    /// Files of which the earlier backup has damaged pages.
    bad: HashSet<u128>,
}

/// A file, parts of which may be unchanged.
pub(super) struct UnreadFile<'a> {
    unread: &'a Unread<'a>,
    file: RelationFile,
    first_block: u32,
    earlier: &'a EarlierFile,
}

impl<'a> Unread<'a> {
    /// Finds out what has not changed before `start`, where the backup begins; `None` if everything is to be read, which is said.
    pub(super) fn find(
        task: &'a Task<'_>,
        place: &Place,
        start: Lsn,
        timeline: TimelineId,
    ) -> Result<Option<Self>, BackupError> {
        let Some(earlier) = task.earlier.as_ref().filter(|_| !task.args.full_read) else { return Ok(None) };
        match changed(task, earlier, place, start, timeline)? {
            Ok(changed) => {
                let bad = earlier.stop().bad_pages.iter().map(|pages| file_key(&pages.path, pages.tablespace));
                Ok(Some(Unread { earlier, changed, bad: bad.collect() }))
            }
            Err(why) => {
                eprintln!(
                    "pitr: NOTE:  all files are read, since the WAL does not tell what has changed since base backup {}: {why}",
                    earlier.id()
                );
                Ok(None)
            }
        }
    }

    /// A file, if parts of it may be unchanged.
    pub(super) fn file(&'a self, path: &EntryPath, tablespace: Option<u32>) -> Option<UnreadFile<'a>> {
        let FileKind::Relation { file, fork: Fork::Main, .. } = FilePlace::of(path, tablespace).kind else {
            return None;
        };
        if self.bad.contains(&file_key(path, tablespace)) {
            return None;
        }
        let first_block = page::first_block(path, tablespace.is_some())?;
        Some(UnreadFile { unread: self, file, first_block, earlier: self.earlier.file(path, tablespace)? })
    }
}

impl UnreadFile<'_> {
    /// The chunk of `bytes` bytes at an offset, if it is what the earlier backup has there.
    pub(super) fn chunk(&self, offset: u64, bytes: u64) -> Option<&ChunkRef> {
        let chunk = self.unread.earlier.chunk(self.earlier, offset)?;
        chunk.checksum()?;
        let block = |at: u64| u32::try_from(at / PAGE_BYTES as u64).ok()?.checked_add(self.first_block);
        let blocks = block(offset)?..block(offset + bytes)?;
        let same = u64::from(chunk.raw_length) == bytes
            && bytes.is_multiple_of(PAGE_BYTES as u64)
            && !self.unread.changed.any(self.file, blocks)
            && self.unread.earlier.moving(chunk) == Moving::Nothing;
        same.then_some(chunk)
    }
}

/// Reads the WAL from the start of the earlier backup to that of the new one.
fn changed(
    task: &Task<'_>,
    earlier: &EarlierBackup,
    place: &Place,
    start: Lsn,
    timeline: TimelineId,
) -> Result<Result<ChangedBlocks, WhyAll>, BackupError> {
    let (header, stop) = (earlier.header(), earlier.stop());
    let (_, _, control) = place.root.control_file()?;
    if control.block_size as usize != PAGE_BYTES || control.blocks_per_file != page::BLOCKS_PER_FILE {
        return Ok(Err(WhyAll::Layout));
    }
    if header.page_checksums != control.data_checksums {
        return Ok(Err(WhyAll::Checksums));
    }
    let Some(history) = history(task, place, timeline)? else { return Ok(Err(WhyAll::NoHistory(timeline))) };
    let left = history.switch_from(stop.stop_timeline);
    let in_history = history.contains(stop.stop_timeline) && header.start_timeline == stop.stop_timeline;
    if !in_history || control.timeline != timeline || left.unwrap_or(start).min(start) < stop.stop_lsn {
        return Ok(Err(WhyAll::OtherHistory));
    }
    let size = task.facts.segment_size;
    let (first, last) = (SegmentNo::of(header.start_lsn, size), SegmentNo::of(start, size));
    if (last.0 - first.0).saturating_mul(size.bytes()) > earlier.bytes() / WAL_PART {
        return Ok(Err(WhyAll::TooMuchWal));
    }
    let mut reader = ChangedBlocksReader::new(task.facts.major, header.start_lsn, start);
    let mut borders = Borders::new();
    for number in (first.0..=last.0).map(SegmentNo) {
        if task.context.interrupt.requested() {
            return Err(BackupError::Interrupted);
        }
        // A segment in which timelines meet is the younger one's, which has the other's records before the fork too.
        let timeline = history.timeline_at(Lsn(number.end(size).0 - 1));
        let name = SegmentName::new(timeline, number, size);
        if let Err(why) = read(task, place, name, number == last, &mut borders, &mut reader)? {
            return Ok(Err(why));
        }
        if reader.is_done() {
            break;
        }
    }
    Ok(reader.finish().map_err(WhyAll::from))
}

/// Shows the records of a segment to the reader.
fn read(
    task: &Task<'_>,
    place: &Place,
    name: SegmentName,
    own: bool,
    borders: &mut Borders,
    reader: &mut ChangedBlocksReader,
) -> Result<Result<(), WhyAll>, BackupError> {
    let (size, major) = (task.facts.segment_size, task.facts.major);
    if !own {
        match task.repository.visit(&WalCopy::Segment(name), size, major, borders, reader) {
            Ok(_) => return Ok(Ok(())),
            Err(RepositoryError::Storage(error)) if error.is_not_found() => {}
            Err(error) if error.is_no_answer() => return Err(error.into()),
            Err(error) => return Ok(Err(WhyAll::Damaged(name, error.to_string()))),
        }
    }
    let Some(mut file) = place.root.wal_file(WalFileName::Segment(name))? else {
        return Ok(Err(WhyAll::Missing(name)));
    };
    let mut scanning = Scanning::new(name, size, Completeness::MayEnd, Some(borders.clone()), reader);
    if let Err(error) = io::copy(&mut file, &mut scanning) {
        return Ok(Err(WhyAll::Damaged(name, error.to_string())));
    }
    let of_this_server = scanning.cluster() == Some(task.facts.system_identifier);
    match scanning.finish() {
        Some(SegmentScan { head, tail, .. }) if of_this_server => {
            borders.pass(head, tail, major);
            Ok(Ok(()))
        }
        _ => Ok(Err(WhyAll::Missing(name))),
    }
}

/// The ancestry of the server's timeline.
fn history(task: &Task<'_>, place: &Place, timeline: TimelineId) -> Result<Option<TimelineHistory>, BackupError> {
    if timeline == TimelineId::FIRST {
        return Ok(Some(TimelineHistory::first()));
    }
    if let Some(mut file) = place.root.wal_file(WalFileName::History(timeline))? {
        let mut text = Vec::new();
        if io::copy(&mut file, &mut text).is_ok() {
            return Ok(TimelineHistory::parse(timeline, &text).ok());
        }
    }
    match task.repository.history(timeline) {
        Ok(history) => Ok(history),
        Err(error) if error.is_no_answer() => Err(error.into()),
        Err(_) => Ok(None),
    }
}

/// Chunks are cut where blocks are.
const _: () = assert!(CHUNK_BYTES.is_multiple_of(PAGE_BYTES));
