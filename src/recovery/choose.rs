//! Choosing timeline and backup for a target, and putting the plan together.

use std::collections::BTreeSet;

use super::branch::Branch;
use super::plan::{LaidSegment, PathStep, PlanNote, RestorePlan, SegmentRun, StopPoint, Unreachable};
use super::snapshot::{BackupFacts, Snapshot, WalCopy, WalEvidence};
use super::walk::{self, Goal, Stop, Walk, WalkEnd, clean_before_start, copies, transaction_end};
use super::{RecoveryTarget, TargetKind, locate};
use crate::wal::{Event, Lsn, PgTime, SegmentName, SegmentNo, TimelineId};

/// WAL pages have 8 KiB (`XLOG_BLCKSZ`), and a record begins behind the page's header.
const WAL_PAGE_BYTES: u64 = 8192;
const SHORT_HEADER_BYTES: u64 = 24;
const LONG_HEADER_BYTES: u64 = 40;

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
    #[error(transparent)]
    Unreachable(Box<Unreachable>),
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
    let way = planner.choose()?;
    planner.complete(way)
}

struct Planner<'a, E> {
    snapshot: &'a Snapshot,
    request: &'a PlanRequest,
    evidence: &'a mut E,
    notes: Vec<PlanNote>,
}

/// A timeline on which the target can be reached, and how.
struct Way<'a> {
    branch: Branch<'a>,
    backup: &'a BackupFacts,
    walk: Walk,
    stop: Stop,
    same_name: Vec<Lsn>,
}

type Planned<T, E> = Result<T, PlanError<<E as WalEvidence>::Error>>;

fn unreachable<T, E>(why: Unreachable) -> Result<T, PlanError<E>> {
    Err(PlanError::Unreachable(Box::new(why)))
}

