//! Servers in recovery: standbys, and restored ones that have not opened yet.

use std::path::{Path, PathBuf};

use super::dir::TestDir;
use super::install::client_tool;
use super::process::{Run, as_test_user};
use super::{Server, wait_for};

impl Server {
    /// A standby of a running primary: copied with `pg_basebackup`, streaming from it once started. With a
    /// `restore_command` it also asks the archive.
    pub fn standby_of(dir: &TestDir, primary: &Server, name: &str, restore_command: Option<&str>) -> Server {
        Server::standby_with(dir, primary, name, restore_command, &[])
    }

    /// The same where the primary has tablespaces: where each lies, and where the standby's is to lie.
    pub fn standby_with(
        dir: &TestDir,
        primary: &Server,
        name: &str,
        restore_command: Option<&str>,
        tablespaces: &[(String, PathBuf)],
    ) -> Server {
        let data = dir.join(name);
        let mut copy = as_test_user(client_tool("pg_basebackup"));
        copy.arg("--pgdata").arg(&data).arg("--dbname").arg(primary.conninfo());
        copy.args(["--wal-method=stream", "--checkpoint=fast", "--no-sync", "--write-recovery-conf"]);
        for (old, new) in tablespaces {
            copy.arg("--tablespace-mapping").arg(format!("{old}={}", new.display()));
        }
        copy.run().ok();
        Server::following(dir, primary, name, &data, restore_command)
    }

    /// A standby of which the data directory is there already.
    pub fn following(
        dir: &TestDir,
        primary: &Server,
        name: &str,
        data: &Path,
        restore_command: Option<&str>,
    ) -> Server {
        let mut standby = Server::adopt(dir, &primary.postgres, name, data);
        standby.configure("primary_conninfo", &primary.conninfo());
        if let Some(command) = restore_command {
            standby.configure("restore_command", command);
        }
        standby.fsync = primary.fsync;
        standby
    }

    /// Waits until a standby has replayed all that this server has written, or replayed, by now.
    pub fn wait_for_standby(&self, standby: &Server) {
        let written = self
            .ask("SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END");
        let reached = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        wait_for("the standby to follow", || (standby.ask(&reached) == "t").then_some(()));
    }

    /// Promotes a standby and waits until it takes writes.
    pub fn promote(&self) {
        assert_eq!(self.ask("SELECT pg_promote(true, 60)"), "t", "not promoted; its log:\n{}", self.log());
    }

    /// Waits until a restored server has left recovery.
    pub fn wait_open(&self) {
        wait_for("the restored server to open", || (self.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    }
}
