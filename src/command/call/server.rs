//! Which cluster a call is about: `pg_control`, the configuration and the repository must agree.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Arguments, CallError};
use crate::config::{ClusterConfig, Config, Place};
use crate::repository::{Repository, RepositoryId, RepositoryName, ServerRecord, ServerRepository};
use crate::spool::{RepositoryNote, Spool};
use crate::storage::Location;
use crate::wal::{CONTROL_FILE_READ_SIZE, ControlFile, SystemIdentifier};

/// How often a `pg_control` that is just being written is read again.
const CONTROL_FILE_TRIES: u32 = 20;

/// The data directory of the server that makes the call, and what its `pg_control` says.
#[derive(Clone, Debug)]
pub(in crate::command) struct DataDirectory {
    /// Absolute.
    pub(in crate::command) path: PathBuf,
    /// Read a moment ago.
    pub(in crate::command) control: ControlFile,
}

impl DataDirectory {
    /// The data directory that `wal_file` belongs to: the parent of the `pg_wal` that it lies in, else the working
    /// directory, which PostgreSQL sets to the data directory. `None` if neither has a `global/pg_control`.
    pub(in crate::command) fn find(wal_file: &Path) -> Result<Option<DataDirectory>, CallError> {
        let folder = wal_file.parent().filter(|folder| folder.ends_with("pg_wal"));
        // Of the relative "pg_wal" the parent is the empty path: the working directory.
        let above = folder.and_then(Path::parent);
        for directory in above.into_iter().chain([Path::new("")]) {
            let path = directory.join("global/pg_control");
            let Some(control) = read_control_file(&path)? else { continue };
            let path = std::path::absolute(directory.join("."))
                .map_err(|source| CallError::Local { action: "find the working directory".to_owned(), source })?;
            return Ok(Some(DataDirectory { path: path.components().collect(), control }));
        }
        Ok(None)
    }
}

fn read_control_file(path: &Path) -> Result<Option<ControlFile>, CallError> {
    let mut tries = 0;
    loop {
        let mut bytes = Vec::with_capacity(CONTROL_FILE_READ_SIZE);
        let read = File::open(path).and_then(|file| file.take(CONTROL_FILE_READ_SIZE as u64).read_to_end(&mut bytes));
        match read {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(source) => return Err(CallError::ControlFileRead { path: path.to_owned(), source }),
            Ok(_) => {}
        }
        tries += 1;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok(Some(control)),
            Err(error) if error.may_be_torn() && tries < CONTROL_FILE_TRIES => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(source) => return Err(CallError::ControlFile { path: path.to_owned(), source }),
        }
    }
}

/// The cluster that a call is about. Nothing was asked of the repository yet.
#[derive(Clone, Debug)]
pub(in crate::command) struct Server {
    /// Its settings.
    pub(in crate::command) config: ClusterConfig,
    /// From `pg_control`, else from the configuration.
    pub(in crate::command) system_identifier: SystemIdentifier,
    /// Where the call was made, if that is a data directory.
    pub(in crate::command) data_directory: Option<DataDirectory>,
}

impl Server {
    /// Finds out which cluster is meant, and that the configuration and the server agree on it.
    pub(in crate::command) fn find(
        arguments: &Arguments,
        wal_file: &Path,
        identity: Identity,
    ) -> Result<Server, CallError> {
        let config = Config::load(arguments.config.as_deref())?;
        let data_directory = DataDirectory::find(wal_file)?;
        let found = data_directory.as_ref().map(|directory| directory.control.system_identifier);
        let named = arguments.cluster.is_some() || config.names_cluster();
        let no_identity = || CallError::NoIdentity { looked_in: std::env::current_dir().unwrap_or_default() };
        if found.is_none() && !named {
            return Err(no_identity());
        }
        let config = config.select(arguments.cluster.as_ref(), found)?;
        let system_identifier = match found {
            Some(found) => {
                if let Err(other) = config.check_identity(found)
                    && !(identity == Identity::PresentOrEarlier && is_earlier(&config, found))
                {
                    return Err(other.into());
                }
                found
            }
            None => config.system_identifier.ok_or_else(no_identity)?,
        };
        Ok(Server { config, system_identifier, data_directory })
    }

