//! Files of catalogs that come, move and go.
//!
//! VACUUM FULL and CLUSTER write a catalog anew into a file that another name has until the end: the transient row
//! `pg_temp_<oid>` of `pg_class` announces it (`make_new_heap` in `cluster.c`). For `pg_namespace` that row tells the file; for the mapped
//! catalogs it is the one that the transaction made last. The file's pages pass as images before the catalog moves there, which
//! the changed map tells for mapped ones, and the row of `pg_class` for `pg_namespace`.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use super::super::bytes::u32_at;
use super::super::{RelationFile, Xid};
use super::database::{Database, GLOBAL_TABLESPACE};
use super::map::RelationMap;
use super::page::Tid;
use super::row::RelationRow;
use super::store::{Catalog, Store};
use super::{NamesNote, RelationNames};

/// What transient tables of a rewrite are called, before the oid of the table.
const TRANSIENT_PREFIX: &str = "pg_temp_";

impl RelationNames {
    /// Whether a file is, or may become, that of a catalog. One that is still where `initdb` put it is known by its number.
    pub(super) fn is_of_catalog(&mut self, file: RelationFile) -> bool {
        if self.stores.contains_key(&file) {
            return true;
        }
        let RelationFile { tablespace, database, relation } = file;
        let catalogs = [Catalog::Relations, Catalog::Schemas, Catalog::Databases];
        let Some(catalog) = catalogs.into_iter().find(|catalog| catalog.oid() == relation) else { return false };
        let shared = (tablespace, database) == (GLOBAL_TABLESPACE, 0);
        if shared != (catalog == Catalog::Databases) || self.current_file(catalog, database).is_some() {
            return false;
        }
        if !shared && self.database(database, tablespace).tablespace != tablespace {
            return false;
        }
        self.stores.insert(file, Store::new(catalog, database, None));
        self.set_current(catalog, database, file);
        true
    }

    fn database(&mut self, oid: u32, tablespace: u32) -> &mut Database {
        self.databases.entry(oid).or_insert_with(|| Database::new(tablespace))
    }

    fn set_current(&mut self, catalog: Catalog, database: u32, file: RelationFile) {
        match catalog {
            Catalog::Databases => self.databases_file = Some(file),
            Catalog::Relations => self.database(database, file.tablespace).relations_file = Some(file),
            Catalog::Schemas => self.database(database, file.tablespace).schemas_file = Some(file),
        }
    }

    /// A catalog is in this file from now on.
    pub(super) fn move_catalog(&mut self, catalog: Catalog, database: u32, file: RelationFile) {
        let before = self.current_file(catalog, database);
        if before == Some(file) {
            return;
        }
        let known = self.visible_oids(catalog, database);
        match self.stores.get_mut(&file) {
            Some(store) => store.made_by = None,
            None => {
                self.stores.insert(file, Store::new(catalog, database, None));
            }
        }
        self.set_current(catalog, database, file);
        if let Some(before) = before {
            self.stores.remove(&before);
        }
        self.show_all(catalog, database, file);
        if !known.is_subset(&self.visible_oids(catalog, database)) {
            self.notes.insert(NamesNote::RewriteNotSeen { database });
        }
    }

    /// Finds the visible rows of a file anew.
    fn show_all(&mut self, catalog: Catalog, database: u32, file: RelationFile) {
        match (catalog, self.databases.get_mut(&database)) {
            (Catalog::Databases, _) => self.database_rows.clear(),
            (Catalog::Relations, Some(known)) => known.clear_relations(),
            (Catalog::Schemas, Some(known)) => known.schemas.clear(),
            (_, None) => {}
        }
        let tids: Vec<Tid> = self.stores.get(&file).into_iter().flat_map(Store::iter).map(|(tid, _)| tid).collect();
        for tid in tids {
            self.show(file, tid);
        }
    }

    /// Forgets files of a base backup's copy that turned out not to be those of a catalog.
    pub(super) fn forget_other_copies(&mut self) {
        let mut stores = std::mem::take(&mut self.stores);
        stores.retain(|file, store| {
            store.made_by.is_some() || self.current_file(store.catalog, store.database) == Some(*file)
        });
        self.stores = stores;
    }

    fn visible_oids(&self, catalog: Catalog, database: u32) -> BTreeSet<u32> {
        match (catalog, self.databases.get(&database)) {
            (Catalog::Databases, _) => self.database_rows.keys().copied().collect(),
            (Catalog::Relations, Some(known)) => known.relations.keys().copied().collect(),
            (Catalog::Schemas, Some(known)) => known.schemas.keys().copied().collect(),
            (_, None) => BTreeSet::new(),
        }
    }

    /// A transaction made a file (`xl_smgr_create`): remembered until it makes the next one.
    pub(super) fn file_made(&mut self, xid: Xid, data: &[u8]) {
        let read = || {
            let (tablespace, database) = (u32_at(data, 0)?, u32_at(data, 4)?);
            let file = RelationFile { tablespace, database, relation: u32_at(data, 8)? };
            (u32_at(data, 12)? == 0).then_some(file)
        };
        if let Some(file) = read()
            && xid.0 != 0
        {
            self.open.entry(xid).or_default().last_file = Some(file);
        }
    }

