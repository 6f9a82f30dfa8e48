//! `--start`: from a written directory to a server at its target, and whether that is where it was meant to be.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::databases::Databases;
use super::ground::Ground;
use super::resolve::Resolved;
use super::write::Written;
use super::{Args, RestoreError};
use crate::command::Context;
use crate::command::replay::Road;
use crate::pgdata::replay_log::Replay;
use crate::pgdata::start::{Start, configuration_of};
use crate::pgdata::{StartError, binaries};
use crate::recovery::{RestorePlan, TargetKind};
use crate::wal::{Lsn, SegmentName};

/// How often a line is written where there is no terminal, and how often the bar moves where there is one: each time costs a
/// small read in the repository.
const LINE_EVERY: Duration = Duration::from_secs(10);
const BAR_EVERY: Duration = Duration::from_millis(500);

/// A server at its target.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Reached {
    /// What its log said.
    pub(super) replay: Replay,
    /// It stopped where the plan said.
    pub(super) as_planned: bool,
    /// Directory and port of a clone's socket.
    pub(super) socket: Option<(PathBuf, u16)>,
    /// The server's log.
    pub(super) log: PathBuf,
    /// Its programs.
    pub(super) binaries: PathBuf,
}

/// The programs to start it with. Looked for before anything is written: without them `--start` cannot be kept.
pub(super) fn programs(args: &Args, resolved: &Resolved) -> Result<PathBuf, RestoreError> {
    let given = args.pg_bin.as_deref().or(resolved.cluster.pg_bin.as_deref());
    Ok(binaries::find(given, resolved.info.postgres_major)?)
}

/// Starts the server and follows it.
pub(super) fn start(
    args: &Args,
    context: &Context,
    resolved: &Resolved,
    ground: &Ground,
    written: &Written,
    binaries: PathBuf,
) -> Result<Reached, RestoreError> {
    let (has_configuration, has_hba) = configuration_of(&ground.target);
    let config_file = args.config_file.as_deref().map(absolute).transpose()?;
    let start = Start {
        data: ground.target.clone(),
        binaries: binaries.clone(),
        owner: ground.owner,
        config_file,
        has_configuration,
        has_hba,
        limits: resolved.plan.limits.map_or(written.limits, |wal| written.limits.highest(wal)),
        clone: !args.take_over,
        action: args.action.into(),
    };
    let mut started = start.start()?;
    let shown = Shown::begin(context.stderr_is_terminal, resolved);
    let replay = started.follow(&context.interrupt.flag(), |replay| shown.step(replay));
    shown.finish();
    let replay = replay?;
    let as_planned = as_planned(&resolved.plan, &replay);
    let log = started.log().to_owned();
    Ok(Reached { replay, as_planned, socket: started.socket, log, binaries })
}

fn absolute(path: &Path) -> Result<PathBuf, RestoreError> {
    std::path::absolute(path).map_err(|source| RestoreError::Local { path: path.to_owned(), source })
}

/// Whether the server's words fit the plan's stop point.
fn as_planned(plan: &RestorePlan, replay: &Replay) -> bool {
    match &plan.recovery_target.kind {
        TargetKind::Time(_) | TargetKind::Xid(_) => {
            let side = if plan.stop.before { "recovery stopping before" } else { "recovery stopping after" };
            let right_side = replay.stopped.as_deref().is_some_and(|stopped| stopped.starts_with(side));
            right_side && replay.xid == plan.stop.xid && replay.time == plan.stop.time
        }
        TargetKind::Lsn(lsn) => replay.stopped.is_some() && replay.lsn.is_some_and(|reached| reached >= *lsn),
        TargetKind::Name(_) | TargetKind::Immediate => replay.stopped.is_some(),
        // The last record replayed begins after the last commit that the archive has, or is that commit.
        TargetKind::Latest => {
            let last = plan.last_commit.map(|commit| commit.lsn).filter(|lsn| *lsn >= plan.backup.start_lsn);
            replay.stopped.is_none() && replay.lsn.is_some_and(|reached| last.is_none_or(|last| reached >= last))
        }
    }
}

/// Shows how far the replay is: by the segment that the server took last, measured by the plan.
struct Shown {
    road: RefCell<Road>,
    from: Lsn,
    begun: Instant,
    bar: Option<ProgressBar>,
    last: Cell<(Option<SegmentName>, Instant)>,
}

impl Shown {
    fn begin(terminal: bool, resolved: &Resolved) -> Shown {
        let (plan, from) = (resolved.plan.clone(), resolved.plan.backup.start_lsn);
        let road = Road::new(resolved.server.clone(), resolved.record.segment_size_bytes, plan, Some(from));
        // The template is fixed; if it were wrong, the plain bar would do as well.
        let style = ProgressStyle::with_template("{bar:30} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = terminal.then(|| ProgressBar::new(1000).with_style(style));
        let begun = Instant::now();
        Shown { road: RefCell::new(road), from, begun, bar, last: Cell::new((None, begun)) }
    }

    fn step(&self, replay: &Replay) {
        let (shown, at) = self.last.get();
        let every = if self.bar.is_some() { BAR_EVERY } else { LINE_EVERY };
        let Some(segment) = replay.segment.filter(|segment| shown != Some(*segment) && at.elapsed() >= every) else {
            return;
        };
        self.last.set((Some(segment), Instant::now()));
        let mut road = self.road.borrow_mut();
        let lsn = road.start_of(segment);
        let position = road.position(lsn, None, Some(self.from), self.begun.elapsed());
        match &self.bar {
            Some(bar) => {
                bar.set_position(position.permille());
                bar.set_message(position.line());
            }
            None => eprintln!("{}", position.line()),
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Fails if replay passed over pages of databases that should be whole.
pub(super) fn whole(databases: Option<&Databases>, reached: &Reached) -> Result<(), RestoreError> {
    let databases = databases.map(|databases| databases.invalid(&reached.replay)).unwrap_or_default();
    if databases.is_empty() { Ok(()) } else { Err(RestoreError::InvalidPages { databases, log: reached.log.clone() }) }
}

/// The error of a server that stopped elsewhere.
pub(super) fn elsewhere(ground: &Ground, reached: &Reached) -> RestoreError {
    let words = reached.replay.stopped.clone().unwrap_or_else(|| "it went on to the end of the WAL".to_owned());
    let reason = format!("it stopped elsewhere than planned: {words}");
    StartError::Ended { data: ground.target.clone(), reason, log: reached.log.clone() }.into()
}
