//! The spool: small notes from one call of `pitr-wal-push` or `pitr-wal-fetch` to the next, on the same host.
//!
//! Layer 3. A push that archives ahead leaves an [`Acknowledgement`] for each file, so that the file's own call can return
//! at once; a fetch notes that the repository does not answer, so that the next call does not wait for it again. Nothing in
//! the spool is worth anything: whatever is missing, unreadable or not as expected here only costs time, and the repository
//! is asked. So nothing is synced but what a mirror lacks, and no failure here is a failure of the call.
//!
//! ```text
//! <spool>/<system identifier>/<WAL file>.stored     acknowledgement
//! <spool>/<system identifier>/<segment>.border      what an archived segment leaves for the proof of the next one
//! <spool>/<system identifier>/entries.<timeline>.<group>  what is known of the segments archived of a group, for its roll-up
//! <spool>/<system identifier>/repository            which repository lies in the bucket, for some minutes
//! <spool>/<system identifier>/repository.<name>     the same of a mirror
//! <spool>/<system identifier>/away.<name>           one of several repositories did not answer; the file's time says when
//! <spool>/<system identifier>/behind.<name>         from which segments on a mirror lacks WAL that others hold
//! <spool>/<system identifier>/absent.<name>.<file>  it was confirmed that the repository lacks the file, for the polls of a standby
//! <spool>/<system identifier>/unreachable           the repository did not answer; the file's time says when
//! <spool>/<system identifier>/ahead.<scope>/        segments fetched ahead for one recovery
//! ```
//!
//! The folder is 0700 and must belong to the user, its files are 0600 and no links: a note that another user could forge
//! would be a file that is never archived.

mod acknowledgement;
mod ahead_room;
mod border_note;
mod entries;
mod folder;
mod mirrors;
mod note;
mod repository_note;

pub use acknowledgement::Acknowledgement;
pub use ahead_room::AheadRoom;
pub use border_note::BorderNote;
pub use entries::EntryNote;
pub use mirrors::Behind;
pub use repository_note::RepositoryNote;

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::durable;
use crate::repository::{RepositoryId, RepositoryName};
use crate::wal::{ClusterName, SegmentName, SystemIdentifier, WalFileName};
use folder::Folder;

/// An acknowledgement older than this is not used: its file's own call should have come long ago.
const ACKNOWLEDGED_FOR: Duration = Duration::from_secs(3600);

/// How long a border's note is kept that no segment came for, once segments beyond it were archived.
const BORDER_KEPT_FOR: Duration = Duration::from_secs(24 * 3600);

/// Longest acknowledgement that is read, in bytes.
const NOTE_BYTES: u64 = 4096;
/// Longest note of a border that is written or read, in bytes: a record's first 64 KiB in Base64, and a thousand segments in its
/// middle.
const BORDER_NOTE_BYTES: u64 = 1 << 20;

/// How long it is believed which repository lies in a bucket. Somebody who empties a bucket and makes another repository in it is
/// noticed that much later.
const REPOSITORY_KNOWN_FOR: Duration = Duration::from_secs(300);

const REPOSITORY: &str = "repository";
const UNREACHABLE: &str = "unreachable";

/// One cluster's folder in the spool.
#[derive(Debug)]
pub struct Spool {
    folder: Folder,
    system_identifier: SystemIdentifier,
}

impl Spool {
    /// Opens the cluster's folder if it is there, and fit to be trusted.
    ///
    /// # Errors
    /// It is not there, not a directory, or open to others.
    pub fn open(spool: &Path, system_identifier: SystemIdentifier) -> io::Result<Spool> {
        let folder = Folder::open(&path_of(spool, system_identifier))?;
        Ok(Spool { folder, system_identifier })
    }

