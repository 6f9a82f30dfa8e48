//! `pitr verify`: whether what is stored is whole, and what it means where it is not.
//!
//! Nothing is changed and nothing is taken away: damaged objects stay where they are. What was verified is noted in a ledger in the
//! repository, so that short runs take turns through all of it.
//!
//! * [`scope`]: what there is, and what is to be looked at in which order.
//! * [`work`]: going through it in parallel; [`packs`], [`backups`] (with [`frames`] and [`assemble`]) for one of each.
//! * [`budget`], [`record`], [`progress`]: time and rate, the ledger, what the user sees meanwhile.
//! * [`meaning`] and [`judge`]: from what was found to what can still be restored, and what is told; [`show`] writes it.
//!
//! **Damaged, or could not look?** The store's silence is never taken for damage: both are told, with a status each, and damage wins.

mod assemble;
mod backups;
mod budget;
mod coverage;
mod finding;
mod found;
mod frames;
mod judge;
mod meaning;
mod packs;
mod progress;
mod record;
mod scope;
mod show;
#[cfg(test)]
mod tests;
mod work;

use std::io;
use std::time::{Duration, Instant};

use jiff::tz::TimeZone;

pub use budget::Percent;
pub use coverage::Coverage;
pub use finding::{BackupVerdict, Finding, FindingKind, NotLooked, Outcome, ServerOutcome, Severity};
pub use found::Counts;

use super::backup::RateLimit;
use super::looking::RepositoryArg;
use super::{Context, host};
use crate::catalog::{BackupId, PackId, Verified};
use crate::config::ConfigError;
use crate::recovery::TargetError;
use crate::recovery::moment::{self, Surroundings};
use crate::report::{ExitStatus, Explain};
use crate::repository::{Cluster, Repository, RepositoryError};
use crate::wal::{ClusterName, PgTime};
use budget::Budget;
use found::Found;
use meaning::Meaning;
use progress::Progress;
use record::Recorder;
use scope::{Queued, Scope, Unit, Wanted};
use work::Run;

/// Verify that what is stored is whole, and tell what it means where it is not
///
/// Reads every backup (manifest, info, packs, and that each chunk is where the manifest says) and every stored WAL file (all that a
/// fetch checks, every record, the borders between segments, and that WAL is continuous), and tells which backups and which moments
/// cannot be restored. What was verified is noted in the repository, so that runs with --for take turns through all of it. Nothing is
/// changed or removed. Ends with status 0 if nothing that was looked at is damaged or missing, 11 if something is damaged, 12 if WAL is
/// missing, 4 (or 8) if nothing is known to be wrong and something could not be looked at, and 24 if it was interrupted.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
    /// Only this backup and the WAL that makes it consistent; may be given several times
    #[arg(long = "backup", value_name = "ID", conflicts_with_all = ["wal", "since"])]
    pub backups: Vec<BackupId>,
    /// Only WAL, no backups
    #[arg(long)]
    pub wal: bool,
    /// Only what was stored since then: "2 days ago", "2026-03-02 14:25:00+01"
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// A random share of all chunks and segments, and all manifests
    #[arg(long, value_name = "N%")]
    pub sample: Option<Percent>,
    /// Stop after this time; what was verified longest ago comes first
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub lasts: Option<Duration>,
    /// Read at most so much a second: 50MB
    #[arg(long, value_name = "RATE")]
    pub rate_limit: Option<RateLimit>,
}

const EXAMPLES: &str = "\
Examples:  pitr verify                                 all of it
           pitr verify --for 30m --rate-limit 50MB     each night a part, in turn
           pitr verify --since \"1 day ago\"             what is new
           pitr verify --backup 20261121T104500Z-1a2b3c4d";

