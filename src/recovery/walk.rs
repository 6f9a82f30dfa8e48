//! Walking the stored WAL from a backup to the place where PostgreSQL will stop.
//!
//! The walk goes by the summaries of the segments and reads only the one in which the target lies. It stops where
//! `recoveryStopsBefore` and `recoveryStopsAfter` (`xlogrecovery.c`) do: for a time at the first commit or abort in LSN
//! order that is past it, although times are not monotonic.

use super::branch::{Branch, Found};
use super::plan::Commit;
use super::snapshot::{BackupFacts, WalEvidence};
use super::{RecoveryTarget, TargetKind};
use crate::wal::{
    Event, EventKind, Lsn, PgTime, SegmentEnding, SegmentFacts, SegmentName, SegmentNo, SegmentSize, ServerLimits,
    TransactionEnd, WalLevel, Xid,
};

/// How many segments around the backup's start are looked into for a commit.
const LOOK_BACK_SEGMENTS: u32 = 32;

const SECOND_US: i64 = 1_000_000;

/// A backup's times are by the clock of the machine that took it, those of commits by the server's. Beyond this difference
/// they are believed to be in order without a look at the WAL.
const MOST_CLOCK_ERROR_US: i64 = 3600 * SECOND_US;

/// Where to walk to.
#[derive(Clone, Debug)]
pub(super) enum Goal {
    /// The first commit or abort past a time.
    Time(RecoveryTarget),
    /// A record found before.
    Record(Sought),
    /// The backup's stop LSN.
    Consistent,
    /// The end of the WAL.
    End,
}

/// The record that an LSN, an xid or a name means.
#[derive(Clone, Debug)]
pub(super) struct Sought {
    pub(super) stop: Stop,
    /// The segment in which it ends: until then it cannot be replayed.
    pub(super) ends_in: SegmentNo,
    /// Where it ends, if that is known.
    pub(super) end_lsn: Option<Lsn>,
    /// Records before it at which PostgreSQL would stop too: restore points of the same name.
    pub(super) earlier: Vec<Lsn>,
}

impl Sought {
    /// The record of an event.
    pub(super) fn event(event: &Event, before: bool, size: SegmentSize) -> Self {
        let stop = Stop { lsn: event.lsn, time: time_of(event), xid: xid_of(event), before };
        let ends_in = SegmentNo::before(event.end_lsn, size);
        Sought { stop, ends_in, end_lsn: Some(event.end_lsn), earlier: Vec::new() }
    }
}

/// What lies between a backup and the end of the walk. Segments follow each other without a gap, so that the first and
/// the last of them tell all: a walk over a million segments keeps none of them.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub(super) first: SegmentNo,
    /// The last segment, in the copy that is replayed.
    pub(super) last: Option<(SegmentNo, Found)>,
    pub(super) end: WalkEnd,
    /// Latest time of a commit or abort met.
    pub(super) max_time: Option<PgTime>,
    /// The last two segments with commits: all commits of the last may lie behind the stop.
    with_commits: [Option<SegmentNo>; 2],
    /// Segments with parameter changes. A server writes one when it starts with other settings.
    parameter_changes: Vec<SegmentNo>,
}

/// Why the walk ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum WalkEnd {
    Stop(Stop),
    /// Nothing more is stored; the last record ends here.
    Archive(Lsn),
    Gap {
        missing: SegmentName,
        next: Option<SegmentName>,
    },
}

/// The record at which recovery stops.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stop {
    pub(super) lsn: Lsn,
    pub(super) time: Option<PgTime>,
    pub(super) xid: Option<Xid>,
    pub(super) before: bool,
}

