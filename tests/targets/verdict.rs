//! What a plan says beyond how to get there: what is lost, what lies nearest, what the clock did, and times of an idle cluster.

use pitr::recovery::{PlanNote, RecoveryTarget, TargetKind, Unreachable};
use pitr::wal::{EventKind, Lsn, PgTime, SegmentNo, Xid};

use super::world::{World, at, end, min, tli};
use super::{plain, restored};

fn lost(world: &World, kind: TargetKind) -> (u64, Option<u32>, Option<u32>, bool) {
    let lost = world.ask(kind).plan().lost;
    (lost.commits, lost.first.map(|it| it.xid.0), lost.last.map(|it| it.xid.0), lost.complete)
}

/// What lies between the stop and the end of the branch is counted, with the first and the last of it; aborts are no loss, and a
/// gap makes the count a lower bound.
#[test]
fn what_is_lost() {
    let world = plain().commit(1, at(6, 2000), min(61), 761).abort(1, at(8, 2000), min(81), 781);
    assert_eq!(lost(&world, TargetKind::Xid(Xid(760))), (3, Some(761), Some(780), true));
    assert_eq!(lost(&world, TargetKind::Time(min(61))), (2, Some(770), Some(780), true));
    assert_eq!(lost(&world, TargetKind::Time(min(75))), (1, Some(780), Some(780), true));
    assert_eq!(lost(&world, TargetKind::Xid(Xid(780))), (0, None, None, true));
    assert_eq!(lost(&world, TargetKind::Latest), (0, None, None, true));
    let mut world = world;
    world.snapshot.timelines.get_mut(&tli(1)).expect("drawn").segments.retain(|number| number != SegmentNo(7));
    assert_eq!(lost(&world, TargetKind::Xid(Xid(760))), (2, Some(761), Some(780), false));
    assert_eq!(lost(&world, TargetKind::Xid(Xid(750))), (3, Some(760), Some(780), false));
}

/// On a branch, the loss is that of the branch and not of the one that was left at the fork; a stop before the fork counts along
/// the newest timeline.
#[test]
fn what_is_lost_on_a_branch() {
    let world = restored();
    let plan = world.ask(TargetKind::Time(min(92))).plan();
    assert_eq!((plan.lost.timeline, plan.lost.commits, plan.lost.end), (tli(2), 1, at(9, 0)));
    assert_eq!(plan.lost.first.map(|commit| (commit.xid, commit.timeline)), Some((Xid(761), tli(2))));
    let plan = world.ask(TargetKind::Time(min(45))).plan();
    assert_eq!((plan.timeline, plan.lost.timeline, plan.lost.commits), (tli(1), tli(2), 3));
    // The older timeline's own: 770 and 780 are lost by going to minute 65 on it.
    let plan = world.ask(TargetKind::Time(min(65))).plan();
    assert_eq!((plan.timeline, plan.lost.timeline, plan.lost.commits), (tli(1), tli(1), 2));
}

/// A time after the last commit is reachable if a checkpoint proves that nothing came in between: PostgreSQL is told to stop just
/// before that checkpoint. Without the proof it is refused, and the last commit is offered.
#[test]
fn a_time_of_an_idle_cluster() {
    let world = plain().checkpoint(1, at(9, 3000), min(100));
    let plan = world.ask(TargetKind::Time(min(95))).plan();
    let instead = RecoveryTarget::exclusive(TargetKind::Lsn(at(9, 3000))).expect("LSNs can be exclusive");
    assert_eq!((plan.stop.lsn, plan.recovery_target, plan.lost.commits), (at(9, 3000), instead, 0));
    assert_eq!(plan.last_commit.map(|commit| commit.xid), Some(Xid(780)));
    let expected = PlanNote::Idle { since: Some(min(80)), lsn: at(9, 3000), time: min(100) };
    assert_eq!(plan.notes, [expected]);

    // At the very time of the checkpoint, and later, nothing is proved.
    for minute in [100, 101] {
        let refusal = world.ask(TargetKind::Time(min(minute))).refusal();
        let Unreachable::AfterEnd { known_until, last_time, .. } = refusal.why else { panic!("{refusal:?}") };
        assert_eq!((known_until, last_time), (Some(min(100)), Some(min(80))));
        let before = refusal.before.expect("the last commit can be reached");
        assert_eq!((before.commit.map(|commit| commit.xid), &*before.option), (Some(Xid(780)), "--to-lsn 0/8003E8"));
    }
    // An end of a transaction behind the checkpoint: what was committed when is not known beyond it.
    let later = world.clone().abort(1, at(9, 4000), min(90), 790);
    assert!(matches!(later.ask(TargetKind::Time(min(95))).refused(), Unreachable::AfterEnd { known_until: None, .. }));
    // A restore point's time proves nothing: nobody waits for commits before it is written.
    let point = plain().restore_point(1, at(9, 3000), min(100), "later");
    assert!(matches!(point.ask(TargetKind::Time(min(95))).refused(), Unreachable::AfterEnd { .. }));
    // Before a gap the proof holds as well: whatever the missing segments hold came after the checkpoint.
    let mut gapped = plain().checkpoint(1, at(8, 3000), min(100)).segments(1, 10..=12);
    gapped.snapshot.timelines.get_mut(&tli(1)).expect("drawn").segments.retain(|number| number != SegmentNo(9));
    assert_eq!(gapped.ask(TargetKind::Time(min(95))).plan().stop.lsn, at(8, 3000));
    assert!(matches!(gapped.ask(TargetKind::Time(min(101))).refused(), Unreachable::Gap { .. }));
}

