//! Records of the WAL itself: checkpoints, restore points, switches, changed settings (`xlog_internal.h`, `pg_control.h`).

use super::bytes::{array_at, i32_at, i64_at, u32_at, u64_at};
use super::{EventKind, Lsn, PgTime, ServerLimits, TimelineId, WalLevel};

const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
/// `XLOG_SWITCH`
pub(super) const SWITCH: u8 = 0x40;
const BACKUP_END: u8 = 0x50;
const PARAMETER_CHANGE: u8 = 0x60;
const RESTORE_POINT: u8 = 0x70;
const END_OF_RECOVERY: u8 = 0x90;
const OVERWRITE_CONTRECORD: u8 = 0xD0;

/// Bytes of a restore point's name, zeros behind it included (`MAXFNAMELEN`).
const NAME_SIZE: usize = 64;

/// An operation that [`read`] understands.
#[inline]
pub(super) fn is_of_interest(operation: u8) -> bool {
    matches!(
        operation,
        CHECKPOINT_SHUTDOWN
            | CHECKPOINT_ONLINE
            | BACKUP_END
            | PARAMETER_CHANGE
            | RESTORE_POINT
            | END_OF_RECOVERY
            | OVERWRITE_CONTRECORD
    )
}

/// Reads the main data of an operation of interest.
pub(super) fn read(operation: u8, data: &[u8]) -> Option<EventKind> {
    Some(match operation {
        CHECKPOINT_SHUTDOWN | CHECKPOINT_ONLINE => EventKind::Checkpoint {
            shutdown: operation == CHECKPOINT_SHUTDOWN,
            redo: Lsn(u64_at(data, 0)?),
            timeline: TimelineId(u32_at(data, 8)?),
            previous_timeline: TimelineId(u32_at(data, 12)?),
            time: PgTime::from_unix_seconds(i64_at(data, 64)?),
        },
        BACKUP_END => EventKind::BackupEnd { start: Lsn(u64_at(data, 0)?) },
        PARAMETER_CHANGE => EventKind::ParameterChange(limits(data)?),
        RESTORE_POINT => {
            let name: [u8; NAME_SIZE] = array_at(data, 8)?;
            let length = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_SIZE);
            let name = String::from_utf8_lossy(&name[..length]).into_owned();
            EventKind::RestorePoint { time: PgTime(i64_at(data, 0)?), name }
        }
        END_OF_RECOVERY => EventKind::EndOfRecovery {
            time: PgTime(i64_at(data, 0)?),
            timeline: TimelineId(u32_at(data, 8)?),
            previous_timeline: TimelineId(u32_at(data, 12)?),
        },
        OVERWRITE_CONTRECORD => {
            EventKind::OverwriteContrecord { overwritten: Lsn(u64_at(data, 0)?), time: PgTime(i64_at(data, 8)?) }
        }
        _ => return None,
    })
}

/// `xl_parameter_change`.
fn limits(data: &[u8]) -> Option<ServerLimits> {
    let flag = |at| array_at::<1>(data, at).map(|byte| byte[0] != 0);
    Some(ServerLimits {
        max_connections: u32_at(data, 0)?,
        max_worker_processes: u32_at(data, 4)?,
        max_wal_senders: u32_at(data, 8)?,
        max_prepared_transactions: u32_at(data, 12)?,
        max_locks_per_transaction: u32_at(data, 16)?,
        wal_level: WalLevel::from_number(i32_at(data, 20)?)?,
        wal_log_hints: flag(24)?,
        track_commit_timestamp: flag(25)?,
    })
}
