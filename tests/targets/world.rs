//! A repository drawn by hand, and questions to it.

use std::collections::BTreeMap;
use std::convert::Infallible;

use pitr::recovery::{
    BackupFacts, PlanError, PlanRequest, RecoveryTarget, Refusal, RestorePlan, Snapshot, StoredPartial, TargetKind,
    Unreachable, WalCopy, WalEvidence, plan,
};
use pitr::wal::{
    Event, EventKind, Lsn, PgTime, SegmentEnding, SegmentFacts, SegmentName, SegmentNo, SegmentSize, TimelineHistory,
    TimelineId, TransactionEnd, Xid,
};

pub(super) const MIB: u64 = 1 << 20;

/// The LSN `offset` bytes into a segment.
pub(super) fn at(segment: u64, offset: u64) -> Lsn {
    Lsn(segment * MIB + offset)
}

/// A moment, in minutes.
pub(super) fn min(minutes: i64) -> PgTime {
    PgTime(minutes * 60_000_000)
}

pub(super) fn tli(number: u32) -> TimelineId {
    TimelineId(number)
}

/// A repository drawn by hand.
#[derive(Clone)]
pub(super) struct World {
    pub(super) snapshot: Snapshot,
    pub(super) events: BTreeMap<TimelineId, Vec<Event>>,
    pub(super) partial_ends: BTreeMap<String, Lsn>,
}

impl World {
    pub(super) fn new() -> Self {
        let segment_size = SegmentSize::try_from(1 << 20).expect("1 MiB is a segment size");
        let snapshot = Snapshot { segment_size, backups: Vec::new(), timelines: BTreeMap::new() };
        World { snapshot, events: BTreeMap::new(), partial_ends: BTreeMap::new() }
    }

    /// Stored complete segments.
    pub(super) fn segments(mut self, timeline: u32, numbers: impl IntoIterator<Item = u64>) -> Self {
        let record = self.snapshot.timelines.entry(tli(timeline)).or_default();
        record.segments.extend(numbers.into_iter().map(SegmentNo));
        self
    }

    pub(super) fn partial(mut self, timeline: u32, number: u64, hash: &str, end: Lsn) -> Self {
        let record = self.snapshot.timelines.entry(tli(timeline)).or_default();
        record.partials.push(StoredPartial { segment: SegmentNo(number), hash: hash.into(), stored_bytes: 10 });
        self.partial_ends.insert(hash.into(), end);
        self
    }

    pub(super) fn fork(mut self, child: u32, parent: u32, switch: Lsn) -> Self {
        let parent_history = self.history(tli(parent));
        let history = parent_history.branch(tli(child), switch, "by hand").expect("a valid fork");
        self.snapshot.timelines.entry(tli(child)).or_default().history = Some(history);
        self
    }

    pub(super) fn event(mut self, timeline: u32, lsn: Lsn, xid: u32, kind: EventKind) -> Self {
        let events = self.events.entry(tli(timeline)).or_default();
        events.push(Event { lsn, end_lsn: Lsn(lsn.0 + 64), xid: Xid(xid), kind });
        events.sort_by_key(|event| event.lsn);
        self
    }

    pub(super) fn commit(self, timeline: u32, lsn: Lsn, time: PgTime, xid: u32) -> Self {
        self.event(timeline, lsn, xid, EventKind::Commit(end(time)))
    }

    pub(super) fn abort(self, timeline: u32, lsn: Lsn, time: PgTime, xid: u32) -> Self {
        self.event(timeline, lsn, xid, EventKind::Abort(end(time)))
    }

    pub(super) fn restore_point(self, timeline: u32, lsn: Lsn, time: PgTime, name: &str) -> Self {
        self.event(timeline, lsn, 0, EventKind::RestorePoint { time, name: name.into() })
    }

    pub(super) fn checkpoint(self, timeline: u32, lsn: Lsn, time: PgTime) -> Self {
        let kind = EventKind::Checkpoint {
            shutdown: false,
            redo: lsn,
            timeline: tli(timeline),
            previous_timeline: tli(timeline),
            time,
        };
        self.event(timeline, lsn, 0, kind)
    }

    pub(super) fn backup(mut self, id: &str, timeline: u32, start: Lsn, stop: Lsn, minute: i64) -> Self {
        self.snapshot.backups.push(BackupFacts {
            id: id.into(),
            start_lsn: start,
            stop_lsn: stop,
            start_timeline: tli(timeline),
            stop_timeline: tli(timeline),
            start_time: min(minute),
            stop_time: min(minute + 1),
            size_bytes: 0,
            stored_bytes: 0,
            tail: None,
        });
        self
    }