/// Why nothing was verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The time of `--since` cannot be understood.
    #[error(transparent)]
    Since(#[from] TargetError),
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Nothing is stored of the cluster.
    #[error("the repository knows no server of cluster \"{0}\"")]
    Nothing(ClusterName),
    /// No such backup.
    #[error("there is no backup {0}")]
    NoBackup(BackupId),
    /// Standard output cannot be written to.
    #[error("could not write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Verifies.
///
/// # Errors
/// See [`VerifyError`].
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, VerifyError> {
    let begun = Instant::now();
    let config = context.cluster_config()?;
    let since = args.since.as_deref().map(moment_of).transpose()?;
    let repository = Repository::open(config.repository.open().map_err(RepositoryError::from)?)?;
    let budget = Budget::new(args.lasts, args.rate_limit.map(|rate| rate.0), context.interrupt.clone());
    let mut scopes = gather(&repository.cluster(&config.name))?;
    let complete = |id: &BackupId| scopes.iter().any(|scope| scope.complete().any(|backup| backup.id == *id));
    if let Some(unknown) = args.backups.iter().find(|id| !complete(id)) {
        return Err(VerifyError::NoBackup(*unknown));
    }
    if scopes.is_empty() {
        return Err(VerifyError::Nothing(config.name));
    }
    let wanted = Wanted {
        backups: args.backups.clone(),
        wal_only: args.wal,
        since,
        share: args.sample,
        by_age: args.lasts.is_some(),
    };
    let (stages, queued) = queue(&scopes, &wanted)?;
    let weight = stages.iter().flatten().map(|(_, queued)| queued.weight).sum();
    let progress = Progress::begin(context.stderr_is_terminal, weight, &budget);
    let recorders: Vec<Recorder> = scopes.iter().map(|scope| Recorder::new(scope.record.segment_size_bytes)).collect();
    let (found, seen): (Vec<Found>, Vec<Counts>) = {
        let runs = scopes.iter().zip(&recorders);
        let runs: Vec<Run<'_>> =
            runs.map(|(scope, recorder)| Run::new(scope, &budget, recorder, &progress, args.sample)).collect();
        work::go(&runs, &stages, &budget, config.jobs.max(1) as usize);
        runs.iter().for_each(Run::trace);
        runs.into_iter().map(Run::into_found).unzip()
    };
    progress.finish();
    let mut not_noted = None;
    for (recorder, scope) in recorders.iter().zip(&scopes) {
        not_noted = not_noted.or(recorder.finish(scope));
    }
    let mut status = None;
    let mut servers = Vec::new();
    for (scope, (mut found, (seen, queued))) in
        scopes.iter_mut().zip(found.into_iter().zip(seen.into_iter().zip(queued)))
    {
        servers.push(judged(scope, &mut found, left(queued, seen)));
        status = status.or(found.no_answers.first().map(|(_, error)| error.report().status));
    }
    let left = servers.iter().any(|server| server.left != Counts::default());
    let interrupted = context.interrupt.requested();
    let worst = servers.iter().flat_map(|server| &server.findings).map(|finding| finding.severity).min();
    let status = match (worst, status, interrupted) {
        (Some(Severity::Damaged), ..) => ExitStatus::Damaged,
        (Some(Severity::Missing), ..) => ExitStatus::Gap,
        (_, Some(silent), _) => silent,
        (_, None, true) => ExitStatus::Interrupted,
        (_, None, false) => ExitStatus::Success,
    };
    let outcome = Outcome {
        cluster: config.name,
        repository: repository.storage().describe(),
        ok: status == ExitStatus::Success,
        complete: !left && !interrupted && !budget.is_hopeless(),
        interrupted,
        seconds: begun.elapsed().as_secs_f64(),
        read_bytes: budget.read_bytes(),
        not_noted: not_noted.map(|error| error.report().what),
        servers,
    };
    show::tell(&outcome, context)?;
    Ok(status)
}

/// Reads the time of `--since`.
fn moment_of(text: &str) -> Result<PgTime, TargetError> {
    let lookup = |name: &str| TimeZone::get(name).ok();
    let surroundings = Surroundings { now: host::now().to_timestamp(), zone: host::local_zone(), lookup: &lookup };
    Ok(moment::parse(text, &surroundings)?)
}

fn gather(cluster: &Cluster) -> Result<Vec<Scope>, RepositoryError> {
    let records = cluster.servers()?.into_iter();
    records.map(|record| Scope::gather(cluster.server(record.system_identifier), record)).collect()
}

/// Stages of units, each with the number of its server.
type Stages = Vec<Vec<(usize, Queued)>>;

/// The stages of all servers, and how much is in them for each. By age, one server's turn comes among the others'.
fn queue(scopes: &[Scope], wanted: &Wanted) -> Result<(Stages, Vec<Counts>), RepositoryError> {
    let mut stages = Stages::new();
    let mut counts = vec![Counts::default(); scopes.len()];
    for (server, scope) in scopes.iter().enumerate() {
        if !wanted.backups.is_empty() && !scope.complete().any(|backup| wanted.backups.contains(&backup.id)) {
            continue;
        }
        for (at, stage) in scope.queue(wanted)?.into_iter().enumerate() {
            if stages.len() <= at {
                stages.push(Vec::new());
            }
            for queued in &stage {
                counts[server].add(&queued.unit);
            }
            stages[at].extend(stage.into_iter().map(|queued| (server, queued)));
        }
    }
    if wanted.by_age {
        stages.iter_mut().for_each(|stage| stage.sort_by_key(|(_, queued)| queued.last));
    }
    Ok((stages, counts))
}

impl Counts {
    fn add(&mut self, unit: &Unit) {
        match unit {
            Unit::Pack(_) => self.packs += 1,
            Unit::Backup(_) => self.backups += 1,
            Unit::Others(_) => {}
            Unit::Segments { first, last, .. } => self.segments += last.0 - first.0 + 1,
        }
    }
}

fn left(queued: Counts, seen: Counts) -> Counts {
    Counts {
        backups: queued.backups.saturating_sub(seen.backups),
        packs: queued.packs.saturating_sub(seen.packs),
        segments: queued.segments.saturating_sub(seen.segments),
        ..Counts::default()
    }
}

/// What is told of one server. A store that stopped answering meanwhile hides nothing of what was found before.
fn judged(scope: &mut Scope, found: &mut Found, left: Counts) -> ServerOutcome {
    // Something expires meanwhile: what counts is what is there now.
    if found.vanished
        && let Err(error) = scope.timelines()
    {
        found.no_answers.push(("the list of stored WAL".to_owned(), error));
    }
    removed_meanwhile(scope, found);
    for backup in scope.backups.iter().filter(|backup| backup.complete) {
        if let Err(error) = &backup.info {
            found.backups.entry(backup.id).or_default().info = Some(error.to_string());
        }
    }
    let meaning = Meaning::of(scope, found).unwrap_or_else(|error| {
        found.no_answers.push(("the recovery windows".to_owned(), error));
        Meaning::unknown(scope, found)
    });
    let verified = match scope.server.ledger() {
        Ok(ledger) => Verified::of(&ledger.ledgers(), scope.record.segment_size_bytes),
        Err(_) => scope.verified.clone(),
    };
    ServerOutcome {
        system_identifier: scope.record.system_identifier,
        postgres_major: scope.record.major,
        verified: found.counts,
        left,
        coverage: scope.coverage(&verified),
        findings: judge::findings(scope, found, &meaning),
        not_looked: judge::not_looked(found),
        backups: meaning.backups,
        closed: meaning.closed,
    }
}

/// A backup that is removed while it is verified is no damage, and neither are its packs.
fn removed_meanwhile(scope: &mut Scope, found: &mut Found) {
    let suspects: Vec<BackupId> = found.backups.keys().copied().collect();
    for id in suspects {
        if matches!(scope.server.is_complete(id), Ok(false)) {
            found.backups.remove(&id);
            scope.backups.retain(|backup| backup.id != id);
            scope.sources.remove(&id);
            let gone = id.to_string();
            scope.snapshot.backups.retain(|backup| backup.id != gone);
        }
    }
    let needed = |pack: &PackId| scope.sources.values().any(|sources| sources.contains(&pack.backup));
    found.packs.retain(|pack, damage| !damage.missing || needed(pack));
}
