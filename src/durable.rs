//! Durability on a file system: the one place that makes files appear whole and stay.
//!
//! Layer 3. A file is written without a name (`O_TMPFILE`), synced, then given its name in one step, and the
//! directory is synced: a process killed at any instruction leaves either the whole file or nothing at all, not even
//! a temporary one. Where the file system has no `O_TMPFILE` (NFS, some overlays), a named temporary file takes its
//! place; those start with [`TEMPORARY_PREFIX`], are never taken for anything else, and [`sweep`] removes old ones.
//!
//! After a failed fsync the kernel may have marked the lost pages clean, so a descriptor is never synced twice:
//! every failure here throws the file away, and the caller writes it anew.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// How names of temporary files begin where the file system cannot do without one.
pub const TEMPORARY_PREFIX: &str = ".pitr-tmp-";

/// Whether a name was free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Published {
    /// The file now stands under the name, durable.
    Created,
    /// Something stood there already, and was not touched.
    Exists,
}

/// User and group that new files and directories are given.
///
/// A repository that root writes to belongs to the server's user all the same, or the archiver could not go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// Numeric user id.
    pub user: u32,
    /// Numeric group id.
    pub group: u32,
}

impl Owner {
    /// The owner of an existing file or directory, if this process is root and that owner is somebody else.
    ///
    /// # Errors
    /// The file cannot be looked at.
    pub fn to_follow(path: &Path) -> io::Result<Option<Owner>> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let metadata = fs::metadata(path)?;
        Ok((metadata.uid() != 0).then_some(Owner { user: metadata.uid(), group: metadata.gid() }))
    }

    fn give(self, file: impl AsFd) -> io::Result<()> {
        let user = rustix::fs::Uid::from_raw(self.user);
        let group = rustix::fs::Gid::from_raw(self.group);
        Ok(rustix::fs::fchown(file, Some(user), Some(group))?)
    }
}

/// A file being written that nobody can see yet. Dropped, it is gone.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    directory: PathBuf,
    /// The temporary name, where the file system has no nameless files.
    temporary: Option<PathBuf>,
}

impl NewFile {
    /// Begins a file that will stand in `directory`, with mode 0600.
    ///
    /// # Errors
    /// The directory is missing or not writable, or the disk is full.
    pub fn create_in(directory: &Path, owner: Option<Owner>) -> io::Result<NewFile> {
        let mode = Mode::RUSR | Mode::WUSR;
        let nameless = rustix::fs::open(directory, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC, mode);
        let new = match nameless {
            Ok(file) => NewFile { file: file.into(), directory: directory.to_owned(), temporary: None },
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => NewFile::create_named(directory, mode)?,
            Err(error) => return Err(error.into()),
        };
        if let Some(owner) = owner {
            owner.give(&new.file)?;
        }
        Ok(new)
    }

    fn create_named(directory: &Path, mode: Mode) -> io::Result<NewFile> {
        let path = directory.join(temporary_name()?);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(&path, flags, mode)?;
        Ok(NewFile { file: file.into(), directory: directory.to_owned(), temporary: Some(path) })
    }

