//! What can be restored: recovery windows, and holes in the stored WAL.
//!
//! A window begins where a base backup is consistent and reaches as far as the WAL goes on from there without a hole,
//! along a timeline and its ancestors. Listings alone say how far that is; the WAL itself is asked only at the end of a
//! window, for the last commit in it.

use std::collections::BTreeSet;

use serde::Serialize;

use super::branch::{Branch, Found};
use super::plan::Commit;
use super::snapshot::{BackupFacts, Snapshot, WalEvidence};
use super::walk::{best, last_commit_in};
use crate::wal::{Lsn, PgTime, SegmentName, SegmentNo, TimelineId};

/// Most segments that are looked into for a window's last commit. It is for the user's eyes: a cluster that was idle for
/// longer is not read through.
const LOOK_BACK_SEGMENTS: u32 = 512;

/// A stretch of one timeline in which every moment can be restored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Window {
    /// The timeline, which may have branched off from its ancestors inside the window.
    pub timeline: TimelineId,
    /// The backup that opens it.
    pub backup: String,
    /// Backups in it, that one included.
    pub backups: usize,
    /// Where that backup is consistent.
    pub start_lsn: Lsn,
    /// When that backup was complete.
    pub start_time: PgTime,
    /// Where the last record ends.
    pub end_lsn: Lsn,
    /// The last commit in it; `None` if there is none, or none in its last segments.
    pub last_commit: Option<Commit>,
}

/// Segments that are missing although later ones of their timeline are there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Hole {
    /// The timeline.
    pub timeline: TimelineId,
    /// The first missing segment.
    pub first: SegmentName,
    /// The last missing segment.
    pub last: SegmentName,
    /// How many are missing.
    pub segments: u64,
    /// A backup from before the hole could have been restored across it.
    pub matters: bool,
}

/// All windows, by timeline and LSN. A timeline whose history file is missing has none.
///
/// # Errors
/// A stored segment at the end of a window cannot be read.
pub fn windows<E: WalEvidence>(snapshot: &Snapshot, evidence: &mut E) -> Result<Vec<Window>, E::Error> {
    let mut windows = Vec::new();
    let timelines = snapshot.timelines.keys().copied();
    let mut timelines: Vec<_> = timelines.chain(snapshot.backups.iter().map(|backup| backup.stop_timeline)).collect();
    timelines.sort_unstable();
    timelines.dedup();
    for timeline in timelines {
        let Ok(branch) = Branch::new(snapshot, timeline) else { continue };
        let mut backups = branch.backups();
        backups.reverse();
        let mut reached = Lsn::INVALID;
        for (at, backup) in backups.iter().enumerate() {
            if backup.start_lsn < reached {
                continue;
            }
            let Some((window, number)) = window(&branch, backup, evidence)? else { continue };
            reached = number.end(snapshot.segment_size);
            // What does not reach the timeline itself belongs to its ancestor.
            if branch.history.start_of(timeline).is_some_and(|start| window.end_lsn <= start) {
                continue;
            }
            let within = |other: &&&BackupFacts| other.start_lsn < reached && other.stop_lsn <= window.end_lsn;
            let count = backups[at..].iter().filter(within).count();
            windows.push(Window { backups: count, ..window });
        }
    }
    Ok(windows)
}

/// The window that a backup opens, and its last segment; `None` if the WAL that makes it consistent is not there.
fn window<E: WalEvidence>(
    branch: &Branch<'_>,
    backup: &BackupFacts,
    evidence: &mut E,
) -> Result<Option<(Window, SegmentNo)>, E::Error> {
    let size = branch.snapshot.segment_size;
    let first = SegmentNo::of(backup.start_lsn, size);
    let mut last: Option<(SegmentNo, Vec<Found>)> = None;
    let mut number = first;
    loop {
        let found = branch.find(number, Some(backup));
        // An incomplete segment, and a parent's copy where the child's is missing, end what can be replayed.
        let goes_on = found.iter().any(|found| found.copy.is_served() && found.valid_until.is_none());
        if !found.is_empty() {
            last = Some((number, found));
        }
        if !goes_on {
            break;
        }
        number = number.next();
    }
    let Some((last, found)) = last else { return Ok(None) };
    let valid_until = found.iter().find_map(|found| found.valid_until);
    let Some((_, facts)) = best(found, evidence)? else { return Ok(None) };
    let end_lsn = valid_until.map_or(facts.end, |until| until.min(facts.end));
    if end_lsn < backup.stop_lsn {
        return Ok(None);
    }
    let window = Window {
        timeline: branch.timeline(),
        backup: backup.id.clone(),
        backups: 1,
        start_lsn: backup.stop_lsn,
        start_time: backup.stop_time,
        end_lsn,
        last_commit: last_commit(branch, backup, first, last, evidence)?,
    };
    Ok(Some((window, last)))
}

