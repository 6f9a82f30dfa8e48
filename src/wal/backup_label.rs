//! `backup_label` and the `.backup` file in the archive: where a base backup begins and ends.
//!
//! Lines of `NAME: value` as `build_backup_content` in `xlogbackup.c` writes them. The file in the archive has the
//! `STOP` lines too, and none about an incremental backup.

use serde::{Deserialize, Serialize};

use super::{Lsn, SegmentName, TimelineId};

/// What a `backup_label` or a `.backup` file says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupLabel {
    /// Where replay of the backup begins: the redo point of its checkpoint.
    pub start: Lsn,
    /// The segment of that place.
    pub start_segment: SegmentName,
    /// Where the backup's checkpoint record is.
    pub checkpoint: Lsn,
    /// The timeline it was begun on.
    pub start_timeline: TimelineId,
    /// The server it was taken from.
    pub from: BackupSource,
    /// When it began, as the server wrote it: local time and the zone's abbreviation, which not everywhere names one
    /// zone only. For people.
    pub start_time: String,
    /// What the user called it.
    pub label: String,
    /// How it ended; only in a `.backup` file.
    pub stop: Option<BackupStop>,
    /// The backup that an incremental one builds on (17 and later); only in `backup_label`.
    pub incremental_from: Option<(Lsn, TimelineId)>,
}

/// The server a backup was taken from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupSource {
    /// One that takes writes (`primary`; 13 writes `master`).
    Primary,
    /// One in recovery.
    Standby,
}

/// The end of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BackupStop {
    /// Replay is consistent from here on.
    pub lsn: Lsn,
    /// The last segment that the backup needs.
    pub segment: SegmentName,
    /// The timeline it ended on.
    pub timeline: TimelineId,
    /// When, as the server wrote it.
    pub time: String,
}

/// Why a text is no backup label.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BackupLabelError {
    /// A line is missing.
    #[error("the backup label has no line \"{line}:\"")]
    Missing {
        /// The line's name.
        line: &'static str,
    },
    /// A line with a value of another form.
    #[error("the backup label's line \"{line}:\" says \"{found}\"")]
    Value {
        /// The line's name.
        line: &'static str,
        /// Its value, cut to 100 characters.
        found: String,
    },
}

impl BackupLabel {
    /// Reads the file. Bytes that are not UTF-8 can only stand in the label, and are replaced.
    ///
    /// # Errors
    /// [`BackupLabelError`]
    pub fn parse(text: &[u8]) -> Result<Self, BackupLabelError> {
        let text = String::from_utf8_lossy(text);
        let lines = Lines(&text);
        let (start, start_segment) = lines.location("START WAL LOCATION")?;
        let stop = match lines.find("STOP WAL LOCATION") {
            None => None,
            Some(_) => {
                let (lsn, segment) = lines.location("STOP WAL LOCATION")?;
                let timeline = lines.timeline("STOP TIMELINE")?;
                Some(BackupStop { lsn, segment, timeline, time: lines.get("STOP TIME")?.to_owned() })
            }
        };
        let incremental_from = match lines.find("INCREMENTAL FROM LSN") {
            None => None,
            Some(_) => {
                Some((lines.parsed("INCREMENTAL FROM LSN", str::parse)?, lines.timeline("INCREMENTAL FROM TLI")?))
            }
        };
        Ok(BackupLabel {
            start,
            start_segment,
            checkpoint: lines.parsed("CHECKPOINT LOCATION", str::parse)?,
            start_timeline: lines.timeline("START TIMELINE")?,
            from: lines.parsed("BACKUP FROM", |from| match from {
                "primary" | "master" => Ok(BackupSource::Primary),
                "standby" => Ok(BackupSource::Standby),
                _ => Err(()),
            })?,
            start_time: lines.get("START TIME")?.to_owned(),
            label: lines.get("LABEL")?.to_owned(),
            stop,
            incremental_from,
        })
    }
}

struct Lines<'a>(&'a str);

