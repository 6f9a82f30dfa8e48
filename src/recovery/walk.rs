//! Walking the stored WAL from a backup to the place where PostgreSQL will stop.
//!
//! The walk goes by the summaries of the segments and reads only the one in which the target lies. It stops where
//! `recoveryStopsBefore` and `recoveryStopsAfter` (`xlogrecovery.c`) do: for a time at the first commit or abort in LSN
//! order that is past it, although times are not monotonic.

use super::branch::{Branch, Found};
use super::plan::Commit;
use super::snapshot::{BackupFacts, WalCopy, WalEvidence};
use super::{RecoveryTarget, TargetKind};
use crate::wal::{
    Event, EventKind, Lsn, PgTime, SegmentEnding, SegmentFacts, SegmentName, SegmentNo, ServerLimits, TransactionEnd,
    WalLevel, Xid,
};

/// How many segments before the backup are looked into for the last commit.
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
    /// The first record that starts at or after an LSN.
    Lsn { lsn: Lsn, inclusive: bool },
    /// A record found before.
    Record { event: Event, before: bool },
    /// The backup's stop LSN.
    Consistent,
    /// The end of the WAL.
    End,
}

/// What lies between a backup and the end of the walk.
#[derive(Clone, Debug)]
pub(super) struct Walk {
    pub(super) segments: Vec<Step>,
    pub(super) end: WalkEnd,
    /// Latest time of a commit or abort met.
    pub(super) max_time: Option<PgTime>,
}

