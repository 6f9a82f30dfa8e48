//! `EntryNote`: what is known of each segment that was archived, kept until its group is over and its roll-up can be written.
//!
//! One file a group, one line a segment, added in one piece each. A line that is torn, or mixed with another, is none: each
//! carries the hash of its content. Whatever is lost here is missing from the roll-up, and read from the segment itself.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Spool, note};
use crate::repository::{RepositoryId, StoredEntry};
use crate::wal::{SegmentGroup, SystemIdentifier, TimelineId};

/// Begins each line, followed by the hash of what comes behind it.
const TITLE: &str = "pitr entry 1 ";
/// Begins the names of the files.
const ENTRIES: &str = "entries.";
/// Longest line that is written; what has more to say is left to the segment itself.
const LINE_BYTES: usize = 32 << 10;
/// Most of a file that is read: 256 long lines, some of them twice.
const FILE_BYTES: u64 = 16 << 20;

/// What is known of a segment that was archived, and where.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EntryNote {
    /// What is known of it.
    pub entry: StoredEntry,
    /// The repositories whose object it tells of.
    pub repositories: Vec<RepositoryId>,
}

#[derive(Serialize, Deserialize)]
struct Bound<N> {
    system_identifier: SystemIdentifier,
    note: N,
}

impl Spool {
    /// Notes what is known of a segment that was archived.
    ///
    /// # Errors
    /// The disk is full, the folder takes no files, or there is too much to say.
    pub fn note_entry(&self, entry: &EntryNote) -> io::Result<()> {
        let bound = Bound { system_identifier: self.system_identifier, note: entry };
        let mut line = note::encode_line(TITLE, &bound)?;
        line.push(b'\n');
        if line.len() > LINE_BYTES {
            return Err(io::Error::other("there is too much to say of the segment"));
        }
        self.folder.append(&name_of(entry.entry.segment.group()), &line)
    }

    /// Groups of which something is noted, ascending.
    #[must_use]
    pub fn noted_groups(&self) -> Vec<SegmentGroup> {
        let mut groups: Vec<_> = self.folder.names().iter().filter_map(|name| group_of(name)).collect();
        groups.sort_unstable();
        groups
    }

    /// Takes what is noted of a group out of the spool, in the order in which it was noted.
    #[must_use]
    pub fn take_entries(&self, group: SegmentGroup) -> Vec<EntryNote> {
        let name = name_of(group);
        let Ok((bytes, _)) = self.folder.read(&name, FILE_BYTES) else { return Vec::new() };
        self.folder.remove(&name);
        let notes = bytes.split(|byte| *byte == b'\n').filter_map(|line| note::decode_line(TITLE, line));
        let ours = notes.filter(|bound: &Bound<EntryNote>| bound.system_identifier == self.system_identifier);
        ours.map(|bound| bound.note).filter(|note| note.entry.segment.group() == group).collect()
    }
}

fn name_of(group: SegmentGroup) -> String {
    format!("{ENTRIES}{}.{group}", group.timeline().to_hex())
}

fn group_of(name: &str) -> Option<SegmentGroup> {
    let (timeline, group) = name.strip_prefix(ENTRIES)?.split_once('.')?;
    SegmentGroup::parse(TimelineId::from_hex(timeline).ok()?, group)
}
