//! Names instead of relation numbers: the catalog of every database, kept right by reading its own changes in the WAL.
//!
//! Layer 1 (domain, pure). The WAL speaks of files by number. Which name a number has, and since when, stands in `pg_class`,
//! `pg_namespace` and `pg_database`, whose changes are in the WAL like those of any table. [`RelationNames`] follows them
//! record by record: it begins with the copy of the catalog that every base backup holds ([`CatalogCopy`]), whose redo point
//! is as good a place to begin for this as for a recovery, and for the same reason: the first change of each page after it
//! carries the whole page. No connection to any database and no right in it is needed, and old backups serve as well as new
//! ones.
//!
//! | file | what it does |
//! |---|---|
//! | `map`, `page`, `row` | read `pg_filenode.map`, heap pages, rows |
//! | `store` | the versions of rows that are there, or may come to be |
//! | `database` | which row is whose |
//! | `seed` | begins with a base backup's copy |
//! | `record`, `image` | take in records and page images |
//! | `files` | files of catalogs that come, move and go: VACUUM FULL, CREATE and DROP DATABASE |
//! | `index_owner` | which table an index belongs to |
//! | `settle` | ends of transactions: what they change |
//!
//! # Never a wrong name
//! A name is given if the row that tells it is known to be there, committed, now. A version of a row is followed by its place
//! (block and line pointer) from the record that writes it to the record that deletes it. Where something is missing (WAL, a
//! record that was not kept whole, a transaction whose end cannot be known) the rows that it may have changed are forgotten:
//! their relations have no name until the WAL tells it again, and [`RelationNames::notes`] says why.
//!
//! The copy in a backup was made while the server was writing: it may hold what happened after the redo point. Until the
//! backup's stop point is reached, a row that was written or deleted by a transaction that may have ended after the redo point has no name, unless
//! that end is passed. Memory is bounded by the size of the catalogs.

mod change;
mod database;
mod files;
mod heap;
mod image;
mod index_owner;
mod map;
mod page;
mod record;
mod row;
mod seed;
mod settle;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};

use rustc_hash::FxHashMap;

use super::{Lsn, PostgresMajor, RelationFile, Xid};
pub use change::{CatalogChange, CatalogChanges, DatabaseName, NamesNote, RelationName, SchemaName};
use database::{Database, GLOBAL_TABLESPACE};
pub use index_owner::{PG_INDEX, index_owners};
pub use map::RelationMap;
use page::Tid;
pub use row::RelationKind;
use row::RelationRow;
pub use seed::CatalogCopy;
use store::{Catalog, Fate, Store, Tuple};

/// Oids of schemas that are the same in every database, and cannot be renamed (`pg_namespace.dat`).
const FIXED_SCHEMAS: [(u32, &str); 2] = [(11, "pg_catalog"), (99, "pg_toast")];

/// Names of relations, schemas and databases at one place of the WAL.
///
/// Feed it each wanted record ([`RelationNames::wants`], [`RelationNames::record`]) and each event
/// ([`RelationNames::event`]) in LSN order, from the backup's start LSN on, along one line of timelines. If WAL is missing, say so ([`RelationNames::gap`]).
#[derive(Clone, Debug)]
pub struct RelationNames {
    major: PostgresMajor,
    databases: HashMap<u32, Database>,
    /// The map of shared catalogs.
    shared_map: Option<RelationMap>,
    /// The file of `pg_database`.
    databases_file: Option<RelationFile>,
    /// Visible rows of `pg_database`, by oid.
    database_rows: HashMap<u32, Tid>,
    /// Files of catalogs, and those that may become one.
    stores: FxHashMap<RelationFile, Store>,
    /// Transactions that are not known to have ended.
    open: FxHashMap<Xid, OpenTransaction>,
    /// How transactions ended, of which it is not known whether their end was passed.
    fates: FxHashMap<Xid, Fate>,
    /// Where the end of all those is passed: the stop point of the backup.
    settled_at: Option<Lsn>,
    notes: BTreeSet<NamesNote>,
    /// Counts whatever may change a name.
    generation: u64,
}

/// What an open transaction did.
#[derive(Clone, Debug, Default)]
struct OpenTransaction {
    /// Versions of rows that it inserted or deleted.
    touched: BTreeSet<(RelationFile, Tid)>,
    /// It is prepared: only COMMIT or ROLLBACK PREPARED ends it, no crash.
    prepared: bool,
    /// The file that it made last.
    last_file: Option<RelationFile>,
}

