//! What a record is made of: references to blocks with their data and page images, and the main data.
//!
//! The layout is that of `xlogrecord.h`: after the record's header come the headers of the block references and of the
//! main data, then the blocks' images and data in the same order, then the main data. Nothing is copied or allocated:
//! records pass here hundreds of thousands of times a segment.

use super::bytes::{u16_at, u32_at};
use super::record::{HEADER_SIZE, RecordHeader};
use super::{BlockImage, PostgresMajor, RawRecord, RelationFile, Xid};

/// Block references have the ids 0 to 32 (`XLR_MAX_BLOCK_ID`).
const MAX_BLOCK_ID: u8 = 32;
/// Main data, with a length of one or four bytes.
const ID_DATA_SHORT: u8 = 255;
const ID_DATA_LONG: u8 = 254;
/// Replication origin of the record.
const ID_ORIGIN: u8 = 253;
/// The top-level transaction (14 and later, `wal_level = logical`).
const ID_TOPLEVEL_XID: u8 = 252;

/// Bits of a block reference's second byte; the low four are the fork.
const FORK_MASK: u8 = 0x0F;
const HAS_IMAGE: u8 = 0x10;
const HAS_DATA: u8 = 0x20;
const WILL_INIT: u8 = 0x40;
const SAME_RELATION: u8 = 0x80;

/// The parts of a record, from its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordContent<'a> {
    /// What the resource manager's operation says; cut at its end if the record was.
    pub data: &'a [u8],
    /// All of the main data is in `data`.
    pub data_whole: bool,
    /// The top-level transaction, where the record names it.
    pub top_level: Option<Xid>,
    /// Headers of the block references, one after the other.
    headers: &'a [u8],
    /// Images and data of the blocks, one after the other.
    payload: &'a [u8],
    major: PostgresMajor,
}

/// A block that a record is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockReference<'a> {
    /// Its number in the record, which tells its role.
    pub id: u8,
    /// The relation's file.
    pub file: RelationFile,
    /// 0 the main fork, 1 the free space map, 2 the visibility map, 3 the init fork.
    pub fork: u8,
    /// Number of the block in the fork.
    pub block: u32,
    /// Replay makes the page anew.
    pub will_init: bool,
    /// The page after the change.
    pub image: Option<BlockImage<'a>>,
    /// What the operation says about the block. Absent if there is an image that replay applies, unless the operation needs both.
    pub data: Option<&'a [u8]>,
}

impl<'a> RecordContent<'a> {
    /// Takes a record apart. `None` if it is not made as `xlogrecord.h` says, or cut within its headers.
    #[must_use]
    #[inline]
    pub fn of(record: &RawRecord<'a>, major: PostgresMajor) -> Option<Self> {
        Self::of_body(&record.header, record.body, major)
    }

    /// The same from header and body, which may be cut at its end.
    #[inline]
    pub(super) fn of_body(record: &RecordHeader, body: &'a [u8], major: PostgresMajor) -> Option<Self> {
        let length = (record.length as usize).checked_sub(HEADER_SIZE)?;
        let mut at = 0;
        let mut blocks_end = 0;
        let mut has_file = false;
        let mut payload_length = 0;
        let mut top_level = None;
        let mut data_length = 0;
        // A record without main data ends where its headers leave just what its blocks need.
        while at + payload_length < length {
            let id = *body.get(at)?;
            match id {
                ID_DATA_SHORT => {
                    data_length = usize::from(*body.get(at + 1)?);
                    at += 2;
                    break;
                }
                ID_DATA_LONG => {
                    data_length = u32_at(body, at + 1)? as usize;
                    at += 5;
                    break;
                }
                ID_ORIGIN => at += 3,
                ID_TOPLEVEL_XID => {
                    top_level = Some(Xid(u32_at(body, at + 1)?));
                    at += 5;
                }
                _ => {
                    let header = BlockHeader::read(body, at, major)?;
                    has_file |= header.file.is_some();
                    if !has_file {
                        return None;
                    }
                    at = header.end;
                    blocks_end = at;
                    payload_length += header.image_length + header.data_length;
                }
            }
        }
        if at + payload_length + data_length != length {
            return None;
        }
        let (payload, data) = body.get(at..)?.split_at(payload_length.min(body.len() - at));
        let data_whole = data.len() == data_length;
        Some(RecordContent { data, data_whole, top_level, headers: &body[..blocks_end], payload, major })
    }

