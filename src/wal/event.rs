//! What happened in the WAL: the few records that a recovery target, a window or a log of events is about.

use serde::{Deserialize, Serialize};

use super::{Lsn, PgTime, TimelineId, Xid};

/// A record of interest, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Where the record begins.
    pub lsn: Lsn,
    /// Where the next record may begin: what `recovery_target_lsn` is compared with for an inclusive target.
    pub end_lsn: Lsn,
    /// The transaction: of a prepared one that is finished, its own and not the finisher's. 0 for records outside
    /// transactions.
    pub xid: Xid,
    /// What the record says.
    pub kind: EventKind,
}

/// What a record of interest says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// `COMMIT` or `COMMIT PREPARED`.
    Commit(TransactionEnd),
    /// `ROLLBACK` or `ROLLBACK PREPARED`, also of a transaction that broke off. `recovery_target_time` stops at it
    /// as at a commit.
    Abort(TransactionEnd),
    /// `PREPARE TRANSACTION`.
    Prepare {
        /// When it was prepared.
        time: PgTime,
    },
    /// `pg_create_restore_point`.
    RestorePoint {
        /// When it was made. `recovery_target_time` does not look at it.
        time: PgTime,
        /// Its name; bytes that are not UTF-8 are replaced.
        name: String,
    },
    /// The record that ends a checkpoint.
    Checkpoint {
        /// The server was shutting down (or ended a recovery) and wrote nothing else meanwhile.
        shutdown: bool,
        /// Where a recovery from this checkpoint begins to read.
        redo: Lsn,
        /// The timeline it was made on.
        timeline: TimelineId,
        /// Parent timeline if the checkpoint begins a new one, else the same.
        previous_timeline: TimelineId,
        /// When it began, whole seconds.
        time: PgTime,
    },
    /// The server started with other settings: a restored cluster has to allow at least as much.
    ParameterChange(ServerLimits),
    /// A recovery ended and the timeline changed here, without waiting for a checkpoint.
    EndOfRecovery {
        /// When.
        time: PgTime,
        /// The new timeline.
        timeline: TimelineId,
        /// Its parent.
        previous_timeline: TimelineId,
    },
    /// The end of a base backup: replay that began at `start` is consistent from here on.
    BackupEnd {
        /// The backup's start LSN.
        start: Lsn,
    },
    /// `CREATE TABLESPACE`. Replay makes its directory anew at the same path, and removes what PostgreSQL keeps there
    /// already (`create_tablespace_directories` in `tablespace.c`).
    TablespaceCreate {
        /// The tablespace's OID.
        oid: u32,
        /// Where it lies; bytes that are not UTF-8 are replaced.
        location: String,
    },
    /// `DROP TABLESPACE`.
    TablespaceDrop {
        /// The tablespace's OID.
        oid: u32,
    },
    /// `CREATE DATABASE`. It takes effect here, before its transaction commits.
    DatabaseCreate {
        /// The database's OID.
        oid: u32,
        /// OID of the tablespace.
        tablespace: u32,
        /// OID of the database whose files are copied; `None` if their pages follow in the WAL (`STRATEGY wal_log`).
        copy_of: Option<u32>,
    },
    /// `DROP DATABASE`, or the old place of one that moved to another tablespace. It takes effect here.
    DatabaseDrop {
        /// The database's OID.
        oid: u32,
    },
    /// `TRUNCATE`, at `wal_level = logical`; below that there is no such record.
    Truncate {
        /// OID of the database.
        database: u32,
        /// OIDs of the tables.
        relations: Vec<u32>,
    },
    /// A crash lost the end of a record; this one stands where its continuation would have.
    OverwriteContrecord {
        /// Where the lost record began.
        overwritten: Lsn,
        /// When.
        time: PgTime,
    },
}

/// The end of a transaction.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TransactionEnd {
    /// The time that `recovery_target_time` is compared with. Not monotonic in LSN order: it is taken before the
    /// record is inserted.
    pub time: PgTime,
    /// It ended a transaction prepared before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub prepared: bool,
    /// The database that it happened in, where the record tells: those that change the catalog do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<u32>,
    /// How many subtransactions ended with it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub subtransactions: u32,
    /// Those subtransactions; short if the record was `cut`. Not stored with a segment: the segment itself has them.
    #[serde(skip)]
    pub subtransaction_xids: Vec<Xid>,
    /// How many relation files are removed with it; the number of `dropped` unless `cut`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub dropped_count: u32,
    /// The relation files that are removed: by DROP, TRUNCATE, rewriting commands; of an abort, those it had created.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<RelationFile>,
    /// The record was too long to be kept whole: `dropped` may be short, and the xid of a prepared transaction be 0.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // The signature is serde's.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A relation's file (`RelFileLocator`): tablespace, database, and the number that `pg_class.relfilenode` shows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RelationFile {
    /// Oid of the tablespace.
    pub tablespace: u32,
    /// Oid of the database; 0 for a shared relation.
    pub database: u32,
    /// The file's number.
    pub relation: u32,
}

/// Settings of the primary that a server replaying its WAL has to match or exceed (`xl_parameter_change`; the same
/// stand in `pg_control`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ServerLimits {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
    /// `wal_level`.
    pub wal_level: WalLevel,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
}

impl ServerLimits {
    /// Of each setting the higher, of `wal_level` the lower: what satisfies both, and what the WAL of both has.
    #[must_use]
    pub fn highest(self, other: ServerLimits) -> ServerLimits {
        ServerLimits {
            max_connections: self.max_connections.max(other.max_connections),
            max_worker_processes: self.max_worker_processes.max(other.max_worker_processes),
            max_wal_senders: self.max_wal_senders.max(other.max_wal_senders),
            max_prepared_transactions: self.max_prepared_transactions.max(other.max_prepared_transactions),
            max_locks_per_transaction: self.max_locks_per_transaction.max(other.max_locks_per_transaction),
            wal_level: self.wal_level.min(other.wal_level),
            wal_log_hints: self.wal_log_hints || other.wal_log_hints,
            track_commit_timestamp: self.track_commit_timestamp || other.track_commit_timestamp,
        }
    }

    /// The settings that a server needs at least this high, by PostgreSQL's names.
    #[must_use]
    pub fn named(self) -> [(&'static str, u32); 5] {
        [
            ("max_connections", self.max_connections),
            ("max_worker_processes", self.max_worker_processes),
            ("max_wal_senders", self.max_wal_senders),
            ("max_prepared_transactions", self.max_prepared_transactions),
            ("max_locks_per_transaction", self.max_locks_per_transaction),
        ]
    }
}

/// `wal_level`: at `minimal`, WAL lacks what a restore needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WalLevel {
    /// Enough for a crash recovery only.
    Minimal,
    /// Enough for archiving and standbys.
    Replica,
    /// Enough for logical decoding too.
    Logical,
}

impl WalLevel {
    /// Reads the number that WAL and `pg_control` carry (`WalLevel` in `xlog.h`).
    pub(super) fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => WalLevel::Minimal,
            1 => WalLevel::Replica,
            2 => WalLevel::Logical,
            _ => return None,
        })
    }
}
