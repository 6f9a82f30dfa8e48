//! `pitr-wal-fetch` by hand and in real recoveries: what it delivers, and what it says when it does not.

mod ahead;
mod answers;
mod damage;
#[path = "../harness/mod.rs"]
mod harness;
mod recovery;
mod standby;

use std::fs;
use std::path::Path;

use harness::{Run, as_test_user};

/// Puts a FIFO that nobody writes to in a file's place and gives the file's new name: opening it waits for ever, as a dead
/// file server lets one wait.
fn hang(path: &Path) -> std::path::PathBuf {
    let away = path.with_extension("away");
    fs::rename(path, &away).expect("moved");
    as_test_user("mkfifo").arg(path).run().ok();
    away
}
