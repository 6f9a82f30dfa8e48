//! Records about rows of tables (`heapam_xlog.h`): rows inserted, updated and deleted, and the rows themselves.
//!
//! Read without copying or allocating: counting rows looks at the main data alone. The rows are there where replay needs
//! them: not if the record carries the page's image instead, nor those of deletions. The layouts are those of 13 to 18.

use super::bytes::{array_at, u16_at, u32_at};
use super::record::{RM_HEAP, RM_HEAP2};
use super::{BlockImage, BlockReference, EventKind, RawRecord, RecordContent, RelationFile};

/// The operation, without `XLOG_HEAP_INIT_PAGE`.
const OPERATION_MASK: u8 = 0x70;
/// `XLOG_HEAP_INIT_PAGE`: the page is made anew.
const INIT_PAGE: u8 = 0x80;
const INSERT: u8 = 0x00;
const DELETE: u8 = 0x10;
const UPDATE: u8 = 0x20;
const TRUNCATE: u8 = 0x30;
const HOT_UPDATE: u8 = 0x40;
const INPLACE: u8 = 0x70;
/// Of `RM_HEAP2`.
const MULTI_INSERT: u8 = 0x50;

/// `XLH_INSERT_IS_SPECULATIVE`
const INSERT_IS_SPECULATIVE: u8 = 1 << 2;
/// `XLH_DELETE_IS_SUPER`
const DELETE_IS_SUPER: u8 = 1 << 3;
/// `XLH_UPDATE_PREFIX_FROM_OLD`
const PREFIX_FROM_OLD: u8 = 1 << 5;
/// `XLH_UPDATE_SUFFIX_FROM_OLD`
const SUFFIX_FROM_OLD: u8 = 1 << 6;

/// Bytes of a row's header in a table's page that the WAL leaves out, for they are known otherwise
/// (`SizeofHeapTupleHeader`).
pub const TUPLE_HEADER_SIZE: usize = 23;

/// A change of rows of one table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeapChange<'a> {
    /// The table's file.
    pub file: RelationFile,
    /// The block; of an update the one that the new row is in.
    pub block: u32,
    /// The page after the change, where the record carries it.
    pub image: Option<BlockImage<'a>>,
    /// What was done.
    pub kind: HeapChangeKind<'a>,
}

/// What was done to the rows. An offset is a line pointer's number on the page, from 1 on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeapChangeKind<'a> {
    /// A row was inserted.
    Insert {
        /// Where on the page.
        offset: u16,
        /// `INSERT … ON CONFLICT` was not yet sure of it: a deletion that takes it back may follow.
        speculative: bool,
        /// The row.
        tuple: Option<HeapTuple<'a>>,
    },
    /// Many rows were inserted, by `COPY` or such.
    MultiInsert {
        /// How many.
        count: u16,
        /// The rows.
        tuples: Option<MultiInsert<'a>>,
    },
    /// A row was updated.
    Update {
        /// Block of the old row.
        old_block: u32,
        /// Its place on that page.
        old_offset: u16,
        /// Place of the new row on the change's page.
        offset: u16,
        /// The old row's page after the change, if it is another one and the record carries it.
        old_image: Option<BlockImage<'a>>,
        /// The new row.
        tuple: Option<UpdatedTuple<'a>>,
    },
    /// A row was deleted.
    Delete {
        /// Where on the page.
        offset: u16,
        /// An `INSERT … ON CONFLICT` took its own row back.
        takes_back: bool,
    },
    /// A row of a catalog was overwritten where it stands, whatever becomes of the transaction.
    Inplace {
        /// Where on the page.
        offset: u16,
        /// The row's new content behind its header and null bitmap, of the length of the old one.
        data: Option<&'a [u8]>,
    },
}

/// A row as the WAL carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeapTuple<'a> {
    /// `t_infomask2`: number of columns in the low eleven bits.
    pub infomask2: u16,
    /// `t_infomask`
    pub infomask: u16,
    /// `t_hoff`: where the columns begin, from the beginning of the row's header.
    pub header_length: u8,
    /// What follows the first [`TUPLE_HEADER_SIZE`] bytes of the row: null bitmap, padding, columns.
    pub bytes: &'a [u8],
}

