//! What replay will do beyond changing pages: tablespaces and databases that it makes or removes, told before it begins.

use super::RestoreError;
use super::resolve::Resolved;
use crate::recovery::WalCopy;
use crate::repository::RepositoryError;
use crate::wal::{Event, EventKind, PgTime, SegmentName, SegmentNo};

/// What the WAL of a plan tells.
#[derive(Default)]
pub(super) struct Replayed {
    /// Tablespaces and databases made and removed between the backup's start and the stop point, in LSN order.
    pub(super) events: Vec<Event>,
    /// When the backup's checkpoint began, by the server's clock; `None` if its record was not found.
    pub(super) checkpoint: Option<PgTime>,
}

/// Looks through the index of the WAL of the plan.
pub(super) fn replayed(resolved: &Resolved) -> Result<Replayed, RestoreError> {
    let (plan, size) = (&resolved.plan, resolved.record.segment_size_bytes);
    let mut evidence = resolved.server.evidence(&resolved.record);
    let mut found = Replayed::default();
    for run in &plan.wal {
        let Ok(first) = run.first.number(size) else { continue };
        for number in first.0..first.0 + run.count {
            let name = SegmentName::new(run.first.timeline(), SegmentNo(number), size);
            // A copy that is laid into pg_wal has no object of this name; it is the last one and rarely more than a page.
            let events = match evidence.remarkable(&WalCopy::Segment(name)) {
                Ok(events) => events,
                Err(RepositoryError::Storage(error)) if error.is_not_found() => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events {
                if !(plan.backup.start_lsn..=plan.stop.lsn).contains(&event.lsn) {
                    continue;
                }
                match &event.kind {
                    EventKind::Checkpoint { redo, time, .. } if *redo == plan.backup.start_lsn => {
                        found.checkpoint = Some(*time);
                    }
                    EventKind::TablespaceCreate { .. }
                    | EventKind::DatabaseCreate { .. }
                    | EventKind::DatabaseDrop { .. } => found.events.push(event),
                    _ => {}
                }
            }
        }
    }
    Ok(found)
}
