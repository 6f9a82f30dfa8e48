//! A line on standard error while planning takes long: where no summary tells in which segment a transaction ended, all stored WAL
//! is read.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};

use crate::recovery::{WalCopy, WalEvidence};
use crate::wal::{Event, Lsn, SegmentFacts};

/// What takes less long needs no words.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Passes everything on, and shows how many segments were read whole.
pub(super) struct Watched<E> {
    inner: E,
    read: u64,
    begun: Instant,
    last_line: Option<Instant>,
    bar: Option<ProgressBar>,
}

impl<E> Watched<E> {
    pub(super) fn new(inner: E, terminal: bool) -> Self {
        // The template is fixed; if it were wrong, the plain spinner would do as well.
        let style =
            || ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = terminal.then(|| ProgressBar::new_spinner().with_style(style()));
        Watched { inner, read: 0, begun: Instant::now(), last_line: None, bar }
    }

    fn count(&mut self, copy: &WalCopy) {
        self.read += 1;
        if self.begun.elapsed() < PATIENCE {
            return;
        }
        let text =
            format!("reading stored WAL for the plan: {} segments, now {}", HumanCount(self.read), copy.segment());
        match &self.bar {
            Some(bar) => {
                bar.set_message(text);
                bar.tick();
            }
            None if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) => {
                self.last_line = Some(Instant::now());
                eprintln!("{text}");
            }
            None => {}
        }
    }
}

impl<E> Drop for Watched<E> {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl<E: WalEvidence> WalEvidence for Watched<E> {
    type Error = E::Error;

    fn facts(&mut self, copy: &WalCopy) -> Result<SegmentFacts, E::Error> {
        self.inner.facts(copy)
    }

    fn stored_bytes(&mut self, copy: &WalCopy) -> Result<u64, E::Error> {
        self.inner.stored_bytes(copy)
    }

    fn events(&mut self, copy: &WalCopy) -> Result<Vec<Event>, E::Error> {
        self.count(copy);
        self.inner.events(copy)
    }

    fn record_from(&mut self, copy: &WalCopy, lsn: Lsn) -> Result<Option<Lsn>, E::Error> {
        self.inner.record_from(copy, lsn)
    }
}
