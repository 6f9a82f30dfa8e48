//! Compression: standard LZ4 or Zstandard frames, so that `lz4 -d` and `zstd -d` read what is stored here for ever.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::str::FromStr;

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// First four bytes of an LZ4 frame (LZ4 Frame Format 1.6.4).
pub const LZ4_MAGIC: u32 = 0x184D_2204;
/// First four bytes of a Zstandard frame (RFC 8878, 3.1.1).
pub const ZSTD_MAGIC: u32 = 0xFD2F_B528;

/// How bodies are compressed: `lz4`, or `zstd:LEVEL` with a level from 1 to 19.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compression {
    /// LZ4 frames with a content checksum: quick.
    #[default]
    Lz4,
    /// Zstandard frames with a content checksum: about 40 % smaller, at half the speed or less.
    Zstd(i32),
}

/// Not a compression setting.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{0}\" is not a compression: \"lz4\" and \"zstd:1\" to \"zstd:19\" are")]
pub struct CompressionError(pub String);

impl FromStr for Compression {
    type Err = CompressionError;

    fn from_str(text: &str) -> Result<Self, CompressionError> {
        let level = match text {
            "lz4" => return Ok(Compression::Lz4),
            "zstd" => return Ok(Compression::Zstd(3)),
            _ => text.strip_prefix("zstd:").and_then(|level| level.parse().ok()),
        };
        match level {
            Some(level) if (1..=19).contains(&level) => Ok(Compression::Zstd(level)),
            _ => Err(CompressionError(text.to_owned())),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::Lz4 => f.write_str("lz4"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

impl Serialize for Compression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Compression {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Compression {
    /// Writes `raw` as one frame.
    ///
    /// # Errors
    /// `out` fails, or Zstandard cannot have the memory it needs.
    pub fn write_frame(self, raw: &[u8], out: &mut dyn Write) -> io::Result<()> {
        let mut frame = FrameWriter::new(self, raw.len() as u64, out)?;
        frame.write(raw)?;
        frame.finish()?;
        Ok(())
    }
}

/// One frame that is written piece by piece.
pub(super) struct FrameWriter<W: Write>(Encoder<W>);

enum Encoder<W: Write> {
    Lz4(Box<FrameEncoder<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> FrameWriter<W> {
    /// Begins a frame of `raw_length` bytes of content.
    ///
    /// # Errors
    /// `out` fails, or Zstandard cannot have the memory it needs.
    pub(super) fn new(compression: Compression, raw_length: u64, out: W) -> io::Result<FrameWriter<W>> {
        let encoder = match compression {
            Compression::Lz4 => {
                // 256 KiB blocks stay in a core's own cache; LZ4 looks back 64 KiB only, so larger ones gain nothing.
                let info = FrameInfo::new()
                    .block_mode(BlockMode::Independent)
                    .block_size(BlockSize::Max256KB)
                    .content_checksum(true)
                    .content_size(Some(raw_length));
                Encoder::Lz4(Box::new(FrameEncoder::with_frame_info(info, out)))
            }
            Compression::Zstd(level) => {
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                encoder.include_checksum(true)?;
                encoder.set_pledged_src_size(Some(raw_length))?;
                Encoder::Zstd(encoder)
            }
        };
        Ok(FrameWriter(encoder))
    }

    /// Takes the next bytes of the content.
    ///
    /// # Errors
    /// The target fails.
    pub(super) fn write(&mut self, raw: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Encoder::Lz4(encoder) => encoder.write_all(raw),
            Encoder::Zstd(encoder) => encoder.write_all(raw),
        }
    }

    /// Where it goes. The last bytes of the content, less than a block, may not have gone there yet.
    pub(super) fn target(&self) -> &W {
        match &self.0 {
            Encoder::Lz4(encoder) => encoder.get_ref(),
            Encoder::Zstd(encoder) => encoder.get_ref(),
        }
    }

    /// Ends the frame and gives its target back.
    ///
    /// # Errors
    /// The target fails, or more or fewer bytes were written than were announced.
    pub(super) fn finish(self) -> io::Result<W> {
        match self.0 {
            Encoder::Lz4(encoder) => encoder.finish().map_err(io::Error::from),
            Encoder::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> fmt::Debug for FrameWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Encoder::Lz4(_) => "FrameWriter(lz4)",
            Encoder::Zstd(_) => "FrameWriter(zstd)",
        })
    }
}

/// Reads one frame of either kind, as its first four bytes say, into `out`; returns the raw length.
///
/// Leaves `source` just behind the frame. Stops with an error as soon as more than `limit_bytes` come out, so a small
/// object cannot be blown up beyond what belongs there.
///
/// # Errors
/// Not a frame, damaged, cut short, too long, or reading or writing failed.
pub fn read_frame(source: &mut dyn BufRead, limit_bytes: u64, out: &mut dyn Write) -> io::Result<u64> {
    copy_bounded(decoder(source)?.as_mut(), limit_bytes, out)
}

/// The same into memory, without a copy between: for the many small frames of a base backup.
///
/// # Errors
/// As for [`read_frame`].
pub fn unpack_frame(source: &mut dyn BufRead, limit_bytes: usize) -> io::Result<Vec<u8>> {
    let mut raw = Vec::with_capacity(limit_bytes + 1);
    // One byte more than allowed tells a frame that is too large from one that just fits.
    decoder(source)?.take(limit_bytes as u64 + 1).read_to_end(&mut raw)?;
    if raw.len() > limit_bytes { Err(too_long(limit_bytes as u64)) } else { Ok(raw) }
}

/// What unpacks the frame that begins here.
fn decoder<'a>(source: &'a mut dyn BufRead) -> io::Result<Box<dyn Read + 'a>> {
    match peek_magic(source)? {
        LZ4_MAGIC => Ok(Box::new(FrameDecoder::new(Whole(source)))),
        ZSTD_MAGIC => Ok(Box::new(zstd::stream::read::Decoder::with_buffer(source)?.single_frame())),
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("no frame begins with {other:08X}"))),
    }
}

fn too_long(limit_bytes: u64) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("more than {limit_bytes} bytes come out of the frame"))
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

