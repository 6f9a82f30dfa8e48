//! `pitr timelines`: the tree of a cluster's timelines, who archived them, and what can be restored on each.
//!
//! Looks at the repository only. Which branch is live cannot be read off the tree: after a restore both branches stand there, and
//! a server that was left behind may go on. It is judged by what was archived last, and said how; where several branches were
//! archived after the newest had begun, that is told, and who is right is for a person to say.

mod look;
mod origins;
mod show;

use super::looking::{LookError, RepositoryArg};
use super::{Context, host, looking};
use crate::report::ExitStatus;
pub use look::{ArchivedBy, ClusterTimelines, ForkPoint, Live, ServerTimelines, TimelineNode};

/// Draw the tree of timelines: forks, hosts, the live branch, and what can be restored on each
///
/// Each restore and each promotion begins a timeline. For each one this shows where and when it branched off and why, its
/// segments and who archived them, its recovery windows, and what is missing: history files, segments. Who archived is told by a
/// sample of the segments and looked for by halves where it changes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
}

/// Draws the tree.
///
/// # Errors
/// See [`LookError`].
pub fn run(_: &Args, context: &Context) -> Result<ExitStatus, LookError> {
    let (cluster, repository) = looking::open(context)?;
    let all = look::look(&repository.cluster(&cluster.name), repository.storage().describe())?;
    let mut out = context.stdout();
    if context.json {
        out.json(&all)?;
    } else {
        show::write(&all, &host::local_zone(), &mut out)?;
    }
    Ok(ExitStatus::Success)
}
