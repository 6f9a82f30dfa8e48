//! What one repository has and another lacks.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::{BackupId, RollUpName};
use crate::repository::wal::StoredAs;
use crate::repository::{Cluster, RepositoryError, ServerRecord, ServerRepository, StoredPack};

/// All of it.
pub(super) struct Plan {
    /// By system identifier, oldest first.
    pub(super) servers: Vec<Part>,
}

/// What is lacking of one system identifier.
pub(super) struct Part {
    pub(super) record: ServerRecord,
    /// The other repository does not know the server yet.
    pub(super) is_new: bool,
    pub(super) wal: Vec<StoredAs>,
    pub(super) packs: Vec<StoredPack>,
    /// Backups with all that they refer to.
    pub(super) backups: BTreeMap<BackupId, BTreeSet<BackupId>>,
    pub(super) roll_ups: Vec<RollUpName>,
}

impl Plan {
    /// How many objects it takes; a backup without its packs counts as one.
    pub(super) fn objects(&self) -> usize {
        let objects = |part: &Part| part.wal.len() + part.packs.len() + part.backups.len() + part.roll_ups.len();
        self.servers.iter().map(objects).sum()
    }
}

/// Compares. Without a target, everything is lacking.
pub(super) fn make(source: &Cluster, target: Option<&Cluster>, wal_only: bool) -> Result<Plan, RepositoryError> {
    let known = target.map_or(Ok(Vec::new()), Cluster::servers)?;
    let mut servers = Vec::new();
    for record in source.servers()? {
        let is_new = !known.iter().any(|other| other.system_identifier == record.system_identifier);
        let from = source.server(record.system_identifier);
        // Nothing lies in memory.
        let to = target.map_or_else(|| from.in_memory(), |target| target.server(record.system_identifier));
        servers.push(part(record, is_new, &from, &to, wal_only)?);
    }
    Ok(Plan { servers })
}

fn part(
    record: ServerRecord,
    is_new: bool,
    from: &ServerRepository,
    to: &ServerRepository,
    wal_only: bool,
) -> Result<Part, RepositoryError> {
    let (mut wal, mut roll_ups) = (Vec::new(), Vec::new());
    for timeline in from.timelines()? {
        wal.extend(from.lacking_in(to, timeline, None)?.objects);
        let there: BTreeSet<_> = to.all_roll_ups(timeline)?.into_iter().collect();
        roll_ups.extend(from.all_roll_ups(timeline)?.into_iter().filter(|name| !there.contains(name)));
    }
    let mut backups = BTreeMap::new();
    if !wal_only {
        for info in from.live_backups()? {
            if to.backup_info(info.id)?.is_none() {
                backups.insert(info.id, from.pack_sources(info.id)?.into_iter().collect::<BTreeSet<_>>());
            }
        }
    }
    let mut packs = Vec::new();
    if !backups.is_empty() {
        let needed = |pack: &StoredPack| backups.values().any(|sources| sources.contains(&pack.id.backup));
        let there: BTreeSet<_> = to.packs()?.into_iter().collect();
        packs = from.packs()?;
        packs.retain(|pack| needed(pack) && !there.contains(pack));
    }
    Ok(Part { record, is_new, wal, packs, backups, roll_ups })
}
