//! Removing what a directory held before and the backup does not have.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use super::super::PgDataError;
use super::super::marker::MARKER;
use super::super::root::Root;
use super::{Name, Roots, name_of};

/// Removes everything below the roots that the backup does not name. Links are removed, never followed.
pub(super) fn sweep(roots: &Roots, known: &HashSet<Name>) -> Result<(), PgDataError> {
    for root in roots.all() {
        below(root, Path::new(""), known)?;
    }
    Ok(())
}

fn below(root: &Root, directory: &Path, known: &HashSet<Name>) -> Result<(), PgDataError> {
    let full = root.path().join(directory);
    let failed = || PgDataError::io("read directory", &full);
    for entry in fs::read_dir(&full).map_err(failed())? {
        let entry = entry.map_err(failed())?;
        let path = directory.join(entry.file_name());
        let is_directory = entry.file_type().map_err(failed())?.is_dir();
        let spared =
            directory.as_os_str().is_empty() && (entry.file_name() == MARKER || entry.file_name() == "lost+found");
        if spared {
            continue;
        }
        if !known.contains(&name_of(root.path(), &path)) {
            root.clear(&path)?;
        } else if is_directory {
            below(root, &path, known)?;
        }
    }
    Ok(())
}
