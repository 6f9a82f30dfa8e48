//! What a directory holds before a restore writes into it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::PgDataError;
use super::marker::{MARKER, Marker};
use crate::durable::TEMPORARY_PREFIX;
use crate::wal::{ControlFile, SystemIdentifier};

/// What a directory holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "holds", rename_all = "snake_case")]
pub enum Holds {
    /// There is no such directory.
    Nothing,
    /// It is empty.
    Empty,
    /// A restore that was broken off; running it again continues.
    BrokenOffRestore {
        /// The backup.
        backup: String,
        /// The cluster.
        system_identifier: SystemIdentifier,
        /// Directories outside it that the restore had begun to write.
        outside: Vec<PathBuf>,
    },
    /// A cluster.
    Cluster {
        /// Whose; `None` if its `pg_control` is missing or cannot be read.
        system_identifier: Option<SystemIdentifier>,
        /// WAL files that its archiver has not archived: they exist nowhere else.
        unarchived: u64,
    },
    /// A cluster with a running server.
    Running {
        /// The server's process.
        pid: i32,
    },
    /// Something that is no cluster.
    Foreign {
        /// One of the things in it.
        entry: String,
    },
}

/// Looks at a directory.
///
/// # Errors
/// It cannot be read, or is no directory.
pub fn inspect(data: &Path) -> Result<Holds, PgDataError> {
    let Some(entry) = first_entry(data)? else {
        return Ok(if data.is_dir() { Holds::Empty } else { Holds::Nothing });
    };
    if let Some(pid) = running_server(data)? {
        return Ok(Holds::Running { pid });
    }
    let marker = Marker::read(data).map_err(PgDataError::io("read", &data.join(MARKER)))?;
    if let Some(Marker { system_identifier, backup, outside }) = marker {
        return Ok(Holds::BrokenOffRestore { backup, system_identifier, outside });
    }
    if !data.join("PG_VERSION").is_file() {
        return Ok(Holds::Foreign { entry });
    }
    let control = fs::read(data.join("global/pg_control")).ok();
    let control = control.and_then(|bytes| ControlFile::parse(&bytes).ok());
    let system_identifier = control.map(|control| control.system_identifier);
    Ok(Holds::Cluster { system_identifier, unarchived: unarchived(data) })
}

/// Something in the directory; `None` if it is empty or not there. A file system's `lost+found` does not count, nor does what a
/// restore leaves that is killed while it writes its marker.
///
/// # Errors
/// It cannot be read, or is no directory.
pub fn first_entry(directory: &Path) -> Result<Option<String>, PgDataError> {
    let failed = || PgDataError::io("read directory", directory);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed()(error)),
    };
    for entry in entries {
        let name = entry.map_err(failed())?.file_name();
        let name = name.to_string_lossy();
        if name != "lost+found" && !name.starts_with(TEMPORARY_PREFIX) {
            return Ok(Some(name.into_owned()));
        }
    }
    Ok(None)
}

/// The server that runs in a data directory: `postmaster.pid` names a process that lives.
///
/// The file survives a crash, and its number may belong to another process by now. A process that works in another directory
/// is none of this cluster's servers; of one whose directory cannot be seen, the worst is assumed.
pub(super) fn running_server(data: &Path) -> Result<Option<i32>, PgDataError> {
    let path = data.join("postmaster.pid");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PgDataError::io("read", &path)(error)),
    };
    // The number of a standalone backend is negative.
    let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()).map(i32::abs) else {
        return Ok(None);
    };
    let alive = rustix::process::Pid::from_raw(pid).is_some_and(|pid| {
        let answer = rustix::process::test_kill_process(pid);
        !matches!(answer, Err(rustix::io::Errno::SRCH))
    });
    let elsewhere = match (fs::read_link(format!("/proc/{pid}/cwd")), fs::canonicalize(data)) {
        (Ok(works_in), Ok(data)) => works_in != data,
        _ => false,
    };
    Ok((alive && !elsewhere).then_some(pid))
}

/// Number of WAL files that are marked as not archived yet.
fn unarchived(data: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(data.join("pg_wal/archive_status")) else { return 0 };
    let ready = |name: &std::ffi::OsStr| name.to_string_lossy().ends_with(".ready");
    entries.flatten().filter(|entry| ready(&entry.file_name())).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each state is told apart; a stale pid file of a crashed server is no running server, and a live one is.
    #[test]
    fn states() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        assert_eq!(inspect(&data).expect("looks"), Holds::Nothing);
        fs::create_dir(&data).expect("made");
        fs::create_dir(data.join("lost+found")).expect("made");
        assert_eq!(inspect(&data).expect("looks"), Holds::Empty);
        fs::write(data.join("letter.txt"), "").expect("written");
        assert!(matches!(inspect(&data).expect("looks"), Holds::Foreign { entry } if entry == "letter.txt"));
        fs::write(data.join("PG_VERSION"), "15\n").expect("written");
        fs::create_dir_all(data.join("pg_wal/archive_status")).expect("made");
        fs::write(data.join("pg_wal/archive_status/000000010000000000000001.ready"), "").expect("written");
        let cluster = Holds::Cluster { system_identifier: None, unarchived: 1 };
        assert_eq!(inspect(&data).expect("looks"), cluster);

        // A process of this number lives and works elsewhere: the file was left behind.
        fs::write(data.join("postmaster.pid"), format!("{}\n{}\n", std::process::id(), data.display()))
            .expect("written");
        assert_eq!(inspect(&data).expect("looks"), cluster);
        let mut server = std::process::Command::new("sleep").arg("60").current_dir(&data).spawn().expect("started");
        fs::write(data.join("postmaster.pid"), format!("{}\n", server.id())).expect("written");
        let pid = i32::try_from(server.id()).expect("small");
        assert_eq!(inspect(&data).expect("looks"), Holds::Running { pid });
        server.kill().expect("killed");
        server.wait().expect("ended");
        assert_eq!(inspect(&data).expect("looks"), cluster);

        let marker =
            Marker { system_identifier: SystemIdentifier(7), backup: "b".into(), outside: vec!["/elsewhere".into()] };
        marker.write(&data, None).expect("written");
        assert!(matches!(inspect(&data).expect("looks"), Holds::BrokenOffRestore { backup, .. } if backup == "b"));
        Marker::remove(&data).expect("removed");
        assert_eq!(inspect(&data).expect("looks"), cluster);
    }
}
