//! From the words of the command line to a plan.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Args, RestoreError};
use crate::catalog::{BackupId, BackupInfo};
use crate::command::Context;
use crate::config::ClusterConfig;
use crate::recovery::moment::Surroundings;
use crate::recovery::{PlanError, PlanRequest, RecoveryTarget, RestorePlan, TargetKind, Unreachable, plan};
use crate::repository::{Cluster, Repository, ServerRecord, ServerRepository};
use crate::storage::Directory;

/// A plan, and everything that it is about.
pub(super) struct Resolved {
    pub(super) cluster: ClusterConfig,
    pub(super) server: ServerRepository,
    pub(super) record: ServerRecord,
    pub(super) info: BackupInfo,
    pub(super) plan: RestorePlan,
    /// The zone that times without one were read in, and are shown in.
    pub(super) zone: TimeZone,
}

/// Makes the plan.
pub(super) fn resolve(args: &Args, context: &Context) -> Result<Resolved, RestoreError> {
    let zone = TimeZone::system();
    let target = target(args, &zone)?;
    if target.kind == TargetKind::Latest && args.action != super::Action::Promote {
        let action = crate::pgdata::TargetAction::from(args.action).word();
        return Err(RestoreError::Usage(format!(
            "--action {action} needs a target: at the end of the WAL a server always opens for writing"
        )));
    }
    let cluster = context.cluster_config()?;
    let storage = Directory::open(&cluster.repository)?;
    let repository = Repository::open(Arc::new(storage))?.cluster(&cluster.name);
    let request = PlanRequest { target, timeline: args.timeline, backup: args.backup.map(|backup| backup.to_string()) };
    let (server, record, plan) = of_servers(&repository, &servers(args, &repository)?, &request)?;
    let no_backup = || unreachable(&repository, &request, Unreachable::NoBackup);
    let id: BackupId = plan.backup.id.parse().map_err(|_| no_backup())?;
    let info = server.backup_info(id)?.ok_or_else(no_backup)?;
    Ok(Resolved { cluster, server, record, info, plan, zone })
}

/// What the options ask for.
fn target(args: &Args, zone: &TimeZone) -> Result<RecoveryTarget, RestoreError> {
    let lookup = |name: &str| TimeZone::get(name).ok();
    let surroundings = Surroundings { now: Timestamp::now(), zone: zone.clone(), lookup: &lookup };
    let kind = match (&args.to, &args.to_lsn, &args.to_xid, &args.to_name) {
        (Some(text), ..) => TargetKind::parse_to(text, &surroundings)?,
        (_, Some(text), ..) => TargetKind::parse_lsn(text)?,
        (_, _, Some(text), _) => TargetKind::parse_xid(text)?,
        (_, _, _, Some(text)) => TargetKind::parse_name(text)?,
        // The command line demands one of them.
        (None, None, None, None) => TargetKind::Latest,
    };
    Ok(if args.exclusive { RecoveryTarget::exclusive(kind)? } else { RecoveryTarget::inclusive(kind) })
}

/// The system identifiers to look at, the present one first: `pg_upgrade` leaves older ones, whose backups still serve.
fn servers(args: &Args, cluster: &Cluster) -> Result<Vec<ServerRecord>, RestoreError> {
    let mut records = match args.system_identifier {
        Some(identifier) => vec![cluster.server_record(identifier)?],
        None => cluster.servers()?,
    };
    records.reverse();
    Ok(records)
}

/// The plan of the first of the servers that can reach the target; what keeps the present one from it otherwise.
fn of_servers(
    cluster: &Cluster,
    records: &[ServerRecord],
    request: &PlanRequest,
) -> Result<(ServerRepository, ServerRecord, RestorePlan), RestoreError> {
    let mut refusal = None;
    for record in records {
        let server = cluster.server(record.system_identifier);
        let snapshot = server.snapshot(record)?;
        match plan(&snapshot, request, &mut server.evidence(record)) {
            Ok(plan) => return Ok((server, record.clone(), plan)),
            Err(PlanError::Unreachable(why)) => drop(refusal.get_or_insert(*why)),
            Err(PlanError::Evidence(error)) => return Err(error.into()),
        }
    }
    Err(unreachable(cluster, request, refusal.unwrap_or(Unreachable::NoBackup)))
}

fn unreachable(cluster: &Cluster, request: &PlanRequest, why: Unreachable) -> RestoreError {
    let (cluster, target) = (cluster.name().to_string(), request.target.clone());
    RestoreError::Unreachable { cluster, target, why: Box::new(why) }
}
