//! Packs: many chunks in one object, with an index and a footer behind them.
//!
//! ```text
//! | frame of a chunk | frame of a chunk | … | index: skippable frame | footer: skippable frame, 104 bytes |
//! ```
//!
//! A manifest names each chunk by its place, so a restore never reads the index. It is there for who has no manifest at
//! hand: a check of a pack on its own, and the next backup, which finds changed pages by their hashes without reading
//! the pages. The byte tables are in `docs/FORMAT.md`.

use std::io;

use super::{ChunkContent, ChunkId, ChunkRef, PAGE_BYTES, PageHash, PageSet, Place};
use crate::catalog::PackId;
use crate::codec::skippable;
use crate::wal::SystemIdentifier;

/// Bytes of the footer's payload.
const FOOTER_BYTES: usize = 96;
/// Bytes of the whole footer frame, which ends every pack.
pub const FOOTER_FRAME_BYTES: usize = FOOTER_BYTES + skippable::HEADER_BYTES;

const MAGIC: &[u8; 8] = b"PITRPACK";
const VERSION: u16 = 1;
/// Bytes of an index entry before its page hashes.
const ENTRY_BYTES: usize = 52;

/// Bytes of every pack beside its frames and their entries: the header of the index and the footer.
pub const FIXED_BYTES: u64 = (skippable::HEADER_BYTES + FOOTER_FRAME_BYTES) as u64;

/// Where a chunk's frames are, and how many bytes of each pack are there for them: those of the frame and of its entry in the index, which is most
/// of a pack whose content compresses well.
pub fn shares(chunk: &ChunkRef) -> impl Iterator<Item = (Place, u64)> + '_ {
    let of_base = (chunk.raw_length as usize).div_ceil(PAGE_BYTES);
    let of_sets: &[PageSet] = match &chunk.content {
        ChunkContent::Zero => &[],
        ChunkContent::Stored { sets, .. } => sets,
    };
    let pages = std::iter::once(of_base).chain(of_sets.iter().map(|set| set.pages.len()));
    let share = |(place, pages): (Place, usize)| {
        (place, u64::from(place.length) + (ENTRY_BYTES + pages * size_of::<PageHash>()) as u64)
    };
    chunk.places().zip(pages).map(share)
}

/// One frame of a pack.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackEntry {
    /// Identity of the frame's raw content.
    pub id: ChunkId,
    /// The frame's first byte in the pack.
    pub offset: u64,
    /// Bytes of the frame.
    pub stored_length: u32,
    /// Bytes of its content.
    pub raw_length: u32,
    /// The frame holds a page set, and the hashes are those of its pages at their places in the chunk.
    pub page_set: bool,
    /// A hash for each page of the content, the last of which may be short.
    pub pages: Vec<PageHash>,
}

