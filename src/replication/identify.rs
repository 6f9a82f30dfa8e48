//! What a server says about itself: `IDENTIFY_SYSTEM`, `TIMELINE_HISTORY`, `SHOW` (manual, "Streaming Replication
//! Protocol").

use crate::wal::{Lsn, SystemIdentifier, TimelineId};

use super::ReplicationError;
use super::frames::out_of_step;
use super::session::{QueryResult, Session};

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SystemIdentity {
    /// Which cluster it is.
    pub system_identifier: SystemIdentifier,
    /// The timeline that it is on.
    pub timeline: TimelineId,
    /// How far its WAL is flushed; on a standby, replayed or received.
    pub flushed: Lsn,
    /// The database of the session; `None` in physical ones.
    pub dbname: Option<String>,
}

/// A timeline history file as the server has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryFile {
    /// Its name, such as `00000002.history`.
    pub name: String,
    /// Its bytes; reasons in it need not be UTF-8.
    pub content: Vec<u8>,
}

impl Session {
    /// Asks which cluster this is, and where its WAL stands.
    ///
    /// # Errors
    /// As [`Session::query`]; physical sessions only.
    pub fn identify_system(&mut self) -> Result<SystemIdentity, ReplicationError> {
        let doing = "asking for the system identifier";
        let result = single(self.query("IDENTIFY_SYSTEM")?, doing)?;
        let value = |at| field(&result, at, doing);
        let wrong = |error: crate::wal::NameError| out_of_step(doing, error.to_string());
        Ok(SystemIdentity {
            system_identifier: value(0)?.parse().map_err(wrong)?,
            timeline: timeline(value(1)?, doing)?,
            flushed: value(2)?.parse().map_err(wrong)?,
            dbname: value(3).ok().map(str::to_owned),
        })
    }

    /// Fetches the history file of a timeline. The first timeline has none.
    ///
    /// # Errors
    /// [`ReplicationError::Server`] with `58P01` if the server does not have it; physical sessions only.
    pub fn timeline_history(&mut self, timeline: TimelineId) -> Result<HistoryFile, ReplicationError> {
        let doing = "asking for a timeline history file";
        let results = self.query_raw(&format!("TIMELINE_HISTORY {timeline}"), doing)?;
        let row = results.into_iter().find_map(|mut result| result.rows.pop()).unwrap_or_default();
        match <[Option<Vec<u8>>; 2]>::try_from(row) {
            Ok([Some(name), Some(content)]) => {
                let name = String::from_utf8(name).map_err(|_| out_of_step(doing, "an unreadable name".to_owned()))?;
                Ok(HistoryFile { name, content })
            }
            _ => Err(out_of_step(doing, "no file".to_owned())),
        }
    }

    /// The value of a server setting, in the server's own notation (`16MB`, `on`, `150018`).
    ///
    /// # Errors
    /// [`ReplicationError::Server`] if there is no such setting or it may not be read (`42501`: some need the role
    /// `pg_read_all_settings`).
    pub fn show(&mut self, setting: &str) -> Result<String, ReplicationError> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if setting.is_empty() || !setting.chars().all(is_name) {
            return Err(ReplicationError::Argument { what: "name of a setting", reason: format!("\"{setting}\"") });
        }
        let doing = "asking for a setting";
        let result = single(self.query(&format!("SHOW {setting}"))?, doing)?;
        Ok(field(&result, 0, doing)?.to_owned())
    }
}

/// The one result that a command must give.
pub(super) fn single(results: Vec<QueryResult>, doing: &'static str) -> Result<QueryResult, ReplicationError> {
    // After the rows comes the command's own completion, as a result without columns.
    results.into_iter().find(|result| !result.rows.is_empty()).ok_or_else(|| out_of_step(doing, "no row".to_owned()))
}

/// A value of the first row that must not be NULL.
pub(super) fn field<'a>(result: &'a QueryResult, at: usize, doing: &'static str) -> Result<&'a str, ReplicationError> {
    let row = result.rows.first().map(Vec::as_slice).unwrap_or_default();
    row.get(at).and_then(Option::as_deref).ok_or_else(|| out_of_step(doing, format!("no value in column {}", at + 1)))
}

/// A timeline in decimal, as results carry it.
pub(super) fn timeline(text: &str, doing: &'static str) -> Result<TimelineId, ReplicationError> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(TimelineId(number)),
        _ => Err(out_of_step(doing, format!("timeline \"{text}\""))),
    }
}
