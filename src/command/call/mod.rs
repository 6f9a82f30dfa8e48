//! What `pitr-wal-push` and `pitr-wal-fetch` share: few arguments, which cluster is meant, and a deadline.
//!
//! PostgreSQL starts these programs once a segment and waits for them, so they read their arguments themselves, do
//! without a logger, and end in time whatever hangs. [`Server`] tells whose WAL is to be handled.

mod arguments;
mod deadline;
mod error;
mod server;

pub(super) use arguments::{Arguments, Asked};
pub(super) use deadline::{Deadline, Expiry};
pub use error::CallError;
pub(super) use server::{Identity, Open, Server};

use std::io::Write;

use crate::report::{ExitStatus, Program};

/// Prints what the user asked to see. A reader that went away is no failure.
pub(super) fn print(text: &str) -> ExitStatus {
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitStatus::Success
}

/// Where the repositories of the cluster lie, in words.
pub(super) fn places(server: &Server) -> String {
    let places = server.config.repositories();
    places.iter().map(|place| place.location.to_string()).collect::<Vec<_>>().join(" and ")
}

/// The line that `--version` prints.
pub(super) fn version(program: Program) -> String {
    format!("{program} {}\n", env!("CARGO_PKG_VERSION"))
}
