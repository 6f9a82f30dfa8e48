//! `Source`: the file that PostgreSQL hands over, and the proof that it is what its name says.

use std::fs::{File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::PushError;
use crate::codec::Origin;
use crate::repository::ServerRecord;
use crate::repository::wal::NewWalFile;
use crate::wal::{
    LONG_HEADER_SIZE, PgTime, SegmentHeader, SegmentName, TimelineHistory, WalFileName, check_segment_header,
};

/// Longest file that is a segment, and longest that is not, in bytes.
const SEGMENT_LIMIT: u64 = 1 << 30;
const TEXT_LIMIT: u64 = 1 << 20;

/// An open WAL file, not read yet.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file_name: WalFileName,
    pub(super) path: PathBuf,
    pub(super) metadata: Metadata,
    file: File,
}

/// A WAL file in memory, checked against its name and its cluster.
#[derive(Debug)]
pub(super) struct Content {
    file_name: WalFileName,
    pub(super) raw: Vec<u8>,
    header: Option<SegmentHeader>,
}

impl Source {
    /// The name that a path ends with.
    pub(super) fn name(path: &Path) -> Result<WalFileName, PushError> {
        let name = path.file_name().unwrap_or_default();
        Ok(name.to_string_lossy().parse()?)
    }

    /// Opens the file. Its length can be no other than it should be for a whole segment, but that is checked later.
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
        Ok(Source { file_name, path: path.to_owned(), metadata, file })
    }

    /// Reads the whole file, once: header check, proof of the records, checksum and compression all use these bytes.
    pub(super) fn read(mut self, record: &ServerRecord) -> Result<Content, PushError> {
        let expected = self.metadata.len();
        // The limit holds: 1 GiB fits every usize that this program runs with.
        let mut raw = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
        let read = (&mut self.file).take(expected + 1).read_to_end(&mut raw);
        read.map_err(|source| PushError::Read { path: self.path.clone(), source })?;
        if raw.len() as u64 != expected {
            return Err(PushError::Changed { path: self.path, expected, found: raw.len() as u64 });
        }
        let header = match self.file_name {
            WalFileName::Segment(name) | WalFileName::Partial(name) => Some(self.check_header(name, &raw, record)?),
            WalFileName::History(timeline) => {
                // Recovery would trust whatever stands under this name, and the first copy stays for ever.
                TimelineHistory::parse(timeline, &raw)?;
                None
            }
            // Only people read it. PostgreSQL does not sync it, so after a crash it may even be empty, and refusing
            // it would keep everything behind it from being archived.
            WalFileName::Backup { .. } => None,
        };
        Ok(Content { file_name: self.file_name, raw, header })
    }

    fn check_header(&self, name: SegmentName, raw: &[u8], record: &ServerRecord) -> Result<SegmentHeader, PushError> {
        let first = &raw[..raw.len().min(LONG_HEADER_SIZE)];
        let header = check_segment_header(first, name, raw.len() as u64)?;
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
}

impl Content {
    /// Reads the records and puts together what is to be stored.
    pub(super) fn describe(&self, archived_by: Origin, archived_at: PgTime) -> NewWalFile<'_> {
        let new = NewWalFile::new(self.file_name, &self.raw, archived_by, archived_at);
        match &self.header {
            Some(header) => new.with_records(header),
            None => new,
        }
    }
}
