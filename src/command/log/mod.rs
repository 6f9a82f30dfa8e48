//! `pitr log`: what happened, in the order of the WAL.
//!
//! `filter` chooses, `words` puts what happened into words, `summary` draws it.

mod filter;
mod follow;
mod summary;
mod words;

use std::cell::{Cell, RefCell};
use std::io::{self, Write};

use serde::Serialize;

use super::Context;
use super::history::{History, HistoryError, Hole, Place, RangeArgs, Reading, RelationPattern};
use crate::command::looking::RepositoryArg;
use crate::recovery::{Road, TargetKind};
use crate::report::ExitStatus;
use crate::wal::activity::Activity;
use crate::wal::{PgTime, TimelineId, Xid};
use filter::Filter;
pub use filter::Kind;
pub use summary::Period;

/// Show what happened: commits with their rows, drops, truncates, restore points, checkpoints, settings
///
/// Read from the stored WAL itself, in its order, with relations by name, times in UTC and local time. Reading begins at the newest
/// base backup before --to unless --from says otherwise. With names, it begins at the last base backup before the range: the names stand
/// in it, and are followed from there on.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to look.
    #[command(flatten)]
    pub range: RangeArgs,
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
    /// Only these kinds
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,...", help_heading = "What to show")]
    pub kind: Vec<Kind>,
    /// Only what touched this relation: NAME, SCHEMA.NAME, with * and ?
    #[arg(long, value_name = "NAME", help_heading = "What to show")]
    pub relation: Option<RelationPattern>,
    /// Only what happened in this database
    #[arg(long, value_name = "NAME", help_heading = "What to show")]
    pub database: Option<String>,
    /// Only this transaction
    #[arg(long, value_name = "XID", value_parser = xid, help_heading = "What to show")]
    pub xid: Option<Xid>,
    /// Numbers instead of names: quick, for only the WAL of the range is read
    #[arg(long, conflicts_with_all = ["relation", "database"], help_heading = "How to show it")]
    pub numbers: bool,
    /// A bar chart of activity instead of the single events
    #[arg(long, conflicts_with = "follow", help_heading = "How to show it")]
    pub summary: bool,
    /// Length of a line of the summary
    #[arg(long, value_enum, default_value_t = Period::Minute, requires = "summary", help_heading = "How to show it")]
    pub per: Period,
    /// Go on showing what is archived from now on
    #[arg(short, long, conflicts_with = "to", help_heading = "How to show it")]
    pub follow: bool,
}

const EXAMPLES: &str = "\
Examples:  pitr log --from \"1 hour ago\"
           pitr log --from \"today 02:00\" --to \"today 03:00\" --summary
           pitr log --kind drop,truncate,rewrite
           pitr log --relation public.orders --from \"2 hours ago\" --json
           pitr log --xid 731";

/// An entry of the log, for programs: one JSON object a line.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    timeline: TimelineId,
    /// The last known time, where the entry has none of its own.
    time: Option<PgTime>,
    kinds: Vec<Kind>,
    #[serde(flatten)]
    activity: &'a Activity,
}

/// Shows the log.
///
/// # Errors
/// See [`HistoryError`].
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, HistoryError> {
    let mut history = History::open(context, args.range.system_identifier)?;
    let filter = Filter {
        within: history.within(&args.range)?,
        kinds: args.kind.clone(),
        relation: args.relation.clone(),
        database: args.database.clone(),
        xid: args.xid,
    };
    let road = history.road(args.range.timeline)?;
    let size = history.record.segment_size_bytes;
    let place = Place::of(&road, &filter.within, size, !args.numbers, &mut history.evidence())?;
    let mut show = Show::new(args, context, &history);
    let place = match place {
        None if args.follow => match follow::wait_for_place(&mut history, args, &filter, context)? {
            Some(place) => place,
            None => return Ok(ExitStatus::Success),
        },
        None => {
            eprintln!("Nothing that is stored lies in this range. \"pitr timelines\" shows what is stored.");
            show.end()?;
            return Ok(ExitStatus::Success);
        }
        Some(place) => place,
    };
    let road = history.road(args.range.timeline)?;
    let mut reading = Reading::begin(&history, &place, !args.numbers)?;
    read_on(&mut reading, &history, &road, &place, &filter, context, &mut show)?;
    if args.follow {
        let timeline = road.timeline();
        return follow::follow(&mut history, timeline, args, reading, &place, &filter, context, &mut show);
    }
    for note in reading.notes() {
        eprintln!("note: {note}");
    }
    if show.shown == 0 {
        eprintln!("Nothing in this range is what was asked for.");
    }
    show.end()?;
    Ok(ExitStatus::Success)
}

/// Reads a transaction's id as SQL shows it, of 32 or 64 bits.
fn xid(text: &str) -> Result<Xid, String> {
    match TargetKind::parse_xid(text) {
        Ok(TargetKind::Xid(xid)) => Ok(xid),
        Ok(_) => Err("it is no transaction".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads what there is on a road, and shows what is asked for.
fn read_on(
    reading: &mut Reading,
    history: &History,
    road: &Road<'_>,
    place: &Place,
    filter: &Filter,
    context: &Context,
    show: &mut Show<'_>,
) -> Result<(), HistoryError> {
    let failed = Cell::new(None);
    let show = RefCell::new(show);
    let mut each = |activity: Activity, time: Option<PgTime>| {
        if filter.wants(&activity, time)
            && let Err(error) = show.borrow_mut().entry(&activity, time, road.timeline_at(activity.lsn()))
        {
            failed.set(Some(error));
        }
    };
    reading.run(history, road, place.last, &context.interrupt, &mut each, &mut |segment| match failed.take() {
        Some(error) => Err(error.into()),
        None => Ok(segment.holes.iter().try_for_each(|hole| show.borrow_mut().hole(hole))?),
    })
}

/// Where entries go.
struct Show<'a> {
    out: super::Output,
    json: bool,
    history_zone: jiff::tz::TimeZone,
    summary: Option<summary::Summary>,
    args: &'a Args,
    /// Entries so far.
    shown: u64,
}

impl<'a> Show<'a> {
    fn new(args: &'a Args, context: &Context, history: &History) -> Show<'a> {
        let zone = history.zone.clone();
        let summary = args.summary.then(|| summary::Summary::new(args.per, zone.clone()));
        Show { out: context.stdout(), json: context.json, history_zone: zone, summary, args, shown: 0 }
    }

    fn entry(&mut self, activity: &Activity, time: Option<PgTime>, timeline: TimelineId) -> io::Result<()> {
        self.shown += 1;
        if let Some(summary) = &mut self.summary {
            summary.add(activity, time, self.args.relation.as_ref());
            return Ok(());
        }
        if self.json {
            let entry = Entry { timeline, time, kinds: filter::kinds(activity), activity };
            serde_json::to_writer(&mut self.out, &entry)?;
            return self.out.write_all(b"\n");
        }
        words::write(activity, time, &self.history_zone, &mut self.out)
    }

    /// What could not be read, at its place: among the entries for people, on standard error for programs.
    fn hole(&mut self, hole: &Hole) -> io::Result<()> {
        let told = hole.told(&self.history_zone);
        if self.json || self.summary.is_some() {
            eprintln!("note: {told}");
            return Ok(());
        }
        writeln!(self.out, "*** {told} ***")
    }

    /// Everything up to now is shown.
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn end(&mut self) -> io::Result<()> {
        if let Some(summary) = self.summary.take() {
            summary.write(self.json, &mut self.out)?;
        }
        self.out.flush()
    }
}
