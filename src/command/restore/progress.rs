//! How far the writing is: a bar on a terminal, a line now and then elsewhere. Both on standard error.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::pgdata::layout::Progress;

/// How often the bar moves.
const BAR_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Runs `work`, showing meanwhile how far it is.
pub(super) fn shown<T>(terminal: bool, total_bytes: u64, progress: &Progress, work: impl FnOnce() -> T) -> T {
    let (done, watched) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if terminal { draw(total_bytes, progress, &watched) } else { write(total_bytes, progress, &watched) }
        });
        let result = work();
        drop(done);
        result
    })
}

fn draw(total_bytes: u64, progress: &Progress, done: &Receiver<()>) {
    let template = "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left";
    // The template is fixed; if it were wrong, the plain bar would do as well.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(total_bytes).with_style(style);
    while done.recv_timeout(BAR_EVERY) == Err(RecvTimeoutError::Timeout) {
        bar.set_position(progress.bytes.load(Ordering::Relaxed));
    }
    bar.finish_and_clear();
}

fn write(total_bytes: u64, progress: &Progress, done: &Receiver<()>) {
    let begun = Instant::now();
    while done.recv_timeout(LINE_EVERY) == Err(RecvTimeoutError::Timeout) {
        let bytes = progress.bytes.load(Ordering::Relaxed);
        eprintln!("{}", line(bytes, total_bytes, begun.elapsed()));
    }
}

/// How far it is, at which rate, and how long the rest takes at that rate.
fn line(bytes: u64, total_bytes: u64, elapsed: Duration) -> String {
    let percent = bytes.saturating_mul(100).checked_div(total_bytes).unwrap_or(100);
    let seconds = elapsed.as_secs().max(1);
    let rate = bytes / seconds;
    let left = total_bytes.saturating_sub(bytes).checked_div(rate);
    let left = left.map_or_else(
        || "unknown time".to_owned(),
        |left| humantime::format_duration(Duration::from_secs(left)).to_string(),
    );
    let (done, total, rate) = (HumanBytes(bytes), HumanBytes(total_bytes), HumanBytes(rate));
    format!("wrote {done} of {total} ({percent} %) in {seconds} s, {rate}/s, {left} left")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rate and time left are those of the work so far; before the first byte nobody knows.
    #[test]
    fn lines() {
        let told = line(30 << 20, 120 << 20, Duration::from_secs(30));
        assert_eq!(told, "wrote 30.00 MiB of 120.00 MiB (25 %) in 30 s, 1.00 MiB/s, 1m 30s left");
        assert!(line(0, 120 << 20, Duration::from_secs(30)).ends_with("0 B/s, unknown time left"));
    }
}
