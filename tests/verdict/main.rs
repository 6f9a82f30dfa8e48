//! What `pitr plan` says about random targets, judged by what PostgreSQL really does with them: reached or not, and the exact
//! last row. On quiet, busy, gapped, forked and clock-stepped histories.
//!
//! Seeded: `PITR_TEST_SEED=…` repeats a run's choice of targets; each run prints its seed.

// The modules of a test are private to its crate whatever they say.
#![allow(unreachable_pub)]

mod document;
#[path = "../harness/mod.rs"]
mod harness;
mod history;
mod judge;
mod targets;

use harness::{Random, seed};
use history::History;

/// Everyday, on each history: enough targets to meet every kind on both sides of what can be reached.
const EVERYDAY_TARGETS: usize = 12;
const LONG_TARGETS: usize = 60;

fn run(write: fn(&harness::Postgres, &mut Random) -> History, targets: usize) {
    let seed = seed();
    let mut random = Random::new(seed);
    let postgres = harness::major(15);
    let history = write(&postgres, &mut random);
    println!("{}: PITR_TEST_SEED={seed}", history.name);
    let mut tally = judge::Tally::default();
    for number in 0..targets {
        let target = targets::draw(&history, &mut random, number);
        println!("{} {number}: {}", history.name, target.words.join(" "));
        tally.count(judge::check(&history, number, &target));
    }
    println!("{}: {tally:?}", history.name);
}

macro_rules! histories {
    ($($name:ident $long:ident $write:path;)+) => {
        $(
            /// Promise: the verdict on any target is what PostgreSQL does with it.
            #[test]
            fn $name() {
                run($write, EVERYDAY_TARGETS);
            }

            /// The same with many more targets.
            #[test]
            #[ignore = "takes minutes: run by scripts/test --torture"]
            fn $long() {
                run($write, LONG_TARGETS);
            }
        )+
    };
}

histories! {
    quiet long_quiet history::quiet;
    busy long_busy history::busy;
    gapped long_gapped history::gapped;
    forked long_forked history::forked;
    clock_stepped long_clock_stepped history::clock_stepped;
}
