//! What is passed over unread: the parts of files that have not changed since the earlier backup, by the WAL between the two.
//!
//! All records from the earlier backup's start to the new one's are looked at, each proved and following the one before it, the end of
//! the earlier backup among them ([`crate::wal::ChangedBlocks`] says why that is enough). Segments come from the repository; those
//! that are not archived yet, and always the one in which the backup begins, from `pg_wal`: so the chain of records ends in this
//! server's own WAL, and not in that of a copy that went another way.
//!
//! Everything that the WAL does not prove unchanged is read: where a record is missing, damaged or unknown, all of it. Only main forks
//! of relations are ever passed over, and of those only what the earlier backup has at the same place in the same length. What is
//! passed over is not looked at for bad checksums either.

use std::collections::BTreeSet;
use std::io;

use super::super::{BackupError, Task};
use super::place::Place;
use crate::chunk::relation_file::Fork;
use crate::chunk::{CHUNK_BYTES, ChunkRef, EntryPath, PAGE_BYTES, page};
use crate::manifest::place::{FileKind, FilePlace};
use crate::pgdata::PgDataError;
use crate::recovery::WalCopy;
use crate::repository::earlier::{EarlierBackup, EarlierFile, Moving};
use crate::repository::{RepositoryError, Scanning};
use crate::wal::{
    BackupSource, Borders, ChangedBlocks, ChangedBlocksReader, Completeness, Lsn, NotProved, RelationFile, SegmentName,
    SegmentNo, SegmentScan, TimelineId, WalFileName,
};

/// WAL is read only if it takes no more than this part of the data in the repository: one in so many. LZ4 makes it two to four times
/// smaller, and reading and proving it takes about as long as reading and hashing as much data.
const WAL_PART: u64 = 4;

/// Why all files are read.
#[derive(Debug, thiserror::Error)]
enum WhyAll {
    #[error(transparent)]
    NotProved(#[from] NotProved),
    #[error("WAL segment {0} is neither in the repository nor in pg_wal")]
    Missing(SegmentName),
    #[error("WAL segment {0} cannot be read: {1}")]
    Damaged(SegmentName, String),
    #[error("the file in pg_wal is not WAL segment {0} of this server")]
    Foreign(SegmentName),
    #[error(transparent)]
    NoAccess(PgDataError),
    #[error("that one ended at {0} on timeline {1}, which is not in the server's past")]
    OtherPast(Lsn, TimelineId),
    #[error("the server's last checkpoint was on timeline {0}")]
    OtherTimeline(TimelineId),
    #[error("that one ended at {0}, after this one began")]
    Overlapping(Lsn),
    #[error("that one was taken of a standby, whose WAL has no end of a backup")]
    Standby,
    #[error("that one has damaged pages")]
    BadPages,
    #[error("that one was taken by an early version, which kept no checksums of parts of files")]
    NoChecksums,
    #[error("page checksums were switched on or off")]
    Checksums,
    #[error("the cluster has blocks or relation files of another size than PostgreSQL's default")]
    Layout,
    #[error("there is so much of it that reading the data is quicker")]
    TooMuchWal,
}

/// What has not changed.
pub(super) struct PassedOver<'a> {
    earlier: &'a EarlierBackup,
    changed: ChangedBlocks,
}

/// A file, parts of which may be unchanged.
pub(super) struct PartlyUnread<'a> {
    all: &'a PassedOver<'a>,
    file: RelationFile,
    first_block: u32,
    earlier: &'a EarlierFile,
}

impl<'a> PassedOver<'a> {
    /// Finds out what has not changed before `start`, where the backup begins; `None` if everything is to be read, which is said.
    /// `go_on` is asked before each segment.
    pub(super) fn find(
        task: &'a Task<'_>,
        place: &Place,
        start: Lsn,
        timeline: TimelineId,
        go_on: &mut dyn FnMut() -> Result<(), BackupError>,
    ) -> Result<Option<Self>, BackupError> {
        let Some(earlier) = task.earlier.as_ref().filter(|_| !task.args.full_read) else { return Ok(None) };
        match changed(task, earlier, place, start, timeline, go_on)? {
            Ok(changed) => Ok(Some(PassedOver { earlier, changed })),
            Err(why) => {
                eprintln!(
                    "pitr: NOTE:  all files are read, since the WAL is no help in telling what has changed since base backup {} \
                     ({why}); the new backup is none the worse for it",
                    earlier.id()
                );
                Ok(None)
            }
        }
    }

