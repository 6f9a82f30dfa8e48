//! `Course`: which segment a recovery will ask for next.

use crate::repository::{GroupListing, RepositoryError, ServerRepository};
use crate::wal::{SegmentName, SegmentNo, SegmentSize, TimelineId};

/// The way ahead from a segment on. One listing says what there is of 256 segments.
///
/// Where a timeline ends, the newest of those that branch off there is followed: that is what a recovery does unless it was told
/// otherwise, and then its next call says so.
#[derive(Debug)]
pub(super) struct Course {
    timeline: TimelineId,
    next: SegmentNo,
    size: SegmentSize,
    /// One for each repository.
    listings: Vec<Option<GroupListing>>,
    /// There is nothing more, or it cannot be told.
    ended: bool,
}

impl Course {
    /// From this segment on.
    pub(super) fn from(segment: SegmentName, size: SegmentSize) -> Course {
        match segment.number(size) {
            Ok(next) => Course { timeline: segment.timeline(), next, size, listings: Vec::new(), ended: false },
            Err(_) => Course::nowhere(size),
        }
    }

    /// Nothing.
    pub(super) fn nowhere(size: SegmentSize) -> Course {
        Course { timeline: TimelineId::FIRST, next: SegmentNo(0), size, listings: Vec::new(), ended: true }
    }

    /// Whether there is nothing more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The segment that [`Course::next`] looks for, if it goes on on this timeline; `None` at the end.
    pub(super) fn upcoming(&self) -> Option<SegmentName> {
        (!self.ended).then(|| SegmentName::new(self.timeline, self.next, self.size))
    }

    /// Goes on from a later segment on the same way, if this is one.
    pub(super) fn skip_to(&mut self, segment: SegmentName) -> bool {
        let Ok(number) = segment.number(self.size) else { return false };
        let ahead = !self.ended && segment.timeline() == self.timeline && number >= self.next;
        if ahead {
            self.next = number;
        }
        ahead
    }

    /// The next segment that is stored in any of the repositories; `None` at the end.
    ///
    /// # Errors
    /// A store fails, and no other has the segment. The course ends with it.
    pub(super) fn next(&mut self, servers: &[ServerRepository]) -> Result<Option<SegmentName>, RepositoryError> {
        if self.ended {
            return Ok(None);
        }
        let found = self.look(servers);
        match found {
            Ok(Some(_)) => self.next = self.next.next(),
            _ => self.ended = true,
        }
        found
    }

    fn look(&mut self, servers: &[ServerRepository]) -> Result<Option<SegmentName>, RepositoryError> {
        let segment = SegmentName::new(self.timeline, self.next, self.size);
        if self.is_stored(segment, servers)? {
            return Ok(Some(segment));
        }
        for server in servers {
            if let Some(segment) = self.look_beyond(server, servers)? {
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    /// Where the timeline ends: goes on with the newest that this repository knows to leave here.
    fn look_beyond(
        &mut self,
        server: &ServerRepository,
        servers: &[ServerRepository],
    ) -> Result<Option<SegmentName>, RepositoryError> {
        let segment = SegmentName::new(self.timeline, self.next, self.size);
        let mut younger = server.timelines()?;
        younger.retain(|timeline| *timeline > self.timeline);
        for child in younger.into_iter().rev() {
            let Some(history) = server.history(child)? else { continue };
            let leaves_here = history.switch_from(self.timeline).map(|switch| SegmentNo::of(switch, self.size));
            let segment = segment.on(child);
            if leaves_here == Some(self.next) && self.is_stored(segment, servers)? {
                self.timeline = child;
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    fn is_stored(&mut self, segment: SegmentName, servers: &[ServerRepository]) -> Result<bool, RepositoryError> {
        self.listings.resize_with(servers.len(), || None);
        let mut failed = None;
        for (server, kept) in servers.iter().zip(&mut self.listings) {
            let known = kept.take().filter(|listing| listing.group == segment.group());
            let listing = match known.map_or_else(|| server.list_group(segment.group()), Ok) {
                Ok(listing) => listing,
                Err(error) => {
                    failed = Some(error);
                    continue;
                }
            };
            if kept.insert(listing).contains(segment) {
                return Ok(true);
            }
        }
        failed.map_or(Ok(false), Err)
    }
}
