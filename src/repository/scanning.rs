//! Reading the raw bytes of a stored copy, whole and in one pass, for the records in them.

use std::io::{self, BufWriter, Write};
use std::sync::mpsc::{self, SyncSender};

use super::wal::WalObjectName;
use super::{RepositoryError, ServerRepository, keys, malformed};
use crate::catalog::{BackupInfo, BackupWal};
use crate::codec::stored::StoredError;
use crate::recovery::WalCopy;
use crate::storage::Key;
use crate::wal::{
    Borders, Completeness, LONG_HEADER_SIZE, PostgresMajor, RecordVisitor, SegmentName, SegmentScan, SegmentScanner,
    SegmentSize, SystemIdentifier, check_segment_header,
};

impl ServerRepository {
    /// Writes the raw bytes of a copy to `out`: a segment, a `.partial`, or the tail that a backup brought along.
    ///
    /// # Errors
    /// It is damaged or gone, or the store fails.
    pub fn read_copy(&self, copy: &WalCopy, out: &mut dyn Write) -> Result<(), RepositoryError> {
        if let WalCopy::Tail { segment, backup } = copy {
            return self.read_tail(*segment, backup, out);
        }
        let name = self.object_of(copy)?;
        match self.fetch_object(name, out)? {
            Some(_) => Ok(()),
            None => Err(self.gone(&keys::object(&self.folder, name))),
        }
    }

    /// Shows all records of a copy to a visitor, the one over the border from the segments before too, of which `borders` has the
    /// pieces, and takes this segment's pieces into `borders`. Gives the outcome of the scan without those.
    ///
    /// # Errors
    /// It is damaged or gone, or the store fails.
    pub fn visit(
        &self,
        copy: &WalCopy,
        size: SegmentSize,
        major: PostgresMajor,
        borders: &mut Borders,
        visitor: &mut impl RecordVisitor,
    ) -> Result<SegmentScan, RepositoryError> {
        let completeness = if copy.is_served() { Completeness::Complete } else { Completeness::MayEnd };
        let before = Some(borders.clone());
        let mut scanning = Scanning::new(copy.segment(), size, completeness, before, visitor);
        self.read_ahead(copy, &mut scanning)?;
        let mut scan = scanning.finish().ok_or_else(|| self.unknown(&copy.segment().to_string()))?;
        borders.pass(scan.head.take(), scan.tail.take(), major);
        Ok(scan)
    }

    /// As [`ServerRepository::read_copy`], with a thread that reads and decompresses ahead of what `out` takes.
    fn read_ahead(&self, copy: &WalCopy, out: &mut impl Write) -> Result<(), RepositoryError> {
        std::thread::scope(|scope| {
            let (pieces, received) = mpsc::sync_channel(PIECES_AHEAD);
            let reading = scope.spawn(move || {
                let mut ahead = BufWriter::with_capacity(PIECE_BYTES, Ahead(pieces));
                self.read_copy(copy, &mut ahead)?;
                // Nobody who takes no more waits for the rest.
                let _ = ahead.flush();
                Ok(())
            });
            let taken = received.iter().try_for_each(|piece| out.write_all(&piece));
            // A writer who waits for room is told that there is nobody.
            drop(received);
            let read = reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            taken.map_err(|error| {
                let name = self.object_of(copy);
                let key = name.map_or_else(|_| self.folder.clone(), |name| keys::object(&self.folder, name));
                self.damaged(&key, StoredError::Target(error))
            })?;
            read
        })
    }

    /// The object that holds a copy. The tail of a backup is none of the WAL objects.
    pub(super) fn object_of(&self, copy: &WalCopy) -> Result<WalObjectName, RepositoryError> {
        match copy {
            WalCopy::Segment(name) => Ok(WalObjectName::Segment(*name)),
            WalCopy::Partial { segment, hash } => {
                let name = format!("{segment}.partial.{hash}");
                name.parse().map_err(|_| self.unknown(&name))
            }
            WalCopy::Tail { segment, .. } => Err(self.unknown(&segment.to_string())),
        }
    }

