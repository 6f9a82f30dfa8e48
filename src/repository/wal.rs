//! WAL files in the repository: archived once, fetched checked, listed by timeline.

use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Conflict, RepositoryError, ServerRepository, keys};
use crate::codec::stored::{self, StoredError};
use crate::codec::{Compression, Details, Footer, Origin};
use crate::storage::{Key, Put};
use crate::wal::{
    Completeness, Event, EventKind, PgTime, PostgresMajor, SegmentFacts, SegmentHeader, SegmentName, SegmentSize,
    TimelineHistory, TimelineId, WalFileName, scan_segment_for,
};

pub use super::keys::WalObjectName;

/// Longest history or backup history file, in bytes.
const TEXT_FILE_BYTES: u64 = 1 << 20;
/// Bytes read from the end of an object to describe it: enough for nearly all details too.
const DESCRIPTION_BYTES: u64 = 16 << 10;

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
    pub fn with_records(mut self, header: &SegmentHeader) -> Self {
        self.written_by = Some((header.major, header.segment_size));
        let completeness = match self.file {
            WalFileName::Partial(_) => Completeness::MayEnd,
            _ => Completeness::Complete,
        };
        // A fault in the reading of records must not keep WAL from being archived: the file is then stored like one
        // that was not read, under its true name.
        let raw = self.raw;
        let scan = || scan_segment_for(raw, header, completeness, is_remarkable);
        if let Ok(scan) = catch_unwind(AssertUnwindSafe(scan)) {
            self.facts = Some(scan.facts);
            self.details.events = scan.events;
            self.details.head = scan.head;
            self.details.tail = scan.tail;
            self.details.damage = scan.damage.map(Into::into);
        }
        self
    }
}

/// Commits and aborts that drop nothing are only counted: there are hundreds of thousands of them.
fn is_remarkable(event: &Event) -> bool {
    match &event.kind {
        EventKind::Commit(end) | EventKind::Abort(end) => end.dropped_count > 0 || end.cut,
        EventKind::Prepare { .. }
        | EventKind::RestorePoint { .. }
        | EventKind::Checkpoint { .. }
        | EventKind::ParameterChange(_)
        | EventKind::EndOfRecovery { .. }
        | EventKind::BackupEnd { .. }
        | EventKind::OverwriteContrecord { .. } => true,
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
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoredAs {
    /// A history file.
    History,
    /// Any other.
    Object(WalObjectName),
}

/// A stored WAL file's description.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredWalFile {
    /// The fixed-size part.
    pub footer: Footer,
    /// The variable part.
    pub details: Details,
    /// Bytes in the store.
    pub stored_bytes: u64,
}

/// One line of a timeline's listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalObject {
    /// What it is.
    pub name: WalObjectName,
    /// Bytes in the store.
    pub stored_bytes: u64,
}

/// Why a segment is not there under its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Absence {
    /// The archive of its timeline ends before it.
    End,
    /// A later segment of its timeline is there: WAL is missing.
    Gap {
        /// The next one that is there.
        next: SegmentName,
    },
    /// Only a damaged copy was archived.
    Damaged(WalObjectName),
}

impl ServerRepository {
    /// Archives a WAL file: durable when this returns success, and never over anything else.
    ///
    /// # Errors
    /// [`RepositoryError::Conflict`] if the name holds other content; the store fails; what stands under the name is
    /// damaged.
    pub fn archive(&self, new: &NewWalFile, compression: Compression) -> Result<Archived, RepositoryError> {
        let (stored_as, key) = self.name_for(new);
        let mut object = self.storage.create(&key)?;
        let footer = Footer {
            system_identifier: self.system_identifier,
            file: new.file,
            segment_size: new.written_by.map(|(_, size)| size),
            major: new.written_by.map(|(major, _)| major),
            raw_length: 0,
            raw_crc: 0,
            body_length: 0,
            details_length: 0,
            archived_at: new.archived_at,
            facts: new.facts,
            damaged: new.details.damage.is_some(),
        };
        stored::write(new.raw, footer, &new.details, compression, &mut object)
            .map_err(|error| self.storage.failed("write", &key, &error))?;
        match object.publish()? {
            Put::Created => Ok(Archived::Stored(stored_as)),
            Put::Exists => {
                self.confirm_same(new, &key)?;
                self.storage.settle(&key)?;
                Ok(Archived::AlreadyThere(stored_as))
            }
        }
    }

