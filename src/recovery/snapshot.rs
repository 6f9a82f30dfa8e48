//! What a plan is made from: backups, timelines and stored WAL of one cluster, and what is known about each segment.
//!
//! [`Snapshot`] is what listings tell. What happened inside a segment is asked for one segment at a time, through
//! [`WalEvidence`], so that planning over a million segments reads only those it must.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::StoredSegments;
use crate::wal::{Event, Lsn, PgTime, SegmentFacts, SegmentName, SegmentNo, SegmentSize, TimelineHistory, TimelineId};

/// What the repository holds of one cluster (one system identifier).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The cluster's segment size.
    pub segment_size: SegmentSize,
    /// Complete base backups, in any order.
    pub backups: Vec<BackupFacts>,
    /// Timelines with stored WAL or a stored history.
    pub timelines: BTreeMap<TimelineId, TimelineRecord>,
}

impl Snapshot {
    /// Whether a complete segment is stored on this timeline.
    #[must_use]
    pub fn is_stored(&self, timeline: TimelineId, number: SegmentNo) -> bool {
        self.timelines.get(&timeline).is_some_and(|record| record.segments.contains(number))
    }

    /// Takes a stored segment for damaged. Whether it was taken for good until now.
    pub fn set_damaged(&mut self, damage: StoredDamage) -> bool {
        let Ok(number) = damage.segment.number(self.segment_size) else { return false };
        let Some(record) = self.timelines.get_mut(&damage.segment.timeline()) else { return false };
        let was_good = record.segments.remove(number);
        record.damaged.insert(number, damage);
        was_good
    }
}

/// One timeline in the repository.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TimelineRecord {
    /// Its ancestry; `None` for timeline 1, and where the history file was never archived.
    pub history: Option<TimelineHistory>,
    /// Stored complete segments. What each is and takes is asked of [`WalEvidence`].
    pub segments: StoredSegments,
    /// Stored incomplete last segments; a timeline has several if it ended several times.
    pub partials: Vec<StoredPartial>,
    /// Segments of which only damaged copies are stored.
    pub damaged: BTreeMap<SegmentNo, StoredDamage>,
    /// Segments that retention removed, or was about to: that they are missing is no loss.
    pub expired: StoredSegments,
}

/// A segment of which only a damaged copy is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoredDamage {
    /// The segment.
    pub segment: SegmentName,
    /// The hash in the copy's key, which tells it from other damaged copies; empty if it was archived whole and is damaged
    /// where it is stored.
    pub hash: String,
    /// All WAL before this is good.
    pub good_until: Lsn,
    /// What is wrong there.
    pub why: String,
    /// The segment before it, if the record over their common border does not hold: either of the two may be the bad one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub or_before: Option<SegmentName>,
    /// When the damaged copy was archived.
    pub archived_at: PgTime,
}

/// A stored `.partial` file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredPartial {
    /// Which segment it is the beginning of.
    pub segment: SegmentNo,
    /// The hash in its key, which tells it from other beginnings of the same segment.
    pub hash: String,
    /// Its stored size in bytes.
    pub stored_bytes: u64,
}

/// What a plan has to know about a base backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupFacts {
    /// Its id.
    pub id: String,
    /// Where replay begins: the redo point of its checkpoint.
    pub start_lsn: Lsn,
    /// From where on it is consistent.
    pub stop_lsn: Lsn,
    /// The timeline at its start.
    pub start_timeline: TimelineId,
    /// The timeline at its stop; another one only if a standby followed a switch meanwhile.
    pub stop_timeline: TimelineId,
    /// When it began, by the server's clock, cut to the second.
    pub start_time: PgTime,
    /// When it ended.
    pub stop_time: PgTime,
    /// Bytes of the data directory and tablespaces.
    pub size_bytes: u64,
    /// Bytes it takes in the repository.
    pub stored_bytes: u64,
    /// The incomplete last segment that it brought along, if any (`--wal stream`).
    pub tail: Option<SegmentName>,
}

/// One stored copy of a segment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalCopy {
    /// The complete segment.
    Segment(SegmentName),
    /// A `.partial` file.
    Partial {
        /// The segment it is the beginning of.
        segment: SegmentName,
        /// The hash in its key.
        hash: String,
    },
    /// The incomplete last segment that a backup brought along.
    Tail {
        /// The segment it is the beginning of.
        segment: SegmentName,
        /// The backup's id.
        backup: String,
    },
}

impl WalCopy {
    /// The segment that it is a copy of.
    #[must_use]
    pub fn segment(&self) -> SegmentName {
        match self {
            WalCopy::Segment(segment) | WalCopy::Partial { segment, .. } | WalCopy::Tail { segment, .. } => *segment,
        }
    }

    /// `pitr-wal-fetch` serves it; other copies have to be laid into `pg_wal`.
    #[must_use]
    pub fn is_served(&self) -> bool {
        matches!(self, WalCopy::Segment(_))
    }
}

/// What happened inside stored segments.
///
/// Both answers include the record that began in an earlier segment and ends in this one. Whoever implements this reads
/// the earlier segment too where the stored description could not know it.
pub trait WalEvidence {
    /// Why it cannot be told.
    type Error;

    /// The summary of a segment.
    ///
    /// # Errors
    /// The copy is listed and cannot be read.
    fn facts(&mut self, copy: &WalCopy) -> Result<SegmentFacts, Self::Error>;

    /// Bytes that a complete segment takes in the store; 0 for other copies, whose size a listing tells.
    ///
    /// # Errors
    /// The copy is listed and cannot be looked at.
    fn stored_bytes(&mut self, copy: &WalCopy) -> Result<u64, Self::Error>;

    /// Everything of interest in a segment, in LSN order.
    ///
    /// # Errors
    /// The copy is listed and cannot be read.
    fn events(&mut self, copy: &WalCopy) -> Result<Vec<Event>, Self::Error>;

    /// Where the first record begins that begins in this segment at or after an LSN; it may end in a later segment, or
    /// (in an incomplete copy) nowhere. `None` if none begins there.
    ///
    /// # Errors
    /// The copy is listed and cannot be read.
    fn record_from(&mut self, copy: &WalCopy, lsn: Lsn) -> Result<Option<Lsn>, Self::Error>;
}
