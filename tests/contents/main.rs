//! What `pitr show` and `pitr diff` tell of real servers' backups: names and sizes are those that SQL tells, what changed is what was
//! changed, and a catalog that cannot be read costs names and nothing else.

mod changes;
#[path = "../harness/mod.rs"]
mod harness;
mod large;
mod sizes;

use std::time::Duration;

use harness::{Finished, Run, Server, Site};
use postgres::{Client, NoTls};
use serde_json::Value;

/// How long a verb may take on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// A site with a second database and a tablespace, whose autovacuum does not change sizes behind the test's back.
fn site(postgres: &harness::Postgres) -> Site {
    let site = Site::with(postgres, harness::Options::default().page_checksums().set("autovacuum", "off"), "");
    let place = site.dir.make_dir("elsewhere");
    site.server.run(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", place.display()));
    site.server.run("CREATE DATABASE shop");
    site
}

/// Runs statements in a database, each line a transaction of its own.
fn run(server: &Server, database: &str, sql: &str) {
    let mut client = client(server, database);
    for line in sql.lines().map(str::trim).filter(|line| !line.is_empty()) {
        client.batch_execute(line).unwrap_or_else(|error| panic!("{line}: {error:?}"));
    }
}

fn client(server: &Server, database: &str) -> Client {
    let conninfo = server.conninfo().replace("dbname=postgres", &format!("dbname={database}"));
    Client::connect(&conninfo, NoTls).expect("the server takes connections")
}

/// Takes a backup with this label.
fn backup(site: &Site, label: &str) {
    site.server.run("CHECKPOINT");
    site.pitr(&["backup", "--label", label]).run_within(LONG).ok();
}

fn json(site: &Site, words: &[&str]) -> Value {
    let finished = text(site, &[words, &["--json"]].concat());
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

fn text(site: &Site, words: &[&str]) -> Finished {
    site.pitr(words).run_within(LONG).ok()
}

/// The element of a list whose member has this value.
fn element<'a>(list: &'a Value, member: &str, value: &str) -> &'a Value {
    let found = list.as_array().expect("a list").iter().find(|element| element[member] == value);
    found.unwrap_or_else(|| panic!("no {member} {value} in {list:#}"))
}

/// What stands on standard output.
trait Shows {
    /// Panics unless it contains `text`.
    fn shows(self, text: &str) -> Self;
}

impl Shows for Finished {
    fn shows(self, text: &str) -> Finished {
        assert!(self.stdout.contains(text), "should have shown {text:?}: {self}");
        self
    }
}
