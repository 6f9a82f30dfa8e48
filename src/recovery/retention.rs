//! Retention: which backups the rules let go, and which WAL the others need.
//!
//! Backups are ordered by timeline and LSN, and along a branch by LSN alone. A time counts only to tell whether a backup lies
//! in the window, and no backup counts as older than one that lies before it on its branch: a clock that was wrong for a day
//! makes more be kept, never less.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::branch::Branch;
use super::snapshot::{BackupFacts, Snapshot};
use crate::wal::{Lsn, PgTime, SegmentNo, TimelineId};

/// Microseconds of a day.
const DAY_US: i64 = 86_400_000_000;

/// The rules. A backup goes only if all that are set let it go; if none is set, none goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Retention {
    /// Every moment of so many days can be restored.
    pub days: Option<u32>,
    /// So many usable backups are there.
    pub count: Option<u32>,
}

/// What the rules are applied to besides the backups.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Circumstances {
    /// Backups that people keep.
    pub kept: BTreeSet<String>,
    /// Timelines that have WAL from inside the window.
    pub recent: BTreeSet<TimelineId>,
    /// `pg_upgrade` left the server behind, and its successor has backups: the last one here may go too.
    pub superseded: bool,
}

impl Retention {
    /// Whether no rule is set.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Retention::default()
    }

    /// Where the window begins.
    #[must_use]
    pub fn window_start(self, now: PgTime) -> Option<PgTime> {
        self.days.map(|days| PgTime(now.0.saturating_sub(i64::from(days).saturating_mul(DAY_US))))
    }
}

/// What the rules say of one backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Judged {
    /// The backup.
    pub id: String,
    /// What they say.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Stays, or goes; and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// No rule is set.
    NoRule,
    /// It ended inside the window.
    InWindow,
    /// It ended before the window, and the window's beginning is reached from it.
    OpensWindow {
        /// On which timelines.
        timelines: Vec<TimelineId>,
    },
    /// One of the newest usable ones that are to be there.
    Counted,
    /// Its timeline's history file is missing, so nobody can tell what it is needed for.
    HistoryMissing,
    /// The newest usable one.
    Newest,
    /// The rules let it go, and it is kept all the same.
    Kept,
    /// It goes.
    Goes,
}

impl Verdict {
    /// Whether all WAL from its start on is kept for it.
    #[must_use]
    pub fn keeps_wal(&self) -> bool {
        !matches!(self, Verdict::Kept | Verdict::Goes)
    }
}

/// Judges all backups of a snapshot, in their order.
#[must_use]
pub fn judge(snapshot: &Snapshot, rules: Retention, circumstances: &Circumstances, now: PgTime) -> Vec<Judged> {
    let Circumstances { kept, recent, superseded } = circumstances;
    let mut backups: Vec<&BackupFacts> = snapshot.backups.iter().collect();
    backups.sort_by(|a, b| place(a).cmp(&place(b)));
    let usable: Vec<bool> = backups.iter().map(|backup| is_usable(snapshot, backup)).collect();
    let newest = usable.iter().rposition(|usable| *usable);
    let window = rules.window_start(now).map(|start| InWindow::new(snapshot, recent, start));
    let judged = |(at, backup): (usize, &&BackupFacts)| {
        let newer = usable[at + 1..].iter().filter(|usable| **usable).count();
        let by_count = rules.count.is_some_and(|count| newer < count as usize);
        let by_days = window.as_ref().and_then(|window| window.judge(backup));
        let verdict = match (by_days, by_count) {
            _ if rules.is_none() => Verdict::NoRule,
            (Some(verdict), _) => verdict,
            (None, true) => Verdict::Counted,
            // Nothing is left to restore from otherwise.
            _ if !superseded && newest.is_none_or(|newest| newest == at) => Verdict::Newest,
            _ if kept.contains(&backup.id) => Verdict::Kept,
            _ => Verdict::Goes,
        };
        Judged { id: backup.id.clone(), verdict }
    };
    backups.iter().enumerate().map(judged).collect()
}

