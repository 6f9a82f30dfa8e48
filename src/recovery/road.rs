//! `Road`: the stored WAL of one timeline and its ancestors, segment by segment, for who wants to read it.

use super::branch::Branch;
use super::refusal::Unreachable;
use super::snapshot::{BackupFacts, Snapshot, WalCopy, WalEvidence};
use super::walk::best;
use crate::wal::{Lsn, SegmentFacts, SegmentNo, TimelineId};

/// A timeline with its ancestors, as stored.
pub struct Road<'a> {
    branch: Branch<'a>,
}

/// A segment on the road.
#[derive(Clone, PartialEq, Debug)]
pub struct RoadSegment {
    /// Its number.
    pub number: SegmentNo,
    /// The copy to read.
    pub copy: WalCopy,
    /// What happened in it.
    pub facts: SegmentFacts,
    /// The copy is of the parent timeline, and leaves the road here: what follows in it belongs elsewhere.
    pub valid_until: Option<Lsn>,
    /// WAL is missing between the segment asked for and this one.
    pub after_gap: bool,
}

impl<'a> Road<'a> {
    /// The road that ends with `timeline`.
    ///
    /// # Errors
    /// The timeline is unknown, or its history is missing.
    pub fn new(snapshot: &'a Snapshot, timeline: TimelineId) -> Result<Self, Box<Unreachable>> {
        Ok(Road { branch: Branch::new(snapshot, timeline)? })
    }

    /// The road of the newest timeline whose history is known; `None` if nothing is stored.
    #[must_use]
    pub fn newest(snapshot: &'a Snapshot) -> Option<Self> {
        snapshot.timelines.keys().rev().find_map(|timeline| Road::new(snapshot, *timeline).ok())
    }

    /// The timeline that it ends with.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.branch.timeline()
    }

    /// The timeline that the byte at `lsn` belongs to.
    #[must_use]
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        self.branch.history.timeline_at(lsn)
    }

    /// Where the road leaves a timeline for the next; `None` if it does not pass there, or ends there.
    #[must_use]
    pub fn leaves(&self, timeline: TimelineId) -> Option<Lsn> {
        self.branch.history.switch_from(timeline)
    }

    /// The base backups that lead along it, latest first.
    #[must_use]
    pub fn backups(&self) -> Vec<&'a BackupFacts> {
        self.branch.backups()
    }

    /// The first stored segment that is not before `from`; `None` at the end.
    ///
    /// # Errors
    /// What is stored could not be read.
    pub fn next<E: WalEvidence>(&self, from: SegmentNo, evidence: &mut E) -> Result<Option<RoadSegment>, E::Error> {
        let Some((number, found)) = self.branch.stored(from).next() else { return Ok(None) };
        let found = best(found, evidence)?;
        Ok(found.map(|(found, facts)| RoadSegment {
            number,
            copy: found.copy,
            facts,
            valid_until: found.valid_until,
            after_gap: number > from,
        }))
    }
}
