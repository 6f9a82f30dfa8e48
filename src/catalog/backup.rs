//! What is known of a base backup without reading its manifest: its id, and the `info` object beside the manifest.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::chunk::ChunkId;
use crate::wal::{BackupSource, Lsn, PgTime, PostgresMajor, SegmentName, SegmentSize, SystemIdentifier, TimelineId};

/// The version of [`BackupInfo`]'s JSON that this program writes and reads.
pub const INFO_FORMAT: u32 = 1;

/// The name of a base backup: when it began, in UTC, and eight random hexadecimal digits: `20261121T104500Z-1a2b3c4d`.
///
/// Sorts by time of begin as far as the clock of whoever took it was right; nothing may depend on that order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId {
    started_at: i64,
    random: u32,
}

/// A text that is no backup id.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{0}\" is not a backup id such as 20261121T104500Z-1a2b3c4d")]
pub struct BackupIdError(String);

impl BackupId {
    /// The id of a backup that begins at `started_at` (cut to the second; the year must have four digits).
    #[must_use]
    pub fn new(started_at: PgTime, random: u32) -> Self {
        BackupId { started_at: started_at.to_timestamp().as_second(), random }
    }

    /// When the backup began, by the clock of whoever took it.
    #[must_use]
    pub fn started_at(self) -> PgTime {
        PgTime::from_unix_seconds(self.started_at)
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = Timestamp::from_second(self.started_at).unwrap_or(Timestamp::UNIX_EPOCH);
        write!(f, "{}-{:08x}", time.strftime("%Y%m%dT%H%M%SZ"), self.random)
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BackupId {
    type Err = BackupIdError;

    fn from_str(text: &str) -> Result<Self, BackupIdError> {
        let parsed = || {
            let (time, random) = text.split_once('-')?;
            let time = DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?.to_zoned(TimeZone::UTC).ok()?;
            Some(BackupId { started_at: time.timestamp().as_second(), random: u32::from_str_radix(random, 16).ok()? })
        };
        // Only the form that is written is read: an id is part of object names, and each object has one name.
        parsed().filter(|id| id.to_string() == text).ok_or_else(|| BackupIdError(text.to_owned()))
    }
}

impl Serialize for BackupId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BackupId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The name of a pack: the backup that wrote it and a number from 0, `20261121T104500Z-1a2b3c4d.000000`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PackId {
    /// The backup that wrote it. Later backups may refer to its chunks.
    pub backup: BackupId,
    /// Which of the backup's packs.
    pub number: u32,
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.backup, self.number)
    }
}

impl FromStr for PackId {
    type Err = BackupIdError;

    fn from_str(text: &str) -> Result<Self, BackupIdError> {
        let wrong = || BackupIdError(text.to_owned());
        let (backup, number) = text.split_once('.').ok_or_else(wrong)?;
        let id = PackId { backup: backup.parse()?, number: number.parse().map_err(|_| wrong())? };
        if id.to_string() == text { Ok(id) } else { Err(wrong()) }
    }
}

/// A tablespace of the cluster other than `pg_default` and `pg_global`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its OID: the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Where it lay on the server. A relative path is a directory inside the data directory.
    pub location: String,
}

/// A stretch of WAL that a backup needs to become consistent (`WAL-Ranges` of `backup_manifest`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalRange {
    /// The timeline.
    pub timeline: TimelineId,
    /// First byte needed.
    pub start_lsn: Lsn,
    /// The byte after the last one needed.
    pub end_lsn: Lsn,
}

/// How the WAL that the backup needs came into the repository.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupWal {
    /// Through the server's own archiving; every segment was there when the backup was declared done.
    Archive,
    /// Streamed along by the backup itself.
    Stream {
        /// The last, incomplete segment, if the WAL needed ends inside one.
        tail: Option<WalTail>,
    },
}

/// The beginning of a segment that a backup brought along under its own `wal/`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WalTail {
    /// The segment.
    pub segment: SegmentName,
    /// Bytes of it, from its beginning.
    pub bytes: u64,
    /// BLAKE3 of these bytes.
    pub content: ChunkId,
}

/// Who read the server's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadBy {
    /// The server, which sent them over the replication protocol.
    #[default]
    Protocol,
    /// This program, in the data directory.
    Local,
}

