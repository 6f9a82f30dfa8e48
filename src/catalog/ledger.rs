//! The ledger of what was verified when: small objects that are written once, each of which adds to those before it.
//!
//! What it tells is a help, not a truth: an object that is lost, damaged or of a newer version only makes a later run verify again
//! what was verified already.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{BackupId, BackupIdError};
use crate::wal::{PgTime, SegmentName, SegmentNo, SegmentSize, TimelineId};

/// The version of [`Ledger`]'s JSON that this program writes and reads.
pub const LEDGER_FORMAT: u32 = 1;

/// The name of a ledger object: when it was written, and random digits, in the form of a [`BackupId`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LedgerName(BackupId);

impl LedgerName {
    /// The name of an object that is written now.
    #[must_use]
    pub fn new(now: PgTime, random: u32) -> LedgerName {
        LedgerName(BackupId::new(now, random))
    }

    /// When it was written.
    #[must_use]
    pub fn written_at(self) -> PgTime {
        self.0.started_at()
    }
}

impl fmt::Display for LedgerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LedgerName {
    type Err = BackupIdError;

    fn from_str(text: &str) -> Result<Self, BackupIdError> {
        text.parse().map(LedgerName)
    }
}

/// A ledger object.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// [`LEDGER_FORMAT`].
    pub format: u32,
    /// Host that verified.
    pub host: String,
    /// Objects of which this one has everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<LedgerName>,
    /// It has everything of the objects written before this, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces_before: Option<PgTime>,
    /// Segments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<VerifiedSegments>,
    /// What else is stored of a timeline's WAL: history file, incomplete and damaged segments, backup history files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<VerifiedOthers>,
    /// Packs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packs: Vec<VerifiedPacks>,
    /// Backups: info, tail, manifest, and that what it refers to is where it should be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<VerifiedBackup>,
}

/// Segments that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifiedSegments {
    /// The first.
    pub first: SegmentName,
    /// The last.
    pub last: SegmentName,
    /// When.
    pub at: PgTime,
}

/// The other WAL objects of a timeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifiedOthers {
    /// The timeline.
    pub timeline: TimelineId,
    /// When.
    pub at: PgTime,
}

/// Packs that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifiedPacks {
    /// The backup that wrote them.
    pub backup: BackupId,
    /// Number of the first.
    pub first: u32,
    /// Number of the last.
    pub last: u32,
    /// When.
    pub at: PgTime,
}

/// A backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VerifiedBackup {
    /// Which.
    pub id: BackupId,
    /// When.
    pub at: PgTime,
    /// It was not finished: of the chunks with page sets only so many were put together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assembled: Option<u64>,
}

/// Moments of runs of numbers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spans(BTreeMap<u64, (u64, PgTime)>);

impl Spans {
    /// Sets the moment of all numbers from `first` to `last`, whatever it was.
    pub fn set(&mut self, first: u64, last: u64, at: PgTime) {
        if first > last {
            return;
        }
        let overlapping = self.0.range(..=last).rev().take_while(|(_, (end, _))| *end >= first);
        let overlapping: Vec<(u64, u64, PgTime)> = overlapping.map(|(start, (end, at))| (*start, *end, *at)).collect();
        for (start, end, then) in overlapping {
            self.0.remove(&start);
            if start < first {
                self.0.insert(start, (first - 1, then));
            }
            if end > last {
                self.0.insert(last + 1, (end, then));
            }
        }
        let (mut first, mut last) = (first, last);
        let before = self.0.range(..first).next_back().map(|(start, found)| (*start, *found));
        if let Some((start, (end, then))) = before
            && (end.checked_add(1), then) == (Some(first), at)
        {
            self.0.remove(&start);
            first = start;
        }
        if let Some(next) = last.checked_add(1)
            && let Some((end, then)) = self.0.get(&next).copied()
            && then == at
        {
            self.0.remove(&next);
            last = end;
        }
        self.0.insert(first, (last, at));
    }

    /// The moment of a number.
    #[must_use]
    pub fn at(&self, number: u64) -> Option<PgTime> {
        let (_, (end, at)) = self.0.range(..=number).next_back()?;
        (*end >= number).then_some(*at)
    }

    /// How many of these numbers have a moment, and the earliest of them.
    #[must_use]
    pub fn within(&self, first: u64, last: u64) -> (u64, Option<PgTime>) {
        let overlapping = self.0.range(..=last).rev().take_while(|(_, (end, _))| *end >= first);
        overlapping.fold((0, None), |(count, earliest), (start, (end, at))| {
            let covered = (*end).min(last) - (*start).max(first) + 1;
            (count + covered, Some(earliest.map_or(*at, |other: PgTime| other.min(*at))))
        })
    }

    /// The greatest number.
    #[must_use]
    pub fn last(&self) -> Option<u64> {
        self.0.values().next_back().map(|(end, _)| *end)
    }

    /// All runs: first, last, moment.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64, PgTime)> + '_ {
        self.0.iter().map(|(first, (last, at))| (*first, *last, *at))
    }
}

