//! The identity of a chunk (BLAKE3 of its raw bytes) and the short hashes of its pages, computed in one pass.
//!
//! BLAKE3 is a tree over pieces of 1024 bytes. The node above the eight pieces of a page is exactly what a page hash
//! needs, so a page's hash is the first half of that node's chaining value, and the chunk's identity is merged from
//! the same nodes: every byte is read once. A node's value depends on its place in the chunk; pages are only
//! ever compared with the page at the same place, so that does no harm.

use std::fmt;
use std::str::FromStr;

use blake3::Hasher;
use blake3::hazmat::{ChainingValue, HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::PAGE_BYTES;

/// BLAKE3 of a chunk's raw bytes; 64 hexadecimal digits in text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// The identity of these raw bytes.
    #[must_use]
    pub fn of(raw: &[u8]) -> Self {
        ChunkId(*blake3::hash(raw).as_bytes())
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChunkId {
    type Err = blake3::HexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(ChunkId(*blake3::Hash::from_hex(text)?.as_bytes()))
    }
}

impl Serialize for ChunkId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(blake3::Hash::from_bytes(self.0).to_hex().as_str())
    }
}

impl<'de> Deserialize<'de> for ChunkId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The first 16 bytes of the BLAKE3 chaining value of one page at its place in its chunk.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct PageHash(pub [u8; 16]);

/// The identity of a chunk and the hashes of its pages; the last page may be short.
#[must_use]
pub fn identify(raw: &[u8]) -> (ChunkId, Vec<PageHash>) {
    let values: Vec<ChainingValue> = raw
        .chunks(PAGE_BYTES)
        .enumerate()
        .map(|(number, page)| {
            let offset = (number * PAGE_BYTES) as u64;
            Hasher::new().set_input_offset(offset).update(page).finalize_non_root()
        })
        .collect();
    let hashes = values.iter().map(|value| PageHash(first_half(value))).collect();
    let id = if values.len() < 2 { ChunkId::of(raw) } else { merged(&values, raw.len()) };
    (id, hashes)
}

/// The root over the pages of a chunk of more than one page.
fn merged(pages: &[ChainingValue], length: usize) -> ChunkId {
    let (left, right) = halves(pages, length);
    let root = merge_subtrees_root(&left, &right, Mode::Hash);
    ChunkId(*root.as_bytes())
}

/// The two nodes below the node over these pages.
fn halves(pages: &[ChainingValue], length: usize) -> (ChainingValue, ChainingValue) {
    // A left subtree is a power of two of pieces, hence of pages as soon as there is more than one page.
    let left_length = left_subtree_len(length as u64) as usize;
    let (left, right) = pages.split_at(left_length / PAGE_BYTES);
    (node(left, left_length), node(right, length - left_length))
}

fn node(pages: &[ChainingValue], length: usize) -> ChainingValue {
    match pages {
        [page] => *page,
        _ => {
            let (left, right) = halves(pages, length);
            merge_subtrees_non_root(&left, &right, Mode::Hash)
        }
    }
}

fn first_half(value: &ChainingValue) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&value[..16]);
    half
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::CHUNK_BYTES;

    /// The identity is plain BLAKE3, which any other program can compute, at every length and every shape of the tree.
    #[test]
    fn identity_is_plain_blake3() {
        let raw: Vec<u8> = (0..CHUNK_BYTES).map(|i| (i * 31 % 251) as u8).collect();
        let lengths =
            (0..40).map(|i| i * 1000).chain([1, 8191, 8192, 8193, 16384, 24576, CHUNK_BYTES - 1, CHUNK_BYTES]);
        for length in lengths {
            let (id, pages) = identify(&raw[..length]);
            assert_eq!(id, ChunkId::of(&raw[..length]), "{length}");
            assert_eq!(pages.len(), length.div_ceil(PAGE_BYTES));
            assert_eq!(id.to_string().parse::<ChunkId>().ok(), Some(id));
        }
    }

    /// A changed byte changes the hash of its page and of no other: that is how a later backup finds what changed. A page that
    /// was alone in its chunk keeps its hash when the file grows behind it.
    #[test]
    fn page_hashes_tell_changed_pages() {
        let mut raw = vec![7; 5 * PAGE_BYTES];
        let (_, before) = identify(&raw);
        raw[3 * PAGE_BYTES + 5] = 8;
        let (_, after) = identify(&raw);
        let changed: Vec<usize> = (0..5).filter(|&i| before[i] != after[i]).collect();
        assert_eq!(changed, [3]);
        assert_eq!(identify(&raw[..PAGE_BYTES]).1[0], after[0]);
    }
}
