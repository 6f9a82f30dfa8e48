//! The backup that a new one refers to: the latest whose manifest can be read.
//!
//! Chunks are compared by content, so any backup of the cluster would do, on whatever timeline; the latest has most in common with what the
//! server has now. One that lies on the server's own path comes before all that lie, or end, on a branch that it has left: those may be of
//! a future that was taken back, with higher LSNs than the server reaches for days, and the server cannot tell what differs from them.

use std::collections::BTreeMap;

use super::BackupError;
use crate::catalog::{BackupId, PackId};
use crate::report::{Explain, Program, Severity};
use crate::repository::earlier::EarlierBackup;
use crate::repository::{RepositoryError, ServerRepository};
use crate::wal::TimelineHistory;

/// Reads the latest backup, for the new one `own` of a server with this past; `None` if there is none.
pub(super) fn latest(
    server: &ServerRepository,
    own: BackupId,
    path: &TimelineHistory,
) -> Result<Option<EarlierBackup>, BackupError> {
    let mut backups = server.live_backups()?;
    if backups.is_empty() {
        return Ok(None);
    }
    // Clocks may be wrong; LSNs are not.
    backups.sort_by_key(|info| (path.holds(info.stop_timeline, info.stop_lsn), info.stop_lsn, info.id));
    // What is marked to be removed may be gone before this backup is.
    let doomed = server.doomed()?;
    if let Some((_, why)) = doomed.unreadable.first() {
        eprintln!(
            "pitr: NOTE:  everything is stored anew, since a mark of what is to be removed cannot be read ({why}); \"pitr expire\" replaces it"
        );
        return Ok(None);
    }
    let there = server.packs()?;
    let usable = there.iter().filter(|pack| !doomed.has_pack(pack.id));
    let usable: BTreeMap<PackId, u64> = usable.map(|pack| (pack.id, pack.stored_bytes)).collect();
    for info in backups.iter().rev() {
        match EarlierBackup::read(server, info.id, own, &usable) {
            Ok(earlier) => return Ok(Some(earlier)),
            Err(error @ RepositoryError::Storage(_)) => return Err(error.into()),
            Err(error) => {
                // A damaged backup is a matter for a person, and no reason to have none.
                let mut report = error.report();
                report.what = format!("cannot refer to base backup \"{}\": {}", info.id, report.what);
                report.print(Program::Pitr, Severity::Warning);
            }
        }
    }
    Ok(None)
}
