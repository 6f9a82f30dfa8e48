//! `pitr find`: when the table was dropped, truncated or emptied, and the words that bring it back.
//!
//! `sought` says what is looked for, `search` goes through the stored WAL for it, `judge` asks whether the moment just before can be
//! reached, `show` tells.

mod judge;
mod points;
mod search;
mod show;
mod sought;

use serde::Serialize;

use super::Context;
use super::history::{History, HistoryError, NamePattern, RangeArgs, RelationPattern};
use crate::command::looking::RepositoryArg;
use crate::report::ExitStatus;
use crate::wal::{Lsn, PgTime};
pub use judge::Verdict;
pub(super) use search::{Extent, search};
pub use sought::{Candidate, Found, Renamed, Sought};

/// Find the moment when a table was dropped, truncated or emptied, or a restore point
///
/// Reads the stored WAL and lists what it finds, with time, transaction, LSN, and the command that restores to just before it. The WAL
/// since the newest base backup is searched first, then that of the base backup before it, and so on, until something is found;
/// --all goes on to the beginning. The exit status is 1 if nothing is found.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
}

const EXAMPLES: &str = "\
Examples:  pitr find drop public.orders
           pitr find truncate orders --from \"yesterday 18:00\"
           pitr find delete orders --at-least 1000
           pitr find restore-point \"before_*\"
           pitr restore --before-drop public.orders --target /var/lib/postgresql/restored

A name without a schema is looked for in all schemas and databases. * and ? stand for any letters; what is not in double quotes is \
folded to lower case, as in SQL.";

#[derive(Clone, Debug, clap::Subcommand)]
enum What {
    /// Tables, indexes, sequences, views, ... that were dropped: by DROP, with their schema, owner or database
    Drop(RelationArgs),
    /// Tables that were truncated. Below wal_level = logical, one that was rewritten while it was empty looks the same
    Truncate(RelationArgs),
    /// Transactions that deleted rows, those with the most rows first to be kept
    Delete(RowArgs),
    /// Transactions that updated rows, those with the most rows first to be kept
    Update(RowArgs),
    /// Restore points
    RestorePoint(PointArgs),
}

/// What every search accepts.
#[derive(Clone, Debug, clap::Args)]
struct SearchArgs {
    /// Where to look.
    #[command(flatten)]
    range: RangeArgs,
    /// Search all stored WAL, not only back to the first base backup after which something is found
    #[arg(long, conflicts_with = "from", help_heading = "Where to look")]
    all: bool,
    /// Most that is listed
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Where to look")]
    limit: u32,
}

#[derive(Clone, Debug, clap::Args)]
struct RelationArgs {
    /// NAME, SCHEMA.NAME or DATABASE.SCHEMA.NAME
    #[arg(value_name = "TABLE")]
    relation: RelationPattern,
    /// What every search accepts.
    #[command(flatten)]
    search: SearchArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct RowArgs {
    /// NAME, SCHEMA.NAME or DATABASE.SCHEMA.NAME
    #[arg(value_name = "TABLE")]
    relation: RelationPattern,
    /// Only transactions with at least so many rows of one table
    #[arg(long, value_name = "N", default_value_t = 1)]
    at_least: u64,
    /// What every search accepts.
    #[command(flatten)]
    search: SearchArgs,
}

#[derive(Clone, Debug, clap::Args)]
struct PointArgs {
    /// Its name; * and ? stand for any letters
    #[arg(value_name = "PATTERN")]
    name: String,
    /// What every search accepts.
    #[command(flatten)]
    search: SearchArgs,
}

/// What was found, for programs.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    /// Where the search began, and where it ended.
    searched_from: Lsn,
    searched_to: Lsn,
    /// The last time of a commit in between.
    last_time: Option<PgTime>,
    /// There is stored WAL before that, which was not searched.
    earlier_not_searched: bool,
    /// More were found than are listed.
    more: u64,
    candidates: Vec<Judged<'a>>,
    renamed: &'a [Renamed],
    notes: &'a [String],
}

/// A candidate with what a restore to just before it would give.
#[derive(Debug, Serialize)]
struct Judged<'a> {
    #[serde(flatten)]
    candidate: &'a Candidate,
    #[serde(flatten)]
    verdict: Verdict,
    command: String,
}

/// Searches and tells.
///
/// # Errors
/// See [`HistoryError`].
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, HistoryError> {
    let (sought, search_args) = args.what.sought();
    let history = History::open(context, search_args.range.system_identifier)?;
    let road = history.road(search_args.range.timeline)?;
    let within = history.within(&search_args.range)?;
    let limit = search_args.limit as usize;
    let found = match &sought {
        Ok(sought) => {
            let extent = Extent { all: search_args.all, limit };
            search(&history, &road, sought, &within, extent, context)?
        }
        Err(name) => points::restore_points(&history, &road, name, &within, limit)?,
    };
    let judged = found.candidates.iter().map(|candidate| {
        let verdict = judge::judge(&history, candidate, sought.is_ok())?;
        Ok(Judged { candidate, verdict, command: command(candidate, context) })
    });
    let answer = Answer {
        searched_from: found.from,
        searched_to: found.to,
        last_time: found.last_time,
        earlier_not_searched: found.earlier,
        more: found.more,
        candidates: judged.collect::<Result<_, HistoryError>>()?,
        // What was dropped in the end is not missed for its name.
        renamed: if found.candidates.is_empty() { &found.renamed } else { &[] },
        notes: &found.notes,
    };
    let mut out = context.stdout();
    if context.json {
        out.json(&answer)?;
    } else {
        show::write(&answer, &history.zone, within.to.is_none(), &mut out)?;
    }
    Ok(if found.candidates.is_empty() { ExitStatus::No } else { ExitStatus::Success })
}

impl What {
    /// What is looked for: something that happened to relations, or a restore point's name.
    fn sought(&self) -> (Result<Sought, NamePattern>, &SearchArgs) {
        match self {
            What::Drop(RelationArgs { relation, search }) => (Ok(Sought::Drop(relation.clone())), search),
            What::Truncate(RelationArgs { relation, search }) => (Ok(Sought::Truncate(relation.clone())), search),
            What::Delete(RowArgs { relation, at_least, search }) => {
                (Ok(Sought::Delete { relation: relation.clone(), at_least: *at_least }), search)
            }
            What::Update(RowArgs { relation, at_least, search }) => {
                (Ok(Sought::Update { relation: relation.clone(), at_least: *at_least }), search)
            }
            What::RestorePoint(PointArgs { name, search }) => (Err(NamePattern::plain(name)), search),
        }
    }
}

/// The command line that restores to a candidate.
fn command(candidate: &Candidate, context: &Context) -> String {
    let cluster = context.cluster.as_ref().map_or_else(String::new, |name| format!(" --cluster {name}"));
    format!("pitr restore{cluster} {} --target DIR", candidate.option)
}
