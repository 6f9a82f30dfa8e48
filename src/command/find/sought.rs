//! What is looked for, and what is found: which entries of the history are candidates.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::history::RelationPattern;
use crate::wal::activity::{Activity, RowCounts};
use crate::wal::names::{CatalogChange, RelationKind, RelationName};
use crate::wal::{EventKind, Lsn, PgTime, TimelineId, Xid};

/// Begins the words for what was dropped as a whole, with the name of a schema or a database.
const WHOLE: &str = "dropped with ";

/// What is looked for.
#[derive(Clone, Debug)]
pub enum Sought {
    /// Relations that were dropped.
    Drop(RelationPattern),
    /// Tables that were truncated.
    Truncate(RelationPattern),
    /// Transactions that deleted at least so many rows of a table.
    Delete {
        /// The table.
        relation: RelationPattern,
        /// So many.
        at_least: u64,
    },
    /// Transactions that updated at least so many rows of a table.
    Update {
        /// The table.
        relation: RelationPattern,
        /// So many.
        at_least: u64,
    },
}

/// A moment that may be the one meant: restoring to just before it brings back what is looked for. Of a restore point: to it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Candidate {
    /// What happened, in a few words.
    pub what: String,
    /// To which relations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub relations: Vec<RelationName>,
    /// The rows that the transaction changed in them, if rows are looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowCounts>,
    /// The WAL does not tell it from something harmless.
    pub certain: bool,
    /// When; the last known time before, if the record has none.
    pub time: Option<PgTime>,
    /// The transaction; 0 for none.
    pub xid: Xid,
    /// Start of the record that made it so: a commit, mostly.
    pub lsn: Lsn,
    /// The timeline that it lies on.
    pub timeline: TimelineId,
    /// It was prepared before: so it is in a server restored to just before, with its locks, until somebody decides.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub prepared: bool,
    /// Words of the command line that restore to just before it.
    pub option: String,
}

/// A relation that has another name or schema now: it may be the one that is missed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Renamed {
    /// As it was.
    pub before: RelationName,
    /// As it was called then.
    pub after: RelationName,
    /// When.
    pub time: Option<PgTime>,
    /// The transaction.
    pub xid: Xid,
    /// Start of the commit's record.
    pub lsn: Lsn,
}

/// What a search found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The candidates, in LSN order.
    pub candidates: Vec<Candidate>,
    /// How many more there were.
    pub more: u64,
    /// Relations that were renamed, where dropped ones are looked for.
    pub renamed: Vec<Renamed>,
    /// Where the search began.
    pub from: Lsn,
    /// Where it ended.
    pub to: Lsn,
    /// The last time of a commit in what was searched.
    pub last_time: Option<PgTime>,
    /// There is stored WAL before that.
    pub earlier: bool,
    /// Why it may be incomplete.
    pub notes: Vec<String>,
}

impl Sought {
    /// The tables whose rows are looked for: those of a table of partitions lie in its partitions.
    pub(super) fn rows_of(&self) -> Option<&RelationPattern> {
        match self {
            Sought::Drop(_) => None,
            Sought::Truncate(relation) | Sought::Delete { relation, .. } | Sought::Update { relation, .. } => {
                Some(relation)
            }
        }
    }

    /// The entry as a candidate, if it is one.
    pub(super) fn candidate(
        &self,
        activity: &Activity,
        time: Option<PgTime>,
        timeline: TimelineId,
        once: &Once,
    ) -> Option<Candidate> {
        let (what, relations, rows, certain) = match self {
            Sought::Drop(pattern) => {
                let (relations, what) = dropped(activity, pattern, once);
                (what, relations, None, true)
            }
            Sought::Truncate(pattern) => {
                let emptied = activity.emptied.iter().filter(|emptied| pattern.matches(&emptied.relation));
                let emptied: Vec<_> = emptied.collect();
                let certain = emptied.iter().all(|emptied| emptied.certain);
                let what = if certain { "truncated" } else { "truncated, or rewritten while it was empty" };
                (what.to_owned(), emptied.into_iter().map(|emptied| emptied.relation.clone()).collect(), None, certain)
            }
            Sought::Delete { relation, at_least } => {
                let (relations, rows) = changed(activity, relation, |rows| rows.deleted >= (*at_least).max(1));
                (format!("{} deleted", counted(rows.deleted)), relations, Some(rows), true)
            }
            Sought::Update { relation, at_least } => {
                let (relations, rows) = changed(activity, relation, |rows| rows.updated >= (*at_least).max(1));
                (format!("{} updated", counted(rows.updated)), relations, Some(rows), true)
            }
        };
        // An empty database, or schema, is missed as well.
        if relations.is_empty() && !what.starts_with(WHOLE) {
            return None;
        }
        let (xid, lsn) = (activity.event.xid, activity.begins.unwrap_or(activity.lsn()));
        let prepared = matches!(&activity.event.kind, EventKind::Commit(end) if end.prepared);
        let (what, option) = match &activity.event.kind {
            // The files are gone before the transaction commits.
            EventKind::DatabaseDrop { .. } => {
                let what = if what == "dropped" { "dropped with its database".to_owned() } else { what };
                (what, format!("--to-lsn {lsn} --exclusive --timeline {timeline}"))
            }
            _ => (what, format!("--before-xid {xid} --timeline {timeline}")),
        };
        Some(Candidate {
            what,
            relations,
            rows,
            certain,
            time: activity.time().or(time),
            xid,
            lsn,
            timeline,
            prepared,
            option,
        })
    }

