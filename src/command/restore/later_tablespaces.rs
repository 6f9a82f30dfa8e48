//! Tablespaces that were created after the backup: replay makes them at their original path, whatever `--tablespace` says, and
//! removes what is there (manual, "Backup and Restore", caveats of continuous archiving). Beside the living cluster that would be
//! its own tablespace, so it is found out before anything is written.

use std::fs;
use std::path::Path;

use super::RestoreError;
use super::ground::Ground;
use crate::pgdata::state::{self, Holds};
use crate::recovery::{RestorePlan, WalCopy};
use crate::repository::{RepositoryError, ServerRecord, ServerRepository};
use crate::wal::{Event, EventKind, SegmentName, SegmentNo};

/// Fails if the WAL of the plan creates a tablespace in a directory that is missing, or that holds something other than what
/// the restore writes over anyway.
pub(super) fn check(
    server: &ServerRepository,
    record: &ServerRecord,
    plan: &RestorePlan,
    ground: &Ground,
) -> Result<(), RestoreError> {
    let size = record.segment_size_bytes;
    let mut evidence = server.evidence(record);
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
            for event in &events {
                check_event(event, plan, ground)?;
            }
        }
    }
    Ok(())
}

fn check_event(event: &Event, plan: &RestorePlan, ground: &Ground) -> Result<(), RestoreError> {
    let EventKind::TablespaceCreate { oid, location } = &event.kind else { return Ok(()) };
    let location = Path::new(location);
    // A relative one lies inside the data directory (allow_in_place_tablespaces).
    let replayed = (plan.backup.start_lsn..=plan.stop.lsn).contains(&event.lsn);
    if !replayed || !location.is_absolute() || is_written_over(*oid, location, ground) {
        return Ok(());
    }
    let refuse = |entry| RestoreError::LaterTablespace { location: location.to_owned(), lsn: event.lsn, entry };
    if !location.is_dir() {
        return Err(refuse(None));
    }
    match state::first_entry(location)? {
        Some(entry) => Err(refuse(Some(entry))),
        None => Ok(()),
    }
}

/// The cluster that is written over has the tablespace itself, at this place.
fn is_written_over(oid: u32, location: &Path, ground: &Ground) -> bool {
    let link = ground.target.join("pg_tblspc").join(oid.to_string());
    matches!(ground.target_holds, Holds::Cluster { .. }) && fs::read_link(link).is_ok_and(|found| found == location)
}
