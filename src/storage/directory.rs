//! A store in a directory of a local or mounted file system.
//!
//! Every access goes through the root's descriptor with `openat2(RESOLVE_BENEATH)`: a symbolic link inside the
//! directory that points outside it is refused by the kernel. Files are 0600, directories 0700; as root they are given
//! to the root directory's owner, so that a backup taken by root does not stop the archiver of user postgres.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Key, Listed, NewObject, Put, Storage, StorageError, StorageErrorKind, Suffix};
use crate::durable::{self, NewFile, Owner, Published};

/// A store in a directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    root: OwnedFd,
    owner: Option<Owner>,
    /// Folders whose path this process has made durable.
    folders: Mutex<HashSet<String>>,
}

impl Directory {
    /// Opens an existing directory.
    ///
    /// # Errors
    /// It is missing, not a directory, or not to be read by this user.
    pub fn open(path: &Path) -> Result<Directory, StorageError> {
        let open = || -> io::Result<Directory> {
            let root = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            Ok(Directory { path: path.to_owned(), root, owner: Owner::to_follow(path)?, folders: Mutex::default() })
        };
        open().map_err(|error| StorageError::new(describe(path), &Key::root(), "open", &error))
    }

    /// Where the directory is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn open_beneath(&self, key: &str, flags: OFlags) -> io::Result<File> {
        Ok(durable::open_beneath(&self.root, key, flags)?.into())
    }

    /// A folder to write into. The first time in this process, every step of its path is made durable: what stands
    /// in a directory that a crash can take away is not durable either.
    fn folder(&self, relative: &str) -> io::Result<OwnedFd> {
        if self.folders().contains(relative) {
            match self.open_beneath(relative, OFlags::RDONLY | OFlags::DIRECTORY) {
                // Swept away since, while it was empty.
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.path.is_dir() => {}
                other => return Ok(other?.into()),
            }
        }
        let folder = durable::directory_beneath(&self.root, relative, self.owner)?;
        self.folders().insert(relative.to_owned());
        Ok(folder)
    }

    fn folders(&self) -> MutexGuard<'_, HashSet<String>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_object(&self, action: &'static str, key: &Key) -> Result<(File, u64), StorageError> {
        let open = || -> io::Result<(File, u64)> {
            let file = self.open_beneath(key.as_str(), OFlags::RDONLY)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() {
                return Err(io::Error::other("not a regular file"));
            }
            Ok((file, metadata.len()))
        };
        open().map_err(|error| self.failed_object(action, key, &error))
    }

    /// Calls `each` with every entry of a folder that can be ours, and its kind as far as the directory itself says. A folder
    /// that is not there has none.
    fn each_entry(
        &self,
        folder: &Key,
        mut each: impl FnMut(&File, &str, FileType) -> io::Result<()>,
    ) -> Result<(), StorageError> {
        let mut read = || -> io::Result<()> {
            let directory = self.open_beneath(folder.as_str(), OFlags::RDONLY | OFlags::DIRECTORY)?;
            let mut is_empty = true;
            for entry in rustix::fs::Dir::read_from(&directory)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                // Anything that cannot be a key's part is not ours: temporary files, lost+found, .DS_Store.
                if Key::is_part(name) {
                    is_empty = false;
                    each(&directory, name, entry.file_type())?;
                }
            }
            if is_empty && !self.path.is_dir() {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(())
        };
        match read().map_err(|error| self.failed_object("list", folder, &error)) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// An error met on an object: "no such file" proves its absence only while the root itself is still there. A
    /// directory that was unmounted or removed under us has no files either.
    fn failed_object(&self, action: &'static str, key: &Key, error: &io::Error) -> StorageError {
        let mut failed = self.failed(action, key, error);
        if failed.is_not_found() && !self.path.is_dir() {
            failed.kind = StorageErrorKind::Unreachable;
            failed.reason = "the repository's directory is gone".to_owned();
        }
        failed
    }
}

/// Whether something was last changed longer than `age` ago.
fn is_older(metadata: &fs::Metadata, age: Duration) -> bool {
    metadata.modified().is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|passed| passed >= age))
}

