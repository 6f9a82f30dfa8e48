//! Closing groups: the roll-up of a group of segments, written when the last of them was archived.
//!
//! What a roll-up says is known while segments are archived, and kept in the spool. So an archive is quick to read without
//! anybody who maintains it, for one request more in 256; the group that is still growing is read segment by segment. This is
//! extra work: whatever fails is left to `pitr reindex` and to the next base backup, and is not tried again by later calls, so that a
//! store that takes no roll-ups cannot hold the archive up.

use std::time::Duration;

use super::archiver::Archiver;
use crate::command::call::Open;
use crate::repository::RepositoryError;
use crate::spool::EntryNote;
use crate::wal::{SegmentGroup, SegmentName, SegmentSize};

/// The least time that must be left of the call.
const LEAST_LEFT: Duration = Duration::from_secs(10);

/// All segments up to this one are archived: writes the roll-ups of the groups that ended before it or with it.
pub(super) fn close(archiver: &Archiver, archived: SegmentName, left: Duration) {
    let Some(spool) = archiver.spool().filter(|_| left >= LEAST_LEFT) else { return };
    let size = archiver.record().segment_size_bytes;
    let is_last = archived.group().segment(last_place(archived.group(), size)) == Some(archived);
    let is_over = |group: &SegmentGroup| *group < archived.group() || (is_last && *group == archived.group());
    let over: Vec<SegmentGroup> = spool.noted_groups().into_iter().filter(is_over).collect();
    for group in over {
        let notes = spool.take_entries(group);
        for open in archiver.targets().answering() {
            if let Err(error) = put(&open, group, &notes) {
                tracing::debug!("the roll-up of {group} was not written: {error}");
            }
        }
    }
}

fn last_place(group: SegmentGroup, size: SegmentSize) -> u8 {
    // A group has at most 256 segments.
    u8::try_from(group.capacity(size) - 1).unwrap_or(u8::MAX)
}

fn put(open: &Open, group: SegmentGroup, notes: &[EntryNote]) -> Result<(), RepositoryError> {
    let of_this = notes.iter().filter(|note| note.repositories.contains(&open.id));
    open.server.put_entries(group, of_this.map(|note| note.entry.clone()).collect())
}
