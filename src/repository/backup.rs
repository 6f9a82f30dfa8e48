//! Base backups in the repository: written once with the manifest last, read checked.
//!
//! A backup is what has a manifest. Packs, info and WAL tails of one that was broken off lie there without meaning; every
//! reader here passes over them.

use std::io::{self, Read};

use super::{RepositoryError, SMALL_OBJECT_BYTES, ServerRepository, keys, malformed, parse};
use crate::catalog::{BackupId, BackupInfo, INFO_FORMAT, PackId, WalTail};
use crate::chunk::{ChunkId, frame};
use crate::codec::Compression;
use crate::manifest::{ManifestError, ManifestReader};
use crate::storage::{Key, NewObject, Put};

/// The good ones; what is wrong with others is told as a warning, and is an error where none is good.
pub(super) fn pass_over(
    good: Vec<BackupInfo>,
    wrong: Vec<RepositoryError>,
) -> Result<Vec<BackupInfo>, RepositoryError> {
    match wrong.into_iter().next() {
        Some(first) if good.is_empty() => Err(first),
        first => {
            first.iter().for_each(|error| tracing::warn!("a backup is passed over: {error}"));
            Ok(good)
        }
    }
}

/// A manifest being read from the store.
pub type StoredManifest = ManifestReader<Box<dyn Read + Send>>;

impl ServerRepository {
    /// All complete backups, in the order of their ids. One whose info cannot be trusted is passed over with a warning, so that it
    /// does not keep anybody from restoring the others.
    ///
    /// # Errors
    /// The store fails, or no info of a complete backup can be trusted.
    pub fn backups(&self) -> Result<Vec<BackupInfo>, RepositoryError> {
        let (known, wrong) = self.all_known()?;
        pass_over(known.into_iter().map(|known| known.info).collect(), wrong)
    }

    /// Ids of all backups of which anything is there, complete or not.
    ///
    /// # Errors
    /// The store fails.
    pub fn backup_folders(&self) -> Result<Vec<BackupId>, RepositoryError> {
        let listed = self.storage.list(&keys::backups(&self.folder))?;
        Ok(listed.iter().filter(|entry| entry.folder).filter_map(|entry| entry.name.parse().ok()).collect())
    }

    /// What is known of a backup; `None` if there is no complete backup of this id.
    ///
    /// # Errors
    /// The store fails, or the info is malformed, missing, or another backup's.
    pub fn backup_info(&self, id: BackupId) -> Result<Option<BackupInfo>, RepositoryError> {
        if !self.is_complete(id)? {
            return Ok(None);
        }
        match self.read_backup_info(id) {
            // Removed just now: the manifest goes first, so that the rest is without meaning.
            Err(RepositoryError::Storage(error)) if error.is_not_found() && !self.is_complete(id)? => Ok(None),
            other => other.map(Some),
        }
    }

    pub(super) fn read_backup_info(&self, id: BackupId) -> Result<BackupInfo, RepositoryError> {
        let key = keys::backup_info(&self.folder, id);
        let info: BackupInfo = parse(self.storage.as_ref(), &key, &self.storage.get(&key, SMALL_OBJECT_BYTES)?)?;
        let wrong = |reason: String| {
            Err(RepositoryError::Malformed { storage: self.storage.describe(), key: key.to_string(), reason })
        };
        if info.format != INFO_FORMAT {
            return wrong(format!("it has format {}, and this pitr knows format {INFO_FORMAT}", info.format));
        }
        if (info.id, info.system_identifier) != (id, self.system_identifier) {
            return wrong(format!("it is of backup {} of cluster {}", info.id, info.system_identifier));
        }
        Ok(info)
    }

    /// Whether a backup has its manifest.
    ///
    /// # Errors
    /// The store fails.
    pub fn is_complete(&self, id: BackupId) -> Result<bool, RepositoryError> {
        Ok(self.storage.size(&keys::manifest(&self.folder, id))?.is_some())
    }

    /// Opens a backup's manifest; its header has been read and belongs to this backup and cluster.
    ///
    /// # Errors
    /// The store fails, there is no such backup, or what stands there is not its manifest.
    pub fn open_manifest(&self, id: BackupId) -> Result<StoredManifest, RepositoryError> {
        let source = self.storage.open(&keys::manifest(&self.folder, id))?;
        let reader = ManifestReader::new(source).map_err(|error| self.manifest_error(id, error))?;
        let header = reader.header();
        if (header.id, header.system_identifier) != (id, self.system_identifier) {
            let reason = format!("it is of backup {} of cluster {}", header.id, header.system_identifier);
            return Err(self.manifest_error(id, ManifestError::Line { line: 1, reason }));
        }
        Ok(reader)
    }

