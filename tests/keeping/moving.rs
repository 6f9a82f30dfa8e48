//! Packs that are mostly dead: later backups store anew what they still need of them, so that they go.

use std::path::PathBuf;

use super::harness::{Options, Postgres, Run, Site, Stop, majors, newest, wait_for};
use super::{LONG, expire, ids, json};

/// Promise: a pack of which the latest backup uses little is used by no later one, whether the server sends everything or only changes; it goes with
/// the backups before; and what moved is restored as it was.
#[test]
fn mostly_dead_packs_go() {
    packs_go(&newest(), "on");
}

/// The same on every major, and on the newest one without its summaries.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn mostly_dead_packs_of_every_major() {
    majors().iter().for_each(|postgres| packs_go(postgres, "on"));
    packs_go(&newest(), "off");
}

fn packs_go(postgres: &Postgres, summaries: &str) {
    let mut options = Options::default().segment_size_mib(1).page_checksums();
    if postgres.major >= 17 {
        options = options.set("summarize_wal", summaries);
    }
    let site = Site::with(postgres, options, "");
    let fill = "(SELECT string_agg(md5(n || ':' || i), '') FROM generate_series(1, 30) i)";
    site.server.run(&format!("CREATE TABLE cold AS SELECT n, {fill} AS fill FROM generate_series(1, 500) n"));
    site.server.run(&format!("CREATE TABLE hot AS SELECT n, {fill} AS fill FROM generate_series(1, 30000) n"));
    let first = take(&site);
    // All of it has changed: of the first backup's pack little but "cold" is used.
    site.server.run("UPDATE hot SET fill = reverse(fill) WHERE n % 2 = 0");
    site.server.run("VACUUM FULL hot");
    let second = take(&site);
    let third = take(&site);
    let moved = third["stored_bytes"].as_u64().expect("a number");
    assert!(moved > 500_000, "what moves is stored anew: {third}");
    assert_eq!(third["changed_only"].as_bool(), Some(postgres.major >= 17 && summaries == "on"));
    // Once and not again.
    let fourth = take(&site);
    assert!(fourth["stored_bytes"].as_u64().expect("a number") < moved / 2, "{fourth}");
    let expected = content(&site.server);

    let id = |backup: &serde_json::Value| backup["id"].as_str().expect("an id").to_owned();
    site.pitr(&["forget", "--yes", &id(&first)]).run_within(LONG).ok();
    let told = expire(&site, 0);
    let server = &told["servers"][0];
    assert!(
        server["dead_bytes"].as_u64().expect("a number") * 3 > server["pack_bytes"].as_u64().expect("a number"),
        "{told}"
    );
    let shown = site.pitr(&["expire", "--dry-run"]).run_within(LONG).ok();
    assert!(shown.stdout.contains("  dead     "), "{shown}");
    assert!(!packs(&site, &id(&first)).is_empty(), "the second backup needs it");
    site.pitr(&["forget", "--yes", &id(&second)]).run_within(LONG).ok();
    expire(&site, 4);
    expire(&site, 8);
    assert_eq!(packs(&site, &id(&first)), Vec::<PathBuf>::new());
    assert_eq!(ids(&site), [id(&third), id(&fourth)]);
    site.pitr(&["verify"]).run_within(LONG).ok();
    for (number, backup) in [&third, &fourth].into_iter().enumerate() {
        let mut copy = site.restore(&format!("copy-{number}"), &["--backup", &id(backup), "--to", "immediate"]);
        copy.start();
        wait_for("the restored server to open", || (copy.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
        assert_eq!(content(&copy), expected);
        copy.stop(Stop::Immediate);
    }
}

fn take(site: &Site) -> serde_json::Value {
    site.server.run("CHECKPOINT");
    site.server.archive_all();
    json(&site.pitr(&["backup", "--json"]).run_within(LONG).ok())
}

fn content(server: &super::harness::Server) -> String {
    let sum =
        |table: &str| format!("(SELECT count(*) || ' ' || md5(string_agg(n || fill, '' ORDER BY n)) FROM {table})");
    server.ask(&format!("SELECT {} || {}", sum("cold"), sum("hot")))
}

/// The packs that a backup wrote.
fn packs(site: &Site, id: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![site.repository()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.parent().is_some_and(|folder| folder.ends_with("packs"))
                && path.to_string_lossy().contains(id)
            {
                found.push(path);
            }
        }
    }
    found
}
