//! The verbs: `pitr backup`, `pitr restore`, …, and the two small programs that PostgreSQL calls.
//!
//! Layer 5. Each verb is a module with its `Args` (what clap reads), its error enum, and `run(&Args, &Context)`; a large
//! verb is a folder split by phase. To add one: a variant of [`Verb`] and a line in [`Verb::run`]. What an error says to
//! the user is in [`crate::report`], not here.
//!
//! `pitr-wal-push` and `pitr-wal-fetch` do not pass through here: they read their few arguments themselves, because
//! they are started once a segment.

pub mod backup;
pub mod call;
pub mod check;
pub mod config_show;
mod confirm;
pub mod contents;
mod context;
pub mod copy;
mod cost;
pub mod diff;
pub mod expire;
pub mod fetch;
pub mod find;
pub mod history;
pub mod host;
pub mod init;
pub mod keeping;
pub mod list;
pub mod log;
mod looking;
mod output;
mod pace;
pub mod plan;
pub mod progress;
pub mod push;
pub mod reindex;
mod replay;
pub mod restore;
pub mod server;
pub mod several;
pub mod show;
pub mod status;
pub mod timelines;
pub mod verify;

pub use context::{Context, Interrupt};
pub use looking::{LookError, RepositoryArg};
pub use output::Output;
pub use replay::Position;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, Parser, Subcommand};
use cost::Cost;

use crate::config::{ClusterName, Config, RepositoryName};
use crate::report::{ExitStatus, Explain, Program, Report, run_program};

/// WAL archive and point-in-time recovery for PostgreSQL
///
/// pitr keeps a server's write-ahead log and base backups in a repository, and brings the cluster back to the exact
/// moment you ask for.
#[derive(Debug, Parser)]
#[command(name = "pitr", version, max_term_width = 100, after_help = AFTER_HELP)]
#[command(disable_help_subcommand = false, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

const AFTER_HELP: &str = "\
Set up:   pitr init                  make the repository, see what the server still needs
          pitr check                 prove that archiving works, end to end
          pitr backup                take a base backup
          pitr copy --from NAME --to NAME   bring a further repository up to date
Keep:     pitr expire --dry-run      what the retention rules let go, and why
          pitr keep BACKUP           whatever the rules say
          pitr forget BACKUP         what closes without it; expire removes it days later
Look:     pitr status                what can be restored, and how fresh the archive is
          pitr list                  the base backups
          pitr show latest           what is in one: databases, the largest tables, where its bytes are
          pitr diff BACKUP latest    what changed between two: tables, databases, configuration
          pitr verify                whether all that is stored is whole, and what it means where it is not
          pitr timelines             forks and branches, who archived them, which one is live
          pitr log                   what happened: commits, rows, drops, restore points
          pitr find drop TABLE       when it was dropped (truncated, emptied), and what brings it back
Restore:  pitr plan --to \"5 min ago\"   whether that moment can be reached, what is kept and what is lost
          pitr restore --to \"2026-03-02 14:25:00+01\" --target /var/lib/postgresql/restored --dry-run
          pitr progress --data /var/lib/postgresql/restored

The configuration is /etc/pitr/pitr.toml, or the file that --config or PITR_CONFIG names. Each setting can be given in the \
environment as well (PITR_REPOSITORY, PITR_CLUSTER, ...); \"pitr config show\" lists them all.";

/// What every verb accepts.
#[derive(Debug, Args)]
pub struct GlobalArgs {
    /// Configuration file
    #[arg(long, global = true, value_name = "FILE", help_heading = "For all commands")]
    pub config: Option<PathBuf>,
    /// The cluster that is meant, by its name in the configuration
    #[arg(long, global = true, value_name = "NAME", help_heading = "For all commands")]
    pub cluster: Option<ClusterName>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true, help_heading = "For all commands")]
    pub json: bool,
    /// Say at the end what it cost: requests to the store, bytes and time
    #[arg(long, global = true, help_heading = "For all commands")]
    pub stats: bool,
    /// Say more about what is being done (twice: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "For all commands")]
    pub verbose: u8,
}

/// What `pitr` can do.
#[derive(Debug, Subcommand)]
enum Verb {
    Init(init::Args),
    Check(check::Args),
    Backup(backup::Args),
    Plan(Box<plan::Args>),
    Find(Box<find::Args>),
    Log(Box<log::Args>),
    Restore(Box<restore::Args>),
    Status(status::Args),
    List(list::Args),
    Show(show::Args),
    Diff(diff::Args),
    Annotate(keeping::annotate::Args),
    Keep(keeping::keep::Args),
    Forget(keeping::forget::Args),
    Expire(expire::Args),
    Reindex(reindex::Args),
    Timelines(timelines::Args),
    Copy(copy::Args),
    Verify(verify::Args),
    Progress(progress::Args),
    /// Look at the configuration
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
}

/// What can be done with the configuration.
#[derive(Debug, Subcommand)]
enum ConfigVerb {
    /// Show each setting, its value, and where it comes from
    Show(config_show::Args),
}

