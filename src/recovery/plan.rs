//! The plan of a restore, and why there is none: values that `--dry-run` prints and `--json` emits.

use serde::{Deserialize, Serialize};

use super::RecoveryTarget;
use super::fork::{BackupElsewhere, Fork};
use super::snapshot::{BackupFacts, StoredDamage, WalCopy};
use crate::wal::{Lsn, PgTime, SegmentName, ServerLimits, TimelineId, Xid};

/// How a target will be reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestorePlan {
    /// What was asked for.
    pub target: RecoveryTarget,
    /// The backup to begin with.
    pub backup: BackupFacts,
    /// The timeline to follow (`recovery_target_timeline`): the one that the stop point lies on.
    pub timeline: TimelineId,
    /// That timeline with its ancestors from the backup on, oldest first.
    pub path: Vec<PathStep>,
    /// WAL from the backup's start to the stop point, in order.
    pub wal: Vec<SegmentRun>,
    /// Copies that `pitr-wal-fetch` does not serve and that have to be laid into `pg_wal`.
    pub lay: Vec<LaidSegment>,
    /// Number of segments to replay.
    pub wal_segments: u64,
    /// Stored bytes of WAL to fetch.
    pub wal_stored_bytes: u64,
    /// Where recovery will stop.
    pub stop: StopPoint,
    /// The last commit that will be in the result; `None` if it lies far before the backup.
    pub last_commit: Option<Commit>,
    /// The settings that a server replaying this WAL has to allow, if WAL says more than `pg_control` of the backup.
    pub limits: Option<ServerLimits>,
    /// What the user should know before saying yes.
    pub notes: Vec<PlanNote>,
}

/// One timeline on the way.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PathStep {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where the way leaves it for the next one.
    pub until: Option<Lsn>,
}

/// Segments in a row on one timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SegmentRun {
    /// The first.
    pub first: SegmentName,
    /// The last.
    pub last: SegmentName,
    /// How many they are.
    pub count: u64,
    /// Their stored size in bytes.
    pub stored_bytes: u64,
}

/// A copy to be laid into `pg_wal`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LaidSegment {
    /// Where it comes from.
    pub copy: WalCopy,
    /// The name that PostgreSQL will look for.
    pub name: SegmentName,
}

/// Where recovery will stop.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StopPoint {
    /// Start of the record at which it stops; for an LSN the LSN asked for; for `immediate` and `latest` the end of what is
    /// replayed.
    pub lsn: Lsn,
    /// The timeline that it lies on.
    pub timeline: TimelineId,
    /// The segment that holds it.
    pub segment: SegmentName,
    /// Time of the record, where it has one.
    pub time: Option<PgTime>,
    /// Transaction of the record, where it has one.
    pub xid: Option<Xid>,
    /// The record itself is not replayed.
    pub before: bool,
}

/// A commit in the WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Commit {
    /// When.
    pub time: PgTime,
    /// Start of the commit record.
    pub lsn: Lsn,
    /// The transaction.
    pub xid: Xid,
    /// The timeline that it lies on.
    pub timeline: TimelineId,
}

/// Something to be known before saying yes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "snake_case")]
pub enum PlanNote {
    /// Other timelines hold the target too, with another outcome.
    AlsoOn {
        /// Those timelines, newest first.
        timelines: Vec<TimelineId>,
    },
    /// The newest timeline was passed over: the time lies before its first commit and after the fork, where an older
    /// timeline has commits.
    BeforeFirstCommitOf {
        /// The timeline passed over.
        timeline: TimelineId,
        /// Where it branched off.
        fork: Lsn,
    },
    /// A timeline cannot be placed: its history file is not in the archive.
    HistoryMissing {
        /// The timeline.
        timeline: TimelineId,
    },
    /// Other restore points of the same name exist; the first one is taken.
    SameName {
        /// Where the others are, in LSN order.
        others: Vec<Lsn>,
    },
    /// A timeline that is not the newest has later commits than the one chosen.
    LaterCommitsOn {
        /// That timeline.
        timeline: TimelineId,
        /// Its last commit or abort.
        time: PgTime,
    },
}

