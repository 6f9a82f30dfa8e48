//! Which WAL files are stored: by timeline, by group, by name.
//!
//! A listing alone says what exists. It is made of names only where that is quicker, and of many groups in parallel: a
//! million segments lie in four thousand folders.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::keys::{self, WalObjectName};
use super::{RepositoryError, ServerRepository};
use crate::wal::{SegmentGroup, SegmentName, TimelineId};

/// One line of a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalObject {
    /// What it is.
    pub name: WalObjectName,
    /// Bytes in the store.
    pub stored_bytes: u64,
}

/// What is stored of a group, by name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupListing {
    /// The group.
    pub group: SegmentGroup,
    /// A bit for each complete segment, by the last two digits of its name.
    present: [u64; 4],
    /// What else lies there, in WAL order.
    pub others: Vec<WalObjectName>,
    /// Bytes that all of it takes in the store, if the listing told.
    pub(super) stored_bytes: Option<u64>,
}

impl GroupListing {
    fn new(group: SegmentGroup) -> GroupListing {
        GroupListing { group, present: [0; 4], others: Vec::new(), stored_bytes: None }
    }

    /// Whether this complete segment is stored.
    #[must_use]
    pub fn contains(&self, segment: SegmentName) -> bool {
        // The last two digits of its name.
        #[allow(clippy::cast_possible_truncation)]
        let last = segment.place() as u8;
        segment.group() == self.group && self.present[usize::from(last / 64)] & 1 << (last % 64) != 0
    }

    /// Number of complete segments.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.present.iter().map(|bits| u64::from(bits.count_ones())).sum()
    }

    /// The complete segments, ascending.
    pub fn segments(&self) -> impl Iterator<Item = SegmentName> + '_ {
        (0..=u8::MAX).filter_map(|last| self.group.segment(last)).filter(|segment| self.contains(*segment))
    }

    /// Segments of which only damaged copies are stored, ascending; one that has several comes several times.
    pub fn only_damaged(&self) -> impl Iterator<Item = SegmentName> + '_ {
        self.others.iter().filter_map(|name| match name {
            WalObjectName::Damaged(segment, _) if !self.contains(*segment) => Some(*segment),
            _ => None,
        })
    }

    /// Takes in the name of an object; what is not ours is passed over.
    fn add(&mut self, name: &str, prefix: &str) {
        let last = name.strip_prefix(prefix).filter(|digits| digits.len() == 2 && !digits.starts_with('+'));
        // Lower case would be another name.
        let last = last.filter(|digits| !digits.bytes().any(|byte| byte.is_ascii_lowercase()));
        if let Some(last) = last.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            if self.group.segment(last).is_some() {
                self.present[usize::from(last / 64)] |= 1 << (last % 64);
            }
        } else if let Some(name) = self.object(name).filter(|name| !matches!(name, WalObjectName::Segment(_))) {
            self.others.push(name);
        }
    }

    /// The object of this group that has a name, if it can be one.
    fn object(&self, name: &str) -> Option<WalObjectName> {
        name.parse().ok().filter(|name: &WalObjectName| name.segment().group() == self.group)
    }
}