/// Walks from the backup's start along the branch.
pub(super) fn walk<E: WalEvidence>(
    branch: &Branch<'_>,
    backup: &BackupFacts,
    goal: &Goal,
    evidence: &mut E,
) -> Result<Walk, E::Error> {
    let mut number = SegmentNo::of(backup.start_lsn, branch.snapshot.segment_size);
    let mut walk = Walk {
        first: number,
        last: None,
        end: WalkEnd::Archive(backup.start_lsn),
        max_time: None,
        with_commits: [None; 2],
        parameter_changes: Vec::new(),
    };
    loop {
        let Some((found, facts)) = best(branch.find(number, Some(backup)), evidence)? else {
            let (missing, next) = (branch.name(number), branch.next_stored(number));
            // A recovery that asks for a damaged segment is stopped, not told that the archive ends.
            if next.is_some() || branch.damage(missing).is_some() {
                walk.end = WalkEnd::Gap { missing, next };
            }
            return Ok(walk);
        };
        if let Some(stop) = stop_in(number, &found, &facts, backup, goal, evidence)? {
            walk.push(number, found, &facts);
            walk.end = WalkEnd::Stop(stop);
            return Ok(walk);
        }
        let (valid_until, incomplete) = (found.valid_until, !found.copy.is_served());
        if valid_until.is_some() {
            // PostgreSQL would take the parent's copy in its place and follow the branch that was left.
            walk.end = WalkEnd::Gap { missing: branch.name(number), next: branch.next_stored(number) };
            return Ok(walk);
        }
        walk.push(number, found, &facts);
        walk.end = WalkEnd::Archive(facts.end);
        if incomplete || facts.ending == SegmentEnding::Unfinished {
            if let Some(next) = branch.next_stored(number) {
                walk.end = WalkEnd::Gap { missing: branch.name(number), next: Some(next) };
            }
            return Ok(walk);
        }
        number = number.next();
    }
}

/// Of several copies the one that reaches furthest.
pub(super) fn best<E: WalEvidence>(
    candidates: Vec<Found>,
    evidence: &mut E,
) -> Result<Option<(Found, SegmentFacts)>, E::Error> {
    let mut best: Option<(Found, SegmentFacts)> = None;
    for found in candidates {
        let facts = evidence.facts(&found.copy)?;
        if best.as_ref().is_none_or(|(_, so_far)| facts.end > so_far.end) {
            best = Some((found, facts));
        }
    }
    Ok(best)
}

/// The place in this segment where recovery stops, if it does.
fn stop_in<E: WalEvidence>(
    number: SegmentNo,
    found: &Found,
    facts: &SegmentFacts,
    backup: &BackupFacts,
    goal: &Goal,
    evidence: &mut E,
) -> Result<Option<Stop>, E::Error> {
    Ok(match goal {
        Goal::Time(target) => {
            let past = |time: PgTime| target.is_past(time) == Some(true);
            if !facts.max_time.is_some_and(past) {
                return Ok(None);
            }
            let events = evidence.events(&found.copy)?;
            let mut ends = events.iter().filter_map(|event| Some((event, transaction_end(event)?)));
            let stop =
                ends.find(|(event, end)| event.lsn >= backup.start_lsn && found.holds(event.lsn) && past(end.time));
            stop.map(|(event, end)| Stop { lsn: event.lsn, time: Some(end.time), xid: Some(event.xid), before: true })
        }
        Goal::Record(sought) => (number == sought.ends_in && found.holds(sought.stop.lsn)).then(|| sought.stop.clone()),
        Goal::Consistent => {
            let here = backup.stop_lsn <= facts.end && found.holds(Lsn(backup.stop_lsn.0.saturating_sub(1)));
            here.then_some(Stop { lsn: backup.stop_lsn, time: None, xid: None, before: true })
        }
        Goal::End => None,
    })
}

impl Walk {
    fn push(&mut self, number: SegmentNo, found: Found, facts: &SegmentFacts) {
        self.max_time = self.max_time.max(facts.max_time);
        if facts.commits > 0 {
            self.with_commits = [self.with_commits[1], Some(number)];
        }
        if facts.parameter_changes > 0 {
            self.parameter_changes.push(number);
        }
        self.last = Some((number, found));
    }

