//! `global/pg_control`: what cluster a data directory holds, and where its recovery begins.
//!
//! Layout of `ControlFileData` (`catalog/pg_control.h`), the same in 13 to 18 up to the checksum, which closes the
//! structure: at 288 in 13 to 17; 18 has one byte (`default_char_signedness`) more before the nonce, and the checksum at 292.
//! The file is 8192 bytes, zero behind the checksum.

use serde::{Deserialize, Serialize};

use super::bytes::{array_at, i32_at, i64_at, u32_at, u64_at};
use super::{Lsn, PgTime, SegmentSize, ServerLimits, SystemIdentifier, TimelineId, WalLevel, Xid};

/// Bytes of the file that are read: no known version needs more.
pub const CONTROL_FILE_READ_SIZE: usize = 512;

/// The content of `pg_control`, as far as it is needed here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ControlFile {
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    /// Format of the file: 1300 (PostgreSQL 13 to 16), 1700 or 1800.
    pub control_version: u32,
    /// Format of the system catalogs: tells 13 to 16 apart.
    pub catalog_version: u32,
    /// What the server was doing when it last wrote the file.
    pub state: ClusterState,
    /// When it last wrote the file, whole seconds.
    pub modified: PgTime,
    /// Where the last checkpoint's record begins.
    pub checkpoint: Lsn,
    /// Where a recovery from it begins to read.
    pub redo: Lsn,
    /// The checkpoint's timeline.
    pub timeline: TimelineId,
    /// Parent timeline if the checkpoint began a new one, else the same.
    pub previous_timeline: TimelineId,
    /// When the checkpoint began, whole seconds.
    pub checkpoint_time: PgTime,
    /// The oldest transaction that was running when the checkpoint began; 0 if it was not looked for, as at a shutdown.
    pub oldest_active_xid: Xid,
    /// Where replay must at least come before the data is consistent; `0/0` outside archive recovery.
    pub min_recovery_point: Lsn,
    /// Timeline of that point; 0 outside archive recovery.
    pub min_recovery_point_timeline: u32,
    /// Start LSN of the base backup that is being recovered; `0/0` if none.
    pub backup_start: Lsn,
    /// End LSN of a backup taken from a standby that is being recovered; `0/0` if none.
    pub backup_end: Lsn,
    /// Replay must come to the backup's end record before the data is consistent.
    pub backup_end_required: bool,
    /// Settings that a server replaying this cluster's WAL has to match or exceed.
    pub limits: ServerLimits,
    /// Bytes in a WAL segment.
    pub segment_size: SegmentSize,
    /// Bytes in a WAL page.
    pub wal_page_size: u32,
    /// Bytes in a data page.
    pub block_size: u32,
    /// Data pages in a full relation file (131072 pages of 8 KiB are 1 GiB).
    pub blocks_per_file: u32,
    /// Data pages carry checksums.
    pub data_checksums: bool,
}

/// What the server was doing when it last wrote `pg_control` (`DBState`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterState {
    /// `initdb` has not finished.
    StartUp,
    /// Shut down cleanly.
    ShutDown,
    /// Shut down cleanly while in recovery.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// In crash recovery.
    InCrashRecovery,
    /// In archive recovery, or a standby.
    InArchiveRecovery,
    /// In production, or crashed.
    InProduction,
}

/// Why bytes are not a `pg_control` that can be read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ControlFileError {
    /// Fewer bytes than the structure has.
    #[error("pg_control has only {found} bytes")]
    TooShort {
        /// Its length in bytes.
        found: usize,
    },
    /// A version before 13 or after 18, or a machine with another byte order.
    #[error("pg_control is of version {found}; only 1300, 1700 and 1800 (PostgreSQL 13 to 18) are supported")]
    Version {
        /// `pg_control_version`.
        found: u32,
    },
    /// The checksum does not match: damaged, or read while it was being written (read it again).
    #[error("pg_control has checksum {found:08X}, but says {expected:08X}")]
    Checksum {
        /// What the file says.
        expected: u32,
        /// CRC-32C of its content.
        found: u32,
    },
    /// The checksum is right, and a field is none the less out of its range.
    #[error("pg_control has {found} as {field}")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value.
        found: u64,
    },
}

impl ControlFileError {
    /// A second read may succeed: the server overwrites the file in place, without a lock that outsiders respect.
    #[must_use]
    pub fn may_be_torn(&self) -> bool {
        matches!(self, ControlFileError::Checksum { .. })
    }
}

