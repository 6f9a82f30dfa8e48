//! `pitr restore`: brings a cluster back to a moment.
//!
//! Split by phase, each of which ends with a value that the next one takes:
//!
//! ```text
//! args ─► resolve (target, plan) ─► survey (the backup's files) ─► databases ─► ground (directories) ─► show ─► ask
//!                                                                      ─► write ─► start ─► summary
//! ```
//!
//! Nothing is written before the question is answered. The plan is a value: `--dry-run` prints it, `--json` emits it, and the
//! same value is carried out.

mod args;
mod ask;
mod before_drop;
mod databases;
mod error;
mod ground;
mod later_tablespaces;
mod progress;
mod replayed;
mod resolve;
mod settings;
mod show;
mod space;
mod start;
mod summary;
mod survey;
mod target;
mod trust;
mod watched;
mod write;

use std::io::Write as _;

use serde::Serialize;

pub use args::{Action, Args};
pub use error::RestoreError;
use ground::Ground;
use replayed::Replayed;
pub use target::TargetArgs;

use super::Context;
use crate::recovery::{RecoveryTarget, Refusal, RestorePlan};
use crate::report::{ExitStatus, Explain};

/// The JSON document: the plan, and what came of it.
#[derive(Serialize)]
struct Document<'a> {
    cluster: &'a str,
    reachable: bool,
    plan: &'a RestorePlan,
    files: &'a survey::Survey,
    /// Settings that are too low for the WAL on the way.
    settings: &'a [settings::Shortfall],
    directories: Option<&'a ground::Ground>,
    /// With `--only-database`: which ones get their content.
    databases: Option<&'a databases::Databases>,
    /// With `--trust-times`: of which files.
    trust: Option<&'a trust::Trust>,
    /// The file systems to be written to.
    disks: &'a [space::Disk],
    notes: &'a [String],
    take_over: bool,
    written: Option<&'a write::Written>,
    reached: Option<&'a start::Reached>,
}

/// The JSON document where there is no plan. The three parts are those of the message on standard error.
#[derive(Serialize)]
struct Refused<'a> {
    cluster: &'a str,
    reachable: bool,
    target: &'a RecoveryTarget,
    refusal: &'a Refusal,
    error: &'a str,
    detail: &'a str,
    hint: &'a str,
}

/// Restores, or shows how it would.
///
/// # Errors
/// See [`RestoreError`]. What was written is left as a broken-off restore, which the same command continues.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, RestoreError> {
    if args.take_over && !args.only_database.is_empty() {
        return Err(RestoreError::PartTakesOver);
    }
    let resolved = match resolve::resolve(args, context) {
        Ok(resolved) => resolved,
        Err(error) => {
            tell_refusal(&error, context)?;
            return Err(error);
        }
    };
    let mut survey = survey::survey(&resolved.server, &resolved.info)?;
    let looks = args.target.is_some() || !args.only_database.is_empty();
    let replayed = if looks { replayed::replayed(&resolved)? } else { Replayed::default() };
    let databases = databases::choose(args, &resolved, &mut survey, &replayed)?;
    let settings = settings::too_low(args, &resolved, &survey)?;
    let ground = ground::survey(args, &resolved.info, &resolved.cluster.repositories())?;
    if let Some(ground) = &ground {
        later_tablespaces::check(&replayed.events, ground)?;
    }
    let trust = ground.as_ref().filter(|_| args.trust_times);
    let trust = trust.map(|ground| trust::trust(&ground.target, &ground.target_holds, &resolved.info, &replayed));
    let binaries = if args.start { Some(start::programs(args, &resolved)?) } else { None };
    let disks = ground.as_ref().map_or_else(|| Ok(Vec::new()), |ground| space::disks(ground, &resolved, &survey))?;
    let mut notes = show::notes(&resolved, &survey, ground.as_ref());
    notes.extend(
        databases.iter().flat_map(|databases| databases.notes(ground.as_ref().is_some_and(Ground::has_cluster))),
    );
    notes.extend(trust.as_ref().map(trust::note));
    notes.extend(settings.iter().map(settings::note));
    notes.extend(disks.iter().filter_map(space::note));
    let cluster = resolved.cluster.name.to_string();
    let document = Document {
        cluster: &cluster,
        reachable: true,
        plan: &resolved.plan,
        files: &survey,
        settings: &settings,
        directories: ground.as_ref(),
        databases: databases.as_ref(),
        trust: trust.as_ref(),
        disks: &disks,
        notes: &notes,
        take_over: args.take_over,
        written: None,
        reached: None,
    };
    if !context.json {
        let mut out = context.stdout();
        out.write_all(show::text(args, &resolved, &survey, ground.as_ref(), databases.as_ref(), &notes).as_bytes())?;
        out.flush()?;
    } else if args.dry_run {
        context.stdout().json(&document)?;
    }
    // Without a target there is only the plan; the command line allows that with --dry-run alone.
    let Some(ground) = ground.as_ref().filter(|_| !args.dry_run) else { return Ok(ExitStatus::Success) };
    space::check(ground, &disks)?;
    if !args.yes {
        ask::confirm(ground, context)?;
    }
    let choice = write::Choice { databases: databases.as_ref(), trust: trust.as_ref() };
    let written = write::write(args, context, &resolved, &survey, ground, choice)?;
    let reached = match binaries {
        Some(binaries) => Some(start::start(args, context, &resolved, ground, &written, binaries)?),
        None => None,
    };
    if context.json {
        context.stdout().json(&Document { written: Some(&written), reached: reached.as_ref(), ..document })?;
    } else {
        let mut out = context.stdout();
        out.write_all(summary::text(args, ground, databases.as_ref(), &written, reached.as_ref()).as_bytes())?;
        out.flush()?;
    }
    match &reached {
        Some(reached) if !reached.as_planned => Err(start::elsewhere(ground, reached)),
        Some(reached) => start::whole(databases.as_ref(), reached).map(|()| ExitStatus::Success),
        None => Ok(ExitStatus::Success),
    }
}

/// With `--json`, a target that cannot be reached is an answer, and stands on standard output like every other.
fn tell_refusal(error: &RestoreError, context: &Context) -> Result<(), RestoreError> {
    let RestoreError::Unreachable { cluster, target, refusal, .. } = error else { return Ok(()) };
    if context.json {
        let told = error.report();
        let (error, detail, hint) = (&*told.what, &*told.meaning, &*told.hint);
        context.stdout().json(&Refused { cluster, reachable: false, target, refusal, error, detail, hint })?;
    }
    Ok(())
}
