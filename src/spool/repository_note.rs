//! `RepositoryNote`: which repository lies in a bucket, so that not every call has to ask.

use serde::{Deserialize, Serialize};

use crate::repository::{RepositoryId, ServerRecord};
use crate::wal::ClusterName;

/// First line of a note, followed by the hash of what comes behind it.
pub(super) const TITLE: &str = "pitr repository 1 ";

/// What a call has read from the repository and every other one would read again. It is bound to the place and to the cluster
/// that it was read for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RepositoryNote {
    /// The store, as it describes itself.
    pub place: String,
    /// The user's name for the cluster.
    pub cluster: ClusterName,
    /// The repository.
    pub id: RepositoryId,
    /// What it knows about the server.
    pub record: ServerRecord,
}
