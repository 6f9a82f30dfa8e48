//! Skippable frames: what the lz4 and zstd tools pass over, and where the description of an object rides.

use std::io::{self, Write};

/// A description of variable size: one LZ4 frame of JSON.
pub const DETAILS: u32 = 0x184D_2A5E;
/// A footer of fixed size, the last frame of an object.
pub const FOOTER: u32 = 0x184D_2A5F;
/// The index of a pack: binary.
pub const INDEX: u32 = 0x184D_2A5C;
/// Reserved for sealed (encrypted) frames.
pub const SEALED: u32 = 0x184D_2A5D;

/// Bytes before the payload: magic and length.
pub const HEADER_BYTES: usize = 8;

/// Writes one skippable frame (LZ4 Frame Format, "Skippable Frames"; RFC 8878, 3.1.2).
///
/// # Errors
/// `out` fails, or the payload has 4 GiB or more.
pub fn write(magic: u32, payload: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    out.write_all(&magic.to_le_bytes())?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(payload)
}

/// The payload of the skippable frame that fills `frame` exactly.
#[must_use]
pub fn payload(magic: u32, frame: &[u8]) -> Option<&[u8]> {
    let (header, payload) = frame.split_at_checked(HEADER_BYTES)?;
    let found = u32::from_le_bytes(*header.first_chunk()?);
    let length = u32::from_le_bytes(*header.last_chunk()?);
    (found == magic && length as usize == payload.len()).then_some(payload)
}
