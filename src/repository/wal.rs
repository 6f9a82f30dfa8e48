//! WAL files in the repository: fetched checked, and described. `archiving` puts them there, `listing` tells which there are.

use std::io::{self, Write};

use super::{RepositoryError, ServerRepository, keys};
use crate::codec::stored::{self, StoredError};
use crate::codec::{Details, Footer, INDEX_LIMIT_BYTES};
use crate::recovery::StoredDamage;
use crate::storage::Key;
use crate::wal::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName};

pub use super::archiving::{Archived, NewSegment, NewWalFile, ReadSegment, StoredAs, StoredSegment};
pub use super::keys::WalObjectName;

/// Longest history or backup history file, in bytes.
const TEXT_FILE_BYTES: u64 = 1 << 20;
/// Bytes read from the end of an object to describe it: all that is written today. Older objects may have more to say.
const DESCRIPTION_BYTES: u64 = INDEX_LIMIT_BYTES as u64;

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

    /// What is wrong with a damaged segment that was kept aside.
    ///
    /// # Errors
    /// As for [`ServerRepository::describe`].
    pub fn describe_damage(&self, name: WalObjectName, size: SegmentSize) -> Result<StoredDamage, RepositoryError> {
        let segment = name.segment();
        let StoredWalFile { footer, details, .. } = self.describe(name)?;
        let (good_until, why, or_before) = match details.damage {
            Some(note) => (note.lsn, note.why, note.or_before),
            None => {
                (segment.number(size).map_or(Lsn::INVALID, |number| number.start(size)), "unknown".to_owned(), None)
            }
        };
        let hash = match name {
            WalObjectName::Damaged(_, hash) | WalObjectName::Partial(_, hash) => format!("{hash:016x}"),
            WalObjectName::Segment(_) | WalObjectName::Backup(..) => String::new(),
        };
        Ok(StoredDamage { segment, hash, good_until, why, or_before, archived_at: footer.archived_at })
    }

    /// The segment that an error is about, if it says that a stored one fails its checks: what is known of it then.
    #[must_use]
    pub fn rotten(&self, error: &RepositoryError, size: SegmentSize) -> Option<StoredDamage> {
        let RepositoryError::Damaged { key, source, .. } = error else { return None };
        let segment: SegmentName = key.rsplit('/').next()?.parse().ok()?;
        let good_until = segment.number(size).ok()?.start(size);
        let archived_at = self
            .describe(WalObjectName::Segment(segment))
            .map_or(crate::wal::PgTime(0), |stored| stored.footer.archived_at);
        let why = format!("its stored copy fails its checks ({source})");
        Some(StoredDamage { segment, hash: String::new(), good_until, why, or_before: None, archived_at })
    }

    pub(super) fn describe_object(&self, key: &Key, file: WalFileName) -> Result<StoredWalFile, RepositoryError> {
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

    /// Why a segment that [`ServerRepository::fetch`] did not find is not there.
    ///
    /// # Errors
    /// The store fails.
    pub fn why_absent(&self, absent: SegmentName) -> Result<Absence, RepositoryError> {
        let timeline = absent.timeline();
        for group in self.groups(timeline)?.into_iter().filter(|group| *group >= absent.group()) {
            for object in self.group_objects(group)? {
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

    pub(super) fn damaged(&self, key: &Key, source: StoredError) -> RepositoryError {
        RepositoryError::Damaged { storage: self.storage.describe(), key: key.to_string(), source: Box::new(source) }
    }
}