impl Verb {
    /// Which of the cluster's repositories is meant, where that can be said.
    fn repository(&self) -> Option<RepositoryName> {
        let RepositoryArg { repository } = match self {
            Verb::Backup(args) => &args.repository,
            Verb::Plan(args) => &args.repository,
            Verb::Find(args) => &args.repository,
            Verb::Log(args) => &args.repository,
            Verb::Restore(args) => &args.repository,
            Verb::Status(args) => &args.repository,
            Verb::List(args) => &args.repository,
            Verb::Show(args) => &args.repository,
            Verb::Diff(args) => &args.repository,
            Verb::Annotate(args) => &args.repository,
            Verb::Keep(args) => &args.repository,
            Verb::Forget(args) => &args.repository,
            Verb::Expire(args) => &args.repository,
            Verb::Reindex(args) => &args.repository,
            Verb::Timelines(args) => &args.repository,
            Verb::Verify(args) => &args.repository,
            Verb::Init(_) | Verb::Check(_) | Verb::Copy(_) | Verb::Progress(_) | Verb::Config { .. } => return None,
        };
        repository.clone()
    }

    fn run(&self, context: &Context) -> Result<ExitStatus, Report> {
        match self {
            Verb::Init(args) => init::run(args, context).map_err(|error| error.report()),
            Verb::Check(args) => check::run(args, context).map_err(|error| error.report()),
            Verb::Backup(args) => backup::run(args, context).map_err(|error| error.report()),
            Verb::Plan(args) => plan::run(args, context).map_err(|error| error.report()),
            Verb::Find(args) => find::run(args, context).map_err(|error| error.report()),
            Verb::Log(args) => log::run(args, context).map_err(|error| error.report()),
            Verb::Restore(args) => restore::run(args, context).map_err(|error| error.report()),
            Verb::Status(args) => status::run(args, context).map_err(|error| error.report()),
            Verb::Progress(args) => progress::run(args, context).map_err(|error| error.report()),
            Verb::Timelines(args) => timelines::run(args, context).map_err(|error| error.report()),
            Verb::Verify(args) => verify::run(args, context).map_err(|error| error.report()),
            Verb::Copy(args) => copy::run(args, context).map_err(|error| error.report()),
            Verb::List(args) => list::run(args, context).map_err(|error| error.report()),
            Verb::Show(args) => show::run(args, context).map_err(|error| error.report()),
            Verb::Diff(args) => diff::run(args, context).map_err(|error| error.report()),
            Verb::Annotate(args) => keeping::annotate::run(args, context).map_err(|error| error.report()),
            Verb::Keep(args) => keeping::keep::run(args, context).map_err(|error| error.report()),
            Verb::Forget(args) => keeping::forget::run(args, context).map_err(|error| error.report()),
            Verb::Expire(args) => expire::run(args, context).map_err(|error| error.report()),
            Verb::Reindex(args) => reindex::run(args, context).map_err(|error| error.report()),
            Verb::Config { verb: ConfigVerb::Show(args) } => {
                config_show::run(args, context).map_err(|error| error.report())
            }
        }
    }
}

/// The program `pitr`.
#[must_use]
pub fn main() -> ExitCode {
    run_program(Program::Pitr, || {
        let cli = match Cli::try_parse() {
            Ok(cli) => cli,
            Err(error) => return usage(&error),
        };
        log_to_stderr(cli.global.verbose);
        let config = Config::load(cli.global.config.as_deref()).map_err(|error| error.report())?;
        let GlobalArgs { cluster, json, stats, .. } = cli.global;
        let begun = Instant::now();
        let outcome = cli.verb.run(&Context::new(config, cluster, cli.verb.repository(), json)?);
        if stats {
            Cost::since(begun).print(Program::Pitr, json);
        }
        outcome
    })
}

/// Help and version go to standard output; a mistake is told like every other error.
fn usage(error: &clap::Error) -> Result<ExitStatus, Report> {
    if !error.use_stderr() {
        // A reader that went away, as "pitr help | head" does, is no failure.
        let _ = error.print();
        return Ok(ExitStatus::Success);
    }
    if error.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = error.print();
        return Err(Report::new(ExitStatus::Usage, "a command is missing", "", "Choose one of the commands above."));
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let what = text.split("\n\n").next().unwrap_or(text).trim();
    let usage = text.split("\n\n").find(|part| part.starts_with("Usage: ")).unwrap_or("").trim();
    Err(Report::new(ExitStatus::Usage, what, usage, "\"pitr help COMMAND\" shows the options of a command."))
}

/// Log lines of the layers below go to standard error: warnings always, more with `-v`, or as `PITR_LOG` says
/// (`tracing-subscriber`'s filter syntax).
fn log_to_stderr(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("PITR_LOG").unwrap_or_else(|_| EnvFilter::new(format!("pitr={level}")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .with_target(false)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// clap's own check of the whole tree of commands: no two options of one name, no impossible combination.
    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command and option has a help text: a tired person guesses wrong.
    #[test]
    fn everything_is_explained() {
        fn walk(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} is not explained", command.get_name());
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{} of {} is not explained", arg.get_id(), command.get_name());
            }
            command.get_subcommands().for_each(walk);
        }
        let mut command = Cli::command();
        command.build();
        walk(&command);
    }
}
