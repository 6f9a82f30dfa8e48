//! Looking at the timelines beside the one that is to be followed: one of them may be what the user means.

use std::collections::BTreeSet;

use super::branch::Branch;
use super::choose::{Planned, Planner, Way};
use super::plan::{PlanNote, Unreachable};
use super::snapshot::{BackupFacts, WalEvidence};
use super::walk::{copies, transaction_end};
use super::{PlanError, TargetKind};
use crate::wal::{Lsn, PgTime, SegmentNo, TimelineId};

impl<'a, E: WalEvidence> Planner<'a, E> {
    /// For a time: the fork in whose gap it lies, if the timeline that was left there has commits in the gap.
    ///
    /// After a restore to 14:00 at 14:40, the new timeline holds "14:20" only in the sense that its first commit came later.
    /// Who asks for 14:20 means the state that the cluster had then, which the older timeline holds.
    pub(super) fn passed_over(&mut self, way: &Way<'_>) -> Planned<Option<PlanNote>, E> {
        Ok(self.rival(way)?.map(|(_, fork, _)| PlanNote::BeforeFirstCommitOf { timeline: way.branch.timeline(), fork }))
    }

    /// The refusal for a time in the gap of a fork that no timeline holds.
    pub(super) fn between(&mut self, way: &Way<'_>) -> Planned<Option<Unreachable>, E> {
        let newer = way.branch.timeline();
        let rival = self.rival(way)?;
        Ok(rival.map(|(older, fork, older_last)| Unreachable::BetweenBranches { older, older_last, newer, fork }))
    }

    /// A timeline that left this way between the last commit before the target and the first past it, and has commits of
    /// that time; with the fork, and the last of those commits.
    fn rival(&mut self, way: &Way<'_>) -> Planned<Option<(TimelineId, Lsn, PgTime)>, E> {
        if !matches!(self.request.target.kind, TargetKind::Time(_)) {
            return Ok(None);
        }
        let last = self.last_end(way)?.unwrap_or(way.backup.start_lsn);
        for timeline in self.snapshot.timelines.keys().copied() {
            let Ok(other) = Branch::new(self.snapshot, timeline) else { continue };
            let Some((_, Some(fork))) = other.history.branch_point(&way.branch.history) else { continue };
            if way.branch.history.contains(timeline) && way.branch.history.switch_from(timeline).is_none() {
                continue;
            }
            if fork <= last || fork > way.stop.lsn {
                continue;
            }
            if let Some(time) = self.last_in_time(&other, fork)? {
                return Ok(Some((timeline, fork, time)));
            }
        }
        Ok(None)
    }

    /// Where the last commit or abort before the stop begins.
    fn last_end(&mut self, way: &Way<'_>) -> Planned<Option<Lsn>, E> {
        for step in way.walk.segments.iter().rev() {
            let events = self.evidence.events(&step.found.copy).map_err(PlanError::Evidence)?;
            let ends = events.iter().filter(|event| transaction_end(event).is_some() && event.lsn < way.stop.lsn);
            if let Some(event) = { ends }.next_back() {
                return Ok(Some(event.lsn));
            }
        }
        Ok(None)
    }

    /// Time of the last commit or abort of a branch beyond a fork that is not past the target, before the first that is.
    fn last_in_time(&mut self, branch: &Branch<'_>, fork: Lsn) -> Planned<Option<PgTime>, E> {
        let first = SegmentNo::of(fork, self.snapshot.segment_size);
        let mut last = None;
        for (_, copy, _) in copies(branch, first) {
            let facts = self.evidence.facts(&copy).map_err(PlanError::Evidence)?;
            if facts.commits + facts.aborts == 0 {
                continue;
            }
            for event in self.evidence.events(&copy).map_err(PlanError::Evidence)? {
                let Some(end) = transaction_end(&event).filter(|_| event.lsn >= fork) else { continue };
                if self.request.target.is_past(end.time) == Some(true) {
                    return Ok(last);
                }
                last = Some(end.time);
            }
        }
        Ok(last)
    }

    /// Notes about the timelines beside the chosen one.
    pub(super) fn look_aside(
        &mut self,
        way: &Way<'a>,
        given: Option<&'a BackupFacts>,
        known: &BTreeSet<TimelineId>,
    ) -> Planned<(), E> {
        let compared = match self.request.target.kind {
            TargetKind::Time(_) | TargetKind::Lsn(_) | TargetKind::Latest => known,
            // Looking for a transaction or a name that another branch does not have would read all of its WAL.
            TargetKind::Xid(_) | TargetKind::Name(_) | TargetKind::Immediate => return Ok(()),
        };
        let mut also = Vec::new();
        for timeline in compared.iter().rev().copied().filter(|timeline| *timeline < way.branch.timeline()) {
            let Ok(other) = Branch::new(self.snapshot, timeline) else { continue };
            let Some((_, Some(fork))) = other.history.branch_point(&way.branch.history) else { continue };
            if fork > way.stop.lsn {
                continue;
            }
            match self.reach(timeline, given) {
                Ok(found) if found.stop.lsn < fork => {}
                Ok(found) if self.request.target.kind == TargetKind::Latest => {
                    let beyond = self.last_in_time_of_all(&other, fork)?;
                    if let Some(time) =
                        beyond.filter(|time| found.walk.max_time >= Some(*time) && way.walk.max_time < Some(*time))
                    {
                        self.notes.push(PlanNote::LaterCommitsOn { timeline, time });
                    }
                }
                Ok(_) => also.push(timeline),
                Err(PlanError::Unreachable(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if !also.is_empty() {
            self.notes.push(PlanNote::AlsoOn { timelines: also });
        }
        Ok(())
    }

    /// Latest time of a commit or abort in the segments of a branch from a fork on.
    fn last_in_time_of_all(&mut self, branch: &Branch<'_>, fork: Lsn) -> Planned<Option<PgTime>, E> {
        let first = SegmentNo::of(fork, self.snapshot.segment_size);
        let mut latest = None;
        for (_, copy, _) in copies(branch, first) {
            latest = latest.max(self.evidence.facts(&copy).map_err(PlanError::Evidence)?.max_time);
        }
        Ok(latest)
    }
}
