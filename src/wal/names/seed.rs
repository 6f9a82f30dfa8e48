//! The catalog as a base backup has it.
//!
//! A copy is filled from the backup's files, in any order, until [`CatalogCopy::wanted`] asks for no more; then for the
//! parts of `pg_xact` that [`CatalogCopy::wanted_xact`] asks for; then it becomes [`RelationNames`].
//!
//! The files were copied while the server went on writing, so they hold rows and ends of transactions from after the redo
//! point. What is certain: whoever was not among the ended in the copy of `pg_xact` had not ended at the redo point, since
//! the checkpoint wrote that out, so his end is still to come in the WAL. And whoever began before the oldest transaction that was running
//! when the checkpoint began, had ended by then. Between the two stand those that ended somewhere before the backup's stop point.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::super::{ControlFile, DATA_PAGE_SIZE, Lsn, PostgresMajor, RelationFile, Xid};
use super::database::{Database, GLOBAL_TABLESPACE};
use super::image::{End, UnknownEnd, is_permanent};
use super::map::RelationMap;
use super::page::{Deletion, Hint, PageTuple, Tid, page_lsn, tuples};
use super::record::prepared_transactions;
use super::row::RelationRow;
use super::settle::precedes;
use super::store::{Catalog, Fate, Open, Store};
use super::{NamesNote, RelationNames};

/// Transactions in a file of `pg_xact`: 32 pages, two bits each (`clog.c`, `slru.h`).
const TRANSACTIONS_PER_FILE: u32 = 32 * 8192 * 4;

/// What a base backup has of the catalog.
#[derive(Clone, Debug)]
pub struct CatalogCopy {
    major: PostgresMajor,
    /// The backup's redo point.
    start: Lsn,
    /// Its stop point.
    stop: Lsn,
    /// Whoever began before this one had ended before the redo point.
    oldest_active: Option<Xid>,
    shared_map: Option<RelationMap>,
    /// Map and tablespace of each database.
    maps: BTreeMap<u32, (u32, RelationMap)>,
    files: BTreeMap<RelationFile, CopiedFile>,
    xact: BTreeMap<u32, Vec<u8>>,
    prepared: Vec<Xid>,
    notes: BTreeSet<NamesNote>,
}

/// A file of a catalog, as copied.
#[derive(Clone, Debug)]
struct CopiedFile {
    catalog: Catalog,
    rows: Vec<CopiedRow>,
    /// Blocks that have not changed since the redo point, when they were copied.
    settled_blocks: HashSet<u32>,
    /// Everything there is of it has been read.
    finished: bool,
}

#[derive(Clone, Debug)]
struct CopiedRow {
    tid: Tid,
    /// Without its body.
    header: PageTuple<'static>,
    body: Vec<u8>,
}

impl CatalogCopy {
    /// Of a backup from its redo point to its stop point.
    #[must_use]
    pub fn new(major: PostgresMajor, start: Lsn, stop: Lsn) -> Self {
        CatalogCopy {
            major,
            start,
            stop,
            oldest_active: None,
            shared_map: None,
            maps: BTreeMap::new(),
            files: BTreeMap::new(),
            xact: BTreeMap::new(),
            prepared: Vec::new(),
            notes: BTreeSet::new(),
        }
    }

    /// The backup's `pg_control`. It may be of a later checkpoint than the backup's own, and then tells nothing.
    pub fn control(&mut self, control: &ControlFile) {
        if control.redo == self.start && control.oldest_active_xid.0 != 0 {
            self.oldest_active = Some(control.oldest_active_xid);
        }
    }

    /// `global/pg_filenode.map`.
    pub fn shared_map(&mut self, bytes: &[u8]) {
        self.shared_map = RelationMap::parse(bytes);
    }

    /// `pg_filenode.map` of a database, whose directory lies in this tablespace.
    pub fn database_map(&mut self, tablespace: u32, database: u32, bytes: &[u8]) {
        match RelationMap::parse(bytes) {
            Some(map) => {
                self.maps.insert(database, (tablespace, map));
            }
            None => {
                self.notes.insert(NamesNote::NotInBackup { database, what: "the map" });
            }
        }
    }

    /// A file of `pg_twophase`: a transaction that was prepared, and its subtransactions.
    pub fn prepared_transaction(&mut self, bytes: &[u8]) {
        self.prepared.extend(prepared_transactions(bytes, self.major));
    }

