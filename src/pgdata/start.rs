//! Starting a restored cluster and following it to its target.
//!
//! The server is started as the directory's owner, with its log beside it (`pitr.start/log`), and is left running.
//! A clone listens on a socket of its own only: its configuration is the source's, whose port and addresses belong to the
//! source. Where the data directory has no configuration (Debian keeps it elsewhere), a minimal one is made that allows what
//! `pg_control` and the WAL ask for.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::TargetAction;
use super::quote::{self, UnquotablePath};
use super::replay_log::Replay;
use crate::durable::{self, Owner};
use crate::wal::{PostgresMajor, ServerLimits};

/// Our directory in the data directory.
const OURS: &str = "pitr.start";
/// The longest path of a socket, its name included (`UNIXSOCK_PATH_BUFLEN`).
const LONGEST_SOCKET: usize = 107;
/// The port in the name of a clone's socket.
const PORT: u16 = 5432;
/// How often the log is read.
const POLL: Duration = Duration::from_millis(50);

/// Why the server did not start, or did not get there.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The server's programs are not on this host.
    #[error("cannot find the programs of PostgreSQL {major}")]
    NoBinaries {
        /// The version needed.
        major: PostgresMajor,
        /// Where they were looked for.
        looked_in: Vec<PathBuf>,
    },
    /// The programs are those of another version.
    #[error("\"{}\" has PostgreSQL {found}, and the cluster is of PostgreSQL {expected}", directory.display())]
    OtherVersion {
        /// The directory.
        directory: PathBuf,
        /// Its version.
        found: PostgresMajor,
        /// The cluster's.
        expected: PostgresMajor,
    },
    /// Something could not be written or run.
    #[error("could not {action} \"{}\": {source}", path.display())]
    Io {
        /// What was tried: a verb.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A path that cannot stand in a setting.
    #[error(transparent)]
    Unquotable(#[from] UnquotablePath),
    /// The server ended before it was at its target.
    #[error("the server in \"{}\" did not reach the target: {reason}", data.display())]
    Ended {
        /// The data directory.
        data: PathBuf,
        /// Its last words.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// The user asked to stop while the server was replaying; it goes on.
    #[error("interrupted while the server in \"{}\" was replaying", data.display())]
    Interrupted {
        /// The data directory.
        data: PathBuf,
    },
}

/// What to start, and how.
#[derive(Clone, Debug)]
pub struct Start {
    /// The data directory.
    pub data: PathBuf,
    /// Directory of the server's programs.
    pub binaries: PathBuf,
    /// As whom to run, if this process is root.
    pub owner: Option<Owner>,
    /// `postgresql.conf` elsewhere.
    pub config_file: Option<PathBuf>,
    /// The data directory has a `postgresql.conf`.
    pub has_configuration: bool,
    /// The data directory has a `pg_hba.conf`.
    pub has_hba: bool,
    /// What the server has to allow.
    pub limits: ServerLimits,
    /// A clone: it listens on a socket of its own only.
    pub clone: bool,
    /// What it does at the target.
    pub action: TargetAction,
}

/// A server that was started.
#[derive(Debug)]
pub struct Started {
    data: PathBuf,
    log: PathBuf,
    action: TargetAction,
    process: Child,
    /// Where a clone listens.
    pub socket: Option<(PathBuf, u16)>,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::Io { action, path, source }
}

impl Start {
    /// Starts the server.
    ///
    /// # Errors
    /// Its configuration cannot be written, or `postgres` cannot be run.
    pub fn start(&self) -> Result<Started, StartError> {
        let ours = self.data.join(OURS);
        durable::create_directories(&ours, self.owner).map_err(failed("create directory", &ours))?;
        let log = ours.join("log");
        durable::replace(&ours, "log", b"", self.owner).map_err(failed("create", &log))?;
        let socket = if self.clone || !self.is_configured() { Some(self.socket_directory(&ours)?) } else { None };
        let options = self.options(&ours, socket.as_deref())?;
        let program = self.binaries.join("postgres");
        let output = File::options().append(true).open(&log).map_err(failed("open", &log))?;
        let errors = output.try_clone().map_err(failed("open", &log))?;
        // Not by pg_ctl: it hands the paths to a shell in double quotes, where a quote or a dollar sign in them is lost.
        let mut command = Command::new(&program);
        command.arg("-D").arg(&self.data);
        for (name, value) in options {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // A process group of its own: what the user types to interrupt this program does not reach the server.
        command.current_dir(&self.data).stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        if let Some(Owner { user, group }) = self.owner {
            // The standard library drops the supplementary groups of root with it.
            command.uid(user).gid(group);
        }
        let process = command.spawn().map_err(failed("run", &program))?;
        let socket = socket.map(|directory| (directory, PORT));
        Ok(Started { data: self.data.clone(), log, action: self.action, socket, process })
    }

    fn is_configured(&self) -> bool {
        self.has_configuration || self.config_file.is_some()
    }

    /// Where the clone's socket can be: beside the log, unless that path is too long for a socket.
    fn socket_directory(&self, ours: &Path) -> Result<PathBuf, StartError> {
        let name = format!("/.s.PGSQL.{PORT}");
        if ours.as_os_str().len() + name.len() < LONGEST_SOCKET {
            return Ok(ours.to_owned());
        }
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| failed("draw a name for", ours)(io::Error::other(error)))?;
        let directory = std::env::temp_dir().join(format!("pitr-{:016x}", u64::from_ne_bytes(random)));
        durable::create_directories(&directory, self.owner).map_err(failed("create directory", &directory))?;
        Ok(directory)
    }

    /// Settings on the command line: they win over every file.
    fn options(&self, ours: &Path, socket: Option<&Path>) -> Result<Vec<(&'static str, String)>, StartError> {
        let text = |path: &Path| quote::path_text(path).map(str::to_owned);
        let mut options: Vec<(&'static str, String)> = Vec::new();
        if let Some(file) = &self.config_file {
            options.push(("config_file", text(file)?));
            options.push(("data_directory", text(&self.data)?));
        } else if !self.has_configuration {
            self.write(ours, "postgresql.conf", &self.minimal_configuration())?;
            options.push(("config_file", text(&ours.join("postgresql.conf"))?));
        }
        if !self.has_hba && self.config_file.is_none() {
            // Whoever reaches the socket is this server's own user, or root.
            self.write(ours, "pg_hba.conf", "local all all trust\nlocal replication all trust\n")?;
            self.write(ours, "pg_ident.conf", "")?;
            options.push(("hba_file", text(&ours.join("pg_hba.conf"))?));
            options.push(("ident_file", text(&ours.join("pg_ident.conf"))?));
        }
        if let Some(socket) = socket {
            for (name, value) in [("listen_addresses", ""), ("external_pid_file", ""), ("ssl", "off")] {
                options.push((name, value.to_owned()));
            }
            // A list of directories: a comma or a blank needs the list's own quotes.
            options.push(("unix_socket_directories", format!("\"{}\"", text(socket)?.replace('"', "\"\""))));
            options.push(("port", PORT.to_string()));
        }
        // The log is read by this program, in English, whatever the configuration says.
        for (name, value) in [
            ("logging_collector", "off"),
            ("log_destination", "stderr"),
            ("log_min_messages", "warning"),
            ("lc_messages", "C"),
            ("log_line_prefix", "%m [%p] "),
        ] {
            options.push((name, value.to_owned()));
        }
        Ok(options)
    }

    /// What the server must allow to replay this WAL, and defaults for the rest.
    fn minimal_configuration(&self) -> String {
        let limits = &self.limits;
        format!(
            "# Written by pitr restore --start, because the data directory has no postgresql.conf.\n\
             max_connections = {}\nmax_worker_processes = {}\nmax_wal_senders = {}\n\
             max_prepared_transactions = {}\nmax_locks_per_transaction = {}\n",
            limits.max_connections,
            limits.max_worker_processes,
            limits.max_wal_senders,
            limits.max_prepared_transactions,
            limits.max_locks_per_transaction,
        )
    }

    fn write(&self, ours: &Path, name: &str, text: &str) -> Result<(), StartError> {
        durable::replace(ours, name, text.as_bytes(), self.owner).map_err(failed("write", &ours.join(name)))
    }
}

impl Started {
    /// The server's log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Follows the server until it has done what it does at the target; `watch` sees each step. The server goes on by itself.
    ///
    /// # Errors
    /// The server ended before, or the user asked to stop watching.
    pub fn follow(&mut self, interrupt: &AtomicBool, mut watch: impl FnMut(&Replay)) -> Result<Replay, StartError> {
        let mut log = File::open(&self.log).map_err(failed("open", &self.log))?;
        let mut replay = Replay::default();
        let mut unread = Vec::new();
        loop {
            // Looked at before the log is read: what a server wrote before it ended is not missed.
            let ended = self.process.try_wait().map_err(failed("wait for the server in", &self.data))?;
            read_lines(&mut log, &mut unread, &mut replay).map_err(failed("read", &self.log))?;
            watch(&replay);
            let there = match self.action {
                TargetAction::Promote => replay.open,
                TargetAction::Pause => replay.paused && replay.readable,
                TargetAction::Shutdown => replay.shut_down_at_target && ended.is_some(),
            };
            if there {
                return Ok(replay);
            }
            if ended.is_some() || replay.stuck {
                let reason = replay.fatal.unwrap_or_else(|| "it ended without a reason in its log".to_owned());
                return Err(StartError::Ended { data: self.data.clone(), reason, log: self.log.clone() });
            }
            if interrupt.load(Ordering::Relaxed) {
                return Err(StartError::Interrupted { data: self.data.clone() });
            }
            std::thread::sleep(POLL);
        }
    }
}

/// Reads what was added to the log; an unfinished last line waits.
fn read_lines(log: &mut File, unread: &mut Vec<u8>, replay: &mut Replay) -> io::Result<()> {
    log.read_to_end(unread)?;
    let whole = unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    for line in unread.drain(..whole).collect::<Vec<u8>>().split(|byte| *byte == b'\n') {
        replay.line(&String::from_utf8_lossy(line));
    }
    Ok(())
}

/// Whether the data directory has these two configuration files.
#[must_use]
pub fn configuration_of(data: &Path) -> (bool, bool) {
    let has = |name: &str| fs::metadata(data.join(name)).is_ok_and(|found| found.is_file());
    (has("postgresql.conf"), has("pg_hba.conf"))
}
