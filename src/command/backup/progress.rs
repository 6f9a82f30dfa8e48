//! How far the backup is: a bar on a terminal, a line now and then elsewhere. Both on standard error.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Shows how many bytes have come.
pub(super) struct Progress {
    total: Option<u64>,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines(RefCell<Lines>),
}

struct Lines {
    done: u64,
    last: Instant,
}

impl Progress {
    /// Begins to show; `total` is the server's estimate.
    pub(super) fn begin(terminal: bool, total: Option<u64>) -> Self {
        let shown = match terminal {
            true => Shown::Bar(bar(total)),
            false => Shown::Lines(RefCell::new(Lines { done: 0, last: Instant::now() })),
        };
        Progress { total, shown }
    }

    /// More bytes have come.
    pub(super) fn advance(&self, bytes: u64) {
        match &self.shown {
            Shown::Bar(bar) => bar.inc(bytes),
            Shown::Lines(lines) => {
                let mut lines = lines.borrow_mut();
                lines.done += bytes;
                if lines.last.elapsed() >= LINE_EVERY {
                    lines.last = Instant::now();
                    eprintln!("{}", line(lines.done, self.total));
                }
            }
        }
    }

    /// Says something, without disturbing the bar.
    pub(super) fn say(&self, text: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| eprintln!("{text}")),
            Shown::Lines(_) => eprintln!("{text}"),
        }
    }

    /// Ends the bar; what is said later stands below it.
    pub(super) fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => {
            (ProgressBar::new(total), "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left")
        }
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {bytes_per_sec}"),
    };
    // The template is fixed; if it were wrong, the plain bar would do as well.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style)
}

fn line(done: u64, total: Option<u64>) -> String {
    match total {
        Some(total) if total > 0 => {
            // The total is an estimate: the database may have grown since.
            let percent = (done.saturating_mul(100) / total).min(100);
            format!("received {} of about {} ({percent} %)", HumanBytes(done), HumanBytes(total))
        }
        _ => format!("received {}", HumanBytes(done)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An estimate that was too low never shows more than the whole.
    #[test]
    fn lines() {
        assert_eq!(line(1 << 20, Some(4 << 20)), "received 1.00 MiB of about 4.00 MiB (25 %)");
        assert_eq!(line(5 << 20, Some(4 << 20)), "received 5.00 MiB of about 4.00 MiB (100 %)");
        assert_eq!(line(1 << 20, None), "received 1.00 MiB");
    }
}