fn sweep_below(path: &Path, age: Duration) -> io::Result<u64> {
    let mut removed = durable::sweep(path, age)?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name().to_str().is_some_and(Key::is_part) {
            // Looked at before anything below it goes, which would make it young again.
            let old = entry.metadata().is_ok_and(|metadata| is_older(&metadata, age));
            removed += sweep_below(&entry.path(), age)?;
            // Only an empty one goes. A writer that meets this makes it again.
            if old && fs::remove_dir(entry.path()).is_ok() {
                removed += 1;
            }
        }
    }
    Ok(removed)
}

/// Looks at an entry, through a link; `None` if it is gone.
fn stat(directory: &File, name: &str) -> io::Result<Option<rustix::fs::Stat>> {
    match rustix::fs::statat(directory, name, rustix::fs::AtFlags::empty()) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn describe(path: &Path) -> String {
    format!("directory \"{}\"", path.display())
}

/// A file being written in its own folder.
struct NewDirectoryObject {
    file: NewFile,
    name: String,
    storage: String,
    key: Key,
}

impl Write for NewDirectoryObject {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl NewObject for NewDirectoryObject {
    fn publish(self: Box<Self>) -> Result<Put, StorageError> {
        let NewDirectoryObject { file, name, storage, key } = *self;
        match file.publish(&name) {
            Ok(Published::Created) => Ok(Put::Created),
            Ok(Published::Exists) => Ok(Put::Exists),
            Err(error) => Err(StorageError::new(storage, &key, "write", &error)),
        }
    }
}

impl Storage for Directory {
    fn describe(&self) -> String {
        describe(&self.path)
    }

    fn create(&self, key: &Key) -> Result<Box<dyn NewObject>, StorageError> {
        let begin = || -> io::Result<NewDirectoryObject> {
            let (folder, name) = key.split().ok_or_else(|| io::Error::other("the root is not an object"))?;
            let file = NewFile::create_at(self.folder(folder)?, self.owner)?;
            Ok(NewDirectoryObject { file, name: name.to_owned(), storage: self.describe(), key: key.clone() })
        };
        match begin() {
            Ok(object) => Ok(Box::new(object)),
            Err(error) => {
                let mut failed = self.failed("write", key, &error);
                if failed.is_not_found() {
                    failed.kind = StorageErrorKind::Unreachable;
                }
                Err(failed)
            }
        }
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        let (mut file, size) = self.open_object("read", key)?;
        if size > limit_bytes {
            let mut failed = self.failed("read", key, &io::Error::other(format!("it has {size} bytes")));
            failed.kind = StorageErrorKind::TooLarge;
            return Err(failed);
        }
        let capacity = usize::try_from(size).unwrap_or(0);
        let mut bytes = Vec::with_capacity(capacity);
        file.read_to_end(&mut bytes).map_err(|error| self.failed_object("read", key, &error))?;
        Ok(bytes)
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        let (file, size) = self.open_object("read", key)?;
        if range.start > range.end || range.end > size {
            let reason = format!("it has {size} bytes, and bytes {} to {} were wanted", range.start, range.end);
            let mut failed = self.failed("read", key, &io::Error::other(reason));
            failed.kind = StorageErrorKind::TooShort;
            return Err(failed);
        }
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, range.start).map_err(|error| self.failed("read", key, &error))?;
        Ok(bytes)
    }

    fn get_suffix(&self, key: &Key, bytes: u64) -> Result<Suffix, StorageError> {
        let (file, size) = self.open_object("read", key)?;
        let wanted = bytes.min(size);
        let mut buffer = vec![0; usize::try_from(wanted).unwrap_or(usize::MAX)];
        file.read_exact_at(&mut buffer, size - wanted).map_err(|error| self.failed("read", key, &error))?;
        Ok(Suffix { bytes: buffer, size })
    }

    fn open(&self, key: &Key) -> Result<Box<dyn Read + Send>, StorageError> {
        Ok(Box::new(self.open_object("read", key)?.0))
    }

    fn size(&self, key: &Key) -> Result<Option<u64>, StorageError> {
        match self.open_object("look for", key) {
            Ok((_, size)) => Ok(Some(size)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list(&self, folder: &Key) -> Result<Vec<Listed>, StorageError> {
        let mut found = Vec::new();
        self.each_entry(folder, |directory, name, _| {
            if let Some(stat) = stat(directory, name)? {
                let kind = FileType::from_raw_mode(stat.st_mode);
                let size = if kind.is_file() { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
                if kind.is_file() || kind.is_dir() {
                    found.push(Listed { name: name.to_owned(), size, folder: kind.is_dir() });
                }
            }
            Ok(())
        })?;
        found.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(found)
    }

    fn names(&self, folder: &Key) -> Result<Vec<String>, StorageError> {
        let mut found = Vec::new();
        self.each_entry(folder, |directory, name, kind| {
            let is_file = match kind {
                FileType::RegularFile => true,
                FileType::Directory => false,
                // A link, or a file system that does not say.
                _ => stat(directory, name)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode).is_file()),
            };
            if is_file {
                found.push(name.to_owned());
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn settle(&self, key: &Key) -> Result<(), StorageError> {
        let settle = || -> io::Result<()> {
            durable::settle_open(&self.open_beneath(key.as_str(), OFlags::RDONLY)?)?;
            let (folder, _) = key.split().unwrap_or(("", ""));
            durable::settle_open(&self.open_beneath(folder, OFlags::RDONLY | OFlags::DIRECTORY)?)
        };
        settle().map_err(|error| self.failed_object("sync", key, &error))
    }

    fn sweep(&self, age: Duration) -> Result<u64, StorageError> {
        sweep_below(&self.path, age).map_err(|error| self.failed("sweep up in", &Key::root(), &error))
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        let delete = || -> io::Result<()> {
            let (folder, name) = key.split().ok_or_else(|| io::Error::other("the root is not an object"))?;
            durable::remove_in(self.open_beneath(folder, OFlags::RDONLY | OFlags::DIRECTORY)?, name)
        };
        match delete().map_err(|error| self.failed_object("delete", key, &error)) {
            Err(error) if error.is_not_found() => Ok(()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The directory behaves like every other store.
    #[test]
    fn conforms() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let storage = Directory::open(directory.path()).unwrap();
        super::super::conformance::run(&storage);
    }

    /// A link out of the repository is not followed, and what is not ours is neither listed nor touched.
    #[test]
    fn foreign_entries() {
        let outside = tempfile::tempdir().expect("temporary directory");
        fs::write(outside.path().join("secret"), b"s").unwrap();
        let directory = tempfile::tempdir().expect("temporary directory");
        std::os::unix::fs::symlink(outside.path(), directory.path().join("link")).unwrap();
        fs::create_dir(directory.path().join("lost+found")).unwrap();
        fs::write(directory.path().join(".DS_Store"), b"").unwrap();
        let storage = Directory::open(directory.path()).unwrap();
        let key = Key::parse("link/secret").unwrap();
        assert!(storage.get(&key, 10).is_err_and(|error| !error.is_not_found()));
        let names: Vec<_> = storage.list(&Key::root()).unwrap().into_iter().map(|listed| listed.name).collect();
        assert_eq!(names, ["link"]);
    }

    /// What killed writers left is swept up, empty folders too, and a writer that had used such a folder makes it again.
    #[test]
    fn sweeping() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let storage = Directory::open(directory.path()).unwrap();
        let [a, b] = ["x/y/a", "x/b"].map(|key| Key::parse(key).unwrap());
        storage.put(&a, b"1").unwrap();
        storage.put(&b, b"1").unwrap();
        fs::create_dir(directory.path().join("lost+found")).unwrap();
        storage.delete(&a).unwrap();
        assert_eq!(storage.sweep(Duration::from_secs(3600)).unwrap(), 0);
        assert_eq!(storage.sweep(Duration::ZERO).unwrap(), 1);
        assert!(!directory.path().join("x/y").exists() && directory.path().join("lost+found").exists());
        assert_eq!(storage.get(&b, 1).unwrap(), b"1");
        assert_eq!(storage.put(&a, b"2").unwrap(), Put::Created);
    }

    /// A repository that is unmounted or removed while in use is "cannot tell", never "not there".
    #[test]
    fn vanished_root() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path().join("r");
        fs::create_dir(&root).unwrap();
        let storage = Directory::open(&root).unwrap();
        fs::remove_dir(&root).unwrap();
        let key = Key::parse("a").unwrap();
        assert!(storage.size(&key).is_err_and(|error| error.kind == StorageErrorKind::Unreachable));
        assert!(storage.list(&Key::root()).is_err());
        assert!(storage.put(&key, b"x").is_err());
    }
}
