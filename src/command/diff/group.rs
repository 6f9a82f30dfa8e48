//! Changed relations put together by the table that they belong to, the most changed first.

use std::cmp::Reverse;
use std::collections::HashMap;

use serde::Serialize;

use super::Shown;
use super::before::Changed;
use super::relations::{Event, RelationChange, Side};
use crate::command::contents::path_of;
use crate::command::contents::table::titled;
use crate::repository::{BackupCatalog, Part};
use crate::wal::RelationFile;
use crate::wal::names::RelationName;

/// What became of a table and all that belongs to it. Sizes are of what is not the same: unchanged indexes are left out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct TableChange {
    /// Its name as it is now, or was; absent if it is not known.
    #[serde(flatten)]
    pub(super) name: Option<RelationName>,
    /// The path of its file, if its name is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    /// Its name before, with schema, if that was another.
    pub(super) was: Option<String>,
    /// What happened to the table itself; empty if only its content changed.
    pub(super) events: Vec<Event>,
    pub(super) before_bytes: u64,
    pub(super) after_bytes: u64,
    #[serde(flatten)]
    pub(super) changed: Shown,
    pub(super) parts: Vec<PartChange>,
}

/// What became of one relation of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct PartChange {
    pub(super) part: Part,
    /// With schema; the path of its file, if its name is not known.
    pub(super) relation: String,
    pub(super) was: Option<String>,
    pub(super) events: Vec<Event>,
    pub(super) before_bytes: Option<u64>,
    pub(super) after_bytes: Option<u64>,
    #[serde(flatten)]
    pub(super) changed: Shown,
}

impl TableChange {
    /// What it is called in a list.
    pub(super) fn title(&self) -> String {
        match (&self.name, &self.path) {
            (Some(name), _) => titled(name),
            (None, path) => path.clone().unwrap_or_default(),
        }
    }

    /// What it is worth to be told: bytes that came or are gone.
    fn weight(&self) -> u64 {
        self.changed.changed_bytes.max(self.before_bytes.saturating_sub(self.after_bytes))
    }
}

/// Groups changes; the catalogs are those of the earlier and the later backup.
pub(super) fn group(changes: Vec<RelationChange>, before: &BackupCatalog, after: &BackupCatalog) -> Vec<TableChange> {
    let mut tables: HashMap<(u32, Result<u32, RelationFile>), (TableChange, Changed)> = HashMap::new();
    for change in changes {
        let Some(file) = change.file() else { continue };
        let belonging = change.belonging();
        let key = (file.database, belonging.map(|of| of.table).ok_or(file));
        let (table, sum) = tables.entry(key).or_insert_with(|| {
            let name = belonging.and_then(|of| {
                let catalog = |catalog: &BackupCatalog| catalog.name(of.name.database_oid, of.table);
                catalog(after).or_else(|| catalog(before)).or_else(|| Some(of.name.clone()))
            });
            let path = name.is_none().then(|| path_of(file));
            let (was, events, parts) = (None, Vec::new(), Vec::new());
            let (before_bytes, after_bytes, changed) = (0, 0, Shown::default());
            (TableChange { name, path, was, events, before_bytes, after_bytes, changed, parts }, Changed::default())
        });
        let part = belonging.map_or(Part::Itself, |of| of.part);
        let size = |side: &Option<Side>| side.as_ref().map(|side| side.size_bytes);
        let was = change.events.contains(&Event::Renamed).then(|| {
            let name = change.before.as_ref().and_then(|side| side.belonging.as_ref()).map(|of| of.name.to_string());
            name.unwrap_or_default()
        });
        let (before_bytes, after_bytes) = (size(&change.before), size(&change.after));
        table.before_bytes += before_bytes.unwrap_or(0);
        table.after_bytes += after_bytes.unwrap_or(0);
        *sum += change.changed;
        table.changed = (*sum).into();
        if part == Part::Itself {
            table.events.clone_from(&change.events);
            table.was.clone_from(&was);
        }
        let relation = belonging.map_or_else(|| path_of(file), |of| of.name.to_string());
        let (events, changed) = (change.events, change.changed.into());
        table.parts.push(PartChange { part, relation, was, events, before_bytes, after_bytes, changed });
    }
    let mut tables: Vec<TableChange> = tables.into_values().map(|(table, _)| table).collect();
    tables.iter_mut().for_each(|table| table.parts.sort_by(|a, b| (a.part, &a.relation).cmp(&(b.part, &b.relation))));
    tables.sort_by_cached_key(|table| (Reverse(table.weight()), table.title()));
    tables
}
