//! Writing a base backup into a data directory: in parallel, every chunk proved, and never startable before it is whole.
//!
//! Order, and why:
//! 1. The marker `pitr.restore` is made durable: from now on the directory is ours.
//! 2. `global/pg_control` is removed, durably: no server starts on a half-written directory.
//! 3. Directories, links and files are written. What the directory held before and already equals the backup's chunks is
//!    kept, what the backup does not have is removed.
//! 4. One `syncfs` for each file system. It writes thousands of small files back in one pass where an `fsync` each would
//!    wait for as many journal commits, and since Linux 5.8 it reports what could not be written.
//! 5. The caller writes the recovery settings, then [`Layout::finish`] writes `pg_control` and removes the marker.
//!
//! Files of databases that are left out become holes of their full length, and these databases have no `PG_VERSION`: replay finds
//! files where it expects them, a page of zero bytes passes every checksum, and nobody can connect to what is not there.
//!
//! Each file gets the modification time that the backup recorded when its last piece is written, so that a later restore can be
//! told to trust it. Whoever trusts times must not do so in a broken-off restore: there, the content may never have reached the disk.
//!
//! A process that is killed at any instruction leaves a directory that [`super::state`] calls a broken-off restore.

mod pool;
mod sweep;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::PgDataError;
use super::marker::Marker;
use super::root::{Opened, Root};
use crate::chunk::{ChunkRef, EntryPath};
use crate::durable::{self, NewFile, Owner};
use crate::manifest::{ConfigFile, Directory, FileEntry, ManifestError, ManifestLine, Symlink};
use crate::repository::RepositoryError;
use crate::repository::frames::Frames;
use crate::wal::{ControlFile, ServerLimits};
use pool::{Pool, Target};

/// What makes a data directory startable; written last.
const CONTROL_FILE: &str = "global/pg_control";

/// Where configuration files go that lay outside the data directory.
const CONFIGURATION: &str = "pitr.config";

/// Files of the source that must not come back to life: its process, its role in replication, and the list of places its
/// tablespaces had (the links are made here, mapped; the server would put the old ones back).
const LEFT_BEHIND: [&str; 5] =
    ["postmaster.pid", "postmaster.opts", "recovery.signal", "standby.signal", "tablespace_map"];

/// Where everything goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// The data directory.
    pub data: PathBuf,
    /// Where `pg_wal` lies, if not in the data directory.
    pub wal: Option<PathBuf>,
    /// Where each tablespace lies, by OID. A relative path is a directory inside the data directory.
    pub tablespaces: BTreeMap<u32, PathBuf>,
}

impl Places {
    /// Everything outside the data directory.
    pub fn outside(&self) -> impl Iterator<Item = &PathBuf> {
        self.tablespaces.values().filter(|path| path.is_absolute()).chain(&self.wal)
    }
}

/// How to write.
#[derive(Clone, Copy)]
pub struct Options<'a> {
    /// Threads that write.
    pub jobs: usize,
    /// Owner of everything new, if not this process's user.
    pub owner: Option<Owner>,
    /// The directories hold something: keep of it what equals the backup, remove the rest.
    pub over: bool,
    /// Files of relations whose length and modification time are what the backup recorded are taken for right without being read, if
    /// that time lies before this (seconds since the Unix epoch).
    pub trusted_before: Option<i64>,
    /// Databases whose files become holes.
    pub left_out: &'a BTreeSet<u32>,
    /// Reads what some chunks consist of. Called by several threads.
    pub read: &'a (dyn Fn(&[&ChunkRef]) -> Result<Frames, RepositoryError> + Sync),
    /// Set when the user asks to stop.
    pub interrupt: &'a AtomicBool,
    /// Counts as it goes.
    pub progress: &'a Progress,
}

/// What has been done so far.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes of files that are as they should be, kept ones included.
    pub bytes: AtomicU64,
    /// Bytes that were there already.
    pub kept_bytes: AtomicU64,
    /// Those of them that were not read.
    pub trusted_bytes: AtomicU64,
    /// Files.
    pub files: AtomicU64,
}

/// A data directory that is written except for `pg_control`.
#[derive(Debug)]
pub struct Layout {
    /// Holds the lock.
    root: Root,
    data: PathBuf,
    owner: Option<Owner>,
    control: Vec<u8>,
    control_mode: u32,
    limits: ServerLimits,
}

