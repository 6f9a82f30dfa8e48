//! Notes of a base backup: what people and the retention rules said about it after it was complete.
//!
//! Each note is an object of its own that is never changed, `backups/<id>/notes/<time>-<writer>.json`. Of each kind the newest
//! counts. A writer gives its note a time after all notes that it has seen, so that a clock that was set back does not turn
//! an answer into its question.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::wal::PgTime;

/// The version of a note's JSON that this program writes and reads.
pub const NOTE_FORMAT: u32 = 1;

/// How a note's time is written in its name.
const TIME: &str = "%Y%m%dT%H%M%S";

/// The name of an object that is one of many, told apart by time and writer: `20261121T104500.000001Z-1a2b3c4d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stamp {
    /// When it was written, by its writer's clock.
    pub at: PgTime,
    /// Drawn by its writer.
    pub writer: u32,
}

/// A text that is no such name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{0}\" is not a time and a writer such as 20261121T104500.000001Z-1a2b3c4d")]
pub struct StampError(String);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.at.to_timestamp();
        let micros = time.as_microsecond().rem_euclid(1_000_000);
        write!(f, "{}.{micros:06}Z-{:08x}", time.strftime(TIME), self.writer)
    }
}

impl FromStr for Stamp {
    type Err = StampError;

    fn from_str(text: &str) -> Result<Self, StampError> {
        let parsed = || {
            let (time, writer) = text.split_once('-')?;
            let (time, micros) = time.strip_suffix('Z')?.split_once('.')?;
            let time = DateTime::strptime(TIME, time).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
            let micros: i64 = micros.parse().ok().filter(|micros| (0..1_000_000).contains(micros))?;
            let at = PgTime(PgTime::from_timestamp(time).0 + micros);
            Some(Stamp { at, writer: u32::from_str_radix(writer, 16).ok()? })
        };
        // Only the form that is written is read.
        parsed().filter(|stamp| stamp.to_string() == text).ok_or_else(|| StampError(text.to_owned()))
    }
}

/// One note as it is stored.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Note {
    /// [`NOTE_FORMAT`].
    pub format: u32,
    /// When it was written.
    pub at: PgTime,
    /// The host of whoever wrote it.
    pub host: String,
    /// What it says.
    #[serde(flatten)]
    pub says: Saying,
}

/// What a note says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Saying {
    /// Words for people.
    Annotation {
        /// By key; an empty value takes the key away.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        values: BTreeMap<String, String>,
        /// A text; an empty one takes it away.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        text: Option<String>,
    },
    /// Neither rules nor people may remove the backup.
    Kept {
        /// As long as this; `None`: until it is released.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<PgTime>,
    },
    /// That is over.
    Released,
    /// The backup is not used any more, and goes when its time is over.
    Forgotten {
        /// Why, in words.
        why: String,
    },
    /// It is used again.
    Remembered,
    /// Its removal has begun: [`Saying::Remembered`] comes too late.
    Removing,
}

/// All notes of a backup taken together.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct BackupNotes {
    /// Words for people, by key.
    pub annotations: BTreeMap<String, String>,
    /// A text for people.
    pub text: Option<String>,
    /// It is kept.
    pub kept: Option<Keep>,
    /// It is not used any more.
    pub forgotten: Option<Forgotten>,
    /// The newest note, which the next one has to follow.
    #[serde(skip)]
    pub newest: Option<PgTime>,
}

/// That a backup is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Keep {
    /// As long as this; `None`: until it is released.
    pub until: Option<PgTime>,
    /// Since when.
    pub since: PgTime,
    /// The host on which that was said.
    pub host: String,
}

/// That a backup is not used any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Forgotten {
    /// Since when.
    pub since: PgTime,
    /// The host on which that was said.
    pub host: String,
    /// Why, in words.
    pub why: String,
    /// When its removal began, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removing: Option<PgTime>,
}