/// The order of backups.
fn place(backup: &BackupFacts) -> (TimelineId, Lsn, &str) {
    (backup.stop_timeline, backup.stop_lsn, &backup.id)
}

/// Whether the WAL that makes a backup consistent is there.
fn is_usable(snapshot: &Snapshot, backup: &BackupFacts) -> bool {
    let Ok(branch) = Branch::new(snapshot, backup.stop_timeline) else { return false };
    let size = snapshot.segment_size;
    let (first, last) = (SegmentNo::of(backup.start_lsn, size), SegmentNo::before(backup.stop_lsn, size));
    branch.holds(backup) && (first.0..=last.0).all(|number| !branch.find(SegmentNo(number), Some(backup)).is_empty())
}

/// The rule of days.
struct InWindow {
    start: PgTime,
    /// By timeline, its branch's usable backups in LSN order, each with the time that counts.
    branches: BTreeMap<TimelineId, Vec<(String, PgTime)>>,
    /// Timelines of which it is not known where they come from.
    unknown: BTreeSet<TimelineId>,
}

impl InWindow {
    fn new(snapshot: &Snapshot, recent: &BTreeSet<TimelineId>, start: PgTime) -> InWindow {
        let (mut branches, mut unknown) = (BTreeMap::new(), BTreeSet::new());
        for timeline in timelines(snapshot) {
            let Ok(branch) = Branch::new(snapshot, timeline) else {
                unknown.insert(timeline);
                continue;
            };
            if recent.contains(&timeline) {
                let mut latest = PgTime(i64::MIN);
                let backups = branch.backups().into_iter().rev().filter(|backup| is_usable(snapshot, backup));
                let timed = backups.map(|backup| {
                    latest = latest.max(backup.stop_time);
                    (backup.id.clone(), latest)
                });
                branches.insert(timeline, timed.collect());
            }
        }
        InWindow { start, branches, unknown }
    }

    /// Why the rule keeps a backup; `None` if it lets it go.
    fn judge(&self, backup: &BackupFacts) -> Option<Verdict> {
        if self.unknown.contains(&backup.stop_timeline) {
            return Some(Verdict::HistoryMissing);
        }
        if backup.stop_time > self.start {
            return Some(Verdict::InWindow);
        }
        let mut opens = Vec::new();
        for (timeline, backups) in &self.branches {
            let Some(at) = backups.iter().position(|(id, _)| *id == backup.id) else { continue };
            if backups[at].1 > self.start {
                return Some(Verdict::InWindow);
            }
            // The next one lies in the window already, or there is none.
            if backups.get(at + 1).is_none_or(|(_, time)| *time > self.start) {
                opens.push(*timeline);
            }
        }
        (!opens.is_empty()).then_some(Verdict::OpensWindow { timelines: opens })
    }
}

fn timelines(snapshot: &Snapshot) -> BTreeSet<TimelineId> {
    let of_backups = snapshot.backups.iter().flat_map(|backup| [backup.start_timeline, backup.stop_timeline]);
    snapshot.timelines.keys().copied().chain(of_backups).collect()
}

/// Which segments backups need.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NeededWal {
    /// By timeline, everything from this segment on. `None`: not one backup counts, so all is needed.
    from: Option<BTreeMap<TimelineId, SegmentNo>>,
    /// Stretches of which both ends are needed.
    own: Vec<(TimelineId, SegmentNo, SegmentNo)>,
}

