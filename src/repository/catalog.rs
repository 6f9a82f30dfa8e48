//! What the catalogs in a base backup tell about its files: which relation each is, and which table that belongs to.

use std::collections::HashMap;

use serde::Serialize;

use crate::wal::RelationFile;
use crate::wal::names::{RelationName, RelationNames};

/// The catalogs of all databases in one backup, as they are when it has been replayed to its stop point.
#[derive(Clone, Debug)]
pub struct BackupCatalog {
    names: RelationNames,
    /// Tables by their indexes, both by database and oid.
    tables: HashMap<(u32, u32), u32>,
    damaged: Vec<String>,
}

/// What a relation is to the table that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The table; also everything that belongs to no table, such as a sequence.
    Itself,
    /// One of its indexes.
    Index,
    /// Its TOAST table, or the index of that.
    Toast,
}

/// A relation, and the one that it is summed with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Belonging {
    /// Its own name.
    pub name: RelationName,
    /// Oid of the table that it belongs to; its own if it belongs to none.
    pub table: u32,
    /// What it is to that table.
    pub part: Part,
}

impl BackupCatalog {
    pub(super) fn new(names: RelationNames, tables: HashMap<(u32, u32), u32>, damaged: Vec<String>) -> Self {
        BackupCatalog { names, tables, damaged }
    }

    /// The relation that has a file; `None` if that cannot be told.
    #[must_use]
    pub fn relation_of(&self, file: RelationFile) -> Option<Belonging> {
        let name = self.names.name_of(file)?;
        // Each database has a copy of the catalog's rows about what is shared.
        let databases: Vec<u32> = match name.database_oid {
            0 => self.names.databases().filter(|oid| *oid != 0).collect(),
            oid => vec![oid],
        };
        let table_of = |oid| databases.iter().find_map(|database| self.tables.get(&(*database, oid))).copied();
        let owner_of = |oid| databases.iter().find_map(|database| self.names.toast_owner(*database, oid));
        let indexed = table_of(name.oid);
        let (table, part) = match owner_of(indexed.unwrap_or(name.oid)) {
            Some(owner) => (owner, Part::Toast),
            None => (indexed.unwrap_or(name.oid), if indexed.is_some() { Part::Index } else { Part::Itself }),
        };
        Some(Belonging { name, table, part })
    }

    /// A relation's name by its oid; the database 0 stands for what is shared.
    #[must_use]
    pub fn name(&self, database: u32, oid: u32) -> Option<RelationName> {
        match database {
            0 => {
                let name = self.names.databases().find_map(|database| self.names.relation(database, oid))?;
                Some(RelationName { database_oid: 0, database: None, ..name })
            }
            database => self.names.relation(database, oid),
        }
    }

    /// A database's name by its oid.
    #[must_use]
    pub fn database_name(&self, oid: u32) -> Option<String> {
        self.names.database_name(oid)
    }

    /// Why some relations have no name, in sentences.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let names = self.names.notes().iter().map(|note| {
            let name = note.database().and_then(|oid| self.database_name(oid));
            name.map_or_else(|| note.to_string(), |name| format!("{note} ({name})"))
        });
        names.chain(self.damaged.iter().cloned()).collect()
    }
}
