//! `NewFile`: a file that nobody sees before it is whole.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::Owner;

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

/// A file being written that nobody can see yet. Dropped, it is gone.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    directory: OwnedFd,
    /// The temporary name, where the file system has no nameless files.
    temporary: Option<String>,
}

impl NewFile {
    /// Begins a file that will stand in `directory`, with mode 0600.
    ///
    /// # Errors
    /// The directory is missing or not writable, or the disk is full.
    pub fn create_in(directory: &Path, owner: Option<Owner>) -> io::Result<NewFile> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        NewFile::create_at(rustix::fs::open(directory, flags, Mode::empty())?, owner)
    }

    /// The same in a directory that is open already, whatever stands under its name by now.
    ///
    /// # Errors
    /// As for [`NewFile::create_in`].
    pub fn create_at(directory: OwnedFd, owner: Option<Owner>) -> io::Result<NewFile> {
        let mode = Mode::RUSR | Mode::WUSR;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let new = match rustix::fs::openat(&directory, ".", flags, mode) {
            Ok(file) => NewFile { file: file.into(), directory, temporary: None },
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => NewFile::create_named(directory, mode)?,
            Err(error) => return Err(error.into()),
        };
        if let Some(owner) = owner {
            owner.give(&new.file)?;
        }
        Ok(new)
    }

    pub(super) fn create_named(directory: OwnedFd, mode: Mode) -> io::Result<NewFile> {
        let name = temporary_name()?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, &name, flags, mode)?;
        Ok(NewFile { file: file.into(), directory, temporary: Some(name) })
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
        let outcome = match &self.temporary {
            None => self.link_nameless(name),
            Some(temporary) => rename_if_absent(&self.directory, temporary, name),
        };
        match outcome {
            Ok(()) => {
                self.temporary = None;
                rustix::fs::fsync(&self.directory)?;
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
        let temporary = match self.temporary.clone() {
            Some(temporary) => temporary,
            None => {
                let temporary = temporary_name()?;
                self.link_nameless(&temporary)?;
                temporary
            }
        };
        self.temporary = Some(temporary.clone());
        rustix::fs::renameat(&self.directory, temporary, &self.directory, name)?;
        self.temporary = None;
        Ok(rustix::fs::fsync(&self.directory)?)
    }

    /// Gives the file its name in place of whatever stood there, without making it durable: for a file whose reader syncs it
    /// before it counts, and for what may be lost at any time. Other processes see the whole file or none.
    ///
    /// # Errors
    /// What stood there cannot be removed, or the name not be given.
    pub fn hand_over(mut self, name: impl rustix::path::Arg + Copy) -> io::Result<()> {
        if let Some(temporary) = &self.temporary {
            rustix::fs::renameat(&self.directory, temporary, &self.directory, name)?;
            self.temporary = None;
            return Ok(());
        }
        // Unlinking first, and not a second name that is renamed over the first, leaves no litter if the process is killed.
        loop {
            match self.link_nameless(name) {
                Err(Errno::EXIST) => match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
                    Err(error) if error != Errno::NOENT => return Err(error.into()),
                    _ => {}
                },
                other => return Ok(other?),
            }
        }
    }

    /// Links a nameless file under a name; `EEXIST` if that is taken.
    fn link_nameless(&self, name: impl rustix::path::Arg) -> Result<(), Errno> {
        // AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH; the way through /proc is open to everybody (open(2), O_TMPFILE).
        let source = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        rustix::fs::linkat(CWD, source, &self.directory, name, AtFlags::SYMLINK_FOLLOW)
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
            let _ = rustix::fs::unlinkat(&self.directory, temporary, AtFlags::empty());
        }
    }
}

/// Renames a temporary file if the name is free; without `renameat2` (NFS), by link and unlink.
fn rename_if_absent(directory: &OwnedFd, temporary: &str, name: &str) -> Result<(), Errno> {
    match rustix::fs::renameat_with(directory, temporary, directory, name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            match rustix::fs::linkat(directory, temporary, directory, name, AtFlags::empty()) {
                // NFS may lose the answer of a link that was made; two names for one file prove that it was.
                Err(Errno::EXIST) if same_file(directory, temporary, name) => {}
                other => other?,
            }
            rustix::fs::unlinkat(directory, temporary, AtFlags::empty())
        }
        other => other,
    }
}

fn same_file(directory: &OwnedFd, one: &str, other: &str) -> bool {
    let look = |name: &str| rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
    match (look(one), look(other)) {
        (Ok(one), Ok(other)) => one.st_ino == other.st_ino && one.st_dev == other.st_dev,
        _ => false,
    }
}

fn temporary_name() -> io::Result<String> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random)?;
    Ok(format!("{TEMPORARY_PREFIX}{}-{:016x}", std::process::id(), u64::from_le_bytes(random)))
}
