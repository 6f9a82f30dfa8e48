//! How a manifest names a chunk: a base and page sets laid over it, each stored once in some pack.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::{CHUNK_BYTES, ChunkId, PAGE_BYTES};

/// The most page sets that a chunk may have; with one more it is stored anew.
pub const MAX_PAGE_SETS: usize = 8;

/// The most bytes that a stored frame may have: incompressible content plus the frame's own bytes.
const MAX_STORED_BYTES: u32 = (CHUNK_BYTES + (64 << 10)) as u32;

/// Where a frame is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Whose pack it is: an index into the manifest's `pack_sources`; 0 is the backup itself.
    pub source: u16,
    /// The pack's number, from 0.
    pub pack: u32,
    /// The frame's first byte in the pack.
    pub offset: u64,
    /// Bytes in the frame as stored.
    pub length: u32,
}

/// Pages that replace those of the base: one frame that holds them one after the other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageSet {
    /// Where the frame is.
    pub place: Place,
    /// The pages' numbers in the chunk, ascending, below 64.
    pub pages: Vec<u8>,
}

/// One chunk of a file: its length and where its content comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub struct ChunkRef {
    /// Bytes of the file in this chunk, 1 to [`CHUNK_BYTES`].
    pub raw_length: u32,
    /// CRC-32C of its bytes, from which that of the file is put together where not all of it is read. Backups of early versions lack it;
    /// it is `None` for zero bytes ([`ChunkRef::checksum`]).
    pub crc32c: Option<u32>,
    /// The content.
    pub content: ChunkContent,
}

impl ChunkRef {
    /// CRC-32C of its bytes, if that is known.
    #[must_use]
    pub fn checksum(&self) -> Option<u32> {
        match self.content {
            ChunkContent::Zero => Some(zeros(self.raw_length)),
            ChunkContent::Stored { .. } => self.crc32c,
        }
    }

    /// Where its frames are: that of the base, then those of the page sets.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.content.places()
    }
}

/// CRC-32C of so many zero bytes.
fn zeros(length: u32) -> u32 {
    static FULL: OnceLock<u32> = OnceLock::new();
    match length as usize {
        CHUNK_BYTES => *FULL.get_or_init(|| crc32c::crc32c(&[0; CHUNK_BYTES])),
        length => crc32c::crc32c(&vec![0; length]),
    }
}

/// Where a chunk's bytes come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ChunkContent {
    /// Nothing but zero bytes; not stored.
    Zero,
    /// A base, and page sets over it from the oldest to the newest.
    Stored {
        /// Identity of the finished chunk, page sets applied.
        id: ChunkId,
        /// The base's frame.
        base: Place,
        /// Page sets, at most [`MAX_PAGE_SETS`], oldest first; the newest that holds a page wins.
        sets: Vec<PageSet>,
    },
}

impl ChunkContent {
    /// As [`ChunkRef::places`].
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let (base, sets) = match self {
            ChunkContent::Zero => (None, &[][..]),
            ChunkContent::Stored { base, sets, .. } => (Some(*base), sets.as_slice()),
        };
        base.into_iter().chain(sets.iter().map(|set| set.place))
    }
}

/// A reference or a chunk that is not what the format allows, or not what its identity says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChunkError {
    /// The reference breaks a rule of the format.
    #[error("a chunk reference is not valid: {0}")]
    Reference(&'static str),
    /// A page set's frame does not hold the pages that it is said to hold.
    #[error("a page set of chunk {id} holds {found_bytes} bytes where {expected_bytes} were expected")]
    PageSet {
        /// The chunk.
        id: ChunkId,
        /// What the page numbers call for.
        expected_bytes: usize,
        /// What the frame held.
        found_bytes: usize,
    },
    /// The bytes have another identity: stored data is damaged or was exchanged.
    #[error("the content of chunk {expected} is damaged (its identity is {found})")]
    Identity {
        /// The identity in the manifest.
        expected: ChunkId,
        /// The identity of the bytes.
        found: ChunkId,
    },
}

/// The JSON form, short because there is one for every half mebibyte.
#[derive(Serialize, Deserialize)]
struct Fields {
    r: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    c: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    h: Option<ChunkId>,
    #[serde(default, skip_serializing_if = "is_zero")]
    b: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    p: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    o: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    s: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sets: Vec<SetFields>,
}

