//! `pitr expire`: applies the retention rules, and removes what is no longer kept, in two steps.
//!
//! What is done, and why it needs no locks, is in `repository::collect`. This module asks for the plan of each system identifier,
//! shows it, and carries it out; [`show`] has the words.

mod show;

use std::time::Duration;

use serde::Serialize;

use super::looking::{LookError, RepositoryArg};
use super::{Context, host, looking};
use crate::recovery::{Judged, Retention};
use crate::report::{ExitStatus, Explain, Program, Severity};
use crate::repository::collect::{Collected, CollectionPlan, Forgetting, Going, Rules, Waiting};
use crate::repository::{Cluster, RepositoryError, ServerRecord};
use crate::wal::{ClusterName, PgTime, SystemIdentifier};

/// Apply the retention rules, and remove what is no longer kept
///
/// Forgets the base backups that retention_days and retention_count both let go, marks what nothing that is kept needs (forgotten
/// backups, what broken-off ones left, WAL from before the oldest backup that is kept), and removes what was marked undelete_days ago
/// and is still not needed. Each step is shown with its reason. Where no rule is set, nothing goes but what was forgotten with "pitr
/// forget". Run it once a day by a timer. It locks nothing: backups, restores and archiving go on meanwhile, and one that is
/// killed is gone on with by the next. Timeline history files are never removed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// For tests: as if it were this moment
    #[arg(long, value_name = "TIME", hide = true)]
    pub as_of: Option<jiff::Timestamp>,
}

const EXAMPLES: &str = "\
Examples:  pitr expire --dry-run
           pitr expire --json

The rules are settings of pitr.toml: retention_days, retention_count, undelete_days (\"pitr config show\").";

/// Why not everything was done.
#[derive(Debug, thiserror::Error)]
pub enum ExpireError {
    /// Configuration, repository, output.
    #[error(transparent)]
    Look(#[from] LookError),
    /// The store refused to remove something.
    #[error("could not remove {count} objects; the first: {first}")]
    Refused {
        /// How many.
        count: u64,
        /// What it said about the first of them.
        first: String,
    },
    /// A manifest does not tell what its backup needs.
    #[error("{first}")]
    Untold {
        /// The first of them.
        first: String,
    },
}

impl From<RepositoryError> for ExpireError {
    fn from(error: RepositoryError) -> Self {
        ExpireError::Look(error.into())
    }
}

impl From<std::io::Error> for ExpireError {
    fn from(error: std::io::Error) -> Self {
        ExpireError::Look(error.into())
    }
}

/// What is to be done, or was done.
#[derive(Serialize)]
struct Document<'a> {
    cluster: &'a ClusterName,
    repository: String,
    retention: Retention,
    undelete_days: u64,
    dry_run: bool,
    servers: Vec<Part<'a>>,
    /// Temporary files, unfinished uploads and empty folders that were swept up.
    swept: Option<u64>,
}

/// The same for one system identifier.
#[derive(Serialize)]
struct Part<'a> {
    system_identifier: SystemIdentifier,
    backups: &'a [Judged],
    /// Backups that the rules let go now.
    forgets: &'a [Forgetting],
    /// What is removed now; with `--dry-run` what would be.
    removes: &'a [Going],
    /// What is marked now, and when it goes.
    marks: &'a [Going],
    marks_go_after: PgTime,
    /// What was marked before, and is not due.
    waits: &'a [Waiting],
    problems: &'a [String],
    /// Damaged marks that are replaced.
    unreadable_marks: Vec<&'a str>,
    /// Bytes of all packs, and how many of them no backup that stays needs.
    pack_bytes: u64,
    dead_bytes: u64,
    done: Option<Collected>,
}

