//! Which packs the manifests of backups refer to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::{RepositoryError, ServerRepository};
use crate::catalog::{BackupId, PackId};
use crate::chunk::{ChunkRef, pack};
use crate::manifest::{ManifestError, ManifestLine, ManifestReader};

/// Packs that are referred to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct References {
    /// Backups all of whose packs count.
    pub whole: BTreeSet<BackupId>,
    /// Single packs of others, and how many bytes of each the backup refers to that refers to most of it. What a backup has of others it took over
    /// from its parent, so that is all that any of them refers to.
    pub packs: BTreeMap<PackId, u64>,
    /// Manifests that do not tell what they refer to, and why: as long as there is one, every pack may be needed.
    pub untold: Vec<(BackupId, String)>,
}

impl References {
    /// Whether a pack is referred to, or may be.
    #[must_use]
    pub fn contains(&self, id: PackId) -> bool {
        !self.untold.is_empty() || self.whole.contains(&id.backup) || self.packs.contains_key(&id)
    }
}

impl References {
    /// How many of a pack's bytes nobody refers to, though the pack is needed.
    #[must_use]
    pub fn dead_bytes(&self, id: PackId, stored_bytes: u64) -> u64 {
        if !self.untold.is_empty() || self.whole.contains(&id.backup) {
            return 0;
        }
        let used = self.packs.get(&id);
        used.map_or(0, |used| stored_bytes.saturating_sub(pack::FIXED_BYTES).saturating_sub(*used))
    }
}

/// Reads a manifest to its end, which proves it, and gives the packs that it refers to, with the bytes of each.
pub(super) fn read<R: Read>(mut manifest: ManifestReader<R>) -> Result<BTreeMap<PackId, u64>, ManifestError> {
    let sources = manifest.header().pack_sources.clone();
    let mut places: BTreeMap<(u16, u32), u64> = BTreeMap::new();
    for line in manifest.by_ref() {
        match line? {
            ManifestLine::File(file) => file.chunks.iter().for_each(|chunk| note(chunk, &mut places)),
            ManifestLine::Config(file) => file.chunks.iter().for_each(|chunk| note(chunk, &mut places)),
            ManifestLine::Directory(_) | ManifestLine::Symlink(_) => {}
        }
    }
    let pack = |((source, number), bytes): ((u16, u32), u64)| {
        Some((PackId { backup: *sources.get(usize::from(source))?, number }, bytes))
    };
    Ok(places.into_iter().filter_map(pack).collect())
}

fn note(chunk: &ChunkRef, places: &mut BTreeMap<(u16, u32), u64>) {
    for (place, bytes) in pack::shares(chunk) {
        *places.entry((place.source, place.pack)).or_default() += bytes;
    }
}

impl ServerRepository {
    /// Which packs these backups refer to. A backup that is gone refers to none.
    ///
    /// # Errors
    /// The store fails.
    pub fn references(&self, backups: &[BackupId]) -> Result<References, RepositoryError> {
        let mut all = References::default();
        for (id, found) in backups.iter().zip(self.in_parallel(backups, |id| self.references_of(*id))?) {
            match found {
                Told::Gone => continue,
                Told::Packs(packs) => {
                    for (pack, bytes) in packs {
                        let most = all.packs.entry(pack).or_default();
                        *most = bytes.max(*most);
                    }
                }
                // Which chunks is not known, so all of them count.
                Told::Sources(sources) => all.whole.extend(sources),
                Told::Nothing(why) => all.untold.push((*id, why)),
            }
            all.whole.insert(*id);
        }
        Ok(all)
    }

    fn references_of(&self, id: BackupId) -> Result<Told, RepositoryError> {
        let manifest = match self.open_manifest(id) {
            Err(RepositoryError::Storage(error)) if error.is_not_found() => return Ok(Told::Gone),
            Err(RepositoryError::Manifest { source, .. }) => return Ok(Told::Nothing(source.to_string())),
            other => other?,
        };
        let sources = manifest.header().pack_sources.clone();
        // Most refer to nothing but their own packs, all of which count anyway.
        if sources == [id] {
            return Ok(Told::Packs(BTreeMap::new()));
        }
        Ok(read(manifest).map_or(Told::Sources(sources), Told::Packs))
    }
}

/// What one manifest tells.
enum Told {
    Gone,
    Packs(BTreeMap<PackId, u64>),
    Sources(Vec<BackupId>),
    Nothing(String),
}
