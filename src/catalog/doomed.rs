//! What is to be removed: marks that name it before it goes, and the record of the WAL that retention removed.
//!
//! A mark is an object of its own, `doomed/<time>-<writer>.json`. It is never changed; it goes when all that it names is
//! gone or needed again. Nothing that is not named by a mark is ever removed, and nothing before its mark is due.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{BackupId, PackId};
use crate::wal::{PgTime, SegmentName};

/// The version of a mark's and of an expiry record's JSON that this program writes and reads.
pub const DOOM_FORMAT: u32 = 1;

/// What is to be removed, and when.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Doom {
    /// [`DOOM_FORMAT`].
    pub format: u32,
    /// When it was marked.
    pub at: PgTime,
    /// Not before this.
    pub due: PgTime,
    /// The host of whoever marked it.
    pub host: String,
    /// Backups, with everything in their folders: forgotten ones, and what broken-off ones left there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<BackupId>,
    /// Packs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packs: Vec<PackRun>,
    /// WAL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wal: Vec<WalRun>,
}

/// Packs of one backup that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct PackRun {
    /// The backup that wrote them.
    pub backup: BackupId,
    /// The first one's number.
    pub first: u32,
    /// The last one's number.
    pub last: u32,
}

/// Segments of one timeline that follow each other, and whatever else the archive has under their names: damaged and
/// incomplete copies, backup history files. Never timeline history files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct WalRun {
    /// The first one.
    pub first: SegmentName,
    /// The last one, of the same timeline.
    pub last: SegmentName,
}

impl WalRun {
    /// Whether a segment is one of them.
    #[must_use]
    pub fn contains(&self, segment: SegmentName) -> bool {
        let same = segment.timeline() == self.first.timeline() && segment.timeline() == self.last.timeline();
        same && (self.first.place()..=self.last.place()).contains(&segment.place())
    }
}

impl fmt::Display for WalRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{} to {}", self.first, self.last) }
    }
}

impl Doom {
    /// Whether it names nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.backups.is_empty() && self.packs.is_empty() && self.wal.is_empty()
    }

    /// The packs that it names.
    pub fn packs(&self) -> impl Iterator<Item = PackId> + '_ {
        let of_run = |run: &PackRun| {
            let backup = run.backup;
            (run.first..=run.last).map(move |number| PackId { backup, number })
        };
        self.packs.iter().flat_map(of_run)
    }

    /// Whether it names a pack.
    #[must_use]
    pub fn has_pack(&self, id: PackId) -> bool {
        self.packs.iter().any(|run| run.backup == id.backup && (run.first..=run.last).contains(&id.number))
    }

    /// Whether this moment is so close to the removal, or after it, that what is named here must not be built on: within the
    /// second half of its time. Whoever began to use it before has the first half to finish.
    #[must_use]
    pub fn is_near(&self, now: PgTime) -> bool {
        let half = self.due.0.saturating_sub(self.at.0) / 2;
        now.0 >= self.due.0.saturating_sub(half)
    }

    /// Whether it may be removed at this moment, if marks have to stand for `age_us` at least.
    #[must_use]
    pub fn is_due(&self, now: PgTime, age_us: i64) -> bool {
        now.0 >= self.due.0.max(self.at.0.saturating_add(age_us))
    }
}

/// Puts packs, ascending, into runs.
#[must_use]
pub fn pack_runs(packs: impl IntoIterator<Item = PackId>) -> Vec<PackRun> {
    let mut runs: Vec<PackRun> = Vec::new();
    for PackId { backup, number } in packs {
        match runs.last_mut() {
            Some(run) if run.backup == backup && run.last.checked_add(1) == Some(number) => run.last = number,
            _ => runs.push(PackRun { backup, first: number, last: number }),
        }
    }
    runs
}

/// Which WAL retention removed, so that nobody takes it for lost: `expired/<time>-<writer>.json`. A later record says all that
/// earlier ones did.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Expired {
    /// [`DOOM_FORMAT`].
    pub format: u32,
    /// The WAL.
    pub wal: Vec<WalRun>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs name exactly the packs that they were made of.
    #[test]
    fn runs() {
        let [a, b] = [1, 2].map(|random| BackupId::new(PgTime(0), random));
        let id = |backup, number| PackId { backup, number };
        let packs = [id(a, 0), id(a, 1), id(a, 3), id(b, 4)];
        let runs = pack_runs(packs);
        assert_eq!(runs.len(), 3);
        let (at, due) = (PgTime(0), PgTime(100));
        let doom = Doom { format: 1, at, due, host: String::new(), backups: vec![], packs: runs, wal: vec![] };
        for number in 0..5 {
            for backup in [a, b] {
                assert_eq!(doom.has_pack(id(backup, number)), packs.contains(&id(backup, number)));
            }
        }
        assert!(!doom.is_near(PgTime(49)) && doom.is_near(PgTime(50)));
        assert!(!doom.is_due(PgTime(99), 0) && doom.is_due(PgTime(100), 0) && !doom.is_due(PgTime(100), 200));
        let text = serde_json::to_string(&doom).expect("json");
        assert_eq!(serde_json::from_str::<Doom>(&text).expect("reads back"), doom);
    }
}
