//! Chunks read many at a time, with as few requests as their places allow.
//!
//! Chunks that follow each other in a file mostly follow each other in a pack, and so do the page sets that one backup laid over them.
//! Frames that lie close together are read in one range; each is unpacked only when its chunk is asked for, so that what is in memory
//! is compressed.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::{RepositoryError, ServerRepository, keys};
use crate::catalog::{BackupId, PackId};
use crate::chunk::{CHUNK_BYTES, ChunkContent, ChunkRef, Place, assemble, frame};

/// What lies between two frames is read along if it is no more than this, in bytes: about what a store sends while another request
/// would be on its way.
pub(super) const GAP_BYTES: u64 = 256 << 10;
/// Most bytes of one range: what many threads hold has to fit into memory.
const RANGE_BYTES: u64 = 16 << 20;

/// Frames in memory.
#[derive(Debug)]
pub struct Frames {
    server: ServerRepository,
    sources: Vec<BackupId>,
    /// The ranges of each pack, ascending.
    packs: BTreeMap<(u16, u32), Vec<Loaded>>,
}

/// A range of a pack: its first byte, and its content.
pub(super) type Loaded = (u64, Arc<Vec<u8>>);

impl ServerRepository {
    /// Reads the frames of some chunks. `sources` is `pack_sources` of the manifest that names them.
    ///
    /// # Errors
    /// The store fails, or a pack is gone or shorter than a place in it.
    pub fn fetch_frames<'c>(
        &self,
        sources: &[BackupId],
        chunks: impl IntoIterator<Item = &'c ChunkRef>,
    ) -> Result<Frames, RepositoryError> {
        self.load_frames(sources, chunks, |pack, ranges| {
            let key = keys::pack(&self.folder, pack);
            let load = |range: Range<u64>| Ok((range.start, Arc::new(self.storage.get_range(&key, range)?)));
            joined(ranges).into_iter().map(load).collect()
        })
    }

    /// As [`ServerRepository::fetch_frames`], with `load` to read the ranges of a pack that are wanted: in any order, and what it gives
    /// ascending.
    pub(super) fn load_frames<'c>(
        &self,
        sources: &[BackupId],
        chunks: impl IntoIterator<Item = &'c ChunkRef>,
        load: impl Fn(PackId, Vec<Range<u64>>) -> Result<Vec<Loaded>, RepositoryError>,
    ) -> Result<Frames, RepositoryError> {
        let mut frames = Frames { server: self.clone(), sources: sources.to_owned(), packs: BTreeMap::new() };
        for (pack, ranges) in wanted(chunks) {
            let Some(id) = frames.pack(pack) else {
                return Err(frames.damaged(pack, 0, "its manifest does not name this pack's backup"));
            };
            frames.packs.insert(pack, load(id, ranges)?);
        }
        Ok(frames)
    }

    /// Reads one chunk of a file and proves it. `sources` is `pack_sources` of the manifest that names the chunk.
    ///
    /// # Errors
    /// The store fails, or what is stored is not the chunk.
    pub fn read_chunk(&self, sources: &[BackupId], chunk: &ChunkRef) -> Result<Vec<u8>, RepositoryError> {
        self.fetch_frames(sources, [chunk])?.chunk(chunk)
    }
}

impl Frames {
    /// One of the chunks whose frames were read, proved.
    ///
    /// # Errors
    /// What is stored is not the chunk.
    pub fn chunk(&self, chunk: &ChunkRef) -> Result<Vec<u8>, RepositoryError> {
        match &chunk.content {
            ChunkContent::Zero => Ok(vec![0; chunk.raw_length as usize]),
            ChunkContent::Stored { id, base, sets } => {
                let raw = self.unpack(*base)?;
                let sets = sets
                    .iter()
                    .map(|set| Ok((set.pages.as_slice(), self.unpack(set.place)?)))
                    .collect::<Result<Vec<_>, RepositoryError>>()?;
                let assembled = assemble(chunk.raw_length, *id, raw, &sets);
                assembled.map_err(|error| self.damaged((base.source, base.pack), base.offset, &error.to_string()))
            }
        }
    }

    fn unpack(&self, place: Place) -> Result<Vec<u8>, RepositoryError> {
        let pack = (place.source, place.pack);
        let stored = self.packs.get(&pack).and_then(|ranges| {
            let at = ranges.partition_point(|(start, _)| *start <= place.offset).checked_sub(1)?;
            let (start, content) = &ranges[at];
            let from = usize::try_from(place.offset - start).ok()?;
            content.get(from..from.checked_add(place.length as usize)?)
        });
        let stored = stored.ok_or_else(|| self.damaged(pack, place.offset, "it was not read"))?;
        frame::decompress(stored, CHUNK_BYTES).map_err(|error| self.damaged(pack, place.offset, &error.to_string()))
    }

    fn pack(&self, (source, number): (u16, u32)) -> Option<PackId> {
        self.sources.get(usize::from(source)).map(|backup| PackId { backup: *backup, number })
    }

    fn damaged(&self, pack: (u16, u32), offset: u64, reason: &str) -> RepositoryError {
        let folder = &self.server.folder;
        let key = self.pack(pack).map_or_else(|| keys::packs(folder), |id| keys::pack(folder, id));
        let (storage, key, reason) = (self.server.storage.describe(), key.to_string(), reason.to_owned());
        RepositoryError::Chunk { storage, key, offset, reason }
    }
}

/// Where the frames of some chunks are.
fn wanted<'c>(chunks: impl IntoIterator<Item = &'c ChunkRef>) -> BTreeMap<(u16, u32), Vec<Range<u64>>> {
    let mut wanted: BTreeMap<_, Vec<Range<u64>>> = BTreeMap::new();
    for place in chunks.into_iter().flat_map(ChunkRef::places) {
        let range = place.offset..place.offset + u64::from(place.length);
        wanted.entry((place.source, place.pack)).or_default().push(range);
    }
    wanted
}

/// Bytes that are read for some chunks, what lies between their frames included.
pub(super) fn bytes_of<'c>(chunks: impl IntoIterator<Item = &'c ChunkRef>) -> u64 {
    let ranges = wanted(chunks).into_values().flat_map(joined);
    ranges.map(|range| range.end - range.start).sum()
}

/// Ranges that lie close together as one, ascending.
pub(super) fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last)
                if range.start <= last.end.saturating_add(GAP_BYTES)
                    && (range.end <= last.end || range.end - last.start <= RANGE_BYTES) =>
            {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lies close is joined, what lies far or would be too much is not, and no byte that is wanted is left out.
    #[test]
    fn close_ranges_are_joined() {
        let gap = GAP_BYTES;
        assert_eq!(joined(vec![10..20, 0..10, 20 + gap..30 + gap]), vec![(0..30 + gap)]);
        assert_eq!(joined(vec![0..10, 11 + gap..12 + gap]), [0..10, 11 + gap..12 + gap]);
        assert_eq!(joined(vec![0..10, 0..10, 5..7]), vec![(0..10)]);
        let long: Vec<_> = (0..40).map(|at| at << 19..(at + 1) << 19).collect();
        let found = joined(long);
        assert_eq!(found, [0..RANGE_BYTES, RANGE_BYTES..40 << 19]);
    }
}
