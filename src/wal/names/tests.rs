//! What real servers do not show: pages and rows of any content, missing WAL, transactions whose end is unknown.

use proptest::prelude::*;

use super::super::{DATA_PAGE_SIZE, Lsn, PostgresMajor, RelationFile};
use super::page::tuples;
use super::row::{self, RelationRow};
use super::{CatalogCopy, NamesNote, RelationKind, RelationNames, index_owners};

const MAJOR: PostgresMajor = PostgresMajor(17);
/// The database, and where its pg_class and pg_namespace are.
const DATABASE: u32 = 5;
const PG_CLASS: RelationFile = RelationFile { tablespace: 1663, database: DATABASE, relation: 1259 };
const PG_NAMESPACE: RelationFile = RelationFile { relation: 2615, ..PG_CLASS };
/// The redo point of the backup.
const START: Lsn = Lsn(0x200_0000);
/// `HEAP_XMIN_COMMITTED` and `HEAP_XMAX_INVALID`: a row that nobody doubts.
const SETTLED: u16 = 0x0900;
/// A permanent transaction: `FrozenTransactionId`.
const FROZEN: u32 = 2;

/// A row of pg_class: oid, name, schema, file, kind.
fn relation(oid: u32, name: &str, schema: u32, file: u32) -> Vec<u8> {
    let mut row = vec![0; 140];
    row[..4].copy_from_slice(&oid.to_le_bytes());
    row[4..4 + name.len()].copy_from_slice(name.as_bytes());
    row[68..72].copy_from_slice(&schema.to_le_bytes());
    row[88..92].copy_from_slice(&file.to_le_bytes());
    row[114] = b'p';
    row[115] = b'r';
    row
}

/// A row of pg_namespace.
fn schema(oid: u32, name: &str) -> Vec<u8> {
    let mut row = vec![0; 72];
    row[..4].copy_from_slice(&oid.to_le_bytes());
    row[4..4 + name.len()].copy_from_slice(name.as_bytes());
    row
}

/// A heap page of these rows: who inserted and who deleted each, its `t_infomask`, and its columns.
fn page(rows: &[(u32, u32, u16, Vec<u8>)]) -> Vec<u8> {
    let mut page = vec![0; DATA_PAGE_SIZE];
    let mut upper = DATA_PAGE_SIZE;
    for (number, (xmin, xmax, mask, data)) in (0_u16..).zip(rows) {
        let length = 24 + data.len();
        upper = (upper - length) & !7;
        let place = 24 + 4 * usize::from(number);
        let pointer = upper | 1 << 15 | length << 17;
        page[place..place + 4].copy_from_slice(&u32::try_from(pointer).expect("32 bits").to_le_bytes());
        let tuple = &mut page[upper..upper + length];
        tuple[..4].copy_from_slice(&xmin.to_le_bytes());
        tuple[4..8].copy_from_slice(&xmax.to_le_bytes());
        tuple[16..18].copy_from_slice(&(number + 1).to_le_bytes());
        tuple[20..22].copy_from_slice(&mask.to_le_bytes());
        tuple[22] = 24;
        tuple[24..].copy_from_slice(data);
    }
    let lower = 24 + 4 * rows.len();
    for (at, value) in [(12, lower), (14, upper), (16, DATA_PAGE_SIZE)] {
        page[at..at + 2].copy_from_slice(&u16::try_from(value).expect("16 bits").to_le_bytes());
    }
    page
}

/// `pg_filenode.map` that puts pg_class where `initdb` does.
fn map() -> Vec<u8> {
    let words = [0x0059_2717_u32, 1, PG_CLASS.relation, PG_CLASS.relation];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.resize(8 + 64 * 8, 0);
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes
}

/// The names that a backup with these pages gives.
fn names(relations: &[u8], schemas: &[u8], xact: &[u8]) -> RelationNames {
    let mut copy = CatalogCopy::new(MAJOR, START, Lsn(START.0 + 0x1000));
    copy.database_map(PG_CLASS.tablespace, DATABASE, &map());
    for (file, pages) in [(PG_CLASS, relations), (PG_NAMESPACE, schemas)] {
        copy.pages(file, 0, pages, |_| false);
        copy.finished(file);
    }
    for number in copy.wanted_xact() {
        copy.xact(number, xact.to_vec());
    }
    copy.into_names()
}