    /// Files whose pages are wanted, as far as is known by now. Ask again when they have been read.
    #[must_use]
    pub fn wanted(&self) -> Vec<RelationFile> {
        let files = self.known_files().into_keys();
        files.filter(|file| self.files.get(file).is_none_or(|copied| !copied.finished)).collect()
    }

    /// Files of catalogs, as maps and rows tell.
    fn known_files(&self) -> BTreeMap<RelationFile, Catalog> {
        let mut files = BTreeMap::new();
        if let Some(relation) = self.shared_map.as_ref().and_then(|map| map.file_of(Catalog::Databases.oid())) {
            files.insert(RelationFile { tablespace: GLOBAL_TABLESPACE, database: 0, relation }, Catalog::Databases);
        }
        for (database, (tablespace, map)) in &self.maps {
            let Some(relation) = map.file_of(Catalog::Relations.oid()) else { continue };
            let file = RelationFile { tablespace: *tablespace, database: *database, relation };
            files.insert(file, Catalog::Relations);
            let known = Database::new(*tablespace);
            let rows = self.files.get(&file).into_iter().flat_map(|copied| &copied.rows);
            let rows = rows.filter_map(|row| RelationRow::read(row.data(), self.major));
            let schemas = rows.filter(|row| row.oid == Catalog::Schemas.oid());
            files.extend(schemas.filter_map(|row| Some((known.file_of(*database, &row)?, Catalog::Schemas))));
        }
        files
    }

    /// Takes whole pages of a wanted file, from this block on; others are passed over. `damaged` tells blocks that are not to be believed.
    pub fn pages(&mut self, file: RelationFile, first_block: u32, bytes: &[u8], damaged: impl Fn(u32) -> bool) {
        let Some(catalog) = self.known_files().get(&file).copied() else { return };
        let copied = self.files.entry(file).or_insert_with(|| CopiedFile::new(catalog));
        let mut all = true;
        for (block, page) in (first_block..).zip(bytes.as_chunks::<DATA_PAGE_SIZE>().0) {
            all &= !damaged(block) && copied.page(block, page, self.start);
        }
        if !all {
            self.lost(file);
        }
    }

    /// A part of a wanted file cannot be read.
    pub fn lost(&mut self, file: RelationFile) {
        self.notes.insert(NamesNote::NotInBackup { database: file.database, what: "a part" });
    }

    /// There is no more of a wanted file.
    pub fn finished(&mut self, file: RelationFile) {
        let Some(catalog) = self.known_files().get(&file).copied() else { return };
        self.files.entry(file).or_insert_with(|| CopiedFile::new(catalog)).finished = true;
    }

    /// Numbers of the files of `pg_xact` that are wanted: `0` is `pg_xact/0000`.
    #[must_use]
    pub fn wanted_xact(&self) -> BTreeSet<u32> {
        let rows = self.files.values().flat_map(|copied| &copied.rows);
        let xids = rows.flat_map(|row| {
            let inserter = (row.header.insertion == Hint::None).then_some(row.header.xmin);
            let deleter = match row.header.deletion {
                Deletion::By(xid, Hint::None) => Some(xid),
                _ => None,
            };
            inserter.into_iter().chain(deleter)
        });
        xids.filter(|xid| !is_permanent(*xid)).map(|xid| xid.0 / TRANSACTIONS_PER_FILE).collect()
    }

    /// A wanted file of `pg_xact`.
    pub fn xact(&mut self, number: u32, bytes: Vec<u8>) {
        self.xact.insert(number, bytes);
    }

    /// Names at the redo point.
    #[must_use]
    pub fn into_names(self) -> RelationNames {
        let mut names = RelationNames::empty(self.major);
        names.settled_at = Some(self.stop);
        names.notes.clone_from(&self.notes);
        if self.shared_map.is_none() {
            names.notes.insert(NamesNote::NotInBackup { database: 0, what: "the map" });
        }
        for xid in &self.prepared {
            names.open.entry(*xid).or_default().prepared = true;
        }
        let files = self.known_files();
        for (file, catalog) in &files {
            let store = Store::new(*catalog, file.database, None);
            names.stores.insert(*file, store);
        }
        // pg_namespace before pg_class, whose row tells where pg_namespace is.
        for wanted in [Catalog::Schemas, Catalog::Databases, Catalog::Relations] {
            for (file, copied) in self.files.iter().filter(|(_, copied)| copied.catalog == wanted) {
                self.fill(&mut names, *file, copied);
            }
        }
        if let Some(map) = &self.shared_map {
            names.set_map(0, GLOBAL_TABLESPACE, map.clone());
        }
        for (database, (tablespace, map)) in &self.maps {
            names.set_map(*database, *tablespace, map.clone());
            // Rows may be there and not be visible before the backup's stop point.
            let has_rows = |catalog: Catalog| {
                let mut of_database = files.iter().filter(|(file, of)| **of == catalog && file.database == *database);
                of_database.any(|(file, _)| self.files.get(file).is_some_and(|copied| !copied.rows.is_empty()))
            };
            if !has_rows(Catalog::Relations) || !has_rows(Catalog::Schemas) {
                names.notes.insert(NamesNote::NotInBackup { database: *database, what: "pg_class or pg_namespace" });
            }
        }
        names
    }

