//! `ActivityReader`: puts together what transactions did, from their records.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::super::bytes::u32_at;
use super::super::names::{CatalogChange, CatalogChanges, RelationKind, RelationName, RelationNames};
use super::super::record::{RM_DBASE, RM_SMGR, RM_XLOG};
use super::super::{
    Event, EventKind, HeapChange, HeapChangeKind, Lsn, PostgresMajor, RawRecord, RecordContent, RecordHeader,
    RecordVisitor, RelationFile, TransactionEnd, Xid, database, is_heap_change,
};
use super::{Activity, Emptied, RelationRows, RowTally};

/// Of `RM_SMGR`: a file is made.
const SMGR_CREATE: u8 = 0x10;

/// Reads WAL from one place on, and tells what happened.
///
/// Give [`ActivityReader::visitor`] to [`super::super::SegmentScanner::feed_to`] for each segment of a line of timelines; what it has
/// seen already, in another copy of a segment, is passed over.
#[derive(Debug)]
pub struct ActivityReader {
    major: PostgresMajor,
    /// `None`: relations are told by their files' numbers.
    names: Option<RelationNames>,
    tally: RowTally,
    known: KnownNames,
    start: Lsn,
    /// The last record that was taken in, and the last event: another copy of the segment may bring them again.
    last_record: Option<Lsn>,
    last_event: Option<Lsn>,
    made: NewFiles,
    /// Where databases became invalid that are about to be dropped.
    invalid: HashMap<u32, Lsn>,
    /// Tables of the database whose files the record at hand removes.
    lost: Vec<RelationName>,
    /// Tables that open transactions truncated.
    truncated: HashMap<Xid, Vec<(u32, u32)>>,
}

/// An [`ActivityReader`] at work: hands out what happened as it is read.
pub struct ActivityVisitor<'a, F> {
    reader: &'a mut ActivityReader,
    /// Where this copy of the WAL leaves the line.
    until: Option<Lsn>,
    each: F,
}

/// Names that were asked for before: the same few tables are changed again and again.
#[derive(Debug, Default)]
struct KnownNames {
    /// The names' own count, at which these were right.
    generation: u64,
    relations: FxHashMap<RelationFile, Option<Arc<RelationName>>>,
    databases: FxHashMap<u32, Option<Arc<str>>>,
}

impl KnownNames {
    /// The relation that has a file, as the parts of a transaction see it.
    fn relation(
        &mut self,
        names: &RelationNames,
        mut xids: impl Iterator<Item = Xid> + Clone,
        file: RelationFile,
    ) -> Option<Arc<RelationName>> {
        if xids.clone().any(|xid| names.has_own(xid)) {
            return xids.find_map(|xid| names.name_of_for(xid, file)).map(Arc::new);
        }
        self.renew(names);
        let ask = || xids.find_map(|xid| names.name_of_for(xid, file)).map(Arc::new);
        self.relations.entry(file).or_insert_with(ask).clone()
    }

    fn database(&mut self, names: &RelationNames, oid: u32) -> Option<Arc<str>> {
        self.renew(names);
        self.databases.entry(oid).or_insert_with(|| names.database_name(oid).map(Arc::from)).clone()
    }

    fn renew(&mut self, names: &RelationNames) {
        if self.generation != names.generation() {
            *self = KnownNames { generation: names.generation(), ..KnownNames::default() };
        }
    }
}

/// Files that open transactions made.
#[derive(Debug, Default)]
struct NewFiles {
    of: HashMap<Xid, Vec<RelationFile>>,
    /// Those without a page yet.
    empty: HashSet<RelationFile>,
}

impl ActivityReader {
    /// A reader that begins at `start`, where `names` (if relations are to be named) is right.
    #[must_use]
    pub fn new(major: PostgresMajor, names: Option<RelationNames>, start: Lsn) -> Self {
        ActivityReader {
            major,
            names,
            tally: RowTally::default(),
            known: KnownNames::default(),
            start,
            last_record: None,
            last_event: None,
            made: NewFiles::default(),
            invalid: HashMap::new(),
            lost: Vec::new(),
            truncated: HashMap::new(),
        }
    }

