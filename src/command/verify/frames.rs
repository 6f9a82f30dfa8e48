//! `Frames`: what is known of the frames of all packs, for the manifests that refer to them.
//!
//! A cluster of a terabyte has millions of frames. What is known of them goes to a file without a name, and only the tables that were
//! asked for last stay in memory: manifests go through packs nearly in their order.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::catalog::PackId;
use crate::chunk::ChunkId;

/// Most tables that are kept in memory: about 60 KB each.
const MOST_TABLES: usize = 64;
/// Bytes of a frame in the file.
const FRAME_BYTES: usize = 56;

/// What is known of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// Its first byte in the pack.
    pub(super) offset: u64,
    /// Bytes of it.
    pub(super) stored_length: u32,
    /// Bytes of its content.
    pub(super) raw_length: u32,
    /// CRC-32C of its content, if that was read and is good.
    pub(super) crc: Option<u32>,
    /// Identity of its content.
    pub(super) id: ChunkId,
}

/// A pack's frames, in order.
pub(super) type Table = Arc<Vec<Frame>>;

/// What is known of a pack.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// Its frames.
    Table(Table),
    /// Its index cannot be used.
    NoIndex,
    /// It is not there.
    Missing,
    /// Nobody has looked.
    Unknown,
}

#[derive(Clone, Copy)]
enum Entry {
    Stored { at: u64, count: usize },
    NoIndex,
    Missing,
}

/// All of it.
#[derive(Default)]
pub(super) struct Frames {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    file: Option<File>,
    length: u64,
    entries: HashMap<PackId, Entry>,
    /// The latest at the end.
    tables: VecDeque<(PackId, Table)>,
}

impl Frames {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in the frames of a pack.
    ///
    /// # Errors
    /// There is no room for a temporary file.
    pub(super) fn put(&self, pack: PackId, frames: Vec<Frame>) -> io::Result<Table> {
        let bytes: Vec<u8> = frames.iter().flat_map(encode).collect();
        let table = Arc::new(frames);
        let mut inner = self.lock();
        if inner.file.is_none() {
            inner.file = Some(nameless()?);
        }
        let at = inner.length;
        if let Some(file) = &inner.file {
            file.write_all_at(&bytes, at)?;
        }
        inner.length += bytes.len() as u64;
        inner.entries.insert(pack, Entry::Stored { at, count: table.len() });
        inner.remember(pack, &table);
        Ok(table)
    }

    /// Notes that a pack is not there.
    pub(super) fn set_missing(&self, pack: PackId) {
        self.lock().entries.insert(pack, Entry::Missing);
    }

    /// Notes that a pack's index cannot be used: its frames may be good all the same.
    pub(super) fn set_without_index(&self, pack: PackId) {
        self.lock().entries.insert(pack, Entry::NoIndex);
    }

    /// What is known of a pack.
    ///
    /// # Errors
    /// The temporary file cannot be read.
    pub(super) fn get(&self, pack: PackId) -> io::Result<Known> {
        let mut inner = self.lock();
        let (at, count) = match inner.entries.get(&pack) {
            None => return Ok(Known::Unknown),
            Some(Entry::NoIndex) => return Ok(Known::NoIndex),
            Some(Entry::Missing) => return Ok(Known::Missing),
            Some(Entry::Stored { at, count }) => (*at, *count),
        };
        if let Some((_, table)) = inner.tables.iter().find(|(known, _)| *known == pack) {
            return Ok(Known::Table(Arc::clone(table)));
        }
        let mut bytes = vec![0; count * FRAME_BYTES];
        if let Some(file) = &inner.file {
            file.read_exact_at(&mut bytes, at)?;
        }
        let table = Arc::new(bytes.as_chunks::<FRAME_BYTES>().0.iter().map(decode).collect());
        inner.remember(pack, &table);
        Ok(Known::Table(table))
    }
}

impl Inner {
    fn remember(&mut self, pack: PackId, table: &Table) {
        self.tables.retain(|(known, _)| *known != pack);
        if self.tables.len() >= MOST_TABLES {
            self.tables.pop_front();
        }
        self.tables.push_back((pack, Arc::clone(table)));
    }
}

/// The frame that begins at an offset.
pub(super) fn find(table: &Table, offset: u64) -> Option<&Frame> {
    table.binary_search_by_key(&offset, |frame| frame.offset).ok().map(|at| &table[at])
}

fn encode(frame: &Frame) -> [u8; FRAME_BYTES] {
    let mut bytes = [0; FRAME_BYTES];
    bytes[..8].copy_from_slice(&frame.offset.to_le_bytes());
    bytes[8..12].copy_from_slice(&frame.stored_length.to_le_bytes());
    bytes[12..16].copy_from_slice(&frame.raw_length.to_le_bytes());
    bytes[16..20].copy_from_slice(&frame.crc.unwrap_or_default().to_le_bytes());
    bytes[20] = u8::from(frame.crc.is_some());
    bytes[24..].copy_from_slice(&frame.id.0);
    bytes
}

fn decode(bytes: &[u8; FRAME_BYTES]) -> Frame {
    let u32_at = |at: usize| bytes[at..].first_chunk().map_or(0, |four| u32::from_le_bytes(*four));
    let mut id = [0; 32];
    id.copy_from_slice(&bytes[24..]);
    Frame {
        offset: bytes.first_chunk().map_or(0, |eight| u64::from_le_bytes(*eight)),
        stored_length: u32_at(8),
        raw_length: u32_at(12),
        crc: (bytes[20] != 0).then(|| u32_at(16)),
        id: ChunkId(id),
    }
}

/// A file that is gone when this process is.
fn nameless() -> io::Result<File> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random)?;
    let path = std::env::temp_dir().join(format!("pitr-verify-{:016x}", u64::from_le_bytes(random)));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::BackupId;
    use crate::wal::PgTime;

    /// What was put comes back, from memory and from the file, and nothing else is known.
    #[test]
    fn kept() {
        let frames = Frames::default();
        let pack = |number| PackId { backup: BackupId::new(PgTime(0), 1), number };
        let frame = |offset: u32| Frame {
            offset: u64::from(offset) * 100,
            stored_length: offset,
            raw_length: 7,
            crc: offset.is_multiple_of(2).then_some(offset),
            id: ChunkId([9; 32]),
        };
        let many = MOST_TABLES as u32 + 20;
        for number in 0..many {
            frames.put(pack(number), (0..number).map(frame).collect()).expect("room in /tmp");
        }
        for number in 0..many {
            let Ok(Known::Table(table)) = frames.get(pack(number)) else { panic!("{number} is known") };
            assert!(table.iter().copied().eq((0..number).map(frame)));
            assert_eq!(find(&table, 100).copied(), (number > 1).then(|| frame(1)));
            assert!(find(&table, 101).is_none());
        }
        assert!(matches!(frames.get(pack(many)), Ok(Known::Unknown)));
        frames.set_missing(pack(3));
        frames.set_without_index(pack(4));
        assert!(matches!(frames.get(pack(3)), Ok(Known::Missing)));
        assert!(matches!(frames.get(pack(4)), Ok(Known::NoIndex)));
    }
}
