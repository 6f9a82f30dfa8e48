//! Durability on a file system: the one place that makes files appear whole and stay.
//!
//! Layer 3. A file is written without a name (`O_TMPFILE`), synced, then given its name in one step, and the
//! directory is synced: a process killed at any instruction leaves either the whole file or nothing at all, not even
//! a temporary one. Where the file system has no `O_TMPFILE` (NFS, some overlays), a named temporary file takes its
//! place; those start with [`TEMPORARY_PREFIX`], are never taken for anything else, and [`sweep`] removes old ones.
//!
//! After a failed fsync the kernel may have marked the lost pages clean, so a descriptor is never synced twice:
//! every failure here throws the file away, and the caller writes it anew.

mod new_file;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::path::Arg;

pub use new_file::{NewFile, Published, TEMPORARY_PREFIX};

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

/// Moves a whole file of a directory to a path, in place of what is there, without making it durable ([`NewFile::hand_over`]).
/// To another file system it is copied, and other processes still see the whole file or none. False if there is no such file, or it
/// has another size.
///
/// # Errors
/// It cannot be read, or not be written there.
pub fn hand_over(directory: impl AsFd, name: &str, bytes: u64, target: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file: File = match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(false),
        opened => opened?.into(),
    };
    let found = file.metadata()?;
    if !found.is_file() || found.len() != bytes || found.uid() != rustix::process::geteuid().as_raw() {
        return Ok(false);
    }
    match rustix::fs::renameat(&directory, name, rustix::fs::CWD, target) {
        Err(Errno::XDEV) => {}
        // Somebody else was quicker.
        Err(Errno::NOENT) if rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).is_err() => {
            return Ok(false);
        }
        other => return Ok(other.map(|()| true)?),
    }
    let beside = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = NewFile::create_in(beside, Owner::to_follow(beside)?)?;
    if io::copy(&mut file, new.file())? != bytes {
        return Ok(false);
    }
    new.hand_over(target.file_name().unwrap_or_default())?;
    let _ = rustix::fs::unlinkat(&directory, name, AtFlags::empty());
    Ok(true)
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

/// Makes everything durable that was written to the file system that an open file or directory lies on.
///
/// For thousands of new files it is one pass where an fsync each would wait for as many journal commits. The descriptor must
/// have been opened before the writing began: errors since then are reported (Linux 5.8 and later).
///
/// # Errors
/// Something could not be written.
pub fn sync_file_system(opened: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(opened)?)
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

/// Opens what stands under a relative path, wherever symbolic links on the way lead as long as that is beneath `root`:
/// the kernel refuses any that lead out of it. The empty path is `root` itself.
///
/// # Errors
/// As for opening any file; `EXDEV` if a link leads out.
pub fn open_beneath(root: &OwnedFd, relative: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC;
    let relative = if relative.is_empty() { "." } else { relative };
    match rustix::fs::openat2(root, relative, flags, Mode::empty(), ResolveFlags::BENEATH) {
        // Before Linux 5.6, or under a seccomp filter that does not know the call: at least the last part may not be a
        // link.
        Err(Errno::NOSYS | Errno::PERM) => {
            Ok(rustix::fs::openat(root, relative, flags | OFlags::NOFOLLOW, Mode::empty())?)
        }
        other => Ok(other?),
    }
}

/// Opens a directory beneath `root`, making what is missing of it with mode 0700, and makes every step of the path
/// durable: whoever made one may have been killed before doing so.
///
/// # Errors
/// A part is not a directory or leads out of `root`, the disk is full, or it takes no writes.
pub fn directory_beneath(root: &OwnedFd, relative: &str, owner: Option<Owner>) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY;
    let mut parent = open_beneath(root, "", flags)?;
    let ends = relative.match_indices('/').map(|(at, _)| at).chain([relative.len()]);
    for end in ends.filter(|end| *end > 0) {
        let part = relative[..end].rsplit('/').next().unwrap_or_default();
        let child = match open_beneath(root, &relative[..end], flags) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match rustix::fs::mkdirat(&parent, part, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let child = open_beneath(root, &relative[..end], flags)?;
                if let Some(owner) = owner {
                    owner.give(&child)?;
                }
                child
            }
            other => other?,
        };
        rustix::fs::fsync(&parent)?;
        parent = child;
    }
    Ok(parent)
}

/// Removes a file and makes its absence durable; a file that is not there is success.
///
/// # Errors
/// The file cannot be removed or the directory not synced.
pub fn remove(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    match File::open(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))) {
        Ok(directory) => remove_in(directory, name),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The same in a directory that is open already.
///
/// # Errors
/// The file cannot be removed or the directory not synced.
pub fn remove_in(directory: impl AsFd, name: impl Arg) -> io::Result<()> {
    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) => Ok(rustix::fs::fsync(&directory)?),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
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
        let mut named = NewFile::create_named(File::open(path).unwrap().into(), Mode::RUSR | Mode::WUSR).unwrap();
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
        drop(NewFile::create_named(File::open(&deep).unwrap().into(), Mode::RUSR).unwrap());
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
    }

    /// Directories are made beneath the root only, whatever links lie on the way.
    #[test]
    fn beneath() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let outside = tempfile::tempdir().expect("temporary directory");
        let root: OwnedFd = File::open(directory.path()).unwrap().into();
        let deep = directory_beneath(&root, "a/b", None).unwrap();
        NewFile::create_at(deep, None).unwrap().publish("f").unwrap();
        assert!(directory.path().join("a/b/f").exists());
        std::os::unix::fs::symlink(outside.path(), directory.path().join("out")).unwrap();
        assert!(directory_beneath(&root, "out/c", None).is_err());
        assert!(!outside.path().join("c").exists());
        std::os::unix::fs::symlink("a", directory.path().join("in")).unwrap();
        directory_beneath(&root, "in/b", None).unwrap();
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
