//! `pitr status`: what can be restored, how fresh the archive is, and what is wrong with it.
//!
//! Looks at the repository only; the server may be gone. Everything shown is in [`ClusterStatus`], as text and as JSON.

mod damaged;
mod look;
mod show;

use std::io;
use std::sync::Arc;

use super::{Context, host};
use crate::config::ConfigError;
use crate::report::ExitStatus;
use crate::repository::{Repository, RepositoryError};
use crate::storage::Directory;
pub use damaged::{DamagedSegment, InPgWal};
pub use look::{ClusterStatus, LastArchived, ServerStatus, TimelineStatus};

/// Show what can be restored, how fresh the archive is, and what is wrong with it
///
/// Looks at the repository only, so it works where the server is gone. Ends with status 0 if there is something to restore
/// and nothing is wrong, and with 1 if a person should look: no backup, WAL missing in the middle, a damaged segment
/// (with its last good LSN, and whether pg_wal of its server may still have it whole).
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// Standard output cannot be written to.
    #[error("could not write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Shows the cluster's state.
///
/// # Errors
/// See [`StatusError`].
pub fn run(_: &Args, context: &Context) -> Result<ExitStatus, StatusError> {
    let cluster = context.cluster_config()?;
    let directory = Directory::open(&cluster.repository).map_err(RepositoryError::from)?;
    let repository = Repository::open(Arc::new(directory))?;
    let status = look::look(&repository.cluster(&cluster.name), repository.storage().describe(), host::now())?;
    let mut out = context.stdout();
    if context.json {
        out.json(&status)?
    } else {
        show::write(&status, &mut out)?
    }
    Ok(if status.ok { ExitStatus::Success } else { ExitStatus::No })
}
