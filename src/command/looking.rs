//! What the verbs that only look at the repository share: opening it, and why that failed.

use std::io;

use super::Context;
use crate::config::{ClusterConfig, ConfigError};
use crate::repository::{Repository, RepositoryError, RepositoryName};

/// Which of a cluster's repositories is meant.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct RepositoryArg {
    /// Of several repositories of the cluster, this one instead of the first: "first", or the name of a mirror
    #[arg(long, value_name = "NAME", help_heading = "For all commands")]
    pub repository: Option<RepositoryName>,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
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

/// The settings of the cluster that is meant, and its repository.
pub(super) fn open(context: &Context) -> Result<(ClusterConfig, Repository), LookError> {
    let cluster = context.cluster_config()?;
    let repository = Repository::open(cluster.repository.open().map_err(RepositoryError::from)?)?;
    Ok((cluster, repository))
}
