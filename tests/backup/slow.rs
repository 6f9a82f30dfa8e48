//! Backups so slow that something can happen meanwhile.

use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::process::{self, wait_until};
use crate::harness::{Server, Site, wait_for};

/// A running backup.
pub(crate) struct Slow(Child);

impl Slow {
    /// Begins a backup of `server`, which may be a standby of the site's, at so many bytes a second (such as `1MB`). Comes back when the
    /// server has begun it, and with the protocol when data flows.
    pub(crate) fn begin(site: &Site, server: &Server, words: &[&str], rate: &str) -> Slow {
        rid_of_sessions(server);
        Slow::begin_beside(site, server, words, rate)
    }

    /// The same where another one is going on already.
    pub(crate) fn begin_beside(site: &Site, server: &Server, words: &[&str], rate: &str) -> Slow {
        let already = begun(server);
        let mut command = site.pitr(&["backup", "--rate-limit", rate]);
        command.args(words).env("PITR_CONNINFO", server.conninfo());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().expect("pitr starts");
        wait_for("the backup to begin", || (begun(server) > already).then_some(()));
        Slow(child)
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        process::signal(self.0.id(), signal);
    }

    /// Status and messages of a backup that should end by itself now.
    pub(crate) fn ended(self, patience: Duration) -> (Option<i32>, String) {
        let Slow(mut child) = self;
        let status = wait_until(&mut child, Instant::now() + patience).expect("the backup ends soon");
        let mut stderr = String::new();
        child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("its messages");
        (status.code(), format!("{status}\n{stderr}"))
    }
}

/// How many backups have begun.
fn begun(server: &Server) -> usize {
    let streamed = server.ask_all("SELECT pid FROM pg_stat_progress_basebackup WHERE backup_streamed > 1000000");
    streamed.len() + local_sessions(server).len()
}

/// The processes that serve backups with `--source local`.
pub(crate) fn local_sessions(server: &Server) -> Vec<String> {
    server.ask_all(
        "SELECT pid FROM pg_stat_activity WHERE state = 'idle' AND query ~ 'SELECT pg_catalog.pg_(start_backup|backup_start)'",
    )
}

/// The server notices that an earlier backup's session is gone, and nothing of it is left.
pub(crate) fn rid_of_sessions(server: &Server) {
    wait_for("the server to be rid of earlier backups", || {
        (server.ask("SELECT count(*) FROM pg_stat_progress_basebackup") == "0").then_some(())
    });
}
