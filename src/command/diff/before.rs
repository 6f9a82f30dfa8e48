//! The chunks of the earlier backup, small enough that a terabyte of them fits into memory, and what of a later one's differs.
//!
//! 28 bytes a chunk and 16 for each page set: 60 MB for a terabyte without sets. Content is told by its identity, and where that
//! differs, by where each page comes from: the same page of the same frame is the same. The rest may have changed.

use std::collections::HashMap;

use crate::catalog::{BackupId, PackId};
use crate::chunk::{CHUNK_BYTES, ChunkContent, ChunkRef, PAGE_BYTES, Place};
use crate::manifest::FileEntry;
use crate::manifest::place::file_key;

/// How much of something differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Changed {
    /// Bytes of the later backup that the earlier one does not have at the same place, or perhaps does not.
    pub(super) bytes: u64,
    /// Of which so many may be the same all the same: how they are stored does not tell.
    pub(super) perhaps: u64,
}

impl std::ops::AddAssign for Changed {
    fn add_assign(&mut self, other: Changed) {
        self.bytes += other.bytes;
        self.perhaps += other.perhaps;
    }
}

/// A frame: the number of its pack among those met, and its offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Frame(u32, u32);

/// Stands for a frame of which no other is known to be the same.
const ELSEWHERE: Frame = Frame(u32::MAX, u32::MAX);

/// Half of a chunk's identity: enough to tell chunks of two backups apart. All zeros: nothing but zeros.
type Half = [u8; 16];

/// A chunk of the earlier backup.
#[derive(Clone, Copy, Debug)]
struct Slot {
    id: Half,
    base: Frame,
    /// The first of its page sets; they end where those of the next chunk begin.
    sets: u32,
}

/// A page set: its frame, and a bit for each page that it holds.
type Set = (Frame, u64);

/// A file of the earlier backup: its size, and its first chunk.
#[derive(Clone, Copy, Debug)]
struct File {
    size: u64,
    first: usize,
    chunks: usize,
}

/// The earlier backup.
#[derive(Debug, Default)]
pub(super) struct Before {
    packs: HashMap<PackId, u32>,
    files: HashMap<u128, File>,
    slots: Vec<Slot>,
    sets: Vec<Set>,
}

impl Before {
    /// Takes in a line of the earlier backup's manifest, whose pack sources these are.
    pub(super) fn take(&mut self, line: &FileEntry, sources: &[BackupId]) {
        let first = self.slots.len();
        for chunk in &line.chunks {
            let sets = u32::try_from(self.sets.len()).unwrap_or(u32::MAX);
            let (id, base) = match &chunk.content {
                ChunkContent::Zero => (Half::default(), ELSEWHERE),
                ChunkContent::Stored { id, base, sets } => {
                    let sets = self.sets_of(sets, sources);
                    self.sets.extend(sets);
                    (half(&id.0), self.frame(base, sources))
                }
            };
            self.slots.push(Slot { id, base, sets });
        }
        let file = self.files.entry(file_key(&line.path, line.tablespace));
        file.or_insert(File { size: line.size, first, chunks: 0 }).chunks += line.chunks.len();
    }

    /// How much of a line of the later backup's manifest differs.
    pub(super) fn compare(&mut self, line: &FileEntry, sources: &[BackupId]) -> Changed {
        let file = self.files.get(&file_key(&line.path, line.tablespace)).copied();
        let first = usize::try_from(line.from / CHUNK_BYTES as u64).unwrap_or(usize::MAX);
        let mut changed = Changed::default();
        for (at, chunk) in (first..).zip(&line.chunks) {
            let before = file.filter(|file| at < file.chunks).map(|file| {
                let rest = file.size.saturating_sub((at * CHUNK_BYTES) as u64);
                (file.first + at, rest.min(CHUNK_BYTES as u64))
            });
            changed += match before {
                None => Changed { bytes: u64::from(chunk.raw_length), perhaps: 0 },
                Some((slot, length)) => self.chunk(slot, length, chunk, sources),
            };
        }
        changed
    }

