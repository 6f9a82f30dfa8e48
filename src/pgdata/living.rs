//! The data directory of a running server, read file by file for a base backup.
//!
//! The server goes on writing meanwhile: what vanishes before it is opened does not belong into the backup, and of a file that grows what
//! it had when it was opened is enough, since the WAL has the rest. Every name is opened in the directory that was listed, and links are
//! not followed: but for `pg_wal`, which is kept empty, and those of tablespaces below `pg_tblspc`, whatever is neither file nor directory
//! is passed over, as the server's own base backup does. What is left out is in [`super::excluded`].

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{Advice, AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::PgDataError;
use super::excluded::{Excluded, is_kept_empty};
use crate::catalog::Tablespace;
use crate::chunk::EntryPath;
use crate::wal::{CONTROL_FILE_READ_SIZE, ControlFile, WalFileName};

/// The file that is read last.
const CONTROL_FILE: &str = "global/pg_control";

/// How often a `pg_control` that looks torn is read, and how long apart: the server overwrites it in place within microseconds.
const CONTROL_FILE_READS: u32 = 50;
const CONTROL_FILE_PAUSE: Duration = Duration::from_millis(10);

/// A data directory, or a tablespace.
#[derive(Debug)]
pub struct LivingDirectory {
    path: PathBuf,
    directory: OwnedFd,
}

/// Something that belongs into a backup.
#[derive(Debug)]
pub enum LivingEntry {
    /// A directory; comes before what is in it.
    Directory {
        /// Its path.
        path: EntryPath,
        /// Permission bits.
        mode: u32,
    },
    /// The link of a tablespace.
    Link {
        /// Its path.
        path: EntryPath,
        /// The tablespace's location.
        target: String,
    },
    /// A file.
    File(LivingFile),
}

/// A file, open for reading.
#[derive(Debug)]
pub struct LivingFile {
    /// Its path below the data directory or tablespace.
    pub path: EntryPath,
    /// Permission bits.
    pub mode: u32,
    /// Bytes when it was opened.
    pub size: u64,
    /// Last modification, in seconds since the Unix epoch.
    pub modified_at: i64,
    file: File,
}

impl LivingFile {
    /// Tells the operating system that so many bytes are going to be read soon.
    pub fn will_read(&self, offset: u64, bytes: u64) {
        // Only advice: reading works without it.
        let _ = rustix::fs::fadvise(&self.file, offset, std::num::NonZeroU64::new(bytes), Advice::WillNeed);
    }

    /// Fills `buffer` from `offset` on. Where the file has been cut meanwhile, zero bytes stand: the WAL has what cut it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read_at(&self, mut offset: u64, buffer: &mut [u8]) -> Result<(), PgDataError> {
        let mut rest = buffer;
        while !rest.is_empty() {
            match self.file.read_at(rest, offset) {
                Ok(0) => {
                    rest.fill(0);
                    return Ok(());
                }
                Ok(read) => {
                    rest = &mut rest[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PgDataError::io("read", self.path.as_path())(error)),
            }
        }
        Ok(())
    }
}

impl LivingDirectory {
    /// Opens the data directory, or a tablespace. Here, and only here, links are followed.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> Result<LivingDirectory, PgDataError> {
        let opened = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let directory = opened.map_err(|error| PgDataError::io("open directory", path)(error.into()))?;
        Ok(LivingDirectory { path: path.to_owned(), directory })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its permission bits.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn mode(&self) -> Result<u32, PgDataError> {
        mode_of(&self.directory, &self.path)
    }

    /// The content of a small file in it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn small_file(&self, name: &str) -> Result<Vec<u8>, PgDataError> {
        let file = self.regular(name)?;
        let mut content = vec![0; usize::try_from(file.size).unwrap_or(0).min(1 << 20)];
        file.read_at(0, &mut content)?;
        Ok(content)
    }

    /// Opens a file in `pg_wal`, which may be a link; `None` if it is not there.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn wal_file(&self, file: WalFileName) -> Result<Option<File>, PgDataError> {
        let path = self.path.join("pg_wal").join(file.to_string());
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PgDataError::io("open", &path)(error)),
        }
    }

    /// `pg_control`: the file and its whole content, read without a tear.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub fn control_file(&self) -> Result<(LivingFile, Vec<u8>, ControlFile), PgDataError> {
        for _ in 0..CONTROL_FILE_READS {
            let file = self.regular(CONTROL_FILE)?;
            let mut content = vec![0; usize::try_from(file.size).unwrap_or(0).min(1 << 16)];
            file.read_at(0, &mut content)?;
            match ControlFile::parse(&content[..content.len().min(CONTROL_FILE_READ_SIZE)]) {
                Ok(control) => return Ok((file, content, control)),
                Err(error) if error.may_be_torn() => sleep(CONTROL_FILE_PAUSE),
                Err(error) => return Err(self.unusable(error.to_string())),
            }
        }
        Err(self.unusable("its checksum does not match".to_owned()))
    }

    /// The tablespaces that it has, by the links below `pg_tblspc`. One in the data directory itself (`allow_in_place_tablespaces`) has
    /// no link; its location is relative.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn tablespaces(&self) -> Result<Vec<Tablespace>, PgDataError> {
        let Some(links) = self.subdirectory(&self.directory, c"pg_tblspc", &self.path.join("pg_tblspc"))? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for name in self.names(&links, &self.path.join("pg_tblspc"))? {
            let Some(oid) = std::str::from_utf8(&name).ok().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let path = self.path.join("pg_tblspc").join(oid.to_string());
            let Some(stat) = stat(&links, &name, &path)? else { continue };
            let location = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => match link_target(&links, &name, &path)? {
                    Some(target) => target,
                    None => continue,
                },
                FileType::Directory => format!("pg_tblspc/{oid}"),
                _ => continue,
            };
            found.push(Tablespace { oid, location });
        }
        Ok(found)
    }

    /// Goes through everything that belongs into a backup, but for `pg_control`, which comes last and by itself. `elsewhere` are the
    /// directories of tablespaces, which are gone through by themselves.
    ///
    /// # Errors
    /// Something cannot be read, or `each` fails.
    pub fn walk<'d, E: From<PgDataError>>(
        &self,
        elsewhere: impl Iterator<Item = &'d LivingDirectory>,
        each: &mut impl FnMut(LivingEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let elsewhere: Vec<(u64, u64)> = elsewhere.filter_map(|other| identity(&other.directory)).collect();
        let walk = Walk { root: self, tablespace: false, elsewhere };
        walk.directory(&self.directory, None, each)
    }

    /// As [`LivingDirectory::walk`] for a tablespace, of which only the directory `version` belongs to this cluster. One that is gone
    /// was dropped meanwhile.
    ///
    /// # Errors
    /// Something cannot be read, or `each` fails.
    pub fn walk_tablespace<E: From<PgDataError>>(
        &self,
        version: &EntryPath,
        each: &mut impl FnMut(LivingEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let walk = Walk { root: self, tablespace: true, elsewhere: Vec::new() };
        let path = self.path.join(version.as_path());
        let Some(stat) = stat(&self.directory, version.as_bytes(), &path)? else { return Ok(()) };
        let name = c_name(version.as_bytes(), &path)?;
        let Some(directory) = self.subdirectory(&self.directory, &name, &path)? else { return Ok(()) };
        each(LivingEntry::Directory { path: version.clone(), mode: stat.st_mode & 0o7777 })?;
        walk.directory(&directory, Some(version), each)
    }

    /// Opens a file of a known name.
    fn regular(&self, name: &str) -> Result<LivingFile, PgDataError> {
        let gone = || PgDataError::io("open", &self.path.join(name))(io::ErrorKind::NotFound.into());
        let path = EntryPath::new(name.as_bytes()).map_err(|_| gone())?;
        let (parent, name) = match name.split_once('/') {
            Some((parent, name)) => {
                let path = self.path.join(parent);
                (self.subdirectory(&self.directory, &c_name(parent.as_bytes(), &path)?, &path)?, name)
            }
            None => (None, name),
        };
        open(parent.as_ref().unwrap_or(&self.directory), name.as_bytes(), path, &self.path)?.ok_or_else(gone)
    }

    /// Opens a directory by its name in another; `None` if it is gone.
    fn subdirectory(&self, parent: &OwnedFd, name: &CStr, path: &Path) -> Result<Option<OwnedFd>, PgDataError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            Ok(directory) => Ok(Some(directory)),
            // It is gone, or something else has its name by now.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(PgDataError::io("open directory", path)(error.into())),
        }
    }

    /// The names in a directory, sorted.
    fn names(&self, directory: &OwnedFd, path: &Path) -> Result<Vec<Vec<u8>>, PgDataError> {
        let failed = |error: Errno| PgDataError::io("read directory", path)(error.into());
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn unusable(&self, reason: String) -> PgDataError {
        PgDataError::io("read", &self.path.join(CONTROL_FILE))(io::Error::new(io::ErrorKind::InvalidData, reason))
    }
}

