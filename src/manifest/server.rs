//! PostgreSQL's own `backup_manifest`, read as it streams in.
//!
//! The server writes it one object a line (`backup_manifest.c`, versions 13 to 18), so it is read line by line with bounded
//! memory. Its last member is a SHA-256 over everything before that member's line. It is trusted only when that holds:
//! entries that came before the end are not to be believed until [`ServerManifest::finish`] has said so.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::catalog::WalRange;
use crate::chunk::{from_hex, to_hex};
use crate::wal::{Lsn, SystemIdentifier, TimelineId};

/// The longest line: a path of 4095 bytes as hexadecimal digits, and the rest.
const MAX_LINE_BYTES: usize = 16 << 10;

/// What the server says about one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerFile {
    /// Path below the data directory; files of tablespaces are `pg_tblspc/<oid>/…`.
    pub path: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// CRC-32C of the content, if the server was asked for that checksum.
    pub crc32c: Option<u32>,
}

/// What the manifest says beside its files.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerManifestEnd {
    /// The WAL needed to become consistent.
    pub wal_ranges: Vec<WalRange>,
    /// The cluster (17 and later).
    pub system_identifier: Option<SystemIdentifier>,
}

/// A `backup_manifest` that is not whole, or not one of the versions known.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ServerManifestError {
    /// A line is not what PostgreSQL 13 to 18 write.
    #[error("line {line} of the server's backup_manifest is not valid: {reason}")]
    Line {
        /// The line's number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a newer server.
    #[error("the server's backup_manifest has version {0}, and this pitr reads 1 and 2")]
    Version(u64),
    /// It does not match its own checksum.
    #[error("the server's backup_manifest does not match its own checksum")]
    Checksum,
    /// It has no end.
    #[error("the server's backup_manifest ends after line {0}")]
    Truncated(u64),
}

/// Which part of the manifest the next line belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Version,
    BeforeFiles,
    Files,
    BeforeRanges,
    Ranges,
    Checksum,
    End,
}

/// Reads a `backup_manifest` in pieces.
#[derive(Debug)]
pub struct ServerManifest {
    part: Part,
    line: Vec<u8>,
    line_number: u64,
    checksum: Sha256,
    end: ServerManifestEnd,
}

impl Default for ServerManifest {
    fn default() -> Self {
        let (checksum, end) = (Sha256::new(), ServerManifestEnd::default());
        ServerManifest { part: Part::Version, line: Vec::new(), line_number: 1, checksum, end }
    }
}

impl ServerManifest {
    /// Takes the next bytes and hands each file that they complete to `each`.
    ///
    /// # Errors
    /// [`ServerManifestError`]; nothing must be pushed after one.
    pub fn push(&mut self, bytes: &[u8], mut each: impl FnMut(ServerFile)) -> Result<(), ServerManifestError> {
        for part in bytes.split_inclusive(|&b| b == b'\n') {
            if self.line.len() + part.len() > MAX_LINE_BYTES {
                return Err(self.wrong("it is too long"));
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                if let Some(file) = self.read_line(&line)? {
                    each(file);
                }
                self.line_number += 1;
                self.line = line;
                self.line.clear();
            }
        }
        Ok(())
    }

    /// After the last byte: what else the manifest says, now that all of it is known to be right.
    ///
    /// # Errors
    /// The manifest is not whole.
    pub fn finish(mut self) -> Result<ServerManifestEnd, ServerManifestError> {
        // The last line may come without a line feed.
        if !self.line.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.read_line(&line)?;
        }
        match self.part {
            Part::End => Ok(self.end),
            _ => Err(ServerManifestError::Truncated(self.line_number)),
        }
    }

    fn read_line(&mut self, line: &[u8]) -> Result<Option<ServerFile>, ServerManifestError> {
        if self.part == Part::Checksum {
            return self.check(line).map(|()| None);
        }
        self.checksum.update(line);
        let text = line.trim_ascii();
        match self.part {
            Part::Version => {
                let number = text.strip_prefix(b"{ \"PostgreSQL-Backup-Manifest-Version\": ");
                let number = number.and_then(|rest| rest.strip_suffix(b","));
                match number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok()) {
                    Some(1 | 2) => self.part = Part::BeforeFiles,
                    Some(other) => return Err(ServerManifestError::Version(other)),
                    None => return Err(self.wrong("no version")),
                }
            }
            Part::BeforeFiles if text == b"\"Files\": [" => self.part = Part::Files,
            Part::BeforeFiles => {
                let number = text.strip_prefix(b"\"System-Identifier\": ").and_then(|rest| rest.strip_suffix(b","));
                let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
                self.end.system_identifier = Some(number.ok_or_else(|| self.wrong("no list of files"))?);
            }
            Part::Files if text == b"]," => self.part = Part::BeforeRanges,
            Part::Files => return self.file(text).map(Some),
            Part::BeforeRanges if text == b"\"WAL-Ranges\": [" => self.part = Part::Ranges,
            Part::BeforeRanges => return Err(self.wrong("no WAL ranges")),
            Part::Ranges if text == b"]," => self.part = Part::Checksum,
            Part::Ranges => {
                let range = self.range(text)?;
                self.end.wal_ranges.push(range);
            }
            Part::Checksum | Part::End => return Err(self.wrong("it follows the end")),
        }
        Ok(None)
    }

    fn file(&self, text: &[u8]) -> Result<ServerFile, ServerManifestError> {
        let line: FileLine = self.object(text)?;
        let path = match (line.path, line.encoded_path) {
            (Some(path), None) => path.into_bytes(),
            (None, Some(hex)) => from_hex(&hex).ok_or_else(|| self.wrong("Encoded-Path is not hexadecimal"))?,
            _ => return Err(self.wrong("no path")),
        };
        let crc32c = match (line.algorithm.as_deref(), line.checksum) {
            (Some("CRC32C"), Some(hex)) => Some(self.crc32c(&hex)?),
            _ => None,
        };
        Ok(ServerFile { path, size: line.size, crc32c })
    }

    /// The digits are the checksum's bytes in memory order, on every server that runs today little-endian.
    fn crc32c(&self, hex: &str) -> Result<u32, ServerManifestError> {
        let bytes = from_hex(hex).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
        bytes.map(u32::from_le_bytes).ok_or_else(|| self.wrong("the checksum is not CRC-32C"))
    }

    fn range(&self, text: &[u8]) -> Result<WalRange, ServerManifestError> {
        let line: RangeLine = self.object(text)?;
        Ok(WalRange { timeline: line.timeline, start_lsn: line.start_lsn, end_lsn: line.end_lsn })
    }

    fn object<'t, T: Deserialize<'t>>(&self, text: &'t [u8]) -> Result<T, ServerManifestError> {
        serde_json::from_slice(text.strip_suffix(b",").unwrap_or(text)).map_err(|error| self.wrong(error))
    }

    fn check(&mut self, line: &[u8]) -> Result<(), ServerManifestError> {
        let found = to_hex(&std::mem::take(&mut self.checksum).finalize());
        if line.trim_ascii() == format!("\"Manifest-Checksum\": \"{found}\"}}").as_bytes() {
            self.part = Part::End;
            Ok(())
        } else {
            Err(ServerManifestError::Checksum)
        }
    }

    fn wrong(&self, reason: impl ToString) -> ServerManifestError {
        ServerManifestError::Line { line: self.line_number, reason: reason.to_string() }
    }
}

