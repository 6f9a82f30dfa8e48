//! `ReadAlong`: chunks of one file after the other, with few requests though most files are small.
//!
//! A server sends its files in much the same order each time, so what the next files need mostly lies behind what this one needs. With the
//! last range of each pack some of what follows is therefore read along: as much as another request would cost at first
//! ([`GAP_BYTES`]), more where that was of use. It is kept until the files that need it come.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frames::{Frames, GAP_BYTES, Loaded, bytes_of, joined};
use super::{RepositoryError, ServerRepository, keys};
use crate::catalog::{BackupId, PackId};
use crate::chunk::ChunkRef;

/// Most bytes of frames that are read at once for one file, and most with what lies between them.
const BATCH_BYTES: u64 = 8 << 20;
const BATCH_READ_BYTES: u64 = 12 << 20;
/// Most chunks of a batch: each is unpacked by a worker of its own.
const BATCH_CHUNKS: usize = 512;
/// Most bytes that are read along with a range.
const MOST_ALONG_BYTES: u64 = 2 << 20;
/// Most bytes that are kept of what was read along.
const KEPT_BYTES: usize = 8 << 20;

/// What was read along with what was asked for.
#[derive(Debug)]
pub(super) struct ReadAlong {
    /// Bytes of each pack.
    stored: BTreeMap<PackId, u64>,
    /// The latest at the end; one of a pack.
    kept: Mutex<VecDeque<Kept>>,
}

/// What follows the last range that was read of a pack.
#[derive(Clone, Debug)]
struct Kept {
    pack: PackId,
    range: Loaded,
    /// So many bytes were to be read along.
    along: u64,
}

/// How many of these chunks are read at once: one at least.
pub(super) fn at_once(chunks: &[&ChunkRef]) -> usize {
    let mut bytes = 0;
    let fits = chunks.iter().take(BATCH_CHUNKS).take_while(|chunk| {
        bytes += chunk.places().map(|place| u64::from(place.length)).sum::<u64>();
        bytes <= BATCH_BYTES
    });
    let mut count = fits.count().max(1);
    while count > 1 && bytes_of(chunks[..count].iter().copied()) > BATCH_READ_BYTES {
        count = count.div_ceil(2);
    }
    count.min(chunks.len())
}

impl ReadAlong {
    /// For packs of these sizes, in bytes.
    pub(super) fn of(stored: BTreeMap<PackId, u64>) -> ReadAlong {
        ReadAlong { stored, kept: Mutex::default() }
    }

    /// As [`ServerRepository::fetch_frames`].
    pub(super) fn fetch(
        &self,
        server: &ServerRepository,
        sources: &[BackupId],
        chunks: &[&ChunkRef],
    ) -> Result<Frames, RepositoryError> {
        server.load_frames(sources, chunks.iter().copied(), |pack, wanted| self.load(server, pack, wanted))
    }

    fn load(
        &self,
        server: &ServerRepository,
        pack: PackId,
        wanted: Vec<Range<u64>>,
    ) -> Result<Vec<Loaded>, RepositoryError> {
        let key = keys::pack(&server.folder, pack);
        let kept = self.kept().iter().find(|kept| kept.pack == pack).cloned();
        let (there, missing): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|range| kept.as_ref().is_some_and(|kept| kept.has(range)));
        let mut loaded = Vec::new();
        if let Some(kept) = kept.as_ref().filter(|_| !there.is_empty()) {
            loaded.push(kept.range.clone());
        }
        let missing = joined(missing);
        for (number, range) in missing.iter().enumerate() {
            let more = if number + 1 < missing.len() { 0 } else { more(kept.as_ref(), missing[0].start) };
            let stored = self.stored.get(&pack).copied().unwrap_or(0);
            let end = range.end.saturating_add(more).min(stored).max(range.end);
            let mut content = server.storage.get_range(&key, range.start..end)?;
            // A range that is too long to be one has an error of its own.
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(content.len());
            let along = content.split_off(length);
            content.shrink_to_fit();
            if !along.is_empty() {
                self.keep(Kept { pack, range: (range.end, Arc::new(along)), along: more });
            }
            loaded.push((range.start, Arc::new(content)));
        }
        loaded.sort_by_key(|(start, _)| *start);
        Ok(loaded)
    }

    fn keep(&self, latest: Kept) {
        let mut kept = self.kept();
        kept.retain(|kept| kept.pack != latest.pack);
        kept.push_back(latest);
        while kept.iter().map(|kept| kept.range.1.len()).sum::<usize>() > KEPT_BYTES {
            kept.pop_front();
        }
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Kept>> {
        // Nothing behind the lock can be half done.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn end(&self) -> u64 {
        self.range.0 + self.range.1.len() as u64
    }

    fn has(&self, range: &Range<u64>) -> bool {
        self.range.0 <= range.start && range.end <= self.end()
    }
}

