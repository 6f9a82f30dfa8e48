//! Ends of transactions: what they did is there, or never was.

use std::collections::{BTreeSet, HashSet};

use super::super::{Event, EventKind, Lsn, RelationFile, TransactionEnd, Xid};
use super::change::{CatalogChange, CatalogChanges, DatabaseName, NamesNote, RelationName, SchemaName};
use super::page::Tid;
use super::row::{self, RelationRow};
use super::store::{Catalog, Fate};
use super::{OpenTransaction, RelationNames};

/// A relation, schema or database.
type Subject = (Catalog, u32, u32);

/// How a subject was, or is.
enum Known {
    Relation(RelationName),
    Schema(SchemaName),
    Database(DatabaseName),
}

impl RelationNames {
    /// Takes in the next event. A commit tells what it changes in the catalog.
    pub fn event(&mut self, event: &Event) -> CatalogChanges {
        self.pass(event.lsn);
        match &event.kind {
            EventKind::Commit(end) => self.transaction_end(event.xid, end, true),
            EventKind::Abort(end) => self.transaction_end(event.xid, end, false),
            EventKind::Prepare { .. } => {
                self.open.entry(event.xid).or_default().prepared = true;
                CatalogChanges::default()
            }
            // The server was not running before: whatever was under way then never ends.
            EventKind::Checkpoint { shutdown: true, .. } | EventKind::EndOfRecovery { .. } => {
                let lost = self.open.iter().filter(|(xid, open)| !open.prepared && !self.fates.contains_key(xid));
                let lost: Vec<Xid> = lost.map(|(xid, _)| *xid).collect();
                self.end(&lost, false);
                CatalogChanges::default()
            }
            EventKind::Checkpoint { .. }
            | EventKind::RestorePoint { .. }
            | EventKind::ParameterChange(_)
            | EventKind::BackupEnd { .. }
            | EventKind::TablespaceCreate { .. }
            | EventKind::TablespaceDrop { .. }
            | EventKind::DatabaseCreate { .. }
            | EventKind::DatabaseDrop { .. }
            | EventKind::Truncate { .. }
            | EventKind::OverwriteContrecord { .. } => CatalogChanges::default(),
        }
    }

    /// Tells that reading has come to `lsn`, before the next record or event if names are asked for there. At the backup's stop point everything that its copy knew to have ended has been passed.
    pub fn pass(&mut self, lsn: Lsn) {
        if self.settled_at.is_some_and(|stop| lsn >= stop) {
            self.settled_at = None;
            self.generation += 1;
            let fates = std::mem::take(&mut self.fates);
            for fate in [Fate::Committed, Fate::Aborted] {
                let ended = fates.iter().filter(|(_, ended)| **ended == fate);
                let xids: Vec<Xid> = ended.map(|(xid, _)| *xid).collect();
                self.end(&xids, fate == Fate::Committed);
            }
            self.forget_other_copies();
        }
    }

    fn transaction_end(&mut self, xid: Xid, end: &TransactionEnd, committed: bool) -> CatalogChanges {
        let named = end.dropped.iter().filter_map(|file| Some((*file, self.name_of_for(xid, *file)?)));
        let removed_files = named.collect();
        if end.cut && (end.subtransaction_xids.len() < end.subtransactions as usize || (end.prepared && xid.0 == 0)) {
            self.lose_transactions(xid, end);
        }
        let xids: Vec<Xid> = end.subtransaction_xids.iter().copied().chain([xid]).collect();
        CatalogChanges { changes: self.end(&xids, committed), removed_files }
    }

    /// Some of the transactions that end are not known: forgets what those did that may be meant.
    fn lose_transactions(&mut self, xid: Xid, end: &TransactionEnd) {
        let listed: HashSet<Xid> = end.subtransaction_xids.iter().copied().chain([xid]).collect();
        let may_be_meant = |other: &Xid, open: &OpenTransaction| {
            // Subtransactions begin after their top transaction.
            !listed.contains(other) && (xid.0 == 0 || precedes(xid, *other)) && (!open.prepared || end.prepared)
        };
        let meant = self.open.iter().filter(|(other, open)| may_be_meant(other, open));
        let meant: Vec<Xid> = meant.map(|(other, _)| *other).collect();
        for (file, tid) in self.close(&meant) {
            self.forget(file, tid);
        }
        self.generation += 1;
        self.notes.insert(NamesNote::CommitCut);
    }