    fn name_for(&self, new: &NewWalFile) -> (StoredAs, Key) {
        let hash = || {
            let hash = blake3::hash(new.raw);
            hash.as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
        };
        let name = match new.file {
            WalFileName::History(timeline) => return (StoredAs::History, keys::history(&self.folder, timeline)),
            WalFileName::Segment(name) if new.details.damage.is_some() => WalObjectName::Damaged(name, hash()),
            WalFileName::Segment(name) => WalObjectName::Segment(name),
            WalFileName::Partial(name) => WalObjectName::Partial(name, hash()),
            WalFileName::Backup { segment, offset } => WalObjectName::Backup(segment, offset),
        };
        (StoredAs::Object(name), keys::object(&self.folder, name))
    }

    /// Fails unless what is stored under the key has the same raw bytes: length and checksum first, then every byte.
    fn confirm_same(&self, new: &NewWalFile, key: &Key) -> Result<(), RepositoryError> {
        let found = self.describe_object(key, new.file)?;
        let length = new.raw.len() as u64;
        let crc = crc32fast::hash(new.raw);
        let mut difference = None;
        if (found.footer.raw_length, found.footer.raw_crc) != (length, crc) {
            let (stored_length, stored_crc) = (found.footer.raw_length, found.footer.raw_crc);
            difference = Some(format!(
                "{stored_length} bytes with checksum {stored_crc:08X} are stored, this one has {length} with {crc:08X}"
            ));
        } else {
            let mut comparing = Comparing { expected: new.raw, same: true };
            let source = self.storage.open(key)?;
            stored::read(source, new.file, self.system_identifier, length, &mut comparing)
                .map_err(|error| self.damaged(key, error))?;
            if !comparing.same {
                difference = Some("length and checksum agree, the bytes do not".to_owned());
            }
        }
        let Some(difference) = difference else { return Ok(()) };
        Err(RepositoryError::Conflict(Box::new(Conflict {
            storage: self.storage.describe(),
            file: new.file,
            difference,
            ours: new.details.archived_by.clone(),
            theirs: found.details.archived_by,
            archived_at: found.footer.archived_at,
        })))
    }

    /// Writes the raw bytes of a complete segment, history or backup history file to `out`; `None` if the archive has
    /// certainly no such file. A `.partial` has no single answer to its name and is always `None` here.
    ///
    /// # Errors
    /// [`RepositoryError::Damaged`] (what `out` holds then must not be used), or the store fails.
    pub fn fetch(&self, file: WalFileName, out: &mut dyn Write) -> Result<Option<Footer>, RepositoryError> {
        let (key, limit) = match file {
            WalFileName::Segment(name) => (keys::object(&self.folder, WalObjectName::Segment(name)), 1 << 30),
            WalFileName::History(timeline) => (keys::history(&self.folder, timeline), TEXT_FILE_BYTES),
            WalFileName::Backup { segment, offset } => {
                (keys::object(&self.folder, WalObjectName::Backup(segment, offset)), TEXT_FILE_BYTES)
            }
            WalFileName::Partial(_) => return Ok(None),
        };
        self.fetch_key(&key, file, limit, out)
    }

    /// Writes the raw bytes of one listed object to `out`, a `.partial` or damaged one too.
    ///
    /// # Errors
    /// As for [`ServerRepository::fetch`].
    pub fn fetch_object(&self, name: WalObjectName, out: &mut dyn Write) -> Result<Option<Footer>, RepositoryError> {
        self.fetch_key(&keys::object(&self.folder, name), name.file(), 1 << 30, out)
    }

