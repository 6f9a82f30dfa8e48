//! Identities that ride through every layer: timeline, transaction, system identifier, server version.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::NameError;

/// One line of WAL history (`TimeLineID` in `xlogdefs.h`); 1 for a new cluster, never 0.
///
/// File names carry it as eight hexadecimal digits ([`TimelineId::to_hex`]); people and settings such as
/// `recovery_target_timeline` write it in decimal (`Display`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(pub u32);

impl TimelineId {
    /// The timeline of a cluster that has never been recovered to a point in time nor promoted.
    pub const FIRST: TimelineId = TimelineId(1);

    /// The eight upper-case hexadecimal digits that file names use: 10 is `0000000A`.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{:08X}", self.0)
    }

    /// Reads the eight hexadecimal digits of a file name.
    ///
    /// # Errors
    /// Anything but eight upper-case hexadecimal digits, and timeline 0.
    pub fn from_hex(text: &str) -> Result<Self, NameError> {
        match super::file_name::hex8(text) {
            Some(number) if number > 0 => Ok(TimelineId(number)),
            _ => Err(NameError::Timeline(text.to_owned())),
        }
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A transaction id as WAL records carry it (32 bits, wraps).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Xid(pub u32);

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The number that `initdb` gives a cluster (`system_identifier` in `pg_control`), shared by its standbys and clones.
///
/// JSON and settings carry it as a decimal string: it does not fit the 53 bits that many JSON readers keep.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SystemIdentifier(pub u64);

impl fmt::Display for SystemIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for SystemIdentifier {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(number) if digits && number > 0 => Ok(SystemIdentifier(number)),
            _ => Err(NameError::SystemIdentifier(text.to_owned())),
        }
    }
}

impl Serialize for SystemIdentifier {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SystemIdentifier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// PostgreSQL's major version, 13 to 18: the versions whose WAL this program can read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PostgresMajor(pub u16);

/// Major versions and their `XLOG_PAGE_MAGIC`.
const PAGE_MAGICS: [(u16, u16); 6] =
    [(13, 0xD106), (14, 0xD10D), (15, 0xD110), (16, 0xD113), (17, 0xD116), (18, 0xD118)];

impl PostgresMajor {
    /// The version that writes WAL pages with this `XLOG_PAGE_MAGIC` (`xlog_internal.h` of each version), if known.
    #[must_use]
    pub fn from_page_magic(magic: u16) -> Option<Self> {
        let (major, _) = PAGE_MAGICS.iter().find(|(_, known)| *known == magic)?;
        Some(PostgresMajor(*major))
    }

    /// The `XLOG_PAGE_MAGIC` of this version; 0, which no version has, for one that is not known.
    #[must_use]
    pub(super) fn page_magic(self) -> u16 {
        PAGE_MAGICS.iter().find(|(major, _)| *major == self.0).map_or(0, |(_, magic)| *magic)
    }
}

impl fmt::Display for PostgresMajor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