/// A segment on the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Step {
    pub(super) number: SegmentNo,
    pub(super) found: Found,
    has_commits: bool,
    has_parameter_changes: bool,
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
    let size = branch.snapshot.segment_size;
    let mut walk = Walk { segments: Vec::new(), end: WalkEnd::Archive(backup.start_lsn), max_time: None };
    let mut number = SegmentNo::of(backup.start_lsn, size);
    loop {
        let Some((mut found, facts)) = best(branch.find(number, Some(backup)), evidence)? else {
            let (missing, next) = (branch.name(number), branch.next_stored(number));
            // A recovery that asks for a damaged segment is stopped, not told that the archive ends.
            if next.is_some() || branch.damage(missing).is_some() {
                walk.end = WalkEnd::Gap { missing, next };
            }
            return Ok(walk);
        };
        if found.copy.is_served() {
            found.stored_bytes = evidence.stored_bytes(&found.copy)?;
        }
        if let Some(stop) = stop_in(number, &found, &facts, branch, backup, goal, evidence)? {
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
    branch: &Branch<'_>,
    backup: &BackupFacts,
    goal: &Goal,
    evidence: &mut E,
) -> Result<Option<Stop>, E::Error> {
    let size = branch.snapshot.segment_size;
    let valid = |lsn: Lsn| found.valid_until.is_none_or(|until| lsn < until);
    let at = |lsn: Lsn, before: bool| Stop { lsn, time: None, xid: None, before };
    Ok(match goal {
        Goal::Time(target) => {
            let past = |time: PgTime| target.is_past(time) == Some(true);
            if !facts.max_time.is_some_and(past) {
                return Ok(None);
            }
            let events = evidence.events(&found.copy)?;
            let mut ends = events.iter().filter_map(|event| Some((event, transaction_end(event)?)));
            let stop = ends.find(|(event, end)| event.lsn >= backup.start_lsn && valid(event.lsn) && past(end.time));
            stop.map(|(event, end)| Stop { lsn: event.lsn, time: Some(end.time), xid: Some(event.xid), before: true })
        }
        Goal::Lsn { lsn, inclusive } => {
            // A record that begins in an earlier segment and ends here counts here: it is read when it is whole.
            let begins = facts.last_record.is_some_and(|last| last >= *lsn);
            let ends = number > SegmentNo::of(*lsn, size) && facts.end > number.start(size);
            ((begins || ends) && valid(*lsn)).then(|| at(*lsn, !inclusive))
        }
        Goal::Record { event, before } => {
            let here = number == SegmentNo::before(event.end_lsn, size) && valid(event.lsn);
            here.then(|| Stop { time: time_of(event), xid: Some(event.xid), ..at(event.lsn, *before) })
        }
        Goal::Consistent => {
            let here = number >= SegmentNo::before(backup.stop_lsn, size) && facts.end >= backup.stop_lsn;
            here.then(|| at(backup.stop_lsn, true))
        }
        Goal::End => None,
    })
}

impl Walk {
    fn push(&mut self, number: SegmentNo, found: Found, facts: &SegmentFacts) {
        self.max_time = self.max_time.max(facts.max_time);
        let step =
            Step { number, found, has_commits: facts.commits > 0, has_parameter_changes: facts.parameter_changes > 0 };
        self.segments.push(step);
    }

    /// The first LSN that is not replayed, or not known to be.
    fn limit(&self) -> Lsn {
        match &self.end {
            WalkEnd::Stop(stop) if stop.before => stop.lsn,
            // The record itself is replayed; no other record begins one byte further.
            WalkEnd::Stop(stop) => Lsn(stop.lsn.0.saturating_add(1)),
            WalkEnd::Archive(_) | WalkEnd::Gap { .. } => Lsn(u64::MAX),
        }
    }

    /// The last commit that is replayed, or was made shortly before the backup's start.
    pub(super) fn last_commit<E: WalEvidence>(
        &self,
        branch: &Branch<'_>,
        evidence: &mut E,
    ) -> Result<Option<Commit>, E::Error> {
        let limit = self.limit();
        for step in self.segments.iter().rev().filter(|step| step.has_commits) {
            if let Some(commit) = last_commit_in(&step.found, limit, branch, evidence)? {
                return Ok(Some(commit));
            }
        }
        // It is only for the user's eyes: a cluster that was idle for long is not read through to its last commit.
        let mut number = self.segments.first().map_or(SegmentNo(0), |step| step.number);
        for _ in 0..LOOK_BACK_SEGMENTS {
            number = SegmentNo(number.0.saturating_sub(1));
            let Some((found, facts)) = best(branch.find(number, None), evidence)? else { return Ok(None) };
            if facts.commits > 0 {
                return last_commit_in(&found, limit, branch, evidence);
            }
        }
        Ok(None)
    }

    /// The highest settings that the WAL on the way asks for, and where it says that it lacks what a restore needs.
    pub(super) fn limits<E: WalEvidence>(
        &self,
        backup: &BackupFacts,
        evidence: &mut E,
    ) -> Result<(Option<ServerLimits>, Option<Lsn>), E::Error> {
        let (mut limits, mut minimal) = (None, None);
        for step in self.segments.iter().filter(|step| step.has_parameter_changes) {
            for event in evidence.events(&step.found.copy)? {
                let EventKind::ParameterChange(found) = event.kind else { continue };
                if event.lsn < backup.start_lsn || event.lsn >= self.limit() {
                    continue;
                }
                if found.wal_level == WalLevel::Minimal {
                    minimal = minimal.or(Some(event.lsn));
                }
                limits = Some(limits.map_or(found, |so_far| highest(so_far, found)));
            }
        }
        Ok((limits, minimal))
    }
}

/// The last commit in a segment before a limit.
pub(super) fn last_commit_in<E: WalEvidence>(
    found: &Found,
    limit: Lsn,
    branch: &Branch<'_>,
    evidence: &mut E,
) -> Result<Option<Commit>, E::Error> {
    let limit = found.valid_until.map_or(limit, |until| until.min(limit));
    let events = evidence.events(&found.copy)?;
    let commit = events.iter().rev().filter(|event| event.lsn < limit).find_map(|event| match &event.kind {
        EventKind::Commit(end) => Some((event, end)),
        _ => None,
    });
    Ok(commit.map(|(event, end)| {
        let timeline = branch.history.timeline_at(event.lsn);
        Commit { time: end.time, lsn: event.lsn, xid: event.xid, timeline }
    }))
}

fn highest(a: ServerLimits, b: ServerLimits) -> ServerLimits {
    ServerLimits {
        max_connections: a.max_connections.max(b.max_connections),
        max_worker_processes: a.max_worker_processes.max(b.max_worker_processes),
        max_wal_senders: a.max_wal_senders.max(b.max_wal_senders),
        max_prepared_transactions: a.max_prepared_transactions.max(b.max_prepared_transactions),
        max_locks_per_transaction: a.max_locks_per_transaction.max(b.max_locks_per_transaction),
        wal_level: a.wal_level.min(b.wal_level),
        wal_log_hints: a.wal_log_hints || b.wal_log_hints,
        track_commit_timestamp: a.track_commit_timestamp || b.track_commit_timestamp,
    }
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

/// Whether the backup is proved to hold nothing past a time before its first WAL record.
///
/// The walk sees only what begins at the backup's start. A backup of an idle cluster would otherwise be taken for a time
/// before the last commit that it holds. The last commits and aborts before the start tell, back to the next older
/// backup; where no WAL tells, the time has to be later than the start by the clock.
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
        let Some((found, facts)) = best(branch.find(number, None), evidence)? else { return Ok(later_by_clock) };
        if facts.commits + facts.aborts > 0 {
            let events = evidence.events(&found.copy)?;
            let before = events.iter().filter(|event| event.lsn < backup.start_lsn);
            let mut times = before.filter_map(transaction_end).map(|end| end.time).peekable();
            if times.peek().is_some() {
                return Ok(times.all(|time| target.is_past(time) == Some(false)));
            }
        }
        if number <= floor {
            return Ok(later_by_clock);
        }
        number = SegmentNo(number.0 - 1);
    }
}

/// The name of a restore point that a record is.
pub(super) fn restore_point(event: &Event) -> Option<&str> {
    match &event.kind {
        EventKind::RestorePoint { name, .. } => Some(name),
        _ => None,
    }
}

/// The copies of a branch's segments in which something is looked for.
pub(super) fn copies<'b>(
    branch: &'b Branch<'_>,
    first: SegmentNo,
) -> impl Iterator<Item = (SegmentNo, WalCopy, Option<Lsn>)> + 'b {
    branch.numbers(first).filter_map(|number| {
        let found = branch.find(number, None).into_iter().next()?;
        Some((number, found.copy, found.valid_until))
    })
}
