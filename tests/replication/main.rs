//! Sessions, base backups and WAL streams against real servers of every major.

#[path = "../harness/mod.rs"]
mod harness;

mod base_backup;
mod encryption;
mod login;
mod session;
mod wal_stream;

use std::path::PathBuf;

use pitr::replication::conninfo::Environment;
use pitr::replication::{ConnInfo, Patience, ReplicationError, Session, SessionKind};

/// Connects with nothing taken from the environment of whoever runs the tests.
fn connect(conninfo: &str, kind: SessionKind) -> Result<Session, ReplicationError> {
    Session::connect(&parse(conninfo), kind, &Patience::default())
}

fn parse(conninfo: &str) -> ConnInfo {
    parse_at_home(conninfo, None, &[])
}

fn parse_at_home(conninfo: &str, home: Option<PathBuf>, variables: &[(&str, &str)]) -> ConnInfo {
    let environment = Environment::of_values(variables.iter().copied(), home, Some("postgres"));
    ConnInfo::parse_in(conninfo, &environment).expect(conninfo)
}

fn physical(server: &harness::Server) -> Session {
    connect(&server.conninfo(), SessionKind::Physical).expect("a session for physical replication")
}