    fn chunk(&mut self, at: usize, length: u64, chunk: &ChunkRef, sources: &[BackupId]) -> Changed {
        let slot = self.slots[at];
        let raw_length = u64::from(chunk.raw_length);
        let all = Changed { bytes: raw_length, perhaps: raw_length.min(length) };
        let ChunkContent::Stored { id, base, sets } = &chunk.content else {
            let grown = Changed { bytes: raw_length.saturating_sub(length), perhaps: 0 };
            return if slot.id == Half::default() { grown } else { all };
        };
        if slot.id == half(&id.0) && length == raw_length {
            return Changed::default();
        }
        if slot.base == ELSEWHERE || slot.base != self.frame(base, sources) {
            return all;
        }
        let now = self.sets_of(sets, sources);
        let end = self.slots.get(at + 1).map_or(self.sets.len(), |next| next.sets as usize);
        let before = self.sets.get(slot.sets as usize..end).unwrap_or_default();
        let provider =
            |sets: &[Set], page: u64| sets.iter().rev().find(|(_, pages)| pages >> page & 1 == 1).map(|set| set.0);
        let mut changed = Changed::default();
        for page in 0..raw_length.div_ceil(PAGE_BYTES as u64) {
            let from = page * PAGE_BYTES as u64;
            let bytes = (raw_length - from).min(PAGE_BYTES as u64);
            // A page that has another length is another one.
            let same_length = length.saturating_sub(from).min(PAGE_BYTES as u64) == bytes;
            let (was, is) = (provider(before, page), provider(&now, page));
            let same = was == is && was != Some(ELSEWHERE);
            if same && same_length {
                continue;
            }
            changed.bytes += bytes;
            // Sets that had become too many are stored as one, with pages that have not changed since. A set that is still there
            // was not among them, and a page that was in none has changed since.
            let merged = was.is_some_and(|set| set == ELSEWHERE || !now.iter().any(|(frame, _)| *frame == set));
            changed.perhaps += if merged && same_length { bytes } else { 0 };
        }
        changed
    }

    fn sets_of(&mut self, sets: &[crate::chunk::PageSet], sources: &[BackupId]) -> Vec<Set> {
        sets.iter()
            .map(|set| {
                (self.frame(&set.place, sources), set.pages.iter().fold(0, |bits, page| bits | 1 << (page & 63)))
            })
            .collect()
    }

    fn frame(&mut self, place: &Place, sources: &[BackupId]) -> Frame {
        let Some(backup) = sources.get(usize::from(place.source)) else { return ELSEWHERE };
        // A pack is closed at 64 MiB.
        let Ok(offset) = u32::try_from(place.offset) else { return ELSEWHERE };
        let next = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        Frame(*self.packs.entry(PackId { backup: *backup, number: place.pack }).or_insert(next), offset)
    }
}