    /// A file, if parts of it may be unchanged.
    pub(super) fn file(&'a self, path: &EntryPath, tablespace: Option<u32>) -> Option<PartlyUnread<'a>> {
        let FileKind::Relation { file, fork: Fork::Main, segment } = FilePlace::of(path, tablespace).kind else {
            return None;
        };
        let first_block = segment.checked_mul(page::BLOCKS_PER_FILE)?;
        Some(PartlyUnread { all: self, file, first_block, earlier: self.earlier.file(path, tablespace)? })
    }
}

impl PartlyUnread<'_> {
    /// The chunk of `bytes` bytes at an offset, if it is what the earlier backup has there.
    pub(super) fn chunk(&self, offset: u64, bytes: u64) -> Option<&ChunkRef> {
        let chunk = self.all.earlier.chunk(self.earlier, offset)?;
        chunk.checksum()?;
        let block = |at: u64| u32::try_from(at / PAGE_BYTES as u64).ok()?.checked_add(self.first_block);
        let blocks = block(offset)?..block(offset + bytes)?;
        let same = u64::from(chunk.raw_length) == bytes
            && bytes.is_multiple_of(PAGE_BYTES as u64)
            && !self.all.changed.any(self.file, blocks)
            && self.all.earlier.moving(chunk) == Moving::Nothing;
        same.then_some(chunk)
    }
}

/// What can be said before any WAL is read.
fn check(
    earlier: &EarlierBackup,
    task: &Task<'_>,
    place: &Place,
    start: Lsn,
    timeline: TimelineId,
) -> Result<(), WhyAll> {
    let (header, stop) = (earlier.header(), earlier.stop());
    let (_, _, control) = place.root.control_file().map_err(WhyAll::NoAccess)?;
    if control.block_size as usize != PAGE_BYTES || control.blocks_per_file != page::BLOCKS_PER_FILE {
        return Err(WhyAll::Layout);
    }
    if header.page_checksums != control.data_checksums {
        return Err(WhyAll::Checksums);
    }
    if control.timeline != timeline {
        return Err(WhyAll::OtherTimeline(control.timeline));
    }
    if header.start_timeline != stop.stop_timeline || !task.path.holds(stop.stop_timeline, stop.stop_lsn) {
        return Err(WhyAll::OtherPast(stop.stop_lsn, stop.stop_timeline));
    }
    if stop.stop_lsn > start {
        return Err(WhyAll::Overlapping(stop.stop_lsn));
    }
    if stop.source == BackupSource::Standby {
        return Err(WhyAll::Standby);
    }
    // They may have been read wrongly, and are to be read until they are whole.
    if !stop.bad_pages.is_empty() {
        return Err(WhyAll::BadPages);
    }
    if earlier.has_checksums() { Ok(()) } else { Err(WhyAll::NoChecksums) }
}

/// Reads the WAL from the start of the earlier backup to that of the new one.
fn changed(
    task: &Task<'_>,
    earlier: &EarlierBackup,
    place: &Place,
    start: Lsn,
    timeline: TimelineId,
    go_on: &mut dyn FnMut() -> Result<(), BackupError>,
) -> Result<Result<ChangedBlocks, WhyAll>, BackupError> {
    if let Err(why) = check(earlier, task, place, start, timeline) {
        return Ok(Err(why));
    }
    let size = task.facts.segment_size;
    let (from, end) = (earlier.header().start_lsn, earlier.stop().stop_lsn);
    let last = SegmentNo::of(start, size);
    let numbers = (SegmentNo::of(from, size).0..=last.0).map(SegmentNo);
    // A segment in which timelines meet is the younger one's, which has the other's records before the fork too.
    let name = |number: SegmentNo| SegmentName::new(task.path.timeline_at(Lsn(number.end(size).0 - 1)), number, size);
    let names: BTreeSet<SegmentName> = numbers.clone().map(name).collect();
    if task.repository.stored_wal_bytes(&names)? > earlier.bytes() / WAL_PART {
        return Ok(Err(WhyAll::TooMuchWal));
    }
    let mut reader = ChangedBlocksReader::new(task.facts.major, from, end, start);
    let mut borders = Borders::new();
    for number in numbers {
        go_on()?;
        if let Err(why) = read(task, place, name(number), number == last, &mut borders, &mut reader)? {
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
    let mut file = match place.root.wal_file(WalFileName::Segment(name)) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(Err(WhyAll::Missing(name))),
        Err(error) => return Ok(Err(WhyAll::NoAccess(error))),
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
        _ => Ok(Err(WhyAll::Foreign(name))),
    }
}

/// Chunks are cut where blocks are.
const _: () = assert!(CHUNK_BYTES.is_multiple_of(PAGE_BYTES));
