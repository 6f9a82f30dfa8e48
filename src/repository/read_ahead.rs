//! `Streak`: how much is read at once of what is asked for one after the other.
//!
//! A plan walks along the WAL, and a store behind a network answers thirty requests as soon as one. A single question causes a
//! single request; only for whoever goes on in the same direction, what lies ahead is read along.

use std::ops::Range;

/// What was asked for so far, by its number in a row.
#[derive(Debug, Default)]
pub(super) struct Streak {
    /// The last one that was read, in the direction of the walk.
    last: Option<u64>,
    /// How many times the walk went on.
    length: u32,
}

impl Streak {
    /// The numbers to read now that this one is asked for and not known: it first, then those that a walk asks for next, at most
    /// `most` in all, and all of them within a range.
    pub(super) fn ask(&mut self, number: u64, most: u64, within: &Range<u64>) -> Vec<u64> {
        let forward = number.checked_sub(1).is_some_and(|before| self.last == Some(before));
        let backward = self.last == Some(number + 1);
        self.length = if forward || backward { self.length + 1 } else { 0 };
        let count = 1_u64.checked_shl(2 * self.length).map_or(most, |count| count.min(most));
        let read: Vec<u64> = if backward {
            (within.start.max(number.saturating_sub(count - 1))..=number).rev().collect()
        } else {
            (number..within.end.min(number.saturating_add(count))).collect()
        };
        self.last = read.last().copied();
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever asks once causes one request; whoever walks is read ahead for, in either direction, up to a bound.
    #[test]
    fn streaks() {
        let mut streak = Streak::default();
        let all = 0..10_000;
        assert_eq!(streak.ask(10, 32, &all), [10]);
        assert_eq!(streak.ask(50, 32, &all), [50]);
        assert_eq!(streak.ask(51, 32, &all), [51, 52, 53, 54]);
        assert_eq!(streak.ask(55, 32, &all), (55..71).collect::<Vec<_>>());
        assert_eq!(streak.ask(71, 32, &all), (71..103).collect::<Vec<_>>());
        for _ in 0..100 {
            let last = streak.last.expect("it was asked");
            assert_eq!(streak.ask(last + 1, 32, &all).len(), 32);
        }
        assert_eq!(streak.ask(40, 32, &all), [40]);
        assert_eq!(streak.ask(39, 32, &all), [39, 38, 37, 36]);
        assert_eq!(streak.ask(35, 32, &(30..40)), [35, 34, 33, 32, 31, 30]);
        assert_eq!(streak.ask(29, 32, &(20..30)), (20..30).rev().collect::<Vec<_>>());
        assert_eq!(streak.ask(1, 32, &all), [1]);
        assert_eq!(streak.ask(0, 32, &all), [0]);
    }
}
