//! Roll-ups in the repository: found, read, and replaced by fuller ones.
//!
//! A roll-up is derived, so it is the one kind of object that may be deleted, after its successor is durable. One that is
//! gone, damaged or of a newer version is as good as none: the segments describe themselves.

use std::collections::BTreeMap;

use super::wal::WalObjectName;
use super::{GroupListing, RepositoryError, ServerRepository, keys};
use crate::catalog::{ROLL_UP_LIMIT_BYTES, RollUp, RollUpName};
use crate::storage::{Put, StorageErrorKind};
use crate::wal::{SegmentGroup, TimelineId};

impl ServerRepository {
    /// The fullest roll-up of each group of a timeline that has one.
    ///
    /// # Errors
    /// The store fails.
    pub fn roll_ups(&self, timeline: TimelineId) -> Result<BTreeMap<SegmentGroup, RollUpName>, RepositoryError> {
        // Of equal groups the last one stays.
        Ok(self.all_roll_ups(timeline)?.into_iter().map(|name| (name.group, name)).collect())
    }

    /// All roll-ups of a timeline, those of a group together and the fullest last.
    ///
    /// # Errors
    /// The store fails.
    pub fn all_roll_ups(&self, timeline: TimelineId) -> Result<Vec<RollUpName>, RepositoryError> {
        let names = self.storage.names(&keys::catalog(&self.folder, timeline))?;
        let mut names: Vec<_> = names.iter().filter_map(|name| RollUpName::parse(name, timeline).ok()).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Reads a roll-up; `None` if it is gone or not to be believed, which is told as a warning.
    ///
    /// # Errors
    /// The store fails.
    pub fn roll_up(&self, name: RollUpName) -> Result<Option<RollUp>, RepositoryError> {
        Ok(self.roll_up_bytes(name)?.and_then(|bytes| self.decode_roll_up(name, &bytes)))
    }

    /// The bytes of a roll-up, unchecked; `None` if it is gone or too large.
    pub(super) fn roll_up_bytes(&self, name: RollUpName) -> Result<Option<Vec<u8>>, RepositoryError> {
        match self.storage.get(&keys::roll_up(&self.folder, name), ROLL_UP_LIMIT_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) if error.kind == StorageErrorKind::TooLarge => {
                self.pass_over(name, &error);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What these bytes say, if they are the roll-up of that name.
    pub(super) fn decode_roll_up(&self, name: RollUpName, bytes: &[u8]) -> Option<RollUp> {
        let decoded = RollUp::decode(bytes, name, self.system_identifier);
        decoded.inspect_err(|error| self.pass_over(name, error)).ok()
    }

    fn pass_over(&self, name: RollUpName, why: &dyn std::fmt::Display) {
        let (key, storage) = (keys::roll_up(&self.folder, name), self.storage.describe());
        tracing::warn!("roll-up \"{key}\" in {storage} is passed over: {why}; \"pitr reindex\" makes it anew");
    }

    /// Stores a roll-up, and removes those that it replaces. Whether it was not there yet.
    ///
    /// # Errors
    /// The store fails; what was there before is still there then.
    pub fn put_roll_up(&self, roll_up: &RollUp, replaces: &[RollUpName]) -> Result<bool, RepositoryError> {
        let encoded = roll_up.encode();
        let (name, bytes) = encoded.map_err(|error| self.storage.failed("write", &self.folder, &error))?;
        let key = keys::roll_up(&self.folder, name);
        let put = self.storage.put(&key, &bytes)?;
        if put == Put::Exists {
            // Its bytes are those that the name tells, unless they rotted.
            if self.roll_up(name)?.is_none() {
                self.storage.delete(&key)?;
                self.storage.put(&key, &bytes)?;
            }
            self.storage.settle(&key)?;
        }
        // Two that do this at the same time may remove each other's. That costs the next reader some time and nothing else.
        for other in replaces.iter().filter(|other| other.group == name.group && **other != name) {
            self.storage.delete(&keys::roll_up(&self.folder, *other))?;
        }
        Ok(put == Put::Created)
    }

    /// Bytes that everything in these groups takes in the store: as the listing told, else from roll-ups where they tell.
    ///
    /// # Errors
    /// The store fails.
    pub fn stored_bytes_of(&self, timeline: TimelineId, listings: &[GroupListing]) -> Result<u64, RepositoryError> {
        if let Some(bytes) = listings.iter().map(|listing| listing.stored_bytes).sum::<Option<u64>>() {
            return Ok(bytes);
        }
        let roll_ups = self.roll_ups(timeline)?;
        let sums =
            self.in_parallel(listings, |listing| self.group_bytes(listing, roll_ups.get(&listing.group).copied()));
        Ok(sums?.into_iter().sum())
    }

    fn group_bytes(&self, listing: &GroupListing, name: Option<RollUpName>) -> Result<u64, RepositoryError> {
        let roll_up = match name {
            Some(name) => self.roll_up(name)?,
            None => None,
        };
        let known = roll_up.iter().flat_map(|roll_up| &roll_up.entries);
        let known = known.filter(|entry| listing.contains(entry.segment)).map(|entry| entry.stored_bytes);
        let known: Vec<u64> = known.collect();
        // One look each at a few is quicker than a listing with sizes.
        if known.len() as u64 == listing.count() && listing.others.is_empty() {
            return Ok(known.iter().sum());
        }
        let objects = self.group_objects(listing.group)?;
        Ok(objects.iter().map(|object| object.stored_bytes).sum())
    }

    /// Bytes that a listed object takes in the store.
    ///
    /// # Errors
    /// The store fails; not found is an error here.
    pub fn stored_bytes(&self, name: WalObjectName) -> Result<u64, RepositoryError> {
        let key = keys::object(&self.folder, name);
        self.storage.size(&key)?.ok_or_else(|| self.gone(&key))
    }
}
