//! Which segments a question is about, and where reading has to begin so that relations have names in them.
//!
//! Commit times are not in LSN order: clocks are set, and commits overtake each other. So the segments of a time are those from the
//! first to the last that have such a time between their earliest and latest, and each entry is looked at for itself.

use crate::recovery::{BackupFacts, Road, WalEvidence};
use crate::wal::{Lsn, PgTime, SegmentNo, SegmentSize};

/// An end of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bound {
    /// A time of commits.
    Time(PgTime),
    /// A position in the WAL.
    Lsn(Lsn),
}

/// A range, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Within {
    /// `None`: where the newest base backup before `to` began.
    pub from: Option<Bound>,
    /// `None`: the end.
    pub to: Option<Bound>,
}

impl Within {
    /// No moment is in it.
    pub(super) fn is_reversed(&self) -> bool {
        match (self.from, self.to) {
            (Some(Bound::Time(from)), Some(Bound::Time(to))) => from > to,
            (Some(Bound::Lsn(from)), Some(Bound::Lsn(to))) => from > to,
            _ => false,
        }
    }

    /// Whether something at this place is in it; `time` is its own, or the last one before it.
    #[must_use]
    pub fn holds(&self, lsn: Lsn, time: Option<PgTime>) -> bool {
        let from = match self.from {
            None => true,
            Some(Bound::Lsn(from)) => lsn >= from,
            Some(Bound::Time(from)) => time.is_some_and(|time| time >= from),
        };
        from && match self.to {
            None => true,
            Some(Bound::Lsn(to)) => lsn <= to,
            Some(Bound::Time(to)) => time.is_none_or(|time| time <= to),
        }
    }
}

/// Where to read.
#[derive(Clone, Debug)]
pub struct Place {
    /// The base backup whose catalog names the relations; reading begins at its start. `None`: there is none so early.
    pub backup: Option<BackupFacts>,
    /// The first segment to read.
    pub first: SegmentNo,
    /// The last segment to read; `None`: to the end.
    pub last: Option<SegmentNo>,
    /// Nothing before this is in the range.
    pub start: Lsn,
}

impl Place {
    /// The place of a range on a road; `None` if nothing stored can be in it. With `names`, reading begins at a base backup.
    ///
    /// # Errors
    /// What is stored could not be read.
    pub fn of<E: WalEvidence>(
        road: &Road<'_>,
        within: &Within,
        size: SegmentSize,
        names: bool,
        evidence: &mut E,
    ) -> Result<Option<Place>, E::Error> {
        let start = match within.from {
            None => newest_before(road, within.to).map(|backup| backup.start_lsn),
            Some(Bound::Lsn(lsn)) => Some(lsn),
            Some(Bound::Time(_)) => None,
        };
        let begin = SegmentNo::of(start.unwrap_or(Lsn(1)), size);
        let times = (time(within.from), time(within.to));
        let Some((first, last)) = span(road, begin, times, evidence)? else { return Ok(None) };
        let start = start.unwrap_or_else(|| first.start(size)).max(first.start(size));
        let last = match within.to {
            None => None,
            Some(Bound::Lsn(lsn)) => Some(SegmentNo::of(lsn, size)),
            Some(Bound::Time(_)) => last,
        };
        let backup = road.backups().into_iter().find(|backup| backup.start_lsn <= start).filter(|_| names).cloned();
        let first = backup.as_ref().map_or(first, |backup| SegmentNo::of(backup.start_lsn, size));
        Ok(Some(Place { backup, first, last, start }))
    }
}

/// The newest base backup that began before the end of a range.
fn newest_before<'a>(road: &Road<'a>, to: Option<Bound>) -> Option<&'a BackupFacts> {
    let began_before = |backup: &&BackupFacts| match to {
        None => true,
        Some(Bound::Lsn(lsn)) => backup.start_lsn <= lsn,
        Some(Bound::Time(time)) => backup.start_time <= time,
    };
    road.backups().into_iter().find(began_before)
}

fn time(bound: Option<Bound>) -> Option<PgTime> {
    match bound {
        Some(Bound::Time(time)) => Some(time),
        Some(Bound::Lsn(_)) | None => None,
    }
}

/// The first stored segment from `begin` on that reaches the time `from`, and the last that is not behind the time `to`.
fn span<E: WalEvidence>(
    road: &Road<'_>,
    begin: SegmentNo,
    (from, to): (Option<PgTime>, Option<PgTime>),
    evidence: &mut E,
) -> Result<Option<(SegmentNo, Option<SegmentNo>)>, E::Error> {
    let mut first = None;
    let mut last = None;
    let mut next = begin;
    while let Some(segment) = road.next(next, evidence)? {
        next = segment.number.next();
        let reaches = |from| segment.facts.max_time.is_some_and(|max| max >= from);
        if first.is_none() && from.is_none_or(reaches) {
            first = Some(segment.number);
        }
        if first.is_some() {
            let Some(to) = to else { break };
            if last.is_none() || segment.facts.min_time.is_none_or(|min| min <= to) {
                last = Some(segment.number);
            }
        }
    }
    Ok(first.map(|first| (first, last)))
}
