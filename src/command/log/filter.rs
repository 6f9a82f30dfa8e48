//! Which entries are shown.

use clap::ValueEnum;
use serde::Serialize;

use super::super::history::{RelationPattern, Within};
use crate::wal::activity::Activity;
use crate::wal::names::CatalogChange;
use crate::wal::{EventKind, PgTime, Xid};

/// What an entry is about; a commit may be about several things.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A transaction was committed
    Commit,
    /// A transaction was rolled back
    Abort,
    /// A transaction was prepared for a commit in two phases
    Prepare,
    /// Rows were deleted
    Delete,
    /// A relation, schema or database came to be
    Create,
    /// A relation, schema or database was dropped
    Drop,
    /// A relation, schema or database was renamed
    Rename,
    /// A relation got a new file: VACUUM FULL, CLUSTER, REINDEX, TRUNCATE, ALTER TABLE
    Rewrite,
    /// A table was truncated, or rewritten when it was empty
    Truncate,
    /// pg_create_restore_point
    RestorePoint,
    /// A checkpoint
    Checkpoint,
    /// Settings that a restored server has to match changed
    Parameter,
    /// CREATE or DROP DATABASE
    Database,
    /// CREATE or DROP TABLESPACE
    Tablespace,
    /// A recovery ended, perhaps on a new timeline; or a crash lost a record
    Timeline,
    /// A base backup ended
    Backup,
}

/// What is asked for.
pub(super) struct Filter {
    pub(super) within: Within,
    /// None: all.
    pub(super) kinds: Vec<Kind>,
    pub(super) relation: Option<RelationPattern>,
    pub(super) database: Option<String>,
    pub(super) xid: Option<Xid>,
}

impl Filter {
    /// Whether an entry is shown; `time` is its own, or the last one before it.
    pub(super) fn wants(&self, activity: &Activity, time: Option<PgTime>) -> bool {
        self.within.holds(activity.lsn(), time)
            && (self.kinds.is_empty() || kinds(activity).iter().any(|kind| self.kinds.contains(kind)))
            && self.xid.is_none_or(|xid| activity.is_of(xid))
            && self.database.as_ref().is_none_or(|database| in_database(activity, database))
            && self.relation.as_ref().is_none_or(|pattern| activity.relations().any(|name| pattern.matches(name)))
    }
}

fn in_database(activity: &Activity, database: &str) -> bool {
    activity.database.as_deref() == Some(database)
        || activity.relations().any(|relation| relation.database.as_deref() == Some(database))
        || activity.changes.iter().any(|change| match change {
            CatalogChange::DatabaseCreated(name) | CatalogChange::DatabaseDropped(name) => name.name == database,
            CatalogChange::DatabaseRenamed { before, after } => before.name == database || after.name == database,
            _ => false,
        })
}

/// What an entry is about.
pub(super) fn kinds(activity: &Activity) -> Vec<Kind> {
    let mut kinds = match &activity.event.kind {
        EventKind::Commit(_) => vec![Kind::Commit],
        EventKind::Abort(_) => vec![Kind::Abort],
        EventKind::Prepare { .. } => vec![Kind::Prepare],
        EventKind::RestorePoint { .. } => vec![Kind::RestorePoint],
        EventKind::Checkpoint { .. } => vec![Kind::Checkpoint],
        EventKind::ParameterChange(_) => vec![Kind::Parameter],
        EventKind::EndOfRecovery { .. } | EventKind::OverwriteContrecord { .. } => vec![Kind::Timeline],
        EventKind::BackupEnd { .. } => vec![Kind::Backup],
        EventKind::TablespaceCreate { .. } => vec![Kind::Tablespace, Kind::Create],
        EventKind::TablespaceDrop { .. } => vec![Kind::Tablespace, Kind::Drop],
        EventKind::DatabaseCreate { .. } => vec![Kind::Database, Kind::Create],
        EventKind::DatabaseDrop { .. } => vec![Kind::Database, Kind::Drop],
        EventKind::Truncate { .. } => vec![Kind::Truncate],
    };
    let changed = activity.changes.iter().map(|change| match change {
        CatalogChange::RelationCreated(_) | CatalogChange::SchemaCreated(_) | CatalogChange::DatabaseCreated(_) => {
            Kind::Create
        }
        CatalogChange::RelationDropped(_) | CatalogChange::SchemaDropped(_) | CatalogChange::DatabaseDropped(_) => {
            Kind::Drop
        }
        CatalogChange::RelationRenamed { .. }
        | CatalogChange::SchemaRenamed { .. }
        | CatalogChange::DatabaseRenamed { .. } => Kind::Rename,
        CatalogChange::RelationRewritten { .. } => Kind::Rewrite,
    });
    let committed = activity.is_commit();
    let deleted = activity.rows.iter().any(|rows| rows.counts.deleted > 0 && is_of_user(rows)) && committed;
    let changed = changed
        .chain((!activity.emptied.is_empty()).then_some(Kind::Truncate))
        .chain((committed && !activity.unnamed.is_empty()).then_some(Kind::Drop))
        .chain(deleted.then_some(Kind::Delete));
    for kind in changed {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

/// Rows of a table that is not PostgreSQL's own: those have low numbers until they are rewritten (`FirstNormalObjectId`).
pub(super) fn is_of_user(rows: &crate::wal::activity::RelationRows) -> bool {
    match &rows.relation {
        Some(relation) => !relation.is_of_catalog(),
        None => rows.file.relation >= 16384,
    }
}
