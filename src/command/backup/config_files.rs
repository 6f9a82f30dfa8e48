//! Configuration files outside the data directory, as Debian has them: `BASE_BACKUP` does not carry them.
//!
//! Read over an ordinary connection as far as the role may (`pg_read_all_settings` to learn where they are,
//! `pg_read_server_files` and EXECUTE on `pg_read_binary_file` to read them). A backup is complete without them: what is missing is
//! noted, so that a restore can say it.

use crate::chunk::from_hex;
use crate::command::Interrupt;
use crate::command::server::{ServerError, connect, row, value};
use crate::replication::{ConnInfo, Session, SessionKind};

/// The longest file that is stored. Configuration is text that people write.
const LIMIT_BYTES: u64 = 1 << 20;

/// A configuration file outside the data directory.
pub(super) struct Found {
    /// Its path on the server; a setting's name where that is all that is known.
    pub(super) source: String,
    /// Its content, or why it could not be had.
    pub(super) content: Result<Vec<u8>, String>,
}

impl Found {
    /// The file and why it is missing, if it is.
    pub(super) fn why_missing(&self) -> Option<String> {
        self.content.as_ref().err().map(|why| format!("{}: {why}", self.source))
    }
}

/// Reads all such files.
pub(super) fn read(info: &ConnInfo, interrupt: &Interrupt) -> Vec<Found> {
    let missing = |error: ServerError| {
        let reason = format!("could not ask the server for it: {error}");
        vec![Found { source: "configuration outside the data directory".to_owned(), content: Err(reason) }]
    };
    match connect(info, SessionKind::Sql, interrupt) {
        Ok(mut session) => read_over(&mut session).unwrap_or_else(missing),
        Err(error) => missing(error),
    }
}

fn read_over(session: &mut Session) -> Result<Vec<Found>, ServerError> {
    let settings = ["data_directory", "config_file", "hba_file", "ident_file"];
    let asked = settings.map(|name| format!("pg_catalog.current_setting('{name}')")).join(", ");
    let (directory, paths) = match row(session, &format!("SELECT {asked}")) {
        Ok(row) => {
            let text = |at| value(&row, at).to_owned();
            (text(0), vec![text(1), text(2), text(3)])
        }
        Err(error) => {
            let reason = format!("its place is not known: {error}");
            return Ok(vec![Found { source: "config_file, hba_file, ident_file".to_owned(), content: Err(reason) }]);
        }
    };
    let included = included_files(session).unwrap_or_default();
    let mut outside: Vec<String> = Vec::new();
    for path in paths.into_iter().chain(included) {
        let inside = path.strip_prefix(&directory).is_some_and(|rest| rest.starts_with('/'));
        if !path.is_empty() && !inside && !outside.contains(&path) {
            outside.push(path);
        }
    }
    Ok(outside.into_iter().map(|source| Found { content: read_file(session, &source), source }).collect())
}

/// Files that the configuration includes. The view is for superusers unless granted; who may not see it gets the main files.
fn included_files(session: &mut Session) -> Result<Vec<String>, ServerError> {
    let results = session
        .query("SELECT DISTINCT sourcefile FROM pg_catalog.pg_file_settings WHERE sourcefile IS NOT NULL ORDER BY 1")?;
    Ok(results.into_iter().flat_map(|result| result.rows).filter_map(|row| row.into_iter().next().flatten()).collect())
}

fn read_file(session: &mut Session, path: &str) -> Result<Vec<u8>, String> {
    // Without the E, a backslash stands for itself; the setting is on in every session of ours.
    let quoted = path.replace('\'', "''");
    let sql =
        format!("SELECT pg_catalog.encode(pg_catalog.pg_read_binary_file('{quoted}', 0, {}), 'hex')", LIMIT_BYTES + 1);
    let row = row(session, &sql).map_err(|error| error.to_string())?;
    let content = from_hex(value(&row, 0)).ok_or("the server's answer is not hexadecimal")?;
    if content.len() as u64 > LIMIT_BYTES {
        return Err(format!("it has more than {LIMIT_BYTES} bytes"));
    }
    Ok(content)
}
