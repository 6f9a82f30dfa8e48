//! A data directory whose server recovers, seen from outside.
//!
//! Before it is consistent a server lets nobody in, and one without `hot_standby` never does. What it says all the same: the
//! startup process carries the segment that it replays in its title (`update_process_title`, on by default), and `pg_control`
//! has the last restartpoint, behind which replay never is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::PgDataError;
use super::asked::read_settings;
use super::state::running_server;
use crate::wal::{BackupLabel, CONTROL_FILE_READ_SIZE, ControlFile, Lsn, PgTime, SegmentName};

/// How often a `pg_control` that is just being written is read again.
const CONTROL_FILE_TRIES: u32 = 20;

/// What kind of recovery the directory is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// `standby.signal`: it follows the archive for ever.
    Standby,
    /// `recovery.signal`: to its target.
    Recovery,
    /// Neither: recovery has ended, or it was no archive recovery.
    None,
}

/// What the directory tells.
#[derive(Clone, Debug)]
pub struct Recovering {
    /// Its `pg_control`.
    pub control: ControlFile,
    /// What kind of recovery.
    pub mode: Mode,
    /// Where replay of its base backup began.
    pub start: Option<Lsn>,
    /// The server runs.
    pub running: bool,
    /// Since when, by this host's clock.
    pub started_at: Option<PgTime>,
    /// The segment that is replayed at this moment, if the operating system shows it.
    pub segment: Option<SegmentName>,
    /// The settings of its configuration files, by name.
    pub settings: BTreeMap<String, String>,
}

/// Looks at a data directory.
///
/// # Errors
/// `pg_control` or another file cannot be read.
pub fn look(data: &Path) -> Result<Recovering, PgDataError> {
    let control = control_file(data)?;
    let there = |name: &str| data.join(name).exists();
    // standby.signal wins over recovery.signal.
    let mode = match (there("standby.signal"), there("recovery.signal")) {
        (true, _) => Mode::Standby,
        (_, true) => Mode::Recovery,
        _ => Mode::None,
    };
    // The server renames it as soon as it has taken it in.
    let labels = ["backup_label", "backup_label.old"].map(|name| fs::read(data.join(name)).ok());
    let start = labels.into_iter().flatten().find_map(|text| Some(BackupLabel::parse(&text).ok()?.start));
    let pid = running_server(data)?;
    let mut settings = BTreeMap::new();
    for name in ["postgresql.conf", "postgresql.auto.conf"] {
        read_settings(&fs::read(data.join(name)).unwrap_or_default(), &mut settings);
    }
    Ok(Recovering {
        control,
        mode,
        start,
        running: pid.is_some(),
        started_at: pid.and_then(|_| started_at(data)),
        segment: pid.and_then(replayed_segment),
        settings,
    })
}

fn control_file(data: &Path) -> Result<ControlFile, PgDataError> {
    let path = data.join("global/pg_control");
    let mut tries = 0;
    loop {
        let mut bytes = fs::read(&path).map_err(PgDataError::io("read", &path))?;
        bytes.truncate(CONTROL_FILE_READ_SIZE);
        tries += 1;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok(control),
            Err(error) if error.may_be_torn() && tries < CONTROL_FILE_TRIES => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(error) => return Err(PgDataError::io("read", &path)(std::io::Error::other(error))),
        }
    }
}

/// The third line of `postmaster.pid`.
fn started_at(data: &Path) -> Option<PgTime> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    text.lines().nth(2)?.trim().parse().ok().map(PgTime::from_unix_seconds)
}

/// The segment in the title of the server's startup process: `postgres: startup recovering 000000010000000000000003`.
fn replayed_segment(server: i32) -> Option<SegmentName> {
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let titles = processes.filter_map(|process| {
        process.file_name().to_str()?.parse::<i32>().ok()?;
        let stat = fs::read_to_string(process.path().join("stat")).ok()?;
        // The name in parentheses may hold anything; behind it stand the state and the parent's number.
        let parent: i32 = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
        if parent != server {
            return None;
        }
        fs::read(process.path().join("cmdline")).ok()
    });
    { titles }.find_map(|title| segment_of(&String::from_utf8_lossy(&title)))
}

fn segment_of(title: &str) -> Option<SegmentName> {
    let (_, rest) = title.split_once("startup")?;
    rest.split(|c: char| c.is_whitespace() || c == '\0').find_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The title as servers of 13 to 18 write it, with a cluster's name, and those of other processes.
    #[test]
    fn titles() {
        let segment = "000000010000000000000003";
        for title in [
            format!("postgres: startup recovering {segment}"),
            format!("postgres: main: startup waiting for {segment}\0\0\0"),
        ] {
            assert_eq!(segment_of(&title).map(|found| found.to_string()).as_deref(), Some(segment));
        }
        for title in
            ["postgres: checkpointer", "postgres: startup", "postgres: archiver last was 000000010000000000000002"]
        {
            assert_eq!(segment_of(title), None);
        }
    }
}
