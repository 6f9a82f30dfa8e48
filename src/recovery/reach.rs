//! The way along one timeline: where to stop on it, and the latest backup that leads there.

use std::collections::BTreeSet;

use super::branch::Branch;
use super::choose::{Planned, Planner, Way, unreachable};
use super::plan::Unreachable;
use super::snapshot::{BackupFacts, WalEvidence};
use super::walk::{self, Goal, Stop, Walk, WalkEnd, clean_before_start};
use super::{PlanError, TargetKind, locate};
use crate::wal::{Event, Lsn, SegmentNo, TimelineId};

/// WAL pages have 8 KiB (`XLOG_BLCKSZ`), and a record begins behind the page's header.
const WAL_PAGE_BYTES: u64 = 8192;
const SHORT_HEADER_BYTES: u64 = 24;
const LONG_HEADER_BYTES: u64 = 40;

impl<'a, E: WalEvidence> Planner<'a, E> {
    /// The way along one timeline, with the latest backup that will do.
    pub(super) fn reach(&mut self, timeline: TimelineId, given: Option<&'a BackupFacts>) -> Planned<Way<'a>, E> {
        let branch = Branch::new(self.snapshot, timeline).map_err(|why| PlanError::Unreachable(Box::new(why)))?;
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
        let (goal, same_name) = self.goal(&branch, oldest)?;
        for (at, backup) in backups.iter().copied().enumerate() {
            if !self.may_serve(&branch, backup, backups.get(at + 1).copied(), &goal)? {
                continue;
            }
            let walk = walk::walk(&branch, backup, &goal, self.evidence).map_err(PlanError::Evidence)?;
            if let Some(stop) = self.arrived(&branch, backup, &walk)? {
                return Ok(Way { branch, backup, walk, stop, same_name });
            }
        }
        unreachable(match given {
            Some(backup) => Unreachable::BackupTooLate { id: backup.id.clone(), stop_lsn: backup.stop_lsn },
            None => Unreachable::BeforeFirstBackup {
                first: oldest.id.clone(),
                stop_lsn: oldest.stop_lsn,
                stop_time: oldest.stop_time,
            },
        })
    }

    /// Where to walk to; the other restore points of the same name.
    fn goal(&mut self, branch: &Branch<'_>, oldest: &BackupFacts) -> Planned<(Goal, Vec<Lsn>), E> {
        let target = &self.request.target;
        let first = SegmentNo::of(oldest.start_lsn, self.snapshot.segment_size);
        let not_found = || unreachable(Unreachable::NotFound { target: target.clone() });
        let goal = match &target.kind {
            TargetKind::Time(_) => Goal::Time(target.clone()),
            TargetKind::Lsn(lsn) => {
                Goal::Lsn { lsn: record_start(*lsn, self.snapshot.segment_size.bytes()), inclusive: target.inclusive }
            }
            TargetKind::Immediate => Goal::Consistent,
            TargetKind::Latest => Goal::End,
            TargetKind::Xid(xid) => {
                let found = locate::transaction(branch, first, *xid, self.evidence).map_err(PlanError::Evidence)?;
                let Some(event) = found else { return not_found() };
                Goal::Record { event, before: !target.inclusive }
            }
            TargetKind::Name(name) => {
                let found = locate::restore_points(branch, first, name, self.evidence).map_err(PlanError::Evidence)?;
                let mut later: Vec<Event> = found.into_iter().filter(|event| event.lsn >= oldest.stop_lsn).collect();
                if later.is_empty() {
                    return not_found();
                }
                let event = later.remove(0);
                let others = later.iter().map(|event| event.lsn).collect();
                return Ok((Goal::Record { event, before: false }, others));
            }
        };
        Ok((goal, Vec::new()))
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
            Goal::Lsn { lsn, .. } => *lsn >= backup.stop_lsn,
            Goal::Record { event, .. } => event.lsn >= backup.stop_lsn,
            Goal::Consistent | Goal::End => true,
        })
    }

    /// The stop point if the walk got there; `None` if this backup already holds what lies past the target.
    fn arrived(&mut self, branch: &Branch<'_>, backup: &BackupFacts, walk: &Walk) -> Planned<Option<Stop>, E> {
        let stop = match &walk.end {
            WalkEnd::Stop(stop) if stop.lsn >= backup.stop_lsn => stop.clone(),
            WalkEnd::Stop(_) => return Ok(None),
            WalkEnd::Archive(end) if self.request.target.kind == TargetKind::Latest && *end >= backup.stop_lsn => {
                Stop { lsn: *end, time: None, xid: None, before: true }
            }
            WalkEnd::Archive(end) => {
                let last_commit = walk.last_commit(branch, self.evidence).map_err(PlanError::Evidence)?;
                return unreachable(Unreachable::AfterEnd {
                    timeline: branch.timeline(),
                    end: *end,
                    last_time: walk.max_time,
                    last_commit,
                });
            }
            WalkEnd::Gap { missing, next } => {
                let last_commit = walk.last_commit(branch, self.evidence).map_err(PlanError::Evidence)?;
                let (missing, next) = (*missing, *next);
                if let Some(damage) = branch.damage(missing) {
                    let (damage, backup) = (damage.clone(), backup.id.clone());
                    return unreachable(Unreachable::DamagedSegment { damage, backup, last_commit });
                }
                return unreachable(Unreachable::Gap { missing, next, backup: backup.id.clone(), last_commit });
            }
        };
        if let (_, Some(lsn)) = walk.limits(backup, self.evidence).map_err(PlanError::Evidence)? {
            return unreachable(Unreachable::MinimalWal { lsn });
        }
        Ok(Some(stop))
    }
}

/// The first LSN at which a record can begin: behind the page header, if the LSN lies in one.
fn record_start(lsn: Lsn, segment_bytes: u64) -> Lsn {
    let header = if lsn.0 % segment_bytes < LONG_HEADER_BYTES { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES };
    let into_page = lsn.0 % WAL_PAGE_BYTES;
    if into_page < header { Lsn(lsn.0 - into_page + header) } else { lsn }
}