/// After a restore, a time between the last commit of the old timeline and the first of the new one is the old timeline's state,
/// where a checkpoint proves how long that lasted.
#[test]
fn an_idle_end_of_an_older_timeline() {
    let world = restored().checkpoint(1, at(9, 100), min(84));
    let plan = world.ask(TargetKind::Time(min(82))).plan();
    assert_eq!((plan.timeline, plan.stop.lsn), (tli(1), at(9, 100)));
    let refusal = restored().ask(TargetKind::Time(min(82))).refusal();
    assert!(matches!(refusal.why, Unreachable::BetweenBranches { .. }));
    let options = [refusal.before, refusal.after].map(|nearest| nearest.expect("both sides can be reached").option);
    assert_eq!(options, ["--to-lsn 0/8003E8 --timeline 1", "--to-lsn 0/7003E8 --timeline 2"]);
}

/// Each refusal names what lies nearest before and after, as words that work: every one of them was planned.
#[test]
fn nearest_moments() {
    let mut world = plain().backup("third", 1, at(9, 40), at(9, 300), 85);
    let refusal = world.ask(TargetKind::Time(min(10))).refusal();
    let Unreachable::BeforeFirstBackup { inside, .. } = refusal.why else { panic!("{refusal:?}") };
    assert!(!inside && refusal.before.is_none());
    assert_eq!(refusal.after.expect("the first backup").option, "--to immediate --backup first");
    for kind in [TargetKind::Time(PgTime(min(20).0 + 1)), TargetKind::Lsn(at(2, 100))] {
        let refused = world.clone().commit(1, at(2, 200), min(21), 720).ask(kind.clone()).refused();
        assert!(matches!(refused, Unreachable::BeforeFirstBackup { inside: true, .. }), "{kind:?}: {refused:?}");
    }

    world.snapshot.timelines.get_mut(&tli(1)).expect("drawn").segments.retain(|number| number != SegmentNo(7));
    for kind in [TargetKind::Time(min(75)), TargetKind::Lsn(at(8, 0)), TargetKind::Xid(Xid(780))] {
        let refusal = world.ask(kind.clone()).refusal();
        assert!(matches!(refusal.why, Unreachable::Gap { .. }), "{kind:?}: {refusal:?}");
        let (before, after) = (refusal.before.expect("before the gap"), refusal.after.expect("behind the gap"));
        assert_eq!((before.commit.map(|it| it.xid), &*before.option), (Some(Xid(760)), "--to-lsn 0/6003E8"));
        assert_eq!((after.lsn, &*after.option), (at(9, 300), "--to immediate --backup third"));
    }
}

/// A target that lies on another timeline than the one asked for is found there.
#[test]
fn on_another_timeline() {
    let world = restored();
    let refusal = world.ask(TargetKind::Xid(Xid(780))).timeline(2).refusal();
    assert!(matches!(refusal.why, Unreachable::NotFound { .. }));
    assert_eq!(refusal.reachable_on, [tli(1)]);
    assert_eq!(world.ask(TargetKind::Lsn(at(9, 5000))).timeline(2).refusal().reachable_on, [tli(1)]);
    // Not asked for, it is found by itself, and the plan says that a newer timeline is passed by.
    let plan = world.ask(TargetKind::Lsn(at(9, 5000))).plan();
    assert_eq!((plan.timeline, plan.notes), (tli(1), vec![PlanNote::NotNewest { newer: tli(2), fork: at(6, 900) }]));
}

