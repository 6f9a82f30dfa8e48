//! Going through the stored WAL, from the newest base backup backwards, each stretch forwards.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::super::Context;
use super::super::history::{History, HistoryError, Place, Reading, Within};
use super::sought::{Candidate, Found, Once, Sought};
use crate::recovery::Road;
use crate::wal::activity::Activity;
use crate::wal::{Lsn, PgTime, SegmentNo};

/// What takes less long needs no words.
const PATIENCE: Duration = Duration::from_secs(1);

/// How far to search.
#[derive(Clone, Copy, Debug)]
pub(in crate::command) struct Extent {
    /// Back to the beginning of what is stored, though something was found already.
    pub(in crate::command) all: bool,
    /// Most candidates that are kept.
    pub(in crate::command) limit: usize,
}

/// Searches a road.
///
/// # Errors
/// See [`HistoryError`].
pub(in crate::command) fn search(
    history: &History,
    road: &Road<'_>,
    sought: &Sought,
    within: &Within,
    extent: Extent,
    context: &Context,
) -> Result<Found, HistoryError> {
    let size = history.record.segment_size_bytes;
    let mut found = Found {
        candidates: Vec::new(),
        more: 0,
        renamed: Vec::new(),
        from: Lsn::INVALID,
        to: Lsn::INVALID,
        last_time: None,
        earlier: false,
        notes: Vec::new(),
    };
    let mut search = Search { history, road, sought, within, limit: extent.limit, context, bar: Bar::new(context) };
    if within.from.is_some() {
        if let Some(place) = Place::of(road, within, size, true, &mut history.evidence())? {
            search.stretch(&place, None, &mut found)?;
        }
        return Ok(found);
    }
    let end = Place::of(road, within, size, true, &mut history.evidence())?.and_then(|place| place.last);
    // Where the stretch that was searched before begins: what lies behind is known.
    let mut until: Option<Lsn> = None;
    for backup in road.backups() {
        let first = SegmentNo::of(backup.start_lsn, size);
        let last = until.map(|lsn| SegmentNo::of(lsn, size)).or(end);
        if last.is_none_or(|last| first <= last) {
            let place = Place { backup: Some(backup.clone()), first, last, start: backup.start_lsn };
            search.stretch(&place, until, &mut found)?;
        }
        until = Some(backup.start_lsn);
        if !extent.all && !found.candidates.is_empty() {
            break;
        }
    }
    let stored = road.next(SegmentNo(0), &mut history.evidence())?;
    let stored = stored.filter(|first| until.is_none_or(|until| first.number < SegmentNo::of(until, size)));
    if let Some(first) = stored {
        if (found.candidates.is_empty() || extent.all) && last_backup_reached(road, until) {
            let (first, start) = (first.number, first.number.start(size));
            let last = until.map(|lsn| SegmentNo::of(lsn, size)).or(end);
            search.stretch(&Place { backup: None, first, last, start }, until, &mut found)?;
        } else {
            found.earlier = true;
        }
    }
    found.candidates.sort_by_key(|candidate| candidate.lsn);
    found.renamed.sort_by_key(|renamed| renamed.lsn);
    Ok(found)
}

/// The oldest base backup was searched from.
fn last_backup_reached(road: &Road<'_>, until: Option<Lsn>) -> bool {
    road.backups().last().map(|backup| backup.start_lsn) == until
}

struct Search<'a, 'r> {
    history: &'a History,
    road: &'a Road<'r>,
    sought: &'a Sought,
    within: &'a Within,
    limit: usize,
    context: &'a Context,
    bar: Bar,
}

impl Search<'_, '_> {
    /// Searches from a place on, up to `until`.
    fn stretch(&mut self, place: &Place, until: Option<Lsn>, found: &mut Found) -> Result<(), HistoryError> {
        let mut reading = Reading::begin(self.history, place, true)?;
        let (sought, road, within) = (self.sought, self.road, self.within);
        let mut candidates: Vec<Candidate> = std::mem::take(&mut found.candidates);
        let (limit, mut more) = (self.limit, found.more);
        let renamed = &mut found.renamed;
        // Tables that had the name that is looked for: dropped under another one, they are missed as well.
        let mut once = Once::default();
        let mut each = |activity: Activity, time: Option<PgTime>| {
            let lsn = activity.lsn();
            if until.is_some_and(|until| lsn >= until) || !within.holds(lsn, time) {
                return;
            }
            if let Some(candidate) = sought.candidate(&activity, time, road.timeline_at(lsn), &once) {
                candidates.push(candidate);
            }
            // Kept short now and then, so that millions of them take no room.
            if candidates.len() >= 2 * limit.max(1000) {
                more += shorten(&mut candidates, sought, limit);
            }
            for new in sought.renamed(&activity) {
                once.add(&new);
                renamed.push(new);
            }
        };
        let (bar, to) = (&mut self.bar, &mut found.to);
        reading.run(self.history, road, place.last, &self.context.interrupt, &mut each, &mut |segment| {
            bar.tell(&segment.at.copy.segment().to_string());
            *to = (*to).max(segment.end);
            Ok(())
        })?;
        more += shorten(&mut candidates, sought, limit);
        (found.candidates, found.more, found.from) = (candidates, more, place.start);
        let holes = reading.holes().iter().map(|hole| hole.told(&self.history.zone));
        let partitioned = sought.rows_of().map(|pattern| reading.partitioned(pattern)).unwrap_or_default();
        let partitioned = partitioned.iter().map(|table| {
            format!("{table} is a table of partitions: the WAL names the partitions whose rows went; ask for those, or for \"*\"")
        });
        for note in holes.chain(reading.notes()).chain(partitioned) {
            if !found.notes.contains(&note) {
                found.notes.push(note);
            }
        }
        found.last_time = found.last_time.max(reading.last_time());
        Ok(())
    }
}

/// Keeps the most telling ones; how many went.
fn shorten(candidates: &mut Vec<Candidate>, sought: &Sought, limit: usize) -> u64 {
    candidates.sort_by_key(|candidate| std::cmp::Reverse(sought.weight(candidate)));
    let more = candidates.len().saturating_sub(limit);
    candidates.truncate(limit);
    more as u64
}

/// A line on a terminal while searching takes long.
struct Bar {
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl Bar {
    fn new(context: &Context) -> Bar {
        // The template is fixed; if it were wrong, the plain spinner would do as well.
        let style =
            || ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = context.stderr_is_terminal.then(|| ProgressBar::new_spinner().with_style(style()));
        Bar { begun: Instant::now(), bar }
    }

    fn tell(&mut self, segment: &str) {
        if let Some(bar) = self.bar.as_ref().filter(|_| self.begun.elapsed() >= PATIENCE) {
            bar.set_message(format!("searching the stored WAL, now {segment}"));
            bar.tick();
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
