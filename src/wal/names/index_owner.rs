//! Which table an index belongs to: the first two columns of `pg_index` (`pg_index.h`: `indexrelid` at 0, `indrelid` at 4).
//!
//! Neither of them ever changes in the life of an index, so it does not matter which version of a row is read, or whether the transaction
//! that wrote it has ended: an index that is not there has no row in `pg_class`.

use super::super::DATA_PAGE_SIZE;
use super::super::bytes::u32_at;
use super::page::{Hint, tuples};

/// Oid of `pg_index`.
pub const PG_INDEX: u32 = 2610;

/// Oids of an index and of its table, for each row on these pages of `pg_index`. What is no heap page has none.
pub fn index_owners(pages: &[u8]) -> impl Iterator<Item = (u32, u32)> {
    let tuples = pages.as_chunks::<DATA_PAGE_SIZE>().0.iter().filter_map(tuples).flatten();
    tuples.filter(|tuple| tuple.insertion != Hint::Invalid).filter_map(|tuple| {
        let data = tuple.data();
        let (index, table) = (u32_at(data, 0)?, u32_at(data, 4)?);
        (index != 0 && table != 0).then_some((index, table))
    })
}
