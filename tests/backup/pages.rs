//! Data pages without what PostgreSQL changes in them without a record in the WAL.
//!
//! What is masked are hints only: who may set them, and that they may be lost, say `MarkBufferDirtyHint` (`bufmgr.c`) and the rules of
//! `wal_consistency_checking` (`bufmask.c`, `heap_mask`, `btree_mask`, `hash_mask`, `gist_mask`).

const PAGE: usize = 8192;
/// Bytes of a page's header.
const HEADER: usize = 24;
/// Bits of a tuple: whether the transaction that made it, and the one that deleted it, are known to have committed or aborted. Both of the
/// former are no hint: the tuple is frozen.
const MADE_HINTS: u16 = 0x0300;
const DELETED_HINTS: u16 = 0x0C00;
/// Bits of a page's flags: it has free line pointers; it is full.
const PAGE_HINTS: u16 = 0x0003;
/// A line pointer's states.
const NORMAL: u32 = 1;
const DEAD: u32 = 3;

fn u16_at(page: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([page[at], page[at + 1]])
}

fn clear(page: &mut [u8], at: usize, bits: u16) {
    let left = u16_at(page, at) & !bits;
    page[at..at + 2].copy_from_slice(&left.to_le_bytes());
}

/// The page without hints, and without what goes with them: its LSN and its checksum.
pub(crate) fn masked(page: &[u8]) -> Vec<u8> {
    let mut page = page.to_vec();
    if page.len() != PAGE || page.iter().all(|byte| *byte == 0) {
        return page;
    }
    page[..10].fill(0);
    clear(&mut page, 10, PAGE_HINTS);
    // The oldest transaction whose rows may be pruned.
    page[20..HEADER].fill(0);
    let (lower, special) = (usize::from(u16_at(&page, 12)), usize::from(u16_at(&page, 16)));
    let is_heap = special == PAGE;
    for at in (HEADER..lower.min(PAGE)).step_by(4) {
        let pointer = u32::from(u16_at(&page, at)) | u32::from(u16_at(&page, at + 2)) << 16;
        let (offset, state) = ((pointer & 0x7FFF) as usize, pointer >> 15 & 3);
        if is_heap && state == NORMAL {
            let frozen = u16_at(&page, offset + 20) & MADE_HINTS == MADE_HINTS;
            clear(&mut page, offset + 20, if frozen { DELETED_HINTS } else { MADE_HINTS | DELETED_HINTS });
        } else if !is_heap && state == DEAD && pointer >> 17 > 0 {
            // An index's entry that is known to be dead keeps its storage.
            let alive = pointer & !(3 << 15) | NORMAL << 15;
            page[at..at + 4].copy_from_slice(&alive.to_le_bytes());
        }
    }
    // The cache in an SP-GiST index's first page, the mark of a BRIN page that is being emptied.
    if page[HEADER..HEADER + 4] == 0xBA0B_ABEE_u32.to_le_bytes() {
        page[HEADER + 4..special.clamp(HEADER + 4, PAGE)].fill(0);
    }
    if PAGE - special == 8 && page[PAGE - 1] == 0xF0 {
        clear(&mut page, PAGE - 4, 1);
    }
    match PAGE - special {
        // B-tree and hash, GiST, GIN: the flag that such entries are there (BTP_HAS_GARBAGE, LH_PAGE_HAS_DEAD_TUPLES, F_HAS_GARBAGE).
        16 if u16_at(&page, PAGE - 2) == 0xFF80 => clear(&mut page, PAGE - 4, 1 << 7),
        16 if u16_at(&page, PAGE - 2) == 0xFF81 => clear(&mut page, PAGE - 4, 1 << 4),
        16 => clear(&mut page, PAGE - 4, 1 << 6),
        _ => {}
    }
    page
}
