//! Records about rows of the catalogs: rows that come and go.
//!
//! How the WAL carries rows is read in [`super::super::heap`]. Other operations on a heap's pages (pruning, freezing, locking)
//! change nothing that is followed here, or come with an image.

use super::super::heap::is_heap_change;
use super::super::{
    BlockReference, DATA_PAGE_SIZE, HeapChange, HeapChangeKind, HeapTuple, RawRecord, RecordContent, RelationFile,
    UpdatedTuple, Xid,
};
use super::page::Tid;
use super::store::{Open, Tuple};
use super::{NamesNote, RelationNames};

fn inserted_tuple(tuple: &HeapTuple<'_>, xid: Xid) -> Option<Tuple> {
    Tuple::new(xid, Some(Open::in_progress(xid)), tuple.header_length, tuple.bytes)
}

impl RelationNames {
    /// Takes in a record about pages of a heap.
    pub(super) fn blocks(&mut self, record: &RawRecord<'_>, content: &RecordContent<'_>) {
        // All blocks of such a record are of one relation.
        let Some(file) = content.blocks().next().map(|block| block.file) else { return };
        if !self.is_of_catalog(file) {
            return;
        }
        self.generation += 1;
        let xid = record.header.xid;
        for block in content.blocks().filter(|block| block.fork == 0) {
            self.block(file, &block, xid);
        }
        if is_heap_change(record.header.manager, record.header.info) {
            let change = HeapChange::read(record, content).filter(|_| record.whole);
            if change.and_then(|change| self.rows_changed(&change, xid)).is_none() {
                for block in content.blocks().filter(|block| block.fork == 0) {
                    self.forget_block(file, block.block);
                }
            }
        }
    }

    /// What a record says of a whole page.
    fn block(&mut self, file: RelationFile, block: &BlockReference<'_>, xid: Xid) {
        let mut page = [0; DATA_PAGE_SIZE];
        match block.image.filter(|image| image.applied).map(|image| image.restore(&mut page)) {
            Some(Ok(())) => self.page(file, block.block, &page, xid),
            Some(Err(_)) => self.forget_block(file, block.block),
            None if block.will_init => self.new_block(file, block.block),
            None => {}
        }
    }

    /// `None` if the record is not what it should be.
    fn rows_changed(&mut self, change: &HeapChange<'_>, xid: Xid) -> Option<()> {
        let file = change.file;
        let at = |offset| Tid { block: change.block, offset };
        match &change.kind {
            HeapChangeKind::Insert { offset, tuple, .. } => self.inserted(change, at(*offset), tuple.as_ref(), xid),
            HeapChangeKind::MultiInsert { count, tuples } => {
                let rows = tuples.as_ref()?.rows().collect::<Vec<_>>();
                if !has_image(change) && rows.len() != usize::from(*count) {
                    return None;
                }
                rows.iter().try_for_each(|(offset, tuple)| self.inserted(change, at(*offset), Some(tuple), xid))
            }
            HeapChangeKind::Delete { offset, .. } => {
                self.deleted(file, at(*offset), xid);
                Some(())
            }
            HeapChangeKind::Inplace { offset, data } => {
                if !has_image(change)
                    && let Some(row) = self.stores.get_mut(&file)?.get_mut(at(*offset))
                {
                    row.overwrite((*data)?);
                }
                Some(())
            }
            HeapChangeKind::Update { old_block, old_offset, offset, tuple, .. } => {
                let old = Tid { block: *old_block, offset: *old_offset };
                self.updated(change, old, at(*offset), tuple.as_ref(), xid)
            }
        }
    }

    fn updated(
        &mut self,
        change: &HeapChange<'_>,
        old: Tid,
        new: Tid,
        tuple: Option<&UpdatedTuple<'_>>,
        xid: Xid,
    ) -> Option<()> {
        let file = change.file;
        if has_image(change) {
            self.deleted(file, old, xid);
            return Some(());
        }
        let known = self.stores.get(&file)?.get(old);
        let made = tuple.and_then(|tuple| match known {
            _ if tuple.is_whole() => inserted_tuple(&tuple.tuple, xid),
            Some(known) => known.updated(xid, tuple),
            // What it was made of is not known, so neither is it.
            None => None,
        });
        let Some(made) = made else {
            let database = self.stores.get(&file)?.database;
            self.forget(file, old);
            self.forget(file, new);
            self.stores.get_mut(&file)?.set_whole(new.block, false);
            self.notes.insert(NamesNote::RecordNotRead { database });
            return Some(());
        };
        self.deleted(file, old, xid);
        self.take_up(file, new, made);
        self.watch_rewrite(xid, file, new);
        Some(())
    }

    /// A new row; its tuple is in the image, if there is one.
    fn inserted(&mut self, change: &HeapChange<'_>, tid: Tid, tuple: Option<&HeapTuple<'_>>, xid: Xid) -> Option<()> {
        let file = change.file;
        if !has_image(change) {
            self.take_up(file, tid, inserted_tuple(tuple?, xid)?);
        }
        let row = self.stores.get_mut(&file)?.get_mut(tid)?;
        row.is_new_row = true;
        self.watch_rewrite(xid, file, tid);
        Some(())
    }

    /// A row is deleted, if its transaction commits.
    fn deleted(&mut self, file: RelationFile, tid: Tid, xid: Xid) {
        if let Some(row) = self.stores.get_mut(&file).and_then(|store| store.get_mut(tid)) {
            row.deleted = Some(Open::in_progress(xid));
            self.touch(xid, file, tid);
        }
    }
}

/// The page as it is after the change is in the record, and was taken up as a whole.
fn has_image(change: &HeapChange<'_>) -> bool {
    change.image.is_some_and(|image| image.applied)
}
