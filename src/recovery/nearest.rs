//! The moments nearest to a target that cannot be reached. Each is planned itself before it is offered.

use super::branch::Branch;
use super::choose::{PlanRequest, Planned, Planner};
use super::plan::Commit;
use super::refusal::{Nearest, Refusal, Unreachable, words};
use super::snapshot::{BackupFacts, WalEvidence};
use super::{PlanError, RecoveryTarget, TargetKind};
use crate::wal::{Lsn, SegmentName, TimelineId};

impl<E: WalEvidence> Planner<'_, E> {
    /// The verdict, with what can be reached instead.
    pub(super) fn refuse(&mut self, why: Unreachable) -> Planned<Refusal, E> {
        let (before, after) = self.around(&why)?;
        let reachable_on = self.other_timelines(&why)?;
        Ok(Refusal { why, before, after, reachable_on })
    }

    fn around(&mut self, why: &Unreachable) -> Planned<(Option<Nearest>, Option<Nearest>), E> {
        Ok(match why {
            Unreachable::AfterEnd { timeline, last_commit, .. } => (self.at_commit(*timeline, *last_commit)?, None),
            Unreachable::Gap { timeline, missing, last_commit, .. } => {
                (self.at_commit(*timeline, *last_commit)?, self.first_backup_behind(*timeline, *missing)?)
            }
            Unreachable::DamagedSegment { timeline, damage, last_commit, .. } => {
                (self.at_commit(*timeline, *last_commit)?, self.first_backup_behind(*timeline, damage.segment)?)
            }
            Unreachable::MinimalWal { timeline, lsn } => {
                let before = RecoveryTarget { kind: TargetKind::Lsn(*lsn), inclusive: false };
                (self.offer(before, *timeline, None)?, self.first_backup_from(*timeline, *lsn)?)
            }
            Unreachable::BeforeFirstBackup { first: id, .. } | Unreachable::BackupTooLate { id, .. } => {
                (None, self.consistent(id)?)
            }
            Unreachable::BetweenBranches { older, older_lsn, newer, newer_lsn, .. } => {
                let just_after = |lsn| RecoveryTarget::inclusive(TargetKind::Lsn(lsn));
                (self.offer(just_after(*older_lsn), *older, None)?, self.offer(just_after(*newer_lsn), *newer, None)?)
            }
            Unreachable::NotFound { .. }
            | Unreachable::NoBackup
            | Unreachable::NoBackupOnTimeline { .. }
            | Unreachable::UnknownTimeline { .. }
            | Unreachable::HistoryMissing { .. }
            | Unreachable::UnknownBackup { .. }
            | Unreachable::BackupOnOtherBranch { .. } => (None, None),
        })
    }

    /// Other timelines that hold the target, if the one asked for does not.
    fn other_timelines(&mut self, why: &Unreachable) -> Planned<Vec<TimelineId>, E> {
        let mut found = Vec::new();
        let Some(asked) = self.request.timeline else { return Ok(found) };
        if matches!(why, Unreachable::NoBackup | Unreachable::UnknownBackup { .. }) {
            return Ok(found);
        }
        let request = PlanRequest { backup: None, ..self.request.clone() };
        let known: Vec<TimelineId> = self.snapshot.timelines.keys().rev().copied().collect();
        for timeline in known.into_iter().filter(|timeline| *timeline != asked) {
            if self.of(&request).try_reach(timeline, None)?.is_some() {
                found.push(timeline);
            }
        }
        Ok(found)
    }

    /// Just after a commit, if it can be reached.
    fn at_commit(&mut self, timeline: TimelineId, commit: Option<Commit>) -> Planned<Option<Nearest>, E> {
        let Some(commit) = commit else { return Ok(None) };
        self.offer(RecoveryTarget::inclusive(TargetKind::Lsn(commit.lsn)), timeline, None)
    }

    /// The end of the first backup behind a segment that can be restored.
    fn first_backup_behind(&mut self, timeline: TimelineId, segment: SegmentName) -> Planned<Option<Nearest>, E> {
        let size = self.snapshot.segment_size;
        let start = segment.number(size).map_or(Lsn(u64::MAX), |number| number.start(size));
        self.first_backup_from(timeline, start)
    }

    /// The end of the first backup that begins at or after an LSN, and can be restored.
    fn first_backup_from(&mut self, timeline: TimelineId, lsn: Lsn) -> Planned<Option<Nearest>, E> {
        let Ok(branch) = Branch::new(self.snapshot, timeline) else { return Ok(None) };
        let later = branch.backups().into_iter().rev().filter(|backup| backup.start_lsn >= lsn);
        for backup in later {
            if let Some(nearest) = self.consistent(&backup.id)? {
                return Ok(Some(nearest));
            }
        }
        Ok(None)
    }

    /// The end of a backup, if it can be restored.
    fn consistent(&mut self, id: &str) -> Planned<Option<Nearest>, E> {
        let Some(backup) = self.snapshot.backups.iter().find(|backup| backup.id == id) else { return Ok(None) };
        self.offer(RecoveryTarget::inclusive(TargetKind::Immediate), backup.stop_timeline, Some(backup))
    }

    /// A target, if a plan can be made for it.
    fn offer(
        &mut self,
        target: RecoveryTarget,
        timeline: TimelineId,
        backup: Option<&BackupFacts>,
    ) -> Planned<Option<Nearest>, E> {
        // The words have to mean the same without what the user said about timelines before.
        let said = (self.snapshot.timelines.len() > 1 && backup.is_none()).then_some(timeline);
        let option = words(&target, said, backup.map(|backup| backup.id.as_str()));
        let request = PlanRequest { target, timeline: said, backup: None };
        let mut planner = self.of(&request);
        let Some(way) = planner.try_reach(timeline, backup)? else { return Ok(None) };
        let last = way.walk.last_commit(way.stop.limit(), &way.branch, planner.evidence);
        let commit = last.map_err(PlanError::Evidence)?;
        let timeline = way.branch.history.timeline_at(way.stop.lsn);
        Ok(Some(Nearest { commit, lsn: way.stop.lsn, timeline, option }))
    }
}
