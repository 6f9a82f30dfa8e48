//! A simulated week: a cluster lives, is backed up every day, and changes its primary; backups are forgotten in any order; and each one that is
//! left comes back as the cluster was when it was taken.
//!
//! What happens is drawn from a seed, which each run prints; `PITR_TEST_SEED` repeats it (the rows of the ledger, which are written all the
//! time, fall where they fall).
//!
//! * [`cluster`]: a day's work in the living cluster, and its backup.
//! * [`failover`]: the primary is lost and a standby promoted, or the cluster is taken back to a backup.
//! * [`contents`]: what SQL shows.
//! * [`judge`]: a backup restored and compared, file by file and by SQL.

// The modules of a test are private to its crate whatever they say.
#![allow(unreachable_pub)]

mod cluster;
#[path = "../backup/compared.rs"]
mod compared;
mod contents;
mod failover;
#[path = "../harness/mod.rs"]
mod harness;
mod judge;
#[path = "../s3_server/mod.rs"]
mod s3_server;
#[path = "../keeping/verbs.rs"]
mod verbs;

use cluster::{Cluster, Taken};
use harness::{Postgres, Random, Run, majors, newest, seed};
use s3_server::S3Server;
use verbs::{LONG, UNDELETE_DAYS, expire, forget, ids};

/// How long a week is.
struct Week {
    /// Days with a backup.
    days: usize,
    /// How often the primary changes; the first time after the second day.
    failovers: usize,
    /// How many backups are forgotten, or remembered, on the days after the first.
    forgets: usize,
    /// What happens on a day.
    events: usize,
    /// After each removal all backups that are left are restored, and not just one.
    all: bool,
}

const EVERYDAY: Week = Week { days: 5, failovers: 1, forgets: 3, events: 7, all: false };
const EVERYDAY_IN_A_BUCKET: Week = Week { days: 3, failovers: 1, forgets: 1, events: 6, all: false };
const LONG_WEEK: Week = Week { days: 9, failovers: 4, forgets: 7, events: 14, all: true };

/// What the lives of all backups come to.
struct Keeper {
    cluster: Cluster,
    random: Random,
    /// Backups that can be restored.
    live: Vec<Taken>,
    /// Backups that were forgotten and are not removed yet.
    forgotten: Vec<Taken>,
    day: i64,
}

impl Week {
    fn live_through(&self, postgres: &Postgres, bucket: Option<S3Server>) {
        let seed = seed();
        let place = if bucket.is_some() { "bucket" } else { "directory" };
        println!("a week of PostgreSQL {} in a {place}: PITR_TEST_SEED={seed}", postgres.major);
        let mut random = Random::new(seed ^ u64::from(postgres.major));
        let cluster = Cluster::new(postgres, bucket, &mut random);
        let mut keeper = Keeper { cluster, random, live: vec![], forgotten: vec![], day: 0 };
        for number in 1..=self.days {
            keeper.day += i64::try_from(keeper.random.between(1, 3)).expect("small");
            println!("--- backup {number}, day {}", keeper.day);
            let changes = number > 2 && (number - 3) * self.failovers % (self.days - 2) < self.failovers;
            let changed = changes.then(|| keeper.cluster.change_primary(&keeper.live, &mut keeper.random));
            keeper.cluster.work(self.events, &mut keeper.random);
            let taken = keeper.cluster.back_up(changed.as_ref(), &mut keeper.random);
            keeper.live.push(taken);
            if number > 1 && number <= 1 + self.forgets {
                keeper.forget_one();
            }
            if keeper.expire() {
                keeper.check(self.all);
            }
        }
        while !keeper.forgotten.is_empty() {
            keeper.day += UNDELETE_DAYS + 1;
            keeper.expire();
        }
        keeper.check(true);
        // A primary that was killed may have taken WAL with it that no backup needs.
        let verified = keeper.cluster.site.pitr(&["verify"]).run_within(LONG);
        assert!([0, 12].contains(&verified.code()), "{verified}");
    }
}

impl Keeper {
    /// Forgets any backup, or remembers one that was forgotten; the last one stays.
    fn forget_one(&mut self) {
        if !self.forgotten.is_empty() && self.random.between(1, 5) == 1 {
            let again = self.forgotten.remove(self.random.between(0, self.forgotten.len() - 1));
            println!("remembered: {}", again.id);
            self.cluster.site.pitr(&["forget", "--undo", &again.id]).run_within(LONG).ok();
            self.live.push(again);
            self.live.sort_by_key(|taken| taken.number);
        } else if self.live.len() > 1 {
            // The oldest one, to which all others may refer, more often than the others.
            let last = self.live.len() - 1;
            let which = if self.random.coin() { 0 } else { self.random.between(0, last) };
            let gone = self.live.remove(which);
            println!("forgotten: {}", gone.id);
            forget(&self.cluster.site, &gone.id);
            self.forgotten.push(gone);
        }
    }

    /// Lets the retention do its work on this day; whether something was removed.
    fn expire(&mut self) -> bool {
        let told = expire(&self.cluster.site, self.day);
        let removed = told["servers"][0]["done"]["removed"].as_array().expect("a list");
        let is_removed = |taken: &Taken| removed.iter().any(|object| object["what"]["backup"] == taken.id.as_str());
        assert!(!self.live.iter().any(is_removed), "{told}");
        self.forgotten.retain(|taken| !is_removed(taken));
        let mut known: Vec<&str> = self.live.iter().map(|taken| taken.id.as_str()).collect();
        let mut listed = ids(&self.cluster.site);
        known.sort_unstable();
        listed.sort_unstable();
        assert_eq!(listed, known);
        println!("day {}: {} removed", self.day, removed.len());
        !removed.is_empty()
    }

    /// Restores all backups that are left, or one of them.
    fn check(&mut self, all: bool) {
        let only = self.random.between(0, self.live.len() - 1);
        for (number, taken) in self.live.iter().enumerate() {
            if all || number == only {
                judge::check(&mut self.cluster, taken);
            }
        }
    }
}

/// Promise: whatever happened on the days before, and whichever backups are forgotten and removed in whatever order, each one that is left comes
/// back file by file and row by row, also across failovers.
#[test]
fn in_a_directory() {
    EVERYDAY.live_through(&newest(), None);
}

/// The same in a bucket.
#[test]
fn in_a_bucket() {
    EVERYDAY_IN_A_BUCKET.live_through(&newest(), Some(S3Server::start()));
}

/// The same on every major but the newest.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn on_every_major() {
    let all = majors();
    all[..all.len() - 1].iter().for_each(|postgres| EVERYDAY.live_through(postgres, None));
}

/// The same for longer, with every backup that is left restored after each removal, on a major that the seed chooses.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn for_long() {
    let all = majors();
    let which = Random::new(seed()).between(0, all.len() - 1);
    LONG_WEEK.live_through(&all[which], None);
}