    /// The blocks that the record is about, in the order of their ids. Ends early at one that was cut.
    pub fn blocks(&self) -> impl Iterator<Item = BlockReference<'a>> + use<'a> {
        let payload = self.payload;
        let mut used = 0;
        self.block_headers().map_while(move |(header, file)| {
            let image = payload.get(used..used + header.image_length)?;
            used += header.image_length;
            let data = payload.get(used..used + header.data_length)?;
            used += header.data_length;
            Some(BlockReference {
                id: header.id,
                file,
                fork: header.flags & FORK_MASK,
                block: header.block,
                will_init: header.flags & WILL_INIT != 0,
                image: header.image.map(|info| info.with_bytes(image)),
                data: (header.flags & HAS_DATA != 0).then_some(data),
            })
        })
    }

    /// Which blocks the record is about: file, fork ([`BlockReference::fork`]) and number. All of them, also of a record that was cut.
    pub fn block_numbers(&self) -> impl Iterator<Item = (RelationFile, u8, u32)> + use<'a> {
        self.block_headers().map(|(header, file)| (file, header.flags & FORK_MASK, header.block))
    }

    fn block_headers(&self) -> impl Iterator<Item = (BlockHeader, RelationFile)> + use<'a> {
        let RecordContent { headers, major, .. } = *self;
        let mut at = 0;
        let mut before = None;
        std::iter::from_fn(move || {
            while let Some(id) = headers.get(at).copied() {
                // Origin and top-level transaction may stand before a block.
                match id {
                    ID_ORIGIN => at += 3,
                    ID_TOPLEVEL_XID => at += 5,
                    _ => break,
                }
            }
            let header = BlockHeader::read(headers, at, major)?;
            at = header.end;
            let file = header.file.or(before)?;
            before = Some(file);
            Some((header, file))
        })
    }
}

/// The header of a block reference.
struct BlockHeader {
    id: u8,
    flags: u8,
    data_length: usize,
    image_length: usize,
    /// Without its bytes.
    image: Option<BlockImage<'static>>,
    /// `None`: the same as the reference before.
    file: Option<RelationFile>,
    block: u32,
    /// Where the next header begins.
    end: usize,
}

impl BlockHeader {
    #[inline]
    fn read(bytes: &[u8], mut at: usize, major: PostgresMajor) -> Option<Self> {
        let (id, flags) = (*bytes.get(at)?, *bytes.get(at + 1)?);
        if id > MAX_BLOCK_ID {
            return None;
        }
        let data_length = usize::from(u16_at(bytes, at + 2)?);
        at += 4;
        let mut image = None;
        let mut image_length = 0;
        if flags & HAS_IMAGE != 0 {
            image_length = usize::from(u16_at(bytes, at)?);
            let mut info = BlockImage::new(u16_at(bytes, at + 2)?, *bytes.get(at + 4)?, image_length, major)?;
            at += 5;
            if info.has_hole_length() {
                info.hole_length = u16_at(bytes, at)?;
                at += 2;
            }
            image = Some(info);
        }
        let mut file = None;
        if flags & SAME_RELATION == 0 {
            let (tablespace, database) = (u32_at(bytes, at)?, u32_at(bytes, at + 4)?);
            file = Some(RelationFile { tablespace, database, relation: u32_at(bytes, at + 8)? });
            at += 12;
        }
        let block = u32_at(bytes, at)?;
        Some(BlockHeader { id, flags, data_length, image_length, image, file, block, end: at + 4 })
    }
}
