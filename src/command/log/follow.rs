//! Going on with what is archived while the log is shown.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use super::super::history::{History, HistoryError, Place, Reading};
use super::filter::Filter;
use super::{Args, Context, Show, read_on};
use crate::recovery::Road;
use crate::report::ExitStatus;
use crate::wal::TimelineId;

/// How long to wait before looking again, at least; longer where looking takes long.
const PAUSE: Duration = Duration::from_secs(1);
/// Looking takes at most this part of the time.
const PART: u32 = 10;
/// How often a signal is looked for.
const BEAT: Duration = Duration::from_millis(100);

/// Shows what is archived until a signal comes.
#[allow(clippy::too_many_arguments)] // It goes on with all that the log was begun with.
pub(super) fn follow(
    history: &mut History,
    mut timeline: TimelineId,
    args: &Args,
    mut reading: Reading,
    place: &Place,
    filter: &Filter,
    context: &Context,
    show: &mut Show<'_>,
) -> Result<ExitStatus, HistoryError> {
    let mut passed = BTreeSet::new();
    loop {
        show.flush()?;
        let begun = Instant::now();
        history.refresh()?;
        if args.range.timeline.is_none() {
            timeline = newest_from(history, timeline, &reading, &mut passed);
        }
        let road = history.road(Some(timeline))?;
        let outcome = read_on(&mut reading, history, &road, place, filter, context, show);
        match outcome {
            Err(HistoryError::Interrupted) => break,
            outcome => outcome?,
        }
        show.flush()?;
        rest(begun, context);
        if context.interrupt.requested() {
            break;
        }
    }
    show.end()?;
    Ok(ExitStatus::Success)
}

/// Waits until something is stored in the range; `None` if a signal comes first.
pub(super) fn wait_for_place(
    history: &mut History,
    args: &Args,
    filter: &Filter,
    context: &Context,
) -> Result<Option<Place>, HistoryError> {
    loop {
        rest(Instant::now(), context);
        if context.interrupt.requested() {
            return Ok(None);
        }
        history.refresh()?;
        let road = history.road(args.range.timeline)?;
        let size = history.record.segment_size_bytes;
        let place = Place::of(&road, &filter.within, size, !args.numbers, &mut history.evidence())?;
        if place.is_some() {
            return Ok(place);
        }
    }
}

/// Waits until it is time to look again, or a signal comes.
fn rest(begun: Instant, context: &Context) {
    let until = Instant::now() + PAUSE.max(begun.elapsed() * PART);
    while Instant::now() < until && !context.interrupt.requested() {
        thread::sleep(BEAT);
    }
}

/// The newest timeline that branched off the one that is read, or that one. `passed` are those of which was told already that they
/// branched off before what was shown.
fn newest_from(
    history: &History,
    timeline: TimelineId,
    reading: &Reading,
    passed: &mut BTreeSet<TimelineId>,
) -> TimelineId {
    let here = reading.next_segment().start(history.record.segment_size_bytes);
    for newer in history.snapshot.timelines.keys().rev().copied().take_while(|newer| *newer > timeline) {
        let Some(fork) = Road::new(&history.snapshot, newer).ok().and_then(|road| road.leaves(timeline)) else {
            continue;
        };
        if fork >= here {
            return newer;
        }
        if passed.insert(newer) {
            eprintln!("timeline {newer} branched off at {fork}, before what was shown: --timeline {newer} shows it");
        }
    }
    timeline
}
