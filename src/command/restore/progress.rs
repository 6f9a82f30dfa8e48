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
        let percent = bytes.saturating_mul(100).checked_div(total_bytes).unwrap_or(100);
        let seconds = begun.elapsed().as_secs();
        eprintln!("wrote {} of {} ({percent} %) in {seconds} s", HumanBytes(bytes), HumanBytes(total_bytes));
    }
}
