//! One chunk as a standard frame: LZ4 or Zstandard, with the content's size and checksum in it, so that the `lz4` and
//! `zstd` tools can unpack it alone. The frame's first bytes tell which of the two it is.

use std::io;

use crate::codec::{Compression, unpack_frame};

/// Compresses one chunk into a frame of its own.
///
/// # Errors
/// Only what the compressor reports, which for a buffer in memory means that memory ran out.
pub fn compress(raw: &[u8], how: Compression) -> io::Result<Vec<u8>> {
    let mut stored = Vec::with_capacity(raw.len() / 2 + 64);
    how.write_frame(raw, &mut stored)?;
    Ok(stored)
}

/// Unpacks one frame of at most `limit_bytes` of content.
///
/// # Errors
/// Anything but exactly one whole frame of at most that size whose checksum holds.
pub fn decompress(stored: &[u8], limit_bytes: usize) -> io::Result<Vec<u8>> {
    let mut rest = stored;
    let raw = unpack_frame(&mut rest, limit_bytes)?;
    if rest.is_empty() { Ok(raw) } else { Err(io::Error::new(io::ErrorKind::InvalidData, "bytes follow the frame")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::CHUNK_BYTES;

    fn raw(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i / 7 % 200) as u8).collect()
    }

    /// What was stored comes back, in both codecs.
    #[test]
    fn round_trip() {
        for how in [Compression::Lz4, Compression::Zstd(3)] {
            for length in [1, 100, 65_536, 300_000, CHUNK_BYTES] {
                let raw = raw(length);
                let stored = compress(&raw, how).expect("compresses");
                assert_eq!(decompress(&stored, CHUNK_BYTES).expect("unpacks"), raw);
                assert!(decompress(&stored, length - 1).is_err());
            }
        }
    }

    /// Every flipped bit and every cut is reported, or changes nothing (a frame has a few bits that mean nothing).
    #[test]
    fn damage_is_reported() {
        let raw = raw(700);
        for how in [Compression::Lz4, Compression::Zstd(3)] {
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