/// The ids of the backups that lie in one of these windows, which are the snapshot's: each of them can be restored.
#[must_use]
pub fn within(snapshot: &Snapshot, windows: &[Window]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for window in windows {
        let Ok(branch) = Branch::new(snapshot, window.timeline) else { continue };
        let opens = snapshot.backups.iter().find(|backup| backup.id == window.backup);
        let Some(begins) = opens.map(|backup| backup.start_lsn) else { continue };
        let inside = |backup: &&BackupFacts| {
            backup.start_lsn >= begins && backup.stop_lsn <= window.end_lsn && branch.holds(backup)
        };
        found.extend(snapshot.backups.iter().filter(inside).map(|backup| backup.id.clone()));
    }
    found
}

fn last_commit<E: WalEvidence>(
    branch: &Branch<'_>,
    backup: &BackupFacts,
    first: SegmentNo,
    last: SegmentNo,
    evidence: &mut E,
) -> Result<Option<Commit>, E::Error> {
    let mut number = last;
    for _ in 0..LOOK_BACK_SEGMENTS {
        let Some((found, facts)) = best(branch.find(number, Some(backup)), evidence)? else { return Ok(None) };
        if facts.commits > 0
            && let Some(commit) = last_commit_in(&found, Lsn(u64::MAX), branch, evidence)?
        {
            return Ok((commit.lsn >= backup.start_lsn).then_some(commit));
        }
        if number == first {
            return Ok(None);
        }
        number = SegmentNo(number.0.saturating_sub(1));
    }
    Ok(None)
}

