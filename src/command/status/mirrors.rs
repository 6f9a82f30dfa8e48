//! The other repositories of a cluster: whether they answer, and what they lack of what this one has.
//!
//! Found by comparing the listings of both, whoever archives and whatever is noted in a spool.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::command::several::gather;
use crate::config::{ClusterConfig, Place};
use crate::report::Explain;
use crate::repository::{Cluster, Repository, RepositoryError, RepositoryName};
use crate::wal::SegmentName;

/// How long the others are waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Another repository of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct MirrorStatus {
    /// What the configuration calls it.
    pub name: RepositoryName,
    /// Where it lies.
    pub repository: String,
    /// Why nothing can be said of it.
    pub error: Option<String>,
    /// WAL files that it lacks: segments, history files and others.
    pub missing_wal_files: usize,
    /// Complete segments among them.
    pub missing_segments: usize,
    /// The first segment that it lacks.
    pub oldest_missing: Option<SegmentName>,
    /// Base backups that it lacks. That is no fault: each is taken into one repository.
    pub missing_backups: usize,
}

impl MirrorStatus {
    /// Nothing that is archived is missing there.
    #[must_use]
    pub fn is_up_to_date(&self) -> bool {
        self.error.is_none() && self.missing_wal_files == 0
    }
}

impl fmt::Display for MirrorStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MirrorStatus { name, repository, error, missing_wal_files, missing_segments, .. } = self;
        write!(f, "repository {name} in {repository} ")?;
        match (error, self.oldest_missing) {
            (Some(error), _) => write!(f, "cannot be compared: {error}"),
            (None, Some(oldest)) => write!(f, "is behind: {missing_segments} segments, oldest {oldest}"),
            (None, None) if *missing_wal_files > 0 => {
                write!(f, "is behind: {missing_wal_files} WAL files, no segments")
            }
            (None, None) => write!(f, "has all WAL, and lacks {} base backups", self.missing_backups),
        }
    }
}

/// Looks at all others.
pub(in crate::command) fn look(cluster: &ClusterConfig, ours: &Repository) -> Vec<MirrorStatus> {
    if !cluster.has_mirrors() {
        return Vec::new();
    }
    let ours = Arc::new(ours.cluster(&cluster.name));
    let work = move |place: Place| {
        let mut status = unknown(&place);
        status.error = compare(&mut status, &place, &ours).err().map(|error| error.report().what);
        status
    };
    let answers = gather(cluster.mirrors.clone(), work, |_| true, PATIENCE);
    let silent = |place: &Place| MirrorStatus { error: Some(format!("no answer in {PATIENCE:?}")), ..unknown(place) };
    answers.into_iter().zip(&cluster.mirrors).map(|(answer, place)| answer.unwrap_or_else(|| silent(place))).collect()
}

fn unknown(place: &Place) -> MirrorStatus {
    MirrorStatus {
        name: place.name.clone(),
        repository: place.location.to_string(),
        error: None,
        missing_wal_files: 0,
        missing_segments: 0,
        oldest_missing: None,
        missing_backups: 0,
    }
}

fn compare(status: &mut MirrorStatus, place: &Place, ours: &Cluster) -> Result<(), RepositoryError> {
    let theirs = Repository::open(place.location.open()?)?.cluster(ours.name());
    for record in ours.servers()? {
        let (here, there) = (ours.server(record.system_identifier), theirs.server(record.system_identifier));
        for timeline in here.timelines()? {
            let lacking = here.lacking_in(&there, timeline, None)?;
            status.missing_wal_files += lacking.objects.len();
            status.missing_segments += lacking.segments().count();
            status.oldest_missing = status.oldest_missing.or_else(|| lacking.segments().next());
        }
        for info in here.live_backups()? {
            status.missing_backups += usize::from(there.backup_info(info.id)?.is_none());
        }
    }
    Ok(())
}