impl RelationNames {
    /// Without a base backup: only what the WAL itself tells from here on is known.
    #[must_use]
    pub fn new(major: PostgresMajor) -> Self {
        RelationNames { notes: BTreeSet::from([NamesNote::NoBackup]), ..RelationNames::empty(major) }
    }

    fn empty(major: PostgresMajor) -> Self {
        RelationNames {
            major,
            databases: HashMap::new(),
            shared_map: None,
            databases_file: None,
            database_rows: HashMap::new(),
            stores: FxHashMap::default(),
            open: FxHashMap::default(),
            fates: FxHashMap::default(),
            generation: 0,
            settled_at: None,
            notes: BTreeSet::new(),
        }
    }

    /// WAL is missing before the next record: forgets everything.
    pub fn gap(&mut self) {
        let mut notes = std::mem::take(&mut self.notes);
        notes.insert(NamesNote::Gap);
        *self = RelationNames { notes, generation: self.generation + 1, ..RelationNames::empty(self.major) };
    }

    /// A number that is another one as soon as any name may be another one, for who keeps names that he asked for.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The transaction wrote to the catalog, and has not ended: it sees names of its own.
    #[must_use]
    pub fn has_own(&self, xid: Xid) -> bool {
        self.open.get(&xid).is_some_and(|open| !open.touched.is_empty())
    }

    /// Why some names may be missing.
    #[must_use]
    pub fn notes(&self) -> &BTreeSet<NamesNote> {
        &self.notes
    }

    /// The relation that has a file, in the committed state. `None`: shown as a number.
    #[must_use]
    pub fn name_of(&self, file: RelationFile) -> Option<RelationName> {
        if file.database != 0 {
            let database = self.databases.get(&file.database)?;
            return self.named(file.database, &self.relation_row(file.database, database.oid_of(file)?)?, file);
        }
        // Every database has a row for what is shared.
        let oid = database::mapped_oid(self.shared_map.as_ref(), file.relation)?;
        let (database, row) = self.databases.keys().find_map(|oid_of_database| {
            let row = self.relation_row(*oid_of_database, oid)?;
            (row.tablespace == GLOBAL_TABLESPACE).then_some((*oid_of_database, row))
        })?;
        let name = self.named(database, &row, file)?;
        Some(RelationName { database_oid: 0, database: None, ..name })
    }

    /// The relation that has a file, as the transaction `xid` sees it: also one that it made itself. A file that nobody knows yet is its
    /// maker's own, so subtransactions need not be told apart.
    #[must_use]
    pub fn name_of_for(&self, xid: Xid, file: RelationFile) -> Option<RelationName> {
        let own = self.open.get(&xid).and_then(|open| self.uncommitted(open, file));
        own.or_else(|| self.name_of(file)).or_else(|| self.open.values().find_map(|open| self.uncommitted(open, file)))
    }

    /// The name of a relation by its oid, in the committed state.
    #[must_use]
    pub fn relation(&self, database: u32, oid: u32) -> Option<RelationName> {
        self.name_of_row(database, &self.relation_row(database, oid)?)
    }

    /// The table whose long values a TOAST table holds, by their oids, in the committed state.
    #[must_use]
    pub fn toast_owner(&self, database: u32, toast: u32) -> Option<u32> {
        self.databases.get(&database)?.toast_owner(toast)
    }

    /// A database's name, in the committed state.
    #[must_use]
    pub fn database_name(&self, oid: u32) -> Option<String> {
        let tid = self.database_rows.get(&oid)?;
        row::name(self.stores.get(&self.databases_file?)?.get(*tid)?.data())
    }

    /// Databases that DROP DATABASE marked as invalid (`DATCONNLIMIT_INVALID_DB`): nobody can connect any more, whatever becomes
    /// of the transaction.
    pub fn invalid_databases(&self) -> impl Iterator<Item = u32> {
        let store = self.databases_file.and_then(|file| self.stores.get(&file));
        let rows = self.database_rows.iter().filter_map(move |(oid, tid)| Some((*oid, store?.get(*tid)?)));
        rows.filter(|(_, tuple)| row::is_invalid_database(tuple.data(), self.major)).map(|(oid, _)| oid)
    }

    /// A schema's name, in the committed state.
    #[must_use]
    pub fn schema_name(&self, database: u32, oid: u32) -> Option<String> {
        if let Some((_, name)) = FIXED_SCHEMAS.iter().find(|(fixed, _)| *fixed == oid) {
            return Some((*name).to_owned());
        }
        let database = self.databases.get(&database)?;
        row::name(self.stores.get(&database.schemas_file?)?.get(*database.schemas.get(&oid)?)?.data())
    }