/// Plans, shows, and carries out.
///
/// # Errors
/// See [`ExpireError`]. What was done is done; the next run goes on.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, ExpireError> {
    let (config, repository) = looking::open(context)?;
    let begun = host::now();
    let offset = args.as_of.map_or(0, |time| PgTime::from_timestamp(time).0.saturating_sub(begun.0));
    let clock = || PgTime(host::now().0.saturating_add(offset));
    let age_us = i64::try_from(config.undelete.as_micros()).unwrap_or(i64::MAX);
    let (retention, host) = (config.retention, host::host_name());
    let rules = Rules { retention, age_us, host, now: clock(), superseded: false };
    let cluster = repository.cluster(&config.name);
    let mut out = context.stdout();
    if !context.json {
        show::head(&config.name, &repository.storage().describe(), &rules, args.dry_run, &mut out)?;
    }
    let mut plans = Vec::new();
    let records = cluster.servers()?;
    for (at, record) in records.iter().enumerate() {
        let server = cluster.server(record.system_identifier);
        let rules = Rules { superseded: has_backups(&cluster, &records[at + 1..])?, ..rules.clone() };
        let plan = server.plan_collection(record, &rules)?;
        if !context.json {
            show::plan(&plan, args.dry_run, &mut out)?;
        }
        let go_on = || !context.interrupt.requested();
        let mut say = |going: &Going| tracing::info!("removing {}", show::going(going));
        let done = match args.dry_run {
            true => None,
            false => Some(server.collect(&plan, &clock, &go_on, &mut say)?),
        };
        if let Some(done) = done.as_ref().filter(|_| !context.json) {
            show::done(done, &mut out)?;
        }
        plans.push((plan, done));
        if context.interrupt.requested() {
            break;
        }
    }
    let swept = if args.dry_run || context.interrupt.requested() { None } else { sweep(&repository, config.undelete) };
    if context.json {
        let servers = plans.iter().map(|(plan, done)| part(plan, done.clone())).collect();
        let undelete_days = config.undelete.as_secs() / 86_400;
        let (cluster, dry_run) = (&config.name, args.dry_run);
        let retention = config.retention;
        let repository = repository.storage().describe();
        out.json(&Document { cluster, repository, retention, undelete_days, dry_run, servers, swept })?;
    } else {
        show::swept(swept, &mut out)?;
    }
    verdict(plans)
}

/// Whether one of the servers that came after has a backup.
fn has_backups(cluster: &Cluster, later: &[ServerRecord]) -> Result<bool, RepositoryError> {
    for record in later {
        if !cluster.server(record.system_identifier).live_backups()?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn part(plan: &CollectionPlan, done: Option<Collected>) -> Part<'_> {
    Part {
        system_identifier: plan.system_identifier,
        backups: &plan.judged,
        forgets: &plan.forgetting,
        removes: &plan.going,
        marks: &plan.marking,
        marks_go_after: plan.due(),
        waits: &plan.waiting,
        problems: &plan.problems,
        unreadable_marks: plan.unreadable.iter().map(|(_, why)| why.as_str()).collect(),
        pack_bytes: plan.pack_bytes,
        dead_bytes: plan.dead_bytes,
        done,
    }
}

/// Everything else was done before: that a killed writer's remains stay costs some room and nothing else.
fn sweep(repository: &crate::repository::Repository, age: Duration) -> Option<u64> {
    match repository.storage().sweep(age) {
        Ok(count) => Some(count),
        Err(error) => {
            let mut report = error.report();
            report.meaning =
                "Everything else was done. What killed processes left takes room and has no other effect.".to_owned();
            report.print(Program::Pitr, Severity::Warning);
            None
        }
    }
}

fn verdict(plans: Vec<(CollectionPlan, Option<Collected>)>) -> Result<ExitStatus, ExpireError> {
    let mut status = ExitStatus::Success;
    let mut untold = None;
    for (plan, done) in plans {
        if let Some(Collected { refused, refusal, interrupted, .. }) = done {
            if refused > 0 {
                return Err(ExpireError::Refused { count: refused, first: refusal.unwrap_or_default() });
            }
            if interrupted {
                status = ExitStatus::Interrupted;
            }
        }
        untold = untold.or(plan.problems.into_iter().next());
    }
    match untold {
        Some(first) => Err(ExpireError::Untold { first }),
        None => Ok(status),
    }
}
