//! Checksums of data pages (`checksum_impl.h`), and which files consist of such pages.
//!
//! The rules are those of the server's own check in `basebackup.c`: a page that was never written carries no checksum, and a
//! page written since the backup began may be torn in the copy, which replay repairs from its full image in the WAL.

use super::EntryPath;
use super::relation_file::RelationFile;
use crate::wal::Lsn;

/// Bytes in a data page; clusters built with another block size are not checked.
pub const BLOCK_BYTES: usize = super::PAGE_BYTES;

/// Blocks in a full file of a relation: 1 GiB (`RELSEG_SIZE`).
pub const BLOCKS_PER_FILE: u32 = (1 << 30) / BLOCK_BYTES as u32;

/// Where the parallel sums start (`checksumBaseOffsets`).
const BASE_OFFSETS: [u32; 32] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// FNV's prime.
const PRIME: u32 = 16_777_619;

/// The checksum of a page of [`BLOCK_BYTES`] at block `block` of its relation fork (`pg_checksum_page`); never 0.
#[must_use]
pub fn checksum(page: &[u8; BLOCK_BYTES], block: u32) -> u16 {
    let mut sums = BASE_OFFSETS;
    let mut rows = page.chunks_exact(4 * sums.len());
    if let Some(first) = rows.next() {
        // The checksum's own field, bytes 8 and 9, counts as zero.
        let mut row = [0; 128];
        row.copy_from_slice(first);
        row[8..10].fill(0);
        mix(&mut sums, &row);
    }
    for row in rows {
        mix(&mut sums, row);
    }
    for _ in 0..2 {
        mix(&mut sums, &[0; 128]);
    }
    let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    (folded % 65_535 + 1) as u16
}

fn mix(sums: &mut [u32; 32], row: &[u8]) {
    for (sum, word) in sums.iter_mut().zip(row.as_chunks::<4>().0) {
        let mixed = *sum ^ u32::from_le_bytes(*word);
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

/// What a page's checksum says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageState {
    /// The checksum matches.
    Good,
    /// Never written, or written since the backup began: nothing to check.
    Unchecked,
    /// The checksum does not match.
    Bad,
}

/// Checks one page as the server's base backup does. `start` is the backup's start LSN.
#[must_use]
pub fn check(page: &[u8; BLOCK_BYTES], block: u32, start: Lsn) -> PageState {
    let half = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
    let word = |at: usize| u64::from(half(at)) | u64::from(half(at + 2)) << 16;
    // PageIsNew: pd_upper is 0. PageGetLSN: pd_lsn is the high half, then the low half.
    let lsn = Lsn(word(0) << 32 | word(4));
    if half(14) == 0 || lsn >= start {
        PageState::Unchecked
    } else if half(8) == checksum(page, block) {
        PageState::Good
    } else {
        PageState::Bad
    }
}

/// The number of the first block in a file, if the file is part of a relation fork that carries page checksums.
///
/// Main, `_fsm`, `_vm` and `_init` forks in `global`, `base/<database>` and `<version directory>/<database>` of a
/// tablespace (`parse_filename_for_nontemp_relation` and `sendDir`). Temporary relations (`t3_16384`) are not sent.
#[must_use]
pub fn first_block(path: &EntryPath, in_tablespace: bool) -> Option<u32> {
    let global = path.as_bytes().strip_prefix(b"global/").filter(|_| !in_tablespace);
    let name = global.or_else(|| path.in_database(in_tablespace).map(|(_, name)| name))?;
    RelationFile::parse(name)?.segment.checked_mul(BLOCKS_PER_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of a real cluster's shape, with a checksum in it.
    fn page(lsn: u64, block: u32) -> [u8; BLOCK_BYTES] {
        let mut page = [0; BLOCK_BYTES];
        page.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i % 253) as u8);
        page[..4].copy_from_slice(&((lsn >> 32) as u32).to_le_bytes());
        page[4..8].copy_from_slice(&(lsn as u32).to_le_bytes());
        let sum = checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    /// The checksum covers the block number: a page in the wrong place is bad even if whole. (That the algorithm is the
    /// server's is proved on real clusters, in the backup's tests.)
    #[test]
    fn states() {
        let good = page(0x1_0000_0010, 7);
        let later = Lsn(0x1_0000_0011);
        assert_eq!(check(&good, 7, later), PageState::Good);
        assert_eq!(check(&good, 8, later), PageState::Bad);
        assert_eq!(check(&good, 8, Lsn(0x1_0000_0010)), PageState::Unchecked);
        for at in [3, 100, 8191] {
            let mut bad = good;
            bad[at] ^= 4;
            assert_eq!(check(&bad, 7, Lsn(u64::MAX)), PageState::Bad, "{at}");
        }
        assert_eq!(check(&[0; BLOCK_BYTES], 0, later), PageState::Unchecked);
    }

    /// Files without page checksums are never called damaged, and blocks count on across files of 1 GiB.
    #[test]
    fn which_files() {
        let block = |path: &str, in_tablespace| {
            first_block(&EntryPath::new(path.as_bytes()).expect("a good path"), in_tablespace)
        };
        for (path, expected) in [
            ("global/1262", Some(0)),
            ("base/5/16384", Some(0)),
            ("base/5/16384.2", Some(262_144)),
            ("base/5/16384_fsm", Some(0)),
            ("base/5/16384_vm.1", Some(131_072)),
            ("base/5/16384_init", Some(0)),
            ("global/pg_control", None),
            ("global/pg_filenode.map", None),
            ("base/5/PG_VERSION", None),
            ("base/5/pg_internal.init", None),
            ("base/5/t3_16384", None),
            ("base/5/16384_tmp", None),
            ("base/5/16384.x", None),
            ("base/5/16384.99999", None),
            ("pg_xact/0000", None),
            ("16384", None),
        ] {
            assert_eq!(block(path, false), expected, "{path}");
        }
        assert_eq!(block("PG_15_202209061/5/16384.1", true), Some(131_072));
        assert_eq!(block("base/5/16384", true), None);
    }
}
