//! The directory of one test.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::process::{as_test_user, test_user};

/// A directory that belongs to the test user and is removed when the test ends, unless `PITR_TEST_KEEP=1`.
///
/// The path is short, because a Unix socket's may have 107 bytes at most, and outside `/root`, because the test user
/// must reach it.
#[derive(Debug)]
pub struct TestDir {
    path: PathBuf,
}

impl TestDir {
    /// Makes an empty directory.
    pub fn new() -> TestDir {
        let made = tempfile::Builder::new().prefix("pitr-t-").rand_bytes(6).tempdir_in("/tmp");
        let path = made.expect("could not make a directory in /tmp").keep();
        give_to_test_user(&path);
        TestDir { path }
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside; nothing is made.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a directory inside, for the test user alone.
    pub fn make_dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(&path).expect("could not make a directory");
        give_to_test_user(&path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("could not set a mode");
        path
    }

    /// Writes a file inside that belongs to the test user.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::write(&path, content).expect("could not write a file");
        chown_to_test_user(&path);
        path
    }

    /// A command of one of our three binaries, `pitr`, `pitr-wal-push` or `pitr-wal-fetch`, as the test user.
    pub fn pitr(&self, binary: &str) -> Command {
        let mut command = as_test_user(self.binary(binary));
        command.env("HOME", self.path()).current_dir(self.path());
        command
    }

    /// Where the test user finds one of our binaries: all three side by side, as they are installed, linked into the test's
    /// directory at the first use, since the build directory may lie below `/root`.
    pub fn binary(&self, name: &str) -> PathBuf {
        let path = self.join("bin").join(name);
        if !path.exists() {
            fs::create_dir_all(self.join("bin")).expect("could not make a directory");
            give_to_test_user(&self.join("bin"));
            for name in ["pitr", "pitr-wal-push", "pitr-wal-fetch"] {
                let (built, path) = (built_binary(name), self.join("bin").join(name));
                if fs::hard_link(&built, &path).is_err() {
                    fs::copy(&built, &path).expect("could not copy a binary");
                }
            }
        }
        path
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        if std::env::var_os("PITR_TEST_KEEP").is_some() {
            eprintln!("kept {}", self.path.display());
        } else {
            // Litter in /tmp is no reason to fail.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn give_to_test_user(path: &Path) {
    chown_to_test_user(path);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("could not set a mode");
}

/// Gives one file or directory to the test user; nothing to do unless the tests run as root.
pub fn chown_to_test_user(path: &Path) {
    let user = test_user();
    if user.step_down {
        chown(path, Some(user.uid), Some(user.gid)).expect("root may change owners");
    }
}

/// Cargo builds the two small binaries with `--workspace` only, while `cargo test --test x` builds this package: so they
/// are brought up to date once a test process, unless `scripts/test` has just done it.
fn built_binary(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let pitr = Path::new(env!("CARGO_BIN_EXE_pitr"));
    BUILT.get_or_init(|| {
        if std::env::var_os("PITR_TEST_BUILT").is_some() {
            return;
        }
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "archive-command", "--package", "restore-command"]);
        if pitr.parent().is_some_and(|dir| dir.ends_with("release")) {
            build.arg("--release");
        }
        // What cargo tells this test about its package would make it build ring, and all that rests on it, once more.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                build.env_remove(name);
            }
        }
        let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("could not start cargo");
        assert!(status.success(), "could not build the small binaries: see cargo's message above");
    });
    let path = pitr.with_file_name(name);
    assert!(path.exists(), "{} is not built: run cargo build --workspace", path.display());
    path
}