/// What the ledger says, put together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Verified {
    /// By timeline and [`SegmentNo`].
    pub segments: BTreeMap<TimelineId, Spans>,
    /// By timeline.
    pub others: BTreeMap<TimelineId, PgTime>,
    /// By backup and number.
    pub packs: BTreeMap<BackupId, Spans>,
    /// By backup.
    pub backups: BTreeMap<BackupId, VerifiedBackup>,
}

impl Verified {
    /// What ledger objects say: of several statements the latest counts.
    #[must_use]
    pub fn of(ledgers: &[Ledger], size: SegmentSize) -> Verified {
        let mut verified = Verified::default();
        let mut segments: Vec<_> = ledgers.iter().flat_map(|ledger| &ledger.segments).collect();
        segments.sort_by_key(|run| run.at);
        for run in segments {
            if let (Ok(first), Ok(last)) = (run.first.number(size), run.last.number(size)) {
                verified.segments.entry(run.first.timeline()).or_default().set(first.0, last.0, run.at);
            }
        }
        let mut packs: Vec<_> = ledgers.iter().flat_map(|ledger| &ledger.packs).collect();
        packs.sort_by_key(|run| run.at);
        for run in packs {
            verified.packs.entry(run.backup).or_default().set(run.first.into(), run.last.into(), run.at);
        }
        let mut others: Vec<_> = ledgers.iter().flat_map(|ledger| &ledger.others).collect();
        others.sort_by_key(|found| found.at);
        verified.others.extend(others.iter().map(|found| (found.timeline, found.at)));
        let mut backups: Vec<_> = ledgers.iter().flat_map(|ledger| &ledger.backups).collect();
        backups.sort_by_key(|found| found.at);
        verified.backups.extend(backups.iter().map(|found| (found.id, **found)));
        verified
    }

    /// Nothing was verified.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Verified::default()
    }

    /// Everything as one ledger object.
    #[must_use]
    pub fn to_ledger(&self, host: String, size: SegmentSize) -> Ledger {
        let segments = self.segments.iter().flat_map(|(timeline, spans)| {
            let name = |number| SegmentName::new(*timeline, SegmentNo(number), size);
            spans.runs().map(move |(first, last, at)| VerifiedSegments { first: name(first), last: name(last), at })
        });
        // Numbers came from numbers of 32 bits.
        let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        let packs = self.packs.iter().flat_map(|(backup, spans)| {
            spans.runs().map(move |(first, last, at)| VerifiedPacks {
                backup: *backup,
                first: number(first),
                last: number(last),
                at,
            })
        });
        Ledger {
            format: LEDGER_FORMAT,
            host,
            replaces: Vec::new(),
            replaces_before: None,
            segments: segments.collect(),
            others: self.others.iter().map(|(timeline, at)| VerifiedOthers { timeline: *timeline, at: *at }).collect(),
            packs: packs.collect(),
            backups: self.backups.values().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Runs say the same as a moment kept for each number, and no two of them could be one.
        #[test]
        fn same_as_a_table(steps in proptest::collection::vec((0..40_u64, 0..12_u64, 0..3_i64), 0..60)) {
            let (mut spans, mut table) = (Spans::default(), BTreeMap::new());
            for (first, length, at) in steps {
                spans.set(first, first + length, PgTime(at));
                (first..=first + length).for_each(|number| {
                    table.insert(number, PgTime(at));
                });
            }
            for number in 0..60 {
                prop_assert_eq!(spans.at(number), table.get(&number).copied());
            }
            for first in 0..50 {
                let within = || table.range(first..=first + 9).map(|(_, at)| *at);
                prop_assert_eq!(spans.within(first, first + 9), (within().count() as u64, within().min()));
            }
            prop_assert_eq!(spans.last(), table.keys().next_back().copied());
            let runs: Vec<_> = spans.runs().collect();
            let apart = |pair: &[(u64, u64, PgTime)]| pair[0].1 + 1 < pair[1].0 || pair[0].2 != pair[1].2;
            prop_assert!(runs.windows(2).all(apart), "{:?}", runs);
        }
    }

    /// What several objects say is what one says that was made of them, and the latest statement counts.
    #[test]
    fn put_together() {
        let size = SegmentSize::DEFAULT;
        let name = |number| SegmentName::new(TimelineId(1), SegmentNo(number), size);
        let run = |first, last, at| VerifiedSegments { first: name(first), last: name(last), at: PgTime(at) };
        let backup = |at, assembled| VerifiedBackup { id: BackupId::new(PgTime(0), 1), at: PgTime(at), assembled };
        let new = Ledger { segments: vec![run(5, 6, 9)], backups: vec![backup(9, None)], ..Ledger::default() };
        let old = Ledger { segments: vec![run(1, 300, 4)], backups: vec![backup(4, Some(7))], ..Ledger::default() };
        let verified = Verified::of(&[new, old], size);
        assert_eq!(verified.segments[&TimelineId(1)].at(6), Some(PgTime(9)));
        assert_eq!(verified.segments[&TimelineId(1)].at(300), Some(PgTime(4)));
        assert_eq!(verified.backups.values().next().and_then(|found| found.assembled), None);
        let json = serde_json::to_string(&verified.to_ledger("h".to_owned(), size)).expect("JSON");
        let back: Ledger = serde_json::from_str(&json).expect("it reads back");
        assert_eq!(Verified::of(&[back], size), verified);
    }
}
