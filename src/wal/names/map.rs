//! `pg_filenode.map`: the files of the catalogs that cannot have theirs in `pg_class` (`relmapper.c`).
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | 0x592717 |
//! | 4 | 4 | how many pairs follow |
//! | 8 | 8 each | oid of the catalog, number of its file; room for 62 of them (13 to 15) or 64 (16 and later) |
//! | 504 or 520 | 4 | CRC-32C of all before it |
//!
//! The record that changes a map carries it whole.

use super::super::bytes::u32_at;

const MAGIC: u32 = 0x0059_2717;
const PAIRS_OFFSET: usize = 8;
const PAIR_SIZE: usize = 8;

/// Which file each mapped catalog has: those of one database, or the shared ones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelationMap {
    pairs: Vec<(u32, u32)>,
}

impl RelationMap {
    /// Reads the file. `None` if it is no map, or its checksum is wrong.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let room = bytes.len().checked_sub(PAIRS_OFFSET + 4)? / PAIR_SIZE;
        let crc_offset = PAIRS_OFFSET + room * PAIR_SIZE;
        let count = u32_at(bytes, 4)? as usize;
        let proved = u32_at(bytes, crc_offset)? == crc32c::crc32c(&bytes[..crc_offset]);
        if u32_at(bytes, 0)? != MAGIC || count > room || !proved {
            return None;
        }
        let pairs = bytes[PAIRS_OFFSET..].chunks_exact(PAIR_SIZE).take(count);
        Some(RelationMap { pairs: pairs.map_while(|pair| Some((u32_at(pair, 0)?, u32_at(pair, 4)?))).collect() })
    }

    /// The number of a catalog's file, if the catalog is mapped here.
    #[must_use]
    pub fn file_of(&self, oid: u32) -> Option<u32> {
        self.pairs.iter().find(|(mapped, _)| *mapped == oid).map(|(_, file)| *file)
    }

    /// The catalog that has this file.
    #[must_use]
    pub fn oid_of(&self, file: u32) -> Option<u32> {
        self.pairs.iter().find(|(_, mapped)| *mapped == file).map(|(oid, _)| *oid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(room: usize, pairs: &[(u32, u32)]) -> Vec<u8> {
        let count = u32::try_from(pairs.len()).expect("few");
        let mut bytes = [MAGIC.to_le_bytes(), count.to_le_bytes()].concat();
        for (oid, file) in pairs {
            bytes.extend([oid.to_le_bytes(), file.to_le_bytes()].concat());
        }
        bytes.resize(PAIRS_OFFSET + room * PAIR_SIZE, 0);
        bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
        bytes.resize(bytes.len().next_multiple_of(if room == 62 { 8 } else { 4 }), 0);
        bytes
    }

    /// Both sizes of the file are read; one that was changed in any byte that counts, or cut, is no map.
    #[test]
    fn proved() {
        for (room, size) in [(62, 512), (64, 524)] {
            let bytes = map(room, &[(1259, 16400), (1249, 1249)]);
            assert_eq!(bytes.len(), size);
            let read = RelationMap::parse(&bytes).expect("a map");
            assert_eq!((read.file_of(1259), read.oid_of(16400)), (Some(16400), Some(1259)));
            assert_eq!((read.file_of(1255), read.oid_of(1259)), (None, None));
            for at in [0, 4, 9, 100, PAIRS_OFFSET + room * PAIR_SIZE] {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert_eq!(RelationMap::parse(&changed), None, "{at}");
            }
            assert_eq!(RelationMap::parse(&bytes[..size - 16]), None);
        }
        assert_eq!(RelationMap::parse(&[]), None);
    }
}