impl ControlFile {
    /// Reads the file's first [`CONTROL_FILE_READ_SIZE`] bytes, or more of them.
    ///
    /// # Errors
    /// [`ControlFileError`]
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let short = ControlFileError::TooShort { found: bytes.len() };
        let control_version = u32_at(bytes, 8).ok_or(short.clone())?;
        let crc_offset = match control_version {
            1300 | 1700 => 288,
            1800 => 292,
            found => return Err(ControlFileError::Version { found }),
        };
        let expected = u32_at(bytes, crc_offset).ok_or(short.clone())?;
        let found = crc32c::crc32c(&bytes[..crc_offset]);
        if found != expected {
            return Err(ControlFileError::Checksum { expected, found });
        }
        Self::fields(bytes, control_version)?.ok_or(short)
    }

    /// Reads the fields of a file whose checksum is right. `None` cannot be, since the checksum stands behind them all.
    fn fields(bytes: &[u8], control_version: u32) -> Result<Option<Self>, ControlFileError> {
        let field = |field, at| match u32_at(bytes, at) {
            Some(found) => ControlFileError::Field { field, found: u64::from(found) },
            None => ControlFileError::TooShort { found: bytes.len() },
        };
        let state = i32_at(bytes, 16).and_then(ClusterState::from_number).ok_or_else(|| field("state", 16))?;
        let wal_level = i32_at(bytes, 172).and_then(WalLevel::from_number).ok_or_else(|| field("wal_level", 172))?;
        let segment_size = u32_at(bytes, 228)
            .and_then(|size| SegmentSize::try_from(size).ok())
            .ok_or_else(|| field("segment size", 228))?;
        let read = || {
            let flag = |at| array_at::<1>(bytes, at).map(|byte| byte[0] != 0);
            Some(ControlFile {
                system_identifier: SystemIdentifier(u64_at(bytes, 0)?),
                control_version,
                catalog_version: u32_at(bytes, 12)?,
                state,
                modified: PgTime::from_unix_seconds(i64_at(bytes, 24)?),
                checkpoint: Lsn(u64_at(bytes, 32)?),
                redo: Lsn(u64_at(bytes, 40)?),
                timeline: TimelineId(u32_at(bytes, 48)?),
                previous_timeline: TimelineId(u32_at(bytes, 52)?),
                checkpoint_time: PgTime::from_unix_seconds(i64_at(bytes, 40 + 64)?),
                oldest_active_xid: Xid(u32_at(bytes, 40 + 80)?),
                min_recovery_point: Lsn(u64_at(bytes, 136)?),
                min_recovery_point_timeline: u32_at(bytes, 144)?,
                backup_start: Lsn(u64_at(bytes, 152)?),
                backup_end: Lsn(u64_at(bytes, 160)?),
                backup_end_required: flag(168)?,
                limits: ServerLimits {
                    max_connections: u32_at(bytes, 180)?,
                    max_worker_processes: u32_at(bytes, 184)?,
                    max_wal_senders: u32_at(bytes, 188)?,
                    max_prepared_transactions: u32_at(bytes, 192)?,
                    max_locks_per_transaction: u32_at(bytes, 196)?,
                    wal_level,
                    wal_log_hints: flag(176)?,
                    track_commit_timestamp: flag(200)?,
                },
                segment_size,
                wal_page_size: u32_at(bytes, 224)?,
                block_size: u32_at(bytes, 216)?,
                blocks_per_file: u32_at(bytes, 220)?,
                data_checksums: u32_at(bytes, 252)? != 0,
            })
        };
        Ok(read())
    }
}

impl ClusterState {
    fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => ClusterState::StartUp,
            1 => ClusterState::ShutDown,
            2 => ClusterState::ShutDownInRecovery,
            3 => ClusterState::ShuttingDown,
            4 => ClusterState::InCrashRecovery,
            5 => ClusterState::InArchiveRecovery,
            6 => ClusterState::InProduction,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{MAJORS, dir, file};
    use super::*;

    fn control(major: u16) -> Vec<u8> {
        file(&dir(major).join("pg_control.zst"))
    }

    /// The file of each major is read; the fields are compared with a running server in an integration test.
    #[test]
    fn each_major() {
        for (major, version) in MAJORS.iter().zip([1300, 1300, 1300, 1300, 1700, 1800]) {
            let found = ControlFile::parse(&control(*major)[..CONTROL_FILE_READ_SIZE]).expect("a good file");
            assert_eq!((found.control_version, found.segment_size.bytes()), (version, 1 << 20));
            assert_eq!((found.wal_page_size, found.limits.max_prepared_transactions), (8192, 7));
            assert_eq!((found.timeline, found.state), (TimelineId(1), ClusterState::InProduction));
        }
    }

    /// Any flipped bit and any cut is noticed.
    #[test]
    fn damaged() {
        for major in [13, 17, 18] {
            let mut bytes = control(major);
            let end = if major == 18 { 296 } else { 292 };
            for at in 0..end {
                assert!(ControlFile::parse(&bytes[..at]).is_err(), "cut at {at}");
                bytes[at] ^= 1 << (at % 8);
                assert!(ControlFile::parse(&bytes).is_err(), "bit {} of byte {at}", at % 8);
                bytes[at] ^= 1 << (at % 8);
            }
            assert!(ControlFile::parse(&bytes[..end]).is_ok());
        }
    }
}
