//! One attempt to deliver a WAL file: whole and checked, or not at all.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::FetchError;
use crate::codec::stored::StoredError;
use crate::command::call::{Open, Server};
use crate::config::Place;
use crate::durable::{NewFile, Owner};
use crate::repository::RepositoryError;
use crate::repository::wal::Absence;
use crate::wal::{LONG_HEADER_SIZE, SegmentName, SegmentNo, WalFileName, check_segment_header};

/// How long the confirmation that a file is absent serves the polls of a standby. Each asks for the file itself.
const CONFIRMED_FOR: Duration = Duration::from_secs(60);

/// What came of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// The file stands where it was wanted.
    Delivered,
    /// The archive has no such file, for certain: this attempt asked for it.
    Absent,
}

/// What is wanted, and where.
#[derive(Debug)]
pub(super) struct Delivery {
    server: Arc<Server>,
    file: WalFileName,
    target: PathBuf,
    folder: PathBuf,
    /// Several repositories may be asked at a time; the file is delivered once.
    delivered: Mutex<bool>,
}

impl Delivery {
    /// Takes the path apart.
    pub(super) fn new(server: &Arc<Server>, file: WalFileName, target: &Path) -> Result<Delivery, FetchError> {
        if target.file_name().is_none() {
            return Err(FetchError::Target { path: target.to_owned() });
        }
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let (target, folder) = (target.to_owned(), folder.to_owned());
        Ok(Delivery { server: Arc::clone(server), file, target, folder, delivered: Mutex::new(false) })
    }

    /// The cluster that it is for.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// The file that is wanted.
    pub(super) fn file(&self) -> WalFileName {
        self.file
    }

    /// Asks a repository, and delivers what it has.
    ///
    /// The bytes go into a file that has no name yet, beside the target, and get the name when all of them are checked:
    /// PostgreSQL would take a short or wrong file for the end of WAL. It syncs the file itself before it keeps it
    /// (`KeepFileRestoredFromArchive`), so that is not done twice.
    pub(super) fn attempt_at(&self, place: &Place) -> Result<Outcome, FetchError> {
        if self.attempt_unconfirmed(place)? == Outcome::Delivered {
            return Ok(Outcome::Delivered);
        }
        // A standby asks for what is not there again and again, and is never harmed by hearing that once too often.
        let polls = super::is_standby(&self.server);
        let spool = self.server.spool().filter(|_| polls);
        let confirmed = spool.and_then(|spool| spool.absent_since(&place.name, self.file));
        if confirmed.is_some_and(|age| age < CONFIRMED_FOR) {
            return Ok(Outcome::Absent);
        }
        // Before anything is said to be missing, the repository itself is looked at: a bucket that somebody emptied has
        // no WAL either.
        let outcome = self.absent(&self.server.open_repository(place)?)?;
        if polls && let Some(spool) = self.server.make_spool() {
            // Without the note the next call confirms it as well.
            let _ = spool.note_absent(&place.name, self.file);
        }
        Ok(outcome)
    }

    /// As [`Delivery::attempt_at`]; that a file is absent is not confirmed.
    pub(super) fn attempt_unconfirmed(&self, place: &Place) -> Result<Outcome, FetchError> {
        self.attempt_from(&self.server.open_noted(place)?)
    }

    /// As [`Delivery::attempt_at`], from a repository that is open; that a file is absent is not confirmed.
    pub(super) fn attempt_from(&self, open: &Open) -> Result<Outcome, FetchError> {
        let write_failed = |source| FetchError::Write { path: self.target.clone(), source };
        let owner = Owner::to_follow(&self.folder).map_err(write_failed)?;
        let mut new = NewFile::create_in(&self.folder, owner).map_err(write_failed)?;
        let limit_bytes = match self.file {
            WalFileName::Segment(_) => open.record.segment_size_bytes.bytes(),
            // The repository bounds these itself.
            WalFileName::Partial(_) | WalFileName::History(_) | WalFileName::Backup { .. } => u64::MAX,
        };
        let mut bounded = Bounded { out: &mut new, left_bytes: limit_bytes, exceeded: false };
        let fetched = open.server.fetch(self.file, &mut bounded);
        if bounded.exceeded {
            return Err(FetchError::TooLong {
                storage: open.server.storage().describe(),
                file: self.file,
                limit_bytes,
            });
        }
        match fetched {
            Ok(Some(_)) => {
                self.check_first_page(&mut new, open)?;
                let mut delivered = self.delivered.lock().unwrap_or_else(PoisonError::into_inner);
                if !*delivered {
                    new.hand_over(self.target.file_name().unwrap_or_default()).map_err(write_failed)?;
                    *delivered = true;
                }
                Ok(Outcome::Delivered)
            }
            Ok(None) => Ok(Outcome::Absent),
            Err(error) => Err(self.sort(error)),
        }
    }

