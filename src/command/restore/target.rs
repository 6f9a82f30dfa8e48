//! The part of the command line that says where to stop: the same for `pitr restore` and `pitr plan`.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::RestoreError;
use crate::catalog::BackupId;
use crate::command::history::{RelationPattern, timeline};
use crate::recovery::moment::Surroundings;
use crate::recovery::{RecoveryTarget, TargetKind};
use crate::wal::{SystemIdentifier, TimelineId};

/// Where to stop.
#[derive(Clone, Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("target_kind").required(true).args(["to", "to_lsn", "to_xid", "to_name", "before_xid", "before_drop"]))]
pub struct TargetArgs {
    /// Time to go to, or "latest" (the end of the WAL), or "immediate" (as soon as the backup is consistent)
    #[arg(long, value_name = "TIME", help_heading = "Where to stop")]
    pub to: Option<String>,
    /// WAL position to go to: the first record that begins there or behind is the last that is replayed
    #[arg(long, value_name = "LSN", help_heading = "Where to stop")]
    pub to_lsn: Option<String>,
    /// Transaction to go to: its commit is the last thing in the result
    #[arg(long, value_name = "XID", help_heading = "Where to stop")]
    pub to_xid: Option<String>,
    /// Restore point to go to (made by pg_create_restore_point)
    #[arg(long, value_name = "NAME", help_heading = "Where to stop")]
    pub to_name: Option<String>,
    /// Transaction to go to just before: everything committed before it is in the result, its own work is not
    #[arg(long, value_name = "XID", conflicts_with = "exclusive", help_heading = "Where to stop")]
    pub before_xid: Option<String>,
    /// Table that was dropped: go to just before that, if the archive has one such moment ("pitr find drop" lists them)
    #[arg(long, value_name = "TABLE", conflicts_with_all = ["exclusive", "backup"], help_heading = "Where to stop")]
    pub before_drop: Option<RelationPattern>,
    /// Stop just before the time, position or transaction instead of just after it
    #[arg(long, help_heading = "Where to stop")]
    pub exclusive: bool,
    /// Timeline to follow, instead of the newest that holds the target
    #[arg(long, value_name = "N", value_parser = timeline, help_heading = "Where to stop")]
    pub timeline: Option<TimelineId>,
    /// Base backup to begin with, instead of the latest that leads to the target
    #[arg(long, value_name = "ID", help_heading = "Where to stop")]
    pub backup: Option<BackupId>,
    /// Which of the cluster's system identifiers, if it went through pg_upgrade
    #[arg(long, value_name = "ID", help_heading = "Where to stop")]
    pub system_identifier: Option<SystemIdentifier>,
}

impl TargetArgs {
    /// What the options ask for; a time without a zone is in `zone`.
    pub(super) fn target(&self, zone: &TimeZone) -> Result<RecoveryTarget, RestoreError> {
        let lookup = |name: &str| TimeZone::get(name).ok();
        let surroundings = Surroundings { now: Timestamp::now(), zone: zone.clone(), lookup: &lookup };
        let kind = match self {
            TargetArgs { to: Some(text), .. } => TargetKind::parse_to(text, &surroundings)?,
            TargetArgs { to_lsn: Some(text), .. } => TargetKind::parse_lsn(text)?,
            TargetArgs { to_xid: Some(text), .. } | TargetArgs { before_xid: Some(text), .. } => {
                TargetKind::parse_xid(text)?
            }
            TargetArgs { to_name: Some(text), .. } => TargetKind::parse_name(text)?,
            // The command line demands one of them.
            _ => TargetKind::Latest,
        };
        let exclusive = self.exclusive || self.before_xid.is_some();
        Ok(if exclusive { RecoveryTarget::exclusive(kind)? } else { RecoveryTarget::inclusive(kind) })
    }
}
