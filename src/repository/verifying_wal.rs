//! Proving stored WAL: all that a fetch checks, every record, that the description says what the body says, and the border to the
//! segment before.
//!
//! A segment is read in one pass with one request, unless it is a large one. Borders cost a further small read only where the
//! segments do not come one after the other.

use std::io::{self, Write};

use super::keys::{self, WalObjectName};
use super::scanning::Scanning;
use super::verifying::Watched;
use super::{RepositoryError, SegmentReader, ServerRecord, ServerRepository};
use crate::codec::stored::{self, StoredError};
use crate::codec::{Details, Footer};
use crate::storage::Key;
use crate::wal::{
    Completeness, Event, EventsTo, HeadPiece, Lsn, SegmentFacts, SegmentName, SegmentScan, SegmentSize, TailPiece,
    TimelineId, WalFileName,
};

/// Stored bytes that are read at once: a segment of 16 MiB that does not compress, with what is said of it. Larger ones are streamed.
const AT_ONCE_BYTES: u64 = 17 << 20;
/// Longest WAL file, in bytes.
const WAL_FILE_BYTES: u64 = 1 << 30;

/// What is wrong with a stored segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SegmentFlaw {
    /// A fetch of it fails: it cannot be unpacked, or is not what its name and its description say.
    Unreadable {
        /// Why.
        why: String,
    },
    /// Its records stop making sense, though its bytes are those that were stored.
    Records {
        /// All before it is good.
        good_until: Lsn,
        /// Why.
        why: String,
    },
    /// Its description does not say what its body says: plans would be wrong.
    Description {
        /// What differs.
        why: String,
    },
    /// The record that leads into it from the segment before does not hold; either may be the bad one.
    Border {
        /// All before it is good.
        good_until: Lsn,
        /// Why.
        why: String,
    },
}

/// What came of one segment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SegmentVerdict {
    /// What is wrong; empty if it is good.
    pub flaws: Vec<SegmentFlaw>,
    /// Bytes that it takes in the store.
    pub stored_bytes: u64,
}

/// Proves the WAL of one server.
#[derive(Debug)]
pub struct SegmentVerifier {
    reader: SegmentReader,
}

impl SegmentVerifier {
    /// For one server's WAL.
    #[must_use]
    pub fn new(server: &ServerRepository, record: &ServerRecord) -> SegmentVerifier {
        SegmentVerifier { reader: SegmentReader::new(server, record) }
    }

    /// Proves a segment. Whoever goes through them in order pays for no border.
    ///
    /// # Errors
    /// The store fails; the segment is gone.
    pub fn segment(&mut self, segment: SegmentName) -> Result<SegmentVerdict, RepositoryError> {
        let server = self.reader.server().clone();
        let name = WalObjectName::Segment(segment);
        let key = keys::object(&server.folder, name);
        let mut ends = Vec::new();
        let read = server.read_and_scan(name, self.reader.segment_size(), &mut |event| ends.push(event.end_lsn));
        let Scanned { footer, scan, description, stored_bytes } = match read {
            Ok(scanned) => scanned,
            Err(RepositoryError::Damaged { source, .. }) => {
                let flaws = vec![SegmentFlaw::Unreadable { why: source.to_string() }];
                return Ok(SegmentVerdict { flaws, stored_bytes: server.storage.size(&key)?.unwrap_or_default() });
            }
            Err(error) => return Err(error),
        };
        let mut verdict = SegmentVerdict { flaws: Vec::new(), stored_bytes };
        if let Some(damage) = &scan.damage {
            verdict.flaws.push(SegmentFlaw::Records { good_until: damage.lsn, why: damage.why.to_string() });
        }
        let description = match description {
            Ok(None) => server.describe(name).map(|described| described.details),
            Ok(Some(details)) => Ok(details),
            Err(error) => Err(server.damaged(&key, error)),
        };
        let wrong = match description {
            Ok(details) => differs(&footer, &details, &scan, &ends),
            Err(error) if error.is_no_answer() => return Err(error),
            Err(error) => Some(error.to_string()),
        };
        verdict.flaws.extend(wrong.map(|why| SegmentFlaw::Description { why }));
        if !verdict.flaws.is_empty() {
            return Ok(verdict);
        }
        match self.reader.lead_in(segment, &scan) {
            Ok((_, Some(damage))) => {
                verdict.flaws.push(SegmentFlaw::Border { good_until: damage.lsn, why: damage.why.to_string() });
            }
            Ok((_, None)) => {}
            Err(error) if error.is_no_answer() => return Err(error),
            // The history file, or the segment before, is damaged: told where it is looked at for its own sake.
            Err(_) => {}
        }
        Ok(verdict)
    }

