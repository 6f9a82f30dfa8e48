//! Reading the backup's manifest through once before anything is touched: it must be whole, and some of what it lists is to be
//! known for the plan.

use serde::Serialize;

use super::RestoreError;
use crate::catalog::BackupInfo;
use crate::manifest::ManifestLine;
use crate::repository::ServerRepository;

/// What the backup's list of files tells.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Survey {
    /// Files in data directory and tablespaces.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
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
}

/// Reads the manifest to its end, which proves it.
pub(super) fn survey(server: &ServerRepository, info: &BackupInfo) -> Result<Survey, RestoreError> {
    let mut manifest = server.open_manifest(info.id)?;
    let mut survey = Survey::default();
    for line in manifest.by_ref() {
        match line.map_err(|error| server.manifest_error(info.id, error))? {
            ManifestLine::File(file) if file.from == 0 => {
                survey.files += 1;
                survey.bytes += file.size;
                if file.tablespace.is_none() {
                    survey.has_configuration |= file.path.as_bytes() == b"postgresql.conf";
                    survey.has_hba |= file.path.as_bytes() == b"pg_hba.conf";
                }
            }
            ManifestLine::Config(config) if config.missing.is_some() => survey.configuration_unread.push(config.source),
            ManifestLine::Config(config) => survey.configuration_elsewhere.push(config.source),
            ManifestLine::File(_) | ManifestLine::Directory(_) | ManifestLine::Symlink(_) => {}
        }
    }
    let bad = manifest.stop().map(|stop| stop.bad_pages.as_slice()).unwrap_or_default();
    survey.damaged_files = bad.iter().map(|bad| bad.path.to_string()).collect();
    Ok(survey)
}
