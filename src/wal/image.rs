//! Page images in the WAL (`XLogRecordBlockImageHeader` in `xlogrecord.h`).

use super::{PostgresMajor, pglz};

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

/// An image that gives no page.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ImageError {
    /// The hole does not lie in the page.
    #[error("the hole of a page image reaches beyond its page")]
    Hole,
    /// The bytes cannot be decompressed.
    #[error("a compressed page image cannot be decompressed")]
    Content,
    /// They are more or fewer than the page has without its hole.
    #[error("a page image has the wrong length")]
    Length,
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

    /// Makes the page that the image is of: the hole filled with zeros, as replay does (`RestoreBlockImage` in
    /// `xlogreader.c`).
    ///
    /// # Errors
    /// The bytes do not give a page; `page` then holds nothing of use.
    pub fn restore(&self, page: &mut [u8; DATA_PAGE_SIZE]) -> Result<(), ImageError> {
        let (start, hole) = (usize::from(self.hole_offset), usize::from(self.hole_length));
        let end = start.checked_add(hole).filter(|end| *end <= DATA_PAGE_SIZE).ok_or(ImageError::Hole)?;
        let used = DATA_PAGE_SIZE - hole;
        let there = match self.compression {
            ImageCompression::None => {
                let target = page.get_mut(..self.bytes.len()).ok_or(ImageError::Length)?;
                target.copy_from_slice(self.bytes);
                self.bytes.len()
            }
            ImageCompression::Pglz => pglz::decompress(self.bytes, &mut page[..used]).ok_or(ImageError::Content)?,
            ImageCompression::Lz4 => {
                let unpacked = lz4_flex::block::decompress_into(self.bytes, &mut page[..used]);
                unpacked.map_err(|_| ImageError::Content)?
            }
            ImageCompression::Zstd => {
                let unpacked = zstd::bulk::decompress_to_buffer(self.bytes, &mut page[..used]);
                unpacked.map_err(|_| ImageError::Content)?
            }
        };
        if there != used {
            return Err(ImageError::Length);
        }
        page.copy_within(start..used, end);
        page[start..end].fill(0);
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A page with a hole, whose bytes repeat enough to be compressed.
    fn page() -> [u8; DATA_PAGE_SIZE] {
        let mut page = [0; DATA_PAGE_SIZE];
        for (at, byte) in page.iter_mut().enumerate() {
            *byte = if (1000..5000).contains(&at) { 0 } else { (at / 7) as u8 };
        }
        page
    }

    fn image(bytes: &[u8], flags: u8, major: u16) -> BlockImage<'_> {
        let mut image = BlockImage::new(1000, flags, bytes.len(), PostgresMajor(major)).expect("a known image");
        if image.has_hole_length() {
            image.hole_length = 4000;
        }
        image.with_bytes(bytes)
    }

    /// Every method gives the page back, hole and all; 15 has other bits than 14.
    #[test]
    fn restored() {
        let page = page();
        let plain = [&page[..1000], &page[5000..]].concat();
        let lz4 = lz4_flex::block::compress(&plain);
        let zstd = zstd::bulk::compress(&plain, 3).expect("compression works");
        // Literals only: a control byte of zero before every eight bytes.
        let pglz: Vec<u8> = plain.chunks(8).flat_map(|part| [&[0], part].concat()).collect();
        for (bytes, flags, major) in [
            (&plain, 0x05, 13),
            (&pglz, 0x07, 14),
            (&plain, 0x03, 15),
            (&pglz, 0x07, 15),
            (&lz4, 0x0B, 16),
            (&zstd, 0x13, 18),
        ] {
            let image = image(bytes, flags, major);
            let mut restored = [0xFF; DATA_PAGE_SIZE];
            assert_eq!(image.restore(&mut restored), Ok(()), "{flags:#x} on {major}");
            assert!(restored == page && image.applied, "{flags:#x} on {major}");
        }
    }

    /// Holes that reach beyond the page, bytes cut short and methods that a version does not have are refused.
    #[test]
    fn refused() {
        let mut page = [0; DATA_PAGE_SIZE];
        let bytes = vec![1; 4192];
        let good = image(&bytes, 0x03, 15);
        assert_eq!(BlockImage { hole_offset: 8000, ..good }.restore(&mut page), Err(ImageError::Hole));
        assert_eq!(BlockImage { bytes: &bytes[1..], ..good }.restore(&mut page), Err(ImageError::Length));
        for compression in [ImageCompression::Pglz, ImageCompression::Lz4, ImageCompression::Zstd] {
            assert!(BlockImage { compression, ..good }.restore(&mut page).is_err(), "{compression:?}");
        }
        assert!(BlockImage::new(0, 0x08, 100, PostgresMajor(14)).is_some_and(|image| !image.applied));
        assert_eq!(BlockImage::new(0, 0x0D, 100, PostgresMajor(15)), None);
        assert_eq!(BlockImage::new(0, 0x01, 9000, PostgresMajor(15)), None);
    }
}