/// The new row of an update, perhaps without what it has in common with the old one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UpdatedTuple<'a> {
    /// As many bytes of the old row's columns begin the new one's.
    pub prefix_length: u16,
    /// As many bytes of the old row's columns end the new one's.
    pub suffix_length: u16,
    /// The row without those.
    pub tuple: HeapTuple<'a>,
}

/// The rows of a [`HeapChangeKind::MultiInsert`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MultiInsert<'a> {
    /// Their places; `None`: 1, 2, 3, … on a new page.
    offsets: Option<&'a [u8]>,
    count: u16,
    rows: &'a [u8],
}

/// Whether a record is about rows: [`HeapChange::read`] may understand it.
#[must_use]
#[inline]
pub fn is_heap_change(manager: u8, info: u8) -> bool {
    match manager {
        RM_HEAP => matches!(info & OPERATION_MASK, INSERT | DELETE | UPDATE | HOT_UPDATE | INPLACE),
        RM_HEAP2 => info & OPERATION_MASK == MULTI_INSERT,
        _ => false,
    }
}

impl<'a> HeapChange<'a> {
    /// Reads a record for which [`is_heap_change`] holds. `None` if it is not of the form that the operation has, or cut.
    #[must_use]
    #[inline]
    pub fn read(record: &RawRecord<'_>, content: &RecordContent<'a>) -> Option<HeapChange<'a>> {
        let info = record.header.info;
        if !is_heap_change(record.header.manager, info) {
            return None;
        }
        let data = content.data;
        let mut blocks = content.blocks();
        let first = blocks.next().filter(|block| block.id == 0)?;
        let kind = match (record.header.manager, info & OPERATION_MASK) {
            (RM_HEAP, INSERT) => HeapChangeKind::Insert {
                offset: u16_at(data, 0)?,
                speculative: flags(data, 2)? & INSERT_IS_SPECULATIVE != 0,
                tuple: first.data.and_then(HeapTuple::read),
            },
            (RM_HEAP, DELETE) => {
                HeapChangeKind::Delete { offset: u16_at(data, 4)?, takes_back: flags(data, 7)? & DELETE_IS_SUPER != 0 }
            }
            (RM_HEAP, INPLACE) => HeapChangeKind::Inplace { offset: u16_at(data, 0)?, data: first.data },
            (RM_HEAP2, _) => {
                let count = u16_at(data, 2)?;
                HeapChangeKind::MultiInsert { count, tuples: MultiInsert::read(data, info, count, &first) }
            }
            _ => {
                let second = blocks.next().filter(|block| block.id == 1);
                HeapChangeKind::Update {
                    old_block: second.map_or(first.block, |block| block.block),
                    old_offset: u16_at(data, 4)?,
                    offset: u16_at(data, 12)?,
                    old_image: second.and_then(|block| block.image),
                    tuple: first.data.and_then(|row| UpdatedTuple::read(row, flags(data, 7)?)),
                }
            }
        };
        Some(HeapChange { file: first.file, block: first.block, image: first.image, kind })
    }
}

fn flags(data: &[u8], at: usize) -> Option<u8> {
    data.get(at).copied()
}

impl<'a> HeapTuple<'a> {
    /// `xl_heap_header`, then the row.
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let header_length = *bytes.get(4)?;
        Some(HeapTuple {
            infomask2: u16_at(bytes, 0)?,
            infomask: u16_at(bytes, 2)?,
            header_length,
            bytes: bytes.get(5..)?,
        })
    }

    /// The null bitmap, and the columns behind it.
    #[must_use]
    pub fn split(&self) -> Option<(&'a [u8], &'a [u8])> {
        self.bytes.split_at_checked(usize::from(self.header_length).checked_sub(TUPLE_HEADER_SIZE)?)
    }
}

impl<'a> UpdatedTuple<'a> {
    fn read(mut bytes: &'a [u8], flags: u8) -> Option<Self> {
        let mut length = |flag: u8| {
            if flags & flag == 0 {
                return Some(0);
            }
            let length = u16_at(bytes, 0)?;
            bytes = &bytes[2..];
            Some(length)
        };
        let (prefix_length, suffix_length) = (length(PREFIX_FROM_OLD)?, length(SUFFIX_FROM_OLD)?);
        Some(UpdatedTuple { prefix_length, suffix_length, tuple: HeapTuple::read(bytes)? })
    }