    /// The segments with the copies that are replayed, in order.
    pub(super) fn segments<'w>(
        &'w self,
        branch: &'w Branch<'_>,
        backup: &'w BackupFacts,
    ) -> impl Iterator<Item = (SegmentNo, Found)> + 'w {
        let last = self.last.clone();
        let end = last.as_ref().map_or(self.first, |(number, _)| *number);
        // All but the last are complete, since the walk ends at an incomplete one.
        let before = (self.first.0..end.0).map(SegmentNo);
        let before = before.filter_map(|number| Some((number, branch.find(number, Some(backup)).into_iter().next()?)));
        before.chain(last)
    }

    /// Forgets what lies behind a segment of the walk.
    pub(super) fn end_with(&mut self, number: SegmentNo, branch: &Branch<'_>) {
        self.last = self.copy(number, branch).map(|found| (number, found));
    }

    /// The copy of a segment of the walk that is replayed.
    pub(super) fn copy(&self, number: SegmentNo, branch: &Branch<'_>) -> Option<Found> {
        match &self.last {
            Some((last, found)) if *last == number => Some(found.clone()),
            _ => branch.find(number, None).into_iter().next(),
        }
    }

    /// The last commit before `limit`, or one that was made shortly before the backup's start.
    pub(super) fn last_commit<E: WalEvidence>(
        &self,
        limit: Lsn,
        branch: &Branch<'_>,
        evidence: &mut E,
    ) -> Result<Option<Commit>, E::Error> {
        for number in self.with_commits.into_iter().rev().flatten() {
            let Some(found) = self.copy(number, branch) else { continue };
            if let Some(commit) = last_commit_in(&found, limit, branch, evidence)? {
                return Ok(Some(commit));
            }
        }
        // It is only for the user's eyes: a cluster that was idle for long is not read through to its last commit.
        let mut number = self.with_commits.into_iter().flatten().next().unwrap_or(self.first);
        for _ in 0..LOOK_BACK_SEGMENTS {
            let Some(before) = number.0.checked_sub(1).map(SegmentNo) else { return Ok(None) };
            number = before;
            let Some((found, facts)) = best(branch.find(number, None), evidence)? else { return Ok(None) };
            if facts.commits > 0
                && let Some(commit) = last_commit_in(&found, limit, branch, evidence)?
            {
                return Ok(Some(commit));
            }
        }
        Ok(None)
    }

    /// The highest settings that the WAL before `limit` asks for, and where it says that it lacks what a restore needs.
    pub(super) fn limits<E: WalEvidence>(
        &self,
        branch: &Branch<'_>,
        backup: &BackupFacts,
        limit: Lsn,
        evidence: &mut E,
    ) -> Result<(Option<ServerLimits>, Option<Lsn>), E::Error> {
        let (mut limits, mut minimal) = (None, None);
        for number in self.parameter_changes.iter().copied() {
            let Some(found) = self.copy(number, branch) else { continue };
            for event in evidence.events(&found.copy)? {
                let EventKind::ParameterChange(asked) = event.kind else { continue };
                if event.lsn < backup.start_lsn || event.lsn >= limit {
                    continue;
                }
                if asked.wal_level == WalLevel::Minimal {
                    minimal = minimal.or(Some(event.lsn));
                }
                limits = Some(limits.map_or(asked, |so_far: ServerLimits| so_far.highest(asked)));
            }
        }
        Ok((limits, minimal))
    }
}

impl Stop {
    /// The first LSN that is not replayed.
    pub(super) fn limit(&self) -> Lsn {
        // A record that is replayed itself: no other begins one byte further.
        if self.before { self.lsn } else { Lsn(self.lsn.0.saturating_add(1)) }
    }
}

/// The last commit in a segment before a limit.
pub(super) fn last_commit_in<E: WalEvidence>(
    found: &Found,
    limit: Lsn,
    branch: &Branch<'_>,
    evidence: &mut E,
) -> Result<Option<Commit>, E::Error> {
    let commits = commits_in(found, branch, evidence)?;
    Ok(commits.into_iter().rev().find(|commit| commit.lsn < limit))
}

/// The commits in a segment that are on the branch, in LSN order.
pub(super) fn commits_in<E: WalEvidence>(
    found: &Found,
    branch: &Branch<'_>,
    evidence: &mut E,
) -> Result<Vec<Commit>, E::Error> {
    let events = evidence.events(&found.copy)?;
    let commits = events.iter().filter(|event| found.holds(event.lsn)).filter_map(|event| {
        let EventKind::Commit(end) = &event.kind else { return None };
        let timeline = branch.history.timeline_at(event.lsn);
        Some(Commit { time: end.time, lsn: event.lsn, xid: event.xid, timeline })
    });
    Ok(commits.collect())
}