    /// Opens the cluster's folder, and makes it where it is missing.
    ///
    /// # Errors
    /// As for [`Spool::open`], or it cannot be made.
    pub fn open_or_make(spool: &Path, system_identifier: SystemIdentifier) -> io::Result<Spool> {
        match Spool::open(spool, system_identifier) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                durable::create_directories(&path_of(spool, system_identifier), None)?;
                Spool::open(spool, system_identifier)
            }
            other => other,
        }
    }

    /// Whether anything is noted for the file: worth finding out what.
    #[must_use]
    pub fn has_note_for(&self, file: WalFileName) -> bool {
        self.folder.has(&note_name(file))
    }

    /// Leaves an acknowledgement in place of any other for the same name.
    ///
    /// # Errors
    /// The disk is full, or the folder takes no files.
    pub fn acknowledge(&self, file: WalFileName, acknowledgement: &Acknowledgement) -> io::Result<()> {
        self.folder.write(&note_name(file), &acknowledgement.encode(self.system_identifier, file))
    }

    /// Whether exactly this is acknowledged, and not too long ago.
    #[must_use]
    pub fn is_acknowledged(&self, file: WalFileName, acknowledgement: &Acknowledgement) -> bool {
        let expected = acknowledgement.encode(self.system_identifier, file);
        // Every byte is compared, so a note that was cut short or damaged is none.
        self.folder
            .read(&note_name(file), NOTE_BYTES)
            .is_ok_and(|(note, age)| note == expected && age.is_some_and(|age| age < ACKNOWLEDGED_FOR))
    }

    /// The repositories that exactly this file was archived into ahead, if that is acknowledged and not too long ago.
    #[must_use]
    pub fn acknowledged_by(&self, file: WalFileName, metadata: &Metadata) -> Vec<RepositoryId> {
        let Ok((note, _)) = self.folder.read(&note_name(file), NOTE_BYTES) else { return Vec::new() };
        let named = Acknowledgement::repositories(&note);
        // The names are taken from the note, and then every byte of it is compared.
        if self.is_acknowledged(file, &Acknowledgement::new(metadata, &named)) { named } else { Vec::new() }
    }

    /// Removes whatever is noted for the file.
    pub fn forget(&self, file: WalFileName) {
        self.folder.remove(&note_name(file));
    }

    /// Leaves the border of a segment that was archived.
    ///
    /// # Errors
    /// The disk is full, the folder takes no files, or the border is too long to be noted.
    pub fn leave_border(&self, note: &BorderNote) -> io::Result<()> {
        let bytes = note.encode(self.system_identifier)?;
        if bytes.len() as u64 > BORDER_NOTE_BYTES {
            return Err(io::Error::other("the border is too long for a note"));
        }
        self.folder.write(&border_name(note.border.segment()), &bytes)
    }

    /// The border that a segment left, if it was archived into this repository and the note is as it was written.
    #[must_use]
    pub fn border_of(&self, segment: SegmentName, repository: &RepositoryId) -> Option<BorderNote> {
        let (bytes, _) = self.folder.read(&border_name(segment), BORDER_NOTE_BYTES).ok()?;
        BorderNote::decode(&bytes, self.system_identifier, segment, repository)
    }

    /// The segment behind the border was archived.
    pub fn forget_border(&self, segment: SegmentName) {
        self.folder.remove(&border_name(segment));
    }

    /// Removes notes that no call came for: acknowledgements, and borders of segments before `archived`.
    pub fn sweep(&self, archived: SegmentName) {
        for name in self.folder.names() {
            let name = name.as_str();
            let acknowledged = name.strip_suffix(SUFFIX).and_then(|file| file.parse::<WalFileName>().ok());
            let border = name.strip_suffix(BORDER_SUFFIX).and_then(|file| file.parse::<SegmentName>().ok());
            let kept_for = match (acknowledged, border) {
                (Some(_), _) => ACKNOWLEDGED_FOR,
                (_, Some(segment)) if segment < archived => BORDER_KEPT_FOR,
                _ => continue,
            };
            if self.folder.read(name, 0).is_ok_and(|(_, age)| age.is_none_or(|age| age >= kept_for)) {
                self.folder.remove(name);
            }
        }
    }

    /// The room for what is fetched ahead for one recovery, if there is one.
    ///
    /// # Errors
    /// There is none, or it is open to others.
    pub fn ahead_room(&self, scope: &str) -> io::Result<AheadRoom> {
        AheadRoom::open(&self.folder, scope)
    }

    /// As [`Spool::ahead_room`]; makes it where it is missing, and removes those of recoveries that are over.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn make_ahead_room(&self, scope: &str) -> io::Result<AheadRoom> {
        ahead_room::sweep(&self.folder, scope);
        AheadRoom::make(&self.folder, scope)
    }

    /// Notes which repository was found.
    ///
    /// # Errors
    /// The disk is full, or the folder takes no files.
    pub fn note_repository(&self, name: &RepositoryName, note: &RepositoryNote) -> io::Result<()> {
        self.folder.write(&repository_name(name), &note::encode(repository_note::TITLE, note)?)
    }

    /// Which repository a call found at this place for this cluster, if that is not long ago.
    #[must_use]
    pub fn repository(&self, name: &RepositoryName, place: &str, cluster: &ClusterName) -> Option<RepositoryNote> {
        let (bytes, age) = self.folder.read(&repository_name(name), NOTE_BYTES).ok()?;
        let note: RepositoryNote = note::decode(repository_note::TITLE, &bytes)?;
        let fits = note.place == place
            && note.cluster == *cluster
            && note.record.system_identifier == self.system_identifier
            && age.is_some_and(|age| age < REPOSITORY_KNOWN_FOR);
        fits.then_some(note)
    }

    /// Notes that the repository did not answer just now.
    ///
    /// # Errors
    /// The disk is full, or the folder takes no files.
    pub fn note_unreachable(&self) -> io::Result<()> {
        self.folder.write(UNREACHABLE, b"")
    }

    /// How long ago the repository did not answer, if that is noted.
    #[must_use]
    pub fn unreachable_since(&self) -> Option<Duration> {
        self.folder.read(UNREACHABLE, NOTE_BYTES).ok().and_then(|(_, age)| age)
    }

    /// The repository answers again.
    pub fn note_reachable(&self) {
        self.folder.remove(UNREACHABLE);
    }
}

const SUFFIX: &str = ".stored";
const BORDER_SUFFIX: &str = ".border";

fn note_name(file: WalFileName) -> String {
    format!("{file}{SUFFIX}")
}

fn repository_name(name: &RepositoryName) -> String {
    if name.is_first() { REPOSITORY.to_owned() } else { format!("{REPOSITORY}.{name}") }
}

fn border_name(segment: SegmentName) -> String {
    format!("{segment}{BORDER_SUFFIX}")
}

fn path_of(spool: &Path, system_identifier: SystemIdentifier) -> PathBuf {
    spool.join(system_identifier.to_string())
}

#[cfg(test)]
mod tests;
