//! What lies behind the stop point: the commits that will be lost, and times that run backwards around a target.
//!
//! Goes by the summaries of the segments up to the end of the archived WAL; reads the segment of the stop, those with the first
//! and the last lost commit, and a few in which commits lie on both sides of the target.

use std::collections::BTreeSet;

use super::branch::{Branch, Found};
use super::choose::{Planned, Planner, Way};
use super::plan::{Commit, Crossing, Lost, PlanNote};
use super::snapshot::WalEvidence;
use super::walk::{best, commits_in, transaction_end};
use super::{PlanError, RecoveryTarget, TargetKind};
use crate::wal::{EventKind, Lsn, PgTime, SegmentFacts, SegmentNo};

/// Most segments that are read for [`PlanNote::EarlierTimesBehind`], and for [`PlanNote::PassedAgain`].
const MOST_READ: usize = 16;
/// Most crossings that are told.
const MOST_CROSSINGS: usize = 8;

impl<E: WalEvidence> Planner<'_, E> {
    /// The commits between the stop point and the end of the branch.
    pub(super) fn lost(&mut self, way: &Way<'_>) -> Planned<Lost, E> {
        let stop = way.walk.last.as_ref().map_or(way.walk.first, |(number, _)| *number);
        let mut lost = Lost {
            commits: 0,
            first: None,
            last: None,
            timeline: way.branch.timeline(),
            end: way.stop.lsn,
            complete: true,
        };
        let mut expected = stop;
        let mut last_with_commits: Option<Found> = None;
        for (number, found) in way.branch.stored(stop) {
            let Some((found, facts)) = best(found, self.evidence).map_err(PlanError::Evidence)? else { continue };
            lost.complete &= number == expected && found.valid_until.is_none();
            expected = number.next();
            lost.end = lost.end.max(found.valid_until.unwrap_or(facts.end));
            if facts.commits == 0 {
                continue;
            }
            let is_whole = number > stop && found.valid_until.is_none();
            if is_whole && lost.first.is_some() {
                lost.commits += u64::from(facts.commits);
                last_with_commits = Some(found);
                continue;
            }
            let commits = commits_in(&found, &way.branch, self.evidence).map_err(PlanError::Evidence)?;
            let behind: Vec<Commit> = commits.into_iter().filter(|commit| commit.lsn >= way.stop.limit()).collect();
            lost.commits += behind.len() as u64;
            lost.first = lost.first.or(behind.first().copied());
            if let Some(last) = behind.last() {
                (lost.last, last_with_commits) = (Some(*last), None);
            }
        }
        lost.complete &= way.branch.damage(way.branch.name(expected)).is_none();
        if let Some(found) = last_with_commits {
            let commits = commits_in(&found, &way.branch, self.evidence).map_err(PlanError::Evidence)?;
            lost.last = commits.last().copied().or(lost.last);
        }
        Ok(lost)
    }

    /// Notes about times that run backwards around the target.
    pub(super) fn look_at_clock(&mut self, way: &Way<'_>) -> Planned<(), E> {
        let TargetKind::Time(_) = self.request.target.kind else { return Ok(()) };
        let target = self.request.target.clone();
        let behind = self.earlier_behind(way, &target)?;
        self.notes.extend(behind);
        let oldest = way.branch.backups().last().map_or(way.backup.stop_lsn, |backup| backup.stop_lsn);
        let mut others = self.crossings(&way.branch, oldest, &target)?;
        others.retain(|crossing| crossing.lsn != way.stop.lsn);
        if !others.is_empty() {
            self.notes.push(PlanNote::PassedAgain { others });
        }
        Ok(())
    }

    /// A note about transactions that are prepared at the stop point, as far as the segments around it tell: those prepared
    /// before it and not finished, and those finished behind it and not prepared there.
    pub(super) fn look_for_prepared(&mut self, way: &Way<'_>) -> Planned<(), E> {
        let limit = if self.request.target.kind == TargetKind::Latest { Lsn(u64::MAX) } else { way.stop.limit() };
        let stop = way.walk.last.as_ref().map_or(way.walk.first, |(number, _)| *number);
        let first = SegmentNo(stop.0.saturating_sub(1)).max(way.walk.first);
        let (mut open, mut begun_behind) = (BTreeSet::new(), BTreeSet::new());
        for (number, found) in way.branch.stored(first).take(3) {
            if number > stop.next() {
                break;
            }
            let Some((found, _)) = best(found, self.evidence).map_err(PlanError::Evidence)? else { continue };
            for event in self.evidence.events(&found.copy).map_err(PlanError::Evidence)? {
                let (xid, behind) = (event.xid, event.lsn >= limit);
                match &event.kind {
                    _ if !found.holds(event.lsn) || xid.0 == 0 => {}
                    EventKind::Prepare { .. } if behind => {
                        begun_behind.insert(xid);
                    }
                    EventKind::Prepare { .. } => {
                        open.insert(xid);
                    }
                    EventKind::Commit(end) | EventKind::Abort(end) if end.prepared && !behind => {
                        open.remove(&xid);
                    }
                    EventKind::Commit(end) | EventKind::Abort(end) if end.prepared && !begun_behind.contains(&xid) => {
                        open.insert(xid);
                    }
                    _ => {}
                }
            }
        }
        if !open.is_empty() {
            self.notes.push(PlanNote::StillPrepared { xids: open.into_iter().collect() });
        }
        Ok(())
    }

    /// Commits behind the stop whose times are not past the target.
    fn earlier_behind(&mut self, way: &Way<'_>, target: &RecoveryTarget) -> Planned<Option<PlanNote>, E> {
        let is_in_time = |time: PgTime| target.is_past(time) == Some(false);
        let stop = way.walk.last.as_ref().map_or(way.walk.first, |(number, _)| *number);
        let (mut count, mut at_least, mut earliest, mut read) = (0, false, None::<PgTime>, 0);
        for (number, found) in way.branch.stored(stop) {
            let Some((found, facts)) = best(found, self.evidence).map_err(PlanError::Evidence)? else { continue };
            if facts.commits == 0 || !facts.min_time.is_some_and(is_in_time) {
                continue;
            }
            let all = number > stop && found.valid_until.is_none() && facts.max_time.is_some_and(is_in_time);
            if all {
                count += u64::from(facts.commits);
                earliest = earlier(earliest, facts.min_time);
                continue;
            }
            if read == MOST_READ {
                at_least = true;
                continue;
            }
            read += 1;
            for commit in commits_in(&found, &way.branch, self.evidence).map_err(PlanError::Evidence)? {
                if commit.lsn >= way.stop.limit() && is_in_time(commit.time) {
                    count += 1;
                    earliest = earlier(earliest, Some(commit.time));
                }
            }
        }
        Ok(earliest.map(|earliest| PlanNote::EarlierTimesBehind { commits: count, at_least, earliest }))
    }

    /// Where commits and aborts of the branch pass from within the target to past it, from an LSN on.
    fn crossings(&mut self, branch: &Branch<'_>, from: Lsn, target: &RecoveryTarget) -> Planned<Vec<Crossing>, E> {
        let is_past = |time: PgTime| target.is_past(time) == Some(true);
        let (mut crossings, mut was_past, mut read) = (Vec::new(), false, 0);
        for (_, found) in branch.stored(SegmentNo::of(from, self.snapshot.segment_size)) {
            let Some((found, facts)) = best(found, self.evidence).map_err(PlanError::Evidence)? else { continue };
            let Some(last) = facts.last_time else { continue };
            if may_cross(&facts, was_past, is_past) && read < MOST_READ {
                read += 1;
                for event in self.evidence.events(&found.copy).map_err(PlanError::Evidence)? {
                    let Some(end) = transaction_end(&event).filter(|_| found.holds(event.lsn)) else { continue };
                    if is_past(end.time) && !was_past && event.lsn >= from && crossings.len() < MOST_CROSSINGS {
                        crossings.push(Crossing { lsn: event.lsn, time: end.time, xid: event.xid });
                    }
                    was_past = is_past(end.time);
                }
            }
            was_past = is_past(last);
        }
        Ok(crossings)
    }
}

/// Whether a segment can hold a crossing, if the end of a transaction before it was past the target or not.
fn may_cross(facts: &SegmentFacts, was_past: bool, is_past: impl Fn(PgTime) -> bool) -> bool {
    let some_past = facts.max_time.is_some_and(&is_past);
    let some_within = facts.min_time.is_some_and(|time| !is_past(time));
    some_past && (some_within || !was_past)
}

fn earlier(a: Option<PgTime>, b: Option<PgTime>) -> Option<PgTime> {
    a.into_iter().chain(b).min()
}