    pub(super) fn unknown(&self, name: &str) -> RepositoryError {
        let error = serde::de::Error::custom(format!("\"{name}\" names no stored WAL"));
        malformed(self.storage.as_ref(), &self.folder, &error)
    }

    fn read_tail(&self, segment: SegmentName, backup: &str, out: &mut dyn Write) -> Result<(), RepositoryError> {
        let Ok(id) = backup.parse() else { return Err(self.unknown(backup)) };
        let info = self.backup_info(id)?;
        let Some(BackupInfo { wal: BackupWal::Stream { tail: Some(tail) }, .. }) = info else {
            return Err(self.gone(&keys::tail(&self.folder, id, segment)));
        };
        let raw = self.wal_tail(id, &tail)?;
        out.write_all(&raw).map_err(|error| self.storage.failed("read", &self.folder, &error).into())
    }

    /// Whether an object is stored.
    pub(super) fn holds(&self, name: WalObjectName) -> Result<bool, RepositoryError> {
        Ok(self.storage.size(&keys::object(&self.folder, name))?.is_some())
    }

    pub(super) fn gone(&self, key: &Key) -> RepositoryError {
        let error = io::Error::new(io::ErrorKind::NotFound, "it was listed and is gone");
        self.storage.failed("open", key, &error).into()
    }
}

/// Bytes of a piece that is handed from the thread that reads to the one that looks, and how many may wait: two mebibytes in all.
const PIECE_BYTES: usize = 256 << 10;
const PIECES_AHEAD: usize = 7;

/// Hands what is written to another thread.
struct Ahead(SyncSender<Vec<u8>>);

impl Write for Ahead {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Scans what is written to it: a segment, from its first byte on. What is no segment of the name is refused as an error of writing.
pub struct Scanning<'a, V> {
    name: SegmentName,
    size: SegmentSize,
    completeness: Completeness,
    /// Bytes before the segment's header could be read.
    first: Vec<u8>,
    scanner: Option<SegmentScanner>,
    cluster: Option<SystemIdentifier>,
    before: Option<Borders>,
    visitor: &'a mut V,
}

impl<'a, V: RecordVisitor> Scanning<'a, V> {
    /// `before`: what ended the segments before, if the record over the border is to be visited too.
    #[must_use]
    pub fn new(
        name: SegmentName,
        size: SegmentSize,
        completeness: Completeness,
        before: Option<Borders>,
        visitor: &'a mut V,
    ) -> Scanning<'a, V> {
        Scanning { name, size, completeness, first: Vec::new(), scanner: None, cluster: None, before, visitor }
    }

    /// Whose segment it is, by its own first page.
    #[must_use]
    pub fn cluster(&self) -> Option<SystemIdentifier> {
        self.cluster
    }

    /// The outcome; `None` if not even a header was written.
    #[must_use]
    pub fn finish(self) -> Option<SegmentScan> {
        self.scanner.map(SegmentScanner::finish)
    }
}

impl<V: RecordVisitor> Write for Scanning<'_, V> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.scanner {
            Some(scanner) => scanner.feed_to(bytes, self.visitor),
            None => {
                self.first.extend_from_slice(bytes);
                if self.first.len() >= LONG_HEADER_SIZE {
                    let header = check_segment_header(&self.first, self.name, self.size.bytes());
                    let header = header.map_err(io::Error::other)?;
                    self.cluster = Some(header.system_identifier);
                    let mut scanner = SegmentScanner::new(&header, self.completeness);
                    if let Some(before) = self.before.take() {
                        scanner = scanner.after(before);
                    }
                    scanner.feed_to(&std::mem::take(&mut self.first), self.visitor);
                    self.scanner = Some(scanner);
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
