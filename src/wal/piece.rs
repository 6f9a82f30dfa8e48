//! Records that straddle the border of two segments: the piece in each, and how pieces are joined.
//!
//! A scan of one segment keeps what a reader of two neighbouring catalog entries needs to prove such a record and to
//! read its event, so that nothing has to be handed from one archiving call to the next. A record may span three and
//! more segments: the ones in the middle are all head.

use serde::{Deserialize, Serialize};

use super::{Damage, Event, Lsn};

/// Most bytes of a straddling record that a piece keeps.
pub const PIECE_BYTES_LIMIT: usize = 64 * 1024;

/// The beginning of a record that goes on in the next segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TailPiece {
    /// Where the record begins.
    pub start: Lsn,
    /// Its length in bytes, header included.
    pub total_length: u32,
    /// How many of them this segment has.
    pub length: u32,
    /// CRC-32C of those after the record's header.
    pub crc: u32,
    /// The first of them: the header as far as it is here, and up to [`PIECE_BYTES_LIMIT`] bytes if the record may
    /// be an event.
    #[serde(with = "base64_bytes")]
    pub bytes: Vec<u8>,
}

/// What a segment begins with, if not with a record of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeadPiece {
    /// Bytes that the record lacked before this segment. 0 if `overwrites` at the first page.
    pub remaining: u32,
    /// How many of them this segment has; fewer than `remaining` if the record goes on in the next segment too, or
    /// was overwritten, or the segment is damaged.
    pub length: u32,
    /// CRC-32C of those.
    pub crc: u32,
    /// Where the record ends, rounded up as records are; the segment's end if it goes on.
    pub end: Lsn,
    /// A crash lost the rest of the record, and new WAL was written in its place: no record to be proved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrites: bool,
    /// The first bytes, up to [`PIECE_BYTES_LIMIT`]; only a header's rest if `remaining` is more than that.
    #[serde(with = "base64_bytes")]
    pub bytes: Vec<u8>,
}

/// Outcome of [`join`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Joined {
    /// No record straddles the border.
    Nothing,
    /// The record is whole.
    Proved {
        /// Where it ends.
        end: Lsn,
        /// What happened, if the record is one of interest.
        event: Option<Event>,
    },
    /// The record goes on in a segment that was not given.
    Incomplete,
    /// A crash cut the record off; PostgreSQL passes over it, and WAL goes on behind it.
    Overwritten,
    /// The pieces do not make a record.
    Damaged(Damage),
}

mod base64_bytes {
    //! Bytes as Base64 in JSON.
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}
