//! A stored WAL file: body, details, footer; written in one pass, read in one pass.

use std::io::{self, BufRead, BufReader, Read, Write};

use super::compression::FrameWriter;
use super::{Compression, Details, FOOTER_FRAME_BYTES, Footer, FooterError, read_frame, skippable};
use crate::wal::{SystemIdentifier, WalFileName};

/// Longest details frame that is read, in bytes.
const DETAILS_LIMIT: usize = 80 << 20;

/// Why a stored object is not the WAL file it should be.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// Its footer is missing or wrong.
    #[error(transparent)]
    Footer(#[from] FooterError),
    /// The body cannot be decompressed to the end.
    #[error("its body cannot be read: {0}")]
    Body(io::Error),
    /// The details cannot be read.
    #[error("its details cannot be read: {0}")]
    Details(io::Error),
    /// It is another file of this or another cluster than its name says.
    #[error("it is {found_file} of cluster {found_cluster}, and not {file} of cluster {cluster}")]
    Identity {
        /// What was asked for.
        file: WalFileName,
        /// Whose was asked for.
        cluster: SystemIdentifier,
        /// What it is.
        found_file: WalFileName,
        /// Whose it is.
        found_cluster: SystemIdentifier,
    },
    /// The raw bytes are not those that were stored.
    #[error(
        "its content is damaged: {found_length} bytes with checksum {found_crc:08X}, and {length} bytes with {crc:08X} were stored"
    )]
    Content {
        /// Stored length in bytes.
        length: u64,
        /// Stored CRC-32.
        crc: u32,
        /// Length now.
        found_length: u64,
        /// CRC-32 now.
        found_crc: u32,
    },
    /// Writing the raw bytes to where they were wanted failed; the object may be good.
    #[error("could not write the restored file: {0}")]
    Target(io::Error),
}

/// Writes a stored WAL file. `footer` gives everything but the lengths and the checksum, which are filled in here.
///
/// # Errors
/// `out` fails.
pub fn write(
    raw: &[u8],
    footer: Footer,
    details: &Details,
    compression: Compression,
    out: &mut dyn Write,
) -> io::Result<Footer> {
    let mut writer = StoredWriter::new(compression, raw.len() as u64, out)?;
    writer.write(raw)?;
    Ok(writer.finish(footer, details)?.0)
}

/// A stored WAL file that is written while its raw file is read.
#[derive(Debug)]
pub struct StoredWriter<W: Write> {
    body: FrameWriter<Counting<W>>,
    crc: crc32fast::Hasher,
    length: u64,
}

impl<W: Write> StoredWriter<W> {
    /// Begins the body of a raw file of `raw_length` bytes.
    ///
    /// # Errors
    /// `out` fails, or Zstandard cannot have the memory it needs.
    pub fn new(compression: Compression, raw_length: u64, out: W) -> io::Result<StoredWriter<W>> {
        let body = FrameWriter::new(compression, raw_length, Counting { out, count: 0 })?;
        Ok(StoredWriter { body, crc: crc32fast::Hasher::new(), length: 0 })
    }

    /// Takes the next bytes of the raw file.
    ///
    /// # Errors
    /// The target fails.
    pub fn write(&mut self, raw: &[u8]) -> io::Result<()> {
        self.crc.update(raw);
        self.length += raw.len() as u64;
        self.body.write(raw)
    }

    /// Bytes written so far; the last ones taken, less than a block, may not be among them.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.body.target().count
    }

    /// Writes details and footer behind the body, and gives the target back. `footer` gives everything but the lengths
    /// and the checksum, which are filled in here.
    ///
    /// # Errors
    /// The target fails, or the raw file was longer or shorter than was announced.
    pub fn finish(self, mut footer: Footer, details: &Details) -> io::Result<(Footer, W)> {
        let mut counted = self.body.finish()?;
        footer.raw_length = self.length;
        footer.raw_crc = self.crc.finalize();
        footer.body_length = counted.count;
        skippable::write(skippable::DETAILS, &details.encode()?, &mut counted)?;
        footer.details_length = counted.count - footer.body_length;
        counted.write_all(&footer.encode())?;
        Ok((footer, counted.out))
    }
}

/// Reads a stored WAL file in one pass, writing its raw bytes to `out`.
///
/// `out` has the right bytes only if this returns success: what it holds before must not be used.
///
/// # Errors
/// Anything that does not fit: see [`StoredError`].
pub fn read(
    source: impl Read,
    file: WalFileName,
    cluster: SystemIdentifier,
    limit_bytes: u64,
    out: &mut dyn Write,
) -> Result<Footer, StoredError> {
    let mut source = BufReader::with_capacity(256 << 10, source);
    let mut checked = Checked { out, crc: crc32fast::Hasher::new(), failed: None };
    let body = read_frame(&mut source, limit_bytes, &mut checked);
    let Checked { crc, failed, .. } = checked;
    if let Some(error) = failed {
        return Err(StoredError::Target(error));
    }
    let found_length = body.map_err(StoredError::Body)?;
    let rest = read_rest(&mut source).map_err(StoredError::Details)?;
    let footer = Footer::decode(&rest)?;
    check_identity(&footer, file, cluster)?;
    let found_crc = crc.finalize();
    if (footer.raw_length, footer.raw_crc) != (found_length, found_crc) {
        let (length, crc) = (footer.raw_length, footer.raw_crc);
        return Err(StoredError::Content { length, crc, found_length, found_crc });
    }
    Ok(footer)
}