impl NeededWal {
    /// The WAL that can still be reached from the backups in `whole`, and the stretches in `own`: timeline, first byte, and the
    /// byte behind the last one. A timeline whose history file is missing is needed as a whole: nobody can tell what leads to it.
    #[must_use]
    pub fn of(snapshot: &Snapshot, whole: &[&BackupFacts], own: &[(TimelineId, Lsn, Lsn)]) -> NeededWal {
        let size = snapshot.segment_size;
        let of_own = |(timeline, start, end): &(TimelineId, Lsn, Lsn)| {
            (*timeline, SegmentNo::of(*start, size), SegmentNo::before(*end, size))
        };
        let own = own.iter().map(of_own).collect();
        if whole.is_empty() {
            return NeededWal { from: None, own };
        }
        let mut from: BTreeMap<TimelineId, SegmentNo> = BTreeMap::new();
        let mut need = |timeline: TimelineId, number: SegmentNo| {
            let least = from.entry(timeline).or_insert(number);
            *least = number.min(*least);
        };
        for backup in whole {
            // What it needs itself, whether or not the history files are there.
            need(backup.start_timeline, SegmentNo::of(backup.start_lsn, size));
        }
        for timeline in timelines(snapshot) {
            let Ok(branch) = Branch::new(snapshot, timeline) else {
                need(timeline, SegmentNo(0));
                continue;
            };
            for backup in whole.iter().filter(|backup| branch.holds(backup)) {
                let mut begins = Lsn::INVALID;
                for (on, until) in branch.history.path() {
                    if on == backup.start_timeline {
                        need(on, SegmentNo::of(backup.start_lsn, size));
                    } else if begins > backup.start_lsn {
                        need(on, SegmentNo::of(begins, size));
                    }
                    begins = until.unwrap_or(begins);
                }
            }
        }
        NeededWal { from: Some(from), own }
    }

    /// Nothing but these stretches, timeline by timeline.
    #[must_use]
    pub fn nothing_else(self) -> NeededWal {
        NeededWal { from: Some(BTreeMap::new()), ..self }
    }

    /// Whether this segment of this timeline is needed.
    #[must_use]
    pub fn is_needed(&self, timeline: TimelineId, number: SegmentNo) -> bool {
        let whole = match &self.from {
            None => true,
            Some(from) => from.get(&timeline).is_some_and(|from| *from <= number),
        };
        whole || self.own.iter().any(|(on, first, last)| *on == timeline && (*first..=*last).contains(&number))
    }

