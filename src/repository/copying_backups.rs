//! Base backups on their way from one repository into another: packs first, the manifest last, everything proved while it passes.
//!
//! A pack is proved frame by frame against its own index, a manifest by its own last line. What breaks off leaves packs without a
//! manifest, which mean nothing, and is gone on with from there.

use std::io::{self, Read, Write};

use super::notes::Author;
use super::{RepositoryError, ServerRepository, keys, references};
use crate::catalog::{BackupId, PackId};
use crate::chunk::pack::{self, PackEntry, PackError, PackFooter};
use crate::chunk::{CHUNK_BYTES, ChunkId, frame};
use crate::manifest::ManifestReader;
use crate::storage::{Key, NewObject, Put};

/// Longest small object of a backup, in bytes: a WAL tail is shorter than a segment.
const OBJECT_BYTES: u64 = (1 << 30) + (128 << 20);

/// A pack in a listing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StoredPack {
    /// Which one.
    pub id: PackId,
    /// Bytes in the store.
    pub stored_bytes: u64,
}

/// What stands behind the frames of a pack.
pub(super) struct PackEnd {
    /// The index, read.
    pub(super) entries: Vec<PackEntry>,
    /// Index and description as they stand there.
    pub(super) bytes: Vec<u8>,
    /// Bytes of the whole pack.
    pub(super) pack_bytes: u64,
}

impl ServerRepository {
    /// All packs, those of broken-off backups too.
    ///
    /// # Errors
    /// The store fails.
    pub fn packs(&self) -> Result<Vec<StoredPack>, RepositoryError> {
        let listed = self.storage.list(&keys::packs(&self.folder))?;
        let pack = |entry: &crate::storage::Listed| {
            let id = entry.name.parse().ok().filter(|_| !entry.folder)?;
            Some(StoredPack { id, stored_bytes: entry.size })
        };
        Ok(listed.iter().filter_map(pack).collect())
    }

    /// The backups whose packs a backup's manifest refers to, itself included.
    ///
    /// # Errors
    /// There is no such manifest, or it cannot be read.
    pub fn pack_sources(&self, id: BackupId) -> Result<Vec<BackupId>, RepositoryError> {
        Ok(self.open_manifest(id)?.header().pack_sources.clone())
    }

    /// Copies a pack into another repository, frame by frame, each one proved. Whether it was new there.
    ///
    /// # Errors
    /// The pack is damaged here, [`RepositoryError::Occupied`] if another one has its name there, or a store fails.
    pub fn copy_pack(&self, other: &ServerRepository, id: PackId) -> Result<Put, RepositoryError> {
        let key = keys::pack(&self.folder, id);
        let PackEnd { entries, bytes: end, .. } = self.end_of_pack(&key, id)?;
        let mut source = self.storage.open(&key)?;
        let mut target = other.storage.create(&key)?;
        let written = |error: io::Error| RepositoryError::from(other.storage.failed("write", &key, &error));
        let mut at = 0;
        for entry in &entries {
            let wrong = |reason: &str| self.wrong_pack(&key, at, reason);
            if entry.offset != at || entry.stored_length as usize > 2 * CHUNK_BYTES {
                return Err(wrong("its index does not fit its frames"));
            }
            let mut stored = vec![0; entry.stored_length as usize];
            source.read_exact(&mut stored).map_err(|error| self.storage.failed("read", &key, &error))?;
            let raw = frame::decompress(&stored, CHUNK_BYTES).map_err(|error| wrong(&error.to_string()))?;
            if raw.len() != entry.raw_length as usize || ChunkId::of(&raw) != entry.id {
                return Err(wrong("it is not the chunk that the index names"));
            }
            target.write_all(&stored).map_err(written)?;
            at += u64::from(entry.stored_length);
        }
        let mut rest = Vec::new();
        source
            .take(end.len() as u64 + 1)
            .read_to_end(&mut rest)
            .map_err(|error| self.storage.failed("read", &key, &error))?;
        if rest != end {
            return Err(self.wrong_pack(&key, at, "more or less follows its frames than its index"));
        }
        target.write_all(&rest).map_err(written)?;
        let put = target.publish()?;
        if put == Put::Exists {
            // The index has the identity of every frame.
            if other.end_of_pack(&key, id)?.bytes != end {
                return Err(RepositoryError::Occupied { storage: other.storage.describe(), key: key.to_string() });
            }
            other.storage.settle(&key)?;
        }
        Ok(put)
    }

    /// The frames of a pack by its index, in the order of their offsets.
    ///
    /// # Errors
    /// There is no such pack, its index is damaged, or the store fails.
    pub(super) fn pack_entries(&self, id: PackId) -> Result<Vec<PackEntry>, RepositoryError> {
        Ok(self.end_of_pack(&keys::pack(&self.folder, id), id)?.entries)
    }

