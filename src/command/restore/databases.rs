//! `--only-database`: which databases get their content, and what becomes of the others.
//!
//! What is shared (`global/`) always comes, and so do template0, template1 and postgres: tools connect to them, and DROP DATABASE
//! needs one to be said in. Of all others the files become holes. Replay meets their pages as pages of zero bytes. A record that
//! brings a whole page (the first change of each page after the backup's checkpoint does, and so does one that makes a page anew)
//! is replayed; any other that meets zero bytes is passed over with a warning, by `ignore_invalid_pages`. So each page of theirs is at
//! any time right or zero, and no record is ever applied to a wrong one.
//!
//! That setting would hide invalid pages of the databases that are wanted, too: `pitr restore --start` therefore looks for these in
//! the log, and fails if there are any. Databases that are left out have no `PG_VERSION`, so that no client and no autovacuum
//! worker gets far enough in to read a catalog of zero bytes.

use std::collections::{BTreeMap, BTreeSet};

use indicatif::HumanBytes;
use serde::Serialize;

use super::replayed::Replayed;
use super::resolve::Resolved;
use super::survey::Survey;
use super::{Args, RestoreError};
use crate::pgdata::replay_log::Replay;
use crate::wal::{Event, EventKind, Lsn};

/// Databases that come always, by name or by what `initdb` numbered (`FirstNormalObjectId`): a template1 that was made anew has
/// another number, and one that was renamed another name.
const ALWAYS: [&str; 3] = ["template0", "template1", "postgres"];
const FIRST_NORMAL_OID: u32 = 16384;

/// The choice.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(super) struct Databases {
    /// Those that get their content.
    pub(super) whole: Vec<Database>,
    /// Those whose files become holes.
    pub(super) left_out: Vec<Database>,
    /// Those that the WAL makes on the way, and that are there at the stop point.
    pub(super) made_later: Vec<MadeLater>,
    /// Those of `whole` that the WAL removes before the stop point.
    pub(super) dropped: Vec<Dropped>,
    /// OIDs of all that have to be dropped afterwards: holes, and copies of holes.
    pub(super) unusable: BTreeSet<u32>,
}

/// A database of the backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Database {
    pub(super) oid: u32,
    /// Its name at the backup's start; `None` if the backup does not tell, as of one that was made while it was taken.
    pub(super) name: Option<String>,
    /// Bytes in the backup.
    pub(super) bytes: u64,
}

/// A database that the WAL makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct MadeLater {
    pub(super) oid: u32,
    pub(super) lsn: Lsn,
    /// It will have its content; else it is a copy of files that are left out.
    pub(super) whole: bool,
}

/// A database that the WAL removes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Dropped {
    pub(super) name: String,
    pub(super) lsn: Lsn,
}

impl Database {
    fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| format!("OID {}", self.oid))
    }
}

/// Finds the databases that are asked for; `None` if all are. Takes the others out of the survey.
pub(super) fn choose(
    args: &Args,
    resolved: &Resolved,
    survey: &mut Survey,
    replayed: &Replayed,
) -> Result<Option<Databases>, RestoreError> {
    if args.only_database.is_empty() {
        return Ok(None);
    }
    let names = resolved.server.names_of_backup(resolved.info.id)?;
    let mut all: BTreeMap<u32, Database> = BTreeMap::new();
    for ((oid, _), share) in &survey.databases {
        let database = all.entry(*oid).or_insert_with(|| Database { oid: *oid, name: None, bytes: 0 });
        database.name = names.database_name(*oid);
        database.bytes += share.bytes;
    }
    let mut wanted: BTreeSet<u32> = BTreeSet::new();
    for name in &args.only_database {
        wanted.insert(named(&all, name).ok_or_else(|| RestoreError::NoSuchDatabase {
            name: name.clone(),
            backup: resolved.info.id.to_string(),
            known: all.values().map(Database::shown).collect(),
        })?);
    }
    let (whole, left_out) = all.into_values().partition::<Vec<_>, _>(|database| {
        let always = database.oid < FIRST_NORMAL_OID || database.name.as_deref().is_some_and(|n| ALWAYS.contains(&n));
        always || wanted.contains(&database.oid)
    });
    let databases = follow(whole, left_out, &replayed.events);
    survey.leave_out(&databases.left_out_oids());
    Ok(Some(databases))
}

