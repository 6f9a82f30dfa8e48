//! `AheadRoom`: segments that were fetched before a recovery asked for them.
//!
//! One process fills it while it holds the lock; the calls of `restore_command` take segments out. A room belongs to one recovery:
//! its name is bound to the data directory, the repository and the boot of this host, since files that were not synced may be
//! short after a crash of it.
//!
//! ```text
//! ahead.<scope>/lock               held by whoever fills the room
//! ahead.<scope>/wanted             the segment that a call found missing, and so where to fetch from
//! ahead.<scope>/next               the segment that will be fetched as soon as there is room for it
//! ahead.<scope>/<segment>.coming   it is being fetched
//! ahead.<scope>/<segment>          fetched, checked, whole
//! ```

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::folder::Folder;
use crate::durable;
use crate::wal::SegmentName;

const PREFIX: &str = "ahead.";
const LOCK: &str = "lock";
const WANTED: &str = "wanted";
const NEXT: &str = "next";
const COMING: &str = ".coming";

/// A room that nobody fills and that was not used for so long belongs to a recovery that is over.
const KEPT_FOR: Duration = Duration::from_secs(3600);

/// Room for what is fetched ahead.
#[derive(Debug)]
pub struct AheadRoom {
    folder: Folder,
}

impl AheadRoom {
    pub(super) fn open(spool: &Folder, scope: &str) -> io::Result<AheadRoom> {
        Ok(AheadRoom { folder: Folder::open(&spool.path().join(format!("{PREFIX}{scope}")))? })
    }

    pub(super) fn make(spool: &Folder, scope: &str) -> io::Result<AheadRoom> {
        match AheadRoom::open(spool, scope) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                durable::create_directories(&spool.path().join(format!("{PREFIX}{scope}")), None)?;
                AheadRoom::open(spool, scope)
            }
            other => other,
        }
    }

    /// Where a fetched segment is to appear, whole.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Whether a segment is there with all its bytes.
    #[must_use]
    pub fn holds(&self, segment: SegmentName, bytes: u64) -> bool {
        self.folder.size(&segment.to_string()) == Some(bytes)
    }

    /// Moves a segment to where it is wanted, in place of what is there; false if it is not here, or not whole.
    ///
    /// # Errors
    /// It cannot be written there.
    pub fn hand_over(&self, segment: SegmentName, bytes: u64, target: &Path) -> io::Result<bool> {
        self.folder.hand_over(&segment.to_string(), bytes, target)
    }

    /// Takes the right to fill the room; `None` while another process has it.
    ///
    /// # Errors
    /// The lock cannot be opened.
    pub fn lock(&self) -> io::Result<Option<OwnedFd>> {
        self.folder.lock(LOCK)
    }

    /// Somebody fills the room.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.folder.is_locked(LOCK)
    }

    /// Says that a segment is being fetched.
    ///
    /// # Errors
    /// The disk is full, or the room was removed.
    pub fn begin(&self, segment: SegmentName) -> io::Result<()> {
        self.folder.write(&format!("{segment}{COMING}"), b"")
    }

    /// Takes [`AheadRoom::begin`] back: the segment is here, or will not come.
    pub fn end(&self, segment: SegmentName) {
        self.folder.remove(&format!("{segment}{COMING}"));
    }

    /// A segment is being fetched by somebody who is alive.
    #[must_use]
    pub fn is_coming(&self, segment: SegmentName) -> bool {
        self.folder.has(&format!("{segment}{COMING}")) && self.is_filled()
    }

    /// Says which segment will be fetched next; `None`: none, as far as is known.
    pub fn announce(&self, next: Option<SegmentName>) {
        // Without the note calls do not wait for what is not begun yet.
        match next {
            Some(segment) => drop(self.folder.write(NEXT, segment.to_string().as_bytes())),
            None => self.folder.remove(NEXT),
        }
    }

    /// A segment will be fetched as soon as there is room for it, by somebody who is alive.
    #[must_use]
    pub fn is_next(&self, segment: SegmentName) -> bool {
        self.segment_in(NEXT) == Some(segment) && self.is_filled()
    }

    /// Says where to fetch from.
    ///
    /// # Errors
    /// The disk is full, or the room was removed.
    pub fn want(&self, segment: SegmentName) -> io::Result<()> {
        self.folder.write(WANTED, segment.to_string().as_bytes())
    }

    /// Where to fetch from, and when that was said.
    #[must_use]
    pub fn wanted(&self) -> Option<(SegmentName, SystemTime)> {
        let file = self.folder.open_file(WANTED).ok()?;
        let said = file.metadata().and_then(|metadata| metadata.modified()).ok()?;
        Some((self.segment_in(WANTED)?, said))
    }

    fn segment_in(&self, name: &str) -> Option<SegmentName> {
        let (bytes, _) = self.folder.read(name, 64).ok()?;
        String::from_utf8(bytes).ok()?.parse().ok()
    }

    /// Removes segments, and signs that others are coming, unless they are to be kept.
    pub fn keep_only(&self, keep: impl Fn(SegmentName) -> bool) {
        for name in self.folder.names() {
            let segment = name.strip_suffix(COMING).unwrap_or(&name).parse::<SegmentName>();
            if segment.is_ok_and(|segment| !keep(segment)) {
                self.folder.remove(&name);
            }
        }
    }

    /// Removes a segment.
    pub fn remove_segment(&self, segment: SegmentName) {
        self.folder.remove(&segment.to_string());
    }

    /// Removes the room with all that is in it.
    pub fn remove(&self) {
        let _ = std::fs::remove_dir_all(self.folder.path());
    }
}

/// Removes rooms of recoveries that are over, but not the one of this scope.
pub(super) fn sweep(spool: &Folder, scope: &str) {
    for name in spool.names() {
        let Some(other) = name.strip_prefix(PREFIX).filter(|other| *other != scope) else { continue };
        let Ok(room) = AheadRoom::open(spool, other) else { continue };
        let used = std::fs::metadata(room.path()).and_then(|metadata| metadata.modified());
        let age = used.ok().and_then(|used| SystemTime::now().duration_since(used).ok());
        if age.is_some_and(|age| age > KEPT_FOR) && !room.is_filled() {
            room.remove();
        }
    }
}
