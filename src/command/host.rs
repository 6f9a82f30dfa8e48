//! What only the host knows: its name, the time, its files. For records of who did what when, and for a look at what they left.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use jiff::tz::TimeZone;

use crate::report::{ExitStatus, Program, Report, Severity};
use crate::wal::PgTime;

/// The host's name, as the kernel has it.
#[must_use]
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Now, by this host's clock.
#[must_use]
pub fn now() -> PgTime {
    PgTime::from_timestamp(jiff::Timestamp::now())
}

/// CRC-32 (IEEE) of a file's bytes, as stored WAL files are described with.
///
/// # Errors
/// It is not there, or cannot be read.
pub fn file_checksum(path: &Path) -> io::Result<u32> {
    let mut file = File::open(path)?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize()),
            length => hasher.update(&buffer[..length]),
        }
    }
}

/// The time zone of whoever asks: `TZ`, else the host's, else UTC. A `TZ` that cannot be understood is told: times without a zone would
/// be taken for others.
#[must_use]
pub fn local_zone() -> TimeZone {
    TimeZone::try_system().unwrap_or_else(|_| {
        if let Some(asked) = std::env::var_os("TZ").filter(|zone| !zone.is_empty()) {
            let what = format!("time zone \"{}\" of the variable TZ is not known", asked.display());
            let meaning = "Times that name no zone are taken as UTC, and shown so.";
            let hint = "Set TZ to a name such as Europe/Berlin, or give each time its offset, as in 14:25+01.";
            Report::new(ExitStatus::Success, what, meaning, hint).print(Program::Pitr, Severity::Warning);
        }
        TimeZone::UTC
    })
}