impl BackupNotes {
    /// Takes notes together, in whatever order they come.
    #[must_use]
    pub fn of(notes: impl IntoIterator<Item = (Stamp, Note)>) -> BackupNotes {
        let mut notes: Vec<_> = notes.into_iter().collect();
        notes.sort_by_key(|(stamp, _)| *stamp);
        let mut all = BackupNotes::default();
        let mut removing = None;
        for (stamp, note) in notes {
            let Note { host, says, .. } = note;
            let since = stamp.at;
            all.newest = Some(since);
            match says {
                Saying::Annotation { values, text } => {
                    all.annotations.extend(values);
                    all.annotations.retain(|_, value| !value.is_empty());
                    if let Some(text) = text {
                        all.text = Some(text).filter(|text| !text.is_empty());
                    }
                }
                Saying::Kept { until } => all.kept = Some(Keep { until, since, host }),
                Saying::Released => all.kept = None,
                // Said twice, it holds since the first time.
                Saying::Forgotten { why } => {
                    all.forgotten.get_or_insert(Forgotten { since, host, why, removing: None });
                }
                Saying::Remembered => all.forgotten = None,
                Saying::Removing => removing = Some(since),
            }
        }
        if let Some(forgotten) = &mut all.forgotten {
            forgotten.removing = removing.filter(|at| *at >= forgotten.since);
        }
        all
    }

    /// Whether it is kept at this moment.
    #[must_use]
    pub fn is_kept(&self, now: PgTime) -> bool {
        self.kept.as_ref().is_some_and(|keep| keep.until.is_none_or(|until| until > now))
    }

    /// A time for the next note: now, but after all that are there.
    #[must_use]
    pub fn next_time(&self, now: PgTime) -> PgTime {
        self.newest.map_or(now, |newest| now.max(PgTime(newest.0.saturating_add(1))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(at: i64, says: Saying) -> (Stamp, Note) {
        let at = PgTime(at);
        (Stamp { at, writer: 7 }, Note { format: NOTE_FORMAT, at, host: "db1".to_owned(), says })
    }

    fn forgotten(why: &str) -> Saying {
        Saying::Forgotten { why: why.to_owned() }
    }

    /// A name reads back as itself, and sorts by time.
    #[test]
    fn stamps() {
        let stamp = Stamp { at: PgTime(845_203_500_000_001), writer: 0x1a };
        assert_eq!(stamp.to_string(), "20261013T104500.000001Z-0000001a");
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        for wrong in ["", "20261013T104500.00001Z-0000001a", "20261013T104500.000001Z-1a", "x-0000001a", "-"] {
            assert!(wrong.parse::<Stamp>().is_err(), "{wrong}");
        }
    }

    /// The newest note of each kind counts, whatever order a listing has; annotations count by key.
    #[test]
    fn the_newest_counts() {
        let values = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let says = |pairs: &[(&str, &str)]| Saying::Annotation { values: values(pairs), text: None };
        let mut notes = vec![
            note(1, says(&[("a", "1"), ("b", "2")])),
            note(2, Saying::Kept { until: Some(PgTime(50)) }),
            note(3, forgotten("first")),
            note(4, says(&[("a", ""), ("c", "3")])),
            note(5, forgotten("second")),
        ];
        notes.reverse();
        let all = BackupNotes::of(notes.clone());
        assert_eq!(all.annotations, values(&[("b", "2"), ("c", "3")]));
        assert!(all.is_kept(PgTime(49)) && !all.is_kept(PgTime(50)));
        let since = all.forgotten.as_ref().map(|it| (it.since, it.why.as_str(), it.removing));
        assert_eq!(since, Some((PgTime(3), "first", None)));
        assert_eq!((all.next_time(PgTime(2)), all.next_time(PgTime(9))), (PgTime(6), PgTime(9)));
        notes.extend([note(6, Saying::Remembered), note(7, Saying::Released)]);
        let all = BackupNotes::of(notes.clone());
        assert_eq!((all.forgotten, all.kept), (None, None));
        // A removal that was begun and given up says nothing about a later one.
        notes.push(note(8, Saying::Removing));
        assert_eq!(BackupNotes::of(notes.clone()).forgotten, None);
        notes.push(note(9, forgotten("again")));
        assert!(BackupNotes::of(notes).forgotten.is_some_and(|it| it.removing.is_none() && it.since == PgTime(9)));
    }

    /// The JSON of docs/FORMAT.md.
    #[test]
    fn json() {
        let (_, said) = note(0, Saying::Kept { until: None });
        let text = serde_json::to_string(&said).expect("json");
        assert_eq!(text, r#"{"format":1,"at":"2000-01-01T00:00:00.000000Z","host":"db1","kind":"kept"}"#);
        assert_eq!(serde_json::from_str::<Note>(&text).expect("reads back"), said);
    }
}
