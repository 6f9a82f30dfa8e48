//! What can be wrong inside a segment, and where.

use serde::{Serialize, Serializer};

use super::Lsn;

/// A place in the WAL where it cannot be what the server wrote.
///
/// Only reported where that is certain: the end of what was written so far is no damage.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, thiserror::Error)]
#[error("damaged WAL at {lsn}: {why}")]
pub struct Damage {
    /// Where the damaged record begins; where the damaged page begins if no record is known. Everything before it was
    /// found good.
    pub lsn: Lsn,
    /// What is wrong there.
    pub why: Flaw,
}

/// What is wrong. JSON shows the sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Flaw {
    /// The record's checksum does not match its content.
    #[error("record checksum is {found:08X}, but the record says {expected:08X}")]
    Checksum {
        /// What the record's header says.
        expected: u32,
        /// CRC-32C of its content.
        found: u32,
    },
    /// A record's length is less than its header or more than any record may have.
    #[error("record length {found} is out of range")]
    RecordLength {
        /// The length in bytes.
        found: u32,
    },
    /// A record of a resource manager that no version has.
    #[error("no resource manager has number {found}")]
    ResourceManager {
        /// The number.
        found: u8,
    },
    /// A record that names another record as the one before it than the one that stands there.
    #[error("record names {found} as the record before it, but that is at {expected}")]
    PreviousRecord {
        /// The record before it.
        expected: Lsn,
        /// What the header says.
        found: Lsn,
    },
    /// Records end here, but later pages of the segment were written.
    #[error("no record, though WAL goes on behind")]
    RecordMissing,
    /// A page of zeros where WAL was written.
    #[error("a page of zeros")]
    PageZero,
    /// A page that begins with another magic number than the segment.
    #[error("page magic is {found:#06X}")]
    PageMagic {
        /// The first two bytes.
        found: u16,
    },
    /// A page with flags that do not belong to it.
    #[error("page flags are {found:#06X}")]
    PageFlags {
        /// The flags.
        found: u16,
    },
    /// A page of another place.
    #[error("page is of {found}, but should be of {expected}")]
    PageAddress {
        /// Where the page stands.
        expected: Lsn,
        /// What the header says.
        found: Lsn,
    },
    /// A page of a timeline earlier than the page before it, or later than the segment's.
    #[error("page is of timeline {found}")]
    PageTimeline {
        /// The timeline.
        found: u32,
    },
    /// A record that goes on over a page border, and a page that says otherwise.
    #[error("page goes on with {found} bytes of a record that lacks {expected}")]
    Continuation {
        /// Bytes that the record lacks; 0 if no record goes on here.
        expected: u32,
        /// What the page header says; 0 if it begins with a new record.
        found: u32,
    },
    /// A record that is not written to its end, though the segment is complete.
    #[error("record is cut off after {found} of {expected} bytes")]
    CutOff {
        /// The record's length in bytes.
        expected: u32,
        /// Bytes that are there.
        found: u32,
    },
    /// Fewer bytes than the segment has.
    #[error("segment is cut off after {found} bytes")]
    Short {
        /// Bytes that are there.
        found: u64,
    },
}

impl Serialize for Flaw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
