//! A timeline with its ancestors as one road through the stored WAL.
//!
//! Where a fork cuts a segment, it exists on both timelines, with different ends. PostgreSQL takes the newest timeline's
//! copy (`XLogFileReadAnyTLI`), which holds the parent's WAL up to the switch and the child's from there on; the
//! parent's copy leads onto the branch that was left. So the child's copy is the one that counts, and the parent's
//! serves only up to the switch.

use super::refusal::Unreachable;
use super::snapshot::{BackupFacts, Snapshot, StoredDamage, WalCopy};
use crate::wal::{Lsn, SegmentName, SegmentNo, TimelineHistory, TimelineId};

/// A timeline with its ancestors.
pub(super) struct Branch<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) history: TimelineHistory,
    /// Its timelines, newest first: asked for once a segment.
    path: Vec<Stretch>,
}

/// What a branch has of one timeline.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    timeline: TimelineId,
    begins: Lsn,
    /// Where the branch leaves it.
    until: Option<Lsn>,
}

/// A copy of a segment on a branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Found {
    pub(super) copy: WalCopy,
    /// Where the branch leaves what this copy holds, if the right copy is missing.
    pub(super) valid_until: Option<Lsn>,
}

impl Found {
    /// Whether what begins at `lsn` in this copy is on the branch.
    pub(super) fn holds(&self, lsn: Lsn) -> bool {
        self.valid_until.is_none_or(|until| lsn < until)
    }
}

impl<'a> Branch<'a> {
    /// The branch that ends with `timeline`.
    pub(super) fn new(snapshot: &'a Snapshot, timeline: TimelineId) -> Result<Self, Box<Unreachable>> {
        let record = snapshot.timelines.get(&timeline);
        let known = record.is_some() || snapshot.backups.iter().any(|backup| backup.stop_timeline == timeline);
        let history = record.and_then(|record| record.history.clone());
        let history = match history {
            Some(history) => history,
            None if timeline == TimelineId::FIRST && known => TimelineHistory::first(),
            None if known => return Err(Box::new(Unreachable::HistoryMissing { timeline })),
            None => {
                let known = snapshot.timelines.keys().copied().collect();
                return Err(Box::new(Unreachable::UnknownTimeline { timeline, known }));
            }
        };
        let mut path: Vec<Stretch> = Vec::new();
        for (timeline, until) in history.path() {
            let begins = path.last().and_then(|before| before.until).unwrap_or(Lsn::INVALID);
            path.push(Stretch { timeline, begins, until });
        }
        path.reverse();
        Ok(Branch { snapshot, history, path })
    }

    pub(super) fn timeline(&self) -> TimelineId {
        self.history.timeline()
    }

    /// The backup's whole range lies on this branch, so that replay from it stays on it.
    pub(super) fn holds(&self, backup: &BackupFacts) -> bool {
        let last = Lsn(backup.stop_lsn.0.saturating_sub(1));
        self.history.timeline_at(backup.start_lsn) == backup.start_timeline
            && self.history.timeline_at(last) == backup.stop_timeline
    }

    /// The backups on this branch, latest first.
    pub(super) fn backups(&self) -> Vec<&'a BackupFacts> {
        let mut backups: Vec<_> = self.snapshot.backups.iter().filter(|backup| self.holds(backup)).collect();
        backups.sort_by(|a, b| (b.stop_lsn, &b.id).cmp(&(a.stop_lsn, &a.id)));
        backups
    }

    /// The copies of a segment that replay along this branch can read; the best come first where one is complete, and
    /// incomplete ones are for the caller to compare.
    pub(super) fn find(&self, number: SegmentNo, backup: Option<&BackupFacts>) -> Vec<Found> {
        let complete = self.complete(number);
        if complete.as_ref().is_some_and(|found| found.valid_until.is_none()) {
            return complete.into_iter().collect();
        }
        let incomplete = self.incomplete(number, backup);
        if incomplete.is_empty() { complete.into_iter().collect() } else { incomplete }
    }

    /// The stored segments of this branch from `first` on, over gaps, each with its copies as [`Branch::find`] gives them.
    pub(super) fn stored(&self, first: SegmentNo) -> impl Iterator<Item = (SegmentNo, Vec<Found>)> + '_ {
        let size = self.snapshot.segment_size;
        let mut next = Some(first);
        std::iter::from_fn(move || {
            let mut number = next?;
            let mut found = self.find(number, None);
            if found.is_empty() {
                number = self.next_stored(number).and_then(|name| name.number(size).ok())?;
                found = self.find(number, None);
            }
            next = Some(number.next());
            Some((number, found))
        })
    }

    /// The name that the right copy of a segment has.
    pub(super) fn name(&self, number: SegmentNo) -> SegmentName {
        let newest = self.covering(number).next().map_or(self.timeline(), |(timeline, _)| timeline);
        SegmentName::new(newest, number, self.snapshot.segment_size)
    }

    /// What is wrong with a segment, if only a damaged copy of it is stored.
    pub(super) fn damage(&self, segment: SegmentName) -> Option<&'a StoredDamage> {
        let number = segment.number(self.snapshot.segment_size).ok()?;
        self.snapshot.timelines.get(&segment.timeline())?.damaged.get(&number)
    }

    /// The first stored segment after a missing one: tells a gap from the end.
    pub(super) fn next_stored(&self, after: SegmentNo) -> Option<SegmentName> {
        let size = self.snapshot.segment_size;
        let mut next: Option<SegmentNo> = None;
        for step in &self.path {
            let Some(record) = self.snapshot.timelines.get(&step.timeline) else { continue };
            let first = record.segments.next_from(after.next());
            // What a parent wrote beyond the switch belongs to the branch that was left.
            let first = first.filter(|number| step.until.is_none_or(|until| number.start(size) < until));
            next = next.into_iter().chain(first).min();
        }
        next.map(|number| self.name(number))
    }

    /// Timelines that wrote into a segment on this branch, newest first, with the LSN where the branch leaves each.
    fn covering(&self, number: SegmentNo) -> impl Iterator<Item = (TimelineId, Option<Lsn>)> + '_ {
        let size = self.snapshot.segment_size;
        let covers = move |step: &&Stretch| {
            step.begins < number.end(size) && step.until.is_none_or(|until| number.start(size) < until)
        };
        self.path.iter().filter(covers).map(|step| (step.timeline, step.until))
    }

    fn complete(&self, number: SegmentNo) -> Option<Found> {
        let (at, (timeline, until)) =
            self.covering(number).enumerate().find(|(_, (timeline, _))| self.snapshot.is_stored(*timeline, number))?;
        let name = SegmentName::new(timeline, number, self.snapshot.segment_size);
        let valid_until = if at == 0 { None } else { until };
        Some(Found { copy: WalCopy::Segment(name), valid_until })
    }

    fn incomplete(&self, number: SegmentNo, backup: Option<&BackupFacts>) -> Vec<Found> {
        let segment = self.name(number);
        let tail = backup
            .filter(|backup| backup.tail == Some(segment))
            .map(|backup| Found { copy: WalCopy::Tail { segment, backup: backup.id.clone() }, valid_until: None });
        let partials = self.snapshot.timelines.get(&segment.timeline()).map(|record| &record.partials);
        let partials = partials.into_iter().flatten().filter(|partial| partial.segment == number);
        let partials = partials
            .map(|partial| Found { copy: WalCopy::Partial { segment, hash: partial.hash.clone() }, valid_until: None });
        tail.into_iter().chain(partials).collect()
    }
}