impl ServerRepository {
    /// Timelines that have WAL files or a history file, ascending.
    ///
    /// # Errors
    /// The store fails.
    pub fn timelines(&self) -> Result<Vec<TimelineId>, RepositoryError> {
        let mut found = Vec::new();
        for entry in self.storage.list(&keys::wal(&self.folder))? {
            let digits = entry.name.strip_suffix(".history").unwrap_or(&entry.name);
            found.extend(TimelineId::from_hex(digits).ok());
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// A timeline's groups, ascending.
    ///
    /// # Errors
    /// The store fails.
    pub fn groups(&self, timeline: TimelineId) -> Result<Vec<SegmentGroup>, RepositoryError> {
        let listed = self.storage.list(&keys::timeline(&self.folder, timeline))?;
        let folders = listed.into_iter().filter(|entry| entry.folder);
        let mut found: Vec<_> = folders.filter_map(|entry| SegmentGroup::parse(timeline, &entry.name)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// What is stored of a group, by name.
    ///
    /// # Errors
    /// The store fails.
    pub fn list_group(&self, group: SegmentGroup) -> Result<GroupListing, RepositoryError> {
        let mut listing = GroupListing::new(group);
        let prefix = format!("{}{group}", group.timeline().to_hex());
        let folder = keys::group(&self.folder, group);
        if self.storage.is_remote() {
            let listed = self.storage.list(&folder)?;
            let objects = || listed.iter().filter(|entry| !entry.folder);
            objects().for_each(|entry| listing.add(&entry.name, &prefix));
            let ours = objects().filter(|entry| listing.object(&entry.name).is_some());
            listing.stored_bytes = Some(ours.map(|entry| entry.size).sum());
        } else {
            for name in self.storage.names(&folder)? {
                listing.add(&name, &prefix);
            }
        }
        listing.others.sort_unstable();
        Ok(listing)
    }

    /// What is stored of a timeline, group by group.
    ///
    /// # Errors
    /// The store fails.
    pub fn listing(&self, timeline: TimelineId) -> Result<Vec<GroupListing>, RepositoryError> {
        self.in_parallel(&self.groups(timeline)?, |group| self.list_group(*group))
    }

    /// All objects of a timeline in WAL order with their sizes, without its history file. What is not ours is passed over.
    ///
    /// # Errors
    /// The store fails.
    pub fn wal_objects(&self, timeline: TimelineId) -> Result<Vec<WalObject>, RepositoryError> {
        let mut found = Vec::new();
        for group in self.groups(timeline)? {
            found.extend(self.group_objects(group)?);
        }
        Ok(found)
    }

    /// Bytes that segments take in the store; those that are not stored take none.
    ///
    /// # Errors
    /// The store fails.
    pub fn stored_wal_bytes(&self, segments: &BTreeSet<SegmentName>) -> Result<u64, RepositoryError> {
        let groups: BTreeSet<SegmentGroup> = segments.iter().map(|segment| segment.group()).collect();
        let mut bytes = 0;
        for group in groups {
            let objects = self.group_objects(group)?.into_iter();
            let wanted = objects.filter(|object| match object.name {
                WalObjectName::Segment(name) => segments.contains(&name),
                _ => false,
            });
            bytes += wanted.map(|object| object.stored_bytes).sum::<u64>();
        }
        Ok(bytes)
    }

    /// The objects of a group in WAL order with their sizes.
    pub(super) fn group_objects(&self, group: SegmentGroup) -> Result<Vec<WalObject>, RepositoryError> {
        let listing = GroupListing::new(group);
        let mut found = Vec::new();
        for entry in self.storage.list(&keys::group(&self.folder, group))? {
            if let Some(name) = listing.object(&entry.name).filter(|_| !entry.folder) {
                found.push(WalObject { name, stored_bytes: entry.size });
            }
        }
        found.sort_by_key(|object| (object.name.segment(), object.name));
        Ok(found)
    }

    /// Does something for each item, in the items' order and in as many threads as the store is quicker with.
    pub(super) fn in_parallel<T: Sync, R: Send>(
        &self,
        items: &[T],
        work: impl Fn(&T) -> Result<R, RepositoryError> + Sync,
    ) -> Result<Vec<R>, RepositoryError> {
        let threads = self.storage.threads_for(items.len());
        if threads == 1 {
            return items.iter().map(work).collect();
        }
        let next = AtomicUsize::new(0);
        let take = || {
            let mut done = Vec::new();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some(item) = items.get(at) else { return done };
                let result = work(item);
                let failed = result.is_err();
                done.push((at, result));
                if failed {
                    // The others stop too.
                    next.store(items.len(), Ordering::Relaxed);
                }
            }
        };
        let mut done = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.flat_map(|done| done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect::<Vec<_>>()
        });
        done.sort_unstable_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, result)| result).collect()
    }
}
