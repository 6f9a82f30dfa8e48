//! One directory that is written into, and never out of.
//!
//! Names come from the backup's manifest, which is foreign input, and the directory may hold anything when it is written
//! over. Every name is resolved by `openat2` below the directory, and a symbolic link on the way is refused: no name can
//! lead elsewhere, whatever lies there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::PgDataError;
use crate::durable::Owner;

/// An open directory, with the owner that everything new in it gets.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    directory: File,
    owner: Option<Owner>,
}

/// A file opened for writing, and how long it was before.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) length: u64,
}

impl Root {
    /// Opens a directory that exists.
    pub(super) fn open(path: &Path, owner: Option<Owner>) -> Result<Root, PgDataError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(path, flags, Mode::empty());
        let directory = opened.map_err(|error| PgDataError::io("open directory", path)(error.into()))?;
        let root = Root { path: path.to_owned(), directory: directory.into(), owner };
        root.give(&root.directory).map_err(PgDataError::io("change owner of", path))?;
        Ok(root)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn directory(&self) -> &File {
        &self.directory
    }

    /// Keeps others out as long as the directory is open: of two restores into one directory the second is refused.
    pub(super) fn lock(&self) -> Result<(), PgDataError> {
        match rustix::fs::flock(&self.directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(PgDataError::Busy { path: self.path.clone() }),
            Err(error) => Err(PgDataError::io("lock", &self.path)(error.into())),
        }
    }

    /// Sets the directory's own permission bits.
    pub(super) fn set_mode(&self, mode: u32) -> Result<(), PgDataError> {
        let changed = rustix::fs::fchmod(&self.directory, bits(mode));
        changed.map_err(|error| PgDataError::io("change mode of", &self.path)(error.into()))
    }

    /// Makes a directory, or takes one that is there. What else stands there is removed first.
    pub(super) fn make_directory(&self, path: &Path, mode: u32) -> Result<(), PgDataError> {
        let failed = |error: Errno| PgDataError::io("create directory", &self.path.join(path))(error.into());
        let (parent, name) = self.parent(path).map_err(failed)?;
        match rustix::fs::mkdirat(&parent, name, bits(mode)) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.kind(path).map_err(failed)? == Some(FileType::Directory) => {}
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&parent, name, AtFlags::empty()).map_err(failed)?;
                rustix::fs::mkdirat(&parent, name, bits(mode)).map_err(failed)?;
            }
            Err(error) => return Err(failed(error)),
        }
        let made = self.beneath(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).map_err(failed)?;
        rustix::fs::fchmod(&made, bits(mode)).map_err(failed)?;
        self.give(&made).map_err(PgDataError::io("change owner of", &self.path.join(path)))
    }

    /// Makes a symbolic link. What stands there is removed first; what an older link led to is not touched.
    pub(super) fn make_link(&self, path: &Path, target: &Path) -> Result<(), PgDataError> {
        let failed = |error: Errno| PgDataError::io("create link", &self.path.join(path))(error.into());
        let (parent, name) = self.parent(path).map_err(failed)?;
        self.clear(path)?;
        rustix::fs::symlinkat(target, &parent, name).map_err(failed)?;
        if let Some(Owner { user, group }) = self.owner {
            let (user, group) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
            rustix::fs::chownat(&parent, name, user, group, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        Ok(())
    }

    /// Opens a file for writing, new or, with `keep`, with what it holds.
    ///
    /// A file that has another name besides is replaced by one of its own: the other name may be a copy that somebody keeps.
    pub(super) fn open_file(&self, path: &Path, mode: u32, keep: bool) -> Result<Opened, PgDataError> {
        let failed = |error: Errno| PgDataError::io("create", &self.path.join(path))(error.into());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NONBLOCK;
        let length = if keep { self.reusable(path)? } else { None };
        if keep && length.is_none() {
            self.clear(path)?;
        }
        let flags = if length.is_some() { flags } else { flags | OFlags::TRUNC };
        let file: File = self.beneath(path, flags, bits(mode)).map_err(failed)?.into();
        // The umask may have taken bits away, and an older file may have others.
        rustix::fs::fchmod(&file, bits(mode)).map_err(failed)?;
        self.give(&file).map_err(PgDataError::io("change owner of", &self.path.join(path)))?;
        Ok(Opened { file, length: length.unwrap_or(0) })
    }

    /// The length of a regular file that nothing else refers to.
    fn reusable(&self, path: &Path) -> Result<Option<u64>, PgDataError> {
        match self.beneath(path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(found) => {
                let metadata = File::from(found).metadata();
                let metadata = metadata.map_err(PgDataError::io("look at", &self.path.join(path)))?;
                Ok((metadata.is_file() && metadata.nlink() == 1).then_some(metadata.len()))
            }
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP) => Ok(None),
            Err(error) => Err(PgDataError::io("look at", &self.path.join(path))(error.into())),
        }
    }

    /// Removes whatever stands under a name: a file, a link (not what it leads to), a directory with all that is in it.
    pub(super) fn clear(&self, path: &Path) -> Result<(), PgDataError> {
        let full = self.path.join(path);
        let failed = |error: Errno| PgDataError::io("remove", &full)(error.into());
        let (parent, name) = self.parent(path).map_err(failed)?;
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // The standard library's removal does not follow links either.
            Err(Errno::ISDIR | Errno::PERM) => fs::remove_dir_all(&full).map_err(PgDataError::io("remove", &full)),
            Err(error) => Err(failed(error)),
        }
    }

    fn kind(&self, path: &Path) -> Result<Option<FileType>, Errno> {
        let (parent, name) = self.parent(path)?;
        match rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The directory that a name stands in, and the name's last part.
    fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok((self.beneath(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?, name))
    }

    fn beneath(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(&self.directory, path, flags | OFlags::CLOEXEC, mode, resolve) {
                // A rename elsewhere in the file system disturbed the lookup; it does not last.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    fn give(&self, file: impl std::os::fd::AsFd) -> io::Result<()> {
        let Some(Owner { user, group }) = self.owner else { return Ok(()) };
        Ok(rustix::fs::fchown(file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))?)
    }
}

