//! The repository: what the stored objects are called, and what must hold when they are written and read.
//!
//! Layer 3. Objects are written once and never changed; the same layout in every store:
//!
//! ```text
//! pitr.json                                       what makes a directory or bucket a repository
//! <cluster>/<system identifier>/server.json       whose WAL and backups lie here
//!                              /wal/<timeline>.history
//!                              /wal/<timeline>/<group>/<segment>
//!                              /catalog/<timeline>/<group>.<count>.<hash>
//!                              /packs/<backup id>.<number>, /backups/<backup id>/…
//!                              /doomed/…, /expired/…            what is to be removed, and what WAL was
//!                              /verified/<time>-<writer>        what was verified when
//! probes/…                                        what only found out what the store can do; means nothing
//! ```
//!
//! `pg_upgrade` gives a cluster a second system identifier; both stay under the cluster's name. The marker `pitr.json`
//! tells a repository from the empty mount point that is left when its file system is not mounted.
//!
//! [`wal`] archives and fetches WAL files, [`evidence`] and [`reindex`] know what is in them, [`backup`] does the same for the objects of
//! base backups. [`frames`] reads chunks many at a time, [`earlier`] gives out what a new backup need not store again. [`notes`] has what
//! was said about backups later, [`doomed`] and [`collect`] remove what is no longer kept. [`copying`] brings what one repository holds
//! into another, [`verifying`] proves it where it is. What backups
//! contain is `manifest`'s and `chunk`'s business.

mod archiving;
pub mod backup;
mod catalog;
pub mod collect;
pub mod copying;
mod copying_backups;
pub mod doomed;
pub mod earlier;
mod entry;
pub mod evidence;
pub mod frames;
mod identity;
mod keys;
mod lacking;
mod ledger;
mod listing;
mod names;
pub mod notes;
mod proof;
mod read_ahead;
mod read_along;
mod references;
pub mod reindex;
mod repository_name;
mod rollups;
mod scanning;
mod seek;
mod segments;
pub mod verifying;
mod verifying_wal;
pub mod wal;

use std::sync::Arc;

pub use catalog::{BackupCatalog, Belonging, Part};
pub use copying_backups::StoredPack;
pub use entry::StoredEntry;
use identity::Marker;
pub use identity::{FORMAT, RepositoryId, ServerRecord};
pub use keys::WalObjectName;
pub use lacking::Lacking;
pub use ledger::StoredLedger;
pub use listing::{GroupListing, WalObject};
pub use notes::{KnownBackup, Remembering};
pub use references::References;
pub use repository_name::RepositoryName;
pub use scanning::Scanning;
pub use segments::{SegmentReader, SegmentReading};
pub use verifying_wal::{SegmentFlaw, SegmentVerdict, SegmentVerifier};

use crate::catalog::BackupId;
use crate::codec::Origin;
use crate::codec::stored::StoredError;
use crate::manifest::ManifestError;
use crate::storage::{Key, PROBES, Put, Storage, StorageError};
use crate::wal::{ClusterName, PgTime, SystemIdentifier, WalFileName};

/// Largest of the small JSON objects, in bytes.
const SMALL_OBJECT_BYTES: u64 = 1 << 20;

