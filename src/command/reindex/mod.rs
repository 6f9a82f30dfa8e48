//! `pitr reindex`: roll-ups of the stored WAL, made from the stored segments alone.
//!
//! Goes through the groups of each timeline in WAL order. A group whose roll-up tells all there is to tell costs one read;
//! any other is read segment by segment, and its roll-up is durable before the next group begins, so a run that is broken
//! off is gone on with by the next. Records over the borders of segments are proved on the way, which archiving a single
//! segment cannot do.
//!
//! [`show`] has what the user sees.

mod show;

use std::io;

use serde::Serialize;

use super::Context;
use super::history::timeline;
use crate::command::looking::RepositoryArg;
use crate::config::ConfigError;
use crate::report::ExitStatus;
use crate::repository::reindex::{Problem, ProblemKind};
use crate::repository::{Repository, RepositoryError, ServerRecord, ServerRepository};
use crate::wal::{ClusterName, SegmentName, SystemIdentifier, TimelineId};
use show::Progress;

/// Read the stored WAL's descriptions into roll-ups, and prove its borders
///
/// Plans, "pitr status" and everything that asks what happened when read one roll-up instead of 256 segments. "pitr-wal-push"
/// writes them on the way, and backups make good what is missing; this command makes all that are missing or out of date, reads segments that were archived without being indexed,
/// and proves the records that lie over the borders of segments. It can be broken off and run again at any time, beside archiving,
/// backups and restores. Ends with status 0 if all stored WAL is good, and 1 if something in it is damaged.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
    /// Only this timeline
    #[arg(long, value_name = "N", value_parser = timeline)]
    pub timeline: Option<TimelineId>,
    /// Make every roll-up anew, trusting none that is there
    #[arg(long)]
    pub force: bool,
}

/// Why the index was not made.
#[derive(Debug, thiserror::Error)]
pub enum ReindexError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The repository cannot be read or written.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The timeline that was asked for has no WAL.
    #[error("cluster \"{cluster}\" has no WAL of timeline {timeline} in the repository")]
    NoTimeline {
        /// The cluster.
        cluster: ClusterName,
        /// The timeline.
        timeline: TimelineId,
    },
    /// Standard output cannot be written to.
    #[error("could not write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Outcome {
    cluster: ClusterName,
    /// Everything was gone through, and nothing is wrong.
    ok: bool,
    /// It was broken off: what follows is what was done until then.
    interrupted: bool,
    timelines: Vec<TimelineOutcome>,
    problems: Vec<Found>,
}

/// What came of one timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct TimelineOutcome {
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    /// Complete segments that are stored.
    segments: u64,
    /// Groups of them.
    groups: u64,
    /// Roll-ups that were written.
    written: u64,
    /// Segments that had no index and were read whole.
    scanned: u64,
}

/// Something wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Found {
    system_identifier: SystemIdentifier,
    timeline: TimelineId,
    segment: SegmentName,
    kind: ProblemKind,
    why: String,
}

/// Makes the roll-ups of all system identifiers of the cluster.
///
/// # Errors
/// See [`ReindexError`].
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, ReindexError> {
    let config = context.cluster_config()?;
    let storage = config.repository.open().map_err(RepositoryError::from)?;
    let cluster = Repository::open(storage)?.cluster(&config.name);
    let (timelines, problems) = (Vec::new(), Vec::new());
    let mut outcome = Outcome { cluster: config.name.clone(), ok: false, interrupted: false, timelines, problems };
    for record in cluster.servers()? {
        let server = cluster.server(record.system_identifier);
        for timeline in server.timelines()? {
            let wanted = args.timeline.is_none_or(|wanted| wanted == timeline);
            if wanted && !context.interrupt.requested() {
                go_through(&mut outcome, &server, &record, timeline, args, context)?;
            }
        }
    }
    if let (Some(timeline), []) = (args.timeline, outcome.timelines.as_slice()) {
        return Err(ReindexError::NoTimeline { cluster: config.name, timeline });
    }
    outcome.interrupted = context.interrupt.requested();
    outcome.ok = outcome.problems.is_empty() && !outcome.interrupted;
    show::tell(&outcome, context)?;
    Ok(match (outcome.interrupted, outcome.ok) {
        (true, _) => ExitStatus::Interrupted,
        (false, true) => ExitStatus::Success,
        (false, false) => ExitStatus::No,
    })
}

/// One timeline, group by group.
fn go_through(
    outcome: &mut Outcome,
    server: &ServerRepository,
    record: &ServerRecord,
    timeline: TimelineId,
    args: &Args,
    context: &Context,
) -> Result<(), ReindexError> {
    let system_identifier = record.system_identifier;
    let mut found = TimelineOutcome { system_identifier, timeline, segments: 0, groups: 0, written: 0, scanned: 0 };
    let groups = server.groups(timeline)?;
    let progress = Progress::begin(context.stderr_is_terminal, timeline, groups.len() as u64);
    let mut reindexer = server.reindexer(record, args.force);
    let go_on = || !context.interrupt.requested();
    for group in groups {
        let listing = server.list_group(group)?;
        let Some(report) = reindexer.group(&listing, &go_on)? else { break };
        found.groups += 1;
        found.segments += report.segments;
        found.written += u64::from(report.written);
        found.scanned += report.scanned;
        outcome.problems.extend(report.problems.into_iter().map(|problem| {
            let Problem { segment, kind, why } = problem;
            Found { system_identifier, timeline, segment, kind, why }
        }));
        progress.advance(found.segments);
    }
    progress.finish();
    outcome.timelines.push(found);
    Ok(())
}