/// Permission bits of a file of PostgreSQL's: owner and group, nothing else.
fn bits(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o777)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;

    /// A link planted in the directory leads no write out of it, neither as a file nor on the way to one.
    #[test]
    fn links_lead_nowhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data, outside) = (dir.path().join("data"), dir.path().join("outside"));
        fs::create_dir(&data).expect("made");
        fs::create_dir(&outside).expect("made");
        fs::write(outside.join("precious"), "kept").expect("written");
        symlink(&outside, data.join("base")).expect("linked");
        symlink(outside.join("precious"), data.join("file")).expect("linked");
        fs::hard_link(outside.join("precious"), data.join("twin")).expect("linked");
        let root = Root::open(&data, None).expect("opens");

        assert!(root.open_file(Path::new("base/x"), 0o600, false).is_err());
        assert!(root.open_file(Path::new("../outside/x"), 0o600, false).is_err());
        assert!(root.open_file(Path::new("/etc/x"), 0o600, false).is_err());
        assert!(root.open_file(Path::new("file"), 0o600, false).is_err());
        for name in ["file", "twin"] {
            let mut opened = root.open_file(Path::new(name), 0o600, true).expect("replaced");
            assert_eq!(opened.length, 0);
            opened.file.write_all(b"new").expect("written");
        }
        root.make_directory(Path::new("base"), 0o700).expect("replaced");
        root.open_file(Path::new("base/x"), 0o640, false).expect("inside");
        assert_eq!(fs::read(outside.join("precious")).expect("there"), b"kept");
        assert_eq!(fs::read_dir(&outside).expect("there").count(), 1);
        assert_eq!(fs::metadata(data.join("base/x")).expect("there").mode() & 0o7777, 0o640);
    }

    /// Of two restores into one directory the second is refused, and the lock ends with its holder.
    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let (first, second) = [(); 2].map(|()| Root::open(dir.path(), None).expect("opens")).into();
        first.lock().expect("free");
        assert!(matches!(second.lock(), Err(PgDataError::Busy { .. })));
        drop(first);
        second.lock().expect("free again");
    }

    /// Clearing a name takes the link and not what it leads to, and whole directories.
    #[test]
    fn clearing() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data, outside) = (dir.path().join("data"), dir.path().join("outside"));
        fs::create_dir_all(data.join("deep/er")).expect("made");
        fs::create_dir(&outside).expect("made");
        fs::write(outside.join("precious"), "kept").expect("written");
        symlink(&outside, data.join("deep/link")).expect("linked");
        let root = Root::open(&data, None).expect("opens");
        root.make_link(Path::new("deep/er"), &outside).expect("replaced");
        root.clear(Path::new("deep")).expect("cleared");
        root.clear(Path::new("deep")).expect("nothing there is success");
        assert!(outside.join("precious").exists() && !data.join("deep").exists());
    }
}
