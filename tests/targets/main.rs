//! Plans of a restore, without a server: which backup, which timeline, which stop, or why not.
//!
//! Each world below is drawn by hand: segments of 1 MiB, commits at LSNs and minutes, forks, backups. Where PostgreSQL
//! itself would notice a wrong plan only after hours of replay, or not at all, the plan has to know it before.

mod verdict;
mod world;

use pitr::recovery::{PlanNote, RestorePlan, TargetKind, Unreachable, WalCopy};
use pitr::wal::{EventKind, Lsn, PgTime, SegmentName, SegmentNo, ServerLimits, WalLevel, Xid};

use world::{World, at, min, tli};

/// One timeline, a commit in each of segments 3 to 8 (minutes 30 to 80, xids 730 to 780), backups at 2 and 5.
pub(crate) fn plain() -> World {
    let mut world = World::new().segments(1, 2..=9).backup("first", 1, at(2, 40), at(2, 300), 20).backup(
        "second",
        1,
        at(5, 40),
        at(5, 300),
        49,
    );
    for number in 3..=8 {
        let (minutes, xid) =
            (i64::try_from(number).expect("small") * 10, 700 + u32::try_from(number).expect("small") * 10);
        world = world.commit(1, at(number, 1000), min(minutes), xid);
    }
    world
}

/// Each kind of target, inclusive and exclusive, stops where PostgreSQL does, and begins with the latest backup that will do.
#[test]
fn every_kind_of_target() {
    let world = plain();
    let between = PgTime(min(60).0 + 1);
    for (asked, backup, stop, last_commit) in [
        (world.ask(TargetKind::Time(min(60))), "second", at(7, 1000), Some(760)),
        (world.ask(TargetKind::Time(min(60))).exclusive(), "second", at(6, 1000), Some(750)),
        (world.ask(TargetKind::Time(between)).exclusive(), "second", at(7, 1000), Some(760)),
        (world.ask(TargetKind::Time(min(45))), "second", at(5, 1000), Some(740)),
        (world.ask(TargetKind::Time(min(35))), "first", at(4, 1000), Some(730)),
        (world.ask(TargetKind::Time(min(25))), "first", at(3, 1000), None),
        (world.ask(TargetKind::Lsn(at(6, 1000))), "second", at(6, 1000), Some(760)),
        (world.ask(TargetKind::Lsn(at(6, 1000))).exclusive(), "second", at(6, 1000), Some(750)),
        (world.ask(TargetKind::Lsn(at(5, 299))), "first", at(5, 299), Some(740)),
        (world.ask(TargetKind::Xid(Xid(760))), "second", at(6, 1000), Some(760)),
        (world.ask(TargetKind::Xid(Xid(760))).exclusive(), "second", at(6, 1000), Some(750)),
        (world.ask(TargetKind::Xid(Xid(740))), "first", at(4, 1000), Some(740)),
        (world.ask(TargetKind::Immediate), "second", at(5, 300), Some(740)),
        (world.ask(TargetKind::Latest), "second", at(10, 0), Some(780)),
    ] {
        let request = format!("{:?}", asked.request);
        let plan = asked.plan();
        assert_eq!(plan.backup.id, backup, "{request}");
        assert_eq!(plan.stop.lsn, stop, "{request}");
        assert_eq!(plan.last_commit.map(|commit| commit.xid.0), last_commit, "{request}");
        assert_eq!(plan.timeline, tli(1), "{request}");
        let first = SegmentNo::of(plan.backup.start_lsn, world.snapshot.segment_size);
        let last = SegmentNo::before(Lsn(stop.0 + 1), world.snapshot.segment_size);
        let last = if plan.target.kind == TargetKind::Latest { SegmentNo(9) } else { last };
        assert_eq!(plan.wal_segments, last.0 - first.0 + 1, "{request}");
    }
}

/// Times are not monotonic in LSN order: recovery stops at the first commit past the target, even if commits before the
/// target follow it; aborts count as commits do, and restore points do not.
#[test]
fn times_out_of_order() {
    let world = plain()
        .restore_point(1, at(6, 2000), min(99), "no end of a transaction")
        .commit(1, at(6, 3000), PgTime(min(65).0 + 5), 900)
        .commit(1, at(6, 4000), PgTime(min(65).0 - 5), 901)
        .abort(1, at(7, 500), PgTime(min(68).0), 902);
    let plan = world.ask(TargetKind::Time(min(65))).plan();
    assert_eq!((plan.stop.lsn, plan.stop.xid), (at(6, 3000), Some(Xid(900))));
    let plan = world.ask(TargetKind::Time(min(67))).plan();
    assert_eq!((plan.stop.lsn, plan.stop.xid), (at(7, 500), Some(Xid(902))));
}

