//! `Archiver`: a cluster's WAL files on their way into its repository.

use std::path::Path;

use super::PushError;
use super::source::Content;
use crate::codec::{Compression, DamageNote, Origin};
use crate::command::call::{Open, Server};
use crate::command::host;
use crate::repository::ServerRecord;

/// An open repository, and what is noted with each file that goes there.
#[derive(Debug)]
pub(super) struct Archiver {
    open: Open,
    compression: Compression,
    origin: Origin,
}

impl Archiver {
    /// Opens the cluster's repository for writing.
    pub(super) fn open(server: &Server) -> Result<Archiver, PushError> {
        if let Some(directory) = &server.data_directory {
            check_outside(&server.config.repository, &directory.path)?;
        }
        let source =
            server.data_directory.as_ref().map_or("no data directory".into(), |found| found.path.display().to_string());
        let program = format!("pitr-wal-push {}", env!("CARGO_PKG_VERSION"));
        let origin = Origin { host: host::host_name(), source, program };
        Ok(Archiver { open: server.open_repository()?, compression: server.config.compression, origin })
    }

    /// What the repository knows about the cluster.
    pub(super) fn record(&self) -> &ServerRecord {
        &self.open.record
    }

    /// The repository in words.
    pub(super) fn describe(&self) -> String {
        self.open.server.storage().describe()
    }

    /// Stores one file: it is durable when this returns. Returns where a segment is damaged, if it is.
    pub(super) fn archive(&self, content: &Content) -> Result<Option<DamageNote>, PushError> {
        let new = content.describe(self.origin.clone(), host::now());
        self.open.server.archive(&new, self.compression)?;
        Ok(new.details.damage)
    }
}

/// A repository inside the data directory would be lost together with it, and would be part of every base backup.
fn check_outside(repository: &Path, data_directory: &Path) -> Result<(), PushError> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real(repository).starts_with(real(data_directory)) {
        return Err(PushError::InsideDataDirectory {
            repository: repository.to_owned(),
            data_directory: data_directory.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository in the data directory is found also behind a symbolic link; one beside it with a similar name is not.
    #[test]
    fn repository_inside_the_data_directory() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let data = directory.path().join("data");
        std::fs::create_dir_all(data.join("repository")).unwrap();
        std::os::unix::fs::symlink(data.join("repository"), directory.path().join("link")).unwrap();
        for inside in ["data", "data/repository", "data/not-there", "link"] {
            assert!(check_outside(&directory.path().join(inside), &data).is_err(), "{inside}");
        }
        for outside in ["data2", "", "other"] {
            assert!(check_outside(&directory.path().join(outside), &data).is_ok(), "{outside}");
        }
    }
}
