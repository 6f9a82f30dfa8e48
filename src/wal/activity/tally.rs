//! `RowTally`: rows that open transactions inserted, updated and deleted, by relation.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::super::{HeapChange, HeapChangeKind, RelationFile, Xid};

/// Most transactions, parts of others included, that are followed at once: some 100 MB. Servers have a few hundred; only one with
/// hundreds of thousands of savepoints in a transaction has as many.
const MOST_OPEN: usize = 1 << 20;

/// How many rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RowCounts {
    /// Inserted, by `COPY` too.
    pub inserted: u64,
    /// Updated.
    pub updated: u64,
    /// Deleted one by one; not those that TRUNCATE or DROP removed with their file.
    pub deleted: u64,
}

impl RowCounts {
    /// Adds others.
    pub fn add(&mut self, other: RowCounts) {
        self.inserted += other.inserted;
        self.updated += other.updated;
        self.deleted += other.deleted;
    }

    /// All of them together.
    #[must_use]
    pub fn total(self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}

/// Rows of open transactions.
#[derive(Clone, Debug, Default)]
pub struct RowTally {
    open: FxHashMap<Xid, Vec<(RelationFile, RowCounts)>>,
    /// There were too many of them: some are not counted.
    overflowed: bool,
}

impl RowTally {
    /// Counts a change.
    pub fn count(&mut self, xid: Xid, change: &HeapChange<'_>) {
        if self.open.len() >= MOST_OPEN && !self.open.contains_key(&xid) {
            self.overflowed = true;
            return;
        }
        let relations = self.open.entry(xid).or_default();
        // The relation of the last change is the likeliest one.
        let at = relations.iter().rposition(|(file, _)| *file == change.file).unwrap_or_else(|| {
            relations.push((change.file, RowCounts::default()));
            relations.len() - 1
        });
        let counts = &mut relations[at].1;
        match change.kind {
            HeapChangeKind::Insert { .. } => counts.inserted += 1,
            HeapChangeKind::MultiInsert { count, .. } => counts.inserted += u64::from(count),
            HeapChangeKind::Update { .. } => counts.updated += 1,
            HeapChangeKind::Delete { takes_back: false, .. } => counts.deleted += 1,
            HeapChangeKind::Delete { takes_back: true, .. } => counts.inserted = counts.inserted.saturating_sub(1),
            HeapChangeKind::Inplace { .. } => {}
        }
    }

    /// The rows of a transaction that ends with these parts, which are forgotten with that.
    pub fn take(&mut self, xid: Xid, parts: &[Xid]) -> BTreeMap<RelationFile, RowCounts> {
        let mut all: BTreeMap<RelationFile, RowCounts> = BTreeMap::new();
        for part in [xid].iter().chain(parts) {
            for (file, counts) in self.open.remove(part).into_iter().flatten() {
                all.entry(file).or_default().add(counts);
            }
        }
        all.retain(|_, counts| counts.total() > 0);
        all
    }

    /// Some rows were not counted.
    #[must_use]
    pub fn overflowed(&self) -> bool {
        self.overflowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(relation: u32, kind: HeapChangeKind<'static>) -> HeapChange<'static> {
        HeapChange { file: RelationFile { tablespace: 1663, database: 5, relation }, block: 0, image: None, kind }
    }

    /// Promise: the rows of subtransactions count with the transaction that they end with; what an INSERT took back was
    /// not inserted; a transaction is told once.
    #[test]
    fn counts() {
        let mut tally = RowTally::default();
        let insert = HeapChangeKind::Insert { offset: 1, speculative: true, tuple: None };
        let delete = |takes_back| HeapChangeKind::Delete { offset: 1, takes_back };
        tally.count(Xid(7), &change(1, insert));
        tally.count(Xid(8), &change(1, HeapChangeKind::MultiInsert { count: 40, tuples: None }));
        tally.count(Xid(8), &change(2, insert));
        tally.count(Xid(8), &change(2, delete(true)));
        tally.count(Xid(8), &change(1, delete(false)));
        tally.count(Xid(9), &change(3, delete(false)));
        let rows = tally.take(Xid(7), &[Xid(8)]);
        let expected = RowCounts { inserted: 41, updated: 0, deleted: 1 };
        assert_eq!(rows.into_iter().map(|(file, counts)| (file.relation, counts)).collect::<Vec<_>>(), [(1, expected)]);
        assert!(tally.take(Xid(7), &[Xid(8)]).is_empty());
        assert_eq!(tally.take(Xid(9), &[]).len(), 1);
        assert!(!tally.overflowed());
    }
}