    /// The visitor of a segment's records, up to `until` if the segment is another line's from there on. What happened is given to
    /// `each`, in LSN order.
    pub fn visitor<F: FnMut(Activity)>(&mut self, until: Option<Lsn>, each: F) -> ActivityVisitor<'_, F> {
        ActivityVisitor { reader: self, until, each }
    }

    /// WAL is missing before the next record: names and open transactions are forgotten.
    pub fn gap(&mut self) {
        if let Some(names) = &mut self.names {
            names.gap();
        }
        self.tally = RowTally::default();
        self.made = NewFiles::default();
        self.truncated.clear();
    }

    /// The names as they are now.
    #[must_use]
    pub fn names(&self) -> Option<&RelationNames> {
        self.names.as_ref()
    }

    /// Rows were left out of the counts, since too many transactions were open at once.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.tally.overflowed()
    }

    fn heap(&mut self, record: &RawRecord<'_>, content: &RecordContent<'_>) {
        let Some(change) = HeapChange::read(record, content) else { return };
        if matches!(change.kind, HeapChangeKind::Inplace { .. }) && change.file.database == 0 {
            for oid in self.names.iter().flat_map(RelationNames::invalid_databases) {
                self.invalid.entry(oid).or_insert(record.lsn);
            }
        }
        self.tally.count(record.header.xid, &change);
        if !matches!(change.kind, HeapChangeKind::Delete { .. }) && !self.made.empty.is_empty() {
            self.made.empty.remove(&change.file);
        }
    }

    /// A file comes to be: its main fork, if it is one that has pages from now on.
    fn file_made(&mut self, xid: Xid, data: &[u8]) {
        let word = |at| u32_at(data, at);
        let Some((tablespace, database, relation, fork)) =
            word(0).zip(word(4)).zip(word(8)).zip(word(12)).map(|(((a, b), c), d)| (a, b, c, d))
        else {
            return;
        };
        if fork == 0 {
            let file = RelationFile { tablespace, database, relation };
            self.made.empty.insert(file);
            self.made.of.entry(xid).or_default().push(file);
        }
    }

    fn ended(&mut self, event: Event) -> Option<Activity> {
        let (EventKind::Commit(end) | EventKind::Abort(end)) = &event.kind else { return None };
        let committed = matches!(event.kind, EventKind::Commit(_));
        let parts = &end.subtransaction_xids;
        let all = || [event.xid].into_iter().chain(parts.iter().copied());
        let counted = self.tally.take(event.xid, parts);
        let (names, known) = (self.names.as_ref(), &mut self.known);
        let rows: Vec<RelationRows> = counted
            .into_iter()
            .map(|(file, counts)| {
                let relation = names.and_then(|names| known.relation(names, all(), file));
                RelationRows { file, relation, counts }
            })
            .collect();
        let mut truncated = Vec::new();
        for xid in all() {
            truncated.extend(self.truncated.remove(&xid).into_iter().flatten());
        }
        let made: Vec<RelationFile> = all().filter_map(|xid| self.made.of.remove(&xid)).flatten().collect();
        let empty: HashSet<RelationFile> = made.into_iter().filter(|file| self.made.empty.remove(file)).collect();
        let certain: Vec<RelationName> =
            truncated.into_iter().filter_map(|(database, oid)| self.names.as_ref()?.relation(database, oid)).collect();
        let database = self.database_of(end, &rows);
        let CatalogChanges { changes, removed_files } = self.catalog(&event);
        let unnamed = unnamed(end, &removed_files);
        let emptied = if committed { emptied(&changes, certain, &empty) } else { Vec::new() };
        let rows_cut = self.tally.overflowed() || end.cut;
        Some(Activity { event, database, begins: None, changes, emptied, unnamed, rows, rows_cut })
    }

    fn catalog(&mut self, event: &Event) -> CatalogChanges {
        self.names.as_mut().map(|names| names.event(event)).unwrap_or_default()
    }

    fn database_of(&mut self, end: &TransactionEnd, rows: &[RelationRows]) -> Option<Arc<str>> {
        let names = self.names.as_ref()?;
        let of_rows = || rows.iter().map(|rows| rows.file.database).find(|oid| *oid != 0);
        self.known.database(names, end.database.filter(|oid| *oid != 0).or_else(of_rows)?)
    }

    fn event(&mut self, event: Event) -> Option<Activity> {
        if event.lsn < self.start || self.last_event.is_some_and(|last| event.lsn <= last) {
            return None;
        }
        self.last_event = Some(event.lsn);
        if let Some(names) = &mut self.names {
            names.pass(event.lsn);
        }
        match event.kind {
            EventKind::Commit(_) | EventKind::Abort(_) => self.ended(event),
            EventKind::Truncate { database, ref relations } => {
                let tables = relations.iter().map(|oid| (database, *oid));
                self.truncated.entry(event.xid).or_default().extend(tables);
                None
            }
            _ => {
                let database = match event.kind {
                    EventKind::DatabaseDrop { oid } => {
                        self.names.as_ref().and_then(|names| names.database_name(oid)).map(Arc::from)
                    }
                    _ => None,
                };
                let CatalogChanges { mut changes, .. } = self.catalog(&event);
                if database.is_some() {
                    changes.extend(std::mem::take(&mut self.lost).into_iter().map(CatalogChange::RelationDropped));
                }
                let (emptied, unnamed, rows) = (Vec::new(), Vec::new(), Vec::new());
                let begins = match event.kind {
                    EventKind::DatabaseDrop { oid } => self.invalid.remove(&oid),
                    _ => None,
                };
                Some(Activity { event, database, begins, changes, emptied, unnamed, rows, rows_cut: false })
            }
        }
    }

    fn wants(&self, header: &RecordHeader) -> bool {
        is_heap_change(header.manager, header.info)
            || header.manager == RM_SMGR
            || self.names.as_ref().is_some_and(|names| names.wants(header))
    }

    fn record(&mut self, record: &RawRecord<'_>) {
        if record.lsn < self.start || self.last_record.is_some_and(|last| record.lsn <= last) {
            return;
        }
        self.last_record = Some(record.lsn);
        let content = RecordContent::of(record, self.major);
        if let Some(names) = &mut self.names {
            if record.header.manager == RM_DBASE
                && let Some(content) = &content
                && let Some(EventKind::DatabaseDrop { oid }) =
                    database::read(record.header.operation(), content.data, self.major)
            {
                self.lost = tables(names, oid);
            }
            if let Some(content) = &content {
                names.content(record, content);
            }
        }
        let Some(content) = content else { return };
        match record.header.manager {
            RM_SMGR if record.header.operation() == SMGR_CREATE => self.file_made(record.header.xid, content.data),
            RM_XLOG if !self.made.empty.is_empty() => {
                for block in content.blocks().filter(|block| block.fork == 0) {
                    self.made.empty.remove(&block.file);
                }
            }
            _ => self.heap(record, &content),
        }
    }
}