/// The commit or abort that a record is: all that `recovery_target_time` and `recovery_target_xid` look at.
pub(super) fn transaction_end(event: &Event) -> Option<&TransactionEnd> {
    match &event.kind {
        EventKind::Commit(end) | EventKind::Abort(end) => Some(end),
        _ => None,
    }
}

fn time_of(event: &Event) -> Option<PgTime> {
    match &event.kind {
        EventKind::Commit(end) | EventKind::Abort(end) => Some(end.time),
        EventKind::RestorePoint { time, .. } => Some(*time),
        _ => None,
    }
}

fn xid_of(event: &Event) -> Option<Xid> {
    transaction_end(event).map(|_| event.xid)
}

/// Whether the backup is proved to hold nothing past a time before its first WAL record.
///
/// The walk sees only what begins at the backup's start. A backup of an idle cluster would otherwise be taken for a time
/// before the last commit that it holds. The last commits and aborts before the start tell, back to the next older
/// backup. Where no WAL tells, the time has to be later than the start by the clock, or than the first commit or abort after it.
pub(super) fn clean_before_start<E: WalEvidence>(
    branch: &Branch<'_>,
    backup: &BackupFacts,
    target: &RecoveryTarget,
    older: Option<&BackupFacts>,
    evidence: &mut E,
) -> Result<bool, E::Error> {
    let TargetKind::Time(time) = target.kind else { return Ok(true) };
    if time.0 >= backup.start_time.0.saturating_add(MOST_CLOCK_ERROR_US) {
        return Ok(true);
    }
    // The start time is cut to the second.
    let later_by_clock = time.0 >= backup.start_time.0.saturating_add(SECOND_US);
    let size = branch.snapshot.segment_size;
    let floor = older.map_or(SegmentNo(0), |older| SegmentNo::before(older.stop_lsn, size));
    let mut number = SegmentNo::of(backup.start_lsn, size);
    loop {
        let Some((found, facts)) = best(branch.find(number, None), evidence)? else {
            return Ok(later_by_clock || first_end_within(branch, backup, target, evidence)?);
        };
        if facts.commits + facts.aborts > 0 {
            let events = evidence.events(&found.copy)?;
            let before = events.iter().filter(|event| event.lsn < backup.start_lsn);
            let mut times = before.filter_map(transaction_end).map(|end| end.time).peekable();
            if times.peek().is_some() {
                return Ok(times.all(|time| target.is_past(time) == Some(false)));
            }
        }
        if number <= floor {
            return Ok(later_by_clock || first_end_within(branch, backup, target, evidence)?);
        }
        number = SegmentNo(number.0 - 1);
    }
}

/// Whether the first commit or abort after the backup's start is not past the target: then those before it, which no WAL shows,
/// are not either.
fn first_end_within<E: WalEvidence>(
    branch: &Branch<'_>,
    backup: &BackupFacts,
    target: &RecoveryTarget,
    evidence: &mut E,
) -> Result<bool, E::Error> {
    let start = SegmentNo::of(backup.start_lsn, branch.snapshot.segment_size);
    for (_, found) in branch.stored(start).take(LOOK_BACK_SEGMENTS as usize) {
        let Some((found, facts)) = best(found, evidence)? else { continue };
        if facts.commits + facts.aborts == 0 {
            continue;
        }
        let events = evidence.events(&found.copy)?;
        let first = events.iter().filter(|event| event.lsn >= backup.start_lsn).find_map(transaction_end);
        if let Some(end) = first {
            return Ok(target.is_past(end.time) == Some(false));
        }
    }
    Ok(false)
}

/// The name of a restore point that a record is.
pub(super) fn restore_point(event: &Event) -> Option<&str> {
    match &event.kind {
        EventKind::RestorePoint { name, .. } => Some(name),
        _ => None,
    }
}
