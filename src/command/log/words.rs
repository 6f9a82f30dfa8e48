//! An entry of the log in words: one line that says what happened and when, and one for each thing that it did.

use std::io::{self, Write};

use indicatif::HumanCount;
use jiff::tz::TimeZone;

use super::filter::is_of_user;
use crate::recovery::moment::in_both;
use crate::wal::activity::{Activity, RelationRows};
use crate::wal::names::{CatalogChange, RelationKind, RelationName};
use crate::wal::{EventKind, PgTime, RelationFile, TransactionEnd};

/// Most relations that are named of each kind of change; the others are counted.
const MOST_NAMED: usize = 20;

/// Writes an entry. `time` is its own, or the last one before it.
pub(super) fn write(
    activity: &Activity,
    time: Option<PgTime>,
    zone: &TimeZone,
    out: &mut impl Write,
) -> io::Result<()> {
    let moment = match (activity.time(), time) {
        (Some(time), _) => in_both(time, zone),
        (None, Some(time)) => format!("after {}", in_both(time, zone)),
        (None, None) => "at an unknown time".to_owned(),
    };
    writeln!(out, "{}  {moment}  {}", activity.lsn(), headline(activity))?;
    for line in details(activity) {
        writeln!(out, "    {line}")?;
    }
    Ok(())
}

fn headline(activity: &Activity) -> String {
    let xid = activity.event.xid;
    let place = activity.database.as_ref().map_or_else(String::new, |database| format!(" in {database}"));
    match &activity.event.kind {
        EventKind::Commit(end) => format!("transaction {xid} committed{}{place}", parts(end)),
        EventKind::Abort(end) => format!("transaction {xid} rolled back{}{place}", parts(end)),
        EventKind::Prepare { .. } => format!("transaction {xid} prepared{place}"),
        EventKind::RestorePoint { name, .. } => format!("restore point \"{name}\""),
        EventKind::Checkpoint { shutdown: true, .. } => "checkpoint, of a shutdown or the end of a recovery".to_owned(),
        EventKind::Checkpoint { redo, .. } => format!("checkpoint, begun at {redo}"),
        EventKind::ParameterChange(limits) => {
            let settings: Vec<String> =
                limits.named().iter().map(|(name, value)| format!("{name} = {value}")).collect();
            format!("the server runs with {}", settings.join(", "))
        }
        EventKind::EndOfRecovery { timeline, previous_timeline, .. } => {
            format!("a recovery ended: timeline {timeline} begins, after timeline {previous_timeline}")
        }
        EventKind::BackupEnd { start } => format!("a base backup that began at {start} ended"),
        EventKind::TablespaceCreate { oid, location } => format!("tablespace {oid} created in \"{location}\""),
        EventKind::TablespaceDrop { oid } => format!("tablespace {oid} dropped"),
        EventKind::DatabaseCreate { oid, .. } => format!("files of database {oid} made"),
        EventKind::DatabaseDrop { oid } => {
            let name = activity.database.as_ref().map_or_else(|| oid.to_string(), ToString::to_string);
            format!("files of database {name} REMOVED (transaction {xid} has yet to commit)")
        }
        EventKind::Truncate { relations, .. } => format!("transaction {xid} truncates {} tables", relations.len()),
        EventKind::OverwriteContrecord { overwritten, .. } => {
            format!("the server started after a crash that cut off the record at {overwritten}")
        }
    }
}

fn parts(end: &TransactionEnd) -> String {
    let prepared = if end.prepared { " (it was prepared)" } else { "" };
    match end.subtransactions {
        0 => prepared.to_owned(),
        1 => format!("{prepared}, with a subtransaction"),
        count => format!("{prepared}, with {count} subtransactions"),
    }
}

