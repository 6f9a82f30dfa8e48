//! `pitr plan`: whether a moment can be reached, and how; `pitr restore --dry-run` without a directory.

use std::path::PathBuf;

use super::Context;
use super::restore::{self, RestoreError, TargetArgs};
use crate::command::looking::RepositoryArg;
use crate::report::ExitStatus;

/// Say whether a moment can be reached, and what a restore to it would keep and lose
///
/// Names the base backup, the timelines and the WAL that a restore would use, where it would stop, the last commit that is
/// kept, and how many commits behind it are lost. Where the moment cannot be reached, says why, and which moments before and
/// after it can. Nothing is written: this is what "pitr restore" with the same words shows before it asks. The exit status is 0
/// if the moment can be reached, and 19 if not.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to stop.
    #[command(flatten)]
    pub stop: TargetArgs,
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
    /// The postgresql.conf that the restored server will use, to check whether it allows what the WAL needs; without this, the
    /// backup's own
    #[arg(long, value_name = "FILE")]
    pub config_file: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:  pitr plan --to \"5 min ago\"
           pitr plan --to \"2026-03-02 14:25:03+01\" --json
           pitr plan --before-xid 731
           pitr plan --to-name before_migration --timeline 3";

/// Plans and shows.
///
/// # Errors
/// As [`restore::run`]; [`RestoreError::Unreachable`] if the moment cannot be reached.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, RestoreError> {
    restore::run(&restore::Args::plan(args.stop.clone(), args.config_file.clone()), context)
}
