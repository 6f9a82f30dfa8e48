//! From the words of the command line to a plan.

use jiff::tz::TimeZone;

use super::watched::Watched;
use super::{Args, RestoreError, before_drop};
use crate::catalog::{BackupId, BackupInfo};
use crate::command::Context;
use crate::config::ClusterConfig;
use crate::recovery::{PlanError, PlanRequest, Refusal, RestorePlan, TargetKind, Unreachable, plan};
use crate::repository::{Cluster, Repository, ServerRecord, ServerRepository};

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
    let zone = crate::command::host::local_zone();
    let cluster = context.cluster_config()?;
    let repository = Repository::open(cluster.repository.open()?)?.cluster(&cluster.name);
    let servers = servers(args, &repository)?;
    refuse_forgotten(args.stop.backup, &repository, &servers)?;
    let mut timeline = args.stop.timeline;
    let target = match &args.stop.before_drop {
        Some(table) => {
            let (target, on) = before_drop::target(table, &repository, &servers, timeline, &zone, context)?;
            timeline = timeline.or(Some(on));
            target
        }
        None => args.stop.target(&zone)?,
    };
    if target.kind == TargetKind::Latest && args.action != super::Action::Promote {
        let action = crate::pgdata::TargetAction::from(args.action).word();
        return Err(RestoreError::Usage(format!(
            "--action {action} needs a target: at the end of the WAL a server always opens for writing"
        )));
    }
    let request = PlanRequest { target, timeline, backup: args.stop.backup.map(|id| id.to_string()) };
    let refused = |refusal: Refusal| {
        let (cluster, target) = (cluster.name.to_string(), request.target.clone());
        RestoreError::Unreachable { cluster, target, refusal: Box::new(refusal), zone: zone.clone() }
    };
    let found = of_servers(&repository, &servers, &request, context.stderr_is_terminal)?;
    let (server, record, plan) = found.map_err(refused)?;
    let no_backup = || refused(Refusal::plain(Unreachable::NoBackup));
    let id: BackupId = plan.backup.id.parse().map_err(|_| no_backup())?;
    let info = server.backup_info(id)?.ok_or_else(no_backup)?;
    Ok(Resolved { cluster, server, record, info, plan, zone })
}

/// A forgotten backup that is asked for by name is told as what it is.
fn refuse_forgotten(id: Option<BackupId>, cluster: &Cluster, records: &[ServerRecord]) -> Result<(), RestoreError> {
    let Some(id) = id else { return Ok(()) };
    for record in records {
        let server = cluster.server(record.system_identifier);
        let known = server.known_backup(id)?;
        if let Some(forgotten) = known.and_then(|known| known.notes.forgotten) {
            return Err(RestoreError::Forgotten { id, since: forgotten.since });
        }
    }
    Ok(())
}

/// The system identifiers to look at, the present one first: `pg_upgrade` leaves older ones, whose backups still serve.
fn servers(args: &Args, cluster: &Cluster) -> Result<Vec<ServerRecord>, RestoreError> {
    let mut records = match args.stop.system_identifier {
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
    terminal: bool,
) -> Result<Result<(ServerRepository, ServerRecord, RestorePlan), Refusal>, RestoreError> {
    let mut refusal = None;
    for record in records {
        let server = cluster.server(record.system_identifier);
        match of_server(&server, record, request, terminal)? {
            Ok(plan) => return Ok(Ok((server, record.clone(), plan))),
            Err(refused) => drop(refusal.get_or_insert(refused)),
        }
    }
    Ok(Err(refusal.unwrap_or_else(|| Refusal::plain(Unreachable::NoBackup))))
}

/// Most segments that are found damaged while planning. More of them are no accident, and a reason to look at the repository first.
const MOST_DAMAGED: usize = 64;

/// The plan of one server. A segment that turns out to be damaged as it is stored is taken for what it is, and the way planned anew:
/// so the verdict names it, with the nearest moments that can be reached.
fn of_server(
    server: &ServerRepository,
    record: &ServerRecord,
    request: &PlanRequest,
    terminal: bool,
) -> Result<Result<RestorePlan, Refusal>, RestoreError> {
    let mut snapshot = server.snapshot(record)?;
    let mut evidence = Watched::new(server.evidence(record), terminal);
    let mut found = 0;
    loop {
        match plan(&snapshot, request, &mut evidence) {
            Ok(plan) => return Ok(Ok(plan)),
            Err(PlanError::Unreachable(refused)) => return Ok(Err(*refused)),
            Err(PlanError::Evidence(error)) => {
                let damage = server.rotten(&error, record.segment_size_bytes).filter(|_| found < MOST_DAMAGED);
                if !damage.is_some_and(|damage| snapshot.set_damaged(damage)) {
                    return Err(error.into());
                }
                found += 1;
            }
        }
    }
}
