//! Which packs the manifests of backups refer to.

use std::collections::BTreeSet;
use std::io::Read;

use super::{RepositoryError, ServerRepository};
use crate::catalog::{BackupId, PackId};
use crate::chunk::{ChunkContent, ChunkRef, Place};
use crate::manifest::{ManifestError, ManifestLine, ManifestReader};

/// Packs that are referred to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct References {
    /// Backups all of whose packs count.
    pub whole: BTreeSet<BackupId>,
    /// Single packs of others.
    pub packs: BTreeSet<PackId>,
    /// Manifests that do not tell what they refer to, and why: as long as there is one, every pack may be needed.
    pub untold: Vec<(BackupId, String)>,
}

impl References {
    /// Whether a pack is referred to, or may be.
    #[must_use]
    pub fn contains(&self, id: PackId) -> bool {
        !self.untold.is_empty() || self.whole.contains(&id.backup) || self.packs.contains(&id)
    }
}

/// Reads a manifest to its end, which proves it, and gives the packs that it refers to.
pub(super) fn read<R: Read>(mut manifest: ManifestReader<R>) -> Result<BTreeSet<PackId>, ManifestError> {
    let sources = manifest.header().pack_sources.clone();
    let mut places: BTreeSet<(u16, u32)> = BTreeSet::new();
    for line in manifest.by_ref() {
        match line? {
            ManifestLine::File(file) => file.chunks.iter().for_each(|chunk| note(chunk, &mut places)),
            ManifestLine::Config(file) => file.chunks.iter().for_each(|chunk| note(chunk, &mut places)),
            ManifestLine::Directory(_) | ManifestLine::Symlink(_) => {}
        }
    }
    let pack = |(source, number): (u16, u32)| Some(PackId { backup: *sources.get(usize::from(source))?, number });
    Ok(places.into_iter().filter_map(pack).collect())
}

fn note(chunk: &ChunkRef, places: &mut BTreeSet<(u16, u32)>) {
    let mut add = |place: &Place| {
        places.insert((place.source, place.pack));
    };
    if let ChunkContent::Stored { base, sets, .. } = &chunk.content {
        add(base);
        sets.iter().for_each(|set| add(&set.place));
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
                Told::Packs(packs) => all.packs.extend(packs),
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
            return Ok(Told::Packs(BTreeSet::new()));
        }
        Ok(read(manifest).map_or(Told::Sources(sources), Told::Packs))
    }
}

/// What one manifest tells.
enum Told {
    Gone,
    Packs(BTreeSet<PackId>),
    Sources(Vec<BackupId>),
    Nothing(String),
}
