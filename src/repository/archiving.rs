//! Archiving WAL files: once, durable, and never over anything else.

use std::io::{self, Read, Write};

use super::keys::{self, WalObjectName};
use super::proof::{Proof, Proved};
use super::wal::StoredWalFile;
use super::{Conflict, RepositoryError, ServerRepository, StoredEntry};
use crate::codec::stored::{self, StoredWriter};
use crate::codec::{Compression, DamageNote, Details, FOOTER_FRAME_BYTES, Footer, Origin};
use crate::storage::{Key, NewObject, Put};
use crate::wal::{
    Border, Completeness, Continuity, Damage, PgTime, PostgresMajor, SegmentFacts, SegmentHeader, SegmentName,
    SegmentSize, TimelineId, WalFileName,
};

/// A WAL file to be archived, with what is known about it.
#[derive(Clone, Debug)]
pub struct NewWalFile<'a> {
    /// Its name.
    pub file: WalFileName,
    /// Its bytes.
    pub raw: &'a [u8],
    /// Version and segment size; not known of history files.
    pub written_by: Option<(PostgresMajor, SegmentSize)>,
    /// What its records say, if they were read.
    pub facts: Option<SegmentFacts>,
    /// Who archives it, and what has no fixed size. With `damage`, a segment does not get its true name.
    pub details: Details,
    /// Now, by this host's clock.
    pub archived_at: PgTime,
}

impl<'a> NewWalFile<'a> {
    /// A file of which nothing is known but its name and who archives it.
    #[must_use]
    pub fn new(file: WalFileName, raw: &'a [u8], archived_by: Origin, archived_at: PgTime) -> Self {
        let details = Details { archived_by, ..Details::default() };
        NewWalFile { file, raw, written_by: None, facts: None, details, archived_at }
    }

    /// With the records of a segment or `.partial` read. `header` is what the file begins with, checked against its name.
    #[must_use]
    pub fn with_records(self, header: &SegmentHeader) -> Self {
        let completeness = match self.file {
            WalFileName::Partial(_) => Completeness::MayEnd,
            _ => Completeness::Complete,
        };
        let mut proof = Proof::new(header, completeness);
        proof.feed(self.raw);
        let Proved { facts, details, .. } = proof.finish(None, self.details.archived_by);
        NewWalFile { written_by: Some((header.major, header.segment_size)), facts, details, ..self }
    }
}

/// What came of archiving a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Archived {
    /// Stored, durable, under this name.
    Stored(StoredAs),
    /// The same bytes were there already, and are durable now.
    AlreadyThere(StoredAs),
}

/// Under what kind of name a file was stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StoredAs {
    /// The history file of this timeline.
    History(TimelineId),
    /// Any other.
    Object(WalObjectName),
}

/// A complete segment that is archived while it is read, in memory that does not grow with it. Dropped, it leaves
/// nothing.
pub struct NewSegment<'a> {
    server: &'a ServerRepository,
    header: SegmentHeader,
    compression: Compression,
    key: Key,
    proof: Proof,
    writer: StoredWriter<Box<dyn NewObject>>,
}

/// A segment that was read to its end, and is to be stored. Dropped, it leaves nothing.
pub struct ReadSegment<'a> {
    server: &'a ServerRepository,
    header: SegmentHeader,
    compression: Compression,
    key: Key,
    proved: Proved,
    writer: StoredWriter<Box<dyn NewObject>>,
}

/// A segment that was stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredSegment {
    /// What came of it.
    pub archived: Archived,
    /// Where it is damaged, if it is.
    pub damage: Option<DamageNote>,
    /// CRC-32 (IEEE) of its bytes.
    pub raw_crc: u32,
    /// What is known of it for the roll-up of its group; `None` if its records were not read, or are damaged.
    pub entry: Option<StoredEntry>,
}

impl ServerRepository {
    /// Archives a WAL file: durable when this returns success, and never over anything else.
    ///
    /// # Errors
    /// [`RepositoryError::Conflict`] if the name holds other content; the store fails; what stands under the name is
    /// damaged.
    pub fn archive(&self, new: &NewWalFile, compression: Compression) -> Result<Archived, RepositoryError> {
        self.store(new, compression).map(|(archived, _)| archived)
    }

