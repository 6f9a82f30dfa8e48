//! Removing what is no longer kept: backups that the rules let go or people forgot, what nothing refers to, and old WAL.
//!
//! Everything goes in two steps, with a mark in between that stands for days ([`super::doomed`]):
//!
//! ```text
//! the rules let a backup go, or somebody forgets it ─► note "forgotten": nothing is restored from it any more
//! nothing that is kept needs an object              ─► mark: it is named, with the day before which it stays
//! the mark is due, the manifests are read again     ─► removed, unless it is needed after all
//! ```
//!
//! A backup, a restore and another collection may run at the same time, on any host. Whoever is killed at any point leaves
//! nothing that the next run does not finish. Of a backup the manifest goes first, so what is left of it never looks complete.
//!
//! A pack that is mostly dead is not rewritten here: later backups do not build on it, so that it goes as a whole ([`super::earlier`] has the rule, and
//! what it costs and brings). How many dead bytes there are is told.
//!
//! [`plan_collection`](super::ServerRepository::plan_collection) only reads; the plan is a value that is shown, and then carried out.

mod carry_out;
mod removal;
mod survey;
mod wal;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::ServerRecord;
use super::doomed::add_runs;
use crate::catalog::{BackupId, Doom, PackId, PackRun, Stamp, WalRun};
use crate::recovery::{Judged, Retention, Snapshot, StoredSegments};
use crate::wal::{PgTime, SegmentSize, SystemIdentifier, TimelineId};

/// By what rules, by whom, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    /// Which backups go by themselves.
    pub retention: Retention,
    /// How long a mark stands before what it names is removed, in microseconds.
    pub age_us: i64,
    /// The host that does it.
    pub host: String,
    /// Now.
    pub now: PgTime,
    /// `pg_upgrade` left this server behind, and its successor has backups: all of it may go.
    pub superseded: bool,
}

impl Rules {
    /// When something that is marked now may be removed.
    #[must_use]
    pub fn due(&self) -> PgTime {
        PgTime(self.now.0.saturating_add(self.age_us))
    }

    /// What began before this is over, finished or not.
    #[must_use]
    pub fn over_before(&self) -> PgTime {
        PgTime(self.now.0.saturating_sub(self.age_us))
    }
}

/// Something that goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Going {
    /// What it is.
    pub what: What,
    /// Objects of it.
    pub objects: u64,
    /// Their bytes in the store; those of a backup without its packs are not counted.
    pub stored_bytes: u64,
    /// Why.
    pub why: String,
}

/// What goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A backup: its manifest first, and everything else in its folder.
    Backup(BackupId),
    /// Packs.
    Packs(PackRun),
    /// WAL files.
    Wal(WalRun),
}

/// What the marks that are due name, taken together.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Due {
    /// The marks.
    stamps: Vec<Stamp>,
    backups: BTreeSet<BackupId>,
    packs: BTreeSet<PackId>,
    wal: BTreeMap<TimelineId, StoredSegments>,
}

impl Due {
    fn of(dooms: Vec<(Stamp, Doom)>, size: SegmentSize) -> Due {
        let mut due = Due::default();
        for (stamp, doom) in dooms {
            due.stamps.push(stamp);
            due.packs.extend(doom.packs());
            due.backups.extend(doom.backups);
            add_runs(&mut due.wal, &doom.wal, size);
        }
        due
    }
}

/// A mark that is not due.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Waiting {
    /// When it was marked.
    pub at: PgTime,
    /// Not before this.
    pub due: PgTime,
    /// Backups that it names.
    pub backups: Vec<BackupId>,
    /// How many packs.
    pub packs: u64,
    /// WAL.
    pub wal: Vec<WalRun>,
}

/// A backup that the rules let go, and that is not yet forgotten.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Forgetting {
    /// The backup.
    pub id: BackupId,
    /// Why, in words.
    pub why: String,
}

/// What is to be done for one server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CollectionPlan {
    /// The server.
    pub system_identifier: SystemIdentifier,
    /// What the rules say of each backup that was not forgotten.
    pub judged: Vec<Judged>,
    /// Backups that the rules let go now.
    pub forgetting: Vec<Forgetting>,
    /// What goes now, as far as can be told beforehand.
    pub going: Vec<Going>,
    /// What is marked now.
    pub marking: Vec<Going>,
    /// Marks that are not due.
    pub waiting: Vec<Waiting>,
    /// What keeps something from being collected.
    pub problems: Vec<String>,
    /// Damaged marks, and why they cannot be read. What they named is marked anew, and then they go.
    pub unreadable: Vec<(Stamp, String)>,
    /// Bytes of all packs.
    pub pack_bytes: u64,
    /// How many of these no backup that stays needs, though the packs are needed: they go when later backups have moved what is left in the
    /// packs (see [`EarlierBackup`](super::earlier::EarlierBackup)), and those before have gone.
    pub dead_bytes: u64,
    /// The new mark; it may name nothing.
    mark: Doom,
    due: Due,
    /// Marks that name what is needed again, and what is left of them.
    sparing: Vec<(Stamp, Doom)>,
    snapshot: Snapshot,
    record: ServerRecord,
    rules: Rules,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Collected {
    /// What was removed.
    pub removed: Vec<Going>,
    /// How many objects the store refused to remove. The marks stay.
    pub refused: u64,
    /// Why it refused the first of them.
    pub refusal: Option<String>,
    /// Backups that were remembered just now.
    pub spared: Vec<BackupId>,
    /// It was asked to stop.
    pub interrupted: bool,
}

/// Packs with their bytes.
type Packs = BTreeMap<PackId, u64>;

/// Packs as runs, each with one reason.
fn pack_goings(packs: &Packs, why: impl Fn(BackupId) -> String) -> Vec<Going> {
    let runs = crate::catalog::pack_runs(packs.keys().copied());
    let going = |run: PackRun| {
        let id = |number| PackId { backup: run.backup, number };
        let of_run = packs.range(id(run.first)..=id(run.last));
        let (objects, stored_bytes) = of_run.fold((0, 0), |(count, sum), (_, bytes)| (count + 1, sum + bytes));
        Going { what: What::Packs(run), objects, stored_bytes, why: why(run.backup) }
    };
    runs.into_iter().map(going).collect()
}

/// Why the packs of a backup are not needed.
fn why_packs(complete: &BTreeSet<BackupId>) -> impl Fn(BackupId) -> String + '_ {
    |backup| match complete.contains(&backup) {
        true => "their backup is forgotten, and no other one refers to them".to_owned(),
        false => "their backup was never complete or is gone, and no other one refers to them".to_owned(),
    }
}

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod race_tests;
#[cfg(test)]
mod step_tests;
#[cfg(test)]
mod tests;
