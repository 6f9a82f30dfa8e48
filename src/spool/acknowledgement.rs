//! `Acknowledgement`: a file that was archived before PostgreSQL asked for it.

use std::fmt::Write;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use crate::repository::RepositoryId;
use crate::wal::{SystemIdentifier, WalFileName};

/// What must be the same when a file's own call comes as it was when the file was archived ahead.
///
/// A name is not enough: after a restore the server writes other WAL under it. The inode and the times tell the new file
/// from the old one, the repositories' ids a repository that was exchanged or added since.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acknowledgement {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    repositories: Vec<RepositoryId>,
}

impl Acknowledgement {
    /// For the file as it is now, stored in all repositories that the configuration asks for.
    #[must_use]
    pub fn new(file: &Metadata, repositories: &[RepositoryId]) -> Acknowledgement {
        let mut repositories = repositories.to_vec();
        repositories.sort();
        Acknowledgement {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            repositories,
        }
    }

    /// The repositories that a note names. What else it says has still to be compared.
    pub(super) fn repositories(note: &[u8]) -> Vec<RepositoryId> {
        let lines = std::str::from_utf8(note).unwrap_or_default().lines();
        lines.filter_map(|line| RepositoryId::parse(line.strip_prefix("repository ")?)).collect()
    }

    /// The note's text. It is compared byte for byte.
    pub(super) fn encode(&self, cluster: SystemIdentifier, file: WalFileName) -> Vec<u8> {
        let Acknowledgement { device, inode, size, modified, changed, repositories } = self;
        let mut text = format!(
            "pitr acknowledgement 1\ncluster {cluster}\nfile {file}\ndevice {device}\ninode {inode}\nsize {size}\n\
             modified {}.{:09}\nchanged {}.{:09}\n",
            modified.0, modified.1, changed.0, changed.1
        );
        for repository in repositories {
            // Writing to a String does not fail.
            let _ = writeln!(text, "repository {repository}");
        }
        text.push_str("stored\n");
        text.into_bytes()
    }
}