/// A name counts before a number.
fn named(all: &BTreeMap<u32, Database>, name: &str) -> Option<u32> {
    let by_name = all.values().find(|database| database.name.as_deref() == Some(name));
    by_name.map(|database| database.oid).or_else(|| name.parse().ok().filter(|oid| all.contains_key(oid)))
}

/// What the WAL on the way makes of them.
fn follow(whole: Vec<Database>, left_out: Vec<Database>, events: &[Event]) -> Databases {
    let mut usable: BTreeMap<u32, bool> = whole.iter().map(|database| (database.oid, true)).collect();
    usable.extend(left_out.iter().map(|database| (database.oid, false)));
    let mut made: BTreeMap<u32, Lsn> = BTreeMap::new();
    let mut dropped = Vec::new();
    let mut moving: BTreeSet<u32> = BTreeSet::new();
    for event in events {
        match event.kind {
            // ALTER DATABASE SET TABLESPACE copies a database to its new place and drops the old one.
            EventKind::DatabaseCreate { oid, copy_of: Some(from), .. } if from == oid => {
                moving.insert(oid);
            }
            EventKind::DatabaseCreate { oid, copy_of, .. } => {
                let is_whole = copy_of.is_none_or(|from| usable.get(&from).copied().unwrap_or(false));
                usable.insert(oid, is_whole);
                made.insert(oid, event.lsn);
            }
            EventKind::DatabaseDrop { oid } if !moving.remove(&oid) => {
                usable.remove(&oid);
                made.remove(&oid);
                let gone = whole.iter().find(|database| database.oid == oid);
                dropped.extend(gone.map(|gone| Dropped { name: gone.shown(), lsn: event.lsn }));
            }
            _ => {}
        }
    }
    let made_later = made.into_iter();
    let made_later = made_later.map(|(oid, lsn)| MadeLater { oid, lsn, whole: usable.get(&oid) == Some(&true) });
    Databases {
        made_later: made_later.collect(),
        dropped,
        unusable: usable.into_iter().filter(|(_, usable)| !usable).map(|(oid, _)| oid).collect(),
        whole,
        left_out,
    }
}

impl Databases {
    /// OIDs of those whose files become holes.
    pub(super) fn left_out_oids(&self) -> BTreeSet<u32> {
        self.left_out.iter().map(|database| database.oid).collect()
    }

    /// One line for the plan.
    pub(super) fn line(&self) -> String {
        let whole: Vec<String> = self.whole.iter().map(Database::shown).collect();
        let left_out = |database: &Database| format!("{} ({})", database.shown(), HumanBytes(database.bytes));
        let left_out: Vec<String> = self.left_out.iter().map(left_out).collect();
        let rest = if left_out.is_empty() { "none".to_owned() } else { left_out.join(", ") };
        format!("{}; LEFT OUT: {rest}", whole.join(", "))
    }

    /// What the user should know before saying yes.
    pub(super) fn notes(&self, over_cluster: bool) -> Vec<String> {
        let mut notes = Vec::new();
        if !self.left_out.is_empty() {
            notes.push(
                "the databases that are left out CANNOT BE USED: their files are holes, and nobody can connect to them. Drop them \
                 when recovery is over; the last lines tell how"
                    .to_owned(),
            );
        }
        if over_cluster && !self.left_out.is_empty() {
            notes.push("what the cluster in the target has of them is LOST with it".to_owned());
        }
        for Dropped { name, lsn } in &self.dropped {
            notes.push(format!(
                "database {name} is DROPPED before the target and will not be there; --to-lsn {lsn} --exclusive stops before that"
            ));
        }
        for MadeLater { oid, lsn, whole } in &self.made_later {
            notes.push(if *whole {
                format!("a database made after the backup (OID {oid}, LSN {lsn}) comes whole, with the WAL")
            } else {
                format!(
                    "a database made after the backup (OID {oid}, LSN {lsn}) is a copy of one that is left out, and CANNOT BE USED \
                     either"
                )
            });
        }
        notes
    }

