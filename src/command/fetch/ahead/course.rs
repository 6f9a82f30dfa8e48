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
    listing: Option<GroupListing>,
    /// There is nothing more, or it cannot be told.
    ended: bool,
}

impl Course {
    /// From this segment on.
    pub(super) fn from(segment: SegmentName, size: SegmentSize) -> Course {
        match segment.number(size) {
            Ok(next) => Course { timeline: segment.timeline(), next, size, listing: None, ended: false },
            Err(_) => Course::nowhere(size),
        }
    }

    /// Nothing.
    pub(super) fn nowhere(size: SegmentSize) -> Course {
        Course { timeline: TimelineId::FIRST, next: SegmentNo(0), size, listing: None, ended: true }
    }

    /// Whether there is nothing more.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The next segment that is stored; `None` at the end.
    ///
    /// # Errors
    /// The store fails. The course ends with it.
    pub(super) fn next(&mut self, server: &ServerRepository) -> Result<Option<SegmentName>, RepositoryError> {
        if self.ended {
            return Ok(None);
        }
        let found = self.look(server);
        match found {
            Ok(Some(_)) => self.next = self.next.next(),
            _ => self.ended = true,
        }
        found
    }

    fn look(&mut self, server: &ServerRepository) -> Result<Option<SegmentName>, RepositoryError> {
        let segment = SegmentName::new(self.timeline, self.next, self.size);
        if self.is_stored(segment, server)? {
            return Ok(Some(segment));
        }
        let mut younger = server.timelines()?;
        younger.retain(|timeline| *timeline > self.timeline);
        for child in younger.into_iter().rev() {
            let Some(history) = server.history(child)? else { continue };
            let leaves_here = history.switch_from(self.timeline).map(|switch| SegmentNo::of(switch, self.size));
            let segment = segment.on(child);
            if leaves_here == Some(self.next) && self.is_stored(segment, server)? {
                self.timeline = child;
                return Ok(Some(segment));
            }
        }
        Ok(None)
    }

    fn is_stored(&mut self, segment: SegmentName, server: &ServerRepository) -> Result<bool, RepositoryError> {
        let known = self.listing.take().filter(|listing| listing.group == segment.group());
        let listing = match known {
            Some(listing) => listing,
            None => server.list_group(segment.group())?,
        };
        Ok(self.listing.insert(listing).contains(segment))
    }
}