    fn fetch_key(
        &self,
        key: &Key,
        file: WalFileName,
        limit_bytes: u64,
        out: &mut dyn Write,
    ) -> Result<Option<Footer>, RepositoryError> {
        let source = match self.storage.open(key) {
            Ok(source) => source,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let footer = stored::read(source, file, self.system_identifier, limit_bytes, out);
        footer.map(Some).map_err(|error| self.damaged(key, error))
    }

    /// The description of one listed object, by one read of its last bytes (two if it has unusually much to say).
    ///
    /// # Errors
    /// [`RepositoryError::Damaged`], or the store fails; not found is an error here.
    pub fn describe(&self, name: WalObjectName) -> Result<StoredWalFile, RepositoryError> {
        self.describe_object(&keys::object(&self.folder, name), name.file())
    }

    fn describe_object(&self, key: &Key, file: WalFileName) -> Result<StoredWalFile, RepositoryError> {
        let mut wanted = DESCRIPTION_BYTES;
        loop {
            let suffix = self.storage.get_suffix(key, wanted)?;
            let (footer, details) = stored::describe(&suffix.bytes, file, self.system_identifier)
                .map_err(|error| self.damaged(key, error))?;
            if let Some(details) = details {
                return Ok(StoredWalFile { footer, details, stored_bytes: suffix.size });
            }
            let needed = footer.details_length.saturating_add(crate::codec::FOOTER_FRAME_BYTES as u64);
            if needed > suffix.size {
                let error = io::Error::other("they are longer than the object");
                return Err(self.damaged(key, StoredError::Details(error)));
            }
            wanted = needed;
        }
    }

    /// Timelines that have WAL files or a history file, ascending.
    ///
    /// # Errors
    /// The store fails.
    pub fn timelines(&self) -> Result<Vec<TimelineId>, RepositoryError> {
        let mut found = Vec::new();
        for entry in self.storage.list(&keys::wal(&self.folder))? {
            let digits = entry.name.strip_suffix(".history").unwrap_or(&entry.name);
            found.extend(TimelineId::from_hex(digits).ok());
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The ancestry of a timeline; `None` if no history file was archived (timeline 1 never has one).
    ///
    /// # Errors
    /// The file is damaged or malformed, or the store fails.
    pub fn history(&self, timeline: TimelineId) -> Result<Option<TimelineHistory>, RepositoryError> {
        let mut text = Vec::new();
        if self.fetch(WalFileName::History(timeline), &mut text)?.is_none() {
            return Ok(None);
        }
        let parsed = TimelineHistory::parse(timeline, &text);
        parsed.map(Some).map_err(|error| RepositoryError::Malformed {
            storage: self.storage.describe(),
            key: keys::history(&self.folder, timeline).to_string(),
            reason: error.to_string(),
        })
    }

    /// All objects of a timeline in WAL order, without its history file. What is not ours is passed over.
    ///
    /// # Errors
    /// The store fails.
    pub fn wal_objects(&self, timeline: TimelineId) -> Result<Vec<WalObject>, RepositoryError> {
        let mut found = Vec::new();
        for group in self.groups(timeline)? {
            found.extend(self.group_objects(timeline, &group)?);
        }
        Ok(found)
    }

    /// Names of a timeline's groups, ascending.
    fn groups(&self, timeline: TimelineId) -> Result<Vec<String>, RepositoryError> {
        let listed = self.storage.list(&keys::timeline(&self.folder, timeline))?;
        Ok(listed.into_iter().filter(|entry| entry.folder).map(|entry| entry.name).collect())
    }

    fn group_objects(&self, timeline: TimelineId, group: &str) -> Result<Vec<WalObject>, RepositoryError> {
        let Ok(folder) = keys::timeline(&self.folder, timeline).join(group) else { return Ok(Vec::new()) };
        let belongs = |name: WalObjectName| name.segment().timeline() == timeline && name.segment().group() == group;
        let mut found = Vec::new();
        for entry in self.storage.list(&folder)? {
            if let Some(name) = entry.name.parse().ok().filter(|name| belongs(*name) && !entry.folder) {
                found.push(WalObject { name, stored_bytes: entry.size });
            }
        }
        found.sort_by_key(|object| (object.name.segment(), object.name));
        Ok(found)
    }

    /// Why a segment that [`ServerRepository::fetch`] did not find is not there.
    ///
    /// # Errors
    /// The store fails.
    pub fn why_absent(&self, absent: SegmentName) -> Result<Absence, RepositoryError> {
        let timeline = absent.timeline();
        for group in self.groups(timeline)?.into_iter().filter(|group| *group >= absent.group()) {
            for object in self.group_objects(timeline, &group)? {
                match object.name {
                    WalObjectName::Damaged(name, _) if name == absent => return Ok(Absence::Damaged(object.name)),
                    WalObjectName::Segment(name)
                    | WalObjectName::Damaged(name, _)
                    | WalObjectName::Partial(name, _)
                        if name > absent =>
                    {
                        return Ok(Absence::Gap { next: name });
                    }
                    _ => {}
                }
            }
        }
        Ok(Absence::End)
    }

    fn damaged(&self, key: &Key, source: StoredError) -> RepositoryError {
        RepositoryError::Damaged { storage: self.storage.describe(), key: key.to_string(), source: Box::new(source) }
    }
}

/// Compares what is written to it with what was expected.
struct Comparing<'a> {
    expected: &'a [u8],
    same: bool,
}

impl Write for Comparing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.expected.split_at_checked(bytes.len()) {
            Some((expected, rest)) if expected == bytes => self.expected = rest,
            _ => self.same = false,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
