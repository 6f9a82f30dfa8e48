//! Relations together with the table that they belong to: an index and what is too long for rows are part of it.

use std::collections::HashMap;

use serde::Serialize;

use super::path_of;
use super::tally::{Survey, Tally};
use crate::command::history::RelationPattern;
use crate::repository::{BackupCatalog, Belonging, Part};
use crate::wal::RelationFile;
use crate::wal::names::{RelationKind, RelationName};

/// A table with all that belongs to it; or a relation that belongs to none; or one whose name is not known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(in crate::command) struct Table {
    /// Its name; absent if it is not known.
    #[serde(flatten)]
    pub(in crate::command) name: Option<RelationName>,
    /// The path of its file, if its name is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::command) path: Option<String>,
    /// Everything: what SQL calls `pg_total_relation_size`.
    #[serde(flatten)]
    pub(in crate::command) total: Tally,
    /// Of which indexes have so many bytes (`pg_indexes_size`).
    pub(in crate::command) index_bytes: u64,
    /// And the TOAST table with its index so many.
    pub(in crate::command) toast_bytes: u64,
    /// Each relation of it.
    pub(in crate::command) parts: Vec<TablePart>,
}

/// A relation as a part of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(in crate::command) struct TablePart {
    /// What it is to the table.
    pub(in crate::command) part: Part,
    /// Its name, with schema.
    pub(in crate::command) relation: String,
    /// What it is.
    pub(in crate::command) kind: RelationKind,
    /// Its file.
    pub(in crate::command) file: RelationFile,
    /// All its forks and segments.
    #[serde(flatten)]
    pub(in crate::command) total: Tally,
}

impl Table {
    /// What it is called: with the database in front, and what it is unless it is a table; or its path.
    pub(in crate::command) fn title(&self) -> String {
        match (&self.name, &self.path) {
            (Some(name), _) => titled(name),
            (None, path) => path.clone().unwrap_or_default(),
        }
    }
}

/// What a relation is called in a list.
pub(in crate::command) fn titled(name: &RelationName) -> String {
    match name.kind {
        RelationKind::Table => name.qualified(),
        kind => format!("{} ({kind})", name.qualified()),
    }
}

/// Which relations are to be shown.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::command) struct Wanted<'a> {
    /// Of this database only.
    pub(in crate::command) database: Option<&'a str>,
    /// Only these, and what belongs to them.
    pub(in crate::command) relation: Option<&'a RelationPattern>,
}

impl Wanted<'_> {
    /// Whether a relation is wanted, which is in this database.
    pub(in crate::command) fn holds(
        self,
        database: u32,
        belonging: Option<&Belonging>,
        catalog: &BackupCatalog,
    ) -> bool {
        let of_database = |wanted: &str| catalog.database_name(database).is_some_and(|name| name == wanted);
        let meant = |pattern: &RelationPattern| {
            let Some(Belonging { name, table, .. }) = belonging else { return false };
            pattern.matches(name)
                || *table != name.oid
                    && catalog.name(name.database_oid, *table).is_some_and(|table| pattern.matches(&table))
        };
        self.database.is_none_or(of_database) && self.relation.is_none_or(meant)
    }
}

/// The relations of a backup by their tables, the largest first.
pub(in crate::command) fn tables(survey: &Survey, catalog: &BackupCatalog, wanted: Wanted<'_>) -> Vec<Table> {
    let mut tables: HashMap<(u32, Result<u32, RelationFile>), Table> = HashMap::new();
    for (file, tally) in &survey.relations {
        let belonging = catalog.relation_of(*file);
        if !wanted.holds(file.database, belonging.as_ref(), catalog) {
            continue;
        }
        let key = (file.database, belonging.as_ref().map(|belonging| belonging.table).ok_or(*file));
        let table = tables.entry(key).or_insert_with(|| {
            let own = belonging.as_ref().filter(|belonging| belonging.part == Part::Itself);
            let by_oid = || belonging.as_ref().and_then(|of| catalog.name(of.name.database_oid, of.table));
            // Whose table has no name goes by its own.
            let name = own.map(|own| own.name.clone()).or_else(by_oid);
            let name = name.or_else(|| belonging.as_ref().map(|belonging| belonging.name.clone()));
            let path = name.is_none().then(|| path_of(*file));
            Table { name, path, total: Tally::default(), index_bytes: 0, toast_bytes: 0, parts: Vec::new() }
        });
        table.total += *tally;
        let Some(Belonging { name, part, .. }) = belonging else { continue };
        match part {
            Part::Itself => {}
            Part::Index => table.index_bytes += tally.size_bytes,
            Part::Toast => table.toast_bytes += tally.size_bytes,
        }
        table.parts.push(TablePart { part, relation: name.to_string(), kind: name.kind, file: *file, total: *tally });
    }
    let mut tables: Vec<Table> = tables.into_values().collect();
    for table in &mut tables {
        table.parts.sort_by(|a, b| (a.part, &a.relation, a.file).cmp(&(b.part, &b.relation, b.file)));
    }
    tables.sort_by_cached_key(|table| (std::cmp::Reverse(table.total.size_bytes), table.title()));
    tables
}