    /// Opens the repository: its marker is read anew by every call, since a file system that is not mounted looks like
    /// an empty repository.
    pub(in crate::command) fn open_repository(&self, place: &Place) -> Result<Open, CallError> {
        let repository = Repository::open(place.location.open()?)?;
        let cluster = repository.cluster(&self.config.name);
        let record = cluster.server_record(self.system_identifier)?;
        let (id, server) = (repository.id().clone(), cluster.server(self.system_identifier));
        Ok(Open { name: place.name.clone(), id, server, record })
    }

    /// As [`Server::open_repository`], for a bucket from the note of an earlier call, if there is one, so that archiving a file
    /// takes one request. A bucket has no empty mount point under it: one that is gone refuses what is stored into it.
    pub(in crate::command) fn open_noted(&self, which: &Place) -> Result<Open, CallError> {
        let Location::S3(_) = which.location else { return self.open_repository(which) };
        let storage = which.location.open()?;
        let spool = self.make_spool();
        let (place, cluster) = (storage.describe(), &self.config.name);
        if let Some(note) = spool.as_ref().and_then(|spool| spool.repository(&which.name, &place, cluster)) {
            let server = Repository::known(storage, note.id.clone()).cluster(cluster).server(self.system_identifier);
            return Ok(Open { name: which.name.clone(), id: note.id, server, record: note.record });
        }
        let open = self.open_repository(which)?;
        if let Some(spool) = spool {
            let (id, record) = (open.id.clone(), open.record.clone());
            // Without a note the next call asks again, which costs time only.
            let _ = spool.note_repository(&which.name, &RepositoryNote { place, cluster: cluster.clone(), id, record });
        }
        Ok(open)
    }

    /// The cluster's folder in the spool, if it is there.
    pub(in crate::command) fn spool(&self) -> Option<Spool> {
        Spool::open(&self.config.spool, self.system_identifier).ok()
    }

    /// The cluster's folder in the spool, made where it is missing; `None` if it cannot be had.
    pub(in crate::command) fn make_spool(&self) -> Option<Spool> {
        Spool::open_or_make(&self.config.spool, self.system_identifier).ok()
    }
}

/// Which of a cluster's system identifiers a call may be about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::command) enum Identity {
    /// The configured one: nothing else may be archived.
    Present,
    /// Also one from before `pg_upgrade`, as the repository knows them: what was restored from back then fetches its WAL.
    PresentOrEarlier,
}

/// Whether the cluster came from this server by `pg_upgrade`. What cannot be found out is no.
fn is_earlier(config: &ClusterConfig, found: SystemIdentifier) -> bool {
    let look = |place: &Place| -> Option<bool> {
        let cluster = Repository::open(place.location.open().ok()?).ok()?.cluster(&config.name);
        let mut identifier = config.system_identifier?;
        // A chain of upgrades is short; one that goes on and on is a circle.
        for _ in 0..64 {
            identifier = cluster.server_record(identifier).ok()?.upgraded_from?;
            if identifier == found {
                return Some(true);
            }
        }
        None
    };
    config.repositories().iter().any(|place| look(place).unwrap_or(false))
}

/// The cluster's place in its repository.
#[derive(Clone, Debug)]
pub(in crate::command) struct Open {
    /// What the configuration calls it.
    pub(in crate::command) name: RepositoryName,
    /// Which repository it is.
    pub(in crate::command) id: RepositoryId,
    /// Where the server's WAL lies.
    pub(in crate::command) server: ServerRepository,
    /// What is known about the server there.
    pub(in crate::command) record: ServerRecord,
}