/// A backup during which something past the target was committed cannot lead to it: the next older one is taken, or, if
/// it was asked for, refused.
#[test]
fn a_backup_that_holds_too_much() {
    let world = plain().commit(1, at(5, 100), min(49), 899);
    let time = TargetKind::Time(PgTime(min(49).0 - 1));
    assert_eq!(world.ask(time.clone()).plan().backup.id, "first");
    assert!(matches!(world.ask(time).with_backup("second").refused(), Unreachable::BackupTooLate { .. }));
}

/// A backup of an idle cluster holds commits from before its start that no WAL after its start shows. For a time before
/// those it would silently give too much; for a time after them, though before the backup, it is right.
#[test]
fn a_backup_of_an_idle_cluster() {
    let world = World::new()
        .segments(1, 2..=9)
        .backup("first", 1, at(2, 40), at(2, 300), 20)
        .commit(1, at(3, 1000), min(30), 730)
        .backup("idle", 1, at(6, 40), at(6, 300), 60)
        .commit(1, at(8, 1000), min(80), 780);
    assert_eq!(world.ask(TargetKind::Time(min(25))).plan().backup.id, "first");
    assert_eq!(world.ask(TargetKind::Time(min(40))).plan().backup.id, "idle");
    assert_eq!(world.ask(TargetKind::Time(min(70))).plan().backup.id, "idle");

    let mut world = world;
    world.snapshot.backups.remove(0);
    assert!(matches!(world.ask(TargetKind::Time(min(25))).refused(), Unreachable::BeforeFirstBackup { .. }));
    assert_eq!(world.ask(TargetKind::Time(min(40))).plan().stop.lsn, at(8, 1000));
    // Without the WAL before the backup nothing tells when the last commit was: only times after its start are safe.
    world.snapshot.timelines.get_mut(&tli(1)).expect("drawn").segments.retain(|number| number.0 >= 6);
    assert!(matches!(world.ask(TargetKind::Time(min(40))).refused(), Unreachable::BeforeFirstBackup { .. }));
    assert_eq!(world.ask(TargetKind::Time(min(70))).plan().stop.lsn, at(8, 1000));
}

/// Before the first backup, after the end, of a transaction or a restore point that does not exist: refused with what can be
/// reached instead.
#[test]
fn out_of_reach() {
    let world = plain();
    assert!(matches!(
        world.ask(TargetKind::Time(min(10))).refused(),
        Unreachable::BeforeFirstBackup { first, stop_lsn, .. } if first == "first" && stop_lsn == at(2, 300)
    ));
    let Unreachable::AfterEnd { end, last_time, last_commit, .. } = world.ask(TargetKind::Time(min(80))).refused()
    else {
        panic!("no commit past it: PostgreSQL would refuse to open");
    };
    assert_eq!((end, last_time, last_commit.map(|commit| commit.xid.0)), (at(10, 0), Some(min(80)), Some(780)));
    assert_eq!(world.ask(TargetKind::Time(min(80))).exclusive().plan().stop.lsn, at(8, 1000));
    assert!(matches!(world.ask(TargetKind::Lsn(at(10, 0))).refused(), Unreachable::AfterEnd { .. }));
    assert!(matches!(world.ask(TargetKind::Lsn(at(2, 100))).refused(), Unreachable::BeforeFirstBackup { .. }));
    assert!(matches!(world.ask(TargetKind::Xid(Xid(999))).refused(), Unreachable::NotFound { .. }));
    assert!(matches!(world.ask(TargetKind::Name("no".into())).refused(), Unreachable::NotFound { .. }));
    assert!(matches!(world.ask(TargetKind::Latest).timeline(4).refused(), Unreachable::UnknownTimeline { .. }));
    assert!(matches!(world.ask(TargetKind::Latest).with_backup("x").refused(), Unreachable::UnknownBackup { .. }));
    assert!(matches!(World::new().ask(TargetKind::Latest).refused(), Unreachable::NoBackup));
}

