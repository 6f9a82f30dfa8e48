//! Where everything will be written, and whether that may be done.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::server_account;
use super::{Args, RestoreError, space};
use crate::catalog::BackupInfo;
use crate::config::Place;
use crate::durable::Owner;
use crate::pgdata::layout::Places;
use crate::pgdata::state::{self, Holds};
use std::os::unix::fs::MetadataExt;

/// The directories to be written.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Ground {
    /// The data directory.
    pub(super) target: PathBuf,
    /// What it holds now.
    pub(super) target_holds: Holds,
    /// Where `pg_wal` will lie, if elsewhere.
    pub(super) waldir: Option<PathBuf>,
    /// Tablespaces: where they were, and where they will be.
    pub(super) tablespaces: Vec<Moved>,
    /// Free bytes where the data directory will be.
    pub(super) free_bytes: u64,
    #[serde(skip)]
    pub(super) places: Places,
    #[serde(skip)]
    pub(super) owner: Option<Owner>,
    /// What is there is written over.
    pub(super) over: bool,
}

impl Ground {
    /// The target holds a cluster, which will be written over.
    pub(super) fn has_cluster(&self) -> bool {
        matches!(self.target_holds, Holds::Cluster { .. })
    }
}

/// A tablespace's move.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Moved {
    pub(super) oid: u32,
    pub(super) old: String,
    pub(super) new: PathBuf,
}

/// Looks at the directories. Refuses what must not be written to; `None` if no target was given.
pub(super) fn survey(args: &Args, info: &BackupInfo, repositories: &[Place]) -> Result<Option<Ground>, RestoreError> {
    let Some(target) = &args.target else { return Ok(None) };
    let target = absolute(target)?;
    let waldir = args.waldir.as_deref().map(absolute).transpose()?;
    let tablespaces = tablespaces(args, info)?;
    let target_holds = state::inspect(&target)?;
    let continued: &[PathBuf] = match &target_holds {
        Holds::Nothing | Holds::Empty => &[],
        Holds::BrokenOffRestore { outside, system_identifier, .. }
            if *system_identifier == info.system_identifier || args.overwrite =>
        {
            outside
        }
        Holds::Cluster { .. } if args.overwrite => &[],
        Holds::Cluster { .. } | Holds::BrokenOffRestore { .. } | Holds::Running { .. } | Holds::Foreign { .. } => {
            return Err(RestoreError::Occupied { path: target, holds: target_holds });
        }
    };
    let places = Places {
        data: target.clone(),
        wal: waldir.clone(),
        tablespaces: tablespaces.iter().map(|moved| (moved.oid, moved.new.clone())).collect(),
    };
    let mut over = !matches!(target_holds, Holds::Nothing | Holds::Empty);
    for outside in places.outside() {
        over |= check_outside(outside, args.overwrite || continued.contains(outside))?;
    }
    check_apart(&places, repositories)?;
    let owner = owner(args, &target)?;
    let free_bytes = space::free(&target)?.bytes;
    Ok(Some(Ground { target, target_holds, waldir, tablespaces, free_bytes, places, owner, over }))
}