    /// Looks whether a new row of `pg_class` announces a new file of a catalog.
    pub(super) fn watch_rewrite(&mut self, xid: Xid, in_file: RelationFile, tid: Tid) {
        let Some(store) = self.stores.get(&in_file).filter(|store| store.catalog == Catalog::Relations) else { return };
        let database = store.database;
        let row = store.get(tid).and_then(|tuple| RelationRow::read(tuple.data(), self.major));
        let Some(row) = row else { return };
        let transient = row.name.strip_prefix(TRANSIENT_PREFIX).and_then(|oid| oid.parse::<u32>().ok());
        let catalogs = [Catalog::Relations, Catalog::Schemas, Catalog::Databases];
        let Some(catalog) = catalogs.into_iter().find(|catalog| Some(catalog.oid()) == transient) else { return };
        let told = self.databases.get(&database).and_then(|known| known.file_of(database, &row));
        let made = || self.open.get(&xid).and_then(|open| open.last_file);
        let owner = if catalog == Catalog::Databases { 0 } else { database };
        if let Some(file) = told.or_else(made).filter(|file| file.database == owner) {
            self.stores.entry(file).or_insert_with(|| Store::new(catalog, owner, Some(xid)));
        }
    }

    /// The map of a database, or of what is shared, is another (`xl_relmap_update`).
    pub(super) fn map_changed(&mut self, data: &[u8]) {
        let Some((database, tablespace)) = u32_at(data, 0).zip(u32_at(data, 4)) else { return };
        let map = u32_at(data, 8).and_then(|length| RelationMap::parse(data.get(12..)?.get(..length as usize)?));
        let Some(map) = map else {
            self.notes.insert(NamesNote::RecordNotRead { database });
            self.forget_catalogs(database);
            return;
        };
        self.set_map(database, tablespace, map);
    }

    /// Takes up a map, and moves the catalog to where it says.
    pub(super) fn set_map(&mut self, database: u32, tablespace: u32, map: RelationMap) {
        let catalog = if database == 0 { Catalog::Databases } else { Catalog::Relations };
        let relation = map.file_of(catalog.oid());
        if database == 0 {
            self.shared_map = Some(map);
        } else {
            let known = self.database(database, tablespace);
            if known.tablespace != tablespace {
                return;
            }
            known.map = Some(map);
        }
        if let Some(relation) = relation {
            self.move_catalog(catalog, database, RelationFile { tablespace, database, relation });
        }
    }

    /// Forgets where the catalogs of a database are, and what is in them.
    fn forget_catalogs(&mut self, database: u32) {
        if database == 0 {
            self.shared_map = None;
            self.databases_file = None;
            self.database_rows.clear();
        } else {
            self.databases.remove(&database);
        }
        self.stores.retain(|_, store| store.database != database);
    }

    /// `CREATE DATABASE` that writes what it copies to the WAL (`xl_dbase_create_wal_log_rec`): map and pages follow.
    pub(super) fn database_made(&mut self, xid: Xid, data: &[u8]) {
        let Some((database, tablespace)) = u32_at(data, 0).zip(u32_at(data, 4)) else { return };
        self.forget_catalogs(database);
        // pg_namespace has the same number as in the template, which the record does not name.
        let known = self.databases.values().filter_map(|known| known.schemas_file.map(|file| file.relation));
        let numbers: BTreeSet<u32> = known.chain([Catalog::Schemas.oid()]).collect();
        self.database(database, tablespace);
        for relation in numbers {
            let file = RelationFile { tablespace, database, relation };
            self.stores.insert(file, Store::new(Catalog::Schemas, database, Some(xid)));
        }
    }

    /// `CREATE DATABASE` that copies files (`xl_dbase_create_rec`), or `ALTER DATABASE … SET TABLESPACE`: nothing that was
    /// under way could be in them, and the server has written everything to them just before.
    pub(super) fn database_copied(&mut self, data: &[u8]) {
        let word = |at| u32_at(data, at).unwrap_or_default();
        let (database, tablespace, template, template_tablespace) = (word(0), word(4), word(8), word(12));
        let Some(known) = self.databases.get(&template) else {
            self.forget_catalogs(database);
            self.notes.insert(NamesNote::UnknownTemplate { database });
            return;
        };
        if known.tablespace != template_tablespace {
            // Files that were put into other tablespaces one by one.
            return;
        }
        let mut copy = Database::new(tablespace);
        copy.map = known.map.clone();
        let moved = |file: RelationFile| RelationFile { tablespace, database, ..file };
        let mut stores = FxHashMap::default();
        for (catalog, file) in [(Catalog::Relations, known.relations_file), (Catalog::Schemas, known.schemas_file)] {
            let Some(file) = file else { continue };
            let Some(store) = self.stores.get(&file) else { continue };
            stores.insert(moved(file), (catalog, Store { database, ..store.clone() }));
        }
        copy.relations_file = known.relations_file.map(moved);
        copy.schemas_file = known.schemas_file.map(moved);
        self.forget_catalogs(database);
        self.databases.insert(database, copy);
        for (file, (_, store)) in &stores {
            self.stores.insert(*file, store.clone());
        }
        for (file, (catalog, _)) in stores {
            self.show_all(catalog, database, file);
        }
    }

    /// `DROP DATABASE`, or the end of a move to another tablespace (`xl_dbase_drop_rec`).
    pub(super) fn database_dropped(&mut self, data: &[u8]) {
        let Some((database, count)) = u32_at(data, 0).zip(u32_at(data, 4)) else { return };
        let tablespaces = data.get(8..).unwrap_or_default().chunks_exact(4).take(count as usize);
        let tablespaces: Vec<u32> = tablespaces.filter_map(|word| u32_at(word, 0)).collect();
        if self.databases.get(&database).is_some_and(|known| tablespaces.contains(&known.tablespace)) {
            self.forget_catalogs(database);
        }
    }
}