    /// What an error in a manifest's lines means here: the manifest's place is added.
    #[must_use]
    pub fn manifest_error(&self, id: BackupId, source: ManifestError) -> RepositoryError {
        let key = keys::manifest(&self.folder, id).to_string();
        RepositoryError::Manifest { storage: self.storage.describe(), key, source }
    }

    /// Begins a pack.
    ///
    /// # Errors
    /// The store fails.
    pub fn create_pack(&self, id: PackId) -> Result<Box<dyn NewObject>, RepositoryError> {
        Ok(self.storage.create(&keys::pack(&self.folder, id))?)
    }

    /// What a failure to write to a pack under way means: the pack's place is added.
    #[must_use]
    pub fn pack_failed(&self, id: PackId, error: &io::Error) -> RepositoryError {
        self.storage.failed("write", &keys::pack(&self.folder, id), error).into()
    }

    /// What a failure to write to a manifest under way means: the manifest's place is added.
    #[must_use]
    pub fn manifest_failed(&self, id: BackupId, error: &io::Error) -> RepositoryError {
        self.storage.failed("write", &keys::manifest(&self.folder, id), error).into()
    }

    /// Makes a pack durable.
    ///
    /// # Errors
    /// The store fails; [`RepositoryError::Occupied`].
    pub fn publish_pack(&self, id: PackId, pack: Box<dyn NewObject>) -> Result<(), RepositoryError> {
        self.own(&keys::pack(&self.folder, id), pack.publish()?)
    }

    /// Begins a manifest. Publishing it declares the backup complete: everything else must be durable before.
    ///
    /// # Errors
    /// The store fails.
    pub fn create_manifest(&self, id: BackupId) -> Result<Box<dyn NewObject>, RepositoryError> {
        Ok(self.storage.create(&keys::manifest(&self.folder, id))?)
    }

    /// Declares a backup complete.
    ///
    /// # Errors
    /// The store fails; [`RepositoryError::Occupied`].
    pub fn publish_manifest(&self, id: BackupId, manifest: Box<dyn NewObject>) -> Result<(), RepositoryError> {
        self.own(&keys::manifest(&self.folder, id), manifest.publish()?)
    }

    /// Stores what is known of a backup.
    ///
    /// # Errors
    /// The store fails; [`RepositoryError::Occupied`].
    pub fn put_backup_info(&self, info: &BackupInfo) -> Result<(), RepositoryError> {
        let key = keys::backup_info(&self.folder, info.id);
        let storage = self.storage.as_ref();
        let bytes = serde_json::to_vec_pretty(info).map_err(|error| malformed(storage, &key, &error))?;
        self.own(&key, storage.put(&key, &bytes)?)
    }

    /// Stores the beginning of a segment with the backup that needs it.
    ///
    /// # Errors
    /// The store fails; [`RepositoryError::Occupied`].
    pub fn put_wal_tail(&self, id: BackupId, tail: &WalTail, raw: &[u8]) -> Result<(), RepositoryError> {
        let key = keys::tail(&self.folder, id, tail.segment);
        let failed = |error: io::Error| self.storage.failed("write", &key, &error);
        let stored = frame::compress(raw, Compression::Lz4).map_err(failed)?;
        self.own(&key, self.storage.put(&key, &stored)?)
    }

    /// Reads back what [`ServerRepository::put_wal_tail`] stored, and proves it.
    ///
    /// # Errors
    /// The store fails, or what stands there is damaged.
    pub fn wal_tail(&self, id: BackupId, tail: &WalTail) -> Result<Vec<u8>, RepositoryError> {
        let key = keys::tail(&self.folder, id, tail.segment);
        let damaged = |reason: String| {
            let (storage, key) = (self.storage.describe(), key.to_string());
            RepositoryError::Chunk { storage, key, offset: 0, reason }
        };
        // Incompressible bytes grow a little in a frame, by far less than this.
        let stored = self.storage.get(&key, tail.bytes + tail.bytes / 16 + 1024)?;
        let limit = usize::try_from(tail.bytes).unwrap_or(usize::MAX);
        let raw = frame::decompress(&stored, limit).map_err(|error| damaged(error.to_string()))?;
        match raw.len() as u64 == tail.bytes && ChunkId::of(&raw) == tail.content {
            true => Ok(raw),
            false => Err(damaged("it is not what the backup's info says".to_owned())),
        }
    }

