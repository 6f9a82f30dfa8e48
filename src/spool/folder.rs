//! `Folder`: a directory of the spool that nobody else can write to or read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};

use crate::durable::{self, NewFile};

/// A directory, open.
#[derive(Debug)]
pub(super) struct Folder {
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    /// Opens a directory that is there, and fit to be trusted: 0700, and this user's.
    pub(super) fn open(path: &Path) -> io::Result<Folder> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        let private = stat.st_mode & 0o077 == 0 && stat.st_uid == rustix::process::geteuid().as_raw();
        if !private {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the spool is open to other users"));
        }
        Ok(Folder { fd, path: path.to_owned() })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether something has this name.
    pub(super) fn has(&self, name: &str) -> bool {
        rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Bytes of a file of this user; `None` if there is none of this name.
    pub(super) fn size(&self, name: &str) -> Option<u64> {
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let own = stat.st_uid == rustix::process::geteuid().as_raw();
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        (own && regular).then(|| u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// The names of what is there.
    pub(super) fn names(&self) -> Vec<String> {
        let Ok(entries) = rustix::fs::Dir::read_from(&self.fd) else { return Vec::new() };
        let names = entries.flatten().filter_map(|entry| entry.file_name().to_str().ok().map(str::to_owned));
        names.filter(|name| name != "." && name != "..").collect()
    }

    /// Puts a file in place of whatever has the name. Whoever reads it sees all of it or nothing.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut new = NewFile::create_at(self.fd.try_clone()?, None)?;
        new.write_all(bytes)?;
        new.hand_over(name)
    }

    /// The same, and it is still there after the machine has crashed.
    pub(super) fn write_durable(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut new = NewFile::create_at(self.fd.try_clone()?, None)?;
        new.write_all(bytes)?;
        new.replace(name)
    }

    /// Adds to the end of a file, in one piece: what two processes add at the same time does not mix.
    pub(super) fn append(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file: File = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?.into();
        let written = file.write(bytes)?;
        if written == bytes.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
    }

    /// A file, cut to so many bytes, and its age; no age if its time lies in the future.
    pub(super) fn read(&self, name: &str, limit_bytes: u64) -> io::Result<(Vec<u8>, Option<Duration>)> {
        let file = self.open_file(name)?;
        let age = SystemTime::now().duration_since(file.metadata()?.modified()?).ok();
        let mut note = Vec::new();
        file.take(limit_bytes).read_to_end(&mut note)?;
        Ok((note, age))
    }

    /// Opens a file of this user for reading.
    pub(super) fn open_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: File = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?.into();
        let stat = rustix::fs::fstat(&file)?;
        let own = stat.st_uid == rustix::process::geteuid().as_raw();
        if !own || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a file of this user"));
        }
        Ok(file)
    }

    /// Moves a whole file of this user to where it is wanted; false if there is none of that size.
    pub(super) fn hand_over(&self, name: &str, bytes: u64, target: &Path) -> io::Result<bool> {
        durable::hand_over(&self.fd, name, bytes, target)
    }

    pub(super) fn remove(&self, name: &str) {
        // What stays is not used again: it is bound to what it was written for, and ages.
        let _ = rustix::fs::unlinkat(&self.fd, name, AtFlags::empty());
    }

    /// Takes the lock of a name for as long as the descriptor is open; `None` if another process has it.
    pub(super) fn lock(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        self.try_lock(name, FlockOperation::NonBlockingLockExclusive)
    }

    /// Another process has the lock of a name.
    pub(super) fn is_locked(&self, name: &str) -> bool {
        self.try_lock(name, FlockOperation::NonBlockingLockShared).is_ok_and(|lock| lock.is_none())
    }

    fn try_lock(&self, name: &str, how: FlockOperation) -> io::Result<Option<OwnedFd>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?;
        match rustix::fs::flock(&file, how) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
