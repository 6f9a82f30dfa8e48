//! The way along one timeline: where to stop on it, and the latest backup that leads there.

use std::collections::BTreeSet;

use super::branch::Branch;
use super::choose::{Planned, Planner, Way, unreachable};
use super::refusal::Unreachable;
use super::snapshot::{BackupFacts, WalEvidence};
use super::walk::{self, Goal, Sought, Stop, Walk, WalkEnd, clean_before_start};
use super::{PlanError, RecoveryTarget, TargetKind, idle, locate};
use crate::wal::{Event, Lsn, SegmentNo, TimelineId};

/// Most restore points that are named where the one asked for is not found.
const MOST_NAMES: usize = 10;

/// What is to be found on a branch.
struct Errand {
    goal: Goal,
    /// Other restore points of the same name.
    same_name: Vec<Lsn>,
}

impl<'a, E: WalEvidence> Planner<'a, E> {
    /// The way along one timeline, with the latest backup that will do.
    pub(super) fn reach(&mut self, timeline: TimelineId, given: Option<&'a BackupFacts>) -> Planned<Way<'a>, E> {
        let branch = match Branch::new(self.snapshot, timeline) {
            Ok(branch) => branch,
            Err(why) => return unreachable(*why),
        };
        let backups = match given {
            None => branch.backups(),
            Some(backup) if branch.holds(backup) => vec![backup],
            Some(backup) => {
                let elsewhere = self.elsewhere(&branch, backup)?;
                return unreachable(Unreachable::BackupOnOtherBranch {
                    id: elsewhere.id,
                    timeline,
                    backup_timeline: elsewhere.timeline,
                    fork: elsewhere.fork,
                });
            }
        };
        let Some(oldest) = backups.last().copied() else {
            let with_backups: BTreeSet<_> = self.snapshot.backups.iter().map(|backup| backup.stop_timeline).collect();
            let with_backups = with_backups.into_iter().collect();
            let nearest = self.nearest_elsewhere(&branch)?;
            return unreachable(Unreachable::NoBackupOnTimeline { timeline, with_backups, nearest });
        };
        let errands = self.errands(&branch, oldest)?;
        for Errand { goal, same_name } in &errands {
            for (at, backup) in backups.iter().copied().enumerate() {
                if !self.may_serve(&branch, backup, backups.get(at + 1).copied(), goal)? {
                    continue;
                }
                let mut walk = walk::walk(&branch, backup, goal, self.evidence).map_err(PlanError::Evidence)?;
                if let Some((stop, instead)) = self.arrived(&branch, backup, &mut walk)? {
                    let same_name = same_name.clone();
                    return Ok(Way { branch, backup, walk, stop, instead, same_name });
                }
            }
        }
        unreachable(match given {
            Some(backup) => Unreachable::BackupTooLate { id: backup.id.clone(), stop_lsn: backup.stop_lsn },
            None => before_first(oldest, &self.request.target, errands.first().map(|errand| &errand.goal)),
        })
    }

    /// Where to walk to. Of several restore points of one name each is one place to go, the first before the others.
    fn errands(&mut self, branch: &Branch<'_>, oldest: &BackupFacts) -> Planned<Vec<Errand>, E> {
        let target = &self.request.target;
        let size = self.snapshot.segment_size;
        let first = SegmentNo::of(oldest.start_lsn, size);
        let goal = match &target.kind {
            TargetKind::Time(_) => Goal::Time(target.clone()),
            TargetKind::Immediate => Goal::Consistent,
            TargetKind::Latest => Goal::End,
            TargetKind::Lsn(lsn) => {
                let found = locate::record(branch, *lsn, !target.inclusive, self.evidence);
                // Beyond what is stored: the walk finds out what is in the way.
                found.map_err(PlanError::Evidence)?.map_or(Goal::End, Goal::Record)
            }
            TargetKind::Xid(xid) => {
                let found = locate::transaction(branch, first, *xid, self.evidence).map_err(PlanError::Evidence)?;
                let Some(event) = found else { return self.not_found(branch, first) };
                Goal::Record(Sought::event(&event, !target.inclusive, size))
            }
            TargetKind::Name(name) => {
                let found = locate::restore_points(branch, first, name, self.evidence).map_err(PlanError::Evidence)?;
                if found.is_empty() {
                    return self.not_found(branch, first);
                }
                let places: Vec<Lsn> = found.iter().map(|event| event.lsn).collect();
                let errand = |event: &Event| {
                    let earlier = places.iter().copied().filter(|lsn| *lsn < event.lsn).collect();
                    let others = places.iter().copied().filter(|lsn| *lsn != event.lsn && *lsn >= oldest.stop_lsn);
                    let goal = Goal::Record(Sought { earlier, ..Sought::event(event, false, size) });
                    Errand { goal, same_name: others.collect() }
                };
                return Ok(found.iter().map(errand).collect());
            }
        };
        Ok(vec![Errand { goal, same_name: Vec::new() }])
    }

    /// The refusal for a transaction or a name that no record of the branch is about.
    fn not_found<T>(&mut self, branch: &Branch<'_>, first: SegmentNo) -> Planned<T, E> {
        let mut names = Vec::new();
        if let TargetKind::Name(_) = self.request.target.kind {
            let points = locate::all_restore_points(branch, first, self.evidence).map_err(PlanError::Evidence)?;
            names.extend(points.iter().rev().filter_map(walk::restore_point).map(str::to_owned).take(MOST_NAMES));
        }
        unreachable(Unreachable::NotFound { target: self.request.target.clone(), names })
    }

    /// What can be said of a backup without walking: it must not hold what lies past the target.
    fn may_serve(
        &mut self,
        branch: &Branch<'_>,
        backup: &BackupFacts,
        older: Option<&BackupFacts>,
        goal: &Goal,
    ) -> Planned<bool, E> {
        Ok(match goal {
            Goal::Time(target) => {
                clean_before_start(branch, backup, target, older, self.evidence).map_err(PlanError::Evidence)?
            }
            Goal::Record(sought) => {
                // A record that is replayed itself may be the one that makes the backup consistent.
                let completes = !sought.stop.before && sought.end_lsn.is_some_and(|end| end >= backup.stop_lsn);
                let early = sought.earlier.iter().any(|lsn| *lsn >= backup.start_lsn);
                (sought.stop.lsn >= backup.stop_lsn || completes) && !early
            }
            Goal::Consistent => true,
            Goal::End => match self.request.target.kind {
                TargetKind::Lsn(lsn) => lsn >= backup.stop_lsn,
                _ => true,
            },
        })
    }

    /// The stop point if the walk got there, and what PostgreSQL is told instead of the target where it could not stop there
    /// by itself; `None` if this backup already holds what lies past the target.
    fn arrived(
        &mut self,
        branch: &Branch<'_>,
        backup: &BackupFacts,
        walk: &mut Walk,
    ) -> Planned<Option<(Stop, Option<RecoveryTarget>)>, E> {
        let kind = &self.request.target.kind;
        let mut instead = None;
        let stop = match &walk.end {
            WalkEnd::Stop(stop) if matches!(kind, TargetKind::Time(_)) && stop.lsn < backup.stop_lsn => {
                return Ok(None);
            }
            WalkEnd::Stop(stop) => stop.clone(),
            WalkEnd::Archive(end) if *kind == TargetKind::Latest && *end >= backup.stop_lsn => {
                Stop { lsn: *end, time: None, xid: None, before: true }
            }
            WalkEnd::Archive(_) | WalkEnd::Gap { .. } => {
                let sign = idle::sign(branch, walk, self.evidence).map_err(PlanError::Evidence)?;
                match sign.filter(|sign| self.request.target.is_past(sign.time) == Some(true)) {
                    Some(sign) if sign.lsn >= backup.stop_lsn => {
                        instead = RecoveryTarget::exclusive(TargetKind::Lsn(sign.lsn)).ok();
                        walk.end_with(sign.ends_in, branch);
                        Stop { lsn: sign.lsn, time: Some(sign.time), xid: None, before: true }
                    }
                    _ => return self.did_not_arrive(branch, backup, walk, sign),
                }
            }
        };
        let limits = walk.limits(branch, backup, stop.limit(), self.evidence).map_err(PlanError::Evidence)?;
        if let (_, Some(lsn)) = limits {
            return unreachable(Unreachable::MinimalWal { timeline: branch.timeline(), lsn });
        }
        Ok(Some((stop, instead)))
    }

    /// The refusal where the stored WAL ends before the target.
    fn did_not_arrive<T>(
        &mut self,
        branch: &Branch<'_>,
        backup: &BackupFacts,
        walk: &Walk,
        sign: Option<idle::Sign>,
    ) -> Planned<T, E> {
        let last_commit = walk.last_commit(Lsn(u64::MAX), branch, self.evidence).map_err(PlanError::Evidence)?;
        let timeline = branch.timeline();
        unreachable(match &walk.end {
            WalkEnd::Gap { missing, next } => {
                let (backup, missing, next) = (backup.id.clone(), *missing, *next);
                match branch.damage(missing).cloned() {
                    Some(damage) => Unreachable::DamagedSegment { timeline, damage, backup, last_commit },
                    None => Unreachable::Gap { timeline, missing, next, backup, last_commit },
                }
            }
            WalkEnd::Archive(end) => Unreachable::AfterEnd {
                timeline,
                end: *end,
                last_time: walk.max_time,
                last_commit,
                known_until: sign.map(|sign| sign.time),
            },
            // The caller asks only where there is no stop.
            WalkEnd::Stop(stop) => {
                Unreachable::AfterEnd { timeline, end: stop.lsn, last_time: None, last_commit, known_until: None }
            }
        })
    }
}

/// The refusal for a target before the first backup is consistent.
fn before_first(oldest: &BackupFacts, target: &RecoveryTarget, goal: Option<&Goal>) -> Unreachable {
    let inside = match (&target.kind, goal) {
        (TargetKind::Time(time), _) => *time >= oldest.start_time && *time <= oldest.stop_time,
        (_, Some(Goal::Record(sought))) => sought.stop.lsn >= oldest.start_lsn,
        _ => false,
    };
    Unreachable::BeforeFirstBackup {
        first: oldest.id.clone(),
        start_lsn: oldest.start_lsn,
        start_time: oldest.start_time,
        stop_lsn: oldest.stop_lsn,
        stop_time: oldest.stop_time,
        inside,
    }
}
