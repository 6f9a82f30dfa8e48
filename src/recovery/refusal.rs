//! Why a target cannot be reached, and what can be reached instead: values that `pitr plan` prints and `--json` emits.

use serde::{Deserialize, Serialize};

use super::fork::{BackupElsewhere, Fork};
use super::plan::Commit;
use super::snapshot::StoredDamage;
use super::{RecoveryTarget, TargetKind};
use crate::wal::{Lsn, PgTime, SegmentName, TimelineId};

/// The verdict on a target that cannot be reached.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refusal {
    /// Why.
    #[serde(flatten)]
    pub why: Unreachable,
    /// The nearest moment before the target that can be reached.
    pub before: Option<Nearest>,
    /// The nearest moment after the target that can be reached.
    pub after: Option<Nearest>,
    /// Other timelines on which the target can be reached, newest first. Only looked for if a timeline was asked for.
    pub reachable_on: Vec<TimelineId>,
}

impl Refusal {
    /// A reason without anything beside it.
    #[must_use]
    pub fn plain(why: Unreachable) -> Self {
        Refusal { why, before: None, after: None, reachable_on: Vec::new() }
    }
}

/// A moment that can be reached: a plan was made for it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Nearest {
    /// The last commit that would be in the result.
    pub commit: Option<Commit>,
    /// Where recovery would stop.
    pub lsn: Lsn,
    /// The timeline.
    pub timeline: TimelineId,
    /// The words of the command line that ask for it.
    pub option: String,
}

/// The words of the command line that ask for a target.
#[must_use]
pub fn words(target: &RecoveryTarget, timeline: Option<TimelineId>, backup: Option<&str>) -> String {
    let mut words = match &target.kind {
        TargetKind::Time(time) => format!("--to {time}"),
        TargetKind::Lsn(lsn) => format!("--to-lsn {lsn}"),
        TargetKind::Xid(xid) => format!("--to-xid {xid}"),
        TargetKind::Name(name) => format!("--to-name '{}'", name.replace('\'', "'\\''")),
        TargetKind::Immediate => "--to immediate".to_owned(),
        TargetKind::Latest => "--to latest".to_owned(),
    };
    if !target.inclusive {
        words.push_str(" --exclusive");
    }
    words.extend(backup.map(|id| format!(" --backup {id}")));
    words.extend(timeline.map(|timeline| format!(" --timeline {timeline}")));
    words
}

/// Why a target cannot be reached.
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
        /// Its start LSN.
        start_lsn: Lsn,
        /// When it began.
        start_time: PgTime,
        /// Its stop LSN: the first that can be reached.
        stop_lsn: Lsn,
        /// When it ended: about the first moment that can be reached.
        stop_time: PgTime,
        /// The target lies between its start and its stop.
        inside: bool,
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
        /// Nothing was committed between the last commit and this moment: a checkpoint began then.
        known_until: Option<PgTime>,
    },
    /// WAL is missing on the way.
    #[error("WAL segment \"{missing}\" is missing between base backup \"{backup}\" and the target")]
    Gap {
        /// The timeline looked at.
        timeline: TimelineId,
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
        /// The timeline looked at.
        timeline: TimelineId,
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
        /// Of a restore point: the names that there are, the latest first; the first few.
        names: Vec<String>,
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
        /// Where that begins.
        older_lsn: Lsn,
        /// The timeline that branched off earlier and was written to later.
        newer: TimelineId,
        /// Where its first commit or abort past the time begins.
        newer_lsn: Lsn,
        /// Where their ways part.
        fork: Lsn,
    },
    /// The server ran with `wal_level = minimal` on the way.
    #[error("the server ran with wal_level = minimal at {lsn}, between the base backup and the target")]
    MinimalWal {
        /// The timeline looked at.
        timeline: TimelineId,
        /// Where the WAL says so.
        lsn: Lsn,
    },
}
