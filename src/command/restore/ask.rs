//! The question before anything is written.

use std::io::{BufRead, Write};

use super::RestoreError;
use super::ground::Ground;
use crate::command::Context;
use crate::pgdata::state::Holds;

/// Asks a person; fails where there is none.
pub(super) fn confirm(ground: &Ground, context: &Context) -> Result<(), RestoreError> {
    if !context.stdin_is_terminal {
        return Err(RestoreError::Declined { asked: false });
    }
    let question = match &ground.target_holds {
        Holds::Cluster { .. } => format!("Replace the cluster in {}? [y/N] ", ground.target.display()),
        _ => format!("Restore into {}? [y/N] ", ground.target.display()),
    };
    // Standard output may carry JSON.
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    if read.is_ok() && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        Ok(())
    } else {
        Err(RestoreError::Declined { asked: true })
    }
}
