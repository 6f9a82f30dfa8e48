//! What is known of one database: where its catalogs are, and which row of them is whose.

use std::collections::HashMap;

use super::super::RelationFile;
use super::map::RelationMap;
use super::page::Tid;
use super::row::RelationRow;

/// Tablespace of everything that all databases share (`pg_global`).
pub(super) const GLOBAL_TABLESPACE: u32 = 1664;
/// Oids up to here are given by `initdb`; the catalogs among them had files of the same numbers at first.
pub(super) const FIRST_NORMAL_OID: u32 = 16384;

/// One database. Names themselves are read from the rows when they are asked for.
#[derive(Clone, Debug)]
pub(super) struct Database {
    /// Where it has its files, unless they are put elsewhere one by one.
    pub(super) tablespace: u32,
    pub(super) map: Option<RelationMap>,
    /// The file of its `pg_class`.
    pub(super) relations_file: Option<RelationFile>,
    /// The file of its `pg_namespace`.
    pub(super) schemas_file: Option<RelationFile>,
    /// Visible rows of `pg_class`, by oid.
    pub(super) relations: HashMap<u32, Tid>,
    /// Visible rows of `pg_namespace`, by oid.
    pub(super) schemas: HashMap<u32, Tid>,
    /// Oids by the files that `pg_class` tells.
    files: HashMap<RelationFile, u32>,
    /// Owners by their TOAST tables.
    toast_owners: HashMap<u32, u32>,
}

impl Database {
    pub(super) fn new(tablespace: u32) -> Self {
        Database {
            tablespace,
            map: None,
            relations_file: None,
            schemas_file: None,
            relations: HashMap::new(),
            schemas: HashMap::new(),
            files: HashMap::new(),
            toast_owners: HashMap::new(),
        }
    }

    /// The file that a row of `pg_class` tells; `None` for mapped ones, and those without a file.
    pub(super) fn file_of(&self, database: u32, row: &RelationRow) -> Option<RelationFile> {
        let tablespace = if row.tablespace == 0 { self.tablespace } else { row.tablespace };
        let database = if tablespace == GLOBAL_TABLESPACE { 0 } else { database };
        (row.file != 0).then_some(RelationFile { tablespace, database, relation: row.file })
    }

    /// The relation that has a file, by its row or, for a mapped one, by the map.
    pub(super) fn oid_of(&self, file: RelationFile) -> Option<u32> {
        self.files.get(&file).copied().or_else(|| mapped_oid(self.map.as_ref(), file.relation))
    }

    pub(super) fn toast_owner(&self, oid: u32) -> Option<u32> {
        self.toast_owners.get(&oid).copied()
    }

    /// Takes up a visible row. Returns where the row of the same oid stood, if elsewhere.
    pub(super) fn add(&mut self, file: Option<RelationFile>, row: &RelationRow, tid: Tid) -> Option<Tid> {
        if let Some(file) = file {
            self.files.insert(file, row.oid);
        }
        if row.toast != 0 {
            self.toast_owners.insert(row.toast, row.oid);
        }
        self.relations.insert(row.oid, tid).filter(|before| *before != tid)
    }

    /// Forgets a row that is visible no more.
    pub(super) fn remove(&mut self, file: Option<RelationFile>, row: &RelationRow, tid: Tid) {
        if self.relations.get(&row.oid) == Some(&tid) {
            self.relations.remove(&row.oid);
        }
        if let Some(file) = file.filter(|file| self.files.get(file) == Some(&row.oid)) {
            self.files.remove(&file);
        }
        if self.toast_owners.get(&row.toast) == Some(&row.oid) {
            self.toast_owners.remove(&row.toast);
        }
    }

    /// Forgets all rows of `pg_class`.
    pub(super) fn clear_relations(&mut self) {
        self.relations.clear();
        self.files.clear();
        self.toast_owners.clear();
    }
}

/// The mapped catalog that has a file.
pub(super) fn mapped_oid(map: Option<&RelationMap>, file: u32) -> Option<u32> {
    match map {
        Some(map) => map.oid_of(file),
        // New files have higher numbers: this one is still the first.
        None => Some(file).filter(|file| *file < FIRST_NORMAL_OID),
    }
}
