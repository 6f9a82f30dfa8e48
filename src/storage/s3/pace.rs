//! `Pace`: no more bytes a second than a setting allows, for one direction of one store in one process.
//!
//! Bytes are paid for in time, in the order in which they come, by whichever thread. Content that is sent is paid for before
//! the request, so that neither the time limits of requests run meanwhile nor a short-lived process goes free; what is received, piece by piece.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A limit, or none.
#[derive(Debug, Default)]
pub(super) struct Pace {
    bytes_a_second: Option<u64>,
    /// When everything so far is paid for.
    paid: Mutex<Option<Instant>>,
}

impl Pace {
    pub(super) fn new(bytes_a_second: Option<u64>) -> Pace {
        Pace { bytes_a_second, paid: Mutex::default() }
    }

    /// Waits until these bytes are paid for.
    pub(super) fn pay(&self, bytes: usize) {
        let wait = self.price(bytes, Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
    }

    /// How long that takes from now on.
    fn price(&self, bytes: usize, now: Instant) -> Duration {
        let Some(limit) = self.bytes_a_second else { return Duration::ZERO };
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let time = Duration::from_secs_f64(bytes as f64 / limit as f64);
        let until = paid.unwrap_or(now).max(now) + time;
        *paid = Some(until);
        until - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes queue up behind each other; time in which nothing was asked for is not saved up.
    #[test]
    fn prices() {
        let (pace, now) = (Pace::new(Some(1000)), Instant::now());
        let seconds = |seconds: u64| Duration::from_secs(seconds);
        assert_eq!(pace.price(2000, now), seconds(2));
        assert_eq!(pace.price(1000, now), seconds(3));
        assert_eq!(pace.price(1000, now + seconds(1)), seconds(3));
        assert_eq!(pace.price(1000, now + seconds(60)), seconds(1));
        assert_eq!(Pace::new(None).price(usize::MAX, now), Duration::ZERO);
    }
}
