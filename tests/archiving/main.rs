//! `pitr-wal-push` with real servers and their files: what is stored, what is refused, and what faults do to it.

mod ahead;
mod content;
mod continuity;
mod faults;
#[path = "../harness/mod.rs"]
mod harness;
mod identity;
mod split_brain;

use std::path::{Path, PathBuf};

use harness::{Server, Site, Stop, TestDir};

/// Offset of a byte inside the first record of a segment that begins after a switch.
const INSIDE_A_RECORD: usize = 72;

/// A directory with the data directory's `pg_control` and a `pg_wal`, and nothing else: enough for the small programs.
fn data_directory_like(site: &Site, name: &str) -> PathBuf {
    let path = site.dir.make_dir(name);
    for folder in ["global", "pg_wal", "pg_wal/archive_status"] {
        site.dir.make_dir(Path::new(name).join(folder));
    }
    let control = std::fs::read(site.server.data_dir().join("global/pg_control")).expect("readable");
    site.dir.write(Path::new(name).join("global/pg_control"), control);
    path
}

/// A server that is a copy of a site's, down to the system identifier: what a snapshot of a machine gives. The original is
/// stopped for the copy and runs again.
fn clone(site: &mut Site, name: &str) -> Server {
    site.server.stop(Stop::Fast);
    let target = site.dir.join(name);
    let copied = std::process::Command::new("cp").arg("-a").arg(site.server.data_dir()).arg(&target).status();
    assert!(copied.expect("cp runs").success());
    site.server.start();
    Server::adopt(&site.dir, &site.server.postgres, name, &target)
}

/// Bytes of peak memory of a command and its children, and its exit status.
fn peak_memory(dir: &TestDir, command: &std::process::Command) -> (u64, i32) {
    use harness::Run;
    let script = "import resource,subprocess,sys; status=subprocess.call(sys.argv[1:]); \
                  print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, status)";
    let mut measured = std::process::Command::new("/usr/bin/env");
    measured.args(["python3", "-c", script]).arg(command.get_program()).args(command.get_args()).env_clear();
    measured.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", dir.path());
    measured.current_dir(command.get_current_dir().unwrap_or(dir.path()));
    let said = measured.run().ok().stdout;
    let mut numbers = said.split_whitespace().map(|word| word.parse::<i64>().expect("two numbers"));
    let (kib, status) = (numbers.next().expect("memory"), numbers.next().expect("status"));
    (kib.unsigned_abs() * 1024, i32::try_from(status).expect("a status"))
}