    /// The first segment of a timeline from which on everything is needed; `None` if there is none.
    #[must_use]
    pub fn whole_from(&self, timeline: TimelineId) -> Option<SegmentNo> {
        match &self.from {
            None => Some(SegmentNo(0)),
            Some(from) => from.get(&timeline).copied(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::TimelineRecord;
    use crate::wal::{SegmentSize, TimelineHistory};

    const MIB: u64 = 1 << 20;

    fn lsn(segment: u64) -> Lsn {
        Lsn(segment * MIB + 100)
    }

    /// A backup that begins and ends in a segment, on a day.
    fn backup(id: &str, timeline: u32, segment: u64, day: i64) -> BackupFacts {
        BackupFacts {
            id: id.to_owned(),
            start_lsn: lsn(segment),
            stop_lsn: Lsn(lsn(segment).0 + 50),
            start_timeline: TimelineId(timeline),
            stop_timeline: TimelineId(timeline),
            start_time: PgTime(day * DAY_US),
            stop_time: PgTime(day * DAY_US),
            size_bytes: 0,
            stored_bytes: 0,
            tail: None,
        }
    }

    fn record(segments: impl IntoIterator<Item = u64>, history: Option<TimelineHistory>) -> TimelineRecord {
        let segments = segments.into_iter().map(SegmentNo).collect();
        TimelineRecord { history, segments, ..TimelineRecord::default() }
    }

    fn snapshot(backups: Vec<BackupFacts>, timelines: BTreeMap<TimelineId, TimelineRecord>) -> Snapshot {
        Snapshot { segment_size: SegmentSize::try_from(1 << 20).expect("a size"), backups, timelines }
    }

    fn one_timeline(backups: Vec<BackupFacts>) -> Snapshot {
        snapshot(backups, BTreeMap::from([(TimelineId(1), record(1..200, None))]))
    }

    /// Ids that go, with timelines 1 to 3 being used.
    fn going(snapshot: &Snapshot, days: Option<u32>, count: Option<u32>, kept: &[&str], today: i64) -> Vec<String> {
        let kept = kept.iter().map(|id| (*id).to_owned()).collect();
        let circumstances = Circumstances { kept, recent: (1..=3).map(TimelineId).collect(), superseded: false };
        let judged = judge(snapshot, Retention { days, count }, &circumstances, PgTime(today * DAY_US));
        judged.into_iter().filter(|it| it.verdict == Verdict::Goes).map(|it| it.id).collect()
    }

    fn daily(days: std::ops::RangeInclusive<i64>) -> Vec<BackupFacts> {
        days.map(|day| backup(&format!("d{day:02}"), 1, u64::try_from(day).expect("positive") * 10, day)).collect()
    }

    /// Days keep the newest backup from before the window; counts keep so many; both keep what either keeps; nothing lets
    /// nothing go.
    #[test]
    fn rules() {
        let snapshot = one_timeline(daily(1..=10));
        let none: [&str; 0] = [];
        assert_eq!(going(&snapshot, None, None, &[], 10), none);
        // The window begins on day 7: the backup that ended then opens it.
        assert_eq!(going(&snapshot, Some(3), None, &[], 10), ["d01", "d02", "d03", "d04", "d05", "d06"]);
        assert_eq!(going(&snapshot, None, Some(8), &[], 10), ["d01", "d02"]);
        assert_eq!(going(&snapshot, Some(3), Some(8), &[], 10), ["d01", "d02"]);
        assert_eq!(going(&snapshot, Some(3), Some(2), &[], 10), ["d01", "d02", "d03", "d04", "d05", "d06"]);
        assert_eq!(going(&snapshot, None, Some(20), &[], 10), none, "fewer than wanted is no error");
        assert_eq!(going(&snapshot, Some(3), None, &["d02", "d09"], 10), ["d01", "d03", "d04", "d05", "d06"]);
        // However long nothing happened, the last one stays.
        assert_eq!(going(&snapshot, Some(3), None, &[], 500).len(), 9);
        assert_eq!(going(&one_timeline(Vec::new()), Some(3), Some(1), &[], 10), none);
    }

    /// What pg_upgrade left behind goes to the last backup when its window is over, unless a count keeps it.
    #[test]
    fn superseded() {
        let snapshot = one_timeline(daily(1..=3));
        let left = Circumstances { superseded: true, ..Circumstances::default() };
        let going = |days, count, today: i64| {
            let judged = judge(&snapshot, Retention { days, count }, &left, PgTime(today * DAY_US));
            judged.iter().filter(|it| it.verdict == Verdict::Goes).count()
        };
        assert_eq!((going(Some(3), None, 5), going(Some(3), None, 6), going(Some(3), None, 9)), (2, 3, 3));
        assert_eq!((going(Some(3), Some(1), 9), going(None, Some(2), 9), going(None, None, 9)), (2, 1, 0));
    }

    /// Ids and clocks do not order backups: one whose host's clock was wrong makes nothing go that would have stayed.
    #[test]
    fn wrong_clocks() {
        let mut backups = daily(1..=10);
        // The newest was taken by a host that believed in the year 2000.
        backups[9].stop_time = PgTime(0);
        backups[9].id = "a-name-that-sorts-first".to_owned();
        let snapshot = one_timeline(backups.clone());
        assert_eq!(going(&snapshot, Some(3), None, &[], 10), ["d01", "d02", "d03", "d04", "d05", "d06"]);
        assert_eq!(going(&snapshot, None, Some(9), &[], 10), ["d01"]);
        // One in the middle was taken by a host that lives in the future.
        backups[4].stop_time = PgTime(900 * DAY_US);
        let snapshot = one_timeline(backups);
        assert_eq!(going(&snapshot, Some(3), None, &[], 10), ["d01", "d02", "d03"]);
    }

    /// A backup whose own WAL is not there counts for nothing.
    #[test]
    fn unusable_backups() {
        let mut snapshot = one_timeline(daily(1..=10));
        let record = snapshot.timelines.get_mut(&TimelineId(1)).expect("it is there");
        record.segments.remove(SegmentNo(100));
        record.segments.remove(SegmentNo(70));
        assert_eq!(going(&snapshot, Some(3), None, &[], 10), ["d01", "d02", "d03", "d04", "d05", "d07"]);
        assert_eq!(going(&snapshot, None, Some(1), &[], 10).len(), 8, "the ninth is the newest that can be used");
    }

    /// A history with a fork: timeline 2 leaves 1 in segment 55.
    fn forked(backups: Vec<BackupFacts>) -> Snapshot {
        let two = TimelineHistory::first().branch(TimelineId(2), lsn(55), "").expect("a history");
        let child = record(55..100, Some(two));
        snapshot(backups, BTreeMap::from([(TimelineId(1), record(1..=60, None)), (TimelineId(2), child)]))
    }

    /// Each branch that has moments in the window keeps the backup that opens the window on it; what leads only to a branch that
    /// ended before goes.
    #[test]
    fn branches() {
        let mut backups = daily(1..=5);
        backups.push(backup("dead", 1, 58, 6));
        backups.push(backup("two", 2, 70, 7));
        let snapshot = forked(backups);
        let judge = |recent: &[u32]| -> Vec<String> {
            let recent = recent.iter().copied().map(TimelineId).collect();
            let rules = Retention { days: Some(1), count: None };
            let circumstances = Circumstances { recent, ..Circumstances::default() };
            let judged = judge(&snapshot, rules, &circumstances, PgTime(9 * DAY_US));
            judged.into_iter().filter(|it| it.verdict == Verdict::Goes).map(|it| it.id).collect()
        };
        assert_eq!(judge(&[2]), ["d01", "d02", "d03", "d04", "d05", "dead"]);
        assert_eq!(judge(&[1, 2]), ["d01", "d02", "d03", "d04", "d05"], "somebody still archives on the old branch");
        let unknown = {
            let mut snapshot = snapshot.clone();
            snapshot.timelines.get_mut(&TimelineId(2)).expect("it is there").history = None;
            snapshot
        };
        let rules = Retention { days: Some(1), count: None };
        let judged = super::judge(&unknown, rules, &Circumstances::default(), PgTime(9 * DAY_US));
        assert_eq!(judged.last().map(|it| &it.verdict), Some(&Verdict::HistoryMissing));
    }

    /// WAL is kept from the oldest backup's start on, along each timeline that can be reached; a stretch of a backup's own is
    /// kept beside it; what cannot be reached goes.
    #[test]
    fn needed() {
        let snapshot = forked(vec![backup("old", 1, 20, 2), backup("b", 1, 50, 5), backup("two", 2, 70, 7)]);
        let [old, b, two] = &snapshot.backups[..] else { panic!("three") };
        let is = |needed: &NeededWal, timeline, number| needed.is_needed(TimelineId(timeline), SegmentNo(number));
        let both = NeededWal::of(&snapshot, &[b, two], &[]);
        assert!(!is(&both, 1, 49) && is(&both, 1, 50) && is(&both, 1, 60), "the old branch's end can be reached");
        assert!(is(&both, 2, 55) && is(&both, 2, 99));
        let newest = NeededWal::of(&snapshot, &[two], &[(TimelineId(1), old.start_lsn, old.stop_lsn)]);
        assert!(!is(&newest, 1, 60) && !is(&newest, 1, 55), "no backup leads to timeline 1 any more");
        assert!(is(&newest, 1, 20) && !is(&newest, 1, 19) && !is(&newest, 1, 21), "but a kept one has its own");
        assert!(!is(&newest, 2, 69) && is(&newest, 2, 70));
        let nothing = NeededWal::of(&snapshot, &[], &[]);
        assert!(is(&nothing, 1, 1) && is(&nothing, 9, 1), "without any backup nothing is let go");
        let mut orphan = snapshot.clone();
        orphan.timelines.get_mut(&TimelineId(2)).expect("it is there").history = None;
        let [_, b, _] = &orphan.backups[..] else { panic!("three") };
        assert!(is(&NeededWal::of(&orphan, &[b], &[]), 2, 1), "its history is missing");
    }
}
