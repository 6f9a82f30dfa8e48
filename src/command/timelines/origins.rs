//! Who archived a timeline, without asking each of its segments.
//!
//! The host that archives changes rarely: at a failover, after a restore. So some segments are asked, evenly spread, and where
//! two neighbours of the sample differ, those between them by halves until the change is found. What two hosts archive side by
//! side (`archive_mode = always`) changes with each segment; then the number of questions is the limit.

use std::collections::BTreeMap;

use crate::recovery::StoredSegments;
use crate::wal::SegmentNo;

/// Segments that are asked at first.
const SAMPLES: u64 = 17;
/// Most that are asked of one timeline.
const MOST_READS: usize = 200;

/// One origin, and where it was met.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Seen<T> {
    pub(super) origin: T,
    pub(super) first: SegmentNo,
    pub(super) last: SegmentNo,
}

/// The origins of a timeline's segments in the order in which they are met first, and how many segments were asked. `read` gives
/// none where a segment does not tell.
pub(super) fn origins<T: Clone + PartialEq, E>(
    segments: &StoredSegments,
    mut read: impl FnMut(SegmentNo) -> Result<Option<T>, E>,
) -> Result<(Vec<Seen<T>>, usize), E> {
    let Some(last) = segments.len().checked_sub(1) else { return Ok((Vec::new(), 0)) };
    let mut asked = BTreeMap::new();
    let mut ask = |at: u64, asked: &mut BTreeMap<u64, (SegmentNo, Option<T>)>| -> Result<(), E> {
        if let Some(number) = segments.nth(at).filter(|_| !asked.contains_key(&at)) {
            asked.insert(at, (number, read(number)?));
        }
        Ok(())
    };
    for sample in 0..SAMPLES {
        // At most a million segments times 16: no overflow.
        ask(last.saturating_mul(sample) / (SAMPLES - 1), &mut asked)?;
    }
    while asked.len() < MOST_READS {
        let neighbours = asked.iter().zip(asked.iter().skip(1));
        let differ = { neighbours }.find(|((a, one), (b, other))| *b - *a > 1 && one.1 != other.1);
        let Some(middle) = differ.map(|((a, _), (b, _))| a + (b - a) / 2) else { break };
        ask(middle, &mut asked)?;
    }
    let mut seen: Vec<Seen<T>> = Vec::new();
    for (number, origin) in asked.values() {
        let Some(origin) = origin else { continue };
        match seen.iter_mut().find(|known| known.origin == *origin) {
            Some(known) => known.last = *number,
            None => seen.push(Seen { origin: origin.clone(), first: *number, last: *number }),
        }
    }
    Ok((seen, asked.len()))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn found(segments: u64, origin: impl Fn(u64) -> char) -> (Vec<(char, u64, u64)>, usize) {
        let stored: StoredSegments = (0..segments).map(|number| SegmentNo(number + 10)).collect();
        let Ok((seen, asked)) = origins(&stored, |number| Ok::<_, Infallible>(Some(origin(number.0))));
        (seen.into_iter().map(|seen| (seen.origin, seen.first.0, seen.last.0)).collect(), asked)
    }

    /// A change of the host is found exactly, in a million segments with few questions.
    #[test]
    fn changes() {
        assert_eq!(found(0, |_| 'a'), (vec![], 0));
        assert_eq!(found(1, |_| 'a'), (vec![('a', 10, 10)], 1));
        assert_eq!(found(1_000_000, |_| 'a'), (vec![('a', 10, 1_000_009)], 17));
        let (seen, asked) = found(1_000_000, |number| if number < 777_777 { 'a' } else { 'b' });
        assert_eq!(seen, [('a', 10, 777_776), ('b', 777_777, 1_000_009)]);
        assert!(asked < 50, "{asked}");
    }

    /// Two hosts side by side are both named, and the questions are bounded.
    #[test]
    fn side_by_side() {
        let (seen, asked) = found(1_000_000, |number| if number * 7 % 3 == 0 { 'a' } else { 'b' });
        assert_eq!(seen.len(), 2);
        assert!(asked <= MOST_READS, "{asked}");
    }
}
