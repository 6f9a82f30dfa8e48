//! The small records that say what a repository is and whose WAL lies in it.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use crate::wal::{PgTime, PostgresMajor, SegmentSize, SystemIdentifier};

/// The format that this version reads and writes. A repository of any other is refused.
pub const FORMAT: u32 = 1;

/// A repository's own identity: 128 random bits as 32 hexadecimal digits. Acknowledgements are bound to it, so that
/// they cannot vouch for a repository that was put in the place of another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RepositoryId(String);

impl RepositoryId {
    fn draw() -> io::Result<RepositoryId> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random)?;
        Ok(RepositoryId(format!("{:032x}", u128::from_be_bytes(random))))
    }

    /// Reads the digits back.
    #[must_use]
    pub fn parse(text: &str) -> Option<RepositoryId> {
        let plain = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        plain.then(|| RepositoryId(text.to_owned()))
    }

    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `pitr.json`: what makes a store a repository.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Marker {
    pub(super) format: u32,
    pub(super) id: RepositoryId,
    /// Reserved for encrypted repositories: always absent or null in format 1.
    cipher: Option<String>,
    created_at: PgTime,
}

impl Marker {
    pub(super) fn new(created_at: PgTime) -> io::Result<Marker> {
        Ok(Marker { format: FORMAT, id: RepositoryId::draw()?, cipher: None, created_at })
    }
}

/// `server.json`: one system identifier of a cluster. Written once.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerRecord {
    /// The identifier; the folder's name too.
    pub system_identifier: SystemIdentifier,
    /// Major version of the server.
    pub major: PostgresMajor,
    /// `wal_segment_size` in bytes.
    pub segment_size_bytes: SegmentSize,
    /// The cluster has data page checksums.
    pub page_checksums: bool,
    /// When the record was made.
    pub created_at: PgTime,
    /// Host that made it.
    pub created_by: String,
    /// The identifier that the cluster had before `pg_upgrade`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgraded_from: Option<SystemIdentifier>,
}
