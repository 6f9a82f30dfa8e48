//! PostgreSQL's time: microseconds since 2000-01-01 00:00:00 UTC (`TimestampTz` in `timestamp.h`).

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds from the Unix epoch to PostgreSQL's.
const EPOCH_OFFSET_US: i64 = 946_684_800_000_000;

/// A moment as WAL records carry it. Whole microseconds: what PostgreSQL compares is what we compare.
///
/// `Display` and JSON are RFC 3339 in UTC with six digits, `2026-11-21T10:45:00.000001Z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PgTime(pub i64);

impl PgTime {
    /// The same moment as a `jiff` timestamp; moments outside its range (year 9999) are clamped to it.
    #[must_use]
    pub fn to_timestamp(self) -> Timestamp {
        let unix = self.0.saturating_add(EPOCH_OFFSET_US);
        Timestamp::from_microsecond(unix).unwrap_or(if unix < 0 { Timestamp::MIN } else { Timestamp::MAX })
    }

    /// The moment of a `jiff` timestamp; digits beyond the microsecond are cut off.
    #[must_use]
    pub fn from_timestamp(timestamp: Timestamp) -> Self {
        PgTime(timestamp.as_microsecond() - EPOCH_OFFSET_US)
    }

    /// The moment `seconds` after the Unix epoch (`pg_time_t`, as checkpoints and `pg_control` carry it).
    #[must_use]
    pub fn from_unix_seconds(seconds: i64) -> Self {
        PgTime(seconds.saturating_mul(1_000_000).saturating_sub(EPOCH_OFFSET_US))
    }
}

impl fmt::Display for PgTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}", self.to_timestamp())
    }
}

impl Serialize for PgTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PgTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse::<Timestamp>().map(PgTime::from_timestamp).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A commit time survives being shown and read again to the microsecond.
    #[test]
    fn microseconds_survive() {
        let time = PgTime(812_345_678_901_234);
        let text = time.to_string();
        assert!(text.ends_with('Z') && text.contains(".901234"), "{text}");
        assert_eq!(text.parse::<Timestamp>().map(PgTime::from_timestamp).ok(), Some(time));
        assert_eq!(PgTime(0).to_string(), "2000-01-01T00:00:00.000000Z");
    }
}
