//! Proving the objects of base backups where they are stored: packs by their own index, manifests while they are read.
//!
//! What is wrong with an object, and that the store could not be asked, are kept apart everywhere: a stream that breaks off because
//! the store does not answer is never taken for a damaged object.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::{RepositoryError, ServerRepository, keys};
use crate::catalog::{BackupId, BackupInfo, PackId};
use crate::chunk::pack::PackEntry;
use crate::chunk::{CHUNK_BYTES, ChunkId, frame};
use crate::manifest::{ManifestError, ManifestReader};
use crate::storage::{Key, StorageError, StorageErrorKind};

impl RepositoryError {
    /// The store could not be asked, so that nothing can be said about the object. Everything else says that it is not as it should
    /// be, or not there.
    #[must_use]
    pub fn is_no_answer(&self) -> bool {
        match self {
            RepositoryError::Storage(error) => !matches!(
                error.kind,
                StorageErrorKind::NotFound | StorageErrorKind::TooShort | StorageErrorKind::TooLarge
            ),
            RepositoryError::Format { .. } | RepositoryError::Manifest { source: ManifestError::Format { .. }, .. } => {
                true
            }
            RepositoryError::NotARepository { .. }
            | RepositoryError::NotEmpty { .. }
            | RepositoryError::Malformed { .. }
            | RepositoryError::UnknownServer { .. }
            | RepositoryError::Damaged { .. }
            | RepositoryError::Manifest { .. }
            | RepositoryError::Chunk { .. }
            | RepositoryError::Occupied { .. }
            | RepositoryError::Doomed { .. }
            | RepositoryError::UnreadableMark { .. }
            | RepositoryError::Late { .. }
            | RepositoryError::Conflict(_) => false,
        }
    }

    /// The object is certainly not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, RepositoryError::Storage(error) if error.is_not_found())
    }
}

/// A backup that a listing shows.
#[derive(Debug)]
pub struct ListedBackup {
    /// Its id.
    pub id: BackupId,
    /// It has a manifest, so it is one; else it was broken off.
    pub complete: bool,
    /// What is known of it.
    pub info: Result<BackupInfo, RepositoryError>,
}

/// A source that remembers that it failed, for readers that cannot tell that from what they read.
pub(super) struct Watched<R> {
    source: R,
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl<R> Watched<R> {
    /// The source, and where to look for its failure.
    pub(super) fn new(source: R) -> (Watched<R>, Failure) {
        let failed = Arc::default();
        (Watched { source, failed: Arc::clone(&failed) }, Failure(failed))
    }
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.source.read(buffer).inspect_err(|error| {
            if error.kind() != io::ErrorKind::Interrupted {
                let told = io::Error::new(error.kind(), error.to_string());
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
            }
        })
    }
}

/// What became of a source.
pub(super) struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    /// The failure, if there was one.
    pub(super) fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A manifest that is read while it is proved.
pub struct ProvedManifest {
    server: ServerRepository,
    id: BackupId,
    failure: Failure,
    /// The reader: whoever has read all lines asks it for stop and counts.
    pub reader: ManifestReader<Box<dyn Read + Send>>,
}

impl std::fmt::Debug for ProvedManifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ProvedManifest").field(&self.id).finish()
    }
}

impl ProvedManifest {
    /// What an error of the reader means: that the store failed, or that the manifest is damaged.
    #[must_use]
    pub fn error(&self, error: ManifestError) -> RepositoryError {
        self.server.told(self.id, &self.failure, error)
    }
}