    /// Relations that were renamed away, if that may be what is missed.
    pub(super) fn renamed(&self, activity: &Activity) -> Vec<Renamed> {
        let Sought::Drop(pattern) = self else { return Vec::new() };
        let renamed = activity.changes.iter().filter_map(|change| match change {
            CatalogChange::RelationRenamed { before, after } if pattern.matches(before) && !pattern.matches(after) => {
                Some(Renamed {
                    before: before.clone(),
                    after: after.clone(),
                    time: activity.time(),
                    xid: activity.event.xid,
                    lsn: activity.lsn(),
                })
            }
            _ => None,
        });
        renamed.collect()
    }

    /// What makes one candidate more telling than another, if only some can be listed.
    pub(super) fn weight(&self, candidate: &Candidate) -> (u64, Lsn) {
        let rows = match self {
            Sought::Drop(_) | Sought::Truncate(_) => 0,
            Sought::Delete { .. } => candidate.rows.unwrap_or_default().deleted,
            Sought::Update { .. } => candidate.rows.unwrap_or_default().updated,
        };
        (rows, candidate.lsn)
    }
}

/// Relations that had the name that is looked for before they were renamed: database and oid, and the name.
#[derive(Clone, Debug, Default)]
pub(super) struct Once(BTreeMap<(u32, u32), RelationName>);

impl Once {
    pub(super) fn add(&mut self, renamed: &Renamed) {
        let before = &renamed.before;
        self.0.entry((before.database_oid, before.oid)).or_insert_with(|| before.clone());
    }

    fn name(&self, relation: &RelationName) -> Option<&RelationName> {
        self.0.get(&(relation.database_oid, relation.oid))
    }
}

/// The relations that an entry drops, and what to call it. Temporary ones go with every session, and a TOAST table with its owner. The name of
/// a schema or a database stands for all that goes with it.
fn dropped(activity: &Activity, pattern: &RelationPattern, once: &Once) -> (Vec<RelationName>, String) {
    let database = match &activity.event.kind {
        // The files go here, before the transaction commits.
        EventKind::DatabaseDrop { .. } => activity.database.as_deref().filter(|name| pattern.is_alone(name)),
        _ => None,
    };
    let schema = activity.changes.iter().find_map(|change| match change {
        CatalogChange::SchemaDropped(schema) if pattern.is_alone(&schema.name) => {
            Some(format!("schema {}", schema.name))
        }
        _ => None,
    });
    let whole = database.map(|name| format!("database {name}")).or(schema);
    let of_whole = |name: &RelationName| {
        let of_schema = |change: &CatalogChange| {
            matches!(change, CatalogChange::SchemaDropped(schema)
                if pattern.is_alone(&schema.name) && name.schema == schema.name && name.database_oid == schema.database_oid)
        };
        database.is_some() || activity.changes.iter().any(of_schema)
    };
    let all = activity.changes.iter().filter_map(|change| match change {
        CatalogChange::RelationDropped(name) => Some(name),
        _ => None,
    });
    let is_of_toast = |name: &RelationName| name.kind == RelationKind::Toast || name.schema == "pg_toast";
    let mut before = None;
    let meant = all.filter(|name| !name.temporary && !is_of_toast(name)).filter(|name| {
        if let Some(earlier) = once.name(name).filter(|_| !pattern.matches(name)) {
            before = Some(earlier);
            return true;
        }
        pattern.matches(name) || of_whole(name)
    });
    let relations: Vec<RelationName> = meant.cloned().collect();
    let what = match (whole, before) {
        (Some(whole), _) => format!("{WHOLE}{whole}"),
        (None, Some(before)) => format!("dropped; before, it was {before}"),
        (None, None) => "dropped".to_owned(),
    };
    (relations, what)
}

/// The tables of which an entry changed enough rows, and how many in all.
fn changed(
    activity: &Activity,
    pattern: &RelationPattern,
    enough: impl Fn(&RowCounts) -> bool,
) -> (Vec<RelationName>, RowCounts) {
    let mut relations = Vec::new();
    let mut all = RowCounts::default();
    for rows in activity.rows.iter().filter(|_| activity.is_commit()) {
        let Some(relation) = &rows.relation else { continue };
        // What PostgreSQL changes in its own tables is not what anybody misses, unless it is asked for by name.
        let meant = relation.kind != RelationKind::Toast && (!relation.is_of_catalog() || pattern.names_schema());
        if meant && pattern.matches(relation) && enough(&rows.counts) {
            relations.push(RelationName::clone(relation));
            all.add(rows.counts);
        }
    }
    (relations, all)
}

fn counted(rows: u64) -> String {
    if rows == 1 { "1 row".to_owned() } else { format!("{} rows", indicatif::HumanCount(rows)) }
}