impl<'a> Lines<'a> {
    fn find(&self, line: &str) -> Option<&'a str> {
        self.0.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(": "))
    }

    fn get(&self, line: &'static str) -> Result<&'a str, BackupLabelError> {
        self.find(line).ok_or(BackupLabelError::Missing { line })
    }

    fn parsed<T, E>(
        &self,
        line: &'static str,
        parse: impl FnOnce(&'a str) -> Result<T, E>,
    ) -> Result<T, BackupLabelError> {
        let found = self.get(line)?;
        parse(found).map_err(|_| BackupLabelError::Value { line, found: found.chars().take(100).collect() })
    }

    /// `0/2000028 (file 000000010000000000000002)`
    fn location(&self, line: &'static str) -> Result<(Lsn, SegmentName), BackupLabelError> {
        self.parsed(line, |found| {
            let (lsn, file) = found.split_once(" (file ").ok_or(())?;
            let segment = file.strip_suffix(')').ok_or(())?;
            Ok::<_, ()>((lsn.parse().map_err(|_| ())?, segment.parse().map_err(|_| ())?))
        })
    }

    fn timeline(&self, line: &'static str) -> Result<TimelineId, BackupLabelError> {
        self.parsed(line, |found| match found.parse() {
            Ok(number) if number > 0 => Ok(TimelineId(number)),
            _ => Err(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HISTORY: &str = "START WAL LOCATION: 16/2000028 (file 000000010000001600000002)
STOP WAL LOCATION: 16/3000050 (file 000000010000001600000003)
CHECKPOINT LOCATION: 16/2000060
BACKUP METHOD: streamed
BACKUP FROM: master
START TIME: 2026-11-21 10:45:00 CET
LABEL: nightly: db 1
START TIMELINE: 1
STOP TIME: 2026-11-21 10:46:00 CET
STOP TIMELINE: 1
";

    /// A `.backup` file of 13 is read whole; its label may hold what separates names from values elsewhere.
    #[test]
    fn backup_history_file() {
        let found = BackupLabel::parse(HISTORY.as_bytes()).expect("a good file");
        assert_eq!(found.start, Lsn(0x16_0200_0028));
        assert_eq!(found.start_segment.to_string(), "000000010000001600000002");
        assert_eq!(found.checkpoint, Lsn(0x16_0200_0060));
        assert_eq!((found.from, found.start_timeline), (BackupSource::Primary, TimelineId(1)));
        assert_eq!((found.label.as_str(), found.start_time.as_str()), ("nightly: db 1", "2026-11-21 10:45:00 CET"));
        let stop = found.stop.expect("it has ended");
        assert_eq!((stop.lsn, stop.timeline), (Lsn(0x16_0300_0050), TimelineId(1)));
        assert_eq!(found.incremental_from, None);
    }

    /// The label of a running incremental backup of a standby: no stop, but a parent.
    #[test]
    fn label_of_an_incremental_backup() {
        let running: String =
            HISTORY.lines().filter(|line| !line.starts_with("STOP")).map(|l| format!("{l}\n")).collect();
        let text = running.replace("master", "standby") + "INCREMENTAL FROM LSN: 16/1000028\nINCREMENTAL FROM TLI: 1\n";
        let found = BackupLabel::parse(text.as_bytes()).expect("a good file");
        assert_eq!((found.from, found.stop), (BackupSource::Standby, None));
        assert_eq!(found.incremental_from, Some((Lsn(0x16_0100_0028), TimelineId(1))));
    }

    /// A label that lacks a line or has another value is refused with the line's name.
    #[test]
    fn refused() {
        for line in ["START WAL LOCATION", "CHECKPOINT LOCATION", "BACKUP FROM", "START TIMELINE", "STOP TIMELINE"] {
            let without: String =
                HISTORY.lines().filter(|text| !text.starts_with(line)).map(|text| format!("{text}\n")).collect();
            assert_eq!(BackupLabel::parse(without.as_bytes()), Err(BackupLabelError::Missing { line }));
            let value = Lines(HISTORY).find(line).expect("the line is there");
            let other = HISTORY.replace(&format!("{line}: {value}"), &format!("{line}: x"));
            let error = BackupLabel::parse(other.as_bytes());
            assert_eq!(error, Err(BackupLabelError::Value { line, found: "x".to_owned() }));
        }
    }
}
