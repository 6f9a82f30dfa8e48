//! The plan of a restore: a value that `pitr plan` prints and that `--json` emits.

use serde::{Deserialize, Serialize};

use super::RecoveryTarget;
use super::snapshot::{BackupFacts, WalCopy};
use crate::wal::{Lsn, PgTime, SegmentName, ServerLimits, TimelineId, Xid};

/// How a target will be reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RestorePlan {
    /// What was asked for.
    pub target: RecoveryTarget,
    /// What PostgreSQL is told: the same, except for a time after the last commit, at which it could not stop
    /// ([`PlanNote::Idle`]).
    pub recovery_target: RecoveryTarget,
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
    /// WAL to replay, in bytes.
    pub replay_bytes: u64,
    /// Where recovery will stop.
    pub stop: StopPoint,
    /// The last commit that will be in the result; `None` if it lies far before the backup.
    pub last_commit: Option<Commit>,
    /// What follows the stop point and will not be in the result.
    pub lost: Lost,
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
    /// Start of the record at which it stops; for `immediate` and `latest` the end of what is replayed.
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

/// The commits between the stop point and the end of the archived WAL of its branch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lost {
    /// How many.
    pub commits: u64,
    /// The first of them in LSN order.
    pub first: Option<Commit>,
    /// The last of them in LSN order.
    pub last: Option<Commit>,
    /// The timeline that the branch ends with.
    pub timeline: TimelineId,
    /// Where its archived WAL ends.
    pub end: Lsn,
    /// No WAL is missing or damaged on the way there: else there may be more of them.
    pub complete: bool,
}

/// A commit or abort at which recovery to a time can stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Crossing {
    /// Start of its record.
    pub lsn: Lsn,
    /// Its time, past the target.
    pub time: PgTime,
    /// Its transaction.
    pub xid: Xid,
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
    /// PostgreSQL cannot stop at the time, since no commit or abort follows it. A checkpoint that began later proves that
    /// nothing was committed in between: recovery stops just before it, which gives the state of that time.
    Idle {
        /// The last commit or abort.
        since: Option<PgTime>,
        /// Start of the checkpoint's record.
        lsn: Lsn,
        /// When the checkpoint began.
        time: PgTime,
    },
    /// Commits behind the stop point carry times that are not past the target: clocks were set back, or commits overtook each
    /// other. They are lost, because PostgreSQL stops at the first commit or abort past the target in LSN order.
    EarlierTimesBehind {
        /// How many.
        commits: u64,
        /// There may be more: not all of the WAL was read.
        at_least: bool,
        /// The earliest of their times.
        earliest: PgTime,
    },
    /// The commit times pass the target more than once, since they run backwards in between. Recovery that begins with the
    /// chosen backup stops at the plan's stop point; these are the others.
    PassedAgain {
        /// Where, in LSN order; the first few.
        others: Vec<Crossing>,
    },
    /// The chosen timeline is not the newest: another one branched off it before the stop point.
    NotNewest {
        /// The newest of those.
        newer: TimelineId,
        /// Where it branched off.
        fork: Lsn,
    },
    /// Transactions that are prepared and not finished at the stop point: they hold their locks until somebody decides. Only
    /// what the WAL around the stop point tells; older ones may be open too.
    StillPrepared {
        /// Their ids, ascending.
        xids: Vec<Xid>,
    },
    /// A timeline that is not the newest has later commits than the one chosen.
    LaterCommitsOn {
        /// That timeline.
        timeline: TimelineId,
        /// Its last commit or abort.
        time: PgTime,
    },
}