/// A pack that is not what it should be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PackError {
    /// No footer at the end: cut short, or not a pack.
    #[error("it does not end with a pack's description: it is cut short, or nothing that pitr stored")]
    Missing,
    /// A checksum is wrong.
    #[error("its {0} is damaged")]
    Checksum(&'static str),
    /// Written by a newer version.
    #[error("its format version is {0}, and this pitr reads {VERSION}")]
    Version(u16),
    /// It is another pack than its name says.
    #[error("it is pack {0}")]
    Identity(String),
    /// The checksums are right and the content is not.
    #[error("its index makes no sense: {0}")]
    Content(&'static str),
}

/// The index and the description of a pack, in the making.
#[derive(Debug, Default)]
pub struct PackIndex {
    entries: Vec<u8>,
    count: u32,
    raw_bytes: u64,
}

impl PackIndex {
    /// Adds a frame.
    pub fn push(&mut self, entry: &PackEntry) {
        self.entries.extend_from_slice(&entry.id.0);
        self.entries.extend_from_slice(&entry.offset.to_le_bytes());
        self.entries.extend_from_slice(&entry.stored_length.to_le_bytes());
        self.entries.extend_from_slice(&entry.raw_length.to_le_bytes());
        self.entries.extend_from_slice(&u16::from(entry.page_set).to_le_bytes());
        // At most 64: a frame holds no more than one chunk.
        self.entries.extend_from_slice(&(entry.pages.len() as u16).to_le_bytes());
        entry.pages.iter().for_each(|page| self.entries.extend_from_slice(&page.0));
        self.count += 1;
        self.raw_bytes += u64::from(entry.raw_length);
    }

    /// Bytes that the index will take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.entries.len()
    }

    /// The two frames that end the pack.
    ///
    /// # Errors
    /// The index has 4 GiB or more.
    pub fn finish(&self, id: PackId, cluster: SystemIdentifier) -> io::Result<Vec<u8>> {
        let mut out = Vec::with_capacity(self.entries.len() + 2 * FOOTER_FRAME_BYTES);
        skippable::write(skippable::INDEX, &self.entries, &mut out)?;
        let mut footer = Vec::with_capacity(FOOTER_BYTES);
        footer.extend_from_slice(MAGIC);
        footer.extend_from_slice(&VERSION.to_le_bytes());
        footer.extend_from_slice(&[0; 2]);
        footer.extend_from_slice(&self.count.to_le_bytes());
        footer.extend_from_slice(&(out.len() as u64).to_le_bytes());
        footer.extend_from_slice(&self.raw_bytes.to_le_bytes());
        footer.extend_from_slice(&cluster.0.to_le_bytes());
        footer.extend_from_slice(&name(id));
        footer.extend_from_slice(&crc32fast::hash(&self.entries).to_le_bytes());
        footer.resize(FOOTER_BYTES - 4, 0);
        footer.extend_from_slice(&crc32fast::hash(&footer).to_le_bytes());
        skippable::write(skippable::FOOTER, &footer, &mut out)?;
        Ok(out)
    }
}

/// The pack's name in 40 bytes, filled with zero bytes.
fn name(id: PackId) -> [u8; 40] {
    let mut name = [0; 40];
    let text = id.to_string();
    let length = text.len().min(name.len());
    name[..length].copy_from_slice(&text.as_bytes()[..length]);
    name
}

/// The description at the end of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackFooter {
    /// Frames in the pack.
    pub count: u32,
    /// Bytes of the index frame, its header included; it stands just before the footer.
    pub index_bytes: u64,
    /// Bytes of all frames' content.
    pub raw_bytes: u64,
    /// The cluster.
    pub system_identifier: SystemIdentifier,
    index_crc: u32,
}

impl PackFooter {
    /// Reads the footer from the end of the pack `id`, of which `suffix` holds at least the last 104 bytes.
    ///
    /// # Errors
    /// The first of the [`PackError`]s that applies.
    pub fn decode(suffix: &[u8], id: PackId) -> Result<PackFooter, PackError> {
        let frame = suffix.last_chunk::<FOOTER_FRAME_BYTES>().ok_or(PackError::Missing)?;
        let payload = skippable::payload(skippable::FOOTER, frame).ok_or(PackError::Missing)?;
        let footer: &[u8; FOOTER_BYTES] = payload.try_into().map_err(|_| PackError::Missing)?;
        if !footer.starts_with(MAGIC) {
            return Err(PackError::Missing);
        }
        let (content, crc) = footer.split_at(FOOTER_BYTES - 4);
        if crc32fast::hash(content).to_le_bytes() != crc {
            return Err(PackError::Checksum("description"));
        }
        let version = u16::from_le_bytes([footer[8], footer[9]]);
        if version != VERSION {
            return Err(PackError::Version(version));
        }
        if footer[40..80] != name(id) {
            return Err(PackError::Identity(footer[40..80].escape_ascii().to_string()));
        }
        Ok(PackFooter {
            count: u32_at(footer, 12),
            index_bytes: u64_at(footer, 16),
            raw_bytes: u64_at(footer, 24),
            system_identifier: SystemIdentifier(u64_at(footer, 32)),
            index_crc: u32_at(footer, 80),
        })
    }

    /// Reads the entries from the index frame, which is [`PackFooter::index_bytes`] long.
    ///
    /// # Errors
    /// The first of the [`PackError`]s that applies.
    pub fn entries(&self, index_frame: &[u8]) -> Result<Vec<PackEntry>, PackError> {
        let mut rest = skippable::payload(skippable::INDEX, index_frame).ok_or(PackError::Content("no index frame"))?;
        if crc32fast::hash(rest) != self.index_crc {
            return Err(PackError::Checksum("index"));
        }
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let (entry, behind) = entry(rest)?;
            entries.push(entry);
            rest = behind;
        }
        match entries.len() == self.count as usize {
            true => Ok(entries),
            false => Err(PackError::Content("it has another number of entries than the description says")),
        }
    }
}

