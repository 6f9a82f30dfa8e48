//! Where the two readers do not agree.

use std::collections::BTreeSet;

use pitr::wal::{Event, EventKind, PgTime, RelationFile, TransactionEnd};

use super::ours::Read;
use super::theirs::Told;

/// Fails at the first record that is told differently.
pub(super) fn same(ours: &[Read], theirs: &[Told], what: &str) {
    for (ours, theirs) in ours.iter().zip(theirs) {
        let mut expected = theirs.record.clone();
        if !ours.whole {
            // It was cut: what is there must be right.
            expected.blocks.truncate(ours.record.blocks.len());
            expected.image_length = ours.record.image_length;
        }
        assert_eq!(ours.record, expected, "{what}: {}", theirs.desc);
        same_event(ours, theirs, what);
    }
    let ends = [ours.last().map(|read| read.record.lsn), theirs.last().map(|told| told.record.lsn)];
    assert_eq!(ours.len(), theirs.len(), "{what}: the last ones are at {ends:?}");
}

/// The events that a description's first word announces.
const EVENTS: [(u8, &[&str]); 5] = [
    (
        0,
        &[
            "CHECKPOINT_SHUTDOWN",
            "CHECKPOINT_ONLINE",
            "RESTORE_POINT",
            "BACKUP_END",
            "PARAMETER_CHANGE",
            "END_OF_RECOVERY",
            "OVERWRITE_CONTRECORD",
        ],
    ),
    (1, &["COMMIT", "ABORT", "COMMIT_PREPARED", "ABORT_PREPARED", "PREPARE"]),
    (4, &["CREATE_FILE_COPY", "CREATE_WAL_LOG", "DROP"]),
    (5, &["CREATE", "DROP"]),
    (10, &["TRUNCATE"]),
];

/// The words of all events among the records, to see that a test did not miss what it is for.
pub(super) fn event_words(theirs: &[Told]) -> BTreeSet<String> {
    theirs.iter().filter_map(|told| announced(told)).map(str::to_owned).collect()
}

/// The words of all events that there are.
pub(super) fn all_event_words() -> BTreeSet<String> {
    EVENTS.iter().flat_map(|(_, words)| words.iter().map(|word| (*word).to_owned())).collect()
}

fn announced(told: &Told) -> Option<&str> {
    let word = told.desc.split_whitespace().next()?;
    EVENTS.iter().any(|(manager, words)| *manager == told.record.manager && words.contains(&word)).then_some(word)
}

fn same_event(ours: &Read, theirs: &Told, what: &str) {
    let what = format!("{what}, {}: {}", theirs.record.lsn, theirs.desc);
    let word = announced(theirs);
    let Some(event) = &ours.event else {
        return assert_eq!(word, None, "{what}: no event");
    };
    let (words, parts) = expected(event);
    assert!(word.is_some_and(|word| words.contains(&word)), "{what}: {event:?}");
    let finished = words.contains(&"COMMIT_PREPARED") && !words.contains(&"COMMIT")
        || words.contains(&"ABORT_PREPARED") && !words.contains(&"ABORT");
    if !finished {
        assert_eq!(event.xid.0, theirs.record.xid, "{what}");
    }
    // Since 16 lists have commas.
    let plain = theirs.desc.replace(", ", " ");
    for part in parts {
        assert!(plain.contains(&part), "{what}: lacks {part:?} of {event:?}");
    }
    if let EventKind::Commit(end) | EventKind::Abort(end) = &event.kind {
        same_end(end, &theirs.desc, &what);
    }
}

