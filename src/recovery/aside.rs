//! Looking at the timelines beside the one that is to be followed: one of them may be what the user means.

use std::collections::BTreeSet;

use super::branch::{Branch, Found};
use super::choose::{Planned, Planner, Way};
use super::plan::PlanNote;
use super::snapshot::{BackupFacts, WalEvidence};
use super::walk::{best, transaction_end};
use super::{PlanError, TargetKind};
use crate::wal::{Lsn, PgTime, SegmentNo, TimelineId};

/// A timeline that left a way between the last commit before the target and the first past it, and has commits of that time.
pub(super) struct Rival {
    pub(super) timeline: TimelineId,
    pub(super) fork: Lsn,
    /// The last of those commits.
    pub(super) lsn: Lsn,
    pub(super) time: PgTime,
}

impl<'a, E: WalEvidence> Planner<'a, E> {
    /// For a time: the timeline that holds the state of that time although this way stops at the time too, if there is one.
    ///
    /// After a restore to 14:00 at 14:40, the new timeline holds "14:20" only in the sense that its first commit came later.
    /// Who asks for 14:20 means the state that the cluster had then, which the older timeline holds.
    pub(super) fn rival(&mut self, way: &Way<'_>) -> Planned<Option<Rival>, E> {
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
            if let Some((lsn, time)) = self.last_in_time(&other, fork)? {
                return Ok(Some(Rival { timeline, fork, lsn, time }));
            }
        }
        Ok(None)
    }

    /// Where the last commit or abort before the stop begins.
    fn last_end(&mut self, way: &Way<'_>) -> Planned<Option<Lsn>, E> {
        let Some((last, _)) = &way.walk.last else { return Ok(None) };
        for number in (way.walk.first.0..=last.0).rev().map(SegmentNo) {
            let Some(found) = way.walk.copy(number, &way.branch) else { continue };
            let facts = self.evidence.facts(&found.copy).map_err(PlanError::Evidence)?;
            if facts.commits + facts.aborts == 0 {
                continue;
            }
            let events = self.evidence.events(&found.copy).map_err(PlanError::Evidence)?;
            let ends = events.iter().filter(|event| transaction_end(event).is_some() && event.lsn < way.stop.lsn);
            if let Some(event) = { ends }.next_back() {
                return Ok(Some(event.lsn));
            }
        }
        Ok(None)
    }

    /// The last commit or abort of a branch beyond a fork that is not past the target, before the first that is.
    fn last_in_time(&mut self, branch: &Branch<'_>, fork: Lsn) -> Planned<Option<(Lsn, PgTime)>, E> {
        let first = SegmentNo::of(fork, self.snapshot.segment_size);
        let target = self.request.target.clone();
        let is_past = |time: PgTime| target.is_past(time) == Some(true);
        let mut last = None;
        // A segment that is all within the target, and not read: there may be many.
        let mut whole: Option<Found> = None;
        for (number, found) in branch.stored(first) {
            let Some((found, facts)) = best(found, self.evidence).map_err(PlanError::Evidence)? else { continue };
            let Some(max_time) = facts.max_time else { continue };
            if number > first && !is_past(max_time) {
                whole = Some(found);
                continue;
            }
            let ends = self.ends_beyond(&found, fork)?;
            let within = ends.iter().copied().take_while(|(_, time)| !is_past(*time)).last();
            if within.is_some() {
                (last, whole) = (within, None);
            }
            if ends.iter().any(|(_, time)| is_past(*time)) {
                break;
            }
        }
        match whole {
            Some(found) => Ok(self.ends_beyond(&found, fork)?.last().copied().or(last)),
            None => Ok(last),
        }
    }

    /// Commits and aborts of a copy from an LSN on.
    fn ends_beyond(&mut self, found: &Found, lsn: Lsn) -> Planned<Vec<(Lsn, PgTime)>, E> {
        let events = self.evidence.events(&found.copy).map_err(PlanError::Evidence)?;
        let ends = events.iter().filter(|event| event.lsn >= lsn && found.holds(event.lsn));
        Ok(ends.filter_map(|event| Some((event.lsn, transaction_end(event)?.time))).collect())
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

    /// A note if a newer timeline branched off the chosen one before the stop, unless that was said already or is what the user
    /// asked for.
    pub(super) fn look_for_newer(&mut self, way: &Way<'_>) {
        let said = self.notes.iter().any(|note| matches!(note, PlanNote::BeforeFirstCommitOf { .. }));
        if said || self.request.timeline.is_some() {
            return;
        }
        let newer = self.snapshot.timelines.keys().rev().copied().filter(|newer| *newer > way.branch.timeline());
        for newer in newer {
            let Ok(other) = Branch::new(self.snapshot, newer) else { continue };
            let Some((_, Some(fork))) = other.history.branch_point(&way.branch.history) else { continue };
            if fork < way.stop.limit() {
                self.notes.push(PlanNote::NotNewest { newer, fork });
                return;
            }
        }
    }

    /// Latest time of a commit or abort in the segments of a branch from a fork on.
    fn last_in_time_of_all(&mut self, branch: &Branch<'_>, fork: Lsn) -> Planned<Option<PgTime>, E> {
        let first = SegmentNo::of(fork, self.snapshot.segment_size);
        let mut latest = None;
        for (_, found) in branch.stored(first) {
            let found = best(found, self.evidence).map_err(PlanError::Evidence)?;
            latest = latest.max(found.and_then(|(_, facts)| facts.max_time));
        }
        Ok(latest)
    }
}
