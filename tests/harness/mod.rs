//! What the integration tests share: real PostgreSQL servers of several majors in throw-away directories, run as an
//! unprivileged user also when the tests run as root, and processes that cannot hang.
//!
//! A test uses it with `mod harness;`. Nothing here asks the machine's own clusters for anything: servers listen on a
//! socket in their test's directory. `PITR_TEST_MAJORS=15,18` narrows the majors, `PITR_TEST_KEEP=1` keeps directories.
//!
//! * [`install`]: where the servers and the client tools are; [`install::majors`].
//! * [`process`]: [`process::as_test_user`] and commands with a deadline.
//! * [`random`]: numbers that a seed repeats.
//! * [`by_hand`]: WAL that waits, and calls of the small programs by hand.
//! * [`dir`]: [`TestDir`], the directory of one test.
//! * [`server`]: [`Server`], one running cluster.
//! * [`standby`]: servers in recovery.
//! * [`writer`]: [`Writer`], numbered rows with commit time, xid and LSN.
//! * [`site`]: [`Site`], a server that archives into a repository.

// Each integration test is a crate of its own that compiles this module and uses a part of it.
#![allow(dead_code, unreachable_pub, unused_imports)]

pub mod by_hand;
pub mod dir;
pub mod install;
pub mod process;
pub mod random;
pub mod server;
pub mod site;
pub mod standby;
pub mod writer;

pub use by_hand::{small, traced, waiting};
pub use dir::TestDir;
pub use install::{Postgres, client_tool, debian, major, majors, newest};
pub use process::{Finished, Run, as_test_user, test_user};
pub use random::{Random, seed};
pub use server::{Options, Server, Stop};
pub use site::Site;
pub use writer::{Row, Writer};

use std::time::{Duration, Instant};

/// The longest a test waits for anything that should take a moment. Generous, since two cores may carry ten servers.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Asks `probe` again and again until it gives a value; panics with `what` when [`PATIENCE`] is over.
pub fn wait_for<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    wait_for_within(PATIENCE, what, probe)
}

/// As [`wait_for`], with a deadline of the caller's.
pub fn wait_for_within<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(begun.elapsed() < patience, "waited {patience:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