fn half(id: &[u8; 32]) -> Half {
    let mut half = Half::default();
    half.copy_from_slice(&id[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{ChunkId, EntryPath, PageSet};
    use crate::wal::PgTime;

    const CHUNK: u64 = CHUNK_BYTES as u64;

    fn place(source: u16, offset: u64) -> Place {
        Place { source, pack: 0, offset, length: 1 }
    }

    /// A chunk by its identity, base and sets: offsets of frames and pages in them.
    fn chunk(raw_length: u32, id: u8, base: Place, sets: &[(Place, &[u8])]) -> ChunkRef {
        let sets = sets.iter().map(|(place, pages)| PageSet { place: *place, pages: pages.to_vec() }).collect();
        ChunkRef { raw_length, crc32c: None, content: ChunkContent::Stored { id: ChunkId([id; 32]), base, sets } }
    }

    fn file(from: u64, size: u64, chunks: Vec<ChunkRef>) -> FileEntry {
        let path = EntryPath::new(b"base/5/16384").expect("a good path");
        FileEntry { path, tablespace: None, mode: 0o600, size, modified_at: 0, from, chunks, crc32c: None }
    }

    /// Promise: chunks of one identity are unchanged; of others, pages that come from the same frame; the rest is told as what may have
    /// changed, and as certain only where it is.
    #[test]
    fn what_differs() {
        let full = CHUNK_BYTES as u32;
        let zero = |raw_length| ChunkRef { raw_length, crc32c: None, content: ChunkContent::Zero };
        let [old, new] = [1, 2].map(|random| BackupId::new(PgTime(0), random));
        let same = |id| chunk(full, id, place(0, 1), &[]);
        let theirs = |offset| place(1, offset);
        let set_old: (Place, &[u8]) = (place(0, 50), &[3, 4]);
        let eight: Vec<(Place, &[u8])> = vec![set_old; 8];
        let page = PAGE_BYTES as u64;
        for (what, before, size, after, bytes, perhaps) in [
            ("the same", same(1), CHUNK, chunk(full, 1, place(0, 9), &[]), 0, 0),
            ("stored anew", same(1), CHUNK, chunk(full, 2, place(0, 9), &[]), CHUNK, CHUNK),
            ("two pages", same(1), CHUNK, chunk(full, 2, theirs(1), &[(place(0, 9), &[5, 6])]), 2 * page, 0),
            (
                "one of a set that stays",
                chunk(full, 1, place(0, 1), &[set_old]),
                CHUNK,
                chunk(full, 2, theirs(1), &[(theirs(50), &[3, 4]), (place(0, 9), &[4])]),
                page,
                0,
            ),
            (
                "sets taken together",
                chunk(full, 1, place(0, 1), &eight),
                CHUNK,
                chunk(full, 2, theirs(1), &[(place(0, 9), &[3, 4, 5])]),
                3 * page,
                2 * page,
            ),
            ("zeros stay", zero(full), CHUNK, zero(full), 0, 0),
            ("zeros come", same(1), CHUNK, zero(full), CHUNK, CHUNK),
            ("zeros go", zero(full), CHUNK, same(1), CHUNK, CHUNK),
            (
                "grown",
                chunk(8192, 1, place(0, 1), &[]),
                page,
                chunk(16384, 2, theirs(1), &[(place(0, 9), &[1])]),
                page,
                0,
            ),
            ("grown and stored anew", chunk(8192, 1, place(0, 1), &[]), page, same(2), CHUNK, page),
        ] {
            let mut all = Before::default();
            all.take(&file(0, size, vec![before]), &[old]);
            let after = file(0, u64::from(after.raw_length), vec![after]);
            assert_eq!(all.compare(&after, &[new, old]), Changed { bytes, perhaps }, "{what}");
        }
    }

    /// Promise: later parts of a file, and what lies behind its old end, are compared at their place.
    #[test]
    fn parts() {
        let full = CHUNK_BYTES as u32;
        let [old, new] = [1, 2].map(|random| BackupId::new(PgTime(0), random));
        let one = |id| chunk(full, id, place(0, u64::from(id)), &[]);
        let mut before = Before::default();
        before.take(&file(0, 3 * CHUNK, vec![one(1), one(2)]), &[old]);
        before.take(&file(2 * CHUNK, 3 * CHUNK, vec![one(3)]), &[old]);
        let nothing = Changed::default();
        assert_eq!(before.compare(&file(0, 4 * CHUNK, vec![one(1)]), &[new]), nothing);
        assert_eq!(
            before.compare(&file(CHUNK, 4 * CHUNK, vec![one(2), one(3), one(4)]), &[new]),
            Changed { bytes: CHUNK, perhaps: 0 }
        );
        let elsewhere = FileEntry { tablespace: Some(9), ..file(0, CHUNK, vec![one(1)]) };
        assert_eq!(before.compare(&elsewhere, &[new]), Changed { bytes: CHUNK, perhaps: 0 });
    }
}
