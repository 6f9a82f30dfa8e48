//! The fork that keeps a backup from leading to a target: where two ways part, and when.

use serde::{Deserialize, Serialize};

use super::PlanError;
use super::branch::Branch;
use super::choose::{Planned, Planner};
use super::snapshot::{BackupFacts, WalEvidence};
use crate::wal::{EventKind, Lsn, PgTime, SegmentNo, TimelineId};

/// Where the ways along two timelines part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fork {
    /// The last timeline that both share.
    pub parent: TimelineId,
    /// The timeline that branched off it there.
    pub child: TimelineId,
    /// The first byte that is the child's own.
    pub lsn: Lsn,
    /// When, by the clock of the server that went on as the child; `None` if its first WAL is not in the archive.
    pub time: Option<PgTime>,
}

impl std::fmt::Display for Fork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "timeline {} branched off timeline {} at {}", self.child, self.parent, self.lsn)?;
        self.time.map_or(Ok(()), |time| write!(f, " ({time})"))
    }
}

/// A backup that does not lead to a target, and the fork in its way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupElsewhere {
    /// The backup.
    pub id: String,
    /// The timeline that it leads along.
    pub timeline: TimelineId,
    /// The fork; `None` if the two timelines share nothing, or the history of the backup's is missing.
    pub fork: Option<Fork>,
}

impl<E: WalEvidence> Planner<'_, E> {
    /// What keeps a backup from leading along a branch.
    pub(super) fn elsewhere(&mut self, branch: &Branch<'_>, backup: &BackupFacts) -> Planned<BackupElsewhere, E> {
        let timeline = backup.stop_timeline;
        let fork = match Branch::new(self.snapshot, timeline) {
            Ok(other) => self.parting(branch, &other)?,
            Err(_) => None,
        };
        Ok(BackupElsewhere { id: backup.id.clone(), timeline, fork })
    }

    /// Of the backups of other branches the one whose way goes along with this branch the longest.
    pub(super) fn nearest_elsewhere(&mut self, branch: &Branch<'_>) -> Planned<Option<BackupElsewhere>, E> {
        let shared = |backup: &&BackupFacts| {
            let other = Branch::new(self.snapshot, backup.stop_timeline).ok()?;
            branch.history.branch_point(&other.history)?.1
        };
        let nearest = self.snapshot.backups.iter().max_by_key(|backup| (shared(backup), backup.stop_lsn));
        nearest.map(|backup| self.elsewhere(branch, backup)).transpose()
    }

    /// Where two branches part.
    fn parting(&mut self, one: &Branch<'_>, other: &Branch<'_>) -> Planned<Option<Fork>, E> {
        let Some((parent, Some(lsn))) = one.history.branch_point(&other.history) else { return Ok(None) };
        for branch in [one, other] {
            if branch.history.switch_from(parent) != Some(lsn) {
                continue;
            }
            let path = branch.history.path().map(|(timeline, _)| timeline);
            let Some(child) = { path }.find(|timeline| *timeline > parent) else { continue };
            let time = self.began(branch, child, lsn)?;
            return Ok(Some(Fork { parent, child, lsn, time }));
        }
        Ok(None)
    }

    /// When a timeline began, as its first records say.
    fn began(&mut self, branch: &Branch<'_>, child: TimelineId, lsn: Lsn) -> Planned<Option<PgTime>, E> {
        let found = branch.find(SegmentNo::of(lsn, self.snapshot.segment_size), None).into_iter().next();
        let Some(found) = found.filter(|found| found.copy.segment().timeline() == child) else { return Ok(None) };
        let events = self.evidence.events(&found.copy).map_err(PlanError::Evidence)?;
        Ok(events.iter().filter(|event| event.lsn >= lsn).find_map(|event| beginning(&event.kind, child)))
    }
}

/// The time of the record with which a timeline begins: an end of recovery, or the checkpoint in its place.
#[must_use]
pub fn beginning(event: &EventKind, child: TimelineId) -> Option<PgTime> {
    match event {
        EventKind::EndOfRecovery { time, timeline, .. } if *timeline == child => Some(*time),
        EventKind::Checkpoint { time, timeline, previous_timeline, .. }
            if *timeline == child && previous_timeline != timeline =>
        {
            Some(*time)
        }
        _ => None,
    }
}