    /// The record does not need the old row to tell the new one.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.prefix_length == 0 && self.suffix_length == 0
    }

    /// The new row's columns, from those of the old one (`heap_xlog_update`). `None` if the old row is shorter than the
    /// record says.
    #[must_use]
    pub fn columns(&self, old: &[u8]) -> Option<Vec<u8>> {
        let (_, middle) = self.tuple.split()?;
        let prefix = old.get(..usize::from(self.prefix_length))?;
        let suffix = old.get(old.len().checked_sub(usize::from(self.suffix_length))?..)?;
        Some([prefix, middle, suffix].concat())
    }
}

impl<'a> MultiInsert<'a> {
    fn read(data: &'a [u8], info: u8, count: u16, block: &BlockReference<'a>) -> Option<Self> {
        let offsets = match info & INIT_PAGE {
            0 => Some(data.get(4..4 + 2 * usize::from(count))?),
            _ => None,
        };
        Some(MultiInsert { offsets, count, rows: block.data? })
    }

    /// The rows with their places on the page. Ends early where the record is not of its form.
    pub fn rows(&self) -> impl Iterator<Item = (u16, HeapTuple<'a>)> + use<'a> {
        let MultiInsert { offsets, count, rows } = *self;
        let mut at = 0_usize;
        (0..count).map_while(move |number| {
            let offset = match offsets {
                Some(offsets) => u16_at(offsets, 2 * usize::from(number))?,
                None => number + 1,
            };
            // `xl_multi_insert_tuple`, aligned to two bytes.
            at = at.next_multiple_of(2);
            let length = usize::from(u16_at(rows, at)?);
            let [a, b, c, d, header_length] = array_at(rows, at + 2)?;
            let bytes = rows.get(at + 7..at + 7 + length)?;
            at += 7 + length;
            let (infomask2, infomask) = (u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d]));
            Some((offset, HeapTuple { infomask2, infomask, header_length, bytes }))
        })
    }
}

/// The operation of `TRUNCATE`, which stands in the WAL at `wal_level = logical` only.
#[inline]
pub(super) fn is_truncate(info: u8) -> bool {
    info & OPERATION_MASK == TRUNCATE
}

/// Reads the main data of [`is_truncate`] (`xl_heap_truncate`): database, count, flags, OIDs of the tables.
pub(super) fn read_truncate(data: &[u8]) -> Option<EventKind> {
    let count = u32_at(data, 4)? as usize;
    let oids = data.get(12..)?.get(..count.checked_mul(4)?)?;
    let relations = oids.chunks_exact(4).filter_map(|oid| u32_at(oid, 0)).collect();
    Some(EventKind::Truncate { database: u32_at(data, 0)?, relations })
}

#[cfg(test)]
mod tests {
    use super::super::record::{HEADER_SIZE, RecordHeader};
    use super::super::{Lsn, PostgresMajor, Xid};
    use super::*;

