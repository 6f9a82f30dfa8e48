//! Reasons not to begin: found before a byte is copied.

use super::BackupError;
use crate::command::server::ServerFacts;
use crate::replication::Session;
use crate::repository::ServerRecord;
use crate::wal::SegmentSize;

/// The repository must not take data of a server that is not the one it was made for.
pub(super) fn check_record(facts: &ServerFacts, record: &ServerRecord) -> Result<(), BackupError> {
    let differs = |what, found: String, recorded: String| {
        Err(BackupError::Record { system_identifier: facts.system_identifier, what, found, recorded })
    };
    if facts.major != record.major {
        return differs("version", facts.major.to_string(), record.major.to_string());
    }
    if facts.segment_size != record.segment_size_bytes {
        let bytes = |size: SegmentSize| format!("{} bytes", size.bytes());
        return differs("WAL segments of", bytes(facts.segment_size), bytes(record.segment_size_bytes));
    }
    Ok(())
}

/// Better no copy at all than one whose WAL never comes. What the role may not see cannot be judged, and a standby's own
/// settings say nothing about its primary, which does the archiving.
pub(super) fn check_archiving(session: &mut Session, facts: &ServerFacts) -> Result<(), BackupError> {
    // Transactions of a server in recovery are read-only (StartTransaction); the replication protocol of version 13 has
    // nothing that tells it more directly.
    if session.show("transaction_read_only")? == "on" {
        return Ok(());
    }
    let value = |name: &str| facts.settings.get(name).map(String::as_str);
    let refused = |setting, value: &str| Err(BackupError::NotArchiving { setting, value: value.to_owned() });
    match value("archive_mode") {
        Some("off") => refused("archive_mode", "off"),
        _ if value("archive_command") == Some("") && matches!(value("archive_library"), None | Some("")) => {
            refused("archive_command", "")
        }
        _ => Ok(()),
    }
}
