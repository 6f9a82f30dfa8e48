//! What became of each relation. Pure.
//!
//! A relation is the same one if its file is, or if its oid is. With another file it was written anew: VACUUM FULL, CLUSTER, TRUNCATE,
//! REINDEX, another tablespace, or an ALTER TABLE that writes all rows; what is in it cannot be compared with what was.

use std::collections::HashMap;

use serde::Serialize;

use super::before::Changed;
use crate::repository::Belonging;
use crate::wal::RelationFile;

/// A relation in one of the two backups.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Side {
    pub(super) file: RelationFile,
    /// Bytes of all forks and segments.
    pub(super) size_bytes: u64,
    /// Its name and its table, if they are known.
    pub(super) belonging: Option<Belonging>,
}

/// Something that happened to a relation as a whole.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    /// It was not there before.
    Created,
    /// It is no longer there.
    Dropped,
    /// It has another file.
    Rewritten,
    /// It has another name, or is in another schema.
    Renamed,
    /// It is in another tablespace.
    Moved,
}

/// A relation that is not the same in both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct RelationChange {
    pub(super) before: Option<Side>,
    pub(super) after: Option<Side>,
    pub(super) events: Vec<Event>,
    pub(super) changed: Changed,
}

impl RelationChange {
    /// How it is known: as it is now, or as it was.
    pub(super) fn belonging(&self) -> Option<&Belonging> {
        let known = |side: &Option<Side>| side.as_ref().is_some_and(|side| side.belonging.is_some());
        let side = if known(&self.after) { &self.after } else { &self.before };
        side.as_ref()?.belonging.as_ref()
    }

    /// Its file: the one it has now, or the one it had.
    pub(super) fn file(&self) -> Option<RelationFile> {
        self.after.as_ref().or(self.before.as_ref()).map(|side| side.file)
    }
}

/// Puts the relations of two backups together. Those that are the same in both are counted, and left out.
pub(super) fn relations(
    before: Vec<Side>,
    after: Vec<Side>,
    changed: &HashMap<RelationFile, Changed>,
) -> (Vec<RelationChange>, u64) {
    let oid = |side: &Side| side.belonging.as_ref().map(|of| (of.name.database_oid, of.name.oid));
    let by_file: HashMap<RelationFile, usize> = after.iter().enumerate().map(|(at, side)| (side.file, at)).collect();
    let mut left: Vec<Option<Side>> = after.into_iter().map(Some).collect();
    let mut pairs = Vec::new();
    let mut unmatched = Vec::new();
    for side in before {
        let at = by_file.get(&side.file).copied();
        // Numbers of files are used again in the end: two names of different relations count more.
        let same = |other: &mut Side| oid(other).is_none() || oid(&side).is_none() || oid(other) == oid(&side);
        match at.and_then(|at| left[at].take_if(same)) {
            Some(other) => pairs.push((Some(side), Some(other))),
            None => unmatched.push(side),
        }
    }
    let of_oid = left.iter().enumerate().filter_map(|(at, side)| Some((oid(side.as_ref()?)?, at)));
    let by_oid: HashMap<(u32, u32), usize> = of_oid.collect();
    for side in unmatched {
        let at = oid(&side).and_then(|oid| by_oid.get(&oid).copied());
        let other = at.and_then(|at| left[at].take());
        pairs.push((Some(side), other));
    }
    pairs.extend(left.into_iter().flatten().map(|side| (None, Some(side))));

    let mut unchanged = 0;
    let mut changes = Vec::new();
    for (before, after) in pairs {
        let events = events(before.as_ref(), after.as_ref());
        let file = after.as_ref().map(|side| side.file);
        let changed = file.and_then(|file| changed.get(&file)).copied().unwrap_or_default();
        let size = |side: &Option<Side>| side.as_ref().map(|side| side.size_bytes);
        if events.is_empty() && changed.bytes == 0 && size(&before) == size(&after) {
            unchanged += 1;
        } else {
            changes.push(RelationChange { before, after, events, changed });
        }
    }
    (changes, unchanged)
}

