//! `BorderNote`: what an archived segment leaves for the proof of the next one.

use std::io;

use serde::{Deserialize, Serialize};

use super::note;
use crate::repository::RepositoryId;
use crate::wal::{Border, SegmentName, SystemIdentifier};

/// First line of a note, followed by the hash of what comes behind it.
const TITLE: &str = "pitr border 1 ";

/// A segment's border, and which bytes the segment had.
///
/// The note is a hint that is written without a sync: torn or damaged, it is none. It is bound to the repository, and to the
/// segment's content, by which a reader can tell whether the segment that it stands for is the one that is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BorderNote {
    /// The border.
    pub border: Border,
    /// The repository that the segment was stored in.
    pub repository: RepositoryId,
    /// CRC-32 (IEEE) of the segment's bytes, as in its stored description.
    pub raw_crc: u32,
}

#[derive(Serialize, Deserialize)]
struct Bound<N> {
    system_identifier: SystemIdentifier,
    note: N,
}

impl BorderNote {
    /// The note's text.
    pub(super) fn encode(&self, system_identifier: SystemIdentifier) -> io::Result<Vec<u8>> {
        note::encode(TITLE, &Bound { system_identifier, note: self })
    }

    /// Reads a note; `None` unless every byte of it is as it was written, for this segment of this cluster and repository.
    pub(super) fn decode(
        bytes: &[u8],
        system_identifier: SystemIdentifier,
        segment: SegmentName,
        repository: &RepositoryId,
    ) -> Option<BorderNote> {
        let bound: Bound<BorderNote> = note::decode(TITLE, bytes)?;
        let fits = bound.system_identifier == system_identifier
            && bound.note.border.segment() == segment
            && bound.note.repository == *repository;
        fits.then_some(bound.note)
    }
}