/// The `info` object of a base backup, fixed when the backup is complete. Without a manifest beside it, it means nothing.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupInfo {
    /// [`INFO_FORMAT`].
    pub format: u32,
    /// The backup's id.
    pub id: BackupId,
    /// The cluster's name in the repository.
    pub cluster: String,
    /// The cluster's system identifier.
    pub system_identifier: SystemIdentifier,
    /// The server's major version.
    pub postgres_major: PostgresMajor,
    /// The server's full version, such as `16.14`.
    pub postgres_version: String,
    /// The cluster's WAL segment size.
    pub segment_size: SegmentSize,
    /// The label given by whoever took it; also in `backup_label`.
    pub label: String,
    /// Primary or standby.
    pub source: BackupSource,
    /// Redo point of the backup's checkpoint: replay begins here.
    pub start_lsn: Lsn,
    /// Timeline of the start.
    pub start_timeline: TimelineId,
    /// When the backup began, by the clock of the machine that took it.
    pub start_time: PgTime,
    /// Replay must reach this before the copy is consistent.
    pub stop_lsn: Lsn,
    /// Timeline of the stop.
    pub stop_timeline: TimelineId,
    /// When the server had sent everything, by the clock of the machine that took it.
    pub stop_time: PgTime,
    /// Everything that must be replayed to become consistent.
    pub wal_ranges: Vec<WalRange>,
    /// Tablespaces.
    pub tablespaces: Vec<Tablespace>,
    /// Files, those of the cluster's configuration outside the data directory not counted.
    pub files: u64,
    /// Bytes of all files.
    pub raw_bytes: u64,
    /// Bytes of all packs that this backup wrote.
    pub stored_bytes: u64,
    /// Number of packs that this backup wrote.
    pub packs: u32,
    /// The backup whose chunks this one refers to.
    pub parent: Option<BackupId>,
    /// Bytes of what it refers to in packs of earlier backups.
    #[serde(default)]
    pub referenced_bytes: u64,
    /// Only what had changed since `parent` was read: by the server, which has summaries of its WAL (17 and later), or by this program,
    /// which read the WAL.
    #[serde(default)]
    pub changed_only: bool,
    /// Who read the files.
    #[serde(default)]
    pub read: ReadBy,
    /// How pages were compressed: `lz4`, or `zstd:` and the level.
    pub compression: String,
    /// Whether the cluster had data page checksums.
    pub page_checksums: bool,
    /// Data pages whose checksum did not match; the manifest names file and block.
    pub bad_pages: u64,
    /// How the WAL came along.
    pub wal: BackupWal,
    /// Configuration files outside the data directory that could not be read, with the reason.
    pub configuration_missing: Vec<String>,
    /// The version of this program.
    pub tool_version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An id reads back as itself, and nothing else is taken for one: it becomes part of object names.
    #[test]
    fn ids() {
        let time: Timestamp = "2026-11-21T10:45:00.9Z".parse().expect("a time");
        let id = BackupId::new(PgTime::from_timestamp(time), 0x1a2b_3c4d);
        assert_eq!(id.to_string(), "20261121T104500Z-1a2b3c4d");
        assert_eq!(id.to_string().parse(), Ok(id));
        let pack = PackId { backup: id, number: 7 };
        assert_eq!(pack.to_string(), "20261121T104500Z-1a2b3c4d.000007");
        assert_eq!(pack.to_string().parse(), Ok(pack));
        for wrong in [
            "",
            "x",
            "20261121T104500Z-1a2b3c4",
            "20261121T104500Z-1A2B3C4D",
            "20261321T104500Z-1a2b3c4d",
            "../20261121T104500Z-1a2b3c4d",
            "20261121T104500Z-+a2b3c4d",
        ] {
            assert!(wrong.parse::<BackupId>().is_err(), "{wrong}");
        }
        for wrong in ["20261121T104500Z-1a2b3c4d", "20261121T104500Z-1a2b3c4d.7", "20261121T104500Z-1a2b3c4d.+00007"] {
            assert!(wrong.parse::<PackId>().is_err(), "{wrong}");
        }
    }
}
