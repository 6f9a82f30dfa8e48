//! WAL segments: their size, number and name.
//!
//! `%08X%08X%08X` of timeline, number / per-id and number % per-id, where per-id is 4 GiB / segment size
//! (`XLogFileName` in `xlog_internal.h`). A name can be read without knowing the size, a number cannot: the size
//! belongs to the cluster.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::file_name::hex8;
use super::{Lsn, NameError, TimelineId};

/// `wal_segment_size` in bytes: a power of two from 1 MiB to 1 GiB.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct SegmentSize(u32);

impl SegmentSize {
    /// 16 MiB, `initdb`'s default.
    pub const DEFAULT: SegmentSize = SegmentSize(16 << 20);

    /// Bytes in a segment.
    #[must_use]
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// Segments in 4 GiB of WAL: where the last third of a name wraps.
    #[must_use]
    pub fn per_id(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

impl TryFrom<u32> for SegmentSize {
    type Error = NameError;

    fn try_from(bytes: u32) -> Result<Self, NameError> {
        if bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            Ok(SegmentSize(bytes))
        } else {
            Err(NameError::SegmentSize(bytes))
        }
    }
}

impl From<SegmentSize> for u32 {
    fn from(size: SegmentSize) -> u32 {
        size.0
    }
}

/// A segment's place in the WAL stream: LSN / segment size (`XLogSegNo`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentNo(pub u64);

impl SegmentNo {
    /// The segment that holds the byte at `lsn`.
    #[must_use]
    pub fn of(lsn: Lsn, size: SegmentSize) -> Self {
        SegmentNo(lsn.0 / size.bytes())
    }

    /// The segment that holds the last byte before `lsn`: the last one needed to reach an end LSN
    /// (`XLByteToPrevSeg`).
    #[must_use]
    pub fn before(lsn: Lsn, size: SegmentSize) -> Self {
        SegmentNo(lsn.0.saturating_sub(1) / size.bytes())
    }

    /// The segment's first byte.
    #[must_use]
    pub fn start(self, size: SegmentSize) -> Lsn {
        Lsn(self.0 * size.bytes())
    }

    /// The byte after the segment's last.
    #[must_use]
    pub fn end(self, size: SegmentSize) -> Lsn {
        Lsn((self.0 + 1) * size.bytes())
    }

    /// The segment after this one.
    #[must_use]
    pub fn next(self) -> Self {
        SegmentNo(self.0 + 1)
    }
}

/// The name of a WAL segment file: 24 upper-case hexadecimal digits. Sorts in WAL order within a timeline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: TimelineId,
    high: u32,
    low: u32,
}

impl SegmentName {
    /// The name of segment `number` on `timeline`.
    #[must_use]
    pub fn new(timeline: TimelineId, number: SegmentNo, size: SegmentSize) -> Self {
        let per_id = size.per_id();
        // Both parts fit 32 bits for every LSN of 64 bits; the cast cuts nothing off.
        #[allow(clippy::cast_possible_truncation)]
        SegmentName { timeline, high: (number.0 / per_id) as u32, low: (number.0 % per_id) as u32 }
    }

    /// The timeline the name carries.
    #[must_use]
    pub fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// The same place in the WAL on another timeline.
    #[must_use]
    pub fn on(self, timeline: TimelineId) -> Self {
        SegmentName { timeline, ..self }
    }

    /// The segment's number in a cluster of this segment size.
    ///
    /// # Errors
    /// The last eight digits are too large for the size: the name belongs to a cluster with smaller segments.
    pub fn number(self, size: SegmentSize) -> Result<SegmentNo, NameError> {
        if u64::from(self.low) < size.per_id() {
            Ok(SegmentNo(u64::from(self.high) * size.per_id() + u64::from(self.low)))
        } else {
            Err(NameError::SegmentSizeMismatch { name: self, size })
        }
    }

    /// High and low part of the name as one number: what stays of it when the timeline is kept apart.
    #[must_use]
    pub fn place(self) -> u64 {
        u64::from(self.high) << 32 | u64::from(self.low)
    }

    /// The name with that [`SegmentName::place`], if there can be one.
    #[must_use]
    pub fn at_place(timeline: TimelineId, place: u64) -> Option<Self> {
        #[allow(clippy::cast_possible_truncation)] // The two halves of 64 bits.
        let (high, low) = ((place >> 32) as u32, place as u32);
        // 1 MiB is the smallest segment: 4096 of them make 4 GiB.
        (timeline.0 > 0 && low < 4096).then_some(SegmentName { timeline, high, low })
    }