/// The four bytes that come next, without taking them.
fn peek_magic(source: &mut dyn BufRead) -> io::Result<u32> {
    match source.fill_buf()?.first_chunk::<4>() {
        Some(magic) => Ok(u32::from_le_bytes(*magic)),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn copy_bounded(decoder: &mut dyn Read, limit_bytes: u64, out: &mut dyn Write) -> io::Result<u64> {
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    loop {
        let count = decoder.read(&mut buffer)?;
        if count == 0 {
            return Ok(total);
        }
        total += count as u64;
        if total > limit_bytes {
            return Err(too_long(limit_bytes));
        }
        out.write_all(&buffer[..count])?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        (0..700_000_u32).flat_map(|number| (number / 7).to_le_bytes()).collect()
    }

    /// Frames of both kinds read back, one after the other from one stream, and bound what they may blow up to.
    #[test]
    fn round_trip() {
        for setting in ["lz4", "zstd:3", "zstd:19"] {
            let compression: Compression = setting.parse().unwrap();
            assert_eq!(compression.to_string(), setting);
            let mut stored = Vec::new();
            compression.write_frame(&sample(), &mut stored).unwrap();
            compression.write_frame(b"second", &mut stored).unwrap();
            let mut source = io::BufReader::new(stored.as_slice());
            let mut out = Vec::new();
            assert_eq!(read_frame(&mut source, 2_800_000, &mut out).unwrap(), 2_800_000);
            assert_eq!(out, sample());
            let mut out = Vec::new();
            read_frame(&mut source, 6, &mut out).unwrap();
            assert_eq!(out, b"second");
            let mut source = io::BufReader::new(stored.as_slice());
            assert!(read_frame(&mut source, 2_799_999, &mut Vec::new()).is_err());
        }
        for wrong in ["", "gzip", "zstd:0", "zstd:20", "lz4:1"] {
            assert!(wrong.parse::<Compression>().is_err(), "{wrong:?}");
        }
    }
}
