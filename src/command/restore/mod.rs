//! `pitr restore`: brings a cluster back to a moment.
//!
//! Split by phase, each of which ends with a value that the next one takes:
//!
//! ```text
//! args ─► resolve (target, plan) ─► survey (the backup's files) ─► ground (directories) ─► show ─► ask
//!                                                                      ─► write ─► start ─► summary
//! ```
//!
//! Nothing is written before the question is answered. The plan is a value: `--dry-run` prints it, `--json` emits it, and the
//! same value is carried out.

mod args;
mod ask;
mod error;
mod ground;
mod later_tablespaces;
mod progress;
mod resolve;
mod show;
mod start;
mod summary;
mod survey;
mod write;

use std::io::Write as _;

use serde::Serialize;

pub(super) use args::timeline;
pub use args::{Action, Args};
pub use error::RestoreError;

use super::Context;
use crate::recovery::RestorePlan;
use crate::report::ExitStatus;

/// The JSON document: the plan, and what came of it.
#[derive(Serialize)]
struct Document<'a> {
    cluster: &'a str,
    plan: &'a RestorePlan,
    files: &'a survey::Survey,
    directories: Option<&'a ground::Ground>,
    notes: &'a [String],
    take_over: bool,
    written: Option<&'a write::Written>,
    reached: Option<&'a start::Reached>,
}

/// Restores, or shows how it would.
///
/// # Errors
/// See [`RestoreError`]. What was written is left as a broken-off restore, which the same command continues.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, RestoreError> {
    let resolved = resolve::resolve(args, context)?;
    let survey = survey::survey(&resolved.server, &resolved.info)?;
    let ground = ground::survey(args, &resolved.info, &resolved.cluster.repository)?;
    if let Some(ground) = &ground {
        later_tablespaces::check(&resolved.server, &resolved.record, &resolved.plan, ground)?;
    }
    let binaries = if args.start { Some(start::programs(args, &resolved)?) } else { None };
    let notes = show::notes(&resolved, &survey, ground.as_ref());
    let cluster = resolved.cluster.name.to_string();
    let document = Document {
        cluster: &cluster,
        plan: &resolved.plan,
        files: &survey,
        directories: ground.as_ref(),
        notes: &notes,
        take_over: args.take_over,
        written: None,
        reached: None,
    };
    if !context.json {
        let mut out = context.stdout();
        out.write_all(show::text(args, &resolved, &survey, ground.as_ref()).as_bytes())?;
        out.flush()?;
    } else if args.dry_run {
        context.stdout().json(&document)?;
    }
    // Without a target there is only the plan; the command line allows that with --dry-run alone.
    let Some(ground) = ground.as_ref().filter(|_| !args.dry_run) else { return Ok(ExitStatus::Success) };
    ground.check_space(survey.bytes)?;
    if !args.yes {
        ask::confirm(ground, context)?;
    }
    let written = write::write(args, context, &resolved, &survey, ground)?;
    let reached = match binaries {
        Some(binaries) => Some(start::start(args, context, &resolved, ground, &written, binaries)?),
        None => None,
    };
    if context.json {
        context.stdout().json(&Document { written: Some(&written), reached: reached.as_ref(), ..document })?;
    } else {
        let mut out = context.stdout();
        out.write_all(summary::text(args, ground, &written, reached.as_ref()).as_bytes())?;
        out.flush()?;
    }
    match &reached {
        Some(reached) if !reached.as_planned => Err(start::elsewhere(ground, reached)),
        _ => Ok(ExitStatus::Success),
    }
}