    /// Ends transactions, and tells what that changes.
    fn end(&mut self, xids: &[Xid], committed: bool) -> Vec<CatalogChange> {
        let touched = self.close(xids);
        if touched.is_empty() {
            return Vec::new();
        }
        self.generation += 1;
        let ended: HashSet<Xid> = xids.iter().copied().collect();
        let (subjects, new) = self.subjects(&touched, &ended);
        let before: Vec<Option<Known>> = subjects.iter().map(|subject| self.known(*subject)).collect();
        // Old versions go before new ones come: both have the same oid.
        for (file, tid) in &touched {
            self.settle_deletion(*file, *tid, &ended, committed);
        }
        for (file, tid) in &touched {
            self.settle_insertion(*file, *tid, &ended, committed);
        }
        self.stores.retain(|_, store| store.made_by.is_none_or(|maker| !ended.contains(&maker)));
        if !committed {
            return Vec::new();
        }
        let mut changes = Vec::new();
        for (subject, before) in subjects.iter().zip(before) {
            let exists = self.visible_tid(subject.0, subject.1, subject.2).is_some();
            let after = self.known(*subject).filter(|_| exists);
            if exists && after.is_none() {
                // It is there, under a name that is not known.
                continue;
            }
            changes.extend(difference(before, after, new.contains(subject)));
        }
        changes
    }

    /// What these transactions touched; they are open no more.
    fn close(&mut self, xids: &[Xid]) -> BTreeSet<(RelationFile, Tid)> {
        let mut touched = BTreeSet::new();
        for xid in xids {
            self.fates.remove(xid);
            touched.extend(self.open.remove(xid).into_iter().flat_map(|open| open.touched));
        }
        touched
    }

    /// Whose rows these are, and which of them are new altogether.
    fn subjects(
        &self,
        touched: &BTreeSet<(RelationFile, Tid)>,
        ended: &HashSet<Xid>,
    ) -> (BTreeSet<Subject>, HashSet<Subject>) {
        let (mut subjects, mut new) = (BTreeSet::new(), HashSet::new());
        for (file, tid) in touched {
            let Some(store) = self.stores.get(file) else { continue };
            let Some(tuple) = store.get(*tid) else { continue };
            let Some(oid) = row::oid(tuple.data()) else { continue };
            let subject = (store.catalog, store.database, oid);
            subjects.insert(subject);
            if tuple.is_new_row && tuple.inserted.is_some_and(|open| ended.contains(&open.xid)) {
                new.insert(subject);
            }
        }
        (subjects, new)
    }

    fn settle_deletion(&mut self, file: RelationFile, tid: Tid, ended: &HashSet<Xid>, committed: bool) {
        let Some(tuple) = self.stores.get_mut(&file).and_then(|store| store.get_mut(tid)) else { return };
        if tuple.deleted.is_none_or(|open| !ended.contains(&open.xid)) {
            return;
        }
        if committed {
            self.forget(file, tid);
        } else {
            tuple.deleted = None;
            self.show(file, tid);
        }
    }

    fn settle_insertion(&mut self, file: RelationFile, tid: Tid, ended: &HashSet<Xid>, committed: bool) {
        let Some(tuple) = self.stores.get_mut(&file).and_then(|store| store.get_mut(tid)) else { return };
        if tuple.inserted.is_none_or(|open| !ended.contains(&open.xid)) {
            return;
        }
        if committed {
            tuple.inserted = None;
            self.show(file, tid);
        } else {
            self.forget(file, tid);
        }
    }

