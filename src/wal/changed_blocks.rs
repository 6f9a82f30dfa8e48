//! `ChangedBlocks`: which blocks of which relations a stretch of WAL changes, so that all others need not be read again.
//!
//! A copy of a file that was made when a checkpoint's redo point was past, with all WAL from that point on, is as good as the file.
//! So what of an earlier base backup no record between its start and that of a new one touches is as good as what lies on the disk
//! now. It need not be the same bytes: hints (`MarkBufferDirtyHint` in `bufmgr.c`) change pages without a record. PostgreSQL 17 relies on the
//! same for its incremental backups (`walsummarizer.c`). Two more pages change so, and may be stale as well: the first of an SP-GiST index,
//! which has a cache (`SpGistUpdateMetaPage`), and pages of BRIN that are being emptied (`brin_evacuate_page`).
//!
//! Only the main fork is told of. The free space map is not in the WAL, and the bits of the visibility map are cleared by records that
//! do not name its block (`visibilitymap_clear` under `heap_xlog_insert` and others): both are small, and to be read whole.
//!
//! It is told only if every record of the stretch was seen, each naming the one before it, and each understood: a reader that cannot tell
//! says why ([`NotProved`]).

use std::collections::HashSet;
use std::ops::Range;

use roaring::RoaringBitmap;
use rustc_hash::FxHashMap;

use super::bytes::u32_at;
use super::record::{RM_DBASE, RM_FIRST_CUSTOM, RM_SMGR, RM_XACT, SPECIAL_UPDATE, read_event};
use super::{
    Event, EventKind, Lsn, PostgresMajor, RawRecord, RecordContent, RecordHeader, RecordVisitor, RelationFile, WalLevel,
};

/// Of `RM_SMGR` (`storage_xlog.h`).
const SMGR_CREATE: u8 = 0x10;
const SMGR_TRUNCATE: u8 = 0x20;

/// Number of the main fork.
const MAIN_FORK: u8 = 0;

/// What changed, of all relations.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ChangedBlocks {
    relations: FxHashMap<RelationFile, Changed>,
    /// Databases that were made or removed, in whatever tablespace.
    databases: HashSet<u32>,
}

/// What changed of one relation's main fork.
#[derive(Clone, PartialEq, Debug)]
enum Changed {
    /// These blocks.
    Blocks(RoaringBitmap),
    /// It was made, removed or truncated.
    All,
}

/// Why it cannot be told what changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotProved {
    /// No record begins where it should.
    #[error("no WAL record begins at {0}")]
    NoRecord(Lsn),
    /// A record does not follow the one before it.
    #[error("the WAL record at {0} does not follow the one before it")]
    NotConnected(Lsn),
    /// A record that cannot be taken apart.
    #[error("the WAL record at {0} cannot be read")]
    Unknown(Lsn),
    /// A record of an extension's own resource manager: only the extension knows what it changes.
    #[error("the WAL record at {0} is that of an extension (resource manager {1})")]
    Extension(Lsn, u8),
    /// The end of the earlier backup is not where it was: this is the WAL of another server, or of one that was set back.
    #[error("the WAL does not have the end of that backup at {0}")]
    NoBackup(Lsn),
    /// `wal_level` was `minimal` for a while: changes are missing from the WAL.
    #[error("wal_level was minimal after {0}")]
    Minimal(Lsn),
    /// The WAL ends before.
    #[error("the WAL ends at {0}")]
    Ends(Lsn),
}

impl ChangedBlocks {
    /// Whether any of these blocks of a relation's main fork may have changed.
    #[must_use]
    pub fn any(&self, file: RelationFile, blocks: Range<u32>) -> bool {
        if self.databases.contains(&file.database) {
            return true;
        }
        match self.relations.get(&file) {
            None => false,
            Some(Changed::All) => true,
            Some(Changed::Blocks(changed)) => changed.range_cardinality(blocks) > 0,
        }
    }

    fn block(&mut self, file: RelationFile, block: u32) {
        let changed = self.relations.entry(file).or_insert_with(|| Changed::Blocks(RoaringBitmap::new()));
        if let Changed::Blocks(changed) = changed {
            changed.insert(block);
        }
    }

    fn all(&mut self, file: RelationFile) {
        self.relations.insert(file, Changed::All);
    }

