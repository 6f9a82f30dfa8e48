//! Looking at a server: who it is, how it is set, what the role may do. For the verbs that set up and check.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Interrupt;
use crate::config::ClusterConfig;
use crate::replication::{ConnInfo, Patience, ReplicationError, Session, SessionKind};
use crate::wal::{NameError, PostgresMajor, SegmentSize, SystemIdentifier, TimelineId};

/// Settings that are asked for; one that the server's version does not have is left out.
const SETTINGS: [&str; 8] = [
    "wal_level",
    "archive_mode",
    "archive_command",
    "archive_library",
    "archive_timeout",
    "max_wal_senders",
    "full_page_writes",
    "data_directory",
];

/// The server said something that this program cannot work with, or nothing at all.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The session failed.
    #[error(transparent)]
    Session(#[from] ReplicationError),
    /// Too old, or newer than this program.
    #[error("PostgreSQL {version} is not supported: 13 to 18 are")]
    Version {
        /// As the server tells it.
        version: String,
    },
    /// A setting with a value that makes no sense.
    #[error("cannot understand the server's setting {name} = \"{value}\"")]
    Setting {
        /// Its name.
        name: &'static str,
        /// Its value.
        value: String,
    },
    /// A segment size or an LSN that PostgreSQL does not have.
    #[error("cannot understand the server: {0}")]
    Value(#[from] NameError),
}

/// What a server says about itself over a replication connection.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// Which cluster it is.
    pub system_identifier: SystemIdentifier,
    /// The timeline that it is on.
    pub timeline: TimelineId,
    /// Its major version.
    pub major: PostgresMajor,
    /// Its version in full.
    pub version: String,
    /// `wal_segment_size`.
    pub segment_size: SegmentSize,
    /// `data_checksums`.
    pub page_checksums: bool,
    /// Other settings by name, as far as the role may see them.
    pub settings: BTreeMap<String, String>,
}

/// What the role may do beyond replication, seen over an ordinary connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rights {
    /// A superuser.
    pub superuser: bool,
    /// May see all settings.
    pub read_settings: bool,
    /// May call `pg_switch_wal()`.
    pub switch_wal: bool,
    /// The server is a standby.
    pub in_recovery: bool,
}

/// Reads the cluster's connection string.
///
/// # Errors
/// It cannot be understood.
pub fn conninfo(config: &ClusterConfig) -> Result<ConnInfo, ServerError> {
    let text = config.conninfo.as_deref().unwrap_or_default();
    Ok(ConnInfo::parse(text).map_err(ReplicationError::from)?)
}

/// Connects, giving up after a short silence: these are small questions.
///
/// # Errors
/// The session cannot be had.
pub fn connect(info: &ConnInfo, kind: SessionKind, interrupt: &Interrupt) -> Result<Session, ServerError> {
    let patience = Patience { silence: Duration::from_secs(30), interrupt: interrupt.flag() };
    Ok(Session::connect(info, kind, &patience)?)
}

/// Asks who the server is and how it is set, over a physical replication session.
///
/// # Errors
/// The session fails, or the server is none that this program knows.
pub fn facts(session: &mut Session) -> Result<ServerFacts, ServerError> {
    let major = session.server_major()?;
    let version = session.parameter("server_version").unwrap_or_default().to_owned();
    if !(13..=18).contains(&major) {
        return Err(ServerError::Version { version });
    }
    let identity = session.identify_system()?;
    let segment_size = segment_size(&session.show("wal_segment_size")?)?;
    let page_checksums = session.show("data_checksums")? == "on";
    let mut settings = BTreeMap::new();
    for name in SETTINGS {
        match session.show(name) {
            Ok(value) => drop(settings.insert(name.to_owned(), value)),
            // The server does not have it (archive_library before 15) or the role may not see it (data_directory).
            Err(ReplicationError::Server(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(ServerFacts {
        system_identifier: identity.system_identifier,
        timeline: identity.timeline,
        major: PostgresMajor(major),
        version,
        segment_size,
        page_checksums,
        settings,
    })
}

/// Asks what the role may do, over an ordinary session.
///
/// # Errors
/// The session fails.
pub fn rights(session: &mut Session) -> Result<Rights, ServerError> {
    let row = row(
        session,
        "SELECT (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), \
         pg_catalog.pg_has_role('pg_read_all_settings', 'usage'), \
         pg_catalog.has_function_privilege('pg_catalog.pg_switch_wal()', 'execute'), \
         pg_catalog.pg_is_in_recovery()",
    )?;
    let [superuser, read_settings, switch_wal, in_recovery] = [0, 1, 2, 3].map(|at| value(&row, at) == "t");
    Ok(Rights { superuser, read_settings, switch_wal, in_recovery })
}

/// The first row of a query's answer; empty if there is none.
///
/// # Errors
/// The session fails.
pub fn row(session: &mut Session, sql: &str) -> Result<Vec<Option<String>>, ServerError> {
    let results = session.query(sql)?;
    Ok(results.into_iter().find_map(|result| result.rows.into_iter().next()).unwrap_or_default())
}

/// A value of a row as text, empty for NULL.
#[must_use]
pub fn value(row: &[Option<String>], at: usize) -> &str {
    row.get(at).and_then(Option::as_deref).unwrap_or_default()
}

/// Reads `16MB` or `1GB`, as `SHOW wal_segment_size` writes it.
fn segment_size(text: &str) -> Result<SegmentSize, ServerError> {
    let wrong = || ServerError::Setting { name: "wal_segment_size", value: text.to_owned() };
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u32 = match &text[digits.len()..] {
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let bytes = digits.parse::<u32>().ok().and_then(|count| count.checked_mul(unit)).ok_or_else(wrong)?;
    Ok(SegmentSize::try_from(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server's notation of its segment size, from the smallest to the largest.
    #[test]
    fn segment_sizes() {
        for (text, bytes) in [("1MB", 1 << 20), ("16MB", 16 << 20), ("64MB", 64 << 20), ("1GB", 1_u64 << 30)] {
            assert_eq!(segment_size(text).expect(text).bytes(), bytes);
        }
        for wrong in ["", "MB", "16", "16kB", "3MB", "8GB", "-1MB"] {
            assert!(segment_size(wrong).is_err(), "{wrong:?}");
        }
    }
}
