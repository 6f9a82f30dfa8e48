//! Where a repository may lie, and whose its directory must be.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::durable::{self, Owner};
use crate::storage::{S3, S3Settings, Storage, StorageError};

/// Why a directory cannot be a repository.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Inside a data directory, a tablespace or a `pg_wal`.
    #[error("repository \"{}\" cannot lie inside the {what} \"{}\"", path.display(), inside.display())]
    Inside {
        /// The repository.
        path: PathBuf,
        /// The server's directory.
        inside: PathBuf,
        /// What that is.
        what: &'static str,
    },
    /// A server that lets a second writer overwrite an object, though it was told that it would not.
    #[error("{storage} ignores the condition that keeps a second writer from overwriting an object")]
    Overwrites {
        /// The bucket.
        storage: String,
    },
    /// What that server does could not be found out.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// It could not be made or looked at.
    #[error("could not {action} directory \"{}\": {source}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Refuses a repository inside a server's own directories: every base backup would copy it, and what destroys the
/// server would destroy it too. Looks at the directories above, so it needs no right on the server and finds other
/// servers' directories as well.
///
/// # Errors
/// [`PlaceError::Inside`].
pub(super) fn refuse_inside_server(path: &Path) -> Result<(), PlaceError> {
    let real = nearest_existing(path);
    for directory in real.ancestors() {
        if let Some(what) = servers_directory(directory) {
            return Err(PlaceError::Inside { path: path.to_owned(), inside: directory.to_owned(), what });
        }
    }
    Ok(())
}

/// Refuses a bucket whose server silently overwrites objects, unless the configuration says that this is known.
///
/// # Errors
/// [`PlaceError::Overwrites`], or the bucket cannot be written to.
pub(in crate::command) fn refuse_overwriting(settings: &S3Settings) -> Result<(), PlaceError> {
    let store = S3::new(settings.clone());
    if settings.conditional_writes && !store.probe_conditional_writes()? {
        return Err(PlaceError::Overwrites { storage: store.describe() });
    }
    Ok(())
}

/// What of a PostgreSQL server a directory is, if any.
fn servers_directory(directory: &Path) -> Option<&'static str> {
    if directory.join("PG_VERSION").is_file() && directory.join("global/pg_control").exists() {
        return Some("data directory");
    }
    if directory.join("archive_status").is_dir() {
        return Some("WAL directory");
    }
    let entries = fs::read_dir(directory).ok()?;
    // A tablespace holds one directory for each major version and catalog version that uses it: PG_18_202506291.
    let is_version = |name: &str| {
        let numbers = name.strip_prefix("PG_").and_then(|rest| rest.split_once('_'));
        numbers.is_some_and(|(major, catalog)| major.parse::<u16>().is_ok() && catalog.parse::<u32>().is_ok())
    };
    let version = entries.flatten().any(|entry| entry.file_name().to_str().is_some_and(is_version));
    version.then_some("tablespace")
}

/// The path with symbolic links resolved, as far as it exists.
fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors().find_map(|above| above.canonicalize().ok()).unwrap_or_else(|| path.to_owned())
}

/// Makes the directory, durable, if it is not there; as root it belongs to `owner`.
///
/// # Errors
/// [`PlaceError::Io`].
pub(super) fn make(path: &Path, owner: Option<Owner>) -> Result<bool, PlaceError> {
    if path.is_dir() {
        return Ok(false);
    }
    let made = durable::create_directories(path, owner);
    made.map_err(|source| PlaceError::Io { path: path.to_owned(), action: "create", source })?;
    Ok(true)
}

/// Whether a directory holds nothing but what a new file system brings along.
#[must_use]
pub(super) fn is_empty(path: &Path) -> bool {
    let ours = |entry: fs::DirEntry| entry.file_name() != "lost+found";
    fs::read_dir(path).is_ok_and(|entries| !entries.flatten().any(ours))
}

/// Gives an empty directory of root's, a fresh mount point most likely, to the server's user and to nobody else.
///
/// # Errors
/// [`PlaceError::Io`].
pub(super) fn give(path: &Path, owner: Owner) -> Result<(), PlaceError> {
    if !belongs_to_root(path) {
        return Ok(());
    }
    let given = std::os::unix::fs::chown(path, Some(owner.user), Some(owner.group))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o700)));
    given.map_err(|source| PlaceError::Io { path: path.to_owned(), action: "change the owner of", source })
}

/// Who owns a server's socket file or data directory; `None` unless this process is root and that is somebody else.
#[must_use]
pub(super) fn owner_of(path: &Path) -> Option<Owner> {
    Owner::to_follow(path).ok().flatten()
}

/// Whether the directory belongs to root: then a server that runs as somebody else cannot archive into it.
#[must_use]
pub(super) fn belongs_to_root(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository inside a data directory, a tablespace or a WAL directory is refused, whether or not it exists yet,
    /// and through a symbolic link too.
    #[test]
    fn inside_a_server() {
        let root = tempfile::tempdir().expect("a directory");
        let make = |name: &str| fs::create_dir_all(root.path().join(name)).expect("a directory");
        make("data/global");
        fs::write(root.path().join("data/PG_VERSION"), "18\n").expect("a file");
        fs::write(root.path().join("data/global/pg_control"), "").expect("a file");
        make("space/PG_18_202506291/5");
        make("wal/archive_status");
        make("srv/PG_mine");
        std::os::unix::fs::symlink(root.path().join("data"), root.path().join("link")).expect("a link");
        for (name, what) in [
            ("data", Some("data directory")),
            ("data/repository", Some("data directory")),
            ("link/a/b", Some("data directory")),
            ("space/r", Some("tablespace")),
            ("wal/r", Some("WAL directory")),
            ("srv/r", None),
        ] {
            let found = match refuse_inside_server(&root.path().join(name)) {
                Err(PlaceError::Inside { what, .. }) => Some(what),
                Ok(()) => None,
                Err(other) => panic!("{other}"),
            };
            assert_eq!(found, what, "{name}");
        }
    }
}
