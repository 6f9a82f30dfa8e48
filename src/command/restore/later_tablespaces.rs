//! Tablespaces that were created after the backup: replay makes them at their original path, whatever `--tablespace` says, and
//! removes what is there (manual, "Backup and Restore", caveats of continuous archiving). Beside the living cluster that would be
//! its own tablespace, so it is found out before anything is written.

use std::fs;
use std::path::Path;

use super::RestoreError;
use super::ground::Ground;
use crate::pgdata::state::{self, Holds};
use crate::wal::{Event, EventKind};

/// Fails if the WAL of the plan creates a tablespace in a directory that is missing, or that holds something other than what
/// the restore writes over anyway.
pub(super) fn check(events: &[Event], ground: &Ground) -> Result<(), RestoreError> {
    events.iter().try_for_each(|event| check_event(event, ground))
}

fn check_event(event: &Event, ground: &Ground) -> Result<(), RestoreError> {
    let EventKind::TablespaceCreate { oid, location } = &event.kind else { return Ok(()) };
    let location = Path::new(location);
    // A relative one lies inside the data directory (allow_in_place_tablespaces).
    if !location.is_absolute() || is_written_over(*oid, location, ground) {
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
