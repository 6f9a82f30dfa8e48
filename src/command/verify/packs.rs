//! One pack: its index, and every frame against it, in large reads one after the other.

use super::assemble::Windows;
use super::budget::Lot;
use super::frames::Frame;
use super::work::Run;
use crate::catalog::PackId;
use crate::chunk::pack::PackEntry;
use crate::repository::verifying::prove_frame;
use crate::storage::StorageErrorKind;

/// Bytes of a read.
const STRETCH_BYTES: u64 = 8 << 20;

/// Verifies a pack, or the stretches of it that are drawn. Whether it is good, and all of it was read.
pub(super) fn verify(run: &Run<'_>, pack: PackId, lot: &mut Lot) -> bool {
    let Some(entries) = index(run, pack) else { return false };
    let mut frames: Vec<Frame> = entries.iter().map(frame).collect();
    let (mut whole, mut good, mut read) = (true, true, 0);
    let mut at = 0;
    while at < entries.len() {
        let begins = entries[at].offset;
        let fits = |entry: &PackEntry| entry.offset + u64::from(entry.stored_length) - begins <= STRETCH_BYTES;
        let count = entries[at..].iter().take_while(|entry| fits(entry)).count().max(1);
        let stretch = at..at + count;
        at += count;
        if !lot.draws() {
            whole = false;
            continue;
        }
        if run.budget.is_interrupted() {
            return false;
        }
        match self::stretch(run, pack, &entries[stretch.clone()], &mut frames[stretch]) {
            Some(all) => good &= all,
            None => return false,
        }
        read += count as u64;
    }
    run.keep(pack, frames);
    run.with_found(|found| {
        found.counts.chunks += read;
        found.counts.packs += u64::from(whole);
    });
    good && whole
}

/// The index of a pack; notes what is wrong with it.
pub(super) fn index(run: &Run<'_>, pack: PackId) -> Option<Vec<PackEntry>> {
    match run.server().pack_index(pack) {
        Ok(entries) => {
            // 1 KiB for the hashes of a chunk's pages, and 52 bytes.
            run.budget.spend(entries.len() as u64 * 1076);
            run.answered();
            Some(entries)
        }
        Err(error) if error.is_no_answer() => {
            run.no_answer(run.server().pack_object(pack).to_string(), error);
            None
        }
        Err(error) => {
            run.answered();
            let missing = error.is_not_found();
            if missing {
                run.frames.set_missing(pack)
            } else {
                run.frames.set_without_index(pack)
            }
            run.with_found(|found| {
                let damage = found.packs.entry(pack).or_default();
                damage.missing = missing;
                damage.index = (!missing).then(|| error.to_string());
            });
            None
        }
    }
}

pub(super) fn frame(entry: &PackEntry) -> Frame {
    let PackEntry { id, offset, stored_length, raw_length, .. } = *entry;
    Frame { offset, stored_length, raw_length, crc: None, id }
}

/// Reads some frames that follow each other. Whether all are good; `None` if the store could not be asked.
fn stretch(run: &Run<'_>, pack: PackId, entries: &[PackEntry], frames: &mut [Frame]) -> Option<bool> {
    let (first, last) = (entries.first()?, entries.last()?);
    let (from, to) = (first.offset, last.offset + u64::from(last.stored_length));
    run.budget.spend(to - from);
    let bytes = match run.server().pack_bytes(pack, from..to) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind, StorageErrorKind::NotFound | StorageErrorKind::TooShort) => {
            run.with_found(|found| {
                let damaged = &mut found.packs.entry(pack).or_default().frames;
                damaged.extend(entries.iter().map(|entry| (entry.offset, error.reason.clone())));
            });
            return Some(false);
        }
        Err(error) => {
            run.no_answer(run.server().pack_object(pack).to_string(), error.into());
            return None;
        }
    };
    run.answered();
    let mut good = true;
    for (entry, frame) in entries.iter().zip(frames) {
        // The index was proved to have no gaps.
        let at = usize::try_from(entry.offset - from).unwrap_or_default();
        let stored = bytes.get(at..at + entry.stored_length as usize).unwrap_or_default();
        match prove_frame(entry, stored) {
            Ok(crc) => frame.crc = Some(crc),
            Err(why) => {
                good = false;
                run.with_found(|found| {
                    found.packs.entry(pack).or_default().frames.insert(entry.offset, why);
                });
            }
        }
    }
    Some(good)
}

/// What a thread keeps from unit to unit.
pub(super) struct Hand<'a> {
    /// Verifies WAL.
    pub(super) wal: crate::repository::SegmentVerifier,
    /// Reads packs here and there.
    pub(super) windows: Windows<'a>,
    /// Draws samples.
    pub(super) lot: Lot,
}
