//! Sums over the files of a manifest, as it streams by.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::chunk::{ChunkContent, ChunkRef};
use crate::manifest::FileEntry;
use crate::manifest::place::{FileGroup, FileKind, FilePlace};
use crate::wal::RelationFile;

/// A sum over files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub(in crate::command) struct Tally {
    /// Files, those in parts counted once.
    pub(in crate::command) files: u64,
    /// Bytes in them on the server.
    pub(in crate::command) size_bytes: u64,
    /// Bytes of frames that the backup itself stored for them.
    pub(in crate::command) stored_bytes: u64,
    /// Bytes of frames in packs of earlier backups that they refer to.
    pub(in crate::command) referenced_bytes: u64,
}

impl Tally {
    /// Of one line of the manifest: a file, or a later part of one. `sources` gets what is referred to, by pack source.
    pub(in crate::command) fn of(line: &FileEntry, sources: &mut Vec<u64>) -> Tally {
        let first = line.from == 0;
        let mut tally =
            Tally { files: u64::from(first), size_bytes: if first { line.size } else { 0 }, ..Tally::default() };
        tally.take(&line.chunks, sources);
        tally
    }

    /// Adds where these chunks are stored.
    pub(in crate::command) fn take(&mut self, chunks: &[ChunkRef], sources: &mut Vec<u64>) {
        for chunk in chunks {
            let ChunkContent::Stored { base, sets, .. } = &chunk.content else { continue };
            for place in sets.iter().map(|set| &set.place).chain([base]) {
                let (source, length) = (usize::from(place.source), u64::from(place.length));
                *if source == 0 { &mut self.stored_bytes } else { &mut self.referenced_bytes } += length;
                if sources.len() <= source {
                    sources.resize(source + 1, 0);
                }
                sources[source] += length;
            }
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.files += other.files;
        self.size_bytes += other.size_bytes;
        self.stored_bytes += other.stored_bytes;
        self.referenced_bytes += other.referenced_bytes;
    }
}

/// Sums over a whole backup. Memory grows with the number of relations, and with nothing else.
#[derive(Clone, Debug, Default)]
pub(in crate::command) struct Survey {
    /// All files.
    pub(in crate::command) total: Tally,
    /// Relations, all forks and segments of one together.
    pub(in crate::command) relations: HashMap<RelationFile, Tally>,
    /// Other files, by kind.
    pub(in crate::command) groups: BTreeMap<FileGroup, Tally>,
    /// By the oid of the tablespace; `None` for what is in none.
    pub(in crate::command) tablespaces: BTreeMap<Option<u32>, Tally>,
    /// By the oid of the database, 0 for what all share; `None` for what belongs to the cluster as a whole.
    pub(in crate::command) databases: BTreeMap<Option<u32>, Tally>,
    /// Bytes referred to, by pack source; the first is the backup itself.
    pub(in crate::command) sources: Vec<u64>,
}

impl Survey {
    /// Takes in one line of the manifest.
    pub(in crate::command) fn take(&mut self, line: &FileEntry) {
        let tally = Tally::of(line, &mut self.sources);
        let place = FilePlace::of(&line.path, line.tablespace);
        self.total += tally;
        *match place.kind {
            FileKind::Relation { file, .. } => self.relations.entry(file).or_default(),
            FileKind::Other(group) => self.groups.entry(group).or_default(),
        } += tally;
        *self.tablespaces.entry(place.tablespace).or_default() += tally;
        *self.databases.entry(place.database).or_default() += tally;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{ChunkId, EntryPath, PageSet, Place};

    /// Promise: parts of one file are one file, forks and segments one relation, and each frame counts where it is stored.
    #[test]
    fn sums() {
        let place = |source, length| Place { source, pack: 0, offset: 0, length };
        let chunk = |base, sets: &[u16]| ChunkRef {
            crc32c: None,
            raw_length: 8192,
            content: ChunkContent::Stored {
                id: ChunkId([0; 32]),
                base: place(base, 100),
                sets: sets.iter().map(|source| PageSet { place: place(*source, 7), pages: vec![0] }).collect(),
            },
        };
        let zero = ChunkRef { raw_length: 8192, crc32c: None, content: ChunkContent::Zero };
        let file = |path: &str, tablespace, from, chunks| FileEntry {
            path: EntryPath::new(path.as_bytes()).expect("a good path"),
            tablespace,
            mode: 0o600,
            size: 16384,
            modified_at: 0,
            from,
            chunks,
            crc32c: None,
        };
        let mut survey = Survey::default();
        survey.take(&file("base/5/16384", None, 0, vec![chunk(0, &[])]));
        survey.take(&file("base/5/16384", None, 8192, vec![chunk(2, &[2, 0])]));
        survey.take(&file("base/5/16384_fsm", None, 0, vec![zero]));
        survey.take(&file("PG_15_1/5/16390.1", Some(9), 0, vec![chunk(1, &[])]));
        survey.take(&file("pg_xact/0000", None, 0, vec![chunk(0, &[])]));
        let tally = |files, stored_bytes, referenced_bytes| Tally {
            files,
            size_bytes: files * 16384,
            stored_bytes,
            referenced_bytes,
        };
        let relation = |tablespace, relation| RelationFile { tablespace, database: 5, relation };
        assert_eq!(survey.total, tally(4, 207, 207));
        assert_eq!(survey.relations[&relation(1663, 16384)], tally(2, 107, 107));
        assert_eq!(survey.relations[&relation(9, 16390)], tally(1, 0, 100));
        assert_eq!(survey.groups[&FileGroup::Transactions], tally(1, 100, 0));
        assert_eq!(survey.tablespaces[&None], tally(1, 100, 0));
        assert_eq!(survey.databases[&Some(5)], tally(3, 107, 207));
        assert_eq!(survey.sources, [207, 100, 107]);
    }
}
