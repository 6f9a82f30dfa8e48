//! Details of a stored WAL file: who archived it, and what in it has no fixed size.

use serde::{Deserialize, Serialize};

use super::{Compression, read_frame};
use crate::wal::{Damage, Event, HeadPiece, Lsn, TailPiece};

/// Longest details that are read, in bytes of JSON: far above what a segment's records can fill.
const LIMIT_BYTES: u64 = 64 << 20;

/// Who stored an object: what split-brain messages name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The host's name.
    pub host: String,
    /// The data directory that the file came from, or what else it came from.
    pub source: String,
    /// Program and version.
    pub program: String,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on host {}", self.source, self.host)
    }
}

/// Where a segment's records stop making sense, and why, in words: a note for people that outlives the list of flaws.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DamageNote {
    /// Everything before it was found good.
    pub lsn: Lsn,
    /// What is wrong there.
    pub why: String,
}

impl From<Damage> for DamageNote {
    fn from(damage: Damage) -> Self {
        DamageNote { lsn: damage.lsn, why: damage.why.to_string() }
    }
}

/// The variable part of a description.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Details {
    /// Who stored it.
    pub archived_by: Origin,
    /// What happened in the segment, without the commits and aborts that drop nothing: those are counted in the footer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// The end of a record that began in an earlier segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadPiece>,
    /// The beginning of a record that ends in a later segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<TailPiece>,
    /// Where the records stop making sense, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<DamageNote>,
}

impl Details {
    /// The payload of the details frame: one LZ4 frame of JSON.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub(super) fn encode(&self) -> std::io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let mut payload = Vec::with_capacity(json.len() / 2 + 64);
        Compression::Lz4.write_frame(&json, &mut payload)?;
        Ok(payload)
    }

    /// Reads the payload of a details frame.
    ///
    /// # Errors
    /// Damaged, cut short, or not what this version writes.
    pub(super) fn decode(mut payload: &[u8]) -> std::io::Result<Details> {
        let mut json = Vec::new();
        read_frame(&mut payload, LIMIT_BYTES, &mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }
}