#[derive(Serialize, Deserialize)]
struct SetFields {
    #[serde(default, skip_serializing_if = "is_zero")]
    b: u16,
    p: u32,
    o: u64,
    s: u32,
    n: Vec<u8>,
}

// The signature is what serde's attribute asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// A place whose length fits a chunk.
fn checked(place: Place) -> Result<Place, ChunkError> {
    let length = place.length;
    if length == 0 || length > MAX_STORED_BYTES || place.offset.checked_add(u64::from(length)).is_none() {
        return Err(ChunkError::Reference("the stored length is out of range"));
    }
    Ok(place)
}

impl From<ChunkRef> for Fields {
    fn from(chunk: ChunkRef) -> Self {
        let (r, c) = (chunk.raw_length, chunk.crc32c);
        match chunk.content {
            ChunkContent::Zero => Fields { r, c: None, h: None, b: 0, p: None, o: None, s: None, sets: Vec::new() },
            ChunkContent::Stored { id, base, sets } => {
                let sets = sets.into_iter().map(SetFields::from).collect();
                let (p, o, s) = (Some(base.pack), Some(base.offset), Some(base.length));
                Fields { r, c, h: Some(id), b: base.source, p, o, s, sets }
            }
        }
    }
}

impl From<PageSet> for SetFields {
    fn from(PageSet { place, pages }: PageSet) -> Self {
        SetFields { b: place.source, p: place.pack, o: place.offset, s: place.length, n: pages }
    }
}

impl TryFrom<Fields> for ChunkRef {
    type Error = ChunkError;

    fn try_from(fields: Fields) -> Result<Self, ChunkError> {
        let raw_length = fields.r;
        if raw_length == 0 || raw_length as usize > CHUNK_BYTES {
            return Err(ChunkError::Reference("the length is out of range"));
        }
        if fields.sets.len() > MAX_PAGE_SETS {
            return Err(ChunkError::Reference("there are more than eight page sets"));
        }
        let content = match (fields.h, fields.p, fields.o, fields.s) {
            (None, None, None, None) if fields.sets.is_empty() => ChunkContent::Zero,
            (Some(id), Some(pack), Some(offset), Some(length)) => {
                let base = checked(Place { source: fields.b, pack, offset, length })?;
                let sets = fields.sets.into_iter().map(|set| page_set(set, raw_length)).collect::<Result<_, _>>()?;
                ChunkContent::Stored { id, base, sets }
            }
            _ => return Err(ChunkError::Reference("its identity or a part of its place is missing")),
        };
        Ok(ChunkRef { raw_length, crc32c: fields.c, content })
    }
}

fn page_set(fields: SetFields, raw_length: u32) -> Result<PageSet, ChunkError> {
    let SetFields { b, p, o, s, n } = fields;
    let pages = (raw_length as usize).div_ceil(PAGE_BYTES);
    let ascending = n.windows(2).all(|pair| pair[0] < pair[1]);
    match n.last() {
        Some(&last) if ascending && usize::from(last) < pages => {
            let place = checked(Place { source: b, pack: p, offset: o, length: s })?;
            Ok(PageSet { place, pages: n })
        }
        _ => Err(ChunkError::Reference("the pages of a page set are not ascending or outside the chunk")),
    }
}

/// Lays page sets over a base and proves the result.
///
/// `base` is the raw content of the base's frame; it is cut or filled with zero bytes to `raw_length` first, since a
/// file may have grown or shrunk since it was stored. `sets` are the raw contents of the sets' frames, oldest first.
///
/// # Errors
/// A page set of the wrong length, or bytes that do not have the identity.
pub fn assemble(raw_length: u32, id: ChunkId, base: Vec<u8>, sets: &[(&[u8], Vec<u8>)]) -> Result<Vec<u8>, ChunkError> {
    let mut chunk = base;
    chunk.resize(raw_length as usize, 0);
    for (pages, content) in sets {
        lay_over(&mut chunk, id, pages, content)?;
    }
    let found = ChunkId::of(&chunk);
    if found == id { Ok(chunk) } else { Err(ChunkError::Identity { expected: id, found }) }
}

