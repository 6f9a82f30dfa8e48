//! What can go wrong in `pitr backup`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::chunk::tar::TarError;
use crate::command::server::ServerError;
use crate::config::ConfigError;
use crate::manifest::server::ServerManifestError;
use crate::pgdata::PgDataError;
use crate::replication::ReplicationError;
use crate::repository::RepositoryError;
use crate::storage::StorageError;
use crate::wal::{BackupLabelError, Lsn, SystemIdentifier, TimelineId};

/// Why there is no backup. Nothing that was stored counts then.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The server cannot be used.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The session failed during the backup.
    #[error("could not take the base backup: {0}")]
    Session(#[from] ReplicationError),
    /// The server has another WAL segment size or version than the repository knows of this cluster.
    #[error("the server has {what} {found}, and the repository knows cluster {system_identifier} with {recorded}")]
    Record {
        /// The cluster.
        system_identifier: SystemIdentifier,
        /// Which property.
        what: &'static str,
        /// The server's.
        found: String,
        /// The repository's.
        recorded: String,
    },
    /// The WAL would never arrive: the server does not archive.
    #[error("cannot rely on the server's archiving: {setting} is \"{value}\"")]
    NotArchiving {
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
    },
    /// The server's data is not a tar stream as servers send it.
    #[error("cannot understand the data that the server sends: {0}")]
    Tar(#[from] TarError),
    /// An entry that does not belong into a backup.
    #[error("the server sent \"{path}\", which does not belong into a base backup: {reason}")]
    Entry {
        /// The entry.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// A file cannot be put together from what has changed in it.
    #[error("cannot put \"{path}\" together with the earlier base backup: {reason}")]
    Changed {
        /// The file as it was sent.
        path: String,
        /// Why.
        reason: String,
    },
    /// What has changed is to be laid over a chunk of the earlier backup, and that is damaged.
    #[error("cannot put the base backup together with the earlier one: {0}")]
    EarlierDamaged(Arc<RepositoryError>),
    /// That chunk cannot be read at all.
    #[error(transparent)]
    EarlierUnread(Arc<RepositoryError>),
    /// The server's own manifest is not whole.
    #[error("cannot verify the base backup: {0}")]
    ServerManifest(#[from] ServerManifestError),
    /// The server's manifest grew beyond what is supported.
    #[error("cannot store a backup_manifest of more than 1 GiB")]
    ManifestTooLarge,
    /// A file is not what the server's manifest says.
    #[error("the base backup is not what the server sent: file \"{path}\": {reason}")]
    FileDiffers {
        /// The file.
        path: String,
        /// How it differs.
        reason: String,
    },
    /// `backup_label` is missing or wrong.
    #[error("cannot use the base backup: {0}")]
    Label(#[from] BackupLabelError),
    /// There is no `backup_label`.
    #[error("cannot use the base backup: the server sent no backup_label")]
    NoLabel,
    /// `backup_label` says something else than the protocol did.
    #[error("cannot use the base backup: backup_label begins at {label}, and the server said {server}")]
    LabelDiffers {
        /// What the file says.
        label: Lsn,
        /// What the server said.
        server: Lsn,
    },
    /// The server was promoted, or followed another one, during the backup.
    #[error("the server changed from timeline {start} to {stop} during the base backup")]
    TimelineChanged {
        /// At the start.
        start: TimelineId,
        /// At the stop.
        stop: TimelineId,
    },
    /// The WAL that makes the copy consistent did not arrive in time.
    #[error("{missing} of the WAL that the base backup needs did not reach the repository within {} s", waited.as_secs())]
    WalMissing {
        /// What is missing.
        missing: String,
        /// How long was waited.
        waited: Duration,
        /// The server is a standby, which cannot end a segment by itself.
        standby: bool,
    },
    /// It took longer than things that are marked for removal stay.
    #[error("the base backup took {}, and undelete_days allows {}", humantime::format_duration(*.ran), humantime::format_duration(*.allowed))]
    TooLong {
        /// How long it took.
        ran: Duration,
        /// How long it might have taken.
        allowed: Duration,
    },
    /// Streamed WAL is not what the position says.
    #[error("cannot use the streamed WAL: {0}")]
    StreamedWal(String),
    /// `--source local`: a file or directory of the server could not be read.
    #[error("cannot read the server's files: {0}")]
    Files(#[from] PgDataError),
    /// `--source local`: the role lacks a right.
    #[error("cannot take a base backup with --source local: {0}")]
    LocalRights(String),
    /// `--source local`: what lies under the server's path here is another server's.
    #[error("\"{path}\" on this host is not the data directory of the server: {reason}")]
    NotTheServers {
        /// The server's `data_directory`.
        path: String,
        /// How that shows.
        reason: String,
    },
    /// Something on this machine failed.
    #[error("could not {action}: {source}")]
    Local {
        /// What.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Stopped by a signal.
    #[error("interrupted")]
    Interrupted,
    /// Another thread ended early; its own error tells why.
    #[error("a part of the backup ended early")]
    Broken,
}

impl From<StorageError> for BackupError {
    fn from(error: StorageError) -> Self {
        BackupError::Repository(error.into())
    }
}
