//! Two servers that write as one: the first to archive a name wins, for good, and the second is told who was first.

use std::fs;
use std::process::Stdio;

use crate::clone;
use crate::harness::{Run, Server, Site, newest, small, waiting};

/// Two copies of one server that went different ways under the same names.
fn two_histories(count: usize) -> (Site, Server, Vec<String>) {
    let (mut site, _) = waiting(&newest(), small(), "look_ahead = 0", 0);
    let mut other = clone(&mut site, "other");
    other.start();
    let names: Vec<String> = (0..count).map(|_| site.server.switch_wal()).collect();
    let others: Vec<String> = (0..count)
        .map(|_| {
            other.run("SELECT pg_logical_emit_message(false, 'test', 'another history')");
            other.switch_wal()
        })
        .collect();
    assert_eq!(names, others, "the two histories use the same names");
    (site, other, names)
}

/// Promise: other content under a name that is taken is refused with both origins, again and again, and never touches what is
/// there.
#[test]
fn the_second_content_is_refused() {
    let (site, other, names) = two_histories(1);
    site.push(&names[0]).run().ok();
    for _ in 0..2 {
        let said = site.push(&names[0]).current_dir(other.data_dir()).run().fails_with(10);
        let said = said.says("already in").says("with different content").says("Do two servers write as one");
        for origin in [site.server.data_dir(), other.data_dir()] {
            assert!(said.stderr.contains(origin.to_str().expect("text")), "{said}");
        }
    }
    site.assert_archived(&names[0]);
    site.push(&names[0]).run().ok();
}

/// Promise: also when both come at the same moment, exactly one wins, and what is stored is whole and the winner's.
#[test]
fn a_race_has_one_winner() {
    let (site, other, names) = two_histories(12);
    let directories = [site.server.data_dir(), other.data_dir()];
    for name in &names {
        let racers: Vec<_> = directories
            .iter()
            .map(|directory| {
                let mut push = site.push(name);
                push.current_dir(directory).stdout(Stdio::null()).stderr(Stdio::piped());
                push.spawn().expect("started")
            })
            .collect();
        let ended: Vec<_> = racers.into_iter().map(|racer| racer.wait_with_output().expect("ended")).collect();
        let codes: Vec<Option<i32>> = ended.iter().map(|output| output.status.code()).collect();
        let winner = codes.iter().position(|code| *code == Some(0)).unwrap_or_else(|| panic!("nobody won: {ended:?}"));
        assert_eq!(codes[1 - winner], Some(10), "{name}: {ended:?}");
        let original = fs::read(directories[winner].join("pg_wal").join(name)).expect("readable");
        assert!(site.archived_bytes(name).is_some_and(|stored| stored == original), "{name}: not the winner's");
    }
    assert_eq!(site.stored_wal().len(), names.len(), "no litter: {:?}", site.stored_wal());
}

/// Promise: the archiver of the second server stops with an alarm in its statistics, and that of the first goes on.
#[test]
fn the_second_archiver_is_stopped() {
    let (mut site, mut other, names) = two_histories(1);
    site.push(&names[0]).run().ok();
    site.archive();
    other.configure("archive_command", &site.push_command());
    other.reload();
    other.switch_wal();
    crate::harness::wait_for("the second archiver to fail", || {
        (other.ask("SELECT failed_count > 0 FROM pg_stat_archiver") == "t").then_some(())
    });
    assert_eq!(other.ask("SELECT last_failed_wal FROM pg_stat_archiver"), names[0]);
    assert!(other.log().contains("DETAIL:  Stored is the file of"), "{}", other.log());
    site.server.archive_all();
    assert_eq!(site.server.ask("SELECT failed_count FROM pg_stat_archiver"), "0");
}