/// One walk through a directory.
struct Walk<'a> {
    root: &'a LivingDirectory,
    tablespace: bool,
    /// Device and inode of directories that are not entered.
    elsewhere: Vec<(u64, u64)>,
}

impl Walk<'_> {
    fn directory<E: From<PgDataError>>(
        &self,
        directory: &OwnedFd,
        path: Option<&EntryPath>,
        each: &mut impl FnMut(LivingEntry) -> Result<(), E>,
    ) -> Result<(), E> {
        let full = path.map_or_else(|| self.root.path.clone(), |path| self.root.path.join(path.as_path()));
        let names = self.root.names(directory, &full)?;
        let excluded = Excluded::of(path, self.tablespace, &names);
        for name in names.iter().filter(|name| !excluded.has(name)) {
            let full = full.join(OsStr::from_bytes(name));
            let Some(stat) = stat(directory, name, &full)? else { continue };
            let path = match path {
                Some(path) => [path.as_bytes(), b"/", name].concat(),
                None => name.clone(),
            };
            let path = EntryPath::new(&path).map_err(|_| too_long(&full))?;
            if !self.tablespace && path.as_bytes() == CONTROL_FILE.as_bytes() {
                continue;
            }
            let mode = stat.st_mode & 0o7777;
            let kind = FileType::from_raw_mode(stat.st_mode);
            let wal = !self.tablespace && path.as_bytes() == b"pg_wal";
            if wal || (is_kept_empty(name) && matches!(kind, FileType::Directory | FileType::Symlink)) {
                // A link's own bits mean nothing: the data directory's do, as in the server's copy.
                let mode = if kind == FileType::Symlink { mode_of(directory, &full)? } else { mode };
                each(LivingEntry::Directory { path, mode })?;
                if wal {
                    let path = EntryPath::new(b"pg_wal/archive_status").map_err(|_| too_long(&full))?;
                    each(LivingEntry::Directory { path, mode })?;
                }
            } else if kind == FileType::Directory {
                let Some(inner) = self.root.subdirectory(directory, &c_name(name, &full)?, &full)? else { continue };
                each(LivingEntry::Directory { path: path.clone(), mode })?;
                if !identity(&inner).is_some_and(|inner| self.elsewhere.contains(&inner)) {
                    self.directory(&inner, Some(&path), each)?;
                }
            } else if kind == FileType::RegularFile {
                if let Some(file) = open(directory, name, path, &self.root.path)? {
                    each(LivingEntry::File(file))?;
                }
            } else if kind == FileType::Symlink && is_tablespace_link(&path) && !self.tablespace {
                if let Some(target) = link_target(directory, name, &full)? {
                    each(LivingEntry::Link { path, target })?;
                }
            } else {
                tracing::warn!("\"{}\" is neither a file nor a directory, and is left out", full.display());
            }
        }
        Ok(())
    }
}