/// The path without `.`, `..` and links, as far as it exists.
fn absolute(path: &Path) -> Result<PathBuf, RestoreError> {
    let local = |source| RestoreError::Local { path: path.to_owned(), source };
    let path = std::path::absolute(path).map_err(local)?;
    let mut existing = path.as_path();
    let mut rest = Vec::new();
    loop {
        match fs::canonicalize(existing) {
            Ok(found) => return Ok(rest.iter().rev().fold(found, |path, part| path.join(part))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match (existing.file_name(), existing.parent()) {
                (Some(name), Some(parent)) => {
                    rest.push(name.to_owned());
                    existing = parent;
                }
                // `..` behind something that does not exist leads nowhere certain.
                _ => return Err(local(error)),
            },
            Err(error) => return Err(local(error)),
        }
    }
}

/// Where each tablespace goes: as mapped, else where it was.
fn tablespaces(args: &Args, info: &BackupInfo) -> Result<Vec<Moved>, RestoreError> {
    let mut mappings: BTreeMap<&str, &PathBuf> = args.tablespace.iter().map(|(old, new)| (old.as_str(), new)).collect();
    let mut moved = Vec::new();
    for tablespace in &info.tablespaces {
        let old = tablespace.location.as_str();
        let new = match mappings.remove(old) {
            Some(new) => absolute(new)?,
            None if Path::new(old).is_absolute() => absolute(Path::new(old))?,
            None => PathBuf::from(old),
        };
        moved.push(Moved { oid: tablespace.oid, old: old.to_owned(), new });
    }
    if let Some(old) = mappings.into_keys().next() {
        return Err(RestoreError::NoSuchTablespace {
            backup: info.id.to_string(),
            old: old.to_owned(),
            known: info.tablespaces.iter().map(|tablespace| tablespace.location.clone()).collect(),
        });
    }
    Ok(moved)
}

/// A directory outside the data directory must be empty, unless it may be written over: then it must hold what PostgreSQL puts
/// there, and nothing else. Tells whether it holds anything.
fn check_outside(path: &Path, may_write_over: bool) -> Result<bool, RestoreError> {
    let Some(entry) = state::first_entry(path)? else { return Ok(false) };
    let refuse = |entry: String| RestoreError::Occupied { path: path.to_owned(), holds: Holds::Foreign { entry } };
    if !may_write_over {
        return Err(refuse(entry));
    }
    let local = |source| RestoreError::Local { path: path.to_owned(), source };
    for entry in fs::read_dir(path).map_err(local)? {
        let name = entry.map_err(local)?.file_name().to_string_lossy().into_owned();
        let of_tablespace = name.starts_with("PG_");
        let of_wal = name.parse::<crate::wal::WalFileName>().is_ok()
            || ["archive_status", "summaries", "lost+found"].contains(&name.as_str())
            || name.starts_with("xlogtemp.");
        if !of_tablespace && !of_wal {
            return Err(refuse(name));
        }
    }
    Ok(true)
}

/// None of the directories may lie in another, in a repository, or around it.
fn check_apart(places: &Places, repositories: &[Place]) -> Result<(), RestoreError> {
    let repositories = repositories.iter().filter_map(|place| place.location.directory());
    let repositories: Vec<_> =
        repositories.map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())).collect();
    let mut named: Vec<(String, &Path)> = vec![("the target".to_owned(), &places.data)];
    named.extend(repositories.iter().map(|path| ("the repository".to_owned(), path.as_path())));
    named.extend(places.wal.iter().map(|path| ("the directory for pg_wal".to_owned(), path.as_path())));
    let outside = places.tablespaces.iter().filter(|(_, path)| path.is_absolute());
    named.extend(outside.map(|(oid, path)| (format!("tablespace {oid}"), path.as_path())));
    for (at, (inner_what, inner)) in named.iter().enumerate() {
        for (other, (outer_what, outer)) in named.iter().enumerate() {
            if at != other && inner.starts_with(outer) {
                return Err(RestoreError::Overlap {
                    inner_what: inner_what.clone(),
                    inner: inner.to_path_buf(),
                    outer_what: outer_what.clone(),
                    outer: outer.to_path_buf(),
                });
            }
        }
    }
    Ok(())
}

/// As root: who will own the files. A target that exists keeps its owner; a new one gets that of the directory above; where
/// that is root, the account that servers run under.
fn owner(args: &Args, target: &Path) -> Result<Option<Owner>, RestoreError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    if args.owner.is_some() {
        return Ok(args.owner);
    }
    let mut existing = target;
    let metadata = loop {
        match fs::metadata(existing) {
            Ok(metadata) => break metadata,
            Err(source) => match existing.parent() {
                Some(parent) => existing = parent,
                None => return Err(RestoreError::Local { path: existing.to_owned(), source }),
            },
        }
    };
    if metadata.uid() != 0 {
        return Ok(Some(Owner { user: metadata.uid(), group: metadata.gid() }));
    }
    match server_account() {
        Some(owner) => Ok(Some(owner)),
        None => Err(RestoreError::NoOwner { path: existing.to_owned() }),
    }
}
