//! What a run tells: findings with what they mean, and the state of each server.

use serde::Serialize;

use super::coverage::Coverage;
use super::found::Counts;
use crate::catalog::BackupId;
use crate::recovery::{Closed, Commit};
use crate::wal::{ClusterName, Lsn, PostgresMajor, SegmentName, SystemIdentifier, TimelineId};

/// What kind of thing was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// A backup that cannot be restored: everything that is wrong with it.
    Backup,
    /// A pack with damaged chunks, without a good index, or not there.
    Pack,
    /// A stored segment that cannot be used.
    Segment,
    /// WAL that is missing although later WAL, or a backup that needs it, is there.
    MissingWal,
    /// A history file.
    History,
    /// Another stored WAL file.
    OtherWal,
    /// A backup that was there when it was verified before, and is none any more.
    BackupGone,
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something stored is damaged.
    Damaged,
    /// Something is missing.
    Missing,
    /// It is told, and nothing that can be restored depends on it.
    Harmless,
}

/// Something that is not as it should be.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// How bad.
    pub severity: Severity,
    /// The object in the repository that it is about, if it is one.
    pub object: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What it means for restores.
    pub meaning: String,
    /// What helps.
    pub help: String,
    /// The backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupId>,
    /// The timeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<TimelineId>,
    /// The segment, or the first one that is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentName>,
    /// All WAL before this is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub good_until: Option<Lsn>,
    /// The last commit before it that can be restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<Commit>,
    /// The first files that cannot be restored, and why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<(String, String)>,
}

impl Finding {
    pub(super) fn new(kind: FindingKind, severity: Severity, what: String, meaning: String, help: String) -> Finding {
        Finding {
            kind,
            severity,
            object: None,
            what,
            meaning,
            help,
            backup: None,
            timeline: None,
            segment: None,
            good_until: None,
            last_commit: None,
            files: Vec::new(),
        }
    }
}

/// Something that could not be looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NotLooked {
    /// The object, or what else it was.
    pub object: String,
    /// Why.
    pub why: String,
}

/// A backup, and whether it can be restored as far as this run can tell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct BackupVerdict {
    /// Which.
    pub id: BackupId,
    /// Nothing was found that keeps it from being restored.
    pub restorable: bool,
}

/// What came of one server.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ServerOutcome {
    /// Which.
    pub system_identifier: SystemIdentifier,
    /// Its major version.
    pub postgres_major: PostgresMajor,
    /// How much was looked at.
    pub verified: Counts,
    /// How much of what was to be looked at was not.
    pub left: Counts,
    /// By the ledger, this run included.
    pub coverage: Coverage,
    /// All complete backups.
    pub backups: Vec<BackupVerdict>,
    /// Stretches that cannot be restored because of what was found.
    pub closed: Vec<Closed>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// What could not be looked at.
    pub not_looked: Vec<NotLooked>,
}

/// What came of all.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Outcome {
    /// The cluster.
    pub cluster: ClusterName,
    /// The store.
    pub repository: String,
    /// Nothing is damaged or missing, and everything that was to be looked at could be.
    pub ok: bool,
    /// Everything that was to be looked at was: the time was not over before.
    pub complete: bool,
    /// It was broken off by a signal.
    pub interrupted: bool,
    /// How long it took.
    pub seconds: f64,
    /// Bytes that were read, about.
    pub read_bytes: u64,
    /// Why it could not be noted what was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_noted: Option<String>,
    /// The servers, oldest first.
    pub servers: Vec<ServerOutcome>,
}