/// How much is read along with what begins at `start`: twice as much as last time if it goes on there.
fn more(kept: Option<&Kept>, start: u64) -> u64 {
    match kept {
        Some(kept) if (kept.range.0..=kept.end().saturating_add(GAP_BYTES)).contains(&start) => {
            (kept.along * 2).min(MOST_ALONG_BYTES)
        }
        _ => GAP_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::chunk::{ChunkContent, ChunkId, Place};
    use crate::repository::Repository;
    use crate::storage::Memory;
    use crate::wal::{PgTime, SystemIdentifier};

    /// A chunk with a frame of this length at this place.
    fn chunk(raw: &[u8], offset: u64, length: u32) -> ChunkRef {
        let base = Place { source: 0, pack: 0, offset, length };
        let content = ChunkContent::Stored { id: ChunkId::of(raw), base, sets: Vec::new() };
        ChunkRef { raw_length: raw.len() as u32, crc32c: None, content }
    }

    /// No batch is larger than memory allows, neither by its frames nor by what lies between them; a chunk that is larger alone is read alone.
    #[test]
    fn batches() {
        let side_by_side: Vec<_> = (0..100).map(|n| chunk(b"x", n * 600_000, 600_000)).collect();
        let scattered: Vec<_> = (0..600).map(|n| chunk(b"x", n * 200_000, 1000)).collect();
        let far: Vec<_> = (0..600).map(|n| chunk(b"x", n * 900_000, 1000)).collect();
        let at_once = |chunks: &[ChunkRef]| at_once(&chunks.iter().collect::<Vec<_>>());
        assert_eq!(at_once(&side_by_side), 13);
        assert_eq!(at_once(&scattered), 32);
        assert_eq!(at_once(&far), BATCH_CHUNKS);
        assert_eq!(at_once(&[chunk(b"x", 0, 20 << 20)]), 1);
        assert_eq!(at_once(&[]), 0);
    }

    /// What follows in the pack is there when it is asked for, and what is kept stays small.
    #[test]
    fn what_follows_is_read_along() {
        let memory = Arc::new(Memory::default());
        let repository = Repository::create(memory.clone(), PgTime(0)).expect("an empty store");
        let server = repository.cluster(&"main".parse().expect("a good name")).server(SystemIdentifier(7));
        let backup = BackupId::new(PgTime(0), 1);
        let pack = PackId { backup, number: 0 };
        let (mut object, mut bytes, mut chunks) = (server.create_pack(pack).expect("memory"), 0, Vec::new());
        for number in 0..60_u32 {
            let raw: Vec<u8> = (0..2500)
                .flat_map(|n| blake3::hash(&[number, n].map(u32::to_le_bytes).concat()).as_bytes()[..8].to_vec())
                .collect();
            let stored = crate::chunk::frame::compress(&raw, crate::codec::Compression::Lz4).expect("memory");
            object.write_all(&stored).expect("memory");
            chunks.push((chunk(&raw, bytes, stored.len() as u32), raw));
            bytes += stored.len() as u64;
        }
        server.publish_pack(pack, object).expect("memory");
        let along = ReadAlong::of(BTreeMap::from([(pack, bytes)]));
        let read = |number: usize| {
            let (chunk, raw) = &chunks[number];
            let content = along.fetch(&server, &[backup], &[chunk]).expect("it is there").chunk(chunk);
            content.map(|content| assert_eq!(&content, raw)).is_ok()
        };
        let spoil = || memory.damage(&keys::pack(&server.folder, pack), |bytes| bytes.iter_mut().for_each(|b| *b ^= 1));
        assert!(read(0));
        spoil();
        assert!((1..13).all(read), "they were read along");
        assert!(!read(14), "a quarter of a mebibyte was");
        spoil();
        assert!(read(14) && read(28));
        spoil();
        assert!((29..54).all(read), "twice as much, since it went on there");
        assert!(along.kept().iter().map(|kept| kept.range.1.len()).sum::<usize>() <= KEPT_BYTES);
    }
}
