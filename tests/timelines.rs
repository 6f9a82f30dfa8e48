//! The tree of timelines: drawn as real servers left it, with hosts, the live branch, windows, and what is missing; and restores
//! that a fork makes impossible.

mod harness;

use std::fs;

use harness::{Run, Server, Site, newest, small, wait_for};

/// The ids of all backups, oldest first.
fn backups(site: &Site) -> Vec<String> {
    let listed = site.pitr(&["list", "--json"]).run().ok().stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    listed.as_array().expect("a list").iter().map(|info| info["id"].as_str().expect("an id").to_owned()).collect()
}

fn folder_of(site: &Site) -> std::path::PathBuf {
    let mut servers = fs::read_dir(site.repository().join("main")).expect("readable").flatten();
    servers.next().expect("a server").path()
}

/// Promise: after a promotion the tree shows both branches with the place and time of the fork, who archived each, and which is
/// live and why; when the old server goes on archiving, that is told; a fork in the way of a restore is named with the options
/// that help; a missing history file is named.
#[test]
fn a_promotion() {
    let site = Site::with(&newest(), small(), "");
    site.server.run("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
    site.backup();
    site.server.archive_all();
    let said = site.pitr(&["timelines"]).run().ok().stdout;
    assert!(said.contains("timeline 1  <- LIVE") && said.contains("can be restored from"), "{said}");

    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", None);
    standby.configure("archive_command", &site.push_command());
    standby.start();
    site.server.run("INSERT INTO t SELECT generate_series(1, 10)");
    site.server.archive_all();
    // The fork cuts a segment.
    site.server.run("INSERT INTO t SELECT generate_series(1, 10)");
    let rows = "SELECT count(*) FROM t";
    wait_for("the standby to follow", || (standby.ask(rows) == site.server.ask(rows)).then_some(()));
    standby.promote();
    standby.run("INSERT INTO t SELECT generate_series(1, 10)");
    standby.archive_all();
    let fork = standby.ask("SELECT pg_read_file('pg_wal/00000002.history')");
    let fork = fork.split_whitespace().nth(1).expect("a switch point").to_owned();
    let said = site.pitr(&["timelines"]).run().ok().stdout;
    let line = said.lines().find(|line| line.contains("─ timeline 2")).expect("the branch is drawn");
    assert!(line.starts_with("└─ timeline 2  branched off at ") && line.ends_with("<- LIVE"), "{said}");
    let drawn: pitr::wal::Lsn =
        line.split_whitespace().nth(6).and_then(|lsn| lsn.strip_suffix(',')?.parse().ok()).expect("an LSN");
    assert_eq!(drawn, fork.parse().expect("an LSN"), "{said}");
    assert!(said.contains(&format!("archived from {} on host", standby.data_dir().display())), "{said}");
    assert!(said.contains(".partial: where it was left"), "{said}");
    assert!(said.contains("LIVE is timeline 2") && !said.contains("WARNING"), "{said}");

    // The old server was not stopped.
    site.server.run("INSERT INTO t SELECT generate_series(1, 10)");
    site.server.archive_all();
    site.backup();
    let json = site.pitr(&["timelines", "--json"]).run().ok().stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let server = &json["servers"][0];
    assert_eq!((&server["live"]["timeline"], &server["live"]["rivals"][0]), (&1.into(), &2.into()), "{server}");
    let two = &server["timelines"][1];
    assert_eq!((&two["fork"]["parent"], &two["timeline"]), (&1.into(), &2.into()));
    assert!(
        two["fork"]["time"].is_string() && two["windows"].as_array().is_some_and(|windows| windows.len() == 1),
        "{two}"
    );
    assert_eq!(two["archived_by"][0]["source"], standby.data_dir().to_str().expect("text"));
    let said = site.pitr(&["timelines"]).run().ok().stdout;
    assert!(said.contains("WARNING: timeline 2 was archived too"), "{said}");

    // A backup of the one branch for the other.
    let ids = backups(&site);
    let target = site.dir.join("target").display().to_string();
    let dry = |words: &[&str]| {
        let mut all = vec!["restore", "--to", "latest", "--dry-run", "--target", &target, "--timeline", "2"];
        all.extend(words);
        site.pitr(&all).run()
    };
    dry(&[]).ok();
    let said = dry(&["--backup", &ids[1]]).fails_with(19).says("timeline 2 branched off timeline 1 at ");
    assert!(said.stderr.contains("--timeline 1") && said.stderr.contains(&drawn.to_string()), "{said}");
    let folder = folder_of(&site);
    fs::rename(folder.join("backups").join(&ids[0]), site.dir.join("taken away")).expect("renamed");
    let said = dry(&[]).fails_with(19).says("The fork in the way: timeline 2 branched off timeline 1 at ");
    assert!(said.stderr.contains("for example --timeline 1") && said.stderr.contains(&ids[1]), "{said}");

    fs::remove_file(folder.join("wal/00000002.history")).expect("removed");
    let said = site.pitr(&["timelines"]).run().ok().stdout;
    assert!(said.contains("HISTORY MISSING") && said.contains("00000002.history"), "{said}");
}

/// Promise: an archive without a server, without WAL, and one of a single segment are drawn as what they are.
#[test]
fn little_to_draw() {
    let site = Site::unprepared(&newest(), small(), "");
    site.pitr(&["init"]).run().ok();
    let said = site.pitr(&["timelines"]).run().ok().stdout;
    assert!(said.contains("nothing is archived yet"), "{said}");
    let segment = site.server.switch_wal();
    site.push(&segment).run().ok();
    let said = site.pitr(&["timelines"]).run().ok().stdout;
    assert!(said.contains("timeline 1") && said.contains("cannot be restored: no base backup leads here"), "{said}");
}
