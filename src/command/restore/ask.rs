//! The question before anything is written.

use super::RestoreError;
use super::ground::Ground;
use crate::command::{Context, confirm};
use crate::pgdata::state::Holds;

/// Asks a person; fails where there is none.
pub(super) fn confirm(ground: &Ground, context: &Context) -> Result<(), RestoreError> {
    let question = match &ground.target_holds {
        Holds::Cluster { .. } => format!("Replace the cluster in {}?", ground.target.display()),
        _ => format!("Restore into {}?", ground.target.display()),
    };
    confirm::ask(context, &question).map_err(|declined| RestoreError::Declined { asked: declined.asked })
}