/// Writes everything but `pg_control`.
///
/// # Errors
/// Something could not be read or written, a chunk or the manifest is damaged, or the user asked to stop. The directory then is
/// a broken-off restore.
pub fn write(
    places: &Places,
    marker: &Marker,
    lines: impl Iterator<Item = Result<ManifestLine, ManifestError>>,
    options: Options<'_>,
) -> Result<Layout, PgDataError> {
    for path in [&places.data].into_iter().chain(places.outside()) {
        durable::create_directories(path, options.owner).map_err(PgDataError::io("create directory", path))?;
    }
    let roots = Roots::open(places, options.owner)?;
    roots.data.lock()?;
    // What a restore left that was killed while it wrote its marker.
    durable::sweep(&places.data, Duration::ZERO).map_err(PgDataError::io("clean", &places.data))?;
    marker.write(&places.data, options.owner).map_err(PgDataError::io("write marker in", &places.data))?;
    let control = places.data.join(CONTROL_FILE);
    durable::remove(&control).map_err(PgDataError::io("remove", &control))?;
    let mut hand = Hand { roots: &roots, places, options, known: HashSet::new(), control: None, trusted: None };
    Pool::run(options, |pool| {
        for line in lines {
            pool.check()?;
            hand.take(line?, pool)?;
        }
        Ok(())
    })?;
    let Hand { known, control, .. } = hand;
    if options.over {
        sweep::sweep(&roots, &known)?;
    }
    for root in roots.all() {
        durable::sync_file_system(root.directory()).map_err(PgDataError::io("sync", root.path()))?;
    }
    let missing = |reason: String| PgDataError::Incomplete { file: CONTROL_FILE, reason };
    let control = control.ok_or_else(|| missing("there is none".to_owned()))?;
    let mut bytes = Vec::new();
    let frames = (options.read)(&control.chunks.iter().collect::<Vec<_>>())?;
    for chunk in &control.chunks {
        bytes.extend(frames.chunk(chunk)?);
    }
    let parsed = ControlFile::parse(&bytes).map_err(|error| missing(error.to_string()))?;
    if parsed.system_identifier != marker.system_identifier {
        return Err(missing(format!("it is that of cluster {}", parsed.system_identifier)));
    }
    let Roots { data: root, .. } = roots;
    Ok(Layout {
        root,
        data: places.data.clone(),
        owner: options.owner,
        control: bytes,
        control_mode: control.mode,
        limits: parsed.limits,
    })
}

impl Layout {
    /// Settings that a server has to allow to run on this directory, by its `pg_control`.
    #[must_use]
    pub fn limits(&self) -> ServerLimits {
        self.limits
    }

    /// Writes a small file, durably, in place of what stands under the name.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, name: &str, bytes: &[u8]) -> Result<(), PgDataError> {
        durable::replace(&self.data, name, bytes, self.owner).map_err(PgDataError::io("write", &self.data.join(name)))
    }

    /// Reads a small file; empty if there is none.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn get(&self, name: &str) -> Result<Vec<u8>, PgDataError> {
        let path = self.data.join(name);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(PgDataError::io("read", &path)(error)),
            _ => Ok(bytes),
        }
    }

    /// Lays a WAL segment into `pg_wal`, durably. A beginning of a segment is filled up with zero bytes: the server takes no
    /// shorter file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn lay_segment(
        &self,
        name: &str,
        segment_bytes: u64,
        fill: impl FnOnce(&mut dyn std::io::Write) -> Result<(), RepositoryError>,
    ) -> Result<(), PgDataError> {
        let directory = self.data.join("pg_wal");
        let path = directory.join(name);
        let mut new = NewFile::create_in(&directory, self.owner).map_err(PgDataError::io("create", &path))?;
        fill(new.file())?;
        let filled = new.file().set_len(segment_bytes);
        filled.and_then(|()| new.replace(name)).map_err(PgDataError::io("write", &path))
    }

    /// Writes `pg_control` and removes the marker: the directory is a cluster from now on.
    ///
    /// # Errors
    /// Either could not be done; the directory then still is a broken-off restore.
    pub fn finish(self) -> Result<(), PgDataError> {
        let path = self.data.join(CONTROL_FILE);
        let failed = || PgDataError::io("write", &path);
        let mut new = NewFile::create_in(&self.data.join("global"), self.owner).map_err(failed())?;
        new.write_all(&self.control).map_err(failed())?;
        let mode = std::fs::Permissions::from_mode(self.control_mode & 0o777);
        new.file().set_permissions(mode).map_err(failed())?;
        new.replace("pg_control").map_err(failed())?;
        Marker::remove(&self.data).map_err(PgDataError::io("remove marker from", &self.data))?;
        drop(self.root);
        Ok(())
    }
}