    /// Takes up a row that has become visible, if it is.
    pub(super) fn show(&mut self, file: RelationFile, tid: Tid) {
        let Some(store) = self.stores.get(&file) else { return };
        let (catalog, oid_of_database) = (store.catalog, store.database);
        if self.current_file(catalog, oid_of_database) != Some(file) {
            return;
        }
        let Some(tuple) = store.get(tid).filter(|tuple| tuple.is_visible()) else { return };
        let Some(oid) = row::oid(tuple.data()) else { return };
        let before = match catalog {
            Catalog::Databases => self.database_rows.insert(oid, tid),
            Catalog::Schemas => {
                self.databases.get_mut(&oid_of_database).and_then(|database| database.schemas.insert(oid, tid))
            }
            Catalog::Relations => {
                let Some(row) = RelationRow::read(tuple.data(), self.major) else { return };
                let Some(database) = self.databases.get_mut(&oid_of_database) else { return };
                let file = database.file_of(oid_of_database, &row);
                let before = database.add(file, &row, tid);
                if row.oid == Catalog::Schemas.oid()
                    && let Some(file) = file
                {
                    self.move_catalog(Catalog::Schemas, oid_of_database, file);
                }
                before
            }
        };
        // A row has one visible version: of an older one, the end was missed.
        if let Some(before) = before.filter(|before| *before != tid)
            && let Some(store) = self.stores.get_mut(&file)
        {
            store.remove(before);
        }
    }

    /// Forgets a version of a row.
    pub(super) fn forget(&mut self, file: RelationFile, tid: Tid) {
        let Some(store) = self.stores.get_mut(&file) else { return };
        let (catalog, oid_of_database) = (store.catalog, store.database);
        let Some(tuple) = store.remove(tid) else { return };
        let Some(oid) = row::oid(tuple.data()) else { return };
        let is_shown = self.current_file(catalog, oid_of_database) == Some(file)
            && self.visible_tid(catalog, oid_of_database, oid) == Some(tid);
        if !is_shown {
            return;
        }
        if catalog == Catalog::Databases {
            self.database_rows.remove(&oid);
            return;
        }
        let Some(database) = self.databases.get_mut(&oid_of_database) else { return };
        if catalog == Catalog::Schemas {
            database.schemas.remove(&oid);
        } else if let Some(row) = RelationRow::read(tuple.data(), self.major) {
            let file = database.file_of(oid_of_database, &row);
            database.remove(file, &row, tid);
        }
    }

    fn known(&self, (catalog, database, oid): Subject) -> Option<Known> {
        match catalog {
            Catalog::Relations => self.relation(database, oid).map(Known::Relation),
            Catalog::Schemas => {
                let (of, name) = (self.database_name(database), self.schema_name(database, oid)?);
                Some(Known::Schema(SchemaName { database_oid: database, database: of, oid, name }))
            }
            Catalog::Databases => Some(Known::Database(DatabaseName { oid, name: self.database_name(oid)? })),
        }
    }
}

/// What happened to a subject. Nothing can be said of one that was not known before, unless it is new.
fn difference(before: Option<Known>, after: Option<Known>, is_new: bool) -> Vec<CatalogChange> {
    use CatalogChange as Change;
    match (before, after) {
        (None, Some(after)) if is_new => vec![match after {
            Known::Relation(name) => Change::RelationCreated(name),
            Known::Schema(name) => Change::SchemaCreated(name),
            Known::Database(name) => Change::DatabaseCreated(name),
        }],
        (Some(before), None) => vec![match before {
            Known::Relation(name) => Change::RelationDropped(name),
            Known::Schema(name) => Change::SchemaDropped(name),
            Known::Database(name) => Change::DatabaseDropped(name),
        }],
        (Some(Known::Relation(before)), Some(Known::Relation(after))) => {
            let renamed = before.name != after.name || before.schema != after.schema;
            let rewritten = before.file != after.file && before.file.is_some() && after.file.is_some();
            let renaming = renamed.then(|| Change::RelationRenamed { before: before.clone(), after: after.clone() });
            renaming.into_iter().chain(rewritten.then_some(Change::RelationRewritten { before, after })).collect()
        }
        (Some(Known::Schema(before)), Some(Known::Schema(after))) if before.name != after.name => {
            vec![Change::SchemaRenamed { before, after }]
        }
        (Some(Known::Database(before)), Some(Known::Database(after))) if before.name != after.name => {
            vec![Change::DatabaseRenamed { before, after }]
        }
        _ => Vec::new(),
    }
}

/// Whether a transaction began before another (`TransactionIdPrecedes`): numbers wrap, and half of them lie on each side.
pub(super) fn precedes(one: Xid, other: Xid) -> bool {
    one.0.wrapping_sub(other.0).cast_signed() < 0
}
