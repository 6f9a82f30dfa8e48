//! What people say about a backup: `pitr annotate`, `pitr keep`, `pitr forget`. Each is a note beside the backup; nothing of the
//! backup itself changes.

pub mod annotate;
mod error;
pub mod forget;
pub mod keep;

use serde::Serialize;

pub use error::KeepingError;

use super::{Context, host, looking};
use crate::catalog::{BackupId, BackupInfo, BackupNotes};
use crate::config::ClusterConfig;
use crate::repository::notes::Author;
use crate::repository::{KnownBackup, Repository, ServerRecord, ServerRepository};

/// A backup with its notes, as `--json` shows it: the members of its info, and those of its notes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ShownBackup {
    /// What it is.
    #[serde(flatten)]
    pub info: BackupInfo,
    /// What was said about it.
    #[serde(flatten)]
    pub notes: BackupNotes,
}

impl From<KnownBackup> for ShownBackup {
    fn from(KnownBackup { info, notes }: KnownBackup) -> Self {
        ShownBackup { info, notes }
    }
}

/// A backup that was named, and where it lies.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) config: ClusterConfig,
    pub(super) repository: Repository,
    pub(super) server: ServerRepository,
    pub(super) record: ServerRecord,
    pub(super) known: KnownBackup,
}

/// Finds a backup among those of all system identifiers of the cluster.
pub(super) fn find(id: BackupId, context: &Context) -> Result<Named, KeepingError> {
    let (config, repository) = looking::open(context)?;
    let cluster = repository.cluster(&config.name);
    for record in cluster.servers()? {
        let server = cluster.server(record.system_identifier);
        if let Some(known) = server.known_backup(id)? {
            return Ok(Named { config, repository, server, record, known });
        }
    }
    Err(KeepingError::NoBackup { id, cluster: config.name })
}

/// Who speaks.
pub(super) fn author() -> Author {
    Author { host: host::host_name(), now: host::now() }
}

/// Shows a backup's notes as they are now.
fn tell(named: &Named, context: &Context, text: &str) -> Result<(), KeepingError> {
    use std::io::Write as _;
    let mut out = context.stdout();
    if context.json {
        let known = named.server.known_backup(named.known.info.id)?.unwrap_or_else(|| named.known.clone());
        out.json(&ShownBackup::from(known))?;
    } else {
        writeln!(out, "{text}")?;
        out.flush()?;
    }
    Ok(())
}