    /// Proves another object of a group: an incomplete or damaged segment, or a backup history file. Gives its stored bytes.
    ///
    /// # Errors
    /// It is damaged or gone, or the store fails.
    pub fn other(&self, name: WalObjectName) -> Result<u64, RepositoryError> {
        let server = self.reader.server();
        match name {
            WalObjectName::Segment(_) | WalObjectName::Partial(..) => {
                let scanned = server.read_and_scan(name, self.reader.segment_size(), &mut drop)?;
                Ok(scanned.stored_bytes)
            }
            WalObjectName::Damaged(..) | WalObjectName::Backup(..) => {
                let key = keys::object(&server.folder, name);
                let (hash, size) = server.hash_of(&key, name.file())?;
                server.check_hash(name, &key, hash)?;
                Ok(size)
            }
        }
    }

    /// Proves the history file of a timeline; whether there is one.
    ///
    /// # Errors
    /// It is damaged, or the store fails.
    pub fn history(&self, timeline: TimelineId) -> Result<bool, RepositoryError> {
        let server = self.reader.server();
        let found = server.history(timeline)?.is_some();
        if found {
            server.describe_object(&keys::history(&server.folder, timeline), WalFileName::History(timeline))?;
        }
        Ok(found)
    }
}

/// What was read of an object.
struct Scanned {
    footer: Footer,
    scan: SegmentScan,
    /// Its details; `None` if they did not come along.
    description: Result<Option<Details>, StoredError>,
    stored_bytes: u64,
}

/// What the description says other than the body. An object that was stored without having been read says nothing; one that an
/// older version wrote may tell of fewer events.
fn differs(footer: &Footer, details: &Details, scan: &SegmentScan, ends: &[Lsn]) -> Option<String> {
    let facts = footer.facts.as_ref()?;
    // As they are stored: an LSN of 0, which the very first record names as the one before it, stands for none there.
    let stored = Footer { facts: Some(scan.facts), ..footer.clone() }.encode();
    if stored != footer.encode() {
        let count =
            |facts: &SegmentFacts| format!("{} commits and {} aborts up to {}", facts.commits, facts.aborts, facts.end);
        return Some(format!("it tells of {}, and its records are {}", count(facts), count(&scan.facts)));
    }
    let head = |piece: &HeadPiece| (piece.start, piece.remaining, piece.length, piece.crc);
    let tail = |piece: &TailPiece| (piece.start, piece.total_length, piece.length, piece.crc);
    if details.head.as_ref().map(head) != scan.head.as_ref().map(head)
        || details.tail.as_ref().map(tail) != scan.tail.as_ref().map(tail)
    {
        return Some("it tells of other records over the segment's borders than there are".to_owned());
    }
    let unknown = details.events.iter().find(|event| !ends.contains(&event.end_lsn))?;
    Some(format!("it tells of an event at {}, where there is none", unknown.lsn))
}

impl ServerRepository {
    /// The key of a stored WAL object, for messages.
    #[must_use]
    pub fn wal_object(&self, name: WalObjectName) -> Key {
        keys::object(&self.folder, name)
    }

    /// The key of a history file, for messages.
    #[must_use]
    pub fn history_object(&self, timeline: TimelineId) -> Key {
        keys::history(&self.folder, timeline)
    }

