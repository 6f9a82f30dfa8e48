//! One pass over a segment: every record proved, the events and facts in it.

use super::{Damage, Event, HeadPiece, SegmentFacts, TailPiece};

/// What the file is that is scanned: tells the end of what was written from damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Completeness {
    /// A segment under its full name, as the archiver hands it over: what cannot be read in it is damage, unless
    /// nothing was written there.
    Complete,
    /// A `.partial`, or the last segment of a server that crashed: whatever follows the last good record is the end.
    MayEnd,
}

/// Outcome of the scan of one segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SegmentScan {
    /// What is to be known about the segment without reading it again.
    pub facts: SegmentFacts,
    /// What happened, in LSN order; empty if the events went to a sink.
    pub events: Vec<Event>,
    /// The rest of a record that began in an earlier segment. Not proved by this scan.
    pub head: Option<HeadPiece>,
    /// The beginning of a record that goes on in the next segment. Not proved by this scan.
    pub tail: Option<TailPiece>,
    /// Where the segment is not what a server wrote.
    pub damage: Option<Damage>,
}