/// How the description of an event begins, and what it contains.
fn expected(event: &Event) -> (Vec<&'static str>, Vec<String>) {
    let timelines = |this, before| format!("tli {this}; prev tli {before}");
    match &event.kind {
        EventKind::Commit(end) if end.prepared => (vec!["COMMIT_PREPARED"], vec![format!(" {}: ", event.xid.0)]),
        EventKind::Abort(end) if end.prepared => (vec!["ABORT_PREPARED"], vec![format!(" {}: ", event.xid.0)]),
        EventKind::Commit(_) => (vec!["COMMIT"], vec![]),
        EventKind::Abort(_) => (vec!["ABORT"], vec![]),
        EventKind::Prepare { time } => (vec!["PREPARE"], vec![moment(*time)]),
        EventKind::RestorePoint { name, .. } => (vec!["RESTORE_POINT"], vec![format!(" {name}")]),
        EventKind::Checkpoint { shutdown, redo, timeline, previous_timeline, .. } => (
            vec![if *shutdown { "CHECKPOINT_SHUTDOWN" } else { "CHECKPOINT_ONLINE" }],
            vec![format!("redo {redo}; {};", timelines(timeline.0, previous_timeline.0))],
        ),
        EventKind::ParameterChange(limits) => (
            vec!["PARAMETER_CHANGE"],
            vec![
                format!("max_connections={} ", limits.max_connections),
                format!("max_worker_processes={} ", limits.max_worker_processes),
                format!("max_wal_senders={} ", limits.max_wal_senders),
                format!("max_prepared_xacts={} ", limits.max_prepared_transactions),
                format!("max_locks_per_xact={} ", limits.max_locks_per_transaction),
                format!("wal_level={} ", format!("{:?}", limits.wal_level).to_lowercase()),
                format!("wal_log_hints={} ", if limits.wal_log_hints { "on" } else { "off" }),
                format!("track_commit_timestamp={}", if limits.track_commit_timestamp { "on" } else { "off" }),
            ],
        ),
        EventKind::EndOfRecovery { time, timeline, previous_timeline } => {
            (vec!["END_OF_RECOVERY"], vec![timelines(timeline.0, previous_timeline.0), moment(*time)])
        }
        EventKind::BackupEnd { start } => (vec!["BACKUP_END"], vec![format!("BACKUP_END {start}")]),
        EventKind::TablespaceCreate { oid, location } => (vec!["CREATE"], vec![format!(" {oid} \"{location}\"")]),
        EventKind::TablespaceDrop { oid } => (vec!["DROP"], vec![format!(" {oid}")]),
        EventKind::DatabaseCreate { oid, tablespace, copy_of: None } => {
            (vec!["CREATE_WAL_LOG"], vec![format!("create dir {tablespace}/{oid}")])
        }
        EventKind::DatabaseCreate { oid, tablespace, copy_of: Some(model) } => {
            (vec!["CREATE_FILE_COPY"], vec![format!("/{model} to {tablespace}/{oid}")])
        }
        EventKind::DatabaseDrop { oid } => (vec!["DROP"], vec![format!("/{oid}")]),
        EventKind::Truncate { relations, .. } => {
            let oids: Vec<String> = relations.iter().map(ToString::to_string).collect();
            (vec!["TRUNCATE"], vec![oids.join(" ")])
        }
        EventKind::OverwriteContrecord { overwritten, time } => {
            (vec!["OVERWRITE_CONTRECORD"], vec![format!("lsn {overwritten}; time {}", moment(*time))])
        }
    }
}

/// `2026-11-21 10:45:00.000001 UTC`.
fn moment(time: PgTime) -> String {
    time.to_timestamp().strftime("%Y-%m-%d %H:%M:%S.%6f UTC").to_string()
}

/// Time, subtransactions and dropped relations of a transaction's end.
fn same_end(end: &TransactionEnd, desc: &str, what: &str) {
    let mut parts = desc.split("; ");
    let first = parts.next().unwrap_or_default();
    assert!(first.ends_with(&moment(end.time)), "{what}: {}", moment(end.time));
    let (mut subtransactions, mut dropped) = (Vec::new(), Vec::new());
    for part in parts {
        if let Some(list) = part.strip_prefix("subxacts: ") {
            subtransactions.extend(list.split_whitespace().map(|xid| xid.parse::<u32>().expect("a number")));
        } else if let Some(list) = part.strip_prefix("rels: ") {
            dropped.extend(list.split_whitespace().map(|path| relation(path).unwrap_or_else(|| panic!("{path}"))));
        }
    }
    assert_eq!(
        (end.subtransactions as usize, end.dropped_count as usize),
        (subtransactions.len(), dropped.len()),
        "{what}"
    );
    let ours: Vec<u32> = end.subtransaction_xids.iter().map(|xid| xid.0).collect();
    let cut = if end.cut { ours.len() } else { usize::MAX };
    assert_eq!(ours, subtransactions[..subtransactions.len().min(cut)], "{what}");
    let cut = if end.cut { end.dropped.len() } else { usize::MAX };
    assert_eq!(end.dropped, dropped[..dropped.len().min(cut)], "{what}");
}

/// `base/5/16384`, `global/1262` or `pg_tblspc/16390/PG_15_202209061/5/16384`.
fn relation(path: &str) -> Option<RelationFile> {
    let words: Vec<&str> = path.split('/').collect();
    let file = |tablespace, database, relation: &str| {
        Some(RelationFile { tablespace, database, relation: relation.parse().ok()? })
    };
    match words[..] {
        ["base", database, relation] => file(1663, database.parse().ok()?, relation),
        ["global", relation] => file(1664, 0, relation),
        ["pg_tblspc", tablespace, _, database, relation] => {
            file(tablespace.parse().ok()?, database.parse().ok()?, relation)
        }
        _ => None,
    }
}
