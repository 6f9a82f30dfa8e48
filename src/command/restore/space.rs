//! Whether the disks have room for the data, and for the WAL that replay brings along.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use indicatif::HumanBytes;
use serde::Serialize;

use super::RestoreError;
use super::ground::Ground;
use super::resolve::Resolved;
use super::survey::Survey;

/// A file system to be written to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Disk {
    /// One of the directories on it.
    pub(super) path: PathBuf,
    /// Bytes of data files that go there.
    pub(super) data_bytes: u64,
    /// Bytes of all WAL to be replayed, if `pg_wal` lies there. PostgreSQL removes what is older than its last restartpoint, so
    /// that it may need less.
    pub(super) wal_bytes: u64,
    /// Free bytes.
    pub(super) free_bytes: u64,
    #[serde(skip)]
    device: u64,
}

/// The file systems that the directories lie or will lie on, and what each must hold. None where something is written over: what
/// that frees is not known.
pub(super) fn disks(ground: &Ground, resolved: &Resolved, survey: &Survey) -> Result<Vec<Disk>, RestoreError> {
    let mut disks: Vec<Disk> = Vec::new();
    if ground.over {
        return Ok(disks);
    }
    let wal_bytes = resolved.plan.wal_segments.saturating_mul(resolved.record.segment_size_bytes.bytes());
    let wal = ground.places.wal.as_deref().unwrap_or(&ground.target);
    let mut parts: Vec<(&Path, u64, u64)> = vec![(wal, 0, wal_bytes)];
    let mut in_target = survey.bytes;
    for (oid, bytes) in &survey.tablespace_bytes {
        // One that lies inside the data directory has no absolute path.
        if let Some(place) = ground.places.tablespaces.get(oid).filter(|place| place.is_absolute()) {
            parts.push((place, *bytes, 0));
            in_target = in_target.saturating_sub(*bytes);
        }
    }
    parts.insert(0, (&ground.target, in_target, 0));
    for (path, data_bytes, wal_bytes) in parts {
        let free = free(path)?;
        match disks.iter_mut().find(|disk| disk.device == free.device) {
            Some(disk) => {
                disk.data_bytes += data_bytes;
                disk.wal_bytes += wal_bytes;
            }
            None => disks.push(Disk {
                path: path.to_owned(),
                data_bytes,
                wal_bytes,
                free_bytes: free.bytes,
                device: free.device,
            }),
        }
    }
    Ok(disks)
}

/// Refuses what cannot fit: the data files alone are too much.
pub(super) fn check(ground: &Ground, disks: &[Disk]) -> Result<(), RestoreError> {
    match disks.iter().find(|disk| !ground.over && disk.data_bytes > disk.free_bytes) {
        Some(Disk { path, data_bytes, free_bytes, .. }) => {
            Err(RestoreError::NoSpace { path: path.clone(), needed_bytes: *data_bytes, free_bytes: *free_bytes })
        }
        None => Ok(()),
    }
}

/// What the user should know about a disk.
pub(super) fn note(disk: &Disk) -> Option<String> {
    let Disk { path, data_bytes, wal_bytes, free_bytes, .. } = disk;
    let (path, free) = (path.display(), HumanBytes(*free_bytes));
    if data_bytes > free_bytes {
        return Some(format!(
            "TOO LITTLE SPACE in {path}: the data needs {}, {free} are free",
            HumanBytes(*data_bytes)
        ));
    }
    (data_bytes.saturating_add(*wal_bytes) > *free_bytes).then(|| {
        format!(
            "little space in {path}: {} of data, and up to {} of WAL pass through pg_wal while it is replayed; {free} are free",
            HumanBytes(*data_bytes),
            HumanBytes(*wal_bytes)
        )
    })
}

/// Room on a file system.
pub(super) struct Free {
    pub(super) bytes: u64,
    device: u64,
}

/// Room on the file system that a path lies or will lie on.
pub(super) fn free(path: &Path) -> Result<Free, RestoreError> {
    let mut existing = path;
    while !existing.exists() {
        match existing.parent() {
            Some(parent) => existing = parent,
            None => break,
        }
    }
    let failed = |source| RestoreError::Local { path: existing.to_owned(), source };
    let device = fs::metadata(existing).map_err(failed)?.dev();
    let stat = rustix::fs::statvfs(existing).map_err(|error| failed(error.into()))?;
    Ok(Free { bytes: stat.f_bavail.saturating_mul(stat.f_frsize), device })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(data_bytes: u64, wal_bytes: u64, free_bytes: u64) -> Disk {
        Disk { path: "/srv/clone".into(), data_bytes, wal_bytes, free_bytes, device: 1 }
    }

    /// A disk that holds data and WAL says nothing; one that holds the data only is told with both; one that does not even hold
    /// the data is told louder.
    #[test]
    fn notes() {
        assert_eq!(note(&disk(600, 400, 1000)), None);
        let tight = note(&disk(600, 401, 1000)).expect("too small for both");
        assert!(
            tight.contains("600 B of data") && tight.contains("401 B of WAL") && tight.contains("1000 B"),
            "{tight}"
        );
        let small = note(&disk(1001, 0, 1000)).expect("too small");
        assert!(small.starts_with("TOO LITTLE SPACE"), "{small}");
    }
}