fn events(before: Option<&Side>, after: Option<&Side>) -> Vec<Event> {
    let (before, after) = match (before, after) {
        (Some(before), Some(after)) => (before, after),
        (None, _) => return vec![Event::Created],
        (Some(_), None) => return vec![Event::Dropped],
    };
    let renamed = match (&before.belonging, &after.belonging) {
        (Some(before), Some(after)) => {
            (&before.name.schema, &before.name.name) != (&after.name.schema, &after.name.name)
        }
        _ => false,
    };
    let mut events = Vec::new();
    events.extend((before.file != after.file).then_some(Event::Rewritten));
    events.extend(renamed.then_some(Event::Renamed));
    events.extend((before.file.tablespace != after.file.tablespace).then_some(Event::Moved));
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Part;
    use crate::wal::names::{RelationKind, RelationName};

    fn file(tablespace: u32, relation: u32) -> RelationFile {
        RelationFile { tablespace, database: 5, relation }
    }

    fn side(file: RelationFile, oid: u32, name: &str, size_bytes: u64) -> Side {
        let name = RelationName {
            database_oid: 5,
            database: None,
            schema: "public".to_owned(),
            name: name.to_owned(),
            oid,
            kind: RelationKind::Table,
            temporary: false,
            file: None,
            toast_of: None,
        };
        Side { file, size_bytes, belonging: Some(Belonging { name, table: oid, part: Part::Itself }) }
    }

    fn told(before: Vec<Side>, after: Vec<Side>, changed: &[(RelationFile, u64)]) -> (Vec<(String, Vec<Event>)>, u64) {
        let changed = changed.iter().map(|(file, bytes)| (*file, Changed { bytes: *bytes, perhaps: 0 })).collect();
        let (changes, unchanged) = relations(before, after, &changed);
        let name = |change: &RelationChange| {
            change.belonging().map_or_else(|| "unnamed".to_owned(), |belonging| belonging.name.name.clone())
        };
        let mut told: Vec<_> = changes.iter().map(|change| (name(change), change.events.clone())).collect();
        told.sort();
        (told, unchanged)
    }

    /// Promise: each relation is told as what became of it, by its oid, and a number that was used again is not taken for the same
    /// relation.
    #[test]
    fn what_became() {
        let before = vec![
            side(file(1663, 10), 10, "still", 8),
            side(file(1663, 11), 11, "written", 8),
            side(file(1663, 12), 12, "full", 8),
            side(file(1663, 13), 13, "old_name", 8),
            side(file(1663, 14), 14, "gone", 8),
            side(file(1663, 15), 15, "travels", 8),
            side(file(1663, 16), 16, "was_here", 8),
            side(file(1663, 18), 18, "shrinks", 16),
        ];
        let after = vec![
            side(file(1663, 10), 10, "still", 8),
            side(file(1663, 11), 11, "written", 8),
            side(file(1663, 90), 12, "full", 8),
            side(file(1663, 13), 13, "new_name", 8),
            side(file(9, 91), 15, "travels", 8),
            side(file(1663, 16), 99, "is_here", 8),
            side(file(1663, 17), 17, "young", 8),
            side(file(1663, 18), 18, "shrinks", 8),
        ];
        let (found, unchanged) = told(before, after, &[(file(1663, 11), 8)]);
        let expected: [(&str, &[Event]); 9] = [
            ("full", &[Event::Rewritten]),
            ("gone", &[Event::Dropped]),
            ("is_here", &[Event::Created]),
            ("new_name", &[Event::Renamed]),
            ("shrinks", &[]),
            ("travels", &[Event::Rewritten, Event::Moved]),
            ("was_here", &[Event::Dropped]),
            ("written", &[]),
            ("young", &[Event::Created]),
        ];
        assert_eq!(found, expected.map(|(name, events)| (name.to_owned(), events.to_vec())));
        assert_eq!(unchanged, 1);
    }

    /// Promise: where one of the catalogs cannot be read, the file alone tells.
    #[test]
    fn without_names() {
        let unnamed = |relation| Side { belonging: None, ..side(file(1663, relation), 1, "", 8) };
        let before = vec![unnamed(10), side(file(1663, 11), 11, "known", 8), unnamed(12)];
        let after = vec![side(file(1663, 10), 10, "same", 8), unnamed(11), unnamed(13)];
        let (found, unchanged) = told(before, after, &[(file(1663, 10), 8)]);
        let expected = [("same", vec![]), ("unnamed", vec![Event::Created]), ("unnamed", vec![Event::Dropped])];
        assert_eq!(found, expected.map(|(name, events)| (name.to_owned(), events)));
        assert_eq!(unchanged, 1);
    }
}
