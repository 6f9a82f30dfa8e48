//! The rows of one catalog's file: those that are there, and those that open transactions add or remove.

use std::collections::{BTreeMap, HashSet};

use super::super::{TUPLE_HEADER_SIZE, UpdatedTuple, Xid};
use super::page::Tid;

/// Which catalog a file holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) enum Catalog {
    /// `pg_class`
    Relations,
    /// `pg_namespace`
    Schemas,
    /// `pg_database`
    Databases,
}

impl Catalog {
    /// Its oid, which is also the number of its first file.
    pub(super) fn oid(self) -> u32 {
        match self {
            Catalog::Relations => 1259,
            Catalog::Schemas => 2615,
            Catalog::Databases => 1262,
        }
    }
}

/// How a transaction ended, according to a copy of `pg_xact` or a tuple's hint bits in a base backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    Committed,
    Aborted,
}

/// A transaction whose end is not known to have been passed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Open {
    pub(super) xid: Xid,
    /// `None`: in progress. Otherwise it ended before the backup's stop point, perhaps behind the place where reading is: until
    /// either its end or the stop point is passed, what it did is neither there nor not there.
    pub(super) fate: Option<Fate>,
}

impl Open {
    pub(super) fn in_progress(xid: Xid) -> Self {
        Open { xid, fate: None }
    }
}

/// A version of a row that is there, or may come to be. Dead ones are not kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Tuple {
    pub(super) xmin: Xid,
    /// Who inserted it, unless that has committed.
    pub(super) inserted: Option<Open>,
    /// Who deletes it.
    pub(super) deleted: Option<Open>,
    /// It is a new row, not a new version of one.
    pub(super) is_new_row: bool,
    /// Bytes of the tuple's header, null bitmap included.
    pub(super) header_size: u8,
    /// What follows the first 23 bytes of the header.
    pub(super) body: Box<[u8]>,
}

impl Tuple {
    /// `None` if the header ends outside of the tuple.
    pub(super) fn new(xmin: Xid, inserted: Option<Open>, header_size: u8, body: &[u8]) -> Option<Self> {
        let start = usize::from(header_size).checked_sub(TUPLE_HEADER_SIZE)?;
        let body: Box<[u8]> = body.into();
        (start <= body.len()).then_some(Tuple { xmin, inserted, deleted: None, is_new_row: false, header_size, body })
    }

    /// A new version of this one, as an update's record has it.
    pub(super) fn updated(&self, xid: Xid, update: &UpdatedTuple<'_>) -> Option<Self> {
        let (bitmap, _) = update.tuple.split()?;
        let body = [bitmap, &update.columns(self.data())?].concat();
        Tuple::new(xid, Some(Open::in_progress(xid)), update.tuple.header_length, &body)
    }

    /// The row's columns.
    pub(super) fn data(&self) -> &[u8] {
        &self.body[self.data_offset()..]
    }

    fn data_offset(&self) -> usize {
        usize::from(self.header_size).saturating_sub(TUPLE_HEADER_SIZE).min(self.body.len())
    }

    /// Other columns in the same row: an update in place.
    pub(super) fn overwrite(&mut self, data: &[u8]) {
        let mut body = self.body[..self.data_offset()].to_vec();
        body.extend_from_slice(data);
        self.body = body.into();
    }

    /// What the committed state shows. A row whose fate is open either way is not shown.
    pub(super) fn is_visible(&self) -> bool {
        self.inserted.is_none() && self.deleted.is_none_or(|open| open.fate.is_none())
    }
}

/// One file of a catalog.
#[derive(Clone, Debug)]
pub(super) struct Store {
    pub(super) catalog: Catalog,
    /// The database; 0 for `pg_database`.
    pub(super) database: u32,
    /// The transaction that makes the file, while it is not the catalog's.
    pub(super) made_by: Option<Xid>,
    pub(super) tuples: BTreeMap<Tid, Tuple>,
    /// Blocks all of whose rows are known: whatever else stands there is dead.
    pub(super) whole: HashSet<u32>,
}

impl Store {
    pub(super) fn new(catalog: Catalog, database: u32, made_by: Option<Xid>) -> Self {
        Store { catalog, database, made_by, tuples: BTreeMap::new(), whole: HashSet::new() }
    }

    pub(super) fn get(&self, tid: Tid) -> Option<&Tuple> {
        self.tuples.get(&tid)
    }

    pub(super) fn get_mut(&mut self, tid: Tid) -> Option<&mut Tuple> {
        self.tuples.get_mut(&tid)
    }

    pub(super) fn put(&mut self, tid: Tid, tuple: Tuple) {
        self.tuples.insert(tid, tuple);
    }

    pub(super) fn remove(&mut self, tid: Tid) -> Option<Tuple> {
        self.tuples.remove(&tid)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Tid, &Tuple)> {
        self.tuples.iter().map(|(tid, tuple)| (*tid, tuple))
    }

    /// The rows of one block.
    pub(super) fn block(&self, block: u32) -> impl Iterator<Item = (Tid, &Tuple)> {
        let (first, last) = (Tid { block, offset: 0 }, Tid { block, offset: u16::MAX });
        self.tuples.range(first..=last).map(|(tid, tuple)| (*tid, tuple))
    }

    pub(super) fn is_whole(&self, block: u32) -> bool {
        self.whole.contains(&block)
    }

    pub(super) fn set_whole(&mut self, block: u32, whole: bool) {
        if whole {
            self.whole.insert(block);
        } else {
            self.whole.remove(&block);
        }
    }
}
