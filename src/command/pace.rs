//! No more than so many bytes a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Interrupt;

/// Longest sleep in one piece: a signal is looked for in between.
const NAP: Duration = Duration::from_millis(100);

/// A rate that all threads of a run share.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_a_second: Option<f64>,
    /// When the bytes that were asked for so far may have been read.
    next: Mutex<Instant>,
}

impl Pace {
    /// So many KiB a second; `None`: as many as there are.
    pub(super) fn new(kib_a_second: Option<u32>) -> Pace {
        let bytes_a_second = kib_a_second.map(|kib| f64::from(kib) * 1024.0);
        Pace { bytes_a_second, next: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes may be read, or the program is asked to stop.
    pub(super) fn spend(&self, bytes: u64, interrupt: &Interrupt) {
        let Some(rate) = self.bytes_a_second else { return };
        let wait_until = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let begins = (*next).max(Instant::now());
            #[allow(clippy::cast_precision_loss)] // A rate.
            let takes = Duration::from_secs_f64(bytes as f64 / rate);
            *next = begins + takes;
            begins
        };
        while !interrupt.requested() {
            let left = wait_until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(NAP));
        }
    }
}
