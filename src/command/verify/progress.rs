//! How far a run is: a bar on a terminal, a line now and then elsewhere. Both on standard error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use super::budget::Budget;

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Shows how much of the work is done, how quickly the store is read, and how long it will take.
pub(super) struct Progress<'a> {
    budget: &'a Budget,
    total: u64,
    done: AtomicU64,
    begun: Instant,
    bar: Option<ProgressBar>,
    told: Mutex<Instant>,
}

impl<'a> Progress<'a> {
    /// `total` is an estimate of the bytes to be read.
    pub(super) fn begin(terminal: bool, total: u64, budget: &'a Budget) -> Progress<'a> {
        let bar = terminal.then(|| {
            let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}  {eta} left");
            // The template is fixed; if it were wrong, the plain bar would do as well.
            ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        let now = Instant::now();
        Progress { budget, total, done: AtomicU64::new(0), begun: now, bar, told: Mutex::new(now) }
    }

    /// More is done.
    pub(super) fn advance(&self, weight: u64) {
        let done = self.done.fetch_add(weight, Ordering::Relaxed) + weight;
        if let Some(bar) = &self.bar {
            bar.set_message(self.rate());
            bar.set_position(done.min(self.total));
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.elapsed() >= LINE_EVERY {
            *told = Instant::now();
            eprintln!("{}", line(done, self.total, self.begun.elapsed(), &self.rate()));
        }
    }

    fn rate(&self) -> String {
        let read = self.budget.read_bytes();
        let millis = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX).max(1);
        let a_second = read.saturating_mul(1000) / millis;
        format!("{} read, {}/s", HumanBytes(read), HumanBytes(a_second))
    }

    /// Ends the bar; what is said later stands below it.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(done: u64, total: u64, took: Duration, rate: &str) -> String {
    let done = done.min(total);
    let percent = done.saturating_mul(100) / total.max(1);
    let left = took.as_secs().saturating_mul(total - done) / done.max(1);
    format!("verified {percent} %, {rate}, about {} left", humantime::format_duration(Duration::from_secs(left)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The time that is left follows from what is done, and an estimate that was too low never shows more than the whole.
    #[test]
    fn lines() {
        let minute = Duration::from_secs(60);
        assert_eq!(line(25, 100, minute, "1 B read"), "verified 25 %, 1 B read, about 3m left");
        assert_eq!(line(300, 100, minute, "1 B read"), "verified 100 %, 1 B read, about 0s left");
    }
}
