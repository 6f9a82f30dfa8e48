//! Heap pages and the tuples on them (`bufpage.h`, `itemid.h`, `htup_details.h`).

use super::super::bytes::{u16_at, u32_at};
use super::super::{DATA_PAGE_SIZE, Lsn, TUPLE_HEADER_SIZE, Xid};

const PAGE_HEADER_SIZE: usize = 24;
const LINE_POINTER_SIZE: usize = 4;
/// `LP_NORMAL`
const NORMAL: u32 = 1;

/// Bits of `t_infomask`.
const XMAX_EXCLUSIVE_LOCK: u16 = 0x0040;
const XMAX_LOCK_MASK: u16 = 0x0050;
const XMAX_LOCK_ONLY: u16 = 0x0080;
const XMIN_COMMITTED: u16 = 0x0100;
const XMIN_INVALID: u16 = 0x0200;
const XMAX_COMMITTED: u16 = 0x0400;
const XMAX_INVALID: u16 = 0x0800;
const XMAX_IS_MULTI: u16 = 0x1000;

/// Where a tuple stands: its block, and the number of its line pointer, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Tid {
    pub(super) block: u32,
    pub(super) offset: u16,
}

/// What a tuple itself tells about the end of a transaction that wrote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hint {
    /// It committed.
    Committed,
    /// It committed so long ago that its number may have come round again.
    Frozen,
    /// It did not commit.
    Invalid,
    /// Nothing.
    None,
}

/// What stands in a tuple's header about its deletion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deletion {
    /// Nobody deleted it (or only locked it, or broke off).
    None,
    /// This transaction did, or tried.
    By(Xid, Hint),
    /// One of a group of transactions may have.
    ByGroup,
}

/// A tuple on a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PageTuple<'a> {
    /// Number of its line pointer, from 1.
    pub(super) offset: u16,
    /// Who inserted it.
    pub(super) xmin: Xid,
    /// What the tuple knows of that.
    pub(super) insertion: Hint,
    /// Who deleted it.
    pub(super) deletion: Deletion,
    /// Where its successor is (`t_ctid`); its own place if nobody ever updated it.
    pub(super) successor: Tid,
    /// Nobody ever deleted, updated or locked it.
    pub(super) untouched: bool,
    /// Bytes of header, null bitmap included.
    pub(super) header_size: u8,
    /// What follows the first 23 bytes.
    pub(super) body: &'a [u8],
}

impl<'a> PageTuple<'a> {
    /// The row's columns.
    pub(super) fn data(&self) -> &'a [u8] {
        let start = usize::from(self.header_size).saturating_sub(TUPLE_HEADER_SIZE);
        self.body.get(start..).unwrap_or_default()
    }
}

/// Where the page was last changed (`pd_lsn`).
pub(super) fn page_lsn(page: &[u8; DATA_PAGE_SIZE]) -> Lsn {
    let half = |at| u64::from(u32_at(page, at).unwrap_or_default());
    Lsn(half(0) << 32 | half(4))
}

/// The tuples on a page. `None` if it is no heap page; a page of zeros is one without tuples.
pub(super) fn tuples(page: &[u8; DATA_PAGE_SIZE]) -> Option<impl Iterator<Item = PageTuple<'_>>> {
    let (lower, upper) = (usize::from(u16_at(page, 12)?), usize::from(u16_at(page, 14)?));
    let special = usize::from(u16_at(page, 16)?);
    let unused = upper == 0 && page.iter().all(|byte| *byte == 0);
    let good = PAGE_HEADER_SIZE <= lower && lower <= upper && upper <= special && special == DATA_PAGE_SIZE;
    if !unused && !good {
        return None;
    }
    let pointers = if unused { &[] } else { &page[PAGE_HEADER_SIZE..lower] };
    let numbered = (1..).zip(pointers.chunks_exact(LINE_POINTER_SIZE));
    Some(numbered.filter_map(|(offset, pointer)| {
        let word = u32_at(pointer, 0)?;
        let (at, length) = ((word & 0x7FFF) as usize, (word >> 17) as usize);
        let item = page.get(at..at + length)?;
        if word >> 15 & 3 == NORMAL { tuple(offset, item) } else { None }
    }))
}

fn tuple(offset: u16, item: &[u8]) -> Option<PageTuple<'_>> {
    let mask = u16_at(item, 20)?;
    let header_size = *item.get(22)?;
    let body = item.get(TUPLE_HEADER_SIZE..)?;
    if usize::from(header_size) < TUPLE_HEADER_SIZE || usize::from(header_size) > item.len() {
        return None;
    }
    let block = u32::from(u16_at(item, 12)?) << 16 | u32::from(u16_at(item, 14)?);
    let successor = Tid { block, offset: u16_at(item, 16)? };
    let insertion = match (mask & XMIN_COMMITTED != 0, mask & XMIN_INVALID != 0) {
        (true, true) => Hint::Frozen,
        (true, false) => Hint::Committed,
        (false, true) => Hint::Invalid,
        (false, false) => Hint::None,
    };
    let (xmin, xmax) = (Xid(u32_at(item, 0)?), Xid(u32_at(item, 4)?));
    let deletion = deletion(mask, xmax);
    Some(PageTuple { offset, xmin, insertion, deletion, successor, untouched: xmax.0 == 0, header_size, body })
}

/// `HEAP_XMAX_IS_LOCKED_ONLY` and its neighbours.
fn deletion(mask: u16, xmax: Xid) -> Deletion {
    let lock_only = mask & XMAX_LOCK_ONLY != 0 || mask & (XMAX_IS_MULTI | XMAX_LOCK_MASK) == XMAX_EXCLUSIVE_LOCK;
    if mask & XMAX_INVALID != 0 || lock_only || xmax.0 == 0 {
        Deletion::None
    } else if mask & XMAX_COMMITTED != 0 {
        Deletion::By(xmax, Hint::Committed)
    } else if mask & XMAX_IS_MULTI != 0 {
        Deletion::ByGroup
    } else {
        Deletion::By(xmax, Hint::None)
    }
}