fn lay_over(chunk: &mut [u8], id: ChunkId, pages: &[u8], content: &[u8]) -> Result<(), ChunkError> {
    let mut rest = content;
    for &page in pages {
        let start = usize::from(page) * PAGE_BYTES;
        let end = (start + PAGE_BYTES).min(chunk.len());
        let wrong = |found_bytes| ChunkError::PageSet { id, expected_bytes: pages.len() * PAGE_BYTES, found_bytes };
        if start >= end || rest.len() < end - start {
            return Err(wrong(content.len()));
        }
        let (bytes, behind) = rest.split_at(end - start);
        chunk[start..end].copy_from_slice(bytes);
        rest = behind;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(ChunkError::PageSet { id, expected_bytes: content.len() - rest.len(), found_bytes: content.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: u64) -> Place {
        Place { source: 0, pack: 3, offset, length: 100 }
    }

    /// The JSON of docs/FORMAT.md, field by field: later versions must read what this one wrote.
    #[test]
    fn json_form() {
        let zero = ChunkRef { raw_length: 524_288, crc32c: None, content: ChunkContent::Zero };
        assert_eq!(serde_json::to_string(&zero).expect("json"), r#"{"r":524288}"#);
        let id = ChunkId([0xab; 32]);
        let set = PageSet { place: Place { source: 1, ..place(7) }, pages: vec![0, 2] };
        let content = ChunkContent::Stored { id, base: place(9), sets: vec![set] };
        let stored = ChunkRef { raw_length: 20_000, crc32c: Some(77), content };
        let json = serde_json::to_string(&stored).expect("json");
        let expected = format!(
            r#"{{"r":20000,"c":77,"h":"{id}","p":3,"o":9,"s":100,"sets":[{{"b":1,"p":3,"o":7,"s":100,"n":[0,2]}}]}}"#
        );
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<ChunkRef>(&json).expect("reads back"), stored);
    }

    /// An edited manifest cannot make a reader allocate without bounds or write outside a chunk.
    #[test]
    fn references_out_of_range() {
        let h = ChunkId([1; 32]);
        let nine = [r#"{"p":1,"o":0,"s":1,"n":[0]}"#; 9].join(",");
        for wrong in [
            r#"{"r":0}"#.to_owned(),
            r#"{"r":524289}"#.to_owned(),
            format!(r#"{{"r":10,"h":"{h}"}}"#),
            r#"{"r":10,"p":1,"o":2,"s":3}"#.to_owned(),
            r#"{"r":10,"p":1}"#.to_owned(),
            format!(r#"{{"r":10,"h":"{h}","p":1,"o":2,"s":4294967295}}"#),
            format!(r#"{{"r":10,"h":"{h}","p":1,"o":18446744073709551615,"s":3}}"#),
            format!(r#"{{"r":10,"h":"{h}","p":1,"o":2,"s":3,"sets":[{{"p":1,"o":0,"s":1,"n":[1]}}]}}"#),
            format!(r#"{{"r":99999,"h":"{h}","p":1,"o":2,"s":3,"sets":[{{"p":1,"o":0,"s":1,"n":[1,0]}}]}}"#),
            format!(r#"{{"r":99999,"h":"{h}","p":1,"o":2,"s":3,"sets":[{{"p":1,"o":0,"s":1,"n":[]}}]}}"#),
            format!(r#"{{"r":99999,"h":"{h}","p":1,"o":2,"s":3,"sets":[{nine}]}}"#),
        ] {
            assert!(serde_json::from_str::<ChunkRef>(&wrong).is_err(), "{wrong}");
        }
    }

    /// The newest set that holds a page wins, a short last page fits, and a grown chunk starts from zero bytes.
    #[test]
    fn page_sets_overlay() {
        let page = |byte: u8| vec![byte; PAGE_BYTES];
        let length = 2 * PAGE_BYTES + 100;
        let mut expected = [page(5), page(2)].concat();
        expected.extend([9; 100]);
        let id = ChunkId::of(&expected);
        let newer = [page(5), vec![9; 100]].concat();
        let sets = [(&[0u8, 1][..], [page(1), page(2)].concat()), (&[0u8, 2][..], newer)];
        let chunk = assemble(length as u32, id, page(0), &sets).expect("assembles");
        assert_eq!(chunk, expected);
        let short = [(&[0u8][..], vec![1; 10])];
        assert!(matches!(assemble(length as u32, id, page(0), &short), Err(ChunkError::PageSet { .. })));
        let long = [(&[2u8][..], vec![1; 101])];
        assert!(matches!(assemble(length as u32, id, page(0), &long), Err(ChunkError::PageSet { .. })));
        assert!(matches!(assemble(length as u32, id, page(0), &[]), Err(ChunkError::Identity { .. })));
    }
}