#[derive(Deserialize)]
struct FileLine {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Encoded-Path")]
    encoded_path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
    #[serde(rename = "Checksum-Algorithm")]
    algorithm: Option<String>,
    #[serde(rename = "Checksum")]
    checksum: Option<String>,
}

#[derive(Deserialize)]
struct RangeLine {
    #[serde(rename = "Timeline")]
    timeline: TimelineId,
    #[serde(rename = "Start-LSN")]
    start_lsn: Lsn,
    #[serde(rename = "End-LSN")]
    end_lsn: Lsn,
}

/// Entry point for fuzzing: any bytes in pieces of any size are read or refused, without panic and with bounded memory.
pub fn fuzz(bytes: &[u8]) {
    let piece = usize::from(bytes.first().copied().unwrap_or(0)) + 1;
    let mut manifest = ServerManifest::default();
    for part in bytes.get(1..).unwrap_or_default().chunks(piece) {
        if manifest.push(part, |_| ()).is_err() {
            return;
        }
    }
    let _ = manifest.finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest as a server of version 17 writes it.
    fn manifest() -> Vec<u8> {
        let body = concat!(
            "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n",
            "\"System-Identifier\": 7123456789012345678,\n",
            "\"Files\": [\n",
            "{ \"Path\": \"backup_label\", \"Size\": 227, \"Last-Modified\": \"2026-11-21 10:45:00 GMT\", ",
            "\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"0d0c0b0a\" },\n",
            "{ \"Encoded-Path\": \"ff2f61\", \"Size\": 0, \"Last-Modified\": \"2026-11-21 10:45:00 GMT\", ",
            "\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }\n",
            "],\n\"WAL-Ranges\": [\n",
            "{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n",
        );
        let sum = to_hex(&Sha256::digest(body.as_bytes()));
        format!("{body}\"Manifest-Checksum\": \"{sum}\"}}\n").into_bytes()
    }

    fn read(bytes: &[u8], piece: usize) -> Result<(Vec<ServerFile>, ServerManifestEnd), ServerManifestError> {
        let mut reader = ServerManifest::default();
        let mut files = Vec::new();
        for part in bytes.chunks(piece) {
            reader.push(part, |file| files.push(file))?;
        }
        Ok((files, reader.finish()?))
    }

    /// Paths that are not UTF-8, checksums and WAL ranges come out, however the stream is cut into messages.
    #[test]
    fn entries_in_any_pieces() {
        for piece in [1, 10, 100, 10_000] {
            let (files, end) = read(&manifest(), piece).expect("a good manifest");
            assert_eq!(files[0], ServerFile { path: b"backup_label".into(), size: 227, crc32c: Some(0x0a0b_0c0d) });
            assert_eq!(files[1].path, b"\xff/a");
            let range = WalRange { timeline: TimelineId(1), start_lsn: Lsn(0x200_0028), end_lsn: Lsn(0x200_0100) };
            assert_eq!(end.wal_ranges, [range]);
            assert_eq!(end.system_identifier, Some(SystemIdentifier(7_123_456_789_012_345_678)));
        }
        let unfinished = manifest().trim_ascii_end().to_vec();
        assert!(read(&unfinished, 50).is_ok(), "the last line feed is not needed");
    }

    /// Nothing in it can change unnoticed, and no part of it can be missing.
    #[test]
    fn damage_is_reported() {
        let good = manifest();
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(read(&bad, 100).is_err(), "byte {at}");
            assert!(read(&good[..at], 100).is_err(), "cut to {at}");
        }
        let newer = String::from_utf8(good).expect("text").replace("Version\": 2", "Version\": 3");
        assert_eq!(read(newer.as_bytes(), 100), Err(ServerManifestError::Version(3)));
    }
}