    pub(super) fn history(&self, timeline: TimelineId) -> TimelineHistory {
        let record = self.snapshot.timelines.get(&timeline);
        record.and_then(|record| record.history.clone()).unwrap_or_else(TimelineHistory::first)
    }

    pub(super) fn ask(&self, kind: TargetKind) -> Asked<'_> {
        let target = RecoveryTarget::inclusive(kind);
        Asked { world: self, request: PlanRequest { target, timeline: None, backup: None } }
    }
}

pub(super) fn end(time: PgTime) -> TransactionEnd {
    TransactionEnd {
        time,
        prepared: false,
        database: None,
        subtransactions: 0,
        subtransaction_xids: Vec::new(),
        dropped_count: 0,
        dropped: Vec::new(),
        cut: false,
    }
}

/// A question to a world.
pub(super) struct Asked<'a> {
    world: &'a World,
    pub(super) request: PlanRequest,
}

impl Asked<'_> {
    pub(super) fn exclusive(mut self) -> Self {
        self.request.target =
            RecoveryTarget::exclusive(self.request.target.kind).expect("a kind that can be exclusive");
        self
    }

    pub(super) fn timeline(mut self, timeline: u32) -> Self {
        self.request.timeline = Some(tli(timeline));
        self
    }

    pub(super) fn with_backup(mut self, id: &str) -> Self {
        self.request.backup = Some(id.into());
        self
    }

    pub(super) fn plan(self) -> RestorePlan {
        let mut evidence = self.world.clone();
        plan(&self.world.snapshot, &self.request, &mut evidence).expect("the target can be reached")
    }

    pub(super) fn refused(self) -> Unreachable {
        self.refusal().why
    }

    pub(super) fn refusal(self) -> Refusal {
        let mut evidence = self.world.clone();
        match plan(&self.world.snapshot, &self.request, &mut evidence) {
            Err(PlanError::Unreachable(refusal)) => *refusal,
            Err(PlanError::Evidence(never)) => match never {},
            Ok(plan) => panic!("planned: {plan:?}"),
        }
    }
}

impl WalEvidence for World {
    type Error = Infallible;

    fn stored_bytes(&mut self, _: &WalCopy) -> Result<u64, Infallible> {
        Ok(1000)
    }

    fn facts(&mut self, copy: &WalCopy) -> Result<SegmentFacts, Infallible> {
        let events = self.events(copy)?;
        let size = self.snapshot.segment_size;
        let number = copy.segment().number(size).expect("drawn with this size");
        let (end, ending) = match copy {
            WalCopy::Segment(_) => (number.end(size), SegmentEnding::Full),
            WalCopy::Partial { hash, .. } => (self.partial_ends[hash], SegmentEnding::Unfinished),
            WalCopy::Tail { .. } => (Lsn(number.end(size).0 - 8192), SegmentEnding::Unfinished),
        };
        let mut facts = SegmentFacts {
            first_record: Some(Lsn(number.start(size).0 + 40)),
            before_first_record: None,
            last_record: Some(Lsn(end.0 - 64)),
            end,
            ending,
            min_time: None,
            max_time: None,
            first_time: None,
            last_time: None,
            first_xid: None,
            last_xid: None,
            last_commit: None,
            commits: 0,
            aborts: 0,
            dropped_relations: 0,
            restore_points: 0,
            parameter_changes: 0,
            checkpoints: 0,
        };
        for event in events.iter().rev() {
            facts.prepend(event);
        }
        Ok(facts)
    }

    /// Records are everywhere up to the last one, except in page headers.
    fn record_from(&mut self, copy: &WalCopy, lsn: Lsn) -> Result<Option<Lsn>, Infallible> {
        let last = self.facts(copy)?.last_record;
        let header = if lsn.0 % MIB < 40 { 40 } else { 24 };
        let lsn = if lsn.0 % 8192 < header { Lsn(lsn.0 / 8192 * 8192 + header) } else { lsn };
        Ok(Some(lsn).filter(|lsn| Some(*lsn) <= last))
    }

    fn events(&mut self, copy: &WalCopy) -> Result<Vec<Event>, Infallible> {
        let name: SegmentName = copy.segment();
        let size = self.snapshot.segment_size;
        let number = name.number(size).expect("drawn with this size");
        let mut events = Vec::new();
        for (timeline, until) in self.history(name.timeline()).path() {
            let own = self.events.get(&timeline).into_iter().flatten();
            let here = own.filter(|event| SegmentNo::of(event.lsn, size) == number);
            events.extend(here.filter(|event| until.is_none_or(|until| event.lsn < until)).cloned());
        }
        Ok(events)
    }
}
