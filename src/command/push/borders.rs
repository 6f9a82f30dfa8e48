//! `Borders`: each segment is proved against the one before it, in this call or in an earlier one.
//!
//! What a segment leaves for the next ([`Border`]) is kept in memory for those that are archived in the same call, and in the
//! spool for the call to come. Where it is missing (the first segment, another host, a lost spool) the segment's first
//! record is not proved, which is no damage.
//!
//! A mismatch is damage only if it is certain that the segment at hand continues the one whose border is known. The server may
//! have been set back to an earlier state by a snapshot of its disks, and write other WAL under the same names; then both
//! are whole, and calling one of them damaged would take the new history's first segment away from its backups. So what was
//! noted in an earlier call counts only while the archive still holds those very bytes, and a `pg_wal` in which the segment
//! before has other content explains the mismatch. If that file is there with the same content, the mismatch is certain; if
//! it is gone already, the records themselves must show that they are of one history.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::command::host;
use crate::repository::wal::WalObjectName;
use crate::repository::{RepositoryId, ServerRepository};
use crate::spool::{BorderNote, Spool};
use crate::wal::{Border, SegmentName, SegmentNo, SegmentSize};

/// How long a segment waits for the one before it to be read: that one was begun earlier, and is read at the same speed.
const PATIENCE: Duration = Duration::from_secs(5);

/// The borders that a call knows.
#[derive(Debug, Default)]
pub(super) struct Borders {
    in_call: Mutex<BTreeMap<SegmentName, InCall>>,
    changed: Condvar,
}

/// A segment that this call archives.
#[derive(Debug)]
enum InCall {
    BeingRead,
    /// `None`: it is damaged.
    Read(Option<Border>),
    /// The segment behind it was proved and archived: no later call needs the border.
    Passed,
}

/// What is known of the segment before.
#[derive(Debug)]
pub(super) enum Before {
    /// This call has read it.
    InCall(Border),
    /// An earlier call noted it.
    Noted(BorderNote),
}

impl Before {
    pub(super) fn border(&self) -> &Border {
        match self {
            Before::InCall(border) => border,
            Before::Noted(note) => &note.border,
        }
    }
}

impl Borders {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SegmentName, InCall>> {
        self.in_call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A segment is about to be read by this call: the one behind it waits for its border while the result lives. Segments begin
    /// in order, so none waits for one that waits for it.
    pub(super) fn begin(self: &Arc<Self>, segment: SegmentName) -> Reading {
        self.lock().insert(segment, InCall::BeingRead);
        Reading { borders: Arc::clone(self), segment }
    }

    /// The border of the segment before.
    pub(super) fn before(
        &self,
        segment: SegmentName,
        spool: Option<&Spool>,
        repository: &RepositoryId,
    ) -> Option<Before> {
        let waits = |known: &mut BTreeMap<_, _>| matches!(known.get(&segment), Some(InCall::BeingRead));
        let waited = self.changed.wait_timeout_while(self.lock(), PATIENCE, waits);
        let (known, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match known.get(&segment) {
            Some(InCall::Read(border)) => border.clone().map(Before::InCall),
            Some(InCall::BeingRead | InCall::Passed) => None,
            None => spool?.border_of(segment, repository).map(Before::Noted),
        }
    }

    /// A segment was archived: its border is noted for the next call. Without the note, the next segment's first record is not
    /// proved.
    pub(super) fn note(&self, note: &BorderNote, spool: &Spool) {
        // Under the lock: the segment behind it may be archived at this moment, and removes the note.
        let known = self.lock();
        if !matches!(known.get(&note.border.segment()), Some(InCall::Passed)) {
            let _ = spool.leave_border(note);
        }
    }

    /// The segment behind this one was proved and archived.
    pub(super) fn pass(&self, segment: SegmentName, spool: &Spool) {
        let mut known = self.lock();
        known.insert(segment, InCall::Passed);
        spool.forget_border(segment);
    }

    /// A segment was read.
    pub(super) fn leave(&self, segment: SegmentName, border: Option<Border>) {
        self.lock().insert(segment, InCall::Read(border));
        self.changed.notify_all();
    }
}

/// A segment that this call reads. Dropped, the one behind it waits no longer.
#[derive(Debug)]
pub(super) struct Reading {
    borders: Arc<Borders>,
    segment: SegmentName,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut known = self.borders.lock();
        if matches!(known.get(&self.segment), Some(InCall::BeingRead)) {
            known.remove(&self.segment);
        }
        self.borders.changed.notify_all();
    }
}

/// The segment before another on the same timeline.
pub(super) fn previous(segment: SegmentName, size: SegmentSize) -> Option<SegmentName> {
    let number = segment.number(size).ok()?.0.checked_sub(1)?;
    Some(SegmentName::new(segment.timeline(), SegmentNo(number), size))
}

/// Whether a mismatch with the segment before is damage for certain. `file` is where that one lies in `pg_wal`, if it still does;
/// `same_history` is what the records say.
pub(super) fn is_certain(before: &Before, same_history: bool, server: &ServerRepository, file: &Path) -> bool {
    let note = match before {
        // Both were read from the same pg_wal a moment ago.
        Before::InCall(_) => return true,
        Before::Noted(note) => note,
    };
    let archived = server.describe(WalObjectName::Segment(note.border.segment()));
    if !archived.is_ok_and(|archived| archived.footer.raw_crc == note.raw_crc) {
        return false;
    }
    match host::file_checksum(file) {
        Ok(found) => found == note.raw_crc,
        Err(_) => same_history,
    }
}
