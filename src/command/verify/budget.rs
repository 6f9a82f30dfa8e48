//! How long a run may go on, and how quickly it may read.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::command::Interrupt;
use crate::command::pace::Pace;

/// What all threads of a run share.
#[derive(Debug)]
pub(super) struct Budget {
    until: Option<Instant>,
    pace: Pace,
    read: AtomicU64,
    /// The store does not answer any more.
    hopeless: AtomicBool,
    interrupt: Interrupt,
}

impl Budget {
    pub(super) fn new(lasts: Option<Duration>, kib_a_second: Option<u32>, interrupt: Interrupt) -> Budget {
        let now = Instant::now();
        Budget {
            until: lasts.map(|lasts| now + lasts),
            pace: Pace::new(kib_a_second),
            read: AtomicU64::new(0),
            hopeless: AtomicBool::new(false),
            interrupt,
        }
    }

    /// The time is over.
    pub(super) fn is_spent(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// The user, or whoever started the program, asked it to stop.
    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupt.requested()
    }

    /// Nothing more is to be begun.
    pub(super) fn is_over(&self) -> bool {
        self.is_spent() || self.is_interrupted() || self.hopeless.load(Ordering::Relaxed)
    }

    /// There is no use in asking the store for more.
    pub(super) fn give_up(&self) {
        self.hopeless.store(true, Ordering::Relaxed);
    }

    /// The store was given up.
    pub(super) fn is_hopeless(&self) -> bool {
        self.hopeless.load(Ordering::Relaxed)
    }

    /// Waits until so many bytes may be read.
    pub(super) fn spend(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
        self.pace.spend(bytes, &self.interrupt);
    }

    /// Bytes that were read.
    pub(super) fn read_bytes(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }
}

/// A share of everything, in percent: more than 0, at most 100.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Percent(pub f64);

impl std::str::FromStr for Percent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
        match number {
            Ok(number) if number > 0.0 && number <= 100.0 => Ok(Percent(number)),
            _ => Err("a share such as 10% (more than 0, at most 100)"),
        }
    }
}

/// Chooses a share at random.
#[derive(Debug)]
pub(super) struct Lot {
    state: u64,
    share: f64,
}

impl Lot {
    pub(super) fn new(share: Option<Percent>) -> Lot {
        let mut seed = [0_u8; 8];
        // Without randomness it is the same share each time.
        let _ = getrandom::fill(&mut seed);
        Lot { state: u64::from_le_bytes(seed) | 1, share: share.map_or(1.0, |share| share.0 / 100.0) }
    }

    /// Everything is wanted.
    pub(super) fn takes_all(&self) -> bool {
        self.share >= 1.0
    }

    /// Whether the next one is drawn.
    pub(super) fn draws(&mut self) -> bool {
        // Marsaglia's xorshift: even enough for a sample.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        #[allow(clippy::cast_precision_loss)] // A share.
        let drawn = (self.state >> 11) as f64 / (1_u64 << 53) as f64;
        self.takes_all() || drawn < self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share is about what was asked for, and 100 % is all.
    #[test]
    fn shares() {
        let mut lot = Lot::new(Some(Percent(10.0)));
        let drawn = (0..10_000).filter(|_| lot.draws()).count();
        assert!((700..1300).contains(&drawn), "{drawn}");
        let mut all = Lot::new(None);
        assert!((0..1000).all(|_| all.draws()));
        for wrong in ["0", "0%", "101%", "-1", "many", "NaN"] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
        }
        assert_eq!("12.5%".parse(), Ok(Percent(12.5)));
    }

    /// Reading is slowed down to the rate, and the time runs out.
    #[test]
    fn limits() {
        let budget = Budget::new(Some(Duration::from_millis(200)), Some(100), Interrupt::default());
        let begun = Instant::now();
        assert!(!budget.is_over());
        for _ in 0..5 {
            budget.spend(5 << 10);
        }
        assert!(begun.elapsed() >= Duration::from_millis(190), "{:?}", begun.elapsed());
        budget.spend(0);
        assert!(budget.is_over() && budget.read_bytes() == 25 << 10);
    }
}
