//! Names of the files that PostgreSQL archives and asks for: segments, `.partial`, `.history`, `.backup`.
//!
//! The names come from outside (`%f`, a path, a listing), so they are read strictly: upper-case hexadecimal
//! digits and PostgreSQL's four suffix forms, nothing else (`IsXLogFileName` and its relatives in `xlog_internal.h`).

use std::fmt;
use std::str::FromStr;

use super::{NameError, SegmentName, TimelineId};

/// A file that PostgreSQL's archiver hands over, or that recovery asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum WalFileName {
    /// A complete WAL segment: 24 hexadecimal digits.
    Segment(SegmentName),
    /// The last, incomplete segment of a timeline that a promotion ended: `<segment>.partial`.
    Partial(SegmentName),
    /// The ancestry of a timeline: `<timeline>.history`.
    History(TimelineId),
    /// The note that a base backup leaves in the archive: `<segment>.<offset>.backup`.
    Backup {
        /// The segment that the backup starts in.
        segment: SegmentName,
        /// Where in that segment it starts, in bytes.
        offset: u32,
    },
}

impl WalFileName {
    /// The timeline that the name carries.
    #[must_use]
    pub fn timeline(self) -> TimelineId {
        match self {
            WalFileName::Segment(name) | WalFileName::Partial(name) => name.timeline(),
            WalFileName::Backup { segment, .. } => segment.timeline(),
            WalFileName::History(timeline) => timeline,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFileName::Segment(name) => write!(f, "{name}"),
            WalFileName::Partial(name) => write!(f, "{name}.partial"),
            WalFileName::History(timeline) => write!(f, "{}.history", timeline.to_hex()),
            WalFileName::Backup { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
        }
    }
}

impl FromStr for WalFileName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::WalFile(text.to_owned());
        let name = match text.split_once('.') {
            None => WalFileName::Segment(text.parse().map_err(|_| wrong())?),
            Some((timeline, "history")) => WalFileName::History(TimelineId::from_hex(timeline).map_err(|_| wrong())?),
            Some((segment, "partial")) => WalFileName::Partial(segment.parse().map_err(|_| wrong())?),
            Some((segment, rest)) => {
                let offset = rest.strip_suffix(".backup").and_then(hex8).ok_or_else(wrong)?;
                WalFileName::Backup { segment: segment.parse().map_err(|_| wrong())?, offset }
            }
        };
        Ok(name)
    }
}

/// Exactly eight upper-case hexadecimal digits.
pub(super) fn hex8(text: &str) -> Option<u32> {
    let digits = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    if digits { u32::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every form PostgreSQL uses reads back as itself; the timeline is hexadecimal (0000000A is 10).
    #[test]
    fn round_trip() {
        for text in [
            "0000000A0000000A0000003F",
            "0000000A0000000A0000003F.partial",
            "0000000A.history",
            "0000000A0000000A0000003F.00000028.backup",
        ] {
            let name: WalFileName = text.parse().expect(text);
            assert_eq!(name.to_string(), text);
            assert_eq!(name.timeline(), TimelineId(10));
        }
    }

    /// `%f` is hostile until read: paths, case, length and made-up suffixes are all refused.
    #[test]
    fn refused() {
        for text in [
            "",
            ".",
            "..",
            "../00000001000000000000000A",
            "00000001000000000000000a",
            "0000000100000000000000",
            "00000001000000000000000A.partial.x",
            "00000001.histor",
            "00000000.history",
            "1.history",
            "00000001000000000000000A.backup",
            "00000001000000000000000A.28.backup",
            "000000010000000000001000",
            "00000001000000000000000A\0",
            "00000001000000000000000A ",
            "+0000001000000000000000A",
            "é0000001000000000000000",
        ] {
            assert!(text.parse::<WalFileName>().is_err(), "{text:?}");
        }
    }
}
