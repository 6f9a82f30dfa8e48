//! Reading the backup's manifest through once before anything is touched: it must be whole, and some of what it lists is to be
//! known for the plan.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::RestoreError;
use crate::catalog::BackupInfo;
use crate::chunk::ChunkRef;
use crate::manifest::ManifestLine;
use crate::repository::ServerRepository;

/// The main configuration file.
pub(super) const MAIN: &str = "postgresql.conf";
/// What `ALTER SYSTEM` writes; read last by the server.
pub(super) const AUTO: &str = "postgresql.auto.conf";
/// What the cluster needs of a server that replays its WAL.
pub(super) const CONTROL: &str = "global/pg_control";

/// Files of the data directory that are read.
const READ: [&str; 3] = [MAIN, AUTO, CONTROL];

/// What the backup's list of files tells.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Survey {
    /// Files in data directory and tablespaces.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Those of them that belong to tablespaces, by OID.
    pub(super) tablespace_bytes: BTreeMap<u32, u64>,
    /// Bytes of databases that are left out, not counted in the others.
    pub(super) left_out_bytes: u64,
    /// What each database has in each tablespace (`None`: in the data directory).
    #[serde(skip)]
    pub(super) databases: BTreeMap<(u32, Option<u32>), Share>,
    /// `postgresql.conf` lies in the data directory.
    pub(super) has_configuration: bool,
    /// `pg_hba.conf` lies in the data directory.
    pub(super) has_hba: bool,
    /// Configuration files from outside the data directory that the backup holds.
    pub(super) configuration_elsewhere: Vec<String>,
    /// Those that could not be read when the backup was taken.
    pub(super) configuration_unread: Vec<String>,
    /// Files with data pages that were damaged on the server.
    pub(super) damaged_files: Vec<String>,
    /// Small files whose content counts for the plan, by path below the data directory or, from outside of it, on the server.
    #[serde(skip)]
    pub(super) read: BTreeMap<String, Vec<u8>>,
}

/// The part of a database that lies in one tablespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Share {
    pub(super) files: u64,
    pub(super) bytes: u64,
}

impl Survey {
    /// Takes databases out of what will be written.
    pub(super) fn leave_out(&mut self, databases: &BTreeSet<u32>) {
        for ((_, tablespace), share) in self.databases.iter().filter(|((database, _), _)| databases.contains(database))
        {
            self.files -= share.files;
            self.bytes -= share.bytes;
            self.left_out_bytes += share.bytes;
            if let Some(bytes) = tablespace.and_then(|oid| self.tablespace_bytes.get_mut(&oid)) {
                *bytes -= share.bytes;
            }
        }
    }
}

/// Configuration is longer than this nowhere.
const MOST_READ_BYTES: u64 = 1 << 20;

/// Reads the manifest to its end, which proves it.
pub(super) fn survey(server: &ServerRepository, info: &BackupInfo) -> Result<Survey, RestoreError> {
    let mut manifest = server.open_manifest(info.id)?;
    let mut survey = Survey::default();
    let mut wanted: Vec<(String, Vec<ChunkRef>)> = Vec::new();
    for line in manifest.by_ref() {
        match line.map_err(|error| server.manifest_error(info.id, error))? {
            ManifestLine::File(file) if file.from == 0 => {
                survey.files += 1;
                survey.bytes += file.size;
                if let Some(database) = file.database() {
                    let share = survey.databases.entry((database, file.tablespace)).or_default();
                    share.files += 1;
                    share.bytes += file.size;
                }
                if let Some(oid) = file.tablespace {
                    *survey.tablespace_bytes.entry(oid).or_default() += file.size;
                } else {
                    survey.has_configuration |= file.path.as_bytes() == MAIN.as_bytes();
                    survey.has_hba |= file.path.as_bytes() == b"pg_hba.conf";
                    if READ.iter().any(|name| file.path.as_bytes() == name.as_bytes()) && file.size <= MOST_READ_BYTES {
                        wanted.push((file.path.to_string(), file.chunks));
                    }
                }
            }
            ManifestLine::Config(config) if config.missing.is_some() => survey.configuration_unread.push(config.source),
            ManifestLine::Config(config) => {
                if config.source.ends_with(MAIN) && config.size <= MOST_READ_BYTES {
                    wanted.push((config.source.clone(), config.chunks));
                }
                survey.configuration_elsewhere.push(config.source);
            }
            ManifestLine::File(_) | ManifestLine::Directory(_) | ManifestLine::Symlink(_) => {}
        }
    }
    for (path, chunks) in wanted {
        let mut content = Vec::new();
        for chunk in &chunks {
            content.extend(server.read_chunk(&manifest.header().pack_sources, chunk)?);
        }
        survey.read.insert(path, content);
    }
    let bad = manifest.stop().map(|stop| stop.bad_pages.as_slice()).unwrap_or_default();
    survey.damaged_files = bad.iter().map(|bad| bad.path.to_string()).collect();
    Ok(survey)
}