    /// Reads an object that holds WAL, whole, and scans it.
    fn read_and_scan(
        &self,
        name: WalObjectName,
        size: SegmentSize,
        each: &mut dyn FnMut(Event),
    ) -> Result<Scanned, RepositoryError> {
        let key = keys::object(&self.folder, name);
        let file = name.file();
        let completeness = match name {
            WalObjectName::Partial(..) => Completeness::MayEnd,
            _ => Completeness::Complete,
        };
        let mut visitor = EventsTo(each);
        let mut scanning = Scanning::new(name.segment(), size, completeness, None, &mut visitor);
        let mut out = Hashing {
            hasher: matches!(name, WalObjectName::Partial(..)).then(blake3::Hasher::new),
            out: &mut scanning,
        };
        let suffix = self.storage.get_suffix(&key, AT_ONCE_BYTES)?;
        let footer = if suffix.size <= AT_ONCE_BYTES {
            stored::read(suffix.bytes.as_slice(), file, self.system_identifier, WAL_FILE_BYTES, &mut out)
                .map_err(|error| self.damaged(&key, in_words(error)))?
        } else {
            self.read_stream(&key, file, &mut out)?
        };
        let hash = out.hasher.map(|hasher| hasher.finalize());
        if let Some(hash) = hash {
            self.check_hash(name, &key, hash)?;
        }
        let described = stored::describe(&suffix.bytes, file, self.system_identifier).map(|(_, details)| details);
        let wrong = |why: String| self.damaged(&key, StoredError::Body(io::Error::other(why)));
        if scanning.cluster().is_some_and(|found| found != self.system_identifier) {
            return Err(wrong("its first page was written by another cluster".to_owned()));
        }
        let scan = scanning.finish().ok_or_else(|| wrong("it is shorter than a WAL page".to_owned()))?;
        Ok(Scanned { footer, scan, description: described, stored_bytes: suffix.size })
    }

    /// Reads an object as a stream; a store that breaks off is told as such.
    fn read_stream(&self, key: &Key, file: WalFileName, out: &mut dyn Write) -> Result<Footer, RepositoryError> {
        let (source, failure) = Watched::new(self.storage.open(key)?);
        stored::read(source, file, self.system_identifier, WAL_FILE_BYTES, out).map_err(|error| match failure.take() {
            Some(failed) => self.storage.failed("read", key, &failed).into(),
            None => self.damaged(key, in_words(error)),
        })
    }

    /// The hash of an object's raw content, all of which is checked, and the object's size.
    fn hash_of(&self, key: &Key, file: WalFileName) -> Result<(blake3::Hash, u64), RepositoryError> {
        let mut nowhere = io::sink();
        let mut out = Hashing { hasher: Some(blake3::Hasher::new()), out: &mut nowhere };
        self.read_stream(key, file, &mut out)?;
        let described = self.describe_object(key, file)?;
        Ok((out.hasher.unwrap_or_default().finalize(), described.stored_bytes))
    }

    /// The hash in an object's name is that of its content.
    fn check_hash(&self, name: WalObjectName, key: &Key, hash: blake3::Hash) -> Result<(), RepositoryError> {
        let first = hash.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        match name {
            WalObjectName::Partial(_, expected) | WalObjectName::Damaged(_, expected) if expected != first => {
                let why = format!("its content has the hash {first:016x}");
                Err(self.damaged(key, StoredError::Body(io::Error::other(why))))
            }
            _ => Ok(()),
        }
    }
}

/// The scan of the bytes refuses only what is no segment of this name: that is the object's fault.
fn in_words(error: StoredError) -> StoredError {
    match error {
        StoredError::Target(error) => StoredError::Body(error),
        other => other,
    }
}

/// Hashes what goes through, where that is wanted.
struct Hashing<'a> {
    hasher: Option<blake3::Hasher>,
    out: &'a mut dyn Write,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
