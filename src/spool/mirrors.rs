//! Notes about the several repositories of a cluster: which one does not answer, and what each lacks.
//!
//! What a repository lacks is noted as the first segment of each timeline from which on something may be missing there: short
//! however much it is, and exact together with the listings of both sides. It is the one note that is synced, since nothing else
//! makes a repository be caught up; it is written once for each outage, before the file counts as archived. Lost, it is found by \"pitr status\" all the same,
//! which compares the listings, and made good by \"pitr copy\".

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{NOTE_BYTES, Spool, note};
use crate::repository::RepositoryName;
use crate::wal::{SegmentName, TimelineId, WalFileName};

/// First line of a note, followed by the hash of what comes behind it.
const TITLE: &str = "pitr behind 1 ";

/// Most timelines in a note; beyond that, the lowest that fit stand for all.
const MOST_TIMELINES: usize = 32;

/// What one of several repositories may lack.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Behind {
    /// The first segment of each timeline; `None` if it is the history file alone.
    since: BTreeMap<TimelineId, Option<SegmentName>>,
}

impl Behind {
    /// Nothing is lacking.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.since.is_empty()
    }

    /// The timelines, and from which segment on each has to be looked at.
    pub fn timelines(&self) -> impl Iterator<Item = (TimelineId, Option<SegmentName>)> + '_ {
        self.since.iter().map(|(timeline, since)| (*timeline, *since))
    }

    /// Takes in one more file.
    pub fn add(&mut self, file: WalFileName) {
        let (timeline, segment) = match file {
            WalFileName::History(timeline) => (timeline, None),
            WalFileName::Segment(name) | WalFileName::Partial(name) => (name.timeline(), Some(name)),
            WalFileName::Backup { segment, .. } => (segment.timeline(), Some(segment)),
        };
        let since = self.since.entry(timeline).or_insert(segment);
        *since = match (*since, segment) {
            (Some(known), Some(new)) => Some(known.min(new)),
            (known, new) => known.or(new),
        };
    }

    /// Whether looking from here on would find this file lacking.
    #[must_use]
    pub fn covers(&self, file: WalFileName) -> bool {
        let mut with = self.clone();
        with.add(file);
        with == *self
    }

    /// A timeline is complete.
    pub fn remove(&mut self, timeline: TimelineId) {
        self.since.remove(&timeline);
    }

    fn has_room_for(&self, file: WalFileName) -> bool {
        let mut with = self.clone();
        with.add(file);
        with.since.len() <= MOST_TIMELINES
    }
}

impl Spool {
    /// Notes that one of several repositories did not answer just now.
    ///
    /// # Errors
    /// The disk is full, or the folder takes no files.
    pub fn note_away(&self, name: &RepositoryName) -> io::Result<()> {
        self.folder.write(&away(name), b"")
    }

    /// How long ago the repository did not answer, if that is noted.
    #[must_use]
    pub fn away_since(&self, name: &RepositoryName) -> Option<Duration> {
        self.folder.read(&away(name), NOTE_BYTES).ok().and_then(|(_, age)| age)
    }

    /// The repository answers.
    pub fn note_back(&self, name: &RepositoryName) {
        if self.folder.has(&away(name)) {
            self.folder.remove(&away(name));
        }
    }

    /// How long ago it was confirmed that the repository has no such file, if that is noted.
    #[must_use]
    pub fn absent_since(&self, name: &RepositoryName, file: WalFileName) -> Option<Duration> {
        self.folder.read(&absent(name, file), 0).ok().and_then(|(_, age)| age)
    }

    /// Notes that it is confirmed that the repository has no such file. Older notes of other files go.
    ///
    /// # Errors
    /// The disk is full, or the folder takes no files.
    pub fn note_absent(&self, name: &RepositoryName, file: WalFileName) -> io::Result<()> {
        for old in self.folder.names().iter().filter(|old| old.starts_with(ABSENT)) {
            if self.folder.read(old, 0).is_ok_and(|(_, age)| age.is_none_or(|age| age > ABSENT_KEPT_FOR)) {
                self.folder.remove(old);
            }
        }
        self.folder.write(&absent(name, file), b"")
    }

    /// What the repository is noted to lack; nothing if there is no note.
    #[must_use]
    pub fn behind(&self, name: &RepositoryName) -> Behind {
        let read = self.folder.read(&behind(name), NOTE_BYTES).ok();
        read.and_then(|(bytes, _)| note::decode(TITLE, &bytes)).unwrap_or_default()
    }

    /// Notes that the repository lacks a file.
    ///
    /// # Errors
    /// The disk is full, the folder takes no files, or too much is noted already.
    pub fn note_behind(&self, name: &RepositoryName, file: WalFileName) -> io::Result<()> {
        let mut known = self.behind(name);
        if known.covers(file) {
            return Ok(());
        }
        if !known.has_room_for(file) {
            return Err(io::Error::other("it lacks WAL of too many timelines"));
        }
        known.add(file);
        self.folder.write_durable(&behind(name), &note::encode(TITLE, &known)?)
    }

    /// Notes what the repository lacks now, if nothing was added to what it was noted to lack before.
    ///
    /// # Errors
    /// The disk is full, or the folder takes no files.
    pub fn replace_behind(&self, name: &RepositoryName, before: &Behind, now: &Behind) -> io::Result<()> {
        if self.behind(name) != *before || before == now {
            return Ok(());
        }
        if now.is_empty() {
            self.folder.remove(&behind(name));
            return Ok(());
        }
        self.folder.write_durable(&behind(name), &note::encode(TITLE, now)?)
    }
}

/// Begins the names of notes about absent files, and how long they are kept.
const ABSENT: &str = "absent.";
const ABSENT_KEPT_FOR: Duration = Duration::from_secs(600);

fn absent(name: &RepositoryName, file: WalFileName) -> String {
    format!("{ABSENT}{name}.{file}")
}

fn away(name: &RepositoryName) -> String {
    format!("away.{name}")
}

fn behind(name: &RepositoryName) -> String {
    format!("behind.{name}")
}
