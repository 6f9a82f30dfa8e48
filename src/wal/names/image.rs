//! Page images: the rows of a block as they are after a record.
//!
//! What is known of a row is more than its tuple tells: whether the transaction that wrote it has ended by now. So rows that are known
//! stay as they are known, rows of the record's own transaction and of other open ones are open, and the hint bits of a tuple tell the rest:
//! they are set after the end they tell of is in the WAL (`SetHintBits`). On a block that is known wholly, any other row is dead.

use std::collections::HashSet;

use super::super::{DATA_PAGE_SIZE, RelationFile, Xid};
use super::page::{Deletion, Hint, PageTuple, Tid, tuples};
use super::store::{Fate, Open, Store, Tuple};
use super::{NamesNote, RelationNames};

/// What is known of the end of a transaction that stands in a tuple.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Committed,
    Aborted,
    Open(Open),
    Unknown,
}

impl RelationNames {
    /// The block is like this after a record of `by`.
    pub(super) fn page(&mut self, file: RelationFile, block: u32, page: &[u8; DATA_PAGE_SIZE], by: Xid) {
        let Some(found) = tuples(page) else { return self.forget_block(file, block) };
        let mut settled = None;
        let mut rows = Vec::new();
        let mut whole = true;
        for tuple in found {
            let tid = Tid { block, offset: tuple.offset };
            match self.row_of(file, tid, &tuple, by, &mut settled) {
                Ok(row) => rows.extend(row.map(|row| (tid, row))),
                Err(UnknownEnd) => whole = false,
            }
        }
        self.replace_block(file, block, rows);
        let Some(store) = self.stores.get_mut(&file) else { return };
        store.set_whole(block, whole);
        let database = store.database;
        if !whole {
            self.notes.insert(NamesNote::UnknownEnd { database });
        }
    }

    /// Nothing is known of a block any more.
    pub(super) fn forget_block(&mut self, file: RelationFile, block: u32) {
        self.replace_block(file, block, Vec::new());
        if let Some(store) = self.stores.get_mut(&file) {
            store.set_whole(block, false);
            let database = store.database;
            self.notes.insert(NamesNote::RecordNotRead { database });
        }
    }

    /// The block is a new page, without rows.
    pub(super) fn new_block(&mut self, file: RelationFile, block: u32) {
        self.replace_block(file, block, Vec::new());
        if let Some(store) = self.stores.get_mut(&file) {
            store.set_whole(block, true);
        }
    }

    fn replace_block(&mut self, file: RelationFile, block: u32, rows: Vec<(Tid, Tuple)>) {
        let Some(store) = self.stores.get(&file) else { return };
        let before: Vec<Tid> = store.block(block).map(|(tid, _)| tid).collect();
        for tid in before {
            self.forget(file, tid);
        }
        for (tid, row) in rows {
            self.take_up(file, tid, row);
        }
    }

    /// Takes up a version of a row, and notes whose end decides about it.
    pub(super) fn take_up(&mut self, file: RelationFile, tid: Tid, row: Tuple) {
        for open in [row.inserted, row.deleted].into_iter().flatten() {
            self.touch(open.xid, file, tid);
        }
        if let Some(store) = self.stores.get_mut(&file) {
            store.put(tid, row);
            self.show(file, tid);
        }
    }

    pub(super) fn touch(&mut self, xid: Xid, file: RelationFile, tid: Tid) {
        self.open.entry(xid).or_default().touched.insert((file, tid));
    }

    /// What a tuple of an image is worth: `None` if it is dead.
    fn row_of(
        &self,
        file: RelationFile,
        tid: Tid,
        tuple: &PageTuple<'_>,
        by: Xid,
        settled: &mut Option<HashSet<Xid>>,
    ) -> Result<Option<Tuple>, UnknownEnd> {
        let Some(store) = self.stores.get(&file) else { return Ok(None) };
        if let Some(known) = store.get(tid).filter(|known| known.xmin == tuple.xmin) {
            return Ok(seen_again(known, tuple));
        }
        if store.is_whole(tid.block) && tuple.xmin != by {
            return Ok(None);
        }
        tuple.alive(|xid, hint| self.end_of(xid, hint, by, settled))
    }

    fn end_of(&self, xid: Xid, hint: Hint, by: Xid, settled: &mut Option<HashSet<Xid>>) -> End {
        match hint {
            Hint::Committed | Hint::Frozen => return End::Committed,
            Hint::Invalid => return End::Aborted,
            Hint::None => {}
        }
        if is_permanent(xid) {
            return End::Committed;
        }
        let fate = self.fates.get(&xid).copied();
        if xid == by || fate.is_some() || self.open.contains_key(&xid) {
            return End::Open(Open { xid, fate });
        }
        // The same transaction wrote rows that are known to be committed: pages of a template come without hints.
        let settled = settled.get_or_insert_with(|| self.settled_writers());
        if settled.contains(&xid) { End::Committed } else { End::Unknown }
    }

    fn settled_writers(&self) -> HashSet<Xid> {
        let rows = self.stores.values().flat_map(Store::iter);
        rows.filter(|(_, row)| row.inserted.is_none()).map(|(_, row)| row.xmin).collect()
    }
}

/// A row of a transaction whose end cannot be known.
#[derive(Debug)]
pub(super) struct UnknownEnd;

impl PageTuple<'_> {
    /// What the tuple is worth, by the ends of those who wrote and deleted it: `None` if it is dead.
    pub(super) fn alive(&self, mut end_of: impl FnMut(Xid, Hint) -> End) -> Result<Option<Tuple>, UnknownEnd> {
        let inserted = match end_of(self.xmin, self.insertion) {
            End::Committed => None,
            End::Aborted => return Ok(None),
            End::Open(open) => Some(open),
            End::Unknown => return Err(UnknownEnd),
        };
        let deleted = match self.deletion {
            Deletion::None => None,
            Deletion::ByGroup => return Err(UnknownEnd),
            Deletion::By(xid, hint) => match end_of(xid, hint) {
                End::Committed => return Ok(None),
                End::Aborted => None,
                End::Open(open) => Some(open),
                End::Unknown => return Err(UnknownEnd),
            },
        };
        let row = Tuple::new(self.xmin, inserted, self.header_size, self.body);
        Ok(row.map(|row| Tuple { deleted, ..row }))
    }
}

/// A known row, as an image has it.
fn seen_again(known: &Tuple, tuple: &PageTuple<'_>) -> Option<Tuple> {
    let gone = tuple.insertion == Hint::Invalid || matches!(tuple.deletion, Deletion::By(_, Hint::Committed));
    if gone {
        return None;
    }
    let open_either_way = |open: Open| open.fate.is_some();
    let committed = matches!(tuple.insertion, Hint::Committed | Hint::Frozen);
    let inserted = known.inserted.filter(|open| !(committed && open_either_way(*open)));
    let deleted = known.deleted.filter(|open| !(tuple.deletion == Deletion::None && open_either_way(*open)));
    let row = Tuple::new(known.xmin, inserted, tuple.header_size, tuple.body)?;
    Some(Tuple { deleted, is_new_row: known.is_new_row, ..row })
}

/// `BootstrapTransactionId` and `FrozenTransactionId`, which are always committed.
pub(super) fn is_permanent(xid: Xid) -> bool {
    xid.0 == 1 || xid.0 == 2
}

impl Open {
    /// Ended one way or the other, as a base backup's copy knows.
    pub(super) fn ended(xid: Xid, fate: Fate) -> Self {
        Open { xid, fate: Some(fate) }
    }
}