    fn store(&self, new: &NewWalFile, compression: Compression) -> Result<(Archived, Footer), RepositoryError> {
        let (stored_as, key) = self.name_for(new);
        let mut object = self.storage.create(&key)?;
        let footer = self.footer(new.file, new.written_by, new.facts, &new.details, new.archived_at);
        let footer = stored::write(new.raw, footer, &new.details, compression, &mut object)
            .map_err(|error| self.storage.failed("write", &key, &error))?;
        match object.publish()? {
            Put::Created => Ok((Archived::Stored(stored_as), footer)),
            Put::Exists => {
                let mut ours =
                    |out: &mut dyn Write| out.write_all(new.raw).map_err(|error| self.failed_to_compare(&key, &error));
                self.confirm_same(new.file, &footer, &new.details.archived_by, &mut ours, &key)?;
                self.storage.settle(&key)?;
                Ok((Archived::AlreadyThere(stored_as), footer))
            }
        }
    }

    fn name_for(&self, new: &NewWalFile) -> (StoredAs, Key) {
        let hash = || {
            let hash = blake3::hash(new.raw);
            hash.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
        };
        let name = match new.file {
            WalFileName::History(timeline) => {
                return (StoredAs::History(timeline), keys::history(&self.folder, timeline));
            }
            WalFileName::Segment(name) if new.details.damage.is_some() => WalObjectName::Damaged(name, hash()),
            WalFileName::Segment(name) => WalObjectName::Segment(name),
            WalFileName::Partial(name) => WalObjectName::Partial(name, hash()),
            WalFileName::Backup { segment, offset } => WalObjectName::Backup(segment, offset),
        };
        (StoredAs::Object(name), keys::object(&self.folder, name))
    }

    /// The description, but for what writing the file tells: lengths and checksum.
    fn footer(
        &self,
        file: WalFileName,
        written_by: Option<(PostgresMajor, SegmentSize)>,
        facts: Option<SegmentFacts>,
        details: &Details,
        archived_at: PgTime,
    ) -> Footer {
        Footer {
            system_identifier: self.system_identifier,
            file,
            segment_size: written_by.map(|(_, size)| size),
            major: written_by.map(|(major, _)| major),
            raw_length: 0,
            raw_crc: 0,
            body_length: 0,
            details_length: 0,
            archived_at,
            facts,
            damaged: details.damage.is_some(),
        }
    }

    pub(super) fn failed_to_compare(&self, key: &Key, error: &io::Error) -> RepositoryError {
        self.storage.failed("compare", key, error).into()
    }

    /// What is stored under the key. Fails unless it has the raw bytes that `raw` writes and `ours` describes: length and checksum
    /// first, then a hash of all bytes.
    pub(super) fn confirm_same(
        &self,
        file: WalFileName,
        ours: &Footer,
        archived_by: &Origin,
        raw: &mut dyn FnMut(&mut dyn Write) -> Result<(), RepositoryError>,
        key: &Key,
    ) -> Result<StoredWalFile, RepositoryError> {
        let found = self.describe_object(key, file)?;
        let (length, crc) = (ours.raw_length, ours.raw_crc);
        let mut difference = None;
        if (found.footer.raw_length, found.footer.raw_crc) != (length, crc) {
            let (stored_length, stored_crc) = (found.footer.raw_length, found.footer.raw_crc);
            difference = Some(format!(
                "{stored_length} bytes with checksum {stored_crc:08X} are stored, this one has {length} with {crc:08X}"
            ));
        } else {
            let (mut expected, mut stored) = (blake3::Hasher::new(), blake3::Hasher::new());
            raw(&mut expected)?;
            let source = self.storage.open(key)?;
            stored::read(source, file, self.system_identifier, length, &mut stored)
                .map_err(|error| self.damaged(key, error))?;
            if expected.finalize() != stored.finalize() {
                difference = Some("length and checksum agree, the bytes do not".to_owned());
            }
        }
        let Some(difference) = difference else { return Ok(found) };
        Err(RepositoryError::Conflict(Box::new(Conflict {
            storage: self.storage.describe(),
            file,
            difference,
            ours: archived_by.clone(),
            theirs: found.details.archived_by,
            archived_at: found.footer.archived_at,
        })))
    }

    /// Begins a complete segment whose bytes come piece by piece. `header` is what it begins with, checked against its name.
    ///
    /// # Errors
    /// The store takes no writes.
    pub fn begin_segment(
        &self,
        header: &SegmentHeader,
        compression: Compression,
    ) -> Result<NewSegment<'_>, RepositoryError> {
        let key = keys::object(&self.folder, WalObjectName::Segment(header.name));
        let object = self.storage.create(&key)?;
        let writer = StoredWriter::new(compression, header.segment_size.bytes(), object)
            .map_err(|error| self.storage.failed("write", &key, &error))?;
        let proof = Proof::new(header, Completeness::Complete);
        Ok(NewSegment { server: self, header: *header, compression, key, proof, writer })
    }
}