fn is_tablespace_link(path: &EntryPath) -> bool {
    let number = path.as_bytes().strip_prefix(b"pg_tblspc/");
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// Opens a regular file in a directory; `None` if it is gone, or something else by now.
fn open(directory: &OwnedFd, name: &[u8], path: EntryPath, root: &Path) -> Result<Option<LivingFile>, PgDataError> {
    let full = root.join(path.as_path());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file: File = match rustix::fs::openat(directory, c_name(name, &full)?, flags, Mode::empty()) {
        Ok(file) => file.into(),
        Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(PgDataError::io("open", &full)(error.into())),
    };
    let stat = rustix::fs::fstat(&file).map_err(|error| PgDataError::io("look at", &full)(error.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    // Only advice.
    let _ = rustix::fs::fadvise(&file, 0, None, Advice::Sequential);
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    Ok(Some(LivingFile { path, mode: stat.st_mode & 0o7777, size, modified_at: stat.st_mtime, file }))
}

/// What stands under a name, links not followed; `None` if it is gone.
fn stat(directory: &OwnedFd, name: &[u8], path: &Path) -> Result<Option<Stat>, PgDataError> {
    match rustix::fs::statat(directory, c_name(name, path)?, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(PgDataError::io("look at", path)(error.into())),
    }
}

/// Where a link leads; `None` if it is gone.
fn link_target(directory: &OwnedFd, name: &[u8], path: &Path) -> Result<Option<String>, PgDataError> {
    let failed = PgDataError::io("read link", path);
    match rustix::fs::readlinkat(directory, c_name(name, path)?, Vec::new()) {
        Ok(target) => match target.into_string() {
            Ok(target) => Ok(Some(target)),
            Err(_) => Err(failed(io::Error::new(io::ErrorKind::InvalidData, "the location is not UTF-8"))),
        },
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failed(error.into())),
    }
}

fn mode_of(directory: &OwnedFd, path: &Path) -> Result<u32, PgDataError> {
    let stat = rustix::fs::fstat(directory).map_err(|error| PgDataError::io("look at", path)(error.into()))?;
    Ok(stat.st_mode & 0o7777)
}

fn identity(directory: &OwnedFd) -> Option<(u64, u64)> {
    rustix::fs::fstat(directory).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

fn c_name(name: &[u8], path: &Path) -> Result<CString, PgDataError> {
    CString::new(name).map_err(|error| PgDataError::io("open", path)(error.into()))
}

fn too_long(path: &Path) -> PgDataError {
    PgDataError::io("open", path)(io::Error::from(io::ErrorKind::InvalidFilename))
}
