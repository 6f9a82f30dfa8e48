//! `StoredEntry`: what the call that stored a segment knows of it, for the roll-up of its group.
//!
//! Whoever archives has read every segment, so that it can write the roll-up of a group without reading anything back: one
//! object more for each 256. What it does not know is left out, and read by whoever needs it from the segment itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::proof::{Proved, is_remarkable};
use super::reindex::Draft;
use super::{RepositoryError, ServerRepository};
use crate::catalog::{RollUpEntry, SegmentNotes, Straddling};
use crate::codec::Origin;
use crate::wal::{Continuity, HeadPiece, PgTime, SegmentFacts, SegmentGroup, SegmentName};

/// What is known of a segment that was stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredEntry {
    /// The segment.
    pub segment: SegmentName,
    /// What its records say, with the record over the border before it if that is proved.
    pub facts: SegmentFacts,
    /// The record over the border before it.
    pub border: Straddling,
    /// Bytes of the object.
    pub stored_bytes: u64,
    /// CRC-32 (IEEE) of the raw bytes.
    pub raw_crc: u32,
    /// When it was archived.
    pub archived_at: PgTime,
    /// By whom.
    pub archived_by: Origin,
    /// What happened in it.
    pub notes: SegmentNotes,
}

impl StoredEntry {
    /// The entry of a segment that was read, but for what storing it tells; `None` if its records were not read, or are damaged.
    pub(super) fn of(segment: SegmentName, proved: &Proved) -> Option<StoredEntry> {
        let details = &proved.details;
        let mut facts = proved.facts.filter(|_| details.damage.is_none())?;
        let mut notes = SegmentNotes { segment, events: Vec::new(), events_cut: details.events_cut, damage: None };
        let border = match (&proved.continuity, &details.head) {
            // It ends in a later segment.
            (_, Some(head)) if !HeadPiece::is_last(head) => Straddling::None,
            (Continuity::Proved { event }, head) => {
                if let Some(event) = event {
                    facts.prepend(event);
                    notes.events.extend(Some(event.clone()).filter(is_remarkable));
                }
                if head.is_some() { Straddling::Proved } else { Straddling::None }
            }
            // A reader looks for itself.
            (Continuity::NotProved | Continuity::OtherHistory | Continuity::Broken { .. }, _) => Straddling::Open,
        };
        notes.events.extend(details.events.iter().cloned());
        let archived_by = details.archived_by.clone();
        Some(StoredEntry {
            segment,
            facts,
            border,
            stored_bytes: 0,
            raw_crc: 0,
            archived_at: PgTime(0),
            archived_by,
            notes,
        })
    }
}

impl ServerRepository {
    /// Stores the roll-up of a group, as far as these entries tell; of several of one segment the last one counts. Others that
    /// are there stay: the fuller one is read.
    ///
    /// # Errors
    /// The store fails.
    pub fn put_entries(&self, group: SegmentGroup, entries: Vec<StoredEntry>) -> Result<(), RepositoryError> {
        let of_group = entries.into_iter().filter(|entry| entry.segment.group() == group);
        let entries: BTreeMap<SegmentName, StoredEntry> = of_group.map(|entry| (entry.segment, entry)).collect();
        if entries.is_empty() {
            return Ok(());
        }
        let mut draft = Draft::default();
        for StoredEntry { segment, facts, border, stored_bytes, raw_crc, archived_at, archived_by, notes } in
            entries.into_values()
        {
            let origin = draft.origin(&archived_by);
            let entry =
                RollUpEntry { segment, facts, border, scanned: false, stored_bytes, raw_crc, archived_at, origin };
            draft.put(entry, Some(notes));
        }
        self.put_roll_up(&draft.roll_up(self, group)?, &[]).map(drop)
    }
}