/// Why the repository did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// No `pitr.json`: never made a repository, or not mounted.
    #[error("{storage} is not a pitr repository: it has no pitr.json")]
    NotARepository {
        /// The store.
        storage: String,
    },
    /// Made by a newer pitr.
    #[error("the repository in {storage} has format {found}, and this pitr knows format {FORMAT}")]
    Format {
        /// The store.
        storage: String,
        /// Its format.
        found: u32,
    },
    /// A new repository was to be made where other things lie.
    #[error("{storage} is not empty: it holds \"{entry}\"")]
    NotEmpty {
        /// The store.
        storage: String,
        /// One of the things in it.
        entry: String,
    },
    /// A small object of ours is not what we write.
    #[error("\"{key}\" in {storage} cannot be understood: {reason}")]
    Malformed {
        /// The store.
        storage: String,
        /// The object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No such cluster, or not with this system identifier.
    #[error("cluster \"{cluster}\" has no system identifier {system_identifier} in {storage}")]
    UnknownServer {
        /// The store.
        storage: String,
        /// The user's name for the cluster.
        cluster: ClusterName,
        /// The identifier that is not known there.
        system_identifier: SystemIdentifier,
    },
    /// A stored WAL file fails its checks.
    #[error("stored WAL file \"{key}\" in {storage} is not to be used: {source}")]
    Damaged {
        /// The store.
        storage: String,
        /// The object.
        key: String,
        /// Which check failed.
        source: Box<StoredError>,
    },
    /// A backup's manifest cannot be trusted.
    #[error("\"{key}\" in {storage} is not to be used: {source}")]
    Manifest {
        /// The store.
        storage: String,
        /// The manifest.
        key: String,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// A chunk of a base backup is damaged in its pack.
    #[error("\"{key}\" in {storage} is damaged at byte {offset}: {reason}")]
    Chunk {
        /// The store.
        storage: String,
        /// The pack.
        key: String,
        /// Where the chunk's frame begins.
        offset: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// An object that belongs to one backup only was there before the backup wrote it.
    #[error("\"{key}\" is already in {storage}")]
    Occupied {
        /// The store.
        storage: String,
        /// The object.
        key: String,
    },
    /// What was to be declared complete is built on something that is about to be removed.
    #[error("\"{key}\" in {storage} is marked for removal, and goes after {due}")]
    Doomed {
        /// The store.
        storage: String,
        /// The object.
        key: String,
        /// Not before this.
        due: PgTime,
    },
    /// A mark is damaged, so that it cannot be told whether what is about to be complete is built on what goes.
    #[error("the mark of what is to be removed \"{key}\" in {storage} cannot be read: {reason}")]
    UnreadableMark {
        /// The store.
        storage: String,
        /// The mark.
        key: String,
        /// Why.
        reason: String,
    },
    /// Declaring a backup complete took so long that what it is built on may have been removed meanwhile.
    #[error("the manifest of backup {id} reached {storage} too late")]
    Late {
        /// The store.
        storage: String,
        /// The backup; it is marked as forgotten.
        id: BackupId,
    },
    /// The name is taken by other content.
    #[error(transparent)]
    Conflict(Box<Conflict>),
}

/// Two different contents for one name: two servers archive as one, or a server was restored and reuses a timeline.
#[derive(Debug, thiserror::Error)]
#[error("WAL file \"{file}\" is already in {storage} with different content: {difference}")]
pub struct Conflict {
    /// The store.
    pub storage: String,
    /// The file.
    pub file: WalFileName,
    /// How the two differ.
    pub difference: String,
    /// Who wanted to store the second one.
    pub ours: Origin,
    /// Who stored the first one.
    pub theirs: Origin,
    /// When the first one was stored.
    pub archived_at: PgTime,
}

/// An open repository.
#[derive(Clone, Debug)]
pub struct Repository {
    storage: Arc<dyn Storage>,
    id: RepositoryId,
}

impl Repository {
    /// Opens the repository in a store.
    ///
    /// # Errors
    /// [`RepositoryError::NotARepository`], [`RepositoryError::Format`], or the store fails.
    pub fn open(storage: Arc<dyn Storage>) -> Result<Repository, RepositoryError> {
        let key = keys::marker();
        let bytes = match storage.get(&key, SMALL_OBJECT_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => {
                return Err(RepositoryError::NotARepository { storage: storage.describe() });
            }
            Err(error) => return Err(error.into()),
        };
        let marker: Marker = parse(storage.as_ref(), &key, &bytes)?;
        if marker.format != FORMAT {
            return Err(RepositoryError::Format { storage: storage.describe(), found: marker.format });
        }
        Ok(Repository { storage, id: marker.id })
    }

    /// A repository that was opened not long ago, with the identity it had. Nothing is read.
    #[must_use]
    pub fn known(storage: Arc<dyn Storage>, id: RepositoryId) -> Repository {
        Repository { storage, id }
    }

    /// Makes an empty store a repository.
    ///
    /// # Errors
    /// [`RepositoryError::NotEmpty`] if anything lies there, another repository included; or the store fails.
    pub fn create(storage: Arc<dyn Storage>, created_at: PgTime) -> Result<Repository, RepositoryError> {
        let not_empty =
            |entry: &str| RepositoryError::NotEmpty { storage: storage.describe(), entry: entry.to_owned() };
        // A probe that its writer was not allowed to delete is nobody's data.
        if let Some(entry) = storage.list(&Key::root())?.iter().find(|entry| entry.name != PROBES) {
            return Err(not_empty(&entry.name));
        }
        let key = keys::marker();
        let marker = Marker::new(created_at).map_err(|error| storage.failed("write", &key, &error))?;
        let bytes = serde_json::to_vec_pretty(&marker).map_err(|error| malformed(storage.as_ref(), &key, &error))?;
        match storage.put(&key, &bytes)? {
            Put::Created => Ok(Repository { storage, id: marker.id }),
            Put::Exists => Err(not_empty(key.as_str())),
        }
    }

    /// The repository's own identity, drawn when it was made.
    #[must_use]
    pub fn id(&self) -> &RepositoryId {
        &self.id
    }

    /// The store.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Names of the clusters that have something here.
    ///
    /// # Errors
    /// The store fails.
    pub fn clusters(&self) -> Result<Vec<ClusterName>, RepositoryError> {
        let listed = self.storage.list(&Key::root())?;
        Ok(listed.into_iter().filter(|entry| entry.folder).filter_map(|entry| entry.name.parse().ok()).collect())
    }

    /// One cluster's part of the repository, whether or not anything is there yet.
    #[must_use]
    pub fn cluster(&self, name: &ClusterName) -> Cluster {
        Cluster { storage: self.storage.clone(), name: name.clone() }
    }
}

/// One cluster's part of the repository: all system identifiers that it has had.
#[derive(Clone, Debug)]
pub struct Cluster {
    storage: Arc<dyn Storage>,
    name: ClusterName,
}

impl Cluster {
    /// The user's name for it.
    #[must_use]
    pub fn name(&self) -> &ClusterName {
        &self.name
    }

    /// Records of all system identifiers, oldest first.
    ///
    /// # Errors
    /// The store fails, or a record is malformed.
    pub fn servers(&self) -> Result<Vec<ServerRecord>, RepositoryError> {
        let mut records = Vec::new();
        for entry in self.storage.list(&keys::cluster(&self.name))? {
            let Ok(identifier) = entry.name.parse::<SystemIdentifier>() else { continue };
            match self.server_record(identifier) {
                Err(RepositoryError::UnknownServer { .. }) => {}
                other => records.push(other?),
            }
        }
        records.sort_by_key(|record: &ServerRecord| (record.created_at, record.system_identifier));
        Ok(records)
    }

    /// The record of one system identifier.
    ///
    /// # Errors
    /// [`RepositoryError::UnknownServer`] if there is none, the store fails, or the record is malformed.
    pub fn server_record(&self, identifier: SystemIdentifier) -> Result<ServerRecord, RepositoryError> {
        let key = keys::server_record(&self.name, identifier);
        match self.storage.get(&key, SMALL_OBJECT_BYTES) {
            Ok(bytes) => parse(self.storage.as_ref(), &key, &bytes),
            Err(error) if error.is_not_found() => Err(RepositoryError::UnknownServer {
                storage: self.storage.describe(),
                cluster: self.name.clone(),
                system_identifier: identifier,
            }),
            Err(error) => Err(error.into()),
        }
    }

    /// Adds a system identifier. One that is there already keeps its first record.
    ///
    /// # Errors
    /// The store fails.
    pub fn add_server(&self, record: &ServerRecord) -> Result<Put, RepositoryError> {
        let key = keys::server_record(&self.name, record.system_identifier);
        let storage = self.storage.as_ref();
        let bytes = serde_json::to_vec_pretty(record).map_err(|error| malformed(storage, &key, &error))?;
        Ok(storage.put(&key, &bytes)?)
    }

    /// WAL and backups of one system identifier. Does not look whether it is there.
    #[must_use]
    pub fn server(&self, identifier: SystemIdentifier) -> ServerRepository {
        ServerRepository {
            storage: self.storage.clone(),
            cluster: self.name.clone(),
            system_identifier: identifier,
            folder: keys::server(&self.name, identifier),
        }
    }
}

/// WAL and backups of one system identifier.
#[derive(Clone, Debug)]
pub struct ServerRepository {
    storage: Arc<dyn Storage>,
    cluster: ClusterName,
    system_identifier: SystemIdentifier,
    folder: Key,
}

impl ServerRepository {
    /// The store.
    #[must_use]
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The cluster's system identifier.
    #[must_use]
    pub fn system_identifier(&self) -> SystemIdentifier {
        self.system_identifier
    }

    /// The folder that all of it lies in: `<cluster>/<system identifier>`.
    #[must_use]
    pub fn folder(&self) -> &Key {
        &self.folder
    }
}

fn parse<T: serde::de::DeserializeOwned>(storage: &dyn Storage, key: &Key, bytes: &[u8]) -> Result<T, RepositoryError> {
    serde_json::from_slice(bytes).map_err(|error| malformed(storage, key, &error))
}

fn malformed(storage: &dyn Storage, key: &Key, error: &serde_json::Error) -> RepositoryError {
    RepositoryError::Malformed { storage: storage.describe(), key: key.to_string(), reason: error.to_string() }
}

#[cfg(test)]
mod rollup_tests;
#[cfg(test)]
mod tests;