/// A missing segment is found before anything is copied, named, and does not matter to targets before it or backups after it.
#[test]
fn gaps() {
    let mut world = plain();
    let timeline = world.snapshot.timelines.get_mut(&tli(1)).expect("drawn");
    timeline.segments.remove(SegmentNo(7));
    for kind in [TargetKind::Time(min(75)), TargetKind::Latest, TargetKind::Xid(Xid(780)), TargetKind::Lsn(at(8, 0))] {
        let Unreachable::Gap { missing, next, last_commit, .. } = world.ask(kind.clone()).refused() else {
            panic!("{kind:?}");
        };
        assert_eq!(missing.to_string(), "000000010000000000000007");
        assert_eq!(next.map(|next| next.to_string()).as_deref(), Some("000000010000000000000008"));
        assert_eq!(last_commit.map(|commit| commit.xid), Some(Xid(760)));
    }
    assert_eq!(world.ask(TargetKind::Xid(Xid(760))).plan().stop.lsn, at(6, 1000));
    let world = world.backup("third", 1, at(8, 40), at(8, 300), 79);
    assert_eq!(world.ask(TargetKind::Latest).plan().backup.id, "third");
}

/// The first of several restore points of one name is taken, because that is where PostgreSQL stops; the others are told.
#[test]
fn restore_points_of_one_name() {
    let world = plain()
        .restore_point(1, at(4, 5000), min(44), "batch")
        .restore_point(1, at(6, 5000), min(64), "batch")
        .restore_point(1, at(6, 6000), min(64), "other");
    let plan = world.ask(TargetKind::Name("batch".into())).plan();
    assert_eq!((plan.stop.lsn, plan.backup.id.as_str()), (at(4, 5000), "first"));
    assert_eq!(plan.notes, [PlanNote::SameName { others: vec![at(6, 5000)] }]);
    let plan = world.ask(TargetKind::Name("batch".into())).with_backup("second").plan();
    assert_eq!((plan.stop.lsn, plan.notes), (at(6, 5000), vec![]));
}

/// A cluster brought back to minute 55 at minute 85, from there on timeline 2 with a commit at minute 90.
pub(crate) fn restored() -> World {
    plain().fork(2, 1, at(6, 900)).segments(2, 6..=8).commit(2, at(7, 1000), min(90), 760).commit(
        2,
        at(7, 2000),
        min(95),
        761,
    )
}

/// After a restore, the newest timeline is followed; where the fork cuts a segment, the child's copy counts.
#[test]
fn across_a_fork() {
    let world = restored();
    let plan = world.ask(TargetKind::Time(min(92))).plan();
    assert_eq!((plan.timeline, plan.stop.lsn), (tli(2), at(7, 2000)));
    let runs: Vec<String> = plan.wal.iter().map(|run| format!("{}-{}", run.first, run.last)).collect();
    let expected =
        ["000000010000000000000005-000000010000000000000005", "000000020000000000000006-000000020000000000000007"];
    assert_eq!(runs, expected);
    let path: Vec<_> = plan.path.iter().map(|step| (step.timeline.0, step.until)).collect();
    assert_eq!(path, [(1, Some(at(6, 900))), (2, None)]);
    let plan = world.ask(TargetKind::Latest).plan();
    assert_eq!((plan.timeline, plan.stop.lsn), (tli(2), at(9, 0)));
    let plan = world.ask(TargetKind::Latest).timeline(1).plan();
    assert_eq!((plan.timeline, plan.stop.lsn), (tli(1), at(10, 0)));
}

/// A moment that the new timeline passed over by forking (it has no commits there, the old one has) means the old timeline;
/// the plan says so. The same xid on both timelines means the newest, unless the timeline is said.
#[test]
fn the_gap_of_a_fork() {
    let world = restored();
    let plan = world.ask(TargetKind::Time(min(65))).plan();
    assert_eq!((plan.timeline, plan.stop.lsn), (tli(1), at(7, 1000)));
    assert_eq!(plan.notes, [PlanNote::BeforeFirstCommitOf { timeline: tli(2), fork: at(6, 900) }]);
    // Asked for by name, the new timeline is taken at its word: the state it had inherited.
    let plan = world.ask(TargetKind::Time(min(65))).timeline(2).plan();
    assert_eq!((plan.timeline, plan.stop.lsn), (tli(2), at(7, 1000)));
    // Minute 82: the old timeline's last commit was at 80, the new one's first came at 90.
    let refused = world.ask(TargetKind::Time(min(82))).refused();
    let Unreachable::BetweenBranches { older, older_last, newer, fork, .. } = refused else {
        panic!("two answers are possible");
    };
    assert_eq!((older, older_last, newer, fork), (tli(1), min(80), tli(2), at(6, 900)));
    assert_eq!(world.ask(TargetKind::Xid(Xid(760))).plan().timeline, tli(2));
    assert_eq!(world.ask(TargetKind::Xid(Xid(760))).timeline(1).plan().stop.lsn, at(6, 1000));
}

