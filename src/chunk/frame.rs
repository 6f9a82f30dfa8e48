//! One chunk as a standard frame: LZ4 or Zstandard, with the content's size and checksum in it, so that the `lz4` and
//! `zstd` tools can unpack it alone. The frame's first bytes tell which of the two it is.

use std::io::{self, Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

/// The first bytes of an LZ4 frame.
const LZ4_MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();

/// The first bytes of a Zstandard frame.
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528_u32.to_le_bytes();

/// How new chunks are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChunkCompression {
    /// LZ4: quick enough to keep up with the server on one core.
    Lz4,
    /// Zstandard at this level (1 to 22): about 40 % smaller at half the speed.
    Zstd(i32),
}

/// A stored frame that cannot be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The first bytes are neither those of LZ4 nor of Zstandard.
    #[error("it does not begin with an LZ4 or Zstandard frame")]
    Magic,
    /// More content than any reader asked for.
    #[error("it unpacks to more than {limit_bytes} bytes")]
    TooLarge {
        /// The most that was allowed.
        limit_bytes: usize,
    },
    /// The frame is damaged or cut short.
    #[error("it cannot be unpacked: {0}")]
    Damaged(io::Error),
}

/// Compresses one chunk into a frame of its own.
///
/// # Errors
/// Only what the compressor reports, which for a buffer in memory means that memory ran out.
pub fn compress(raw: &[u8], how: ChunkCompression) -> io::Result<Vec<u8>> {
    match how {
        ChunkCompression::Lz4 => {
            let info = FrameInfo::new()
                .block_size(block_size(raw.len()))
                .block_mode(BlockMode::Independent)
                .content_size(Some(raw.len() as u64))
                .content_checksum(true);
            let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(raw.len() / 2 + 64));
            encoder.write_all(raw)?;
            Ok(encoder.finish()?)
        }
        ChunkCompression::Zstd(level) => {
            let mut encoder = zstd::bulk::Compressor::new(level)?;
            encoder.include_checksum(true)?;
            encoder.compress(raw)
        }
    }
}

/// The smallest block that holds the chunk, so that a small file does not cost a large buffer.
fn block_size(length: usize) -> BlockSize {
    match length {
        0..=0x1_0000 => BlockSize::Max64KB,
        0x1_0001..=0x4_0000 => BlockSize::Max256KB,
        _ => BlockSize::Max1MB,
    }
}

/// Unpacks one frame of at most `limit_bytes` of content.
///
/// # Errors
/// Anything but exactly one whole frame whose checksum holds.
pub fn decompress(stored: &[u8], limit_bytes: usize) -> Result<Vec<u8>, FrameError> {
    let mut raw = Vec::new();
    let mut rest = stored;
    let reader: Box<dyn Read + '_> = match stored.first_chunk() {
        Some(&LZ4_MAGIC) => Box::new(FrameDecoder::new(Whole(&mut rest))),
        Some(&ZSTD_MAGIC) => {
            Box::new(zstd::Decoder::with_buffer(&mut rest).map_err(FrameError::Damaged)?.single_frame())
        }
        _ => return Err(FrameError::Magic),
    };
    // One byte more than allowed tells a frame that is too large from one that just fits.
    reader.take(limit_bytes as u64 + 1).read_to_end(&mut raw).map_err(FrameError::Damaged)?;
    if raw.len() > limit_bytes {
        return Err(FrameError::TooLarge { limit_bytes });
    }
    if !rest.is_empty() {
        return Err(FrameError::Damaged(io::Error::new(io::ErrorKind::InvalidData, "bytes follow the frame")));
    }
    Ok(raw)
}

/// A reader that must not end inside an LZ4 frame.
///
/// `lz4_flex` takes an input that ends between two blocks for the end of the frame, and would so hand out a truncated
/// frame as a whole one. Here the end of the input is an error; its decoder tells the end of the frame before.
#[derive(Debug)]
pub(crate) struct Whole<R>(pub(crate) R);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            Ok(0) if !buffer.is_empty() => Err(io::Error::new(io::ErrorKind::InvalidData, "it ends too early")),
            read => read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::CHUNK_BYTES;

    fn raw(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i / 7 % 200) as u8).collect()
    }

    /// What was stored comes back, in both codecs and at every block size.
    #[test]
    fn round_trip() {
        for how in [ChunkCompression::Lz4, ChunkCompression::Zstd(3)] {
            for length in [1, 100, 65_536, 65_537, 300_000, CHUNK_BYTES] {
                let raw = raw(length);
                let stored = compress(&raw, how).expect("compresses");
                assert_eq!(decompress(&stored, CHUNK_BYTES).expect("unpacks"), raw);
                assert!(matches!(decompress(&stored, length - 1), Err(FrameError::TooLarge { .. })));
            }
        }
    }

    /// Every flipped bit and every cut is reported, or changes nothing (a frame has a few bits that mean nothing).
    #[test]
    fn damage_is_reported() {
        let raw = raw(3000);
        for how in [ChunkCompression::Lz4, ChunkCompression::Zstd(3)] {
            let stored = compress(&raw, how).expect("compresses");
            for bit in 0..stored.len() * 8 {
                let mut bad = stored.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(decompress(&bad, CHUNK_BYTES).map_or(true, |found| found == raw), "{how:?} bit {bit}");
            }
            for length in 0..stored.len() {
                assert!(decompress(&stored[..length], CHUNK_BYTES).is_err(), "{how:?} cut to {length}");
            }
            let longer = [&stored[..], b"x"].concat();
            assert!(decompress(&longer, CHUNK_BYTES).is_err());
        }
    }
}