    /// The open file, for writing in place or reading back before it is published.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Gives the file its name if that is free; durable when this returns.
    ///
    /// # Errors
    /// Syncing, linking or syncing the directory failed; nothing stands under the name then, or the whole file does.
    pub fn publish(mut self, name: &str) -> io::Result<Published> {
        self.file.sync_all()?;
        let target = self.directory.join(name);
        let outcome = match &self.temporary {
            None => link_nameless(&self.file, &target),
            Some(temporary) => rename_if_absent(temporary, &target),
        };
        match outcome {
            Ok(()) => {
                self.temporary = None;
                sync_directory(&self.directory)?;
                Ok(Published::Created)
            }
            Err(Errno::EXIST) => Ok(Published::Exists),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the file its name in place of whatever stood there; durable when this returns.
    ///
    /// # Errors
    /// As for [`NewFile::publish`]; what stood there before still does then, or the whole new file.
    pub fn replace(mut self, name: &str) -> io::Result<()> {
        self.file.sync_all()?;
        let target = self.directory.join(name);
        let temporary = match self.temporary.take() {
            Some(temporary) => temporary,
            None => {
                let temporary = self.directory.join(temporary_name()?);
                link_nameless(&self.file, &temporary)?;
                temporary
            }
        };
        self.temporary = Some(temporary.clone());
        fs::rename(&temporary, &target)?;
        self.temporary = None;
        sync_directory(&self.directory)
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // Nothing depends on it: a temporary file that stays is ignored, and swept a day later.
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Writes a whole file under a name that must be free.
///
/// # Errors
/// As for [`NewFile::publish`].
pub fn publish(directory: &Path, name: &str, bytes: &[u8], owner: Option<Owner>) -> io::Result<Published> {
    let mut new = NewFile::create_in(directory, owner)?;
    new.write_all(bytes)?;
    new.publish(name)
}

/// Writes a whole file in place of whatever stands under the name.
///
/// # Errors
/// As for [`NewFile::replace`].
pub fn replace(directory: &Path, name: &str, bytes: &[u8], owner: Option<Owner>) -> io::Result<()> {
    let mut new = NewFile::create_in(directory, owner)?;
    new.write_all(bytes)?;
    new.replace(name)
}

/// Makes a file that another process published durable: it may have died between giving the name and syncing.
///
/// # Errors
/// The file or its directory cannot be opened or synced.
pub fn settle(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()?;
    sync_directory(path.parent().unwrap_or(Path::new("/")))
}

/// Makes a file or a directory durable that is open already: for what must not be looked up by its path again.
///
/// # Errors
/// It cannot be synced.
pub fn settle_open(opened: &File) -> io::Result<()> {
    opened.sync_all()
}

/// Makes the directory's entries durable.
///
/// # Errors
/// The directory cannot be opened or synced.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes a directory with its missing parents, mode 0700, each durable in its own parent.
///
/// # Errors
/// A parent is not a directory or not writable, or the disk is full.
pub fn create_directories(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {
            if let Some(owner) = owner {
                owner.give(File::open(path)?)?;
            }
            sync_directory(path.parent().unwrap_or(Path::new("/")))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).ok_or(error)?;
            create_directories(parent, owner)?;
            create_directories(path, owner)
        }
        // Another process may have made it this moment and not synced it yet; whoever needs it synced must see to it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            sync_directory(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
        }
        Err(error) => Err(error),
    }
}

/// Removes a file and makes its absence durable; a file that is not there is success.
///
/// # Errors
/// The file cannot be removed or the directory not synced.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_directory(path.parent().unwrap_or(Path::new("/"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes named temporary files older than `age` from one directory; returns how many.
///
/// # Errors
/// The directory cannot be read.
pub fn sweep(directory: &Path, age: Duration) -> io::Result<u64> {
    let mut removed = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(TEMPORARY_PREFIX));
        let old = || {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|passed| passed >= age))
        };
        if ours && old() && fs::remove_file(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Links a nameless file under `target`; `EEXIST` if the name is taken.
fn link_nameless(file: &File, target: &Path) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    // AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH; the way through /proc is open to everybody (open(2), O_TMPFILE).
    let source = format!("/proc/self/fd/{}", file.as_raw_fd());
    rustix::fs::linkat(CWD, source, CWD, target, AtFlags::SYMLINK_FOLLOW)
}

/// Renames a temporary file if the target is free; without `renameat2` (NFS), by link and unlink.
fn rename_if_absent(temporary: &Path, target: &Path) -> Result<(), Errno> {
    match rustix::fs::renameat_with(CWD, temporary, CWD, target, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            match rustix::fs::link(temporary, target) {
                // NFS may lose the answer of a link that was made; two names for one file prove that it was.
                Err(Errno::EXIST) if same_file(temporary, target) => {}
                other => other?,
            }
            rustix::fs::unlink(temporary)
        }
        other => other,
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::symlink_metadata(one), fs::symlink_metadata(other)) {
        (Ok(one), Ok(other)) => one.ino() == other.ino() && one.dev() == other.dev(),
        _ => false,
    }
}

fn temporary_name() -> io::Result<String> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random)?;
    Ok(format!("{TEMPORARY_PREFIX}{}-{:016x}", std::process::id(), u64::from_le_bytes(random)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A taken name is never touched, by either way of publishing.
    #[test]
    fn never_overwrites() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path();
        assert_eq!(publish(path, "a", b"first", None).unwrap(), Published::Created);
        assert_eq!(publish(path, "a", b"second", None).unwrap(), Published::Exists);
        let mut named = NewFile::create_named(path, Mode::RUSR | Mode::WUSR).unwrap();
        named.write_all(b"third").unwrap();
        assert_eq!(named.publish("a").unwrap(), Published::Exists);
        assert_eq!(fs::read(path.join("a")).unwrap(), b"first");
        assert_eq!(fs::read_dir(path).unwrap().count(), 1, "no temporary file stays");
    }

    /// Files are 0600 and directories 0700 whatever the umask; what is dropped leaves nothing.
    #[test]
    fn modes_and_litter() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let deep = directory.path().join("a/b/c");
        create_directories(&deep, None).unwrap();
        create_directories(&deep, None).unwrap();
        assert_eq!(fs::metadata(&deep).unwrap().permissions().mode() & 0o777, 0o700);
        replace(&deep, "f", b"1", None).unwrap();
        replace(&deep, "f", b"2", None).unwrap();
        assert_eq!(fs::read(deep.join("f")).unwrap(), b"2");
        assert_eq!(fs::metadata(deep.join("f")).unwrap().permissions().mode() & 0o777, 0o600);
        drop(NewFile::create_in(&deep, None).unwrap());
        drop(NewFile::create_named(&deep, Mode::RUSR).unwrap());
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
    }

    /// Only our own old temporary files are swept.
    #[test]
    fn sweeping() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path();
        fs::write(path.join(format!("{TEMPORARY_PREFIX}1-2")), b"").unwrap();
        fs::write(path.join("keep"), b"").unwrap();
        assert_eq!(sweep(path, Duration::from_secs(3600)).unwrap(), 0);
        assert_eq!(sweep(path, Duration::ZERO).unwrap(), 1);
        assert!(path.join("keep").exists());
    }
}
