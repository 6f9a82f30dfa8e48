//! `Proof`: the records of a segment, read while it is archived.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::codec::{Details, Origin};
use crate::wal::{Border, Completeness, Continuity, Event, EventKind, SegmentFacts, SegmentHeader, SegmentScanner};

/// Reads records on the side.
///
/// What it finds decides under which name a segment is stored, and never whether: a damaged one is kept with all its
/// bytes, and a fault in the reading itself leaves the segment as one that was not read, under its true name.
#[derive(Debug)]
pub(super) struct Proof {
    header: SegmentHeader,
    scanner: Option<SegmentScanner>,
    details: Details,
}

/// What the records of a segment say.
#[derive(Debug)]
pub(super) struct Proved {
    /// `None` if they were not read.
    pub(super) facts: Option<SegmentFacts>,
    pub(super) details: Details,
    pub(super) continuity: Continuity,
    /// What the segment leaves for the next one; `None` if it is damaged, or was not read.
    pub(super) border: Option<Border>,
}

impl Proof {
    /// For the segment that the header was read from.
    pub(super) fn new(header: &SegmentHeader, completeness: Completeness) -> Proof {
        Proof { header: *header, scanner: Some(SegmentScanner::new(header, completeness)), details: Details::default() }
    }

    /// Takes the next bytes.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        let Some(mut scanner) = self.scanner.take() else { return };
        let details = &mut self.details;
        let mut keep = |event| {
            if is_remarkable(&event) {
                details.note(event);
            }
        };
        // The scanner is not used again after a panic.
        self.scanner = catch_unwind(AssertUnwindSafe(|| {
            scanner.feed(piece, &mut keep);
            scanner
        }))
        .ok();
    }

    /// What is to be stored with the segment, and whether it goes on where the one before ends.
    pub(super) fn finish(self, before: Option<&Border>, archived_by: Origin) -> Proved {
        let read = |scanner: SegmentScanner| {
            let scan = scanner.finish();
            let (head, tail) = (scan.head.as_ref(), scan.tail.as_ref());
            let (continuity, border) = Border::pass(before, &self.header, &scan.facts, head, tail);
            (scan, continuity, border)
        };
        let scan = self.scanner.and_then(|scanner| catch_unwind(AssertUnwindSafe(|| read(scanner))).ok());
        let Some((scan, continuity, border)) = scan else {
            let details = Details { archived_by, ..Details::default() };
            return Proved { facts: None, details, continuity: Continuity::NotProved, border: None };
        };
        // After a damaged segment the proof begins anew.
        let border = Some(border).filter(|_| scan.damage.is_none());
        let details = Details {
            archived_by,
            head: scan.head,
            tail: scan.tail,
            damage: scan.damage.map(Into::into),
            ..self.details
        };
        Proved { facts: Some(scan.facts), details: details.bounded(), continuity, border }
    }
}

/// Commits and aborts that drop nothing are only counted, and prepared transactions are not even that: there are thousands
/// of them.
pub(super) fn is_remarkable(event: &Event) -> bool {
    match &event.kind {
        EventKind::Commit(end) | EventKind::Abort(end) => end.dropped_count > 0 || end.cut,
        EventKind::Prepare { .. } => false,
        EventKind::RestorePoint { .. }
        | EventKind::Checkpoint { .. }
        | EventKind::ParameterChange(_)
        | EventKind::EndOfRecovery { .. }
        | EventKind::BackupEnd { .. }
        | EventKind::TablespaceCreate { .. }
        | EventKind::TablespaceDrop { .. }
        | EventKind::DatabaseCreate { .. }
        | EventKind::DatabaseDrop { .. }
        | EventKind::Truncate { .. }
        | EventKind::OverwriteContrecord { .. } => true,
    }
}
