//! What transactions did, read from the records themselves: rows by relation, relations by name, tables emptied.
//!
//! Layer 1 (domain, pure). The events of a segment say when a transaction ended and which files it removed. What a person
//! asks for is more: the names, and how many rows went. [`ActivityReader`] reads WAL record by record along one line of
//! timelines and hands out one [`Activity`] for each event, in LSN order; a transaction's work is told with its end. Memory is that of the
//! names ([`super::names`]) and of the transactions that are open.

mod reader;
mod tally;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::names::{CatalogChange, RelationName};
use super::{Event, EventKind, Lsn, PgTime, RelationFile, Xid};
pub use reader::{ActivityReader, ActivityVisitor};
pub use tally::{RowCounts, RowTally};

/// An event, and what it did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Activity {
    /// The event.
    #[serde(flatten)]
    pub event: Event,
    /// Name of the database that it happened in, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Arc<str>>,
    /// Where it began to take effect, if that was before this record: DROP DATABASE marks the database as invalid first, which no
    /// rollback takes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begins: Option<Lsn>,
    /// What it changed in the catalog: relations, schemas, databases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<CatalogChange>,
    /// Tables that lost their rows otherwise than row by row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emptied: Vec<Emptied>,
    /// Files that it removed whose relation has no known name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unnamed: Vec<RelationFile>,
    /// Rows that the transaction inserted, updated and deleted, by relation. Of a rolled back one they count for nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RelationRows>,
    /// Rows of the transaction may be missing: it has more parts than can be followed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rows_cut: bool,
}

/// Rows of one relation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RelationRows {
    /// Its file.
    pub file: RelationFile,
    /// Its name, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<Arc<RelationName>>,
    /// How many.
    #[serde(flatten)]
    pub counts: RowCounts,
}

/// A table with nothing in it any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Emptied {
    /// The table.
    pub relation: RelationName,
    /// A record says TRUNCATE (`wal_level = logical`). Else only the new, empty file is seen: VACUUM FULL, CLUSTER and some forms of
    /// ALTER TABLE leave one too, if the table had no rows.
    pub certain: bool,
}

impl Activity {
    /// The time of the event, where its record has one.
    #[must_use]
    pub fn time(&self) -> Option<PgTime> {
        match &self.event.kind {
            EventKind::Commit(end) | EventKind::Abort(end) => Some(end.time),
            EventKind::Prepare { time }
            | EventKind::RestorePoint { time, .. }
            | EventKind::Checkpoint { time, .. }
            | EventKind::EndOfRecovery { time, .. }
            | EventKind::OverwriteContrecord { time, .. } => Some(*time),
            EventKind::ParameterChange(_)
            | EventKind::BackupEnd { .. }
            | EventKind::TablespaceCreate { .. }
            | EventKind::TablespaceDrop { .. }
            | EventKind::DatabaseCreate { .. }
            | EventKind::DatabaseDrop { .. }
            | EventKind::Truncate { .. } => None,
        }
    }

    /// The transaction is committed here.
    #[must_use]
    pub fn is_commit(&self) -> bool {
        matches!(self.event.kind, EventKind::Commit(_))
    }

    /// The relations that are named in it, of any part.
    pub fn relations(&self) -> impl Iterator<Item = &RelationName> {
        let changed = self.changes.iter().flat_map(|change| match change {
            CatalogChange::RelationCreated(name) | CatalogChange::RelationDropped(name) => vec![name],
            CatalogChange::RelationRenamed { before, after } | CatalogChange::RelationRewritten { before, after } => {
                vec![before, after]
            }
            _ => Vec::new(),
        });
        changed
            .chain(self.emptied.iter().map(|emptied| &emptied.relation))
            .chain(self.rows.iter().filter_map(|rows| rows.relation.as_deref()))
    }

    /// The transaction that ended here is this one, or this was a part of it.
    #[must_use]
    pub fn is_of(&self, xid: Xid) -> bool {
        let parts = match &self.event.kind {
            EventKind::Commit(end) | EventKind::Abort(end) => end.subtransaction_xids.as_slice(),
            _ => &[],
        };
        self.event.xid == xid || parts.contains(&xid)
    }

    /// Where its record begins.
    #[must_use]
    pub fn lsn(&self) -> Lsn {
        self.event.lsn
    }
}