    /// What to do when recovery is over; empty if all databases are whole.
    pub(super) fn afterwards(&self) -> String {
        if self.unusable.is_empty() {
            return String::new();
        }
        let names: Vec<String> = self.left_out.iter().map(Database::shown).collect();
        let oids: Vec<String> = self.unusable.iter().map(ToString::to_string).collect();
        format!(
            "LEFT OUT, not usable: {}. When recovery is over, drop them in psql:\n  \
             SELECT format('DROP DATABASE %I', datname) FROM pg_database WHERE oid IN ({}) \\gexec\n  \
             ALTER SYSTEM RESET ignore_invalid_pages;   -- and restart; until they are dropped, recovery after a crash needs it\n",
            names.join(", "),
            oids.join(", ")
        )
    }

    /// The invalid pages of databases that should be whole, by OID of the database (0: shared).
    pub(super) fn invalid(&self, replay: &Replay) -> BTreeMap<u32, u64> {
        // One that was left out and dropped on the way had holes as well.
        let left_out = self.left_out_oids();
        let is_hole = |oid: &u32| left_out.contains(oid) || self.unusable.contains(oid);
        replay.invalid_pages.iter().filter(|(oid, _)| !is_hole(oid)).map(|(oid, count)| (*oid, *count)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::Xid;

    fn database(oid: u32, name: &str) -> Database {
        Database { oid, name: Some(name.into()), bytes: 1 }
    }

    fn events(kinds: &[EventKind]) -> Vec<Event> {
        let at = |(place, kind): (usize, &EventKind)| {
            let lsn = Lsn(place as u64);
            Event { lsn, end_lsn: lsn, xid: Xid(3), kind: kind.clone() }
        };
        kinds.iter().enumerate().map(at).collect()
    }

    /// A database that the WAL makes is whole if its pages follow or its source is whole, at whatever remove; a move to another
    /// tablespace is neither a creation nor a removal.
    #[test]
    fn made_and_dropped_on_the_way() {
        let create = |oid, copy_of| EventKind::DatabaseCreate { oid, tablespace: 1663, copy_of };
        let drop = |oid| EventKind::DatabaseDrop { oid };
        let way = events(&[
            create(20, None),
            create(21, Some(1)),
            create(22, Some(11)),
            create(23, Some(22)),
            create(10, Some(10)),
            drop(10),
            create(24, Some(10)),
            create(25, None),
            drop(25),
            drop(12),
        ]);
        let whole = vec![database(1, "template1"), database(10, "shop"), database(12, "old")];
        let found = follow(whole, vec![database(11, "other")], &way);
        let made: Vec<(u32, bool)> = found.made_later.iter().map(|made| (made.oid, made.whole)).collect();
        assert_eq!(made, [(20, true), (21, true), (22, false), (23, false), (24, true)]);
        assert_eq!(found.dropped, [Dropped { name: "old".into(), lsn: Lsn(9) }]);
        assert_eq!(found.unusable, BTreeSet::from([11, 22, 23]));
        let replay = Replay { invalid_pages: BTreeMap::from([(11, 5), (10, 1), (0, 2)]), ..Replay::default() };
        assert_eq!(found.invalid(&replay), BTreeMap::from([(0, 2), (10, 1)]));
    }

    /// A name that looks like a number is a name first.
    #[test]
    fn names_before_numbers() {
        let all = BTreeMap::from([(16400, database(16400, "16500")), (16500, database(16500, "b"))]);
        assert_eq!(
            ["16500", "16400", "b", "c"].map(|name| named(&all, name)),
            [Some(16400), Some(16400), Some(16500), None]
        );
    }
}
