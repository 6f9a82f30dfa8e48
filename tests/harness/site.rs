//! A server that archives into a repository: what most tests of the whole road begin with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::process::{Finished, Run};
use super::{Options, Postgres, Server, TestDir};

/// The cluster's name in the configuration.
pub const CLUSTER: &str = "main";

/// A running server with `pitr.toml`, a repository, a spool, and `pitr-wal-push` as its archive command.
#[derive(Debug)]
pub struct Site {
    // Dropped in this order: the server before its directory.
    /// The server whose WAL is archived.
    pub server: Server,
    /// Everything of this test.
    pub dir: TestDir,
}

impl Site {
    /// A site whose repository is set up and whose archiver works.
    pub fn new(postgres: &Postgres) -> Site {
        Site::with(postgres, Options::default(), "")
    }

    /// A site with a server of the test's choice, and more settings for the cluster's table of `pitr.toml`.
    pub fn with(postgres: &Postgres, options: Options, settings: &str) -> Site {
        let mut site = Site::unprepared(postgres, options, settings);
        site.pitr(&["init"]).run().ok();
        site.archive();
        site
    }

    /// A site where `pitr init` has not run, and that does not archive yet: segments wait for [`Site::archive`].
    pub fn unprepared(postgres: &Postgres, options: Options, settings: &str) -> Site {
        let dir = TestDir::new();
        // An empty command makes the archiver wait. One that fails would make it sleep for a minute after three tries.
        let server = Server::running(&dir, postgres, &options.archive_command(""));
        let site = Site { server, dir };
        site.configure(settings);
        site
    }

    /// Writes `pitr.toml`, with more settings for the cluster's table.
    pub fn configure(&self, settings: &str) {
        let identifier = self.server.ask("SELECT system_identifier FROM pg_control_system()");
        let (repository, spool) = (self.repository(), self.dir.make_dir("spool"));
        let text = format!(
            "[repository]\npath = \"{}\"\n\n[cluster.{CLUSTER}]\nsystem_identifier = \"{identifier}\"\n\
             conninfo = \"{}\"\nspool = \"{}\"\n{settings}\n",
            repository.display(),
            self.server.conninfo(),
            spool.display(),
        );
        self.dir.write("pitr.toml", text);
    }

    /// Lets the archiver begin.
    pub fn archive(&mut self) {
        let command = self.push_command();
        self.server.configure("archive_command", &command);
        self.server.reload();
    }

    /// The directory that holds the repository.
    pub fn repository(&self) -> PathBuf {
        self.dir.join("repository")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.dir.join("pitr.toml")
    }

    /// What `archive_command` is set to.
    pub fn push_command(&self) -> String {
        format!("{} --config {} %p", self.dir.binary("pitr-wal-push").display(), self.config().display())
    }

    /// What `restore_command` may be set to, for a standby.
    pub fn fetch_command(&self) -> String {
        format!("{} --config {} %f %p", self.dir.binary("pitr-wal-fetch").display(), self.config().display())
    }

    /// `pitr` with the site's configuration and these words.
    pub fn pitr(&self, words: &[&str]) -> Command {
        let mut command = self.dir.pitr("pitr");
        command.arg("--config").arg(self.config()).args(words);
        command
    }

    /// Takes a base backup.
    pub fn backup(&self) -> Finished {
        self.pitr(&["backup"]).run_within(LONG).ok()
    }

    /// Restores into a new directory `name` of the test's, for example with `&["--to-name", "before"]`. The server it gives is not
    /// started yet.
    pub fn restore(&self, name: &str, words: &[&str]) -> Server {
        let target = self.dir.join(name);
        self.try_restore(&target, words).ok();
        Server::adopt(&self.dir, &self.server.postgres, name, &target)
    }

    /// Runs a restore that may fail.
    pub fn try_restore(&self, target: &Path, words: &[&str]) -> Finished {
        self.pitr(&["restore", "--yes", "--target"]).arg(target).args(words).run_within(LONG)
    }
}

/// How long a backup or a restore of a small cluster may take on a busy machine.
const LONG: Duration = Duration::from_secs(120);
