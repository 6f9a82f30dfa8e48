//! Page images in the WAL (`XLogRecordBlockImageHeader` in `xlogrecord.h`).

use super::PostgresMajor;

/// Bytes of a data page (`BLCKSZ`).
pub const DATA_PAGE_SIZE: usize = 8192;

/// Bits of the image header's last byte.
const HAS_HOLE: u8 = 0x01;

/// How the bytes of an image are compressed (`wal_compression`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ImageCompression {
    /// Not at all.
    None,
    /// PostgreSQL's own.
    Pglz,
    /// An LZ4 block (15 and later).
    Lz4,
    /// A Zstandard frame (15 and later).
    Zstd,
}

/// The image of a page, as it stands in the WAL: without the hole in the middle of the page, perhaps compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockImage<'a> {
    /// What stands in the WAL.
    pub bytes: &'a [u8],
    /// Where the hole begins in the page.
    pub hole_offset: u16,
    /// Bytes of the hole.
    pub hole_length: u16,
    /// How the bytes are compressed.
    pub compression: ImageCompression,
    /// Replay puts the image in place of the page; else it is only there for checking (`wal_consistency_checking`).
    pub applied: bool,
    has_hole: bool,
}

impl BlockImage<'_> {
    /// From the fields of the image's header; the bytes and a compressed image's hole length are filled in by the reader.
    /// `None` for a compression that the version does not know.
    pub(super) fn new(hole_offset: u16, flags: u8, length: usize, major: PostgresMajor) -> Option<BlockImage<'static>> {
        let has_hole = flags & HAS_HOLE != 0;
        // 15 gave each method a bit of its own, and moved the one that tells whether to apply.
        let (applied, methods) =
            if major.0 >= 15 { (flags & 0x02 != 0, flags & 0x1C) } else { (flags & 0x04 != 0, (flags & 0x02) << 1) };
        let compression = match methods {
            0x00 => ImageCompression::None,
            0x04 => ImageCompression::Pglz,
            0x08 => ImageCompression::Lz4,
            0x10 => ImageCompression::Zstd,
            _ => return None,
        };
        let plain_hole = has_hole && compression == ImageCompression::None;
        let hole_length = if plain_hole { u16::try_from(DATA_PAGE_SIZE.checked_sub(length)?).ok()? } else { 0 };
        Some(BlockImage { bytes: &[], hole_offset, hole_length, compression, applied, has_hole })
    }

    /// The same with its bytes.
    pub(super) fn with_bytes<'a>(self, bytes: &'a [u8]) -> BlockImage<'a>
    where
        Self: 'a,
    {
        BlockImage { bytes, ..self }
    }

    /// The header goes on with the length of the hole.
    pub(super) fn has_hole_length(&self) -> bool {
        self.has_hole && self.compression != ImageCompression::None
    }
}
