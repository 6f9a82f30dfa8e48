//! WAL that waits to be archived, and calls of the two small programs by hand instead of by PostgreSQL.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use pitr::repository::{Repository, ServerRepository};
use pitr::storage::Directory;
use pitr::wal::WalFileName;

use super::process::Run;
use super::{Options, Postgres, Site};

/// A site with a repository, whose archiver waits for ever, and `count` closed segments in `pg_wal`.
pub fn waiting(postgres: &Postgres, options: Options, settings: &str, count: usize) -> (Site, Vec<String>) {
    let site = Site::unprepared(postgres, options, settings);
    site.pitr(&["init"]).run().ok();
    let segments = (0..count).map(|_| site.server.switch_wal()).collect();
    (site, segments)
}

/// The smallest segments: most tests do not care, and the disk does.
pub fn small() -> Options {
    Options::default().segment_size_mib(1)
}

impl Site {
    /// `pitr-wal-push` as the archiver calls it, for a file of `pg_wal`.
    pub fn push(&self, file: &str) -> Command {
        self.push_path(Path::new(&format!("pg_wal/{file}")))
    }

    /// `pitr-wal-push` for any path, in the data directory.
    pub fn push_path(&self, path: &Path) -> Command {
        let mut command = self.dir.pitr("pitr-wal-push");
        command.arg("--config").arg(self.config()).arg(path).current_dir(self.server.data_dir());
        command
    }

    /// `pitr-wal-fetch` as recovery calls it: in the data directory, to `pg_wal/RECOVERYXLOG`.
    pub fn fetch(&self, file: &str) -> Command {
        self.fetch_to(file, Path::new("pg_wal/RECOVERYXLOG"))
    }

    /// `pitr-wal-fetch` to any path, in the data directory.
    pub fn fetch_to(&self, file: &str, path: &Path) -> Command {
        let mut command = self.dir.pitr("pitr-wal-fetch");
        command.arg("--config").arg(self.config()).arg(file).arg(path).current_dir(self.server.data_dir());
        command
    }

    /// Where recovery wants its files.
    pub fn recovery_file(&self) -> PathBuf {
        self.pg_wal("RECOVERYXLOG")
    }

    /// A file of `pg_wal`.
    pub fn pg_wal(&self, file: &str) -> PathBuf {
        self.server.data_dir().join("pg_wal").join(file)
    }

    /// The cluster's part of the repository, as the library sees it.
    pub fn archived(&self) -> ServerRepository {
        let storage = Directory::open(&self.repository()).expect("the repository is there");
        let repository = Repository::open(Arc::new(storage)).expect("it is a repository");
        let cluster = repository.cluster(&super::site::CLUSTER.parse().expect("a name"));
        let record = cluster.servers().expect("records").pop().expect("one server");
        cluster.server(record.system_identifier)
    }

    /// The raw bytes of an archived file, if it is there.
    pub fn archived_bytes(&self, file: &str) -> Option<Vec<u8>> {
        let mut raw = Vec::new();
        let name: WalFileName = file.parse().expect("a WAL file's name");
        self.archived().fetch(name, &mut raw).expect("what is there is good").map(|_| raw)
    }

    /// Panics unless the archive has exactly the bytes of this file of `pg_wal`.
    pub fn assert_archived(&self, file: &str) {
        let original = fs::read(self.pg_wal(file)).expect("the file is in pg_wal");
        let archived = self.archived_bytes(file).unwrap_or_else(|| panic!("{file} is not archived"));
        assert!(archived == original, "{file}: other bytes came back");
    }

    /// All files below the repository's WAL folder, by their paths inside the repository.
    pub fn stored_wal(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut pending = vec![self.repository()];
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(&directory).expect("the repository is readable").flatten() {
                let path = entry.path();
                if path.is_dir() {
                    pending.push(path);
                } else {
                    let inside = path.strip_prefix(self.repository()).expect("it was found there");
                    found.push(inside.to_str().expect("our names are text").to_owned());
                }
            }
        }
        found.retain(|path| path.contains("/wal/") || path.contains(".pitr-tmp"));
        found.sort();
        found
    }

    /// The path of a stored segment, inside the file system.
    pub fn stored_path(&self, segment: &str) -> PathBuf {
        let found = self.stored_wal().into_iter().find(|path| path.ends_with(&format!("/{segment}")));
        self.repository().join(found.unwrap_or_else(|| panic!("{segment} is not stored")))
    }

    /// Acknowledgements that lie in the spool.
    pub fn acknowledged(&self) -> Vec<String> {
        let mut found = Vec::new();
        for cluster in fs::read_dir(self.dir.join("spool")).expect("the spool is readable").flatten() {
            for note in fs::read_dir(cluster.path()).expect("the spool is readable").flatten() {
                let name = note.file_name().into_string().expect("our names are text");
                found.extend(name.strip_suffix(".stored").map(str::to_owned));
            }
        }
        found.sort();
        found
    }
}

/// Runs a command under strace with these options; what it injects happens to the command and its threads.
pub fn traced(command: &Command, options: &[&str]) -> Command {
    let mut traced = Command::new(command.get_program());
    let arguments: Vec<_> = command.get_args().collect();
    // The harness steps down to the test user with setpriv; strace comes behind that, so that the user owns both.
    let behind = arguments.iter().position(|argument| *argument == "--").map_or(0, |at| at + 1);
    let step_down = behind > 0 && command.get_program().to_string_lossy().ends_with("setpriv");
    let (before, rest) = if step_down { arguments.split_at(behind) } else { (&[][..], &arguments[..]) };
    if step_down {
        traced.args(before).arg("strace");
    } else {
        traced = Command::new("strace");
    }
    traced.args(["-f", "-qq", "-o", "/dev/null"]).args(options);
    if !step_down {
        traced.arg(command.get_program());
    }
    traced.args(rest).env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            traced.env(name, value);
        }
    }
    if let Some(directory) = command.get_current_dir() {
        traced.current_dir(directory);
    }
    use std::os::unix::process::CommandExt;
    traced.process_group(0);
    traced
}
