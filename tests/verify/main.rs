//! `pitr verify` on repositories that real servers filled: silent on what is whole, loud and exact on what is not.

mod bucket;
mod damage;
#[path = "../harness/mod.rs"]
mod harness;
mod ledger;
#[path = "../s3_server/mod.rs"]
mod s3_server;
mod sound;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Finished, Run, Server, Site, wait_for};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(120);

/// Runs `pitr verify --json` with these words on a repository; gives the status and the document.
fn verify_in(site: &Site, repository: &Path, words: &[&str]) -> (i32, Value, Finished) {
    let mut all = vec!["verify", "--json"];
    all.extend(words);
    let finished = site.pitr(&all).env("PITR_REPOSITORY", repository).run_within(LONG);
    let document = serde_json::from_str(&finished.stdout).unwrap_or(Value::Null);
    (finished.code(), document, finished)
}

fn verify(site: &Site, words: &[&str]) -> (i32, Value, Finished) {
    verify_in(site, &site.repository(), words)
}

/// All findings that are not harmless.
fn findings(document: &Value) -> Vec<Value> {
    let servers = document["servers"].as_array().cloned().unwrap_or_default();
    let all = servers.iter().flat_map(|server| server["findings"].as_array().cloned().unwrap_or_default());
    all.filter(|finding| finding["severity"] != "harmless").collect()
}

/// A number of the first server's document.
fn count(document: &Value, part: &str, name: &str) -> u64 {
    document["servers"][0][part][name].as_u64().unwrap_or_else(|| panic!("no {part}.{name} in {document}"))
}

/// All objects below a directory, sorted.
fn objects(repository: &Path) -> Vec<PathBuf> {
    fn collect(directory: &Path, all: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).expect("the repository can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() { collect(&path, all) } else { all.push(path) }
        }
    }
    let mut all = Vec::new();
    collect(repository, &mut all);
    all.sort();
    all
}

/// The objects whose path has this in it.
fn those(repository: &Path, part: &str) -> Vec<PathBuf> {
    objects(repository).into_iter().filter(|path| path.to_string_lossy().contains(part)).collect()
}

/// The ids of all backups, oldest first.
fn backups(site: &Site) -> Vec<String> {
    let listed = site.pitr(&["list", "--json"]).run().ok().stdout;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    listed.as_array().expect("a list").iter().map(|info| info["id"].as_str().expect("an id").to_owned()).collect()
}

/// A standby that follows, and archives once it is promoted.
fn standby(site: &Site) -> Server {
    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", None);
    standby.configure("archive_command", &site.push_command());
    standby.start();
    standby
}

/// The primary is lost and the standby promoted: timeline 2, its history file, and the end of timeline 1 as a `.partial`.
fn promote(site: &mut Site, standby: &Server) {
    // The fork cuts a segment.
    site.server.run("INSERT INTO words VALUES ('forked')");
    let rows = "SELECT count(*) FROM words";
    wait_for("the standby to follow", || (standby.ask(rows) == site.server.ask(rows)).then_some(()));
    site.server.kill9();
    standby.promote();
    standby.run("INSERT INTO words VALUES ('promoted')");
    standby.archive_all();
}