    /// A record with one block (tablespace 1, database 2, file 3, block 9) that has `row` as its data.
    fn read_with<T>(manager: u8, info: u8, data: &[u8], row: &[u8], look: impl Fn(Option<HeapChange<'_>>) -> T) -> T {
        let mut body = vec![0, 0x20];
        body.extend(u16::try_from(row.len()).expect("short").to_le_bytes());
        body.extend([1_u32, 2, 3, 9].iter().flat_map(|word| word.to_le_bytes()));
        body.extend([255, u8::try_from(data.len()).expect("short")]);
        body.extend(row);
        body.extend(data);
        let length = u32::try_from(HEADER_SIZE + body.len()).expect("short");
        let header = RecordHeader { length, xid: Xid(7), previous: Lsn(0), info, manager, crc: 0 };
        let record = RawRecord { lsn: Lsn(8), end_lsn: Lsn(16), header, body: &body, whole: true };
        let content = RecordContent::of(&record, PostgresMajor(15)).expect("a record");
        look(HeapChange::read(&record, &content))
    }

    /// An insertion, and one that is not sure of itself; a deletion that takes it back.
    #[test]
    fn insert_and_delete() {
        let row = [2, 0, 1, 8, 24, 0, 0xAA, 0xBB];
        read_with(RM_HEAP, INSERT | INIT_PAGE, &[5, 0, INSERT_IS_SPECULATIVE], &row, |change| {
            let change = change.expect("an insertion");
            assert_eq!((change.file.relation, change.block), (3, 9));
            let HeapChangeKind::Insert { offset: 5, speculative: true, tuple: Some(tuple) } = change.kind else {
                panic!("{change:?}");
            };
            assert_eq!((tuple.infomask2, tuple.infomask, tuple.header_length), (2, 0x0801, 24));
            assert_eq!(tuple.split(), Some((&[0][..], &[0xAA, 0xBB][..])));
        });
        let data = [1, 0, 0, 0, 6, 0, 0, DELETE_IS_SUPER];
        let kind = read_with(RM_HEAP, DELETE, &data, &[], |change| format!("{:?}", change.expect("a deletion").kind));
        assert_eq!(kind, "Delete { offset: 6, takes_back: true }");
    }

    /// The new row of an update is put together from what the record has and what it shares with the old one.
    #[test]
    fn update() {
        let data = [1, 0, 0, 0, 4, 0, 0, PREFIX_FROM_OLD | SUFFIX_FROM_OLD, 0, 0, 0, 0, 8, 0];
        let row = [2, 0, 3, 0, 1, 0, 1, 0, 24, 0, b'-'];
        read_with(RM_HEAP, HOT_UPDATE, &data, &row, |change| {
            let change = change.expect("an update");
            let HeapChangeKind::Update { old_block: 9, old_offset: 4, offset: 8, tuple: Some(tuple), .. } = change.kind
            else {
                panic!("{change:?}");
            };
            assert_eq!(tuple.columns(b"abxyz").as_deref(), Some(&b"ab-xyz"[..]));
            assert_eq!(tuple.columns(b"a"), None);
            assert!(!tuple.is_whole());
        });
    }

    /// Many rows with their places, aligned; what is cut ends the list.
    #[test]
    fn multi_insert() {
        let one = [2, 0, 1, 0, 2, 0, 24, 0, 7, 0, 2, 0, 1, 0, 2, 0, 24, 0, 8];
        let data = [0, 0, 2, 0, 4, 0, 9, 0];
        read_with(RM_HEAP2, MULTI_INSERT, &data, &one, |change| {
            let HeapChangeKind::MultiInsert { count: 2, tuples: Some(tuples) } = change.expect("rows").kind else {
                panic!("two rows were expected");
            };
            let rows: Vec<_> = tuples.rows().map(|(at, row)| (at, row.split().map(|row| row.1.to_vec()))).collect();
            assert_eq!(rows, [(4, Some(vec![7])), (9, Some(vec![8]))]);
        });
        read_with(RM_HEAP2, MULTI_INSERT | INIT_PAGE, &[0, 0, 2, 0], &one[..12], |change| {
            let HeapChangeKind::MultiInsert { count: 2, tuples: Some(tuples) } = change.expect("rows").kind else {
                panic!("two rows were expected");
            };
            assert_eq!(tuples.rows().map(|(at, _)| at).collect::<Vec<_>>(), [1]);
        });
    }

    /// What is cut or of another operation is no change.
    #[test]
    fn refused() {
        for (manager, info) in [(RM_HEAP, 0x60), (RM_HEAP2, 0x60), (1, 0), (RM_HEAP, TRUNCATE)] {
            assert!(read_with(manager, info, &[0; 20], &[], |change| change.is_none()), "{manager} {info}");
        }
        for info in [INSERT, DELETE, UPDATE, HOT_UPDATE, INPLACE] {
            assert!(read_with(RM_HEAP, info, &[], &[], |change| change.is_none()), "{info}");
        }
    }

    /// The tables of a TRUNCATE; a count beyond what is there is no record.
    #[test]
    fn truncate() {
        let data: Vec<u8> = [5_u32, 2, 0, 16384, 16390].iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(read_truncate(&data), Some(EventKind::Truncate { database: 5, relations: vec![16384, 16390] }));
        assert_eq!(read_truncate(&data[..16]), None);
        assert!(is_truncate(TRUNCATE | INIT_PAGE) && !is_truncate(HOT_UPDATE));
    }
}