    /// The segment's group in the repository.
    #[must_use]
    pub fn group(self) -> SegmentGroup {
        SegmentGroup { timeline: self.timeline, place: self.place() >> 8 }
    }
}

/// The segments of a timeline whose names agree but for the last two digits: at most 256, and no segment size has to be known
/// to find them. Shown as the fourteen digits of the name before those, without the timeline.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentGroup {
    timeline: TimelineId,
    /// [`SegmentName::place`] without its last eight bits.
    place: u64,
}

impl SegmentGroup {
    /// Reads the fourteen digits.
    #[must_use]
    pub fn parse(timeline: TimelineId, text: &str) -> Option<Self> {
        if text.len() != 14 || !text.is_ascii() {
            return None;
        }
        let (high, low) = (hex8(&text[..8])?, hex8(&format!("00{}", &text[8..]))?);
        let group = SegmentGroup { timeline, place: u64::from(high) << 24 | u64::from(low) };
        group.segment(0).map(|_| group)
    }

    /// Its timeline.
    #[must_use]
    pub fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// The fourteen digits as a number.
    #[must_use]
    pub fn place(self) -> u64 {
        self.place
    }

    /// The segment whose name ends with `last`, if there can be one.
    #[must_use]
    pub fn segment(self, last: u8) -> Option<SegmentName> {
        SegmentName::at_place(self.timeline, self.place << 8 | u64::from(last))
    }

    /// How many segments it has in a cluster of this segment size.
    #[must_use]
    pub fn capacity(self, size: SegmentSize) -> u64 {
        size.per_id().min(256)
    }
}

impl fmt::Display for SegmentGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:06X}", self.place >> 24, self.place & 0xFF_FFFF)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.0, self.high, self.low)
    }
}

impl fmt::Debug for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SegmentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::Segment(text.to_owned());
        if text.len() != 24 || !text.is_ascii() {
            return Err(wrong());
        }
        let part = |at: usize| hex8(&text[at..at + 8]).ok_or_else(wrong);
        let (timeline, high, low) = (part(0)?, part(8)?, part(16)?);
        let place = u64::from(high) << 32 | u64::from(low);
        SegmentName::at_place(TimelineId(timeline), place).ok_or_else(wrong)
    }
}

impl Serialize for SegmentName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SegmentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(mib: u32) -> SegmentSize {
        SegmentSize::try_from(mib << 20).expect("a power of two in range")
    }

    /// Names wrap at 4 GiB / size, whatever the size: a hard-coded 256 would serve the wrong WAL.
    #[test]
    fn names_wrap_by_size() {
        for (mib, last) in [(1, "FFF"), (16, "0FF"), (64, "03F"), (1024, "003")] {
            let per_id = size(mib).per_id();
            let name = SegmentName::new(TimelineId(10), SegmentNo(per_id - 1), size(mib));
            assert_eq!(name.to_string(), format!("0000000A0000000000000{last}"));
            let next = SegmentName::new(TimelineId(10), SegmentNo(per_id), size(mib));
            assert_eq!(next.to_string(), "0000000A0000000100000000");
            assert_eq!(next.number(size(mib)), Ok(SegmentNo(per_id)));
        }
    }

    /// A name that a cluster of this segment size cannot have is refused instead of read as another segment.
    #[test]
    fn names_of_other_sizes() {
        let name: SegmentName = "000000010000000000000100".parse().expect("valid for 1 MiB segments");
        assert!(name.number(size(16)).is_err());
        assert_eq!(name.number(size(1)), Ok(SegmentNo(0x100)));
        assert_eq!(name.group().to_string(), "00000000000001");
        assert_eq!(SegmentGroup::parse(name.timeline(), "00000000000001"), Some(name.group()));
        assert_eq!(name.group().segment(0), Some(name));
    }

    /// An end LSN on a border needs the segment before it, not the one that it begins.
    #[test]
    fn border() {
        assert_eq!(SegmentNo::of(Lsn(16 << 20), size(16)), SegmentNo(1));
        assert_eq!(SegmentNo::before(Lsn(16 << 20), size(16)), SegmentNo(0));
    }
}
