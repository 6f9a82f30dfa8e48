//! `Archiver`: a cluster's WAL files on their way into its repository.

use std::path::Path;

use super::PushError;
use super::source::Source;
use crate::codec::{Compression, DamageNote, Origin};
use crate::command::call::{Open, Server};
use crate::command::host;
use crate::repository::wal::NewWalFile;
use crate::repository::{RepositoryId, ServerRecord};
use crate::wal::{SegmentName, WalFileName};

/// An open repository, and what is noted with each file that goes there.
#[derive(Debug)]
pub(super) struct Archiver {
    open: Open,
    compression: Compression,
    origin: Origin,
}

impl Archiver {
    /// For a cluster whose repository was opened.
    pub(super) fn new(server: &Server, open: Open) -> Result<Archiver, PushError> {
        if let Some(directory) = &server.data_directory {
            check_outside(&server.config.repository, &directory.path)?;
        }
        let directory = server.data_directory.as_ref().map(|found| found.path.display().to_string());
        let origin = Origin {
            host: host::host_name(),
            source: directory.unwrap_or_else(|| "no data directory".to_owned()),
            program: format!("pitr-wal-push {}", env!("CARGO_PKG_VERSION")),
        };
        Ok(Archiver { open, compression: server.config.compression, origin })
    }

    /// What the repository knows about the cluster.
    pub(super) fn record(&self) -> &ServerRecord {
        &self.open.record
    }

    /// Where files go, in words.
    pub(super) fn describe(&self) -> String {
        self.open.server.storage().describe()
    }

    /// The repository.
    pub(super) fn repository(&self) -> &RepositoryId {
        &self.open.id
    }

    /// Stores one file: it is durable when this returns. Returns where a segment is damaged, if it is.
    pub(super) fn archive(&self, mut source: Source) -> Result<Option<DamageNote>, PushError> {
        if let WalFileName::Segment(name) = source.file_name {
            return self.archive_segment(name, source);
        }
        let raw = source.read()?;
        let mut new = NewWalFile::new(source.file_name, &raw, self.origin.clone(), host::now());
        if let WalFileName::Partial(name) = source.file_name {
            new = new.with_records(&source.check_header(name, self.record())?);
        } else {
            source.check_text(&raw)?;
        }
        self.open.server.archive(&new, self.compression)?;
        Ok(None)
    }

    /// One pass: proof of the records, checksum and compression see each piece while it is in the cache.
    fn archive_segment(&self, name: SegmentName, mut source: Source) -> Result<Option<DamageNote>, PushError> {
        let header = source.check_header(name, self.record())?;
        let mut new = self.open.server.begin_segment(&header, self.compression)?;
        source.pieces(|piece| Ok(new.write(piece)?))?;
        let (_, damage) = new.publish(self.origin.clone(), host::now(), source.again()?)?;
        Ok(damage)
    }
}

/// A repository inside the data directory or one of its tablespaces would be lost together with it, and would be part of
/// every base backup.
fn check_outside(repository: &Path, data_directory: &Path) -> Result<(), PushError> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let repository_is = real(repository);
    let tablespaces = std::fs::read_dir(data_directory.join("pg_tblspc")).into_iter().flatten().flatten();
    let inside = [data_directory.to_owned()].into_iter().chain(tablespaces.map(|entry| entry.path()));
    match inside.into_iter().find(|directory| repository_is.starts_with(real(directory))) {
        Some(directory) => Err(PushError::InsideDataDirectory { repository: repository.to_owned(), directory }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository in the data directory or in a tablespace is found also behind a symbolic link; one beside it with a
    /// similar name is not.
    #[test]
    fn repository_inside_the_data_directory() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let data = directory.path().join("data");
        std::fs::create_dir_all(data.join("repository")).expect("made");
        std::fs::create_dir_all(data.join("pg_tblspc")).expect("made");
        std::fs::create_dir_all(directory.path().join("space/deep")).expect("made");
        std::os::unix::fs::symlink(directory.path().join("space"), data.join("pg_tblspc/16400")).expect("linked");
        std::os::unix::fs::symlink(data.join("repository"), directory.path().join("link")).expect("linked");
        for inside in ["data", "data/repository", "data/not-there", "link", "space", "space/deep"] {
            assert!(check_outside(&directory.path().join(inside), &data).is_err(), "{inside}");
        }
        for outside in ["data2", "", "other", "spaces"] {
            assert!(check_outside(&directory.path().join(outside), &data).is_ok(), "{outside}");
        }
    }
}
