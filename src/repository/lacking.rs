//! What one repository holds of a timeline's WAL and another lacks, by their listings.

use std::collections::BTreeSet;

use super::archiving::StoredAs;
use super::{RepositoryError, ServerRepository, WalObjectName, keys};
use crate::wal::{SegmentGroup, SegmentName, TimelineId};

/// What is lacking.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Lacking {
    /// The objects, in WAL order, the history file first.
    pub objects: Vec<StoredAs>,
}

impl Lacking {
    /// The complete segments among them.
    pub fn segments(&self) -> impl Iterator<Item = SegmentName> + '_ {
        self.objects.iter().filter_map(|object| match object {
            StoredAs::Object(WalObjectName::Segment(name)) => Some(*name),
            StoredAs::Object(_) | StoredAs::History(_) => None,
        })
    }
}

impl ServerRepository {
    /// WAL files of a timeline that are here and not in `other`, from the group of `since` on if that is given. What retention
    /// removed there is not lacking.
    ///
    /// # Errors
    /// Either store fails.
    pub fn lacking_in(
        &self,
        other: &ServerRepository,
        timeline: TimelineId,
        since: Option<SegmentName>,
    ) -> Result<Lacking, RepositoryError> {
        let mut objects = Vec::new();
        let history = keys::history(&self.folder, timeline);
        if timeline != TimelineId::FIRST
            && self.storage.size(&history)?.is_some()
            && other.storage.size(&history)?.is_none()
        {
            objects.push(StoredAs::History(timeline));
        }
        let from: Option<SegmentGroup> = since.map(SegmentName::group);
        let theirs: BTreeSet<SegmentGroup> = other.groups(timeline)?.into_iter().collect();
        let mut groups = self.groups(timeline)?;
        groups.retain(|group| from.is_none_or(|from| *group >= from));
        let lacking = self.in_parallel(&groups, |group| {
            let ours = self.list_group(*group)?;
            let theirs = if theirs.contains(group) { Some(other.list_group(*group)?) } else { None };
            let segments = ours.segments().filter(|segment| !theirs.as_ref().is_some_and(|it| it.contains(*segment)));
            let others = ours.others.iter().filter(|name| !theirs.as_ref().is_some_and(|it| it.others.contains(name)));
            let segments = segments.map(|segment| StoredAs::Object(WalObjectName::Segment(segment)));
            Ok(segments.chain(others.map(|name| StoredAs::Object(*name))).collect::<Vec<_>>())
        })?;
        let mut lacking: Vec<_> = lacking.into_iter().flatten().collect();
        if !lacking.is_empty() {
            let expired = other.expired_runs()?;
            lacking.retain(|object| match object {
                StoredAs::Object(name) => !expired.iter().any(|run| run.contains(name.segment())),
                StoredAs::History(_) => true,
            });
        }
        objects.extend(lacking);
        Ok(Lacking { objects })
    }
}
