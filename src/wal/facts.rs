//! What is to be known about a segment without reading it again: fixed-size, for a catalog entry.

use serde::{Deserialize, Serialize};

use super::{Event, EventKind, Lsn, PgTime, TransactionEnd, Xid};

/// A summary of the records that end in a segment, without the one that began in an earlier segment.
///
/// That one (if the scan has a head) is known only with the piece in the segment before: join the two, then
/// [`SegmentFacts::prepend`] its event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SegmentFacts {
    /// Where the first record begins that begins in this segment.
    pub first_record: Option<Lsn>,
    /// What that record says was the record before it (`xl_prev`): the chain over the border to the segment before.
    pub before_first_record: Option<Lsn>,
    /// Where the last record begins that begins and ends in this segment.
    pub last_record: Option<Lsn>,
    /// Where the last record ends that ends in this segment (the segment's start if none does). After a switch
    /// record nothing follows up to the segment's end.
    pub end: Lsn,
    /// How the segment ends.
    pub ending: SegmentEnding,
    /// Earliest time of a commit or abort.
    pub min_time: Option<PgTime>,
    /// Latest time of a commit or abort.
    pub max_time: Option<PgTime>,
    /// Time of the first commit or abort in LSN order.
    pub first_time: Option<PgTime>,
    /// Time of the last commit or abort in LSN order.
    pub last_time: Option<PgTime>,
    /// Transaction of the first commit or abort in LSN order.
    pub first_xid: Option<Xid>,
    /// Transaction of the last commit or abort in LSN order.
    pub last_xid: Option<Xid>,
    /// Where the last commit record begins.
    pub last_commit: Option<Lsn>,
    /// Number of commits.
    pub commits: u32,
    /// Number of aborts.
    pub aborts: u32,
    /// Number of relation files removed by commits.
    pub dropped_relations: u32,
    /// Number of restore points.
    pub restore_points: u32,
    /// Number of parameter changes.
    pub parameter_changes: u32,
    /// Number of checkpoints.
    pub checkpoints: u32,
}

/// How a segment ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SegmentEnding {
    /// Records reach the segment's end: the next segment goes on there.
    Full,
    /// A segment switch (`pg_switch_wal`, `archive_timeout`, a backup): the rest is unused, the next segment goes on.
    Switch,
    /// Records end before the segment does, without a switch: the end of what was written when the file was taken.
    Unfinished,
}

impl SegmentFacts {
    /// Facts of a segment that begins at `start`, before any record was seen.
    pub(super) fn new(start: Lsn) -> Self {
        SegmentFacts {
            first_record: None,
            before_first_record: None,
            last_record: None,
            end: start,
            ending: SegmentEnding::Full,
            min_time: None,
            max_time: None,
            first_time: None,
            last_time: None,
            first_xid: None,
            last_xid: None,
            last_commit: None,
            commits: 0,
            aborts: 0,
            dropped_relations: 0,
            restore_points: 0,
            parameter_changes: 0,
            checkpoints: 0,
        }
    }

    /// Facts of a segment that replay never gets into, since the record that leads into it is no record.
    #[must_use]
    pub fn unreachable(start: Lsn) -> Self {
        SegmentFacts { ending: SegmentEnding::Unfinished, ..SegmentFacts::new(start) }
    }

    /// Takes in the event of the record that began in an earlier segment and ends in this one, before all others.
    pub fn prepend(&mut self, event: &Event) {
        if let Some(end) = self.count(event) {
            self.first_time = Some(end.time);
            self.first_xid = Some(event.xid);
            self.last_time = self.last_time.or(Some(end.time));
            self.last_xid = self.last_xid.or(Some(event.xid));
            if matches!(event.kind, EventKind::Commit(_)) {
                self.last_commit = self.last_commit.or(Some(event.lsn));
            }
        }
    }

    /// Takes in the next event in LSN order.
    pub(super) fn append(&mut self, event: &Event) {
        if let Some(end) = self.count(event) {
            self.first_time = self.first_time.or(Some(end.time));
            self.first_xid = self.first_xid.or(Some(event.xid));
            self.last_time = Some(end.time);
            self.last_xid = Some(event.xid);
            if matches!(event.kind, EventKind::Commit(_)) {
                self.last_commit = Some(event.lsn);
            }
        }
    }

    /// What does not depend on the order. Returns the end of a transaction, if it is one.
    fn count<'a>(&mut self, event: &'a Event) -> Option<&'a TransactionEnd> {
        let end = match &event.kind {
            EventKind::Commit(end) => {
                self.commits += 1;
                self.dropped_relations = self.dropped_relations.saturating_add(end.dropped_count);
                end
            }
            EventKind::Abort(end) => {
                self.aborts += 1;
                end
            }
            EventKind::RestorePoint { .. } => {
                self.restore_points += 1;
                return None;
            }
            EventKind::ParameterChange(_) => {
                self.parameter_changes += 1;
                return None;
            }
            EventKind::Checkpoint { .. } => {
                self.checkpoints += 1;
                return None;
            }
            EventKind::Prepare { .. }
            | EventKind::EndOfRecovery { .. }
            | EventKind::BackupEnd { .. }
            | EventKind::TablespaceCreate { .. }
            | EventKind::TablespaceDrop { .. }
            | EventKind::DatabaseCreate { .. }
            | EventKind::DatabaseDrop { .. }
            | EventKind::Truncate { .. }
            | EventKind::OverwriteContrecord { .. } => return None,
        };
        self.min_time = Some(self.min_time.map_or(end.time, |time| time.min(end.time)));
        self.max_time = Some(self.max_time.map_or(end.time, |time| time.max(end.time)));
        Some(end)
    }
}