    /// The target's failure is no fault of the stored object.
    fn sort(&self, error: RepositoryError) -> FetchError {
        match error {
            RepositoryError::Damaged { storage, key, source } => match *source {
                StoredError::Target(source) => FetchError::Write { path: self.target.clone(), source },
                other => RepositoryError::Damaged { storage, key, source: Box::new(other) }.into(),
            },
            other => other.into(),
        }
    }

    /// The stored description was compared with the name already; this looks at the bytes that PostgreSQL will see.
    fn check_first_page(&self, new: &mut NewFile, open: &Open) -> Result<(), FetchError> {
        let WalFileName::Segment(name) = self.file else { return Ok(()) };
        let write_failed = |source| FetchError::Write { path: self.target.clone(), source };
        let file = new.file();
        let length = file.seek(SeekFrom::End(0)).map_err(write_failed)?;
        file.seek(SeekFrom::Start(0)).map_err(write_failed)?;
        let mut first = Vec::with_capacity(LONG_HEADER_SIZE);
        file.take(LONG_HEADER_SIZE as u64).read_to_end(&mut first).map_err(write_failed)?;
        let storage = || open.server.storage().describe();
        let header = check_segment_header(&first, name, length).map_err(|source| FetchError::Header {
            storage: storage(),
            file: self.file,
            source,
        })?;
        let (expected, found) = (self.server.system_identifier, header.system_identifier);
        if found != expected {
            return Err(FetchError::Foreign { storage: storage(), file: self.file, expected, found });
        }
        Ok(())
    }

    /// Why the file is not there. PostgreSQL takes "no such file" for the end of WAL, and opens the database there: for
    /// a segment that may only be said where nothing of its timeline follows.
    fn absent(&self, open: &Open) -> Result<Outcome, FetchError> {
        let WalFileName::Segment(segment) = self.file else { return Ok(Outcome::Absent) };
        let storage = open.server.storage().describe();
        match open.server.why_absent(segment)? {
            Absence::End => Ok(Outcome::Absent),
            Absence::Gap { .. } if precedes_its_timeline(segment, open)? => Ok(Outcome::Absent),
            Absence::Gap { next } => Err(FetchError::Gap { storage, missing: segment, next }),
            Absence::Damaged(object) => {
                let damage = open.server.describe_damage(object, open.record.segment_size_bytes)?;
                let (good_until, why) = (damage.good_until, damage.why);
                Err(FetchError::ArchivedDamaged { storage, segment, good_until, why })
            }
        }
    }
}

/// Lets no more through than belongs there: a small object must not be able to fill the server's disk.
struct Bounded<'a> {
    out: &'a mut NewFile,
    left_bytes: u64,
    exceeded: bool,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(left) = self.left_bytes.checked_sub(bytes.len() as u64) else {
            self.exceeded = true;
            return Err(io::Error::other("too long"));
        };
        self.out.write_all(bytes)?;
        self.left_bytes = left;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The segment lies before the one in which its timeline began: no such file ever was. Recovery asks for it where it
/// does not know yet which timeline has the segment, from the newest down (`XLogFileReadAnyTLI`).
fn precedes_its_timeline(segment: SegmentName, open: &Open) -> Result<bool, FetchError> {
    let size = open.record.segment_size_bytes;
    let Some(history) = open.server.history(segment.timeline())? else { return Ok(false) };
    let Some((_, switch)) = history.parent() else { return Ok(false) };
    Ok(segment.number(size)? < SegmentNo::of(switch, size))
}
