//! `StoredSegments`: which complete segments of a timeline are stored, as runs without a gap.
//!
//! An archive of a million segments is a handful of runs, so a listing of it takes no room and its holes are plain.

use std::ops::RangeInclusive;

use crate::wal::SegmentNo;

/// Numbers of stored segments.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StoredSegments {
    /// First and last number of each run, ascending; between two runs at least one number is missing.
    runs: Vec<(u64, u64)>,
}

impl StoredSegments {
    /// Adds one. Quick if it is the one after the last.
    pub fn insert(&mut self, SegmentNo(number): SegmentNo) {
        let at = self.runs.partition_point(|(_, last)| last.checked_add(1).is_some_and(|next| next < number));
        // The first run that holds the number, touches it or lies behind it.
        let follows = |run: Option<&(u64, u64)>| {
            number.checked_add(1).is_some_and(|next| run.is_some_and(|(first, _)| *first == next))
        };
        match self.runs.get(at).copied() {
            Some((first, last)) if first <= number && number <= last => {}
            Some((first, last)) if first <= number => {
                debug_assert_eq!(last + 1, number, "the run touches the number");
                if follows(self.runs.get(at + 1)) {
                    let (_, end) = self.runs.remove(at + 1);
                    self.runs[at].1 = end;
                } else {
                    self.runs[at].1 = number;
                }
            }
            run if follows(run.as_ref()) => self.runs[at].0 = number,
            _ => self.runs.insert(at, (number, number)),
        }
    }

    /// Adds all of a run.
    pub fn insert_run(&mut self, run: RangeInclusive<SegmentNo>) {
        let (SegmentNo(first), SegmentNo(last)) = run.into_inner();
        if first > last {
            return;
        }
        // The runs that it overlaps or touches become one with it.
        let begin = self.runs.partition_point(|(_, end)| end.saturating_add(1) < first);
        let end = self.runs.partition_point(|(start, _)| *start <= last.saturating_add(1));
        let one = self.runs[begin..end].iter().fold((first, last), |one, run| (one.0.min(run.0), one.1.max(run.1)));
        self.runs.splice(begin..end, [one]);
    }

    /// Takes one out; whether it was there.
    pub fn remove(&mut self, SegmentNo(number): SegmentNo) -> bool {
        let at = self.runs.partition_point(|(_, last)| *last < number);
        let Some((first, last)) = self.runs.get(at).copied().filter(|(first, _)| *first <= number) else {
            return false;
        };
        let before = (first < number).then(|| (first, number - 1));
        let after = (number < last).then(|| (number + 1, last));
        self.runs.splice(at..=at, before.into_iter().chain(after));
        true
    }

    /// Keeps those of which `keep` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(SegmentNo) -> bool) {
        *self = self.iter().filter(|number| keep(*number)).collect();
    }

    /// Whether this one is stored.
    #[must_use]
    pub fn contains(&self, number: SegmentNo) -> bool {
        self.next_from(number) == Some(number)
    }

    /// The first stored one that is not before `number`.
    #[must_use]
    pub fn next_from(&self, SegmentNo(number): SegmentNo) -> Option<SegmentNo> {
        let at = self.runs.partition_point(|(_, last)| *last < number);
        self.runs.get(at).map(|(first, _)| SegmentNo(number.max(*first)))
    }

    /// The first one.
    #[must_use]
    pub fn first(&self) -> Option<SegmentNo> {
        self.runs.first().map(|(first, _)| SegmentNo(*first))
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<SegmentNo> {
        self.runs.last().map(|(_, last)| SegmentNo(*last))
    }

    /// The one with this many before it.
    #[must_use]
    pub fn nth(&self, mut at: u64) -> Option<SegmentNo> {
        for (first, last) in &self.runs {
            let length = last - first + 1;
            match at.checked_sub(length) {
                Some(further) => at = further,
                None => return Some(SegmentNo(first + at)),
            }
        }
        None
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// First and last of each run without a gap, ascending.
    pub fn runs(&self) -> impl Iterator<Item = RangeInclusive<SegmentNo>> + '_ {
        self.runs.iter().map(|(first, last)| SegmentNo(*first)..=SegmentNo(*last))
    }

    /// All numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = SegmentNo> + '_ {
        self.runs.iter().flat_map(|(first, last)| (*first..=*last).map(SegmentNo))
    }
}

impl Extend<SegmentNo> for StoredSegments {
    fn extend<T: IntoIterator<Item = SegmentNo>>(&mut self, numbers: T) {
        numbers.into_iter().for_each(|number| self.insert(number));
    }
}

impl FromIterator<SegmentNo> for StoredSegments {
    fn from_iter<T: IntoIterator<Item = SegmentNo>>(numbers: T) -> Self {
        let mut stored = StoredSegments::default();
        stored.extend(numbers);
        stored
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In whatever order numbers come and go, the runs say the same as a set, and no two runs touch.
        #[test]
        fn same_as_a_set(steps in proptest::collection::vec((any::<bool>(), 0..40_u64), 0..120)) {
            let (mut stored, mut set) = (StoredSegments::default(), BTreeSet::new());
            for (insert, number) in steps {
                if insert {
                    stored.insert(SegmentNo(number));
                    set.insert(SegmentNo(number));
                } else {
                    prop_assert_eq!(stored.remove(SegmentNo(number)), set.remove(&SegmentNo(number)));
                }
            }
            prop_assert_eq!(stored.iter().collect::<Vec<_>>(), set.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!((stored.len(), stored.is_empty()), (set.len() as u64, set.is_empty()));
            prop_assert_eq!((stored.first(), stored.last()), (set.first().copied(), set.last().copied()));
            for number in (0..42).map(SegmentNo) {
                prop_assert_eq!(stored.contains(number), set.contains(&number));
                prop_assert_eq!(stored.next_from(number), set.range(number..).next().copied());
            }
            let ends: Vec<_> = stored.runs().map(|run| (run.start().0, run.end().0)).collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0), "{:?}", ends);
        }
    }

    proptest! {
        /// Whole runs come in as if their numbers came one by one.
        #[test]
        fn runs_as_numbers(runs in proptest::collection::vec((0..60_u64, 0..9_u64), 0..20)) {
            let (mut by_run, mut by_number) = (StoredSegments::default(), StoredSegments::default());
            for (first, more) in runs {
                by_run.insert_run(SegmentNo(first)..=SegmentNo(first + more));
                by_number.extend((first..=first + more).map(SegmentNo));
                prop_assert_eq!(&by_run, &by_number);
            }
        }
    }

    /// The last number there is neither wraps nor is lost.
    #[test]
    fn at_the_end_of_numbers() {
        let stored: StoredSegments = [SegmentNo(u64::MAX), SegmentNo(u64::MAX - 1)].into_iter().collect();
        assert_eq!(stored.runs().count(), 1);
        assert!(stored.contains(SegmentNo(u64::MAX)));
    }
}