/// All holes, by timeline and place. What a timeline begins with is its ancestor's branch point, if that is known.
#[must_use]
pub fn holes(snapshot: &Snapshot) -> Vec<Hole> {
    let size = snapshot.segment_size;
    let mut holes = Vec::new();
    for (timeline, record) in &snapshot.timelines {
        let start = record.history.as_ref().and_then(|history| history.parent()).map(|(_, switch)| switch);
        // The segment that the fork cuts is the child's first.
        let mut expected = start.map(|switch| SegmentNo::of(switch, size));
        // Damaged ones are told for themselves.
        let damaged = record.damaged.keys().map(|number| *number..=*number);
        // What retention removed is not missing, and nothing is expected before it.
        let mut there = record.expired.clone();
        record.segments.runs().chain(damaged).for_each(|run| there.insert_run(run));
        let nothing = record.segments.is_empty() && record.damaged.is_empty();
        let runs: Vec<_> = if nothing { Vec::new() } else { there.runs().collect() };
        // What branches off needs all before the segment that the fork cuts.
        let left_at = snapshot.timelines.values().filter_map(|other| other.history.as_ref());
        let left_at = left_at.flat_map(|history| history.path());
        let left_at = left_at.filter_map(|(on, until)| until.filter(|_| on == *timeline));
        let forks = left_at.map(|until| SegmentNo::of(until, size)).max().filter(|_| !runs.is_empty());
        let ends = forks.map(|fork| fork..=fork).into_iter();
        for run in runs.into_iter().chain(ends) {
            let number = *run.start();
            if let Some(expected) = expected.filter(|expected| *expected < number) {
                let name = |number| SegmentName::new(*timeline, number, size);
                let reaches =
                    |backup: &BackupFacts| backup.start_timeline <= *timeline && backup.start_lsn < expected.end(size);
                holes.push(Hole {
                    timeline: *timeline,
                    first: name(expected),
                    last: name(SegmentNo(number.0 - 1)),
                    segments: number.0 - expected.0,
                    matters: snapshot.backups.iter().any(reaches),
                });
            }
            expected = Some(run.end().next());
        }
    }
    holes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    use super::*;
    use crate::recovery::{StoredDamage, TimelineRecord, WalCopy};
    use crate::wal::{
        Event, EventKind, SegmentEnding, SegmentFacts, SegmentSize, TimelineHistory, TransactionEnd, Xid,
    };

    const MIB: u64 = 1 << 20;

    fn size() -> SegmentSize {
        SegmentSize::try_from(1 << 20).expect("a size")
    }

    fn lsn(segment: u64) -> Lsn {
        Lsn(segment * MIB + 100)
    }

    /// Every segment is full; those listed hold one commit.
    struct Commits(Vec<u64>);

    impl WalEvidence for Commits {
        type Error = Infallible;

        fn facts(&mut self, copy: &WalCopy) -> Result<SegmentFacts, Infallible> {
            let number = copy.segment().number(size()).expect("a segment of this size");
            let commits = u32::from(self.0.contains(&number.0));
            let text = format!(
                "{{\"end\": \"{}\", \"ending\": \"full\", \"commits\": {commits}, \"aborts\": 0, \"dropped_relations\": 0, \
                 \"restore_points\": 0, \"parameter_changes\": 0, \"checkpoints\": 0}}",
                number.end(size())
            );
            let facts: SegmentFacts = serde_json::from_str(&text).expect("facts");
            assert_eq!(facts.ending, SegmentEnding::Full);
            Ok(facts)
        }

        fn stored_bytes(&mut self, _: &WalCopy) -> Result<u64, Infallible> {
            Ok(1)
        }

        fn events(&mut self, copy: &WalCopy) -> Result<Vec<Event>, Infallible> {
            let number = copy.segment().number(size()).expect("a segment of this size");
            let end: TransactionEnd = serde_json::from_str(r#"{"time": "2026-01-01T00:00:00Z"}"#).expect("an end");
            Ok(vec![Event { lsn: lsn(number.0), end_lsn: lsn(number.0), xid: Xid(9), kind: EventKind::Commit(end) }])
        }

        fn record_from(&mut self, _: &WalCopy, from: Lsn) -> Result<Option<Lsn>, Infallible> {
            Ok(Some(from))
        }
    }

    fn backup(id: &str, timeline: u32, start: u64, stop: u64) -> BackupFacts {
        BackupFacts {
            id: id.to_owned(),
            start_lsn: lsn(start),
            stop_lsn: lsn(stop),
            start_timeline: TimelineId(timeline),
            stop_timeline: TimelineId(timeline),
            start_time: PgTime(0),
            stop_time: PgTime(0),
            size_bytes: 0,
            stored_bytes: 0,
            tail: None,
        }
    }

    fn record(segments: impl IntoIterator<Item = u64>, history: Option<TimelineHistory>) -> TimelineRecord {
        let segments = segments.into_iter().map(SegmentNo).collect();
        TimelineRecord { history, segments, ..TimelineRecord::default() }
    }

    fn found(snapshot: &Snapshot, commits: &[u64]) -> Vec<(u32, String, usize, u64, Option<u64>)> {
        let Ok(windows) = windows(snapshot, &mut Commits(commits.to_vec()));
        let commit = |window: &Window| window.last_commit.map(|commit| commit.lsn.0 / MIB);
        windows.iter().map(|w| (w.timeline.0, w.backup.clone(), w.backups, w.end_lsn.0 / MIB, commit(w))).collect()
    }

    /// A hole ends a window, and the next backup behind it opens another; a backup whose own WAL has the hole opens none.
    #[test]
    fn windows_end_at_holes() {
        let timelines = BTreeMap::from([(TimelineId(1), record([1, 2, 3, 4, 6, 7, 8, 9], None))]);
        let backups = vec![backup("c", 1, 7, 8), backup("a", 1, 1, 2), backup("b", 1, 3, 3), backup("torn", 1, 4, 6)];
        let snapshot = Snapshot { segment_size: size(), backups, timelines };
        let expected = [(1, "a".to_owned(), 2, 5, Some(3)), (1, "c".to_owned(), 1, 10, None)];
        assert_eq!(found(&snapshot, &[2, 3, 6]), expected);
        let holes = holes(&snapshot);
        assert_eq!((holes.len(), holes[0].segments, holes[0].matters), (1, 1, true));
        assert_eq!(holes[0].first.number(size()), Ok(SegmentNo(5)));
        let Ok(windows) = windows(&snapshot, &mut Commits(vec![]));
        assert_eq!(within(&snapshot, &windows), ["a", "b", "c"].map(str::to_owned).into());
    }

    /// What retention removed between a kept backup and the others is no hole, and still ends the window.
    #[test]
    fn expired_segments() {
        let mut record = record([1, 2, 6, 7, 9], None);
        record.expired = (0..=5).map(SegmentNo).collect();
        let timelines = BTreeMap::from([(TimelineId(1), record)]);
        let backups = vec![backup("kept", 1, 1, 2), backup("b", 1, 6, 7)];
        let snapshot = Snapshot { segment_size: size(), backups, timelines };
        let expected = [(1, "kept".to_owned(), 1, 3, None), (1, "b".to_owned(), 1, 8, None)];
        assert_eq!(found(&snapshot, &[]), expected);
        let holes = holes(&snapshot);
        assert_eq!((holes.len(), holes[0].segments), (1, 1));
        assert_eq!(holes[0].first.number(size()), Ok(SegmentNo(8)));
    }

    /// A damaged segment ends a window like a missing one, and is no hole.
    #[test]
    fn damaged_segments() {
        let mut damaged = record([1, 2, 3, 4, 7], None);
        for number in [5, 8] {
            let segment = SegmentName::new(TimelineId(1), SegmentNo(number), size());
            let (hash, why, archived_at) = (String::new(), String::new(), PgTime(0));
            let damage = StoredDamage { segment, hash, good_until: lsn(number), why, or_before: None, archived_at };
            damaged.damaged.insert(SegmentNo(number), damage);
        }
        let timelines = BTreeMap::from([(TimelineId(1), damaged)]);
        let snapshot = Snapshot { segment_size: size(), backups: vec![backup("a", 1, 1, 2)], timelines };
        assert_eq!(found(&snapshot, &[]), [(1, "a".to_owned(), 1, 5, None)]);
        let holes = holes(&snapshot);
        assert_eq!((holes.len(), holes[0].segments), (1, 1));
        assert_eq!(holes[0].first.number(size()), Ok(SegmentNo(6)));
    }

    /// A branch's window begins with a backup of its ancestor; the ancestor keeps its own.
    #[test]
    fn branches() {
        let history = TimelineHistory::first().branch(TimelineId(2), lsn(3), "no recovery target specified");
        let child = record([3, 4], Some(history.expect("a history")));
        let timelines = BTreeMap::from([(TimelineId(1), record([1, 2, 3, 4, 5], None)), (TimelineId(2), child)]);
        let mut snapshot = Snapshot { segment_size: size(), backups: vec![backup("a", 1, 1, 2)], timelines };
        assert_eq!(found(&snapshot, &[]), [(1, "a".to_owned(), 1, 6, None), (2, "a".to_owned(), 1, 5, None)]);
        assert_eq!(holes(&snapshot), []);
        // Without the child's copy of the segment that the fork cuts, the child cannot be reached.
        let child = snapshot.timelines.get_mut(&TimelineId(2)).expect("it is there");
        child.segments.remove(SegmentNo(3));
        assert_eq!(found(&snapshot, &[]), [(1, "a".to_owned(), 1, 6, None)]);
        let holes = holes(&snapshot);
        assert_eq!((holes.len(), holes[0].timeline, holes[0].segments), (1, TimelineId(2), 1));
        // Without the parent's last segment before the fork neither can be reached from before it.
        let child = snapshot.timelines.get_mut(&TimelineId(2)).expect("it is there");
        child.segments.insert(SegmentNo(3));
        let parent = snapshot.timelines.get_mut(&TimelineId(1)).expect("it is there");
        for number in [2, 3, 4, 5] {
            parent.segments.remove(SegmentNo(number));
        }
        let holes = super::holes(&snapshot);
        assert_eq!((holes.len(), holes[0].timeline, holes[0].segments), (1, TimelineId(1), 1));
    }

    /// Nothing stored, and backups without their WAL, give no window and no failure.
    #[test]
    fn nothing() {
        let mut snapshot = Snapshot { segment_size: size(), backups: Vec::new(), timelines: BTreeMap::new() };
        assert_eq!(found(&snapshot, &[]), []);
        snapshot.backups.push(backup("a", 1, 1, 2));
        assert_eq!(found(&snapshot, &[]), []);
        assert_eq!(holes(&snapshot), []);
    }
}
