//! The ledger: a writer commits numbered rows and notes when and where; whatever moment is asked for afterwards, SQL must
//! show exactly the rows committed up to it, no more, no fewer. On every major, over a crash and a timeline switch.
//!
//! Seeded: `PITR_TEST_SEED=…` repeats a run's choice of targets; each run prints its seed.

// The modules of a test are private to its crate whatever they say.
#![allow(unreachable_pub)]

mod bucket;
#[path = "../harness/mod.rs"]
mod harness;
mod history;
#[path = "../s3_server/moto.rs"]
mod moto_server;
#[path = "../s3_server/mod.rs"]
mod s3_server;
mod several;
mod targets;

use harness::{Random, seed};
use history::History;

/// Everyday: enough targets to meet every kind, on the majors between the oldest and the newest on two of them together. The long run has more
/// of each.
const EVERYDAY_TARGETS: usize = 6;
const TARGETS_BETWEEN: usize = 3;
const LONG_TARGETS: usize = 32;

fn run(major: u32, targets: usize) {
    run_in("", major, targets);
}

/// `settings` say where the repository is, if not in the usual directory.
fn run_in(settings: &str, major: u32, targets: usize) {
    let seed = seed();
    println!("ledger on PostgreSQL {major}: PITR_TEST_SEED={seed}");
    let mut random = Random::new(seed ^ u64::from(major));
    let history = History::write(&harness::major(major), &mut random, settings);
    // Not the same kinds on each.
    let first = major as usize * TARGETS_BETWEEN;
    for (number, target) in targets::choose(&history, &mut random, first..first + targets).iter().enumerate() {
        println!("target {number}: {target:?}");
        history.check(number, target);
    }
}

macro_rules! majors {
    ($($name:ident $targets:ident $long:ident $major:literal;)+) => {
        $(
            /// A restore shows exactly the rows committed up to its target.
            #[test]
            fn $name() {
                run($major, $targets);
            }

            /// The same with many more targets.
            #[test]
            #[ignore = "takes minutes: run by scripts/test --torture"]
            fn $long() {
                run($major, LONG_TARGETS);
            }
        )+
    };
}

majors! {
    on_13 EVERYDAY_TARGETS long_on_13 13;
    on_14 TARGETS_BETWEEN long_on_14 14;
    on_15 TARGETS_BETWEEN long_on_15 15;
    on_16 TARGETS_BETWEEN long_on_16 16;
    on_17 TARGETS_BETWEEN long_on_17 17;
    on_18 EVERYDAY_TARGETS long_on_18 18;
}
