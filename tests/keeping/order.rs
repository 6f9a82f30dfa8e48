//! Any backup may be forgotten, in any order: each of the others can still be restored.

use super::harness::{Options, Random, Run, Site, newest, seed};
use super::{LONG, UNDELETE_DAYS, backup, expire, ids, rows_of, up_to};

/// Promise: whichever of several backups are forgotten and removed, in whatever order, each one that is left restores to the rows
/// that it had, and the last one is not forgotten by accident.
#[test]
fn forgotten_in_any_order() {
    let site = Site::with(&newest(), Options::default().segment_size_mib(1), "");
    let seed = seed();
    let mut random = Random::new(seed);
    let mut left: Vec<(usize, String)> = (1..=4).map(|n| (n, backup(&site, n))).collect();
    let (mut day, mut restores) = (0, 0);
    while left.len() > 1 {
        let (_, gone) = left.remove(random.between(0, left.len() - 1));
        site.pitr(&["forget", "--yes", &gone]).run_within(LONG).ok();
        let named = site.try_restore(&site.dir.join("refused"), &["--backup", &gone, "--to", "immediate"]);
        named.fails_with(19).says("it was forgotten at").says("--undo");
        let marked = expire(&site, day);
        assert_eq!(marked["servers"][0]["marks"][0]["what"]["backup"], gone.as_str(), "seed {seed}: {marked}");
        day += UNDELETE_DAYS + 1;
        let removed = expire(&site, day);
        assert_eq!(
            removed["servers"][0]["done"]["removed"][0]["what"]["backup"],
            gone.as_str(),
            "seed {seed}: {removed}"
        );
        assert_eq!(ids(&site), left.iter().map(|(_, id)| id.clone()).collect::<Vec<_>>(), "seed {seed}");
        for (n, id) in &left {
            restores += 1;
            assert_eq!(rows_of(&site, id, restores), up_to(*n), "seed {seed}, backup {n}");
        }
        site.pitr(&["status"]).run_within(LONG).ok();
    }
    let (_, last) = &left[0];
    let refused = site.pitr(&["forget", "--yes", last]).run_within(LONG).fails_with(1);
    refused.says("the last one that anything can be restored from").says("--even-the-last");
    site.pitr(&["forget", "--yes", "--even-the-last", last]).run_within(LONG).ok();
    site.pitr(&["plan", "--to", "latest"]).run_within(LONG).fails_with(19);
    // Nobody reads the notes for a yes: without a person to ask, nothing happens.
    site.pitr(&["forget", "--undo", last]).run_within(LONG).ok();
    site.pitr(&["forget", "--even-the-last", last]).run_within(LONG).fails_with(23);
    site.pitr(&["plan", "--to", "latest"]).run_within(LONG).ok();
}