/// Why a target cannot be reached. Each carries the nearest moments that can, as far as they are known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum Unreachable {
    /// There is no backup at all.
    #[error("there is no base backup")]
    NoBackup,
    /// There are backups, and none on the way to the target.
    #[error("no base backup lies on the way to timeline {timeline}")]
    NoBackupOnTimeline {
        /// The timeline asked for.
        timeline: TimelineId,
        /// Timelines with backups.
        with_backups: Vec<TimelineId>,
        /// The backup that leads furthest on the way there, and the fork where it goes elsewhere.
        nearest: Option<BackupElsewhere>,
    },
    /// The target lies before the end of the first backup that could lead to it.
    #[error("the target lies before the end of the first usable base backup, \"{first}\"")]
    BeforeFirstBackup {
        /// The first backup.
        first: String,
        /// Its stop LSN: the first that can be reached.
        stop_lsn: Lsn,
        /// When it ended: about the first moment that can be reached.
        stop_time: PgTime,
    },
    /// The archive ends before the target.
    #[error("the archived WAL of timeline {timeline} ends at {end}, before the target")]
    AfterEnd {
        /// The timeline looked at.
        timeline: TimelineId,
        /// The end of its archived WAL.
        end: Lsn,
        /// The last commit or abort before that: the last time that can be asked for is just before it.
        last_time: Option<PgTime>,
        /// The last commit before that.
        last_commit: Option<Commit>,
    },
    /// WAL is missing on the way.
    #[error("WAL segment \"{missing}\" is missing between base backup \"{backup}\" and the target")]
    Gap {
        /// The first missing segment.
        missing: SegmentName,
        /// The first stored one after it; `None` if the next one is missing because the copy on another timeline ends
        /// here.
        next: Option<SegmentName>,
        /// The backup that the way began with.
        backup: String,
        /// The last commit before the gap: it can be reached.
        last_commit: Option<Commit>,
    },
    /// Of a segment on the way only a damaged copy is stored.
    #[error("WAL segment \"{}\" between base backup \"{backup}\" and the target is damaged: {}", damage.segment, damage.why)]
    DamagedSegment {
        /// The segment, and what is wrong with it.
        damage: StoredDamage,
        /// The backup that the way began with.
        backup: String,
        /// The last commit in the segments before: it can be reached.
        last_commit: Option<Commit>,
    },
    /// No record of this xid or restore point is in the stored WAL.
    #[error("{target} is not in the archived WAL")]
    NotFound {
        /// What was looked for.
        target: RecoveryTarget,
    },
    /// The archive knows no such timeline.
    #[error("timeline {timeline} is not in the archive")]
    UnknownTimeline {
        /// The timeline asked for.
        timeline: TimelineId,
        /// Those that are.
        known: Vec<TimelineId>,
    },
    /// A timeline cannot be followed without its history file.
    #[error("the history file of timeline {timeline} is not in the archive")]
    HistoryMissing {
        /// The timeline.
        timeline: TimelineId,
    },
    /// No backup has the id asked for.
    #[error("there is no base backup \"{id}\"")]
    UnknownBackup {
        /// The id asked for.
        id: String,
    },
    /// The backup asked for lies on another branch.
    #[error("base backup \"{id}\" does not lie on the way to the target on timeline {timeline}")]
    BackupOnOtherBranch {
        /// The backup asked for.
        id: String,
        /// The timeline of the target.
        timeline: TimelineId,
        /// The timeline that the backup leads along.
        backup_timeline: TimelineId,
        /// Where the two part.
        fork: Option<Fork>,
    },
    /// The backup asked for already contains what lies past the target.
    #[error("base backup \"{id}\" ends after the target")]
    BackupTooLate {
        /// The backup asked for.
        id: String,
        /// Its stop LSN.
        stop_lsn: Lsn,
    },
    /// The time lies between two branches: after the last commit of the one, before the first of the other.
    #[error("the time lies between the last commit of timeline {older} and the first of timeline {newer}")]
    BetweenBranches {
        /// The timeline that had been written to by then.
        older: TimelineId,
        /// Its last commit or abort.
        older_last: PgTime,
        /// The timeline that branched off earlier and was written to later.
        newer: TimelineId,
        /// Where their ways part.
        fork: Lsn,
    },
    /// The server ran with `wal_level = minimal` on the way.
    #[error("the server ran with wal_level = minimal at {lsn}, between the base backup and the target")]
    MinimalWal {
        /// Where the WAL says so.
        lsn: Lsn,
    },
}
