//! How much of what is stored was verified, and how long ago at most, by the ledger.

use std::fmt;

use serde::Serialize;

use crate::catalog::{BackupId, PackId, Verified};
use crate::recovery::Snapshot;
use crate::wal::PgTime;

/// How much of what is stored now was ever verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Coverage {
    /// The longest ago that something was verified that is stored now and was verified at all.
    pub oldest: Option<PgTime>,
    /// Backups that never were.
    pub never_backups: u64,
    /// Packs that never were.
    pub never_packs: u64,
    /// Complete segments that never were.
    pub never_segments: u64,
    /// Backups, packs and segments that were.
    pub verified: u64,
}

impl Coverage {
    /// By the ledger, for what is stored now.
    #[must_use]
    pub fn of(
        verified: &Verified,
        snapshot: &Snapshot,
        backups: impl Iterator<Item = BackupId>,
        packs: impl Iterator<Item = PackId>,
    ) -> Coverage {
        let mut coverage = Coverage::default();
        for id in backups {
            let at = verified.backups.get(&id).filter(|found| found.assembled.is_none()).map(|found| found.at);
            coverage.count(u64::from(at.is_some()), at);
            coverage.never_backups += u64::from(at.is_none());
        }
        for pack in packs {
            let at = verified.packs.get(&pack.backup).and_then(|spans| spans.at(pack.number.into()));
            coverage.count(u64::from(at.is_some()), at);
            coverage.never_packs += u64::from(at.is_none());
        }
        for (timeline, record) in &snapshot.timelines {
            let spans = verified.segments.get(timeline);
            for run in record.segments.runs() {
                let (first, last) = (run.start().0, run.end().0);
                let (covered, at) = spans.map_or((0, None), |spans| spans.within(first, last));
                coverage.count(covered, at);
                coverage.never_segments += last - first + 1 - covered;
            }
        }
        coverage
    }

    fn count(&mut self, count: u64, at: Option<PgTime>) {
        self.verified += count;
        self.oldest = match (self.oldest, at) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// Everything was verified at some time.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.never_backups + self.never_packs + self.never_segments == 0
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Coverage { oldest, never_backups, never_packs, never_segments, .. } = self;
        let never = format!("{never_backups} backups, {never_packs} packs and {never_segments} segments");
        match oldest {
            None if self.is_complete() => write!(f, "nothing is stored yet"),
            None => write!(f, "never"),
            Some(oldest) if self.is_complete() => write!(f, "all of it since {:.0}", oldest.to_timestamp()),
            Some(oldest) => write!(f, "never: {never}; the rest since {:.0}", oldest.to_timestamp()),
        }
    }
}