fn settled(data: Vec<u8>) -> (u32, u32, u16, Vec<u8>) {
    (FROZEN, 0, SETTLED, data)
}

/// pg_class: the row of pg_namespace, and those given.
fn catalog(rows: Vec<(u32, u32, u16, Vec<u8>)>) -> Vec<u8> {
    let own = settled(relation(PG_NAMESPACE.relation, "pg_namespace", 11, PG_NAMESPACE.relation));
    page(&[vec![own], rows].concat())
}

fn shop() -> Vec<u8> {
    page(&[settled(schema(2200, "public")), settled(schema(16400, "shop"))])
}

fn name_of(names: &RelationNames, file: u32) -> Option<String> {
    let name = names.name_of(RelationFile { relation: file, ..PG_CLASS })?;
    Some(format!("{}.{}", name.schema, name.name))
}

/// A table has the name that its settled row tells; a gap in the WAL takes every name away, and says so.
#[test]
fn a_gap_forgets() {
    let mut names = names(&catalog(vec![settled(relation(16500, "carts", 16400, 16501))]), &shop(), &[]);
    assert_eq!(name_of(&names, 16501).as_deref(), Some("shop.carts"));
    assert_eq!(name_of(&names, 16500), None, "its file has another number");
    let before = names.generation();
    names.gap();
    assert_eq!(name_of(&names, 16501), None);
    assert!(names.notes().contains(&NamesNote::Gap) && names.generation() != before);
    assert_eq!(names.databases().count(), 0);
}

/// A row of a transaction that has not ended at the redo point is no name yet; one that committed after it, by the copy of pg_xact, is none
/// before the stop point; one that rolled back never is. Without its part of pg_xact nothing is given, and the reason is told.
#[test]
fn ends_of_transactions() {
    let pages = catalog(vec![
        (1001, 0, 0x0800, relation(16500, "in_progress", 2200, 16501)),
        (1002, 0, 0x0800, relation(16510, "committed", 2200, 16511)),
        (1003, 0, 0x0800, relation(16520, "rolled_back", 2200, 16521)),
        (FROZEN, 1003, 0x0100, relation(16530, "not_dropped", 2200, 16531)),
    ]);
    let mut xact = vec![0; 8192];
    xact[1002 / 4] |= 1 << (2 * (1002 % 4));
    xact[1003 / 4] |= 2 << (2 * (1003 % 4));
    let mut known = names(&pages, &shop(), &xact);
    let told = |names: &RelationNames| [16501, 16511, 16521, 16531].map(|file| name_of(names, file).is_some());
    assert!(!told(&known)[0] && !told(&known)[1] && !told(&known)[2]);
    known.pass(Lsn(START.0 + 0x2000));
    assert_eq!(told(&known), [false, true, false, true], "behind the stop point");

    let mut unknown = CatalogCopy::new(MAJOR, START, Lsn(START.0 + 0x1000));
    unknown.database_map(PG_CLASS.tablespace, DATABASE, &map());
    unknown.pages(PG_CLASS, 0, &pages, |_| false);
    unknown.pages(PG_NAMESPACE, 0, &shop(), |_| false);
    let unknown = unknown.into_names();
    assert_eq!(told(&unknown), [false; 4]);
    assert!(unknown.notes().contains(&NamesNote::UnknownEnd { database: DATABASE }));
}

/// Promise: a page that the server found damaged is not believed, and that a part of the catalog is missing is told, also where what stands
/// there is no page at all.
#[test]
fn damaged_pages() {
    let pages = catalog(vec![settled(relation(16500, "carts", 16400, 16501))]);
    for (bytes, block) in [(pages.clone(), Some(0)), (vec![7; DATA_PAGE_SIZE], None), (pages, Some(1))] {
        let mut copy = CatalogCopy::new(MAJOR, START, Lsn(START.0 + 0x1000));
        copy.database_map(PG_CLASS.tablespace, DATABASE, &map());
        copy.pages(PG_CLASS, 0, &bytes, |at| Some(at) == block);
        copy.pages(PG_NAMESPACE, 0, &shop(), |_| false);
        let names = copy.into_names();
        let whole = block == Some(1);
        let note = NamesNote::NotInBackup { database: DATABASE, what: "a part" };
        assert_eq!((name_of(&names, 16501).is_some(), names.notes().contains(&note)), (whole, !whole), "{block:?}");
    }
}