/// A promotion leaves no commits behind on the old timeline: a time between the last commit before and the first after it is
/// held by the new one.
#[test]
fn a_promotion_without_loss() {
    let world = World::new()
        .segments(1, 2..=5)
        .backup("first", 1, at(2, 40), at(2, 300), 20)
        .commit(1, at(4, 1000), min(40), 740)
        .fork(2, 1, at(6, 500))
        .partial(1, 6, "aaaa", at(6, 500))
        .segments(2, 6..=8)
        .commit(2, at(7, 1000), min(70), 770);
    let plan = world.ask(TargetKind::Time(min(50))).plan();
    assert_eq!((plan.timeline, plan.stop.lsn, plan.notes), (tli(2), at(7, 1000), vec![]));
    assert!(plan.lay.is_empty(), "the child's copy of the segment holds all: {:?}", plan.lay);
}

/// A stop before the fork follows the older timeline (a history file that ends before its own beginning would be the
/// outcome otherwise). If that timeline's last segment was never completed, the child's copy is laid in its place.
#[test]
fn a_stop_before_the_fork_in_its_segment() {
    let world = World::new()
        .segments(1, 2..=5)
        .backup("first", 1, at(2, 40), at(2, 300), 20)
        .commit(1, at(6, 300), min(60), 760)
        .fork(2, 1, at(6, 500))
        .segments(2, 6..=8)
        .commit(2, at(7, 1000), min(70), 770);
    let plan = world.ask(TargetKind::Time(min(55))).plan();
    assert_eq!((plan.timeline, plan.stop.lsn), (tli(1), at(6, 300)));
    let child: SegmentName = "000000020000000000000006".parse().expect("a name");
    assert_eq!(plan.lay.len(), 1);
    assert_eq!((&plan.lay[0].copy, plan.lay[0].name), (&WalCopy::Segment(child), child.on(tli(1))));
    let world = world.segments(1, [6]);
    assert!(world.ask(TargetKind::Time(min(55))).plan().lay.is_empty());
}

/// Without the child's copy of the forked segment PostgreSQL would follow the parent onto the branch that was left: that is
/// a gap, though a copy of that number is there.
#[test]
fn the_childs_copy_is_missing() {
    let mut world = restored();
    world.snapshot.timelines.get_mut(&tli(2)).expect("drawn").segments.remove(SegmentNo(6));
    let Unreachable::Gap { missing, .. } = world.ask(TargetKind::Time(min(92))).refused() else { panic!("no gap") };
    assert_eq!(missing.to_string(), "000000020000000000000006");
    assert_eq!(world.ask(TargetKind::Time(min(45))).plan().stop.lsn, at(5, 1000));
}

/// A backup of a branch that was left never leads to a target on another one, even if its times fit.
#[test]
fn backups_of_dead_branches() {
    let world = restored().backup("dead", 1, at(8, 40), at(8, 300), 79);
    let plan = world.ask(TargetKind::Time(min(92))).plan();
    assert_eq!((plan.backup.id.as_str(), plan.timeline), ("second", tli(2)));
    let refused = world.ask(TargetKind::Time(min(92))).with_backup("dead").timeline(2).refused();
    let Unreachable::BackupOnOtherBranch { backup_timeline, fork: Some(fork), .. } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((backup_timeline, fork.parent, fork.child, fork.lsn), (tli(1), tli(1), tli(2), at(6, 900)));
    assert_eq!(world.ask(TargetKind::Latest).timeline(1).plan().backup.id, "dead");
}

/// A second fork of the same parent: three branches, each reachable, the newest by default.
#[test]
fn a_second_fork() {
    let world = restored().fork(3, 1, at(5, 900)).segments(3, 5..=7).commit(3, at(6, 1000), min(200), 750);
    assert_eq!(world.ask(TargetKind::Latest).plan().timeline, tli(3));
    assert_eq!(world.ask(TargetKind::Time(min(92))).plan().timeline, tli(2));
    assert_eq!(world.ask(TargetKind::Time(min(75))).plan().timeline, tli(1));
    assert_eq!(world.ask(TargetKind::Time(min(150))).timeline(3).plan().stop.lsn, at(6, 1000));
}