/// The open directories.
struct Roots {
    data: Root,
    wal: Option<Root>,
    tablespaces: BTreeMap<u32, Root>,
}

impl Roots {
    fn open(places: &Places, owner: Option<Owner>) -> Result<Roots, PgDataError> {
        let data = Root::open(&places.data, owner)?;
        let wal = places.wal.as_ref().map(|path| Root::open(path, owner)).transpose()?;
        let mut tablespaces = BTreeMap::new();
        for (oid, path) in places.tablespaces.iter().filter(|(_, path)| path.is_absolute()) {
            tablespaces.insert(*oid, Root::open(path, owner)?);
        }
        Ok(Roots { data, wal, tablespaces })
    }

    fn all(&self) -> impl Iterator<Item = &Root> {
        [&self.data].into_iter().chain(&self.wal).chain(self.tablespaces.values())
    }
}

/// The name of an entry for the set of what the backup has: 128 bits are enough, and bound the memory of a large cluster.
type Name = [u8; 16];

fn name_of(root: &Path, path: &Path) -> Name {
    let mut hasher = blake3::Hasher::new();
    hasher.update(root.as_os_str().as_bytes()).update(b"\0").update(path.as_os_str().as_bytes());
    let mut name = [0; 16];
    name.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    name
}

/// Turns the manifest's lines into directories, links, and work for the pool.
struct Hand<'a> {
    roots: &'a Roots,
    places: &'a Places,
    options: Options<'a>,
    /// What the backup has, while `options.over`.
    known: HashSet<Name>,
    control: Option<FileEntry>,
    /// The last file that was trusted: later parts of it follow.
    trusted: Option<(EntryPath, Option<u32>)>,
}

impl<'a> Hand<'a> {
    fn take(&mut self, line: ManifestLine, pool: &Pool<'_>) -> Result<(), PgDataError> {
        match line {
            ManifestLine::Directory(line) => self.directory(&line),
            ManifestLine::Symlink(line) => self.link(&line),
            ManifestLine::File(line) => self.file(line, pool),
            ManifestLine::Config(line) => self.configuration(line, pool),
        }
    }

