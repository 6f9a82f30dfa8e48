//! Each step that keeps collection safe without locks, at the moment at which it counts. Taken out of the program, its test fails.

use std::cell::Cell;
use std::sync::Arc;

use super::tests::{
    AGE, BEGIN, DAY, HOUR, author, backup, collect, commit, forget, id, open, prove, put_pack, put_wal, record, rules,
    segments,
};
use super::*;
use crate::catalog::Saying;
use crate::repository::{Remembering, RepositoryError, ServerRepository};
use crate::storage::Memory;

/// When the two backups are there.
const NOW: i64 = BEGIN + 2 * DAY;

/// Two backups, the first one forgotten and marked at [`NOW`].
fn marked() -> (ServerRepository, (BackupId, crate::chunk::Place), BackupId) {
    let server = open(Arc::new(Memory::default()));
    put_wal(&server, 1..=50);
    let first = backup(&server, BEGIN, 5, &[]);
    let (second, _) = backup(&server, BEGIN + DAY, 15, &[]);
    forget(&server, first.0, NOW);
    collect(&server, &rules(NOW, None));
    (server, first, second)
}

/// Carries a plan of one moment out at a later one.
fn collect_late(server: &ServerRepository, planned: &CollectionPlan, clock: &dyn Fn() -> PgTime) -> Collected {
    server.collect(planned, clock, &|| true, &mut |_| {}).expect("carried out")
}

fn plan(server: &ServerRepository, now: i64) -> CollectionPlan {
    server.plan_collection(&record(), &rules(now, None)).expect("planned")
}

/// A manifest that refers to what is nearly due is refused; a young mark does no harm.
#[test]
fn marks_are_read_before_the_manifest() {
    let (server, parent, second) = marked();
    let [early, late] = [NOW + HOUR, NOW + AGE - HOUR].map(|at| id(at, 7));
    let place = put_pack(&server, late).expect("stored");
    let refused = commit(&server, late, place, &[parent], 20, &|| PgTime(NOW + AGE - HOUR));
    assert!(matches!(refused, Err(RepositoryError::Doomed { .. })), "{refused:?}");
    let place = put_pack(&server, early).expect("stored");
    commit(&server, early, place, &[parent], 20, &|| PgTime(NOW + HOUR)).expect("the mark is young");
    collect(&server, &rules(NOW + AGE, None));
    assert_eq!(prove(&server), [second, early]);
}

/// A manifest that took too long to reach the store does not count.
#[test]
fn late_manifests_do_not_count() {
    let (server, _, second) = marked();
    let new = id(NOW + HOUR, 7);
    let place = put_pack(&server, new).expect("stored");
    let asked = Cell::new(0);
    let clock = || PgTime(NOW + HOUR * (1 + asked.replace(asked.get() + 1)));
    let late = commit(&server, new, place, &[], 20, &clock);
    assert!(matches!(late, Err(RepositoryError::Late { .. })), "{late:?}");
    assert_eq!(prove(&server), [second]);
}

/// Manifests are read again when marks are due: one that was written since the plan counts.
#[test]
fn manifests_are_read_again() {
    let (server, parent, second) = marked();
    let due = plan(&server, NOW + AGE);
    let new = id(NOW - HOUR, 7);
    let place = put_pack(&server, new).expect("stored");
    commit(&server, new, place, &[parent], 20, &|| PgTime(NOW + HOUR)).expect("complete");
    collect_late(&server, &due, &|| PgTime(NOW + AGE));
    assert_eq!(prove(&server), [second, new]);
}

/// What a forgotten backup needs stays as long as its own manifest is there: it may be remembered.
#[test]
fn forgotten_backups_are_whole() {
    let (server, parent, second) = marked();
    let new = id(NOW + HOUR, 7);
    let place = put_pack(&server, new).expect("stored");
    commit(&server, new, place, &[parent], 8, &|| PgTime(NOW + HOUR)).expect("complete");
    let due = NOW + AGE;
    forget(&server, new, due - HOUR);
    collect(&server, &rules(due, None));
    assert_eq!(segments(&server), (1..5).chain(8..=50).collect::<Vec<_>>(), "its WAL stays too");
    assert_eq!(server.remember(new, &author(due)).expect("said"), Remembering::Done);
    assert_eq!(prove(&server), [second, new]);
}

/// Remembered and forgotten anew, a backup has its whole time again, though the old mark is due.
#[test]
fn forgotten_anew() {
    let (server, (first, _), _) = marked();
    assert_eq!(server.remember(first, &author(NOW + DAY)).expect("said"), Remembering::Done);
    forget(&server, first, NOW + 2 * DAY);
    collect(&server, &rules(NOW + AGE, None));
    assert!(server.is_complete(first).expect("tells"));
    assert_eq!(server.remember(first, &author(NOW + AGE)).expect("said"), Remembering::Done);
    assert!(prove(&server).contains(&first));
}

/// A mark that was planned long ago stands for its whole time from when it is written.
#[test]
fn marks_stand_from_when_they_are_seen() {
    let server = open(Arc::new(Memory::default()));
    put_wal(&server, 1..=50);
    let (first, _) = backup(&server, BEGIN, 5, &[]);
    backup(&server, BEGIN + DAY, 15, &[]);
    forget(&server, first, NOW);
    let planned = plan(&server, NOW);
    collect_late(&server, &planned, &|| PgTime(NOW + DAY));
    collect(&server, &rules(NOW + AGE, None));
    assert!(server.is_complete(first).expect("tells"));
    let dooms = server.doomed().expect("read");
    assert_eq!(dooms.marks[0].1.due, PgTime(NOW + DAY + AGE));
}

/// An announcement of a removal that has grown old is not acted upon: nobody believes it any more.
#[test]
fn old_announcements() {
    let (server, (first, _), _) = marked();
    let due = plan(&server, NOW + AGE);
    let asked = Cell::new(0);
    let clock = || PgTime(NOW + AGE + HOUR * asked.replace(asked.get() + 1));
    let done = collect_late(&server, &due, &clock);
    assert_eq!(done.spared, [first]);
    assert!(server.is_complete(first).expect("tells"));
}

/// A backup whose removal was announced just now cannot be remembered; one whose removal broke off a day ago can.
#[test]
fn announced_removals() {
    let (server, (first, _), _) = marked();
    assert!(server.begin_removal(first, &author(NOW + AGE)).expect("announced"));
    assert_eq!(server.remember(first, &author(NOW + AGE + HOUR)).expect("said"), Remembering::TooLate);
    assert!(server.begin_removal(first, &author(NOW + AGE + HOUR)).expect("announced"));
    let later = NOW + AGE + 2 * DAY;
    assert_eq!(server.remember(first, &author(later)).expect("said"), Remembering::Done);
    assert!(!server.begin_removal(first, &author(later)).expect("looked"), "it is used again");
    let notes = server.backup_notes(first).expect("notes");
    server.add_note(first, &notes, &author(later), Saying::Forgotten { why: "a test".to_owned() }).expect("noted");
    assert!(server.begin_removal(first, &author(later)).expect("announced"));
}