    fn own(&self, key: &Key, put: Put) -> Result<(), RepositoryError> {
        match put {
            Put::Created => Ok(()),
            Put::Exists => Err(RepositoryError::Occupied { storage: self.storage.describe(), key: key.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::chunk::{ChunkContent, ChunkRef, Place};
    use crate::repository::Repository;
    use crate::storage::{Memory, Storage};
    use crate::wal::{PgTime, SystemIdentifier};

    fn server() -> ServerRepository {
        let storage: Arc<dyn Storage> = Arc::new(Memory::default());
        let repository = Repository::create(storage, PgTime(0)).expect("an empty store");
        repository.cluster(&"main".parse().expect("a good name")).server(SystemIdentifier(7))
    }

    fn pack(server: &ServerRepository, id: PackId, parts: &[&[u8]]) -> Vec<Place> {
        let mut object = server.create_pack(id).expect("memory");
        let mut offset = 0;
        let mut places = Vec::new();
        for raw in parts {
            let stored = frame::compress(raw, Compression::Lz4).expect("memory");
            object.write_all(&stored).expect("memory");
            let length = u32::try_from(stored.len()).expect("small");
            places.push(Place { source: 0, pack: id.number, offset, length });
            offset += u64::from(length);
        }
        server.publish_pack(id, object).expect("memory");
        places
    }

    /// A chunk comes back whole whatever it is made of, from packs of several backups, and never as something else.
    #[test]
    fn chunks_are_proved() {
        let server = server();
        let [old, new] = [1, 2].map(|random| BackupId::new(PgTime(0), random));
        let base = pack(&server, PackId { backup: old, number: 0 }, &[b"other", &[1; 20_000]]);
        let set = pack(&server, PackId { backup: new, number: 3 }, &[&[2; 8192]]);
        let mut expected = vec![1; 20_000];
        expected[8192..16_384].fill(2);
        let sets = vec![crate::chunk::PageSet { place: set[0], pages: vec![1] }];
        let content = |id, base, sets| ChunkContent::Stored { id, base, sets };
        let id = ChunkId::of(&expected);
        let base = Place { source: 1, ..base[1] };
        let chunk = ChunkRef { raw_length: 20_000, crc32c: None, content: content(id, base, sets.clone()) };
        assert_eq!(server.read_chunk(&[new, old], &chunk).expect("whole"), expected);
        let zero = ChunkRef { raw_length: 5, crc32c: None, content: ChunkContent::Zero };
        assert_eq!(server.read_chunk(&[new], &zero).expect("needs no pack"), [0; 5]);

        let elsewhere = Place { source: 1, offset: 0, ..base };
        for wrong in
            [content(id, base, vec![]), content(id, elsewhere, sets.clone()), content(ChunkId([0; 32]), base, sets)]
        {
            let chunk = ChunkRef { raw_length: 20_000, crc32c: None, content: wrong };
            assert!(matches!(server.read_chunk(&[new, old], &chunk), Err(RepositoryError::Chunk { .. })));
        }
        assert!(matches!(server.read_chunk(&[new], &chunk), Err(RepositoryError::Chunk { .. })), "no such source");
    }

    /// Leftovers of a broken-off backup (packs, info, even a WAL tail) are no backup, and neither are foreign files.
    #[test]
    fn without_manifest_there_is_no_backup() {
        let server = server();
        let id = BackupId::new(PgTime(0), 9);
        pack(&server, PackId { backup: id, number: 0 }, &[b"data"]);
        let key = keys::backup_info(&server.folder, id);
        server.storage.put(&key, b"{}").expect("memory");
        server.storage.put(&keys::backups(&server.folder).join("lost_and_found").expect("a key"), b"").expect("memory");
        assert_eq!(server.backups().expect("lists"), []);
        assert_eq!(server.backup_info(id).expect("looks"), None);
        assert!(server.open_manifest(id).is_err());
    }

    /// The tail of a streamed segment is proved like everything else.
    #[test]
    fn tails_are_proved() {
        let server = server();
        let id = BackupId::new(PgTime(0), 9);
        let raw = vec![5; 100_000];
        let segment = "000000010000000000000003".parse().expect("a segment");
        let tail = WalTail { segment, bytes: 100_000, content: ChunkId::of(&raw) };
        server.put_wal_tail(id, &tail, &raw).expect("memory");
        assert_eq!(server.wal_tail(id, &tail).expect("whole"), raw);
        assert!(server.wal_tail(id, &WalTail { bytes: 99_999, ..tail.clone() }).is_err());
        assert!(server.wal_tail(id, &WalTail { content: ChunkId([0; 32]), ..tail.clone() }).is_err());
        assert!(matches!(server.put_wal_tail(id, &tail, &raw), Err(RepositoryError::Occupied { .. })));
    }
}