impl ServerRepository {
    /// What listings show of backups, those that were broken off too, in the order of their ids. What is wrong with one of them does
    /// not hide the others.
    ///
    /// # Errors
    /// The store fails.
    pub fn listed_backups(&self) -> Result<Vec<ListedBackup>, RepositoryError> {
        let listed = self.storage.list(&keys::backups(&self.folder))?;
        let ids: Vec<BackupId> = listed.iter().filter_map(|entry| entry.name.parse().ok()).collect();
        self.in_parallel(&ids, |id| {
            let complete = self.is_complete(*id)?;
            let info = self.read_backup_info(*id);
            // One of a newer version is as good as one that cannot be trusted.
            match info {
                Err(error) if error.is_no_answer() && !matches!(error, RepositoryError::Format { .. }) => Err(error),
                info => Ok(ListedBackup { id: *id, complete, info }),
            }
        })
    }

    /// Opens a manifest to be proved.
    ///
    /// # Errors
    /// As for [`ServerRepository::open_manifest`]; an error of the store is told as such.
    pub fn prove_manifest(&self, id: BackupId) -> Result<ProvedManifest, RepositoryError> {
        let (source, failure) = Watched::new(self.storage.open(&keys::manifest(&self.folder, id))?);
        let source: Box<dyn Read + Send> = Box::new(source);
        let reader = ManifestReader::new(source).map_err(|error| self.told(id, &failure, error))?;
        let header = reader.header();
        if (header.id, header.system_identifier) != (id, self.system_identifier) {
            let reason = format!("it is of backup {} of cluster {}", header.id, header.system_identifier);
            return Err(self.manifest_error(id, ManifestError::Line { line: 1, reason }));
        }
        Ok(ProvedManifest { server: self.clone(), id, failure, reader })
    }

    fn told(&self, id: BackupId, failure: &Failure, error: ManifestError) -> RepositoryError {
        match failure.take() {
            Some(failed) => self.storage.failed("read", &keys::manifest(&self.folder, id), &failed).into(),
            None => self.manifest_error(id, error),
        }
    }

    /// The key of a pack.
    #[must_use]
    pub fn pack_object(&self, id: PackId) -> Key {
        keys::pack(&self.folder, id)
    }

    /// The key of a manifest.
    #[must_use]
    pub fn manifest_object(&self, id: BackupId) -> Key {
        keys::manifest(&self.folder, id)
    }

    /// The key of a backup's info.
    #[must_use]
    pub fn info_object(&self, id: BackupId) -> Key {
        keys::backup_info(&self.folder, id)
    }

    /// The index of a pack, proved: checksums, identity, and that the frames it names fill the pack without gaps.
    ///
    /// # Errors
    /// The pack is damaged or gone, or the store fails.
    pub fn pack_index(&self, id: PackId) -> Result<Vec<PackEntry>, RepositoryError> {
        let key = keys::pack(&self.folder, id);
        let end = self.end_of_pack(&key, id)?;
        let mut at = 0;
        for entry in &end.entries {
            if entry.offset != at || entry.stored_length as usize > 2 * CHUNK_BYTES {
                return Err(self.wrong_pack(&key, at, "its index does not fit its frames"));
            }
            at += u64::from(entry.stored_length);
        }
        match at + end.bytes.len() as u64 == end.pack_bytes {
            true => Ok(end.entries),
            false => Err(self.wrong_pack(&key, at, "more or less follows its frames than its index")),
        }
    }

    /// Some bytes of a pack.
    ///
    /// # Errors
    /// It is gone or shorter, or the store fails.
    pub fn pack_bytes(&self, id: PackId, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.storage.get_range(&keys::pack(&self.folder, id), range)
    }
}

/// Proves a frame of a pack; gives the CRC-32C of its content, or says what is wrong with it.
///
/// # Errors
/// It is not what the index says.
pub fn prove_frame(entry: &PackEntry, stored: &[u8]) -> Result<u32, String> {
    let raw = frame::decompress(stored, CHUNK_BYTES).map_err(|error| error.to_string())?;
    match raw.len() == entry.raw_length as usize && ChunkId::of(&raw) == entry.id {
        true => Ok(crc32c::crc32c(&raw)),
        false => Err("it is not the chunk that the index names".to_owned()),
    }
}