/// A timeline without its history file cannot be placed: refused by name where it was asked for, told where it was not.
#[test]
fn a_missing_history() {
    let mut world = restored();
    world.snapshot.timelines.get_mut(&tli(2)).expect("drawn").history = None;
    let refused = world.ask(TargetKind::Latest).timeline(2).refused();
    assert_eq!(refused, Unreachable::HistoryMissing { timeline: tli(2) });
    let plan = world.ask(TargetKind::Time(min(65))).plan();
    assert_eq!((plan.timeline, plan.notes), (tli(1), vec![PlanNote::HistoryMissing { timeline: tli(2) }]));
}

/// Only what is complete is served by name. The last `.partial` is laid into `pg_wal` where the target needs it: of several
/// the one that reaches furthest.
#[test]
fn partials() {
    let world = plain().partial(1, 10, "aaaa", at(10, 5000)).partial(1, 10, "bbbb", at(10, 9000));
    let plan = world.ask(TargetKind::Latest).plan();
    assert_eq!(plan.stop.lsn, at(10, 9000));
    assert!(matches!(&plan.lay[..], [laid] if matches!(&laid.copy, WalCopy::Partial { hash, .. } if hash == "bbbb")));
    assert_eq!(plan.wal_segments, 6);
    assert!(world.ask(TargetKind::Time(min(75))).plan().lay.is_empty());
}

/// A backup that brought its own last segment along is consistent with nothing in the archive after it.
#[test]
fn a_tail_of_its_own() {
    let mut world = World::new().segments(1, [2]).backup("streamed", 1, at(2, 40), at(3, 300), 20);
    assert!(matches!(world.ask(TargetKind::Immediate).refused(), Unreachable::AfterEnd { .. }));
    world.snapshot.backups[0].tail = Some("000000010000000000000003".parse().expect("a name"));
    let plan = world.ask(TargetKind::Immediate).plan();
    assert_eq!((plan.stop.lsn, plan.lay.len(), plan.wal_segments), (at(3, 300), 1, 2));
}

/// WAL written with wal_level = minimal stops PostgreSQL in the middle of a recovery: told before. Higher settings on the
/// way are part of the plan, because a server that allows less stops too.
#[test]
fn parameter_changes() {
    let limits = |connections, wal_level| ServerLimits {
        max_connections: connections,
        max_worker_processes: 8,
        max_wal_senders: 10,
        max_prepared_transactions: 0,
        max_locks_per_transaction: 64,
        wal_level,
        wal_log_hints: false,
        track_commit_timestamp: false,
    };
    let world = plain().event(1, at(6, 100), 0, EventKind::ParameterChange(limits(500, WalLevel::Replica)));
    assert_eq!(world.ask(TargetKind::Time(min(65))).plan().limits.map(|limits| limits.max_connections), Some(500));
    assert_eq!(world.ask(TargetKind::Time(min(45))).plan().limits, None);
    let world = world.event(1, at(7, 100), 0, EventKind::ParameterChange(limits(100, WalLevel::Minimal)));
    assert_eq!(
        world.ask(TargetKind::Time(min(75))).refused(),
        Unreachable::MinimalWal { timeline: tli(1), lsn: at(7, 100) }
    );
}

/// An LSN inside a page header means the record behind it; between two segments, the first record of the next one.
#[test]
fn lsns_between_records() {
    let world = plain().commit(1, at(7, 40), min(69), 800);
    let plan = world.ask(TargetKind::Lsn(at(7, 0))).plan();
    assert_eq!((plan.stop.lsn, plan.last_commit.map(|commit| commit.xid)), (at(7, 40), Some(Xid(800))));
    let plan = world.ask(TargetKind::Lsn(Lsn(at(7, 0).0 - 10))).plan();
    assert_eq!(plan.wal_segments, 3, "no record begins in the last bytes of segment 6: {:?}", plan.wal);
}

/// A plan is a value: what `--json` emits reads back as the same plan.
#[test]
fn plans_are_values() {
    let plan = restored().ask(TargetKind::Time(min(65))).plan();
    let json = serde_json::to_string(&plan).expect("plain data");
    assert_eq!(serde_json::from_str::<RestorePlan>(&json).expect("our own JSON"), plan);
}