impl<F: FnMut(Activity)> RecordVisitor for ActivityVisitor<'_, F> {
    fn event(&mut self, event: Event) {
        if self.until.is_none_or(|until| event.lsn < until)
            && let Some(activity) = self.reader.event(event)
        {
            (self.each)(activity);
        }
    }

    fn wants(&self, header: &RecordHeader) -> bool {
        self.reader.wants(header)
    }

    fn record(&mut self, record: &RawRecord<'_>) {
        if self.until.is_none_or(|until| record.lsn < until) {
            self.reader.record(record);
        }
    }
}

/// The tables of a database, its catalogs left out.
fn tables(names: &RelationNames, database: u32) -> Vec<RelationName> {
    let has_rows = |name: &RelationName| {
        matches!(name.kind, RelationKind::Table | RelationKind::MaterializedView) && !name.is_of_catalog()
    };
    names.relations(database).filter(has_rows).collect()
}

/// Tables whose rows are gone: what a record says was truncated, and what has a new file without a page.
fn emptied(changes: &[CatalogChange], certain: Vec<RelationName>, empty: &HashSet<RelationFile>) -> Vec<Emptied> {
    let mut all: Vec<Emptied> = certain.into_iter().map(|relation| Emptied { relation, certain: true }).collect();
    for change in changes {
        let CatalogChange::RelationRewritten { after, .. } = change else { continue };
        let is_table = matches!(after.kind, RelationKind::Table | RelationKind::MaterializedView);
        let known = all
            .iter()
            .any(|known| (known.relation.database_oid, known.relation.oid) == (after.database_oid, after.oid));
        if is_table && !known && after.file.is_some_and(|file| empty.contains(&file)) {
            all.push(Emptied { relation: after.clone(), certain: false });
        }
    }
    all
}

/// Files that a commit removes whose name is not known.
fn unnamed(end: &TransactionEnd, named: &[(RelationFile, RelationName)]) -> Vec<RelationFile> {
    let is_named = |file: &RelationFile| named.iter().any(|(known, _)| known == file);
    end.dropped.iter().filter(|file| !is_named(file)).copied().collect()
}
