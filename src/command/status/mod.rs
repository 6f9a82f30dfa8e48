//! `pitr status`: what can be restored, how fresh the archive is, and what is wrong with it.
//!
//! Looks at the repository only; the server may be gone. Everything shown is in [`ClusterStatus`], as text and as JSON.

mod damaged;
mod look;
mod mirrors;
mod show;

use super::looking::{LookError, RepositoryArg};
use super::{Context, host, looking};
use crate::report::ExitStatus;
pub use damaged::{DamagedSegment, InPgWal};
pub use look::{ClusterStatus, LastArchived, ServerStatus, TimelineStatus};
pub use mirrors::MirrorStatus;
pub(in crate::command) use mirrors::look as look_at_mirrors;

/// Show what can be restored, how fresh the archive is, and what is wrong with it
///
/// Looks at the repository only, so it works where the server is gone. Ends with status 0 if there is something to restore
/// and nothing is wrong, and with 1 if a person should look: no backup, a further repository that is behind, WAL missing in the middle, a damaged segment
/// (with its last good LSN, and whether pg_wal of its server may still have it whole).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
}

/// Shows the cluster's state.
///
/// # Errors
/// See [`LookError`].
pub fn run(_: &Args, context: &Context) -> Result<ExitStatus, LookError> {
    let (cluster, repository) = looking::open(context)?;
    let mut status = look::look(&repository.cluster(&cluster.name), repository.storage().describe(), host::now())?;
    status.mirrors = mirrors::look(&cluster, &repository);
    status.ok &= status.mirrors.iter().all(MirrorStatus::is_up_to_date);
    let mut out = context.stdout();
    if context.json {
        out.json(&status)?
    } else {
        show::write(&status, &host::local_zone(), &mut out)?
    }
    Ok(if status.ok { ExitStatus::Success } else { ExitStatus::No })
}
