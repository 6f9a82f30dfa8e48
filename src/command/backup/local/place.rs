//! Where the server's files lie, and that they are this server's.
//!
//! A host may have several clusters, copies of this one among them with the same system identifier. So what the server says over SQL is
//! held against what lies there: its directory, port and start against `postmaster.pid`, and its checkpoint against `pg_control`.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use super::super::BackupError;
use super::allowed;
use crate::catalog::Tablespace;
use crate::chunk::EntryPath;
use crate::command::server::{ServerFacts, value};
use crate::pgdata::living::LivingDirectory;
use crate::replication::Session;
use crate::wal::{Lsn, SystemIdentifier};

/// `postmaster.pid` has when the process began, the server when it was about to take connections: after it had set up its memory.
const START_SECONDS: i64 = 300;

/// How often `pg_control` is compared: the server may write it at the same moment.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// The open directories of the server.
pub(super) struct Place {
    pub(super) root: LivingDirectory,
    /// Tablespaces; a location that is gone was dropped meanwhile.
    pub(super) tablespaces: Vec<(Tablespace, Option<LivingDirectory>)>,
    /// The directory that this cluster has in each tablespace.
    pub(super) version: EntryPath,
}

/// What the server says about itself.
struct Said {
    data_directory: String,
    port: String,
    started: i64,
}

/// Opens the data directory of the server in session, and makes sure that it is.
pub(super) fn find(session: &mut Session, facts: &ServerFacts) -> Result<LivingDirectory, BackupError> {
    let sql = "SELECT pg_catalog.current_setting('data_directory'), pg_catalog.current_setting('port'), \
               extract(epoch FROM pg_catalog.pg_postmaster_start_time())::bigint";
    let row = ask(session, sql)?;
    let text = |at| value(&row, at).to_owned();
    let said = Said { data_directory: text(0), port: text(1), started: text(2).parse().unwrap_or(0) };
    let root = LivingDirectory::open(Path::new(&said.data_directory))?;
    let wrong = |reason: String| BackupError::NotTheServers { path: said.data_directory.clone(), reason };
    let (_, _, control) = root.control_file()?;
    check_identity(control.system_identifier, facts.system_identifier).map_err(wrong)?;
    let pid_file = String::from_utf8_lossy(&root.small_file("postmaster.pid")?).into_owned();
    check_pid_file(&pid_file, &said).map_err(wrong)?;
    for look in 1.. {
        let sql = "SELECT checkpoint_lsn, redo_lsn FROM pg_catalog.pg_control_checkpoint()";
        let row = ask(session, sql)?;
        let (_, _, control) = root.control_file()?;
        let (checkpoint, redo) = (control.checkpoint.to_string(), control.redo.to_string());
        if (value(&row, 0), value(&row, 1)) == (checkpoint.as_str(), redo.as_str()) {
            break;
        }
        if look == LOOKS {
            let reason =
                format!("its pg_control has the checkpoint at {checkpoint}, the server's that at {}", value(&row, 0));
            return Err(wrong(reason));
        }
        sleep(PAUSE);
    }
    Ok(root)
}

impl Place {
    /// Opens the tablespaces, once the backup has begun: what is dropped from now on is dropped again when the WAL is replayed.
    pub(super) fn open(root: LivingDirectory, facts: &ServerFacts, start: Lsn) -> Result<Place, BackupError> {
        let (_, _, control) = root.control_file()?;
        let path = root.path().display().to_string();
        if control.redo < start {
            let reason = format!("its last checkpoint begins at {}, and the backup at {start}", control.redo);
            return Err(BackupError::NotTheServers { path, reason });
        }
        let version = format!("PG_{}_{}", facts.major, control.catalog_version);
        let version = EntryPath::new(version.as_bytes()).map_err(|_| BackupError::Broken)?;
        let mut tablespaces = Vec::new();
        for tablespace in root.tablespaces()? {
            // A relative location is one in the data directory.
            let directory = match LivingDirectory::open(&root.path().join(&tablespace.location)) {
                Ok(directory) => Some(directory),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error.into()),
            };
            tablespaces.push((tablespace, directory));
        }
        Ok(Place { root, tablespaces, version })
    }

    /// Whether a link below `pg_tblspc` is that of a tablespace which was there when the backup began. Others are made when the WAL is
    /// replayed.
    pub(super) fn has_link(&self, path: &EntryPath) -> bool {
        let is = |oid: u32| path.as_bytes() == format!("pg_tblspc/{oid}").as_bytes();
        self.tablespaces.iter().any(|(tablespace, _)| is(tablespace.oid))
    }
}

fn ask(session: &mut Session, sql: &str) -> Result<Vec<Option<String>>, BackupError> {
    let results = session.query(sql).map_err(allowed)?;
    Ok(results.into_iter().find_map(|result| result.rows.into_iter().next()).unwrap_or_default())
}

fn check_identity(found: SystemIdentifier, expected: SystemIdentifier) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("its pg_control is of cluster {found}, and the server's is {expected}")),
    }
}

/// The lines are process id, data directory, start in seconds since the Unix epoch, port, … (`pidfile.h`).
fn check_pid_file(text: &str, said: &Said) -> Result<(), String> {
    let line = |at: usize| text.lines().nth(at).unwrap_or_default().trim();
    if line(1) != said.data_directory {
        return Err(format!("its postmaster.pid is of a server in \"{}\"", line(1)));
    }
    if line(3) != said.port {
        return Err(format!(
            "its postmaster.pid is of a server with port {}, and the server has {}",
            line(3),
            said.port
        ));
    }
    match line(2).parse::<i64>() {
        Ok(began) if (0..=START_SECONDS).contains(&(said.started - began)) => Ok(()),
        _ => Err("its postmaster.pid is of a server that was started at another time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of another server, or one that the server has left, is told by its postmaster.pid.
    #[test]
    fn pid_files() {
        let said = Said { data_directory: "/var/lib/data".into(), port: "5432".into(), started: 1000 };
        let file = |directory: &str, began: i64, port: u32| {
            check_pid_file(&format!("77\n{directory}\n{began}\n{port}\n/run\n*\n  123 4\nready   \n"), &said)
        };
        assert_eq!(file("/var/lib/data", 999, 5432), Ok(()));
        assert_eq!(file("/var/lib/data", 1000, 5432), Ok(()));
        for (wrong, names) in [
            (file("/var/lib/other", 999, 5432), "/var/lib/other"),
            (file("/var/lib/data", 999, 5433), "5433"),
            (file("/var/lib/data", 1001, 5432), "another time"),
            (file("/var/lib/data", 1, 5432), "another time"),
            (check_pid_file("", &said), "in \"\""),
        ] {
            let reason = wrong.expect_err("another server's");
            assert!(reason.contains(names), "{reason}");
        }
    }
}