    /// Index and description of a pack.
    pub(super) fn end_of_pack(&self, key: &Key, id: PackId) -> Result<PackEnd, RepositoryError> {
        let wrong = |error: PackError| self.wrong_pack(key, 0, &error.to_string());
        let footer_bytes = pack::FOOTER_FRAME_BYTES as u64;
        let suffix = self.storage.get_suffix(key, footer_bytes)?;
        let footer = PackFooter::decode(&suffix.bytes, id).map_err(wrong)?;
        if footer.system_identifier != self.system_identifier || footer.index_bytes > suffix.size {
            return Err(self.wrong_pack(key, 0, "its description is another cluster's, or makes no sense"));
        }
        let end = self.storage.get_suffix(key, footer.index_bytes + footer_bytes)?.bytes;
        let index = &end[..end.len().saturating_sub(pack::FOOTER_FRAME_BYTES)];
        Ok(PackEnd { entries: footer.entries(index).map_err(wrong)?, bytes: end, pack_bytes: suffix.size })
    }

    pub(super) fn wrong_pack(&self, key: &Key, offset: u64, reason: &str) -> RepositoryError {
        let (storage, key, reason) = (self.storage.describe(), key.to_string(), reason.to_owned());
        RepositoryError::Chunk { storage, key, offset, reason }
    }

    /// Copies what a backup has beside its packs, which must be there: its manifest, its commit point, last of all.
    ///
    /// # Errors
    /// Something of it is damaged here, [`RepositoryError::Occupied`] if other content has a name there, or a store fails.
    pub fn copy_backup(&self, other: &ServerRepository, id: BackupId, author: &Author) -> Result<(), RepositoryError> {
        // It is what its name says.
        let info = self.backup_info(id)?;
        if let Some(crate::catalog::BackupWal::Stream { tail: Some(tail) }) = info.as_ref().map(|info| &info.wal) {
            self.wal_tail(id, tail)?;
        }
        let manifest = keys::manifest(&self.folder, id);
        for key in self.objects_below(&keys::backup(&self.folder, id))? {
            if key != manifest {
                self.copy_small(other, &key)?;
            }
        }
        self.copy_manifest(other, id, &manifest, author)
    }

    fn objects_below(&self, folder: &Key) -> Result<Vec<Key>, RepositoryError> {
        let mut found = Vec::new();
        let mut folders = vec![folder.clone()];
        while let Some(folder) = folders.pop() {
            for entry in self.storage.list(&folder)? {
                let Ok(key) = folder.join(&entry.name) else { continue };
                if entry.folder { folders.push(key) } else { found.push(key) }
            }
        }
        Ok(found)
    }

    fn copy_small(&self, other: &ServerRepository, key: &Key) -> Result<(), RepositoryError> {
        let bytes = self.storage.get(key, OBJECT_BYTES)?;
        if other.storage.put(key, &bytes)? == Put::Exists {
            if other.storage.get(key, OBJECT_BYTES)? != bytes {
                return Err(RepositoryError::Occupied { storage: other.storage.describe(), key: key.to_string() });
            }
            other.storage.settle(key)?;
        }
        Ok(())
    }

    fn copy_manifest(
        &self,
        other: &ServerRepository,
        id: BackupId,
        key: &Key,
        author: &Author,
    ) -> Result<(), RepositoryError> {
        let size = self.storage.size(key)?.unwrap_or_default();
        let mut target = other.create_manifest(id)?;
        let mut copied = 0;
        let tee = Tee { source: self.storage.open(key)?, target: &mut target, copied: &mut copied };
        let reader = ManifestReader::new(tee).map_err(|error| self.manifest_error(id, error))?;
        let (found, cluster) = (reader.header().id, reader.header().system_identifier);
        let packs = references::read(reader).map_err(|error| self.manifest_error(id, error))?;
        if (found, cluster) != (id, self.system_identifier) || copied != size {
            let error = io::Error::other("it is another backup's, or bytes follow it");
            return Err(self.manifest_error(id, error.into()));
        }
        let packs = packs.into_keys().collect();
        match other.commit_manifest(id, target, &packs, &author.host, &|| author.now) {
            Err(RepositoryError::Occupied { .. }) => Ok(other.storage.settle(key)?),
            other => other,
        }
    }
}

/// Writes what is read from it.
struct Tee<'a> {
    source: Box<dyn Read + Send>,
    target: &'a mut Box<dyn NewObject>,
    copied: &'a mut u64,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.target.write_all(&buffer[..count])?;
        *self.copied += count as u64;
        Ok(count)
    }
}
