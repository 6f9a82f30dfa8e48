//! `pitr copy`: brings one of a cluster's repositories up to date from another.
//!
//! Everything is compared by its name, read, proved, and stored under the same name only if that is free; so a copy that broke
//! off is gone on with by running it again, and two at the same time do no harm. Nothing is deleted.
//!
//! * [`plan`]: what is lacking.
//! * [`work`]: bringing it, in parallel: WAL first, oldest first; then packs; then manifests, which make backups of them.

mod plan;
mod show;
mod work;

use std::io;

use super::Context;
use super::host;
use super::init::{PlaceError, refuse_overwriting};
use crate::config::{ConfigError, Place};
use crate::report::ExitStatus;
use crate::repository::{Cluster, Repository, RepositoryError, RepositoryName};
use crate::storage::Location;
use crate::wal::ClusterName;

/// Bring one of a cluster's repositories up to date from another
///
/// Copies WAL, history files, base backups and the index that the other repository lacks, each proved on the way and stored under the
/// same name, which must be free. Nothing is overwritten or deleted. A copy that broke off is gone on with by the same words. An
/// empty directory or bucket becomes a repository. Ends with status 0 if nothing is lacking any more, 10 if the other repository
/// holds other content under a name, 11 if something is damaged in the source, and 24 if it was interrupted; all that can be
/// copied is copied all the same.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The repository to copy from: "first", or the name of a mirror
    #[arg(long, value_name = "NAME")]
    pub from: RepositoryName,
    /// The repository to bring up to date
    #[arg(long, value_name = "NAME")]
    pub to: RepositoryName,
    /// Copy WAL and history files, no base backups
    #[arg(long)]
    pub wal_only: bool,
    /// Show what would be copied and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

const EXAMPLES: &str = "\
Examples:  pitr copy --from first --to west --dry-run
           pitr copy --from west --to first --wal-only

The names are those of the configuration: a further repository is a table [cluster.NAME.mirror.NAME].";

/// Why nothing was copied, or not all.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// From a repository to itself.
    #[error("cannot copy repository \"{0}\" to itself")]
    Same(RepositoryName),
    /// The other repository cannot be made there.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// A repository does not answer, or is none.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The source has nothing of this cluster.
    #[error("repository \"{from}\" has nothing of cluster \"{cluster}\"")]
    Nothing {
        /// The source.
        from: RepositoryName,
        /// The cluster.
        cluster: ClusterName,
    },
    /// Some objects could not be copied; the first of them tells why.
    #[error("could not copy {count} of {of} objects; the first: {first}")]
    Incomplete {
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
        /// What happened to the first.
        first: Box<RepositoryError>,
    },
    /// Standard output cannot be written to.
    #[error("could not write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Copies.
///
/// # Errors
/// See [`CopyError`].
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, CopyError> {
    let config = context.cluster_config()?;
    let (from, to) = (config.repository_named(&args.from)?, config.repository_named(&args.to)?);
    if from.name == to.name {
        return Err(CopyError::Same(from.name));
    }
    let open = |place: &Place| Repository::open(place.location.open()?);
    let source = open(&from)?.cluster(&config.name);
    let target = match open(&to) {
        Err(RepositoryError::NotARepository { .. }) if args.dry_run => None,
        Err(RepositoryError::NotARepository { .. }) => Some(make(&to)?.cluster(&config.name)),
        other => Some(other?.cluster(&config.name)),
    };
    let plan = plan::make(&source, target.as_ref(), args.wal_only)?;
    if plan.servers.is_empty() {
        return Err(CopyError::Nothing { from: from.name, cluster: config.name });
    }
    let mut outcome = show::Outcome::new(&config.name, &from, &to, &plan);
    let Some(target) = target.filter(|_| !args.dry_run) else {
        outcome.tell(context, args.dry_run)?;
        return Ok(ExitStatus::Success);
    };
    let done = copy(&plan, &source, &target, config.jobs, context)?;
    outcome.take(&done);
    outcome.tell(context, false)?;
    if done.interrupted {
        return Ok(ExitStatus::Interrupted);
    }
    let count = done.failures.len();
    match done.failures.into_iter().next() {
        Some(first) => Err(CopyError::Incomplete { count, of: plan.objects(), first: Box::new(first) }),
        None => Ok(ExitStatus::Success),
    }
}

/// Makes the other repository in an empty directory or bucket.
fn make(place: &Place) -> Result<Repository, CopyError> {
    if let Location::S3(settings) = &place.location {
        refuse_overwriting(settings)?;
    }
    Ok(Repository::create(place.location.open().map_err(RepositoryError::from)?, host::now())?)
}

fn copy(
    plan: &plan::Plan,
    source: &Cluster,
    target: &Cluster,
    jobs: u32,
    context: &Context,
) -> Result<work::Done, CopyError> {
    let mut done = work::Done::default();
    for part in &plan.servers {
        if part.is_new {
            target.add_server(&part.record)?;
        }
        let identifier = part.record.system_identifier;
        let road = work::Road {
            source: source.server(identifier),
            target: target.server(identifier),
            jobs: jobs.max(1) as usize,
            context,
        };
        road.bring(part, &mut done);
    }
    Ok(done)
}
