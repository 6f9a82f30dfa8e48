//! What the user is told of a backup that is complete.

use std::io::Write;

use indicatif::HumanBytes;

use super::BackupError;
use crate::catalog::{BackupInfo, ReadBy};
use crate::command::Context;
use crate::wal::BackupSource;

/// The result on standard output.
pub(super) fn tell(info: &BackupInfo, context: &Context) -> Result<(), BackupError> {
    let mut out = context.stdout();
    let written = match context.json {
        true => out.json(info),
        false => write!(out, "{}", summary(info)).and_then(|()| out.flush()),
    };
    written.map_err(|source| BackupError::Local { action: "write the result", source })
}

fn summary(info: &BackupInfo) -> String {
    let mut text = format!("backup {} of cluster \"{}\" is complete\n", info.id, info.cluster);
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<13} {value}\n"));
    line("label", info.label.clone());
    let source = match info.source {
        BackupSource::Primary => "primary",
        BackupSource::Standby => "standby",
    };
    line("server", format!("PostgreSQL {}, {source}, timeline {}", info.postgres_version, info.stop_timeline));
    line("WAL", format!("{} to {}", info.start_lsn, info.stop_lsn));
    let (raw, stored) = (HumanBytes(info.raw_bytes), HumanBytes(info.stored_bytes));
    line("size", format!("{} files, {raw}, stored in {stored}", info.files));
    if let Some(parent) = info.parent {
        line("refers to", format!("{} of {parent} and what that refers to", HumanBytes(info.referenced_bytes)));
    }
    let read = match (info.read, info.changed_only) {
        (ReadBy::Protocol, false) => None,
        (ReadBy::Protocol, true) => Some("what has changed since then, by the server's WAL summaries"),
        (ReadBy::Local, false) => Some("the files of the data directory"),
        (ReadBy::Local, true) => Some("what has changed in the data directory since then, by the WAL"),
    };
    if let Some(read) = read {
        line("read", read.to_owned());
    }
    if info.bad_pages > 0 {
        line("DAMAGED", format!("{} data pages fail their checksum; the manifest names them", info.bad_pages));
    }
    for missing in &info.configuration_missing {
        line("not stored", missing.clone());
    }
    text
}
