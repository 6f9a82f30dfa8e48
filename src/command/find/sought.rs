//! What is looked for, and what is found: which entries of the history are candidates.

use serde::Serialize;

use super::super::history::RelationPattern;
use crate::wal::activity::{Activity, RowCounts};
use crate::wal::names::{CatalogChange, RelationKind, RelationName};
use crate::wal::{EventKind, Lsn, PgTime, TimelineId, Xid};

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
    /// There is stored WAL before that.
    pub earlier: bool,
    /// Why it may be incomplete.
    pub notes: Vec<String>,
}

impl Sought {
    /// The entry as a candidate, if it is one.
    pub(super) fn candidate(
        &self,
        activity: &Activity,
        time: Option<PgTime>,
        timeline: TimelineId,
    ) -> Option<Candidate> {
        let (what, relations, rows, certain) = match self {
            Sought::Drop(pattern) => {
                let relations = dropped(activity, pattern);
                ("dropped".to_owned(), relations, None, true)
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
                (format!("{} rows deleted", indicatif::HumanCount(rows.deleted)), relations, Some(rows), true)
            }
            Sought::Update { relation, at_least } => {
                let (relations, rows) = changed(activity, relation, |rows| rows.updated >= (*at_least).max(1));
                (format!("{} rows updated", indicatif::HumanCount(rows.updated)), relations, Some(rows), true)
            }
        };
        if relations.is_empty() {
            return None;
        }
        let (xid, lsn) = (activity.event.xid, activity.begins.unwrap_or(activity.lsn()));
        let prepared = matches!(&activity.event.kind, EventKind::Commit(end) if end.prepared);
        let (what, option) = match &activity.event.kind {
            // The files are gone before the transaction commits.
            EventKind::DatabaseDrop { .. } => {
                (format!("{what} with its database"), format!("--to-lsn {lsn} --exclusive --timeline {timeline}"))
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

/// The relations that an entry drops. Temporary ones go with every session, and a TOAST table with its owner.
fn dropped(activity: &Activity, pattern: &RelationPattern) -> Vec<RelationName> {
    let dropped = activity.changes.iter().filter_map(|change| match change {
        CatalogChange::RelationDropped(name) => Some(name),
        _ => None,
    });
    let meant = |name: &&RelationName| !name.temporary && name.kind != RelationKind::Toast && pattern.matches(name);
    dropped.filter(meant).cloned().collect()
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
        if relation.kind != RelationKind::Toast && pattern.matches(relation) && enough(&rows.counts) {
            relations.push(RelationName::clone(relation));
            all.add(rows.counts);
        }
    }
    (relations, all)
}
