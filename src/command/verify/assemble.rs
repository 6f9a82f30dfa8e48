//! Putting chunks together whose content no pack's index names: a base with page sets over it, or one that was cut.
//!
//! Files come in about the same order in the manifests and packs of all backups, so packs are read through a few windows, and each
//! window nearly once.

use std::collections::VecDeque;

use super::budget::Budget;
use crate::catalog::{BackupId, PackId};
use crate::chunk::{CHUNK_BYTES, ChunkContent, ChunkRef, Place, assemble, frame};
use crate::repository::{RepositoryError, ServerRepository};
use crate::storage::StorageErrorKind;

/// Bytes of a window, and how many are kept: as many as a chunk has places, and some.
const WINDOW_BYTES: u64 = 2 << 20;
const MOST_WINDOWS: usize = 12;

/// Why a chunk could not be put together.
#[derive(Debug)]
pub(super) enum Fault {
    /// What is stored is not the chunk.
    Damaged(String),
    /// The store could not be asked.
    NoAnswer(RepositoryError),
}

/// Reads packs through windows.
pub(super) struct Windows<'a> {
    server: &'a ServerRepository,
    budget: &'a Budget,
    /// The latest at the end: pack, first byte, bytes.
    windows: VecDeque<(PackId, u64, Vec<u8>)>,
}

impl<'a> Windows<'a> {
    pub(super) fn new(server: &'a ServerRepository, budget: &'a Budget) -> Windows<'a> {
        Windows { server, budget, windows: VecDeque::new() }
    }

    /// Puts a chunk together and proves it; gives the CRC-32C of its content. `size` tells how large a pack is.
    pub(super) fn prove(
        &mut self,
        sources: &[BackupId],
        chunk: &ChunkRef,
        size: &dyn Fn(PackId) -> Option<u64>,
    ) -> Result<u32, Fault> {
        let ChunkContent::Stored { id, base, sets } = &chunk.content else { return Ok(0) };
        let raw = self.unpacked(sources, *base, size)?;
        let mut contents = Vec::with_capacity(sets.len());
        for set in sets {
            contents.push((set.pages.as_slice(), self.unpacked(sources, set.place, size)?));
        }
        match assemble(chunk.raw_length, *id, raw, &contents) {
            Ok(raw) => Ok(crc32c::crc32c(&raw)),
            Err(error) => Err(Fault::Damaged(error.to_string())),
        }
    }

    fn unpacked(
        &mut self,
        sources: &[BackupId],
        place: Place,
        size: &dyn Fn(PackId) -> Option<u64>,
    ) -> Result<Vec<u8>, Fault> {
        let Some(pack) = pack_of(sources, place) else {
            return Err(Fault::Damaged("the manifest does not name the pack's backup".to_owned()));
        };
        let Some(size) = size(pack) else { return Err(Fault::Damaged(format!("pack {pack} is not there"))) };
        let end = place.offset + u64::from(place.length);
        if end > size {
            return Err(Fault::Damaged(format!("pack {pack} ends before byte {end}")));
        }
        let stored = self.read(pack, place.offset, end, size)?;
        frame::decompress(&stored, CHUNK_BYTES)
            .map_err(|error| Fault::Damaged(format!("pack {pack} has no good chunk at byte {}: {error}", place.offset)))
    }

    fn read(&mut self, pack: PackId, from: u64, to: u64, size: u64) -> Result<Vec<u8>, Fault> {
        let capacity = usize::try_from(to - from).unwrap_or_default();
        let mut bytes = Vec::with_capacity(capacity);
        let mut at = from;
        while at < to {
            let begins = at - at % WINDOW_BYTES;
            let window = self.window(pack, begins, size)?;
            let end = to.min(begins + window.len() as u64);
            if end <= at {
                return Err(Fault::Damaged(format!("pack {pack} ends before byte {to}")));
            }
            // Both lie within a window.
            let within = |at: u64| usize::try_from(at - begins).unwrap_or_default();
            bytes.extend_from_slice(&window[within(at)..within(end)]);
            at = end;
        }
        Ok(bytes)
    }

    fn window(&mut self, pack: PackId, begins: u64, size: u64) -> Result<&[u8], Fault> {
        if let Some(at) = self.windows.iter().position(|(known, first, _)| (*known, *first) == (pack, begins)) {
            if let Some(window) = self.windows.remove(at) {
                self.windows.push_back(window);
            }
        } else {
            let end = (begins + WINDOW_BYTES).min(size);
            self.budget.spend(end - begins);
            let bytes = self.server.pack_bytes(pack, begins..end).map_err(|error| match error.kind {
                StorageErrorKind::NotFound | StorageErrorKind::TooShort => Fault::Damaged(error.to_string()),
                _ => Fault::NoAnswer(error.into()),
            })?;
            if self.windows.len() >= MOST_WINDOWS {
                self.windows.pop_front();
            }
            self.windows.push_back((pack, begins, bytes));
        }
        Ok(self.windows.back().map_or(&[][..], |(_, _, bytes)| bytes.as_slice()))
    }
}

/// The pack that a place lies in, if the manifest names its backup.
pub(super) fn pack_of(sources: &[BackupId], place: Place) -> Option<PackId> {
    sources.get(usize::from(place.source)).map(|backup| PackId { backup: *backup, number: place.pack })
}