impl<'a, E: WalEvidence> Planner<'a, E> {
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
                Ok(way) => match self.passed_over(&way)? {
                    None => {
                        self.look_aside(&way, given, &known)?;
                        return Ok(way);
                    }
                    Some(note) => {
                        self.notes.push(note);
                        refusal = Some(
                            self.between(&way)?
                                .unwrap_or_else(|| Unreachable::UnknownTimeline { timeline, known: Vec::new() }),
                        );
                    }
                },
                Err(PlanError::Unreachable(why)) => {
                    if let Unreachable::HistoryMissing { timeline } = *why {
                        self.notes.push(PlanNote::HistoryMissing { timeline });
                    }
                    refusal = Some(more_telling(refusal, *why));
                }
                Err(evidence) => return Err(evidence),
            }
            // The end of the WAL is that of the newest timeline, or its gap is to be told: an older one is no substitute.
            let ended = matches!(refusal, Some(Unreachable::Gap { .. } | Unreachable::MinimalWal { .. }));
            if self.request.target.kind == TargetKind::Latest && ended {
                break;
            }
        }
        unreachable(refusal.unwrap_or(Unreachable::NoBackup))
    }

    /// The way along one timeline, with the latest backup that will do.
    fn reach(&mut self, timeline: TimelineId, given: Option<&'a BackupFacts>) -> Planned<Way<'a>, E> {
        let branch = Branch::new(self.snapshot, timeline).map_err(|why| PlanError::Unreachable(Box::new(why)))?;
        let backups = match given {
            None => branch.backups(),
            Some(backup) if branch.holds(backup) => vec![backup],
            Some(backup) => {
                return unreachable(Unreachable::BackupOnOtherBranch { id: backup.id.clone(), timeline });
            }
        };
        let Some(oldest) = backups.last().copied() else {
            let with_backups: BTreeSet<_> = self.snapshot.backups.iter().map(|backup| backup.stop_timeline).collect();
            let with_backups = with_backups.into_iter().collect();
            return unreachable(Unreachable::NoBackupOnTimeline { timeline, with_backups });
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
                return unreachable(Unreachable::Gap { missing, next, backup: backup.id.clone(), last_commit });
            }
        };
        if let (_, Some(lsn)) = walk.limits(backup, self.evidence).map_err(PlanError::Evidence)? {
            return unreachable(Unreachable::MinimalWal { lsn });
        }
        Ok(Some(stop))
    }

    /// For a time: the fork in whose gap it lies, if the timeline that was left there has commits in the gap.
    ///
    /// After a restore to 14:00 at 14:40, the new timeline holds "14:20" only in the sense that its first commit came later.
    /// Who asks for 14:20 means the state that the cluster had then, which the older timeline holds.
    fn passed_over(&mut self, way: &Way<'_>) -> Planned<Option<PlanNote>, E> {
        Ok(self.rival(way)?.map(|(_, fork, _)| PlanNote::BeforeFirstCommitOf { timeline: way.branch.timeline(), fork }))
    }

    /// The refusal for a time in the gap of a fork that no timeline holds.
    fn between(&mut self, way: &Way<'_>) -> Planned<Option<Unreachable>, E> {
        let newer = way.branch.timeline();
        Ok(self.rival(way)?.map(|(older, _, older_last)| Unreachable::BetweenBranches { older, older_last, newer }))
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
    fn look_aside(
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

    /// The plan of a way.
    fn complete(mut self, way: Way<'_>) -> Planned<RestorePlan, E> {
        let size = self.snapshot.segment_size;
        let last_commit = way.walk.last_commit(&way.branch, self.evidence).map_err(PlanError::Evidence)?;
        let (limits, _) = way.walk.limits(way.backup, self.evidence).map_err(PlanError::Evidence)?;
        let timeline = match self.request.target.kind {
            TargetKind::Latest => way.branch.timeline(),
            TargetKind::Immediate => way.backup.stop_timeline,
            _ => way.branch.history.timeline_at(way.stop.lsn),
        };
        if !way.same_name.is_empty() {
            self.notes.push(PlanNote::SameName { others: way.same_name.clone() });
        }
        let (wal, lay) = self.wal(&way, timeline);
        let segment =
            wal.last().map_or(SegmentName::new(timeline, SegmentNo::of(way.stop.lsn, size), size), |run| run.last);
        let path = way.branch.history.path();
        let path = path.skip_while(|(step, _)| *step < way.backup.start_timeline).filter(|(step, _)| *step <= timeline);
        let path = path.map(|(step, until)| PathStep { timeline: step, until: until.filter(|_| step < timeline) });
        Ok(RestorePlan {
            target: self.request.target.clone(),
            backup: way.backup.clone(),
            timeline,
            path: path.collect(),
            wal_segments: wal.iter().map(|run| run.count).sum(),
            wal_stored_bytes: wal.iter().map(|run| run.stored_bytes).sum(),
            wal,
            lay,
            stop: StopPoint {
                lsn: way.stop.lsn,
                timeline,
                segment,
                time: way.stop.time,
                xid: way.stop.xid,
                before: way.stop.before,
            },
            last_commit,
            limits,
            notes: self.notes,
        })
    }

    /// The segments as PostgreSQL will ask for them, and those it will not get from `pitr-wal-fetch`.
    ///
    /// It follows the timeline of the stop point and looks for nothing on a later one. Where that timeline's own copy of its last
    /// segment was never completed, the child's copy has the same bytes up to the fork, and the stop lies before it.
    fn wal(&self, way: &Way<'_>, timeline: TimelineId) -> (Vec<SegmentRun>, Vec<LaidSegment>) {
        let mut runs: Vec<SegmentRun> = Vec::new();
        let mut lay = Vec::new();
        for step in &way.walk.segments {
            let name = step.found.copy.segment();
            let (name, stored_bytes) = if name.timeline() > timeline {
                let own = name.on(timeline);
                let stored =
                    self.snapshot.timelines.get(&timeline).and_then(|record| record.segments.get(&step.number));
                if stored.is_none() {
                    lay.push(LaidSegment { copy: step.found.copy.clone(), name: own });
                }
                (own, stored.copied().unwrap_or(step.found.stored_bytes))
            } else {
                if !matches!(step.found.copy, WalCopy::Segment(_)) {
                    lay.push(LaidSegment { copy: step.found.copy.clone(), name });
                }
                (name, step.found.stored_bytes)
            };
            match runs.last_mut() {
                Some(run) if run.last.timeline() == name.timeline() => {
                    run.last = name;
                    run.count += 1;
                    run.stored_bytes += stored_bytes;
                }
                _ => runs.push(SegmentRun { first: name, last: name, count: 1, stored_bytes }),
            }
        }
        (runs, lay)
    }
}

/// The first LSN at which a record can begin: behind the page header, if the LSN lies in one.
fn record_start(lsn: Lsn, segment_bytes: u64) -> Lsn {
    let header = if lsn.0 % segment_bytes < LONG_HEADER_BYTES { LONG_HEADER_BYTES } else { SHORT_HEADER_BYTES };
    let into_page = lsn.0 % WAL_PAGE_BYTES;
    if into_page < header { Lsn(lsn.0 - into_page + header) } else { lsn }
}

/// Of two refusals the one to show: what would have to be mended, then what is nearest.
fn more_telling(old: Option<Unreachable>, new: Unreachable) -> Unreachable {
    let rank = |why: &Unreachable| match why {
        Unreachable::BetweenBranches { .. } => 6,
        Unreachable::Gap { .. } | Unreachable::MinimalWal { .. } => 5,
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
