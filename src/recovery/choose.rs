//! Choosing the timeline for a target.
//!
//! The timeline asked for, or the newest that holds the target: `reach` tries one, `aside` looks at the others, `assemble`
//! makes the plan of the one that is chosen.

use std::collections::BTreeSet;

use super::branch::Branch;
use super::plan::{PlanNote, RestorePlan};
use super::refusal::{Refusal, Unreachable};
use super::snapshot::{BackupFacts, Snapshot, WalEvidence};
use super::walk::{Stop, Walk};
use super::{RecoveryTarget, TargetKind};
use crate::wal::{Lsn, TimelineId};

/// What is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlanRequest {
    /// Where to stop.
    pub target: RecoveryTarget,
    /// The timeline to follow; `None`: the newest that holds the target.
    pub timeline: Option<TimelineId>,
    /// The id of the backup to begin with; `None`: the latest that can lead to the target.
    pub backup: Option<String>,
}

/// Why there is no plan.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PlanError<E> {
    /// The target cannot be reached.
    #[error("{}", .0.why)]
    Unreachable(Box<Refusal>),
    /// What is stored could not be read.
    #[error("stored WAL could not be read for the plan")]
    Evidence(#[source] E),
}

/// Makes the plan for a target.
///
/// # Errors
/// The target cannot be reached with what is stored, or what is stored cannot be read.
pub fn plan<E: WalEvidence>(
    snapshot: &Snapshot,
    request: &PlanRequest,
    evidence: &mut E,
) -> Result<RestorePlan, PlanError<E::Error>> {
    let mut planner = Planner { snapshot, request, evidence, notes: Vec::new() };
    match planner.choose() {
        Ok(way) => planner.complete(way),
        Err(PlanError::Unreachable(refusal)) => {
            let refusal = planner.refuse(refusal.why)?;
            Err(PlanError::Unreachable(Box::new(refusal)))
        }
        Err(error) => Err(error),
    }
}

/// A plan in the making.
pub(super) struct Planner<'a, E> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) request: &'a PlanRequest,
    pub(super) evidence: &'a mut E,
    pub(super) notes: Vec<PlanNote>,
}

/// A timeline on which the target can be reached, and how.
pub(super) struct Way<'a> {
    pub(super) branch: Branch<'a>,
    pub(super) backup: &'a BackupFacts,
    pub(super) walk: Walk,
    pub(super) stop: Stop,
    /// What PostgreSQL is told instead of the target, where it could not stop there by itself.
    pub(super) instead: Option<RecoveryTarget>,
    /// Other restore points of the same name.
    pub(super) same_name: Vec<Lsn>,
}

pub(super) type Planned<T, E> = Result<T, PlanError<<E as WalEvidence>::Error>>;

/// A refusal for which nothing else was looked for yet.
pub(super) fn unreachable<T, E>(why: Unreachable) -> Result<T, PlanError<E>> {
    Err(PlanError::Unreachable(Box::new(Refusal::plain(why))))
}

impl<'a, E: WalEvidence> Planner<'a, E> {
    /// A planner for another request in the same repository.
    pub(super) fn of<'r>(&'r mut self, request: &'r PlanRequest) -> Planner<'r, E> {
        Planner { snapshot: self.snapshot, request, evidence: self.evidence, notes: Vec::new() }
    }

    /// The way along one timeline, if there is one.
    pub(super) fn try_reach(
        &mut self,
        timeline: TimelineId,
        given: Option<&'a BackupFacts>,
    ) -> Planned<Option<Way<'a>>, E> {
        match self.reach(timeline, given) {
            Ok(way) => Ok(Some(way)),
            Err(PlanError::Unreachable(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The way on the timeline asked for, or on the newest one that holds the target.
    fn choose(&mut self) -> Planned<Way<'a>, E> {
        if self.snapshot.backups.is_empty() {
            return unreachable(Unreachable::NoBackup);
        }
        let given = match &self.request.backup {
            None => None,
            Some(id) => match self.snapshot.backups.iter().find(|backup| backup.id == *id) {
                None => return unreachable(Unreachable::UnknownBackup { id: id.clone() }),
                found => found,
            },
        };
        if let Some(timeline) = self.request.timeline {
            return self.reach(timeline, given);
        }
        if self.request.target.kind == TargetKind::Immediate {
            let newest = self.snapshot.backups.iter().max_by_key(|backup| (backup.stop_timeline, backup.stop_lsn));
            let Some(backup) = given.or(newest) else { return unreachable(Unreachable::NoBackup) };
            return self.reach(backup.stop_timeline, Some(backup));
        }
        let known = self.snapshot.timelines.keys().copied();
        let known: BTreeSet<TimelineId> =
            known.chain(self.snapshot.backups.iter().map(|backup| backup.stop_timeline)).collect();
        let mut refusal: Option<Unreachable> = None;
        for timeline in known.iter().rev().copied() {
            match self.reach(timeline, given) {
                Ok(way) => match self.rival(&way)? {
                    None => {
                        self.look_aside(&way, given, &known)?;
                        return Ok(way);
                    }
                    Some(rival) => {
                        self.notes.push(PlanNote::BeforeFirstCommitOf { timeline, fork: rival.fork });
                        refusal = Some(Unreachable::BetweenBranches {
                            older: rival.timeline,
                            older_last: rival.time,
                            older_lsn: rival.lsn,
                            newer: timeline,
                            newer_lsn: way.stop.lsn,
                            fork: rival.fork,
                        });
                    }
                },
                Err(PlanError::Unreachable(refused)) => {
                    if let Unreachable::HistoryMissing { timeline } = refused.why {
                        self.notes.push(PlanNote::HistoryMissing { timeline });
                    }
                    refusal = Some(more_telling(refusal, refused.why));
                }
                Err(evidence) => return Err(evidence),
            }
            // The end of the WAL is that of the newest timeline, or its gap is to be told: an older one is no substitute.
            let ended = matches!(
                refusal,
                Some(Unreachable::Gap { .. } | Unreachable::DamagedSegment { .. } | Unreachable::MinimalWal { .. })
            );
            if self.request.target.kind == TargetKind::Latest && ended {
                break;
            }
        }
        unreachable(refusal.unwrap_or(Unreachable::NoBackup))
    }
}

/// Of two refusals the one to show: what would have to be mended, then what is nearest.
fn more_telling(old: Option<Unreachable>, new: Unreachable) -> Unreachable {
    let rank = |why: &Unreachable| match why {
        Unreachable::BetweenBranches { .. } => 6,
        Unreachable::Gap { .. } | Unreachable::DamagedSegment { .. } | Unreachable::MinimalWal { .. } => 5,
        Unreachable::AfterEnd { .. } => 4,
        Unreachable::BackupTooLate { .. } | Unreachable::BeforeFirstBackup { .. } => 3,
        Unreachable::NotFound { .. } => 2,
        Unreachable::BackupOnOtherBranch { .. }
        | Unreachable::NoBackupOnTimeline { .. }
        | Unreachable::HistoryMissing { .. } => 1,
        Unreachable::NoBackup | Unreachable::UnknownBackup { .. } | Unreachable::UnknownTimeline { .. } => 0,
    };
    match old {
        Some(old) if rank(&old) >= rank(&new) => old,
        _ => new,
    }
}