    fn fill(&self, names: &mut RelationNames, file: RelationFile, copied: &CopiedFile) {
        let mut unknown = HashSet::new();
        for row in &copied.rows {
            match row.tuple().alive(|xid, hint| self.end_of(xid, hint)) {
                Ok(Some(tuple)) => {
                    for open in [tuple.inserted, tuple.deleted].into_iter().flatten() {
                        if let Some(fate) = open.fate {
                            names.fates.insert(open.xid, fate);
                        }
                    }
                    names.take_up(file, row.tid, tuple);
                }
                Ok(None) => {}
                Err(UnknownEnd) => {
                    unknown.insert(row.tid.block);
                }
            }
        }
        if !unknown.is_empty() {
            names.notes.insert(NamesNote::UnknownEnd { database: file.database });
        }
        if let Some(store) = names.stores.get_mut(&file) {
            for block in copied.settled_blocks.difference(&unknown) {
                store.set_whole(*block, true);
            }
        }
    }

    fn end_of(&self, xid: Xid, hint: Hint) -> End {
        if is_permanent(xid) {
            return End::Committed;
        }
        let ended_before = self.oldest_active.is_some_and(|oldest| precedes(xid, oldest));
        let fate = match hint {
            Hint::Committed | Hint::Frozen => Some(Fate::Committed),
            Hint::Invalid => Some(Fate::Aborted),
            Hint::None => match self.status(xid) {
                Some(1) => Some(Fate::Committed),
                Some(2) => Some(Fate::Aborted),
                Some(_) => None,
                None => return End::Unknown,
            },
        };
        match fate {
            Some(Fate::Committed) if ended_before => End::Committed,
            Some(Fate::Aborted) if ended_before => End::Aborted,
            Some(fate) => End::Open(Open::ended(xid, fate)),
            // Ended without a trace: the server crashed.
            None if ended_before => End::Aborted,
            None => End::Open(Open::in_progress(xid)),
        }
    }

    /// The two bits of a transaction in `pg_xact`: 0 in progress, 1 committed, 2 aborted, 3 committed as far as its parent does.
    fn status(&self, xid: Xid) -> Option<u8> {
        let file = self.xact.get(&(xid.0 / TRANSACTIONS_PER_FILE))?;
        let within = xid.0 % TRANSACTIONS_PER_FILE;
        // The file may end before: its last pages are written when they are full, or at the next checkpoint.
        let byte = file.get((within / 4) as usize).copied().unwrap_or(0);
        Some(byte >> (2 * (within % 4)) & 3)
    }
}

impl CopiedFile {
    fn new(catalog: Catalog) -> Self {
        CopiedFile { catalog, rows: Vec::new(), settled_blocks: HashSet::new(), finished: false }
    }

    /// Takes a page; whether it is one of a heap.
    fn page(&mut self, block: u32, page: &[u8; DATA_PAGE_SIZE], start: Lsn) -> bool {
        let Some(found) = tuples(page) else { return false };
        if page_lsn(page) < start {
            self.settled_blocks.insert(block);
        }
        for tuple in found {
            let tid = Tid { block, offset: tuple.offset };
            // A page that was being written while it was copied may have tuples where its line pointers do not expect them.
            let misplaced = tuple.untouched && tuple.successor != tid;
            if misplaced {
                self.settled_blocks.remove(&block);
                continue;
            }
            let header = PageTuple { body: &[], ..tuple };
            self.rows.push(CopiedRow { tid, header, body: tuple.body.to_vec() });
        }
        true
    }
}

impl CopiedRow {
    fn tuple(&self) -> PageTuple<'_> {
        PageTuple { body: &self.body, ..self.header }
    }

    fn data(&self) -> &[u8] {
        self.tuple().data()
    }
}