impl<'a> NewSegment<'a> {
    /// Takes the next bytes: proves their records and stores them, while they are in the processor's cache.
    ///
    /// # Errors
    /// The store fails.
    pub fn write(&mut self, raw: &[u8]) -> Result<(), RepositoryError> {
        self.proof.feed(raw);
        let written = self.writer.write(raw);
        Ok(written.map_err(|error| self.server.storage.failed("write", &self.key, &error))?)
    }

    /// Bytes of its object so far, compressed.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.writer.stored_bytes()
    }

    /// All bytes were written: what they say, and whether they go on where the segment before ends, if its border is known.
    #[must_use]
    pub fn finish(self, before: Option<&Border>, archived_by: Origin) -> ReadSegment<'a> {
        let NewSegment { server, header, compression, key, proof, writer } = self;
        ReadSegment { server, header, compression, key, proved: proof.finish(before, archived_by), writer }
    }
}

impl ReadSegment<'_> {
    /// What it leaves for the next segment; `None` if it is damaged, or its records were not read.
    #[must_use]
    pub fn border(&self) -> Option<&Border> {
        self.proved.border.as_ref()
    }

    /// Whether it goes on where the segment before ends.
    #[must_use]
    pub fn continuity(&self) -> &Continuity {
        &self.proved.continuity
    }

    /// It does not go on where `before` ends, which is certain: it is to be kept aside as damaged.
    pub fn set_aside(&mut self, damage: Damage, before: SegmentName) {
        let note = DamageNote { or_before: Some(before), ..damage.into() };
        self.proved.details.damage.get_or_insert(note);
        self.proved.border = None;
    }

    /// Stores the segment: durable when this returns success. `again` reads the raw file a second time, for the rare cases in
    /// which its bytes have to be seen once more: a damaged segment, and one that is there already.
    ///
    /// # Errors
    /// As for [`ServerRepository::archive`].
    pub fn publish(self, archived_at: PgTime, again: &mut dyn Read) -> Result<StoredSegment, RepositoryError> {
        let ReadSegment { server, header, compression, key, proved, writer } = self;
        let entry = StoredEntry::of(header.name, &proved);
        let Proved { facts, details, .. } = proved;
        let failed = |error| server.storage.failed("write", &key, &error);
        let file = WalFileName::Segment(header.name);
        let written_by = Some((header.major, header.segment_size));
        if let Some(damage) = details.damage.clone() {
            drop(writer);
            let mut raw = Vec::new();
            again.take(header.segment_size.bytes() + 1).read_to_end(&mut raw).map_err(failed)?;
            let new = NewWalFile { file, raw: &raw, written_by, facts, details, archived_at };
            let (archived, footer) = server.store(&new, compression)?;
            return Ok(StoredSegment { archived, damage: Some(damage), raw_crc: footer.raw_crc, entry: None });
        }
        let footer = server.footer(file, written_by, facts, &details, archived_at);
        let (footer, object) = writer.finish(footer, &details).map_err(failed)?;
        let stored_as = StoredAs::Object(WalObjectName::Segment(header.name));
        let stored_bytes = footer.body_length + footer.details_length + FOOTER_FRAME_BYTES as u64;
        let (mut stored_bytes, mut archived_at, mut archived_by) =
            (stored_bytes, archived_at, details.archived_by.clone());
        let archived = match object.publish()? {
            Put::Created => Archived::Stored(stored_as),
            Put::Exists => {
                let mut ours = |out: &mut dyn Write| {
                    io::copy(again, out).map(drop).map_err(|error| server.failed_to_compare(&key, &error))
                };
                let found = server.confirm_same(file, &footer, &details.archived_by, &mut ours, &key)?;
                server.storage.settle(&key)?;
                // The same bytes, but not the same object.
                (stored_bytes, archived_at) = (found.stored_bytes, found.footer.archived_at);
                archived_by = found.details.archived_by;
                Archived::AlreadyThere(stored_as)
            }
        };
        let raw_crc = footer.raw_crc;
        let entry = entry.map(|entry| StoredEntry { stored_bytes, raw_crc, archived_at, archived_by, ..entry });
        Ok(StoredSegment { archived, damage: None, raw_crc, entry })
    }
}

impl std::fmt::Debug for ReadSegment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ReadSegment").field(&self.header.name).field(&self.proved).finish()
    }
}

impl std::fmt::Debug for NewSegment<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("NewSegment").field(&self.header.name).finish()
    }
}
