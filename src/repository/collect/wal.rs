//! Stored WAL that no backup needs.

use std::collections::BTreeMap;

use super::{Going, What};
use crate::catalog::WalRun;
use crate::recovery::{NeededWal, Snapshot, StoredSegments};
use crate::repository::listing::WalObject;
use crate::repository::{RepositoryError, ServerRecord, ServerRepository};
use crate::wal::{SegmentGroup, SegmentName, SegmentNo, SegmentSize, TimelineId};

/// Objects of one timeline that no backup needs, in WAL order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unneeded {
    pub(super) timeline: TimelineId,
    /// Each with the number of its segment.
    pub(super) objects: Vec<(SegmentNo, WalObject)>,
    why: String,
}

impl Unneeded {
    /// The segments, by timeline.
    pub(super) fn segments(all: &[Unneeded]) -> BTreeMap<TimelineId, StoredSegments> {
        let numbers = |one: &Unneeded| one.objects.iter().map(|(number, _)| *number).collect();
        all.iter().map(|one| (one.timeline, numbers(one))).collect()
    }

    /// Run by run, what goes.
    pub(super) fn goings(&self, size: SegmentSize) -> Vec<Going> {
        let segments: StoredSegments = self.objects.iter().map(|(number, _)| *number).collect();
        let going = |run: std::ops::RangeInclusive<SegmentNo>| {
            let name = |number: &SegmentNo| SegmentName::new(self.timeline, *number, size);
            let from = self.objects.partition_point(|(number, _)| number < run.start());
            let to = self.objects.partition_point(|(number, _)| number <= run.end());
            let objects = &self.objects[from..to];
            Going {
                what: What::Wal(WalRun { first: name(run.start()), last: name(run.end()) }),
                objects: objects.len() as u64,
                stored_bytes: objects.iter().map(|(_, object)| object.stored_bytes).sum(),
                why: self.why.clone(),
            }
        };
        segments.runs().map(going).collect()
    }
}

impl ServerRepository {
    /// The stored WAL that is not needed; of `within` alone if that is given, and only what may go.
    pub(super) fn unneeded_wal(
        &self,
        record: &ServerRecord,
        snapshot: &Snapshot,
        needed: &NeededWal,
        within: Option<&BTreeMap<TimelineId, StoredSegments>>,
        may_go: &(dyn Fn(TimelineId, SegmentNo) -> bool + Sync),
    ) -> Result<Vec<Unneeded>, RepositoryError> {
        let size = record.segment_size_bytes;
        let mut all = Vec::new();
        for timeline in snapshot.timelines.keys().copied() {
            let first_of = |group: &SegmentGroup| group.segment(0).and_then(|name| name.number(size).ok());
            let from = needed.whole_from(timeline);
            let asked = within.map(|within| within.get(&timeline).cloned().unwrap_or_default());
            let mut groups = self.groups(timeline)?;
            groups.retain(|group| {
                let Some(first) = first_of(group) else { return false };
                let last = SegmentNo(first.0 + group.capacity(size) - 1);
                let is_asked =
                    asked.as_ref().is_none_or(|asked| asked.next_from(first).is_some_and(|next| next <= last));
                is_asked && from.is_none_or(|from| first < from)
            });
            let goes = |number: SegmentNo| {
                !needed.is_needed(timeline, number)
                    && asked.as_ref().is_none_or(|asked| asked.contains(number))
                    && may_go(timeline, number)
            };
            let found = self.in_parallel(&groups, |group| {
                let objects = self.group_objects(*group)?.into_iter();
                let numbered = objects.filter_map(|object| Some((object.name.segment().number(size).ok()?, object)));
                Ok(numbered.filter(|(number, _)| goes(*number)).collect::<Vec<_>>())
            })?;
            let objects: Vec<_> = found.into_iter().flatten().collect();
            if objects.is_empty() {
                continue;
            }
            let why = match from {
                Some(_) => "it lies before the start of the oldest backup that is kept".to_owned(),
                None => "no backup that is kept leads to its timeline".to_owned(),
            };
            all.push(Unneeded { timeline, objects, why });
        }
        Ok(all)
    }
}
