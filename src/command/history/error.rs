//! Why the history could not be read.

use std::io;

use crate::config::ConfigError;
use crate::recovery::{TargetError, Unreachable};
use crate::repository::RepositoryError;
use crate::wal::TimelineId;

/// Why the history could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A time that cannot be read, or not in one way only.
    #[error(transparent)]
    Time(#[from] TargetError),
    /// `--from` lies behind `--to`.
    #[error("--from lies behind --to")]
    Reversed,
    /// The timeline cannot be followed.
    #[error("cannot follow timeline {timeline}: {why}")]
    Timeline {
        /// The timeline.
        timeline: TimelineId,
        /// Why not.
        why: Box<Unreachable>,
    },
    /// Nothing is stored.
    #[error("nothing is archived of cluster \"{cluster}\"")]
    Nothing {
        /// The cluster.
        cluster: String,
    },
    /// A signal came.
    #[error("reading the archive was interrupted")]
    Interrupted,
    /// Standard output cannot be written to.
    #[error("could not write to standard output: {0}")]
    Output(#[from] io::Error),
}