    /// The directory that an entry lies below, and its path there.
    fn place<'p>(&self, path: &'p Path, tablespace: Option<u32>) -> Result<(&'a Root, PathBuf), PgDataError> {
        if let Some(oid) = tablespace {
            return match (self.roots.tablespaces.get(&oid), self.places.tablespaces.get(&oid)) {
                (Some(root), _) => Ok((root, path.to_owned())),
                (None, Some(inside)) => Ok((&self.roots.data, inside.join(path))),
                (None, None) => Err(PgDataError::UnknownTablespace { oid }),
            };
        }
        match (&self.roots.wal, path.strip_prefix("pg_wal")) {
            (Some(root), Ok(below)) => Ok((root, below.to_owned())),
            _ => Ok((&self.roots.data, path.to_owned())),
        }
    }

    fn remember(&mut self, root: &Root, path: &Path) {
        if self.options.over {
            self.known.insert(name_of(root.path(), path));
        }
    }

    fn directory(&mut self, line: &Directory) -> Result<(), PgDataError> {
        let path = line.path.as_path();
        let (root, below) = self.place(path, line.tablespace)?;
        if line.tablespace.is_none() && path == Path::new("global") {
            // A cluster with group access has it on all of its directories.
            root.set_mode(line.mode)?;
        }
        if below.as_os_str().is_empty() {
            // `pg_wal` that lies elsewhere.
            root.set_mode(line.mode)?;
            self.remember(&self.roots.data, path);
            return self.roots.data.make_link(path, root.path());
        }
        root.make_directory(&below, line.mode)?;
        self.remember(root, &below);
        Ok(())
    }

    /// Links of tablespaces; where `pg_wal` was a link on the source, it is a directory or a link as the user says.
    fn link(&mut self, line: &Symlink) -> Result<(), PgDataError> {
        let path = line.path.as_path();
        let oid = path.strip_prefix("pg_tblspc").ok().and_then(Path::to_str).and_then(|oid| oid.parse::<u32>().ok());
        self.remember(&self.roots.data, path);
        match oid.map(|oid| (oid, self.places.tablespaces.get(&oid))) {
            Some((_, Some(place))) if place.is_absolute() => self.roots.data.make_link(path, place),
            Some((_, Some(_))) => self.roots.data.make_directory(path, 0o700),
            Some((oid, None)) => Err(PgDataError::UnknownTablespace { oid }),
            None if path == Path::new("pg_wal") => match &self.roots.wal {
                Some(root) => self.roots.data.make_link(path, root.path()),
                None => self.roots.data.make_directory(path, 0o700),
            },
            // Nothing else in a data directory is a link of PostgreSQL's; where it led is not ours to write to.
            None => Ok(()),
        }
    }

    /// Configuration from outside the data directory is for the user to place: it goes to a directory where it does no harm,
    /// under the path that it had.
    fn configuration(&mut self, line: ConfigFile, pool: &Pool<'_>) -> Result<(), PgDataError> {
        let Ok(path) = EntryPath::new(format!("{CONFIGURATION}{}", line.source).as_bytes()) else { return Ok(()) };
        if line.missing.is_some() {
            return Ok(());
        }
        let root = &self.roots.data;
        let parents: Vec<&Path> =
            path.as_path().ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        for parent in parents.into_iter().rev() {
            root.make_directory(parent, 0o700)?;
            self.remember(root, parent);
        }
        let entry = FileEntry {
            path,
            tablespace: None,
            mode: 0o600,
            size: line.size,
            modified_at: 0,
            from: 0,
            chunks: line.chunks,
            crc32c: None,
        };
        self.file(entry, pool)
    }

    fn file(&mut self, line: FileEntry, pool: &Pool<'_>) -> Result<(), PgDataError> {
        let path = line.path.as_path();
        if line.tablespace.is_none() {
            if path == Path::new(CONTROL_FILE) {
                self.control = Some(line);
                return Ok(());
            }
            if LEFT_BEHIND.iter().any(|name| path == Path::new(name)) {
                return Ok(());
            }
        }
        let (root, below) = self.place(path, line.tablespace)?;
        if line.database().is_some_and(|database| self.options.left_out.contains(&database)) {
            return if line.is_version_of_database() { Ok(()) } else { self.hole(&line, root, &below) };
        }
        if line.from > 0 && self.trusted.as_ref().is_some_and(|(path, of)| *path == line.path && *of == line.tablespace)
        {
            return Ok(());
        }
        // Later parts of a large file find what the first one made.
        let keep = self.options.over || line.from > 0;
        let opened = root.open_file(&below, line.mode, keep)?;
        let full = root.path().join(&below);
        if line.from == 0 {
            self.remember(root, &below);
            self.options.progress.files.fetch_add(1, Ordering::Relaxed);
            if self.is_trusted(&line, &opened).map_err(PgDataError::io("look at", &full))? {
                let progress = self.options.progress;
                for count in [&progress.bytes, &progress.kept_bytes, &progress.trusted_bytes] {
                    count.fetch_add(line.size, Ordering::Relaxed);
                }
                self.trusted = Some((line.path, line.tablespace));
                return Ok(());
            }
            opened.file.set_len(line.size).map_err(PgDataError::io("set length of", &full))?;
        }
        let compare = if self.options.over { opened.length.min(line.size) } else { 0 };
        let modified_at = (line.modified_at > 0).then_some(line.modified_at);
        let target = Arc::new(Target { file: opened.file, path: full, compare, modified_at });
        let mut at = line.from;
        for chunk in line.chunks {
            let bytes = u64::from(chunk.raw_length);
            pool.give(&target, at, chunk)?;
            at += bytes;
        }
        Ok(())
    }

    /// A file of a database that is left out. It keeps the time of now: no later restore may take it for the file itself.
    fn hole(&mut self, line: &FileEntry, root: &Root, below: &Path) -> Result<(), PgDataError> {
        if line.from > 0 {
            return Ok(());
        }
        self.remember(root, below);
        if self.options.over {
            root.clear(below)?;
        }
        let opened = root.open_file(below, line.mode, false)?;
        opened.file.set_len(line.size).map_err(PgDataError::io("set length of", &root.path().join(below)))
    }

    /// The file may be taken for what the backup has, by its length and time alone.
    fn is_trusted(&self, line: &FileEntry, opened: &Opened) -> std::io::Result<bool> {
        let is_old = self.options.trusted_before.is_some_and(|before| line.modified_at < before);
        // A file that was made just now has no length to compare.
        if !self.options.over || !is_old || !line.is_relation() || opened.length != line.size {
            return Ok(false);
        }
        let found = opened.file.metadata()?;
        Ok(found.len() == line.size && found.mtime() == line.modified_at)
    }
}
