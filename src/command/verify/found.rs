//! What the threads of a run find, before it is known what it means.

use std::collections::BTreeMap;

use crate::catalog::{BackupId, PackId};
use crate::repository::{RepositoryError, SegmentFlaw};
use crate::wal::SegmentName;

/// Most files of a backup that are named.
const MOST_FILES: usize = 5;

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By pack.
    pub(super) packs: BTreeMap<PackId, PackDamage>,
    /// By backup.
    pub(super) backups: BTreeMap<BackupId, BackupDamage>,
    /// By segment.
    pub(super) segments: BTreeMap<SegmentName, Vec<SegmentFlaw>>,
    /// Other WAL objects: key, and what is wrong with it.
    pub(super) others: Vec<(String, String)>,
    /// What could not be looked at: the object, and why.
    pub(super) no_answers: Vec<(String, RepositoryError)>,
    /// Segments that were listed and were gone when they were to be read.
    pub(super) vanished: bool,
    /// How much was looked at.
    pub(super) counts: Counts,
}

/// How much was looked at, or is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct Counts {
    /// Backups: manifest, info, tail, and all references.
    pub backups: u64,
    /// Packs.
    pub packs: u64,
    /// Chunks and page sets in packs.
    pub chunks: u64,
    /// Chunks that were put together from a base and page sets.
    pub assembled: u64,
    /// Files whose checksum was compared as well: all of their chunks were read in this run.
    pub files: u64,
    /// Complete segments.
    pub segments: u64,
    /// Other WAL files: history files, incomplete and damaged segments, backup history files.
    pub others: u64,
}

/// What is wrong with a pack.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct PackDamage {
    /// It is not there.
    pub(super) missing: bool,
    /// Its index cannot be used, and why.
    pub(super) index: Option<String>,
    /// Its damaged frames, by their first byte, and what is wrong.
    pub(super) frames: BTreeMap<u64, String>,
}

/// What is wrong with a backup.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct BackupDamage {
    /// Its manifest cannot be trusted.
    pub(super) manifest: Option<String>,
    /// Its info cannot be trusted, or says other things than the manifest.
    pub(super) info: Option<String>,
    /// The tail that it brought along is damaged.
    pub(super) tail: Option<String>,
    /// The first files that cannot be restored, and why.
    pub(super) files: BTreeMap<String, String>,
    /// How many there are.
    pub(super) file_count: u64,
}

impl BackupDamage {
    /// Takes in a file that cannot be restored.
    pub(super) fn add_file(&mut self, path: &str, why: String) {
        if self.files.contains_key(path) {
            return;
        }
        self.file_count += 1;
        if self.files.len() < MOST_FILES {
            self.files.insert(path.to_owned(), why);
        }
    }

    /// Nothing of it can keep a restore from being whole.
    pub(super) fn is_restorable(&self) -> bool {
        self.manifest.is_none() && self.info.is_none() && self.tail.is_none() && self.file_count == 0
    }
}