fn details(activity: &Activity) -> Vec<String> {
    let mut lines = Vec::new();
    let mut list = |words: &str, names: Vec<String>| {
        if !names.is_empty() {
            lines.push(format!("{words} {}", listed(&names)));
        }
    };
    let changes = &activity.changes;
    list(
        "dropped",
        relations(changes, |change| match change {
            CatalogChange::RelationDropped(name) => Some((name, None)),
            _ => None,
        }),
    );
    list(
        "emptied",
        activity
            .emptied
            .iter()
            .map(|emptied| {
                let how = if emptied.certain { "truncated" } else { "truncated, or rewritten when it was empty" };
                format!("{} ({how})", emptied.relation)
            })
            .collect(),
    );
    list(
        "rewritten",
        relations(changes, |change| match change {
            CatalogChange::RelationRewritten { after, .. } => {
                let is_empty = activity.emptied.iter().any(|emptied| emptied.relation.oid == after.oid);
                (!is_empty).then_some((after, None))
            }
            _ => None,
        }),
    );
    list(
        "created",
        relations(changes, |change| match change {
            CatalogChange::RelationCreated(name) => Some((name, None)),
            _ => None,
        }),
    );
    list(
        "renamed",
        relations(changes, |change| match change {
            CatalogChange::RelationRenamed { before, after } => Some((before, Some(after))),
            _ => None,
        }),
    );
    list("", changes.iter().filter_map(wider).collect());
    if activity.is_commit() {
        list("removed files without a known name:", activity.unnamed.iter().map(number).collect());
    }
    list("rows:", activity.rows.iter().filter(|rows| is_of_user(rows)).map(counts).collect());
    if activity.rows_cut {
        lines.push("rows may be missing in these counts".to_owned());
    }
    lines.iter().map(|line| line.trim_start().to_owned()).collect()
}

/// Relations of one kind of change. Indexes and TOAST tables of a table that is named go without saying.
fn relations<'a>(
    changes: &'a [CatalogChange],
    of: impl Fn(&'a CatalogChange) -> Option<(&'a RelationName, Option<&'a RelationName>)>,
) -> Vec<String> {
    let all: Vec<_> = changes.iter().filter_map(of).collect();
    let is_part = |name: &RelationName| {
        matches!(name.kind, RelationKind::Index | RelationKind::PartitionedIndex | RelationKind::Toast)
            || name.schema == "pg_toast"
    };
    let whole: Vec<_> = all.iter().filter(|(name, _)| !is_part(name)).collect();
    let shown = if whole.is_empty() { all.iter().collect() } else { whole };
    let worded = shown.into_iter().map(|(name, after)| match after {
        Some(after) => format!("{} {name} to {after}", name.kind),
        None => format!("{} {name}", name.kind),
    });
    worded.collect()
}

/// Changes of schemas and databases.
fn wider(change: &CatalogChange) -> Option<String> {
    Some(match change {
        CatalogChange::SchemaCreated(schema) => format!("created schema {}", schema.name),
        CatalogChange::SchemaDropped(schema) => format!("dropped schema {}", schema.name),
        CatalogChange::SchemaRenamed { before, after } => format!("renamed schema {} to {}", before.name, after.name),
        CatalogChange::DatabaseCreated(database) => format!("created database {}", database.name),
        CatalogChange::DatabaseDropped(database) => format!("dropped database {}", database.name),
        CatalogChange::DatabaseRenamed { before, after } => {
            format!("renamed database {} to {}", before.name, after.name)
        }
        _ => return None,
    })
}

fn counts(rows: &RelationRows) -> String {
    let name = rows.relation.as_ref().map_or_else(|| number(&rows.file), ToString::to_string);
    let counts =
        [("inserted", rows.counts.inserted), ("updated", rows.counts.updated), ("deleted", rows.counts.deleted)];
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    let counts: Vec<String> = counts.map(|(word, count)| format!("{} {word}", HumanCount(*count))).collect();
    format!("{name} {}", counts.join(", "))
}

fn number(file: &RelationFile) -> String {
    format!("file {} of database {}", file.relation, file.database)
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    match names.len().saturating_sub(MOST_NAMED) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}