    fn event(&mut self, event: &Event) -> Result<(), NotProved> {
        match &event.kind {
            EventKind::Commit(end) | EventKind::Abort(end) => {
                if end.cut {
                    return Err(NotProved::Unknown(event.lsn));
                }
                end.dropped.iter().for_each(|file| self.all(*file));
            }
            EventKind::DatabaseCreate { oid, .. } | EventKind::DatabaseDrop { oid } => {
                self.databases.insert(*oid);
            }
            EventKind::ParameterChange(settings) if settings.wal_level == WalLevel::Minimal => {
                return Err(NotProved::Minimal(event.lsn));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Reads a stretch of WAL.
///
/// Give it to [`super::SegmentScanner::feed_to`] for each segment of a line of timelines, with what straddles the borders.
#[derive(Debug)]
pub struct ChangedBlocksReader {
    major: PostgresMajor,
    start: Lsn,
    end: Lsn,
    /// Where the last record begins, and where it ends.
    last: Option<(Lsn, Lsn)>,
    /// Where the earlier backup ended, until its end was seen.
    backup_end: Option<Lsn>,
    /// The record that begins at the end was seen.
    done: bool,
    failed: Option<NotProved>,
    changed: ChangedBlocks,
}

impl ChangedBlocksReader {
    /// For the records from the one that begins at `start` on, where a base backup of a primary began that ended at `backup_end`, up to
    /// the one that begins at `end`, which is not counted any more but must be seen.
    ///
    /// LSNs alone do not tell that the WAL is that of the backup: a server that was set back writes other records to the same places. The
    /// record that ended the backup names its start, and ends where the backup did.
    #[must_use]
    pub fn new(major: PostgresMajor, start: Lsn, backup_end: Lsn, end: Lsn) -> ChangedBlocksReader {
        let (changed, backup_end) = (ChangedBlocks::default(), Some(backup_end));
        ChangedBlocksReader { major, start, end, last: None, backup_end, done: false, failed: None, changed }
    }

    /// Nothing that comes can change the outcome any more.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.done || self.failed.is_some()
    }

    /// What changed.
    ///
    /// # Errors
    /// [`NotProved`]
    pub fn finish(self) -> Result<ChangedBlocks, NotProved> {
        match (self.failed, self.done, self.backup_end) {
            (Some(why), ..) => Err(why),
            (None, false, _) => Err(NotProved::Ends(self.last.map_or(self.start, |(_, end)| end))),
            (None, true, Some(end)) => Err(NotProved::NoBackup(end)),
            (None, true, None) => Ok(self.changed),
        }
    }

    fn take(&mut self, record: &RawRecord<'_>) -> Result<(), NotProved> {
        match self.last {
            None if record.lsn != self.start => return Err(NotProved::NoRecord(self.start)),
            Some((last, _)) if last != record.header.previous => return Err(NotProved::NotConnected(record.lsn)),
            _ => self.last = Some((record.lsn, record.end_lsn)),
        }
        if record.lsn >= self.end {
            self.done = true;
            return if record.lsn == self.end { Ok(()) } else { Err(NotProved::NoRecord(self.end)) };
        }
        let header = &record.header;
        if header.manager >= RM_FIRST_CUSTOM {
            return Err(NotProved::Extension(record.lsn, header.manager));
        }
        if header.info & SPECIAL_UPDATE != 0 && !matches!(header.manager, RM_SMGR | RM_DBASE | RM_XACT) {
            return Err(NotProved::Unknown(record.lsn));
        }
        let content = RecordContent::of(record, self.major).ok_or(NotProved::Unknown(record.lsn))?;
        for (file, fork, block) in content.block_numbers() {
            if fork == MAIN_FORK {
                self.changed.block(file, block);
            }
        }
        if header.manager == RM_SMGR {
            let file = match header.operation() {
                SMGR_CREATE => relation_file(content.data, 0),
                SMGR_TRUNCATE => relation_file(content.data, 4),
                _ => None,
            };
            self.changed.all(file.ok_or(NotProved::Unknown(record.lsn))?);
        }
        if header.is_of_interest() {
            let read = read_event(header, record.body, self.major).ok_or(NotProved::Unknown(record.lsn))?;
            let (xid, kind) = read;
            let ends = kind == EventKind::BackupEnd { start: self.start };
            self.backup_end.take_if(|end| ends && *end == record.end_lsn);
            self.changed.event(&Event { lsn: record.lsn, end_lsn: record.end_lsn, xid, kind })?;
        }
        Ok(())
    }
}

impl RecordVisitor for ChangedBlocksReader {
    fn event(&mut self, _event: Event) {}

    fn wants(&self, _header: &RecordHeader) -> bool {
        !self.is_done()
    }

    fn record(&mut self, record: &RawRecord<'_>) {
        if record.lsn < self.start || self.is_done() {
            return;
        }
        if let Err(why) = self.take(record) {
            self.failed = Some(why);
        }
    }
}

/// `RelFileLocator`, and before 16 `RelFileNode`, which is the same.
fn relation_file(data: &[u8], at: usize) -> Option<RelationFile> {
    let word = |number: usize| u32_at(data, at + number * 4);
    Some(RelationFile { tablespace: word(0)?, database: word(1)?, relation: word(2)? })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{MAJORS, segments};
    use super::super::{Borders, Completeness, SegmentScanner};
    use super::*;

    /// A record of its own.
    #[derive(Clone)]
    struct Kept {
        lsn: Lsn,
        end_lsn: Lsn,
        header: RecordHeader,
        body: Vec<u8>,
        whole: bool,
    }

    impl Kept {
        fn raw(&self) -> RawRecord<'_> {
            let Kept { lsn, end_lsn, header, body, whole } = self;
            RawRecord { lsn: *lsn, end_lsn: *end_lsn, header: *header, body, whole: *whole }
        }
    }

    #[derive(Default)]
    struct Keeping(Vec<Kept>);

    impl RecordVisitor for Keeping {
        fn event(&mut self, _event: Event) {}

        fn wants(&self, _header: &RecordHeader) -> bool {
            true
        }

        fn record(&mut self, record: &RawRecord<'_>) {
            let RawRecord { lsn, end_lsn, header, body, whole } = *record;
            self.0.push(Kept { lsn, end_lsn, header, body: body.to_vec(), whole });
        }
    }

    /// The records of the longest row of neighbouring segments, those over borders too.
    fn records(major: u16) -> Vec<Kept> {
        let (mut all, mut row) = (Vec::new(), Keeping::default());
        let (mut borders, mut next) = (Borders::new(), None);
        for (header, raw) in segments(major) {
            if next != Some(header.start) {
                all.push(std::mem::take(&mut row.0));
                borders = Borders::new();
            }
            let mut scanner = SegmentScanner::new(&header, Completeness::MayEnd).after(borders.clone());
            scanner.feed_to(&raw, &mut row);
            let scan = scanner.finish();
            borders.pass(scan.head, scan.tail, header.major);
            next = Some(header.end());
        }
        all.push(row.0);
        all.into_iter().max_by_key(Vec::len).expect("a row")
    }

    fn read(records: &[Kept], major: u16, start: Lsn, end: Lsn) -> Result<ChangedBlocks, NotProved> {
        let mut reader = ChangedBlocksReader::new(PostgresMajor(major), start, Lsn(7), end);
        // No backup was taken here.
        assert_eq!(reader.backup_end.take(), Some(Lsn(7)));
        for record in records {
            if reader.wants(&record.header) {
                reader.record(&record.raw());
            }
        }
        reader.finish()
    }

    /// Every block that a record between the two places names is changed, on every major; what none names is not.
    #[test]
    fn exactly_what_records_name() {
        for major in MAJORS {
            let records = records(major);
            let (from, to) = (records.len() / 5, records.len() - 2);
            let changed = read(&records, major, records[from].lsn, records[to].lsn).expect("a whole stretch");
            let blocks = |records: &[Kept]| -> HashSet<(RelationFile, u32)> {
                let mut found = HashSet::new();
                for record in records {
                    let raw = record.raw();
                    let content = RecordContent::of(&raw, PostgresMajor(major)).expect("whole");
                    found.extend(
                        content.blocks().filter(|block| block.fork == 0).map(|block| (block.file, block.block)),
                    );
                }
                found
            };
            let named = blocks(&records[from..to]);
            assert!(named.len() > 30, "{major}: {}", named.len());
            for (file, block) in &named {
                assert!(changed.any(*file, *block..*block + 1), "{major}: {file:?} {block}");
            }
            let others: Vec<_> = blocks(&records[..from]).into_iter().filter(|block| !named.contains(block)).collect();
            let unchanged = others.iter().filter(|(file, block)| !changed.any(*file, *block..*block + 1)).count();
            assert!(unchanged > 0 && unchanged * 2 > others.len(), "{major}: {unchanged} of {}", others.len());
        }
    }

    /// A stretch with a record missing, or with another beginning or end than records have, tells nothing.
    #[test]
    fn gaps_prove_nothing() {
        for major in MAJORS {
            let records = records(major);
            let (start, end) = (records[3].lsn, records[200].lsn);
            for missing in [4, 77, 199, 200] {
                let mut less = records.clone();
                less.remove(missing);
                let after = less[missing].lsn;
                assert_eq!(read(&less, major, start, end), Err(NotProved::NotConnected(after)), "{major}: {missing}");
            }
            let beside = Lsn(start.0 + 8);
            assert_eq!(read(&records, major, beside, end), Err(NotProved::NoRecord(beside)));
            let beside = Lsn(end.0 - 8);
            assert_eq!(read(&records, major, start, beside), Err(NotProved::NoRecord(beside)));
            let short = read(&records[..200], major, start, end);
            assert_eq!(short, Err(NotProved::Ends(records[199].end_lsn)));
            let mut foreign = records.clone();
            foreign[50].header.manager = RM_FIRST_CUSTOM + 3;
            let expected = NotProved::Extension(foreign[50].lsn, RM_FIRST_CUSTOM + 3);
            assert_eq!(read(&foreign, major, start, end), Err(expected));
            let mut cut = records.clone();
            cut[60].body.truncate(1);
            assert_eq!(read(&cut, major, start, end), Err(NotProved::Unknown(cut[60].lsn)));
        }
    }

    /// Relations that are made, cut or removed, and databases, are changed as a whole; without WAL for everything nothing is proved.
    #[test]
    fn whole_relations() {
        let file = RelationFile { tablespace: 1663, database: 5, relation: 16_400 };
        let other = RelationFile { relation: 7, ..file };
        let mut changed = ChangedBlocks::default();
        changed.block(file, 5);
        assert!(changed.any(file, 0..6) && !changed.any(file, 0..5) && !changed.any(file, 6..9));
        changed.all(file);
        changed.block(file, 1);
        assert!(changed.any(file, 100..101) && !changed.any(other, 0..u32::MAX));
        let event = |kind| Event { lsn: Lsn(8), end_lsn: Lsn(16), xid: super::super::Xid(0), kind };
        let dropped = EventKind::DatabaseDrop { oid: 5 };
        assert_eq!(changed.event(&event(dropped)), Ok(()));
        assert!(changed.any(other, 0..1) && !changed.any(RelationFile { database: 6, ..other }, 0..1));
        let data: Vec<u8> = [9_u32, 1663, 5, 7, 1].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(relation_file(&data, 4), Some(other));
        assert_eq!(relation_file(&data[..15], 4), None);
    }

    /// The end of the earlier backup has to be there: in the WAL of a server that was set back other records stand at the same places.
    #[test]
    fn the_backup_has_to_be_there() {
        for major in MAJORS {
            let records = records(major);
            let ends = records.iter().filter_map(|record| {
                let (_, kind) = read_event(&record.header, &record.body, PostgresMajor(major))?;
                let EventKind::BackupEnd { start } = kind else { return None };
                records.iter().any(|first| first.lsn == start).then_some((start, record.end_lsn))
            });
            let last = records[records.len() - 1].lsn;
            for (start, end) in ends {
                for (said, proved) in [(end, true), (Lsn(end.0 + 8), false)] {
                    let mut reader = ChangedBlocksReader::new(PostgresMajor(major), start, said, last);
                    records.iter().for_each(|record| reader.record(&record.raw()));
                    assert_eq!(reader.finish().is_ok(), proved, "{major}");
                }
            }
            let missing = ChangedBlocksReader::new(PostgresMajor(major), records[3].lsn, Lsn(7), records[9].lsn);
            let mut reader = missing;
            records.iter().for_each(|record| reader.record(&record.raw()));
            assert_eq!(reader.finish(), Err(NotProved::NoBackup(Lsn(7))), "{major}");
        }
    }
}
