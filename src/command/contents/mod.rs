//! What base backups contain, by name and size: what `pitr show` and `pitr diff` share.
//!
//! `meant` finds the backup that is meant, `tally` sums up files as the manifest streams by, `table` puts relations together with the
//! tables they belong to, `columns` writes sizes below each other. Nothing of a pack is read but the catalogs that tell names.

pub(super) mod columns;
mod error;
mod meant;
pub(super) mod table;
pub(super) mod tally;

pub use error::ContentsError;
pub use meant::Meant;
pub(super) use meant::{Found, find};

use super::Context;
use crate::manifest::{ManifestHeader, ManifestLine, ManifestStop};
use crate::repository::ServerRepository;
use crate::wal::RelationFile;

/// Reads a backup's manifest to its end and hands out its lines. What they told may be shown once this has returned without an error.
pub(super) fn read_manifest(
    server: &ServerRepository,
    id: crate::catalog::BackupId,
    context: &Context,
    mut each: impl FnMut(ManifestLine) -> Result<(), ContentsError>,
) -> Result<(ManifestHeader, ManifestStop), ContentsError> {
    let failed = |error| server.manifest_error(id, error);
    let mut manifest = server.open_manifest(id)?;
    let header = manifest.header().clone();
    for line in manifest.by_ref() {
        each(line.map_err(failed)?)?;
        if context.interrupt.requested() {
            return Err(ContentsError::Interrupted);
        }
    }
    let stop = manifest.verify_to_end().map_err(failed)?;
    Ok((header, stop))
}

/// The path of a relation's main fork, below the data directory. Of other tablespaces the folder with the catalog's version is
/// left open.
pub(super) fn path_of(file: RelationFile) -> String {
    use crate::manifest::place::{DEFAULT_TABLESPACE, GLOBAL_TABLESPACE};
    let RelationFile { tablespace, database, relation } = file;
    match tablespace {
        DEFAULT_TABLESPACE => format!("base/{database}/{relation}"),
        GLOBAL_TABLESPACE => format!("global/{relation}"),
        _ => format!("pg_tblspc/{tablespace}/PG_*/{database}/{relation}"),
    }
}