/// Reads footer and details from the last bytes of an object. `None` if `suffix` is too short to hold both.
///
/// # Errors
/// The footer or the details are damaged, or belong to another file.
pub fn describe(
    suffix: &[u8],
    file: WalFileName,
    cluster: SystemIdentifier,
) -> Result<(Footer, Option<Details>), StoredError> {
    let footer = Footer::decode(suffix)?;
    check_identity(&footer, file, cluster)?;
    let details_end = suffix.len() - FOOTER_FRAME_BYTES;
    let length = usize::try_from(footer.details_length).unwrap_or(usize::MAX);
    let Some(start) = details_end.checked_sub(length) else { return Ok((footer, None)) };
    let details = decode_details(&suffix[start..details_end])?;
    Ok((footer, Some(details)))
}

/// Fails unless the footer describes what was asked for.
fn check_identity(footer: &Footer, file: WalFileName, cluster: SystemIdentifier) -> Result<(), StoredError> {
    let (found_file, found_cluster) = (footer.file, footer.system_identifier);
    if found_file == file && found_cluster == cluster {
        Ok(())
    } else {
        Err(StoredError::Identity { file, cluster, found_file, found_cluster })
    }
}

fn decode_details(frame: &[u8]) -> Result<Details, StoredError> {
    let not_there = || StoredError::Details(io::Error::other("they do not stand where the footer says"));
    let payload = skippable::payload(skippable::DETAILS, frame).ok_or_else(not_there)?;
    Details::decode(payload).map_err(StoredError::Details)
}

/// What follows the body: details and footer.
fn read_rest(source: &mut dyn BufRead) -> io::Result<Vec<u8>> {
    let limit = DETAILS_LIMIT + FOOTER_FRAME_BYTES;
    let mut rest = Vec::new();
    source.take(limit as u64 + 1).read_to_end(&mut rest)?;
    if rest.len() > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more follows the body than belongs there"));
    }
    Ok(rest)
}

/// Counts what goes through.
struct Counting<W> {
    out: W,
    count: u64,
}

impl<W: Write> Write for Counting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Runs the checksum over what goes through, and keeps a failure of the target apart from one of the source.
struct Checked<'a> {
    out: &'a mut dyn Write,
    crc: crc32fast::Hasher,
    failed: Option<io::Error>,
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.out.write_all(bytes) {
            self.failed = Some(error);
            return Err(io::Error::other("the target failed"));
        }
        self.crc.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::footer::tests::sample;
    use super::*;

    const FILE: &str = "0000000A0000000A0000003F";

    fn stored(compression: Compression) -> (Vec<u8>, Vec<u8>, Footer) {
        let raw: Vec<u8> = (0..10_000_u32).flat_map(|number| (number / 3).to_le_bytes()).collect();
        let mut object = Vec::new();
        let details = Details::default();
        let footer = write(&raw, sample(FILE.parse().unwrap()), &details, compression, &mut object).unwrap();
        (raw, object, footer)
    }

    fn read_back(object: &[u8]) -> Result<Vec<u8>, StoredError> {
        let footer = sample(FILE.parse().unwrap());
        let mut out = Vec::new();
        read(object, footer.file, footer.system_identifier, 40_000, &mut out).map(|_| out)
    }

    /// What is stored comes back, and the last bytes alone describe it.
    #[test]
    fn round_trip() {
        for compression in [Compression::Lz4, Compression::Zstd(3)] {
            let (raw, object, footer) = stored(compression);
            assert_eq!(read_back(&object).unwrap(), raw);
            let suffix = &object[object.len() - 1024..];
            let (found, details) = describe(suffix, footer.file, footer.system_identifier).unwrap();
            assert_eq!((found, details), (footer.clone(), Some(Details::default())));
            let short = &object[object.len() - FOOTER_FRAME_BYTES..];
            assert_eq!(describe(short, footer.file, footer.system_identifier).unwrap().1, None);
        }
    }

    /// No cut and no flipped bit goes unnoticed, wherever it is; nor does an object under another's name.
    #[test]
    fn damage() {
        for compression in [Compression::Lz4, Compression::Zstd(3)] {
            let (_, object, _) = stored(compression);
            for length in (0..object.len()).step_by(97).chain([object.len() - 1]) {
                assert!(read_back(&object[..length]).is_err(), "cut to {length}");
            }
            let details_start = object.len() - FOOTER_FRAME_BYTES - 200;
            for at in (0..details_start).step_by(31).chain(object.len() - FOOTER_FRAME_BYTES..object.len()) {
                let mut bad = object.clone();
                bad[at] ^= 0x10;
                assert!(read_back(&bad).is_err(), "{compression}: byte {at} of {}", object.len());
            }
            let other = "0000000A0000000A00000040".parse().unwrap();
            let cluster = sample(other).system_identifier;
            let refused = read(object.as_slice(), other, cluster, 40_000, &mut Vec::new());
            assert!(matches!(refused, Err(StoredError::Identity { .. })));
            let refused = read(object.as_slice(), FILE.parse().unwrap(), SystemIdentifier(1), 40_000, &mut Vec::new());
            assert!(matches!(refused, Err(StoredError::Identity { .. })));
        }
    }

    /// The standard tool reads the object as it is: no lock-in.
    #[test]
    fn standard_tools() {
        for (compression, tool) in [(Compression::Lz4, "lz4"), (Compression::Zstd(3), "zstd")] {
            let (raw, object, _) = stored(compression);
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("object");
            std::fs::write(&path, &object).unwrap();
            let output = std::process::Command::new(tool).arg("-dc").arg(&path).output().expect(tool);
            assert!(output.status.success(), "{tool}: {}", String::from_utf8_lossy(&output.stderr));
            assert!(output.stdout == raw, "{tool} gives other bytes");
        }
    }
}
