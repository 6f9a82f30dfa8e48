//! What the user sees of a reindex: how far it is, and what came of it.

use std::cell::Cell;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::Outcome;
use crate::command::Context;
use crate::wal::TimelineId;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// How far one timeline is: a bar on a terminal, a line now and then elsewhere. Both on standard error.
pub(super) struct Progress {
    timeline: TimelineId,
    groups: u64,
    done: Cell<u64>,
    bar: Option<ProgressBar>,
    last: Cell<Instant>,
}

impl Progress {
    pub(super) fn begin(terminal: bool, timeline: TimelineId, groups: u64) -> Progress {
        let bar = terminal.then(|| {
            let template = "timeline {prefix} {bar:30} {percent:>3} %  {msg} segments  {eta} left";
            // The template is fixed; if it were wrong, the plain bar would do as well.
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(groups).with_style(style).with_prefix(timeline.to_string())
        });
        Progress { timeline, groups, done: Cell::new(0), bar, last: Cell::new(Instant::now()) }
    }

    /// One group more; `segments` of the timeline so far.
    pub(super) fn advance(&self, segments: u64) {
        self.done.set(self.done.get() + 1);
        match &self.bar {
            Some(bar) => {
                bar.set_message(segments.to_string());
                bar.inc(1);
            }
            None if self.last.get().elapsed() >= LINE_EVERY => {
                self.last.set(Instant::now());
                let (done, groups) = (self.done.get(), self.groups);
                eprintln!("timeline {}: {segments} segments, {done} of {groups} groups", self.timeline);
            }
            None => {}
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The result on standard output.
pub(super) fn tell(outcome: &Outcome, context: &Context) -> io::Result<()> {
    let mut out = context.stdout();
    if context.json {
        return out.json(outcome);
    }
    for found in &outcome.timelines {
        write!(out, "timeline {:<5} {} segments in {} groups", found.timeline, found.segments, found.groups)?;
        write!(out, ", {} roll-ups written", found.written)?;
        match found.scanned {
            0 => writeln!(out)?,
            scanned => writeln!(out, ", {scanned} segments without an index read whole")?,
        }
    }
    if outcome.timelines.is_empty() {
        writeln!(out, "no WAL is stored yet")?;
    }
    for problem in &outcome.problems {
        writeln!(out, "DAMAGED  timeline {}: segment {}: {}", problem.timeline, problem.segment, problem.why)?;
    }
    if !outcome.problems.is_empty() {
        writeln!(
            out,
            "Recovery can go no further than there: take a new base backup, so that what follows can be restored."
        )?;
    }
    if outcome.interrupted {
        writeln!(out, "Stopped before the end: run it again, it goes on from here.")?;
    }
    out.flush()
}