/// Clocks were set back at segment 6: commits behind the stop with earlier times are told as lost, and the other places where the
/// times pass the target are named.
#[test]
fn clocks_set_back() {
    let world = World::new()
        .segments(1, 2..=9)
        .backup("first", 1, at(2, 40), at(2, 300), 20)
        .commit(1, at(3, 1000), min(30), 730)
        .commit(1, at(4, 1000), min(50), 750)
        .commit(1, at(6, 1000), min(35), 760)
        .commit(1, at(6, 2000), min(36), 761)
        .commit(1, at(7, 1000), min(45), 770)
        .commit(1, at(8, 1000), min(60), 780);
    let plan = world.ask(TargetKind::Time(min(40))).plan();
    assert_eq!((plan.stop.lsn, plan.lost.commits), (at(4, 1000), 5));
    let [PlanNote::EarlierTimesBehind { commits, at_least, earliest }, PlanNote::PassedAgain { others }] =
        &plan.notes[..]
    else {
        panic!("{:?}", plan.notes)
    };
    assert_eq!((*commits, *at_least, *earliest), (2, false, min(35)));
    assert_eq!(others.iter().map(|it| it.lsn).collect::<Vec<_>>(), [at(7, 1000)]);
    // The other one by its words.
    let target = TargetKind::Lsn(at(7, 1000));
    assert_eq!(world.ask(target).exclusive().plan().last_commit.map(|it| it.xid), Some(Xid(761)));
    // Times in order say nothing.
    assert_eq!(world.ask(TargetKind::Time(min(55))).plan().notes, []);
}

/// A record that straddles two segments is met in the one where it ends; one that begins at the LSN and ends nowhere is not
/// reached; and what a crash cut off is no record.
#[test]
fn records_over_borders() {
    let world = plain();
    // No record begins in the last bytes of segment 6: the first of the next one is meant.
    let plan = world.ask(TargetKind::Lsn(Lsn(at(7, 0).0 - 8))).plan();
    assert_eq!((plan.stop.lsn, plan.wal_segments), (at(7, 40), 3));
    // The commit whose record begins at the LSN is kept, and one byte further it is the one before the next record.
    let commit = |kind| world.ask(kind).plan().last_commit.map(|it| it.xid.0);
    assert_eq!(commit(TargetKind::Lsn(at(6, 1000))), Some(760));
    assert_eq!(commit(TargetKind::Lsn(at(6, 999))), Some(750));
    // The rest of a record lost in a crash begins nothing: the record in its place is the first.
    let place = EventKind::OverwriteContrecord { overwritten: at(6, 5000), time: min(61) };
    let world = plain().event(1, at(6, 8216), 0, place);
    let plan = world.ask(TargetKind::Lsn(at(6, 5000))).plan();
    assert_ne!(plan.stop.lsn, at(6, 5000), "that record was never whole");
}

/// Of restore points of one name PostgreSQL would meet one inside the backup before it is consistent, and fail: a backup behind it
/// is taken, and with it the first of that name behind that backup.
#[test]
fn a_name_inside_the_backup() {
    let inside = plain().restore_point(1, at(2, 100), min(20), "early");
    let refused = inside.ask(TargetKind::Name("early".into())).refused();
    assert!(matches!(refused, Unreachable::BeforeFirstBackup { inside: true, .. }), "{refused:?}");
    let both = inside.clone().restore_point(1, at(4, 100), min(39), "early");
    let refused = both.ask(TargetKind::Name("early".into())).with_backup("first").refused();
    assert!(matches!(refused, Unreachable::BackupTooLate { .. }), "{refused:?}");
    let later = both.restore_point(1, at(6, 100), min(59), "early");
    let plan = later.ask(TargetKind::Name("early".into())).plan();
    assert_eq!((plan.stop.lsn, &*plan.backup.id), (at(6, 100), "second"));
    assert_eq!(plan.notes, [PlanNote::SameName { others: vec![at(4, 100)] }]);
    let Unreachable::NotFound { names, .. } = later.ask(TargetKind::Name("other".into())).refused() else {
        panic!("nothing has that name")
    };
    assert_eq!(names, ["early", "early", "early"]);
}

/// An xid that ended in no segment is refused without reading those whose summaries show every transaction.
#[test]
fn an_unknown_xid() {
    let refused = plain().commit(1, at(6, 2000), min(61), 761).ask(TargetKind::Xid(Xid(759))).refused();
    assert!(matches!(refused, Unreachable::NotFound { .. }));
    let aborted = plain().event(1, at(6, 500), 755, EventKind::Abort(end(min(59))));
    assert_eq!(aborted.ask(TargetKind::Xid(Xid(755))).plan().stop.lsn, at(6, 500));
}

/// A backup behind a gap: what was committed before it is not known, but a time later than the first commit behind its start is
/// later than all of that.
#[test]
fn a_backup_behind_a_gap() {
    let mut world = plain();
    world.snapshot.timelines.get_mut(&tli(1)).expect("drawn").segments.retain(|number| number != SegmentNo(4));
    let world = world.commit(1, at(5, 200), PgTime(min(49).0 + 100_000), 748);
    let target = TargetKind::Time(PgTime(min(49).0 + 200_000));
    let plan = world.ask(target).plan();
    assert_eq!((&*plan.backup.id, plan.stop.lsn), ("second", at(5, 1000)));
    let early = TargetKind::Time(PgTime(min(49).0 + 50_000));
    assert!(matches!(world.ask(early).refused(), Unreachable::Gap { .. }));
}