    /// All relations of a database that have a name and a file of their own, in the committed state, in no order.
    pub fn relations(&self, database: u32) -> impl Iterator<Item = RelationName> {
        let oids = self.databases.get(&database).map(|database| database.relations.keys()).into_iter().flatten();
        oids.filter_map(move |oid| self.relation(database, *oid))
    }

    /// Oids of the databases of which anything is known.
    pub fn databases(&self) -> impl Iterator<Item = u32> {
        self.databases.keys().copied()
    }

    /// The visible row of a relation.
    fn relation_row(&self, database: u32, oid: u32) -> Option<RelationRow> {
        let known = self.databases.get(&database)?;
        let tuple = self.stores.get(&known.relations_file?)?.get(*known.relations.get(&oid)?)?;
        RelationRow::read(tuple.data(), self.major)
    }

    /// A row with its name, if it is the one that has this file.
    fn named(&self, database: u32, row: &RelationRow, file: RelationFile) -> Option<RelationName> {
        let told = self.databases.get(&database)?.file_of(database, row);
        let mapped = told.is_none();
        let name = self.name_of_row(database, row)?;
        (mapped || told == Some(file)).then_some(RelationName { file: Some(file), ..name })
    }

    fn name_of_row(&self, database: u32, row: &RelationRow) -> Option<RelationName> {
        let known = self.databases.get(&database)?;
        let schema = self.schema_name(database, row.schema)?;
        let owner = known.toast_owner(row.oid).and_then(|owner| {
            let owner = self.relation_row(database, owner)?;
            Some((self.schema_name(database, owner.schema)?, owner.name))
        });
        Some(RelationName {
            database_oid: database,
            database: self.database_name(database),
            schema,
            name: row.name.clone(),
            oid: row.oid,
            kind: row.kind,
            temporary: row.temporary,
            file: known.file_of(database, row),
            toast_of: owner,
        })
    }

    /// The relation that has a file according to rows that an open transaction wrote.
    fn uncommitted(&self, open: &OpenTransaction, file: RelationFile) -> Option<RelationName> {
        let known = self.databases.get(&file.database)?;
        let rows = self.written_rows(open, known.relations_file?);
        let row = rows
            .filter_map(|tuple| RelationRow::read(tuple.data(), self.major))
            .filter(|row| known.file_of(file.database, row) == Some(file))
            .last()?;
        let written_schema = || {
            let schemas = known.schemas_file?;
            let mut written = self.open.values().flat_map(|open| self.written_rows(open, schemas));
            row::name(written.find(|tuple| row::oid(tuple.data()) == Some(row.schema))?.data())
        };
        Some(RelationName {
            database_oid: file.database,
            database: self.database_name(file.database),
            schema: self.schema_name(file.database, row.schema).or_else(written_schema)?,
            name: row.name.clone(),
            oid: row.oid,
            kind: row.kind,
            temporary: row.temporary,
            file: Some(file),
            toast_of: None,
        })
    }

    /// Rows of one catalog file that an open transaction wrote and did not delete again.
    fn written_rows<'a>(&'a self, open: &'a OpenTransaction, of: RelationFile) -> impl Iterator<Item = &'a Tuple> {
        let store = self.stores.get(&of);
        let touched = open.touched.iter().filter(move |(file, _)| *file == of);
        touched
            .filter_map(move |(_, tid)| store?.get(*tid))
            .filter(|tuple| tuple.inserted.is_some_and(|open| open.fate.is_none()) && tuple.deleted.is_none())
    }

    /// The file that holds a catalog now.
    fn current_file(&self, catalog: Catalog, database: u32) -> Option<RelationFile> {
        match catalog {
            Catalog::Databases => self.databases_file,
            Catalog::Relations => self.databases.get(&database)?.relations_file,
            Catalog::Schemas => self.databases.get(&database)?.schemas_file,
        }
    }

    /// The name in the visible row of a relation, schema or database.
    fn visible_tid(&self, catalog: Catalog, database: u32, oid: u32) -> Option<Tid> {
        match catalog {
            Catalog::Databases => self.database_rows.get(&oid).copied(),
            Catalog::Relations => self.databases.get(&database)?.relations.get(&oid).copied(),
            Catalog::Schemas => self.databases.get(&database)?.schemas.get(&oid).copied(),
        }
    }
}