/// Promise: an index's table is told by any row of it but that of a transaction that was rolled back; other bytes have none.
#[test]
fn tables_of_indexes() {
    let row = |index: u32, table: u32| [index.to_le_bytes(), table.to_le_bytes(), [0; 4]].concat();
    let pages =
        page(&[settled(row(16510, 16500)), (1002, 0, 0x0200, row(16511, 1)), (1003, 1004, 0, row(16512, 16501))]);
    assert_eq!(index_owners(&pages).collect::<Vec<_>>(), [(16510, 16500), (16512, 16501)]);
    assert_eq!(index_owners(&[7; DATA_PAGE_SIZE]).count(), 0);
}

/// A row that is cut off anywhere is none; what is not UTF-8 is replaced; an empty name is none.
#[test]
fn rows_that_are_cut_off() {
    let whole = relation(16500, "carts", 16400, 16501);
    let read = RelationRow::read(&whole, MAJOR).expect("a row");
    assert_eq!((read.name.as_str(), read.kind, read.file), ("carts", RelationKind::Table, 16501));
    assert!((0..116).all(|length| RelationRow::read(&whole[..length], MAJOR).is_none()));
    assert_eq!(row::name(&schema(1, "")), None);
    let mut foreign = schema(1, "Käse");
    foreign[5] = 0xE4;
    assert!(row::name(&foreign).is_some_and(|name| name.contains('\u{FFFD}')));
}

proptest! {
    /// Any bytes are a page, or none; no tuple reaches beyond it.
    #[test]
    fn any_page(seed in proptest::collection::vec(any::<u8>(), 64), lower in 0_u16..9000, upper in 0_u16..9000) {
        let mut page: [u8; DATA_PAGE_SIZE] = std::array::from_fn(|at| seed[at * 7 % seed.len()]);
        for (at, value) in [(12, lower), (14, upper), (16, 8192)] {
            page[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
        let found: Vec<_> = tuples(&page).into_iter().flatten().collect();
        prop_assert!(found.len() <= DATA_PAGE_SIZE / 4);
        prop_assert!(found.iter().all(|tuple| tuple.body.len() < DATA_PAGE_SIZE && tuple.offset > 0));
    }

    /// A copy of the catalog with bytes changed anywhere, or cut, is read to its end.
    #[test]
    fn any_copy(changes in proptest::collection::vec((0..2 * DATA_PAGE_SIZE, any::<u8>()), 0..40), cut in 0..DATA_PAGE_SIZE) {
        let pages = catalog(vec![
            settled(relation(16500, "carts", 16400, 16501)),
            (1002, 1003, 0, relation(16510, "prices", 16400, 16511)),
        ]);
        let mut both = [pages, shop()].concat();
        for (at, byte) in changes {
            both[at] = byte;
        }
        let (relations, schemas) = both.split_at(DATA_PAGE_SIZE);
        let mut names = names(relations, &schemas[..cut], &both[..cut]);
        for database in names.databases().collect::<Vec<_>>() {
            names.relations(database).for_each(drop);
        }
        names.pass(Lsn(START.0 + 0x2000));
        names.relations(DATABASE).for_each(drop);
    }

    /// A page that was being written while it was copied gives no wrong name: of a table that was renamed, the one, the other, or none.
    #[test]
    fn torn_pages(border in 0..=16_usize) {
        let before = catalog(vec![settled(relation(16500, "before", 16400, 16501)), settled(relation(16510, "other", 2200, 16511))]);
        let renamed = relation(16500, "after", 16400, 16501);
        let after = catalog(vec![
            (FROZEN, 1002, 0x0100, relation(16500, "before", 16400, 16501)),
            settled(relation(16510, "other", 2200, 16511)),
            (1002, 0, 0x0800, renamed),
        ]);
        // Disks write sectors of 512 bytes.
        let torn = [&after[..border * 512], &before[border * 512..]].concat();
        let mut xact = vec![0; 8192];
        xact[1002 / 4] |= 1 << (2 * (1002 % 4));
        let mut names = names(&torn, &shop(), &xact);
        names.pass(Lsn(START.0 + 0x2000));
        let told = name_of(&names, 16501);
        prop_assert!(told.is_none() || ["shop.before", "shop.after"].contains(&told.as_deref().unwrap_or_default()), "{told:?}");
        prop_assert_eq!(name_of(&names, 16511), Some("public.other".to_owned()));
    }
}
