//! `Source`: the file that PostgreSQL hands over, and the proof that it is what its name says.

use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::PushError;
use crate::repository::ServerRecord;
use crate::wal::{LONG_HEADER_SIZE, SegmentHeader, SegmentName, TimelineHistory, WalFileName, check_segment_header};

/// Longest file that is a segment, and longest that is not, in bytes.
const SEGMENT_LIMIT: u64 = 1 << 30;
const TEXT_LIMIT: u64 = 1 << 20;

/// Bytes that are read, proved and compressed at a time: they stay in a core's own cache.
const PIECE_BYTES: usize = 256 << 10;

/// An open WAL file.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file_name: WalFileName,
    pub(super) metadata: Metadata,
    path: PathBuf,
    file: File,
}

impl Source {
    /// The name that a path ends with.
    pub(super) fn name(path: &Path) -> Result<WalFileName, PushError> {
        let name = path.file_name().unwrap_or_default();
        Ok(name.to_string_lossy().parse()?)
    }

    /// Opens the file.
    pub(super) fn open(path: &Path) -> Result<Source, PushError> {
        let file_name = Source::name(path)?;
        let failed = |source| PushError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(failed(std::io::Error::other("it is not a regular file")));
        }
        let limit = match file_name {
            WalFileName::Segment(_) | WalFileName::Partial(_) => SEGMENT_LIMIT,
            WalFileName::History(_) | WalFileName::Backup { .. } => TEXT_LIMIT,
        };
        if metadata.len() > limit {
            return Err(PushError::TooLong { path: path.to_owned(), found: metadata.len(), limit });
        }
        Ok(Source { file_name, metadata, path: path.to_owned(), file })
    }

    /// Where another segment of the same `pg_wal` lies.
    pub(super) fn beside(&self, other: SegmentName) -> PathBuf {
        self.path.with_file_name(other.to_string())
    }

    /// Gives the whole file to `each`, piece by piece, and checks that it was as long as when it was opened.
    pub(super) fn pieces(&mut self, mut each: impl FnMut(&[u8]) -> Result<(), PushError>) -> Result<(), PushError> {
        let expected = self.metadata.len();
        let mut buffer = Vec::with_capacity(PIECE_BYTES);
        let mut found = 0;
        loop {
            buffer.clear();
            let read = (&mut self.file).take(PIECE_BYTES as u64).read_to_end(&mut buffer);
            found += read.map_err(|source| PushError::Read { path: self.path.clone(), source })? as u64;
            if buffer.is_empty() && found == expected {
                return Ok(());
            }
            if buffer.is_empty() || found > expected {
                return Err(PushError::Changed { path: self.path.clone(), expected, found });
            }
            each(&buffer)?;
        }
    }

    /// The whole file in memory.
    pub(super) fn read(&mut self) -> Result<Vec<u8>, PushError> {
        let mut raw = Vec::with_capacity(usize::try_from(self.metadata.len()).unwrap_or(0));
        self.pieces(|piece| {
            raw.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(raw)
    }

    /// The file from its beginning on, once more.
    pub(super) fn again(&mut self) -> Result<&mut File, PushError> {
        self.file.seek(SeekFrom::Start(0)).map_err(|source| PushError::Read { path: self.path.clone(), source })?;
        Ok(&mut self.file)
    }

    /// Checks the first page of a segment or a `.partial` against its name and against the cluster that it is handed over
    /// for.
    pub(super) fn check_header(&self, name: SegmentName, record: &ServerRecord) -> Result<SegmentHeader, PushError> {
        let mut first = [0; LONG_HEADER_SIZE];
        let mut length = 0;
        while length < first.len() {
            match self.file.read_at(&mut first[length..], length as u64) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(source) => return Err(PushError::Read { path: self.path.clone(), source }),
            }
        }
        let header = check_segment_header(&first[..length], name, self.metadata.len())?;
        if header.system_identifier != record.system_identifier {
            return Err(PushError::Foreign {
                path: self.path.clone(),
                expected: record.system_identifier,
                found: header.system_identifier,
            });
        }
        if (header.major, header.segment_size) != (record.major, record.segment_size_bytes) {
            return Err(PushError::OtherKind {
                path: self.path.clone(),
                major: record.major,
                size: record.segment_size_bytes,
                found_major: header.major,
                found_size: header.segment_size,
            });
        }
        Ok(header)
    }

    /// Checks a file that is no segment. Recovery would trust whatever stands under a history file's name, and the first
    /// copy stays for ever. A `.backup` is read by people only; PostgreSQL does not sync it, so after a crash it may even be
    /// empty, and refusing it would keep everything behind it from being archived.
    pub(super) fn check_text(&self, raw: &[u8]) -> Result<(), PushError> {
        if let WalFileName::History(timeline) = self.file_name {
            TimelineHistory::parse(timeline, raw)?;
        }
        Ok(())
    }
}
