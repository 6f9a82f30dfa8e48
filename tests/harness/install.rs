//! Where `scripts/install` put the servers of each major and the client tools.

use std::path::{Path, PathBuf};

/// One installed PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// 13 to 18.
    pub major: u32,
    bin: PathBuf,
}

impl Postgres {
    /// Path of one of the programs every server installation has: `initdb`, `pg_ctl`, `postgres`.
    pub fn bin(&self, program: &str) -> PathBuf {
        self.bin.join(program)
    }

    /// The directory of [`Postgres::bin`], as `--pg-bin` wants it.
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// A `pg_waldump` that can read this major's WAL. Only 15 (Debian's, where installed), 16 and 18 have one.
    pub fn waldump(&self) -> Option<PathBuf> {
        let candidates = [
            cache().join(format!("tools/client/{}/bin/pg_waldump", self.major)),
            PathBuf::from(format!("/usr/lib/postgresql/{}/bin/pg_waldump", self.major)),
        ];
        candidates.into_iter().find(|path| path.exists())
    }
}

/// The majors to test with: 13 to 18, or those that `PITR_TEST_MAJORS` names. One that is not installed is a failure
/// and no reason to test less.
pub fn majors() -> Vec<Postgres> {
    match std::env::var("PITR_TEST_MAJORS") {
        Ok(list) => list
            .split(',')
            .map(|word| major(word.trim().parse().expect("PITR_TEST_MAJORS is a list of majors, as 15,18")))
            .collect(),
        Err(_) => (13..=18).map(major).collect(),
    }
}

/// The server of one major.
pub fn major(major: u32) -> Postgres {
    let bin = cache().join(format!("postgres/{major}/native/bin"));
    assert!(bin.join("postgres").exists(), "no PostgreSQL {major} in {}: run scripts/install", bin.display());
    Postgres { major, bin }
}

/// The newest of [`majors`], for tests whose subject does not differ between majors.
pub fn newest() -> Postgres {
    majors().pop().expect("PITR_TEST_MAJORS names at least one major")
}

/// Debian's own server, where it is installed: unlike the others it has LZ4 and Zstandard built in, and keeps its
/// programs under `/usr/lib/postgresql`.
pub fn debian() -> Option<Postgres> {
    let bin = PathBuf::from("/usr/lib/postgresql/15/bin");
    bin.join("postgres").exists().then_some(Postgres { major: 15, bin })
}

/// A client program of PostgreSQL 18 (`psql`, `pg_basebackup`, `pgbench`, ...), which serves all older servers. Only
/// `pg_verifybackup` is 16's, since 18's crashes in this package; it reads the manifests of 13 to 16.
pub fn client_tool(program: &str) -> PathBuf {
    let major = if program == "pg_verifybackup" { 16 } else { 18 };
    let path = cache().join(format!("tools/client/{major}/bin/{program}"));
    assert!(path.exists(), "no {}: run scripts/install", path.display());
    path
}

/// The Python that has the S3 server moto.
pub fn moto() -> PathBuf {
    let path = cache().join("moto/bin/python");
    assert!(path.exists(), "no {}: run scripts/install", path.display());
    path
}

/// The same rule as `cache_dir` in `scripts/lib.sh`.
fn cache() -> PathBuf {
    if let Some(dir) = std::env::var_os("PITR_TEST_CACHE").filter(|dir| !dir.is_empty()) {
        PathBuf::from(dir)
    } else if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/cache/pitr-test")
    } else {
        PathBuf::from(std::env::var_os("HOME").expect("an ordinary user has HOME")).join(".cache/pitr-test")
    }
}