fn entry(bytes: &[u8]) -> Result<(PackEntry, &[u8]), PackError> {
    let short = || PackError::Content("its last entry is cut short");
    let (fixed, rest) = bytes.split_first_chunk::<ENTRY_BYTES>().ok_or_else(short)?;
    let raw_length = u32_at(fixed, 44);
    let page_set = match u16::from_le_bytes([fixed[48], fixed[49]]) {
        0 => false,
        1 => true,
        _ => return Err(PackError::Content("an entry of unknown kind")),
    };
    let count = usize::from(u16::from_le_bytes([fixed[50], fixed[51]]));
    if count != (raw_length as usize).div_ceil(PAGE_BYTES) {
        return Err(PackError::Content("an entry has not one hash a page"));
    }
    let (hashes, rest) = rest.split_at_checked(count * 16).ok_or_else(short)?;
    let pages = hashes.as_chunks::<16>().0.iter().map(|&hash| PageHash(hash)).collect();
    let mut id = [0; 32];
    id.copy_from_slice(&fixed[..32]);
    let (offset, stored_length) = (u64_at(fixed, 32), u32_at(fixed, 40));
    Ok((PackEntry { id: ChunkId(id), offset, stored_length, raw_length, page_set, pages }, rest))
}

/// The number at `at`; callers know that it lies inside.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// The number at `at`; callers know that it lies inside.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Entry point for fuzzing: any bytes are read as the end of a pack or refused, without panic.
pub fn fuzz(bytes: &[u8]) {
    let id = PackId { backup: crate::catalog::BackupId::new(crate::wal::PgTime(0), 0), number: 0 };
    if let Ok(footer) = PackFooter::decode(bytes, id) {
        let before = &bytes[..bytes.len() - FOOTER_FRAME_BYTES];
        let start = before.len().saturating_sub(usize::try_from(footer.index_bytes).unwrap_or(usize::MAX));
        let _ = footer.entries(&before[start..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::BackupId;
    use crate::chunk::identify;
    use crate::wal::PgTime;

    fn id(number: u32) -> PackId {
        PackId { backup: BackupId::new(PgTime(0), 5), number }
    }

    fn entries() -> Vec<PackEntry> {
        [100usize, 20_000, 8192]
            .iter()
            .map(|&length| {
                let (chunk, pages) = identify(&vec![7; length]);
                PackEntry {
                    id: chunk,
                    offset: 3,
                    stored_length: 9,
                    raw_length: length as u32,
                    page_set: length == 8192,
                    pages,
                }
            })
            .collect()
    }

    fn end() -> Vec<u8> {
        let mut index = PackIndex::default();
        entries().iter().for_each(|entry| index.push(entry));
        index.finish(id(1), SystemIdentifier(7)).expect("small")
    }

    fn read(bytes: &[u8]) -> Result<Vec<PackEntry>, PackError> {
        let footer = PackFooter::decode(bytes, id(1))?;
        let before = &bytes[..bytes.len() - FOOTER_FRAME_BYTES];
        let start = before.len().checked_sub(footer.index_bytes as usize).ok_or(PackError::Missing)?;
        footer.entries(&before[start..])
    }

    /// The index reads back, and the lz4 tool passes over both frames.
    #[test]
    fn round_trip() {
        assert_eq!(read(&end()), Ok(entries()));
        let footer = PackFooter::decode(&end(), id(1)).expect("good");
        assert_eq!((footer.count, footer.raw_bytes, footer.system_identifier), (3, 28_292, SystemIdentifier(7)));
        assert!(matches!(PackFooter::decode(&end(), id(2)), Err(PackError::Identity(_))), "bound to its name");
    }

    /// Any flipped bit and any cut is reported.
    #[test]
    fn damage_is_reported() {
        let good = end();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(read(&bad).is_err(), "bit {bit}");
            fuzz(&bad);
        }
        for length in 0..good.len() {
            assert!(read(&good[..length]).is_err(), "cut to {length}");
        }
    }
}
