//! Roll-ups: what the descriptions of a group's segments say, in one object.
//!
//! ```text
//! | entries: LZ4 frame | notes: LZ4 frame of JSON | footer: skippable frame, 72 bytes |
//! ```
//!
//! Derived from the stored segments alone, so a roll-up can be lost and made anew. It says what a segment is, never that it
//! is there: only a listing does that. Its name carries a hash of all its bytes, so that one which is not what its writer
//! wrote is never believed. The byte table is in `docs/FORMAT.md`.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::codec::fields::{FACTS_BYTES, Reader, Writer, ending_number};
use crate::codec::{Compression, DamageNote, Origin, skippable, unpack_frame};
use crate::wal::{Event, PgTime, SegmentFacts, SegmentGroup, SegmentName, SystemIdentifier, TimelineId};

/// Bytes of the footer's payload.
const FOOTER_BYTES: usize = 64;
const FOOTER_FRAME_BYTES: usize = FOOTER_BYTES + skippable::HEADER_BYTES;
const MAGIC: &[u8; 8] = b"PITRROLL";
const VERSION: u16 = 1;
/// Bytes of an entry.
const ENTRY_BYTES: usize = 32 + FACTS_BYTES;
/// Most segments in a group.
pub const GROUP_SEGMENTS: usize = 256;
/// Most bytes of a roll-up's notes, unpacked: each segment has at most some hundred events.
const NOTES_LIMIT_BYTES: usize = 256 << 20;
/// Largest roll-up that is read.
pub const ROLL_UP_LIMIT_BYTES: u64 = 64 << 20;

/// The name of a roll-up: its group, how many entries it has, and the first 64 bits of its bytes' BLAKE3. Of two roll-ups of
/// one group the fuller one is the greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RollUpName {
    /// The group.
    pub group: SegmentGroup,
    /// Number of entries.
    pub count: u16,
    /// Of all its bytes.
    pub hash: u64,
}

/// A text that is no roll-up's name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{0}\" is not the name of a roll-up")]
pub struct RollUpNameError(String);

impl fmt::Display for RollUpName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}.{:016x}", self.group, self.count, self.hash)
    }
}

impl RollUpName {
    /// Reads the name of a roll-up of this timeline.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str, timeline: TimelineId) -> Result<Self, RollUpNameError> {
        let read = || {
            let mut parts = text.split('.');
            let (group, count, hash) = (parts.next()?, parts.next()?, parts.next()?);
            let group = SegmentGroup::parse(timeline, group)?;
            let count = u16::from_str(count).ok()?;
            let name = RollUpName { group, count, hash: u64::from_str_radix(hash, 16).ok()? };
            (parts.next().is_none() && name.to_string() == text).then_some(name)
        };
        read().ok_or_else(|| RollUpNameError(text.to_owned()))
    }
}

/// What is known of the record that begins in an earlier segment and ends in this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Straddling {
    /// There is none.
    None,
    /// It is proved, and counted in this segment's facts.
    Proved,
    /// The segment before was not there, or not good: the record is neither proved nor counted.
    Open,
    /// The pieces do not make a record: replay ends here.
    Damaged,
}

/// What is known of one segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RollUpEntry {
    /// The segment.
    pub segment: SegmentName,
    /// What its records say, with the record over the border before it if that is proved.
    pub facts: SegmentFacts,
    /// The record over the border before it.
    pub border: Straddling,
    /// The object's description does not have the facts: they come from the body.
    pub scanned: bool,
    /// Bytes of the object.
    pub stored_bytes: u64,
    /// CRC-32 (IEEE) of the raw bytes.
    pub raw_crc: u32,
    /// When it was archived.
    pub archived_at: PgTime,
    /// Index into [`RollUpNotes::origins`].
    pub origin: u16,
}

/// What has no fixed size.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RollUpNotes {
    /// Who stored the segments.
    pub origins: Vec<Origin>,
    /// Segments in which something remarkable happened, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentNotes>,
}

/// What happened in one segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SegmentNotes {
    /// The segment.
    pub segment: SegmentName,
    /// As in the segment's details, with the record over the border before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// There are more such events; the segment itself has all of them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub events_cut: bool,
    /// Where its records, or the one over the border before it, stop making sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<DamageNote>,
}

/// Why bytes are not the roll-up that their name promises.
#[derive(Debug, thiserror::Error)]
pub enum RollUpError {
    /// Not the bytes that the name was made from.
    #[error("its bytes do not have the hash that its name carries")]
    Hash,
    /// Written by a newer version.
    #[error("its format version is {0}, and this pitr reads {VERSION}")]
    Version(u16),
    /// It belongs to another cluster or group, or has another number of entries.
    #[error("it is not the roll-up that its name says")]
    Identity,
    /// The hash is right and the content is not.
    #[error("its content makes no sense: {0}")]
    Content(&'static str),
    /// A frame cannot be unpacked.
    #[error("its content cannot be read: {0}")]
    Frame(#[from] io::Error),
}

/// A roll-up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RollUp {
    /// Of which cluster.
    pub system_identifier: SystemIdentifier,
    /// Of which group.
    pub group: SegmentGroup,
    /// Its segments, ascending.
    pub entries: Vec<RollUpEntry>,
    /// The frame of the notes, which few readers unpack.
    notes: Vec<u8>,
}

impl RollUp {
    /// Puts a roll-up together. All entries are segments of the group, ascending.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub fn new(
        system_identifier: SystemIdentifier,
        group: SegmentGroup,
        entries: Vec<RollUpEntry>,
        notes: &RollUpNotes,
    ) -> io::Result<RollUp> {
        let mut frame = Vec::new();
        Compression::Lz4.write_frame(&serde_json::to_vec(notes)?, &mut frame)?;
        Ok(RollUp { system_identifier, group, entries, notes: frame })
    }

    /// The entry of a segment.
    #[must_use]
    pub fn entry(&self, segment: SegmentName) -> Option<&RollUpEntry> {
        // Without gaps before it, it lies as far from the first entry as its place says.
        let steps = segment.place().checked_sub(self.entries.first()?.segment.place())?;
        let entry = usize::try_from(steps).ok().and_then(|steps| self.entries.get(steps));
        entry.filter(|entry| entry.segment == segment).or_else(|| {
            let at = self.entries.binary_search_by_key(&segment, |entry| entry.segment).ok()?;
            self.entries.get(at)
        })
    }

    /// What has no fixed size.
    ///
    /// # Errors
    /// [`RollUpError::Frame`].
    pub fn notes(&self) -> Result<RollUpNotes, RollUpError> {
        let json = unpack_frame_of(&self.notes, NOTES_LIMIT_BYTES)?;
        Ok(serde_json::from_slice(&json).map_err(io::Error::from)?)
    }

    /// The object, and the name that goes with it.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub fn encode(&self) -> io::Result<(RollUpName, Vec<u8>)> {
        let mut entries = Writer(Vec::with_capacity(self.entries.len() * ENTRY_BYTES));
        self.entries.iter().for_each(|entry| write_entry(entry, &mut entries));
        let mut out = Vec::new();
        Compression::Lz4.write_frame(&entries.0, &mut out)?;
        let entries_length = out.len();
        out.extend_from_slice(&self.notes);
        let mut footer = Writer::default();
        footer.bytes(MAGIC);
        footer.u16(VERSION);
        // A group has at most 256 segments.
        footer.u16(self.entries.len() as u16);
        footer.u32(self.group.timeline().0);
        footer.u64(self.group.place());
        footer.u64(self.system_identifier.0);
        footer.u64(entries_length as u64);
        footer.u64(self.notes.len() as u64);
        skippable::write(skippable::FOOTER, &footer.seal(FOOTER_BYTES), &mut out)?;
        let name = RollUpName { group: self.group, count: self.entries.len() as u16, hash: hash(&out) };
        Ok((name, out))
    }

    /// Reads the object of this name.
    ///
    /// # Errors
    /// The first of the [`RollUpError`]s that applies.
    pub fn decode(bytes: &[u8], name: RollUpName, cluster: SystemIdentifier) -> Result<RollUp, RollUpError> {
        if hash(bytes) != name.hash {
            return Err(RollUpError::Hash);
        }
        let not_there = RollUpError::Content("its footer is missing");
        let Some((body, frame)) = bytes.split_last_chunk::<FOOTER_FRAME_BYTES>() else { return Err(not_there) };
        let Some(payload) = skippable::payload(skippable::FOOTER, frame) else { return Err(not_there) };
        let mut footer = Reader(payload);
        if &footer.take::<8>() != MAGIC {
            return Err(not_there);
        }
        match footer.u16() {
            VERSION => {}
            version => return Err(RollUpError::Version(version)),
        }
        let (count, timeline, place) = (footer.u16(), footer.u32(), footer.u64());
        let system_identifier = SystemIdentifier(footer.u64());
        let same_group = (timeline, place) == (name.group.timeline().0, name.group.place());
        if system_identifier != cluster || !same_group || count != name.count {
            return Err(RollUpError::Identity);
        }
        let (entries_length, notes_length) = (footer.u64(), footer.u64());
        let lengths = usize::try_from(entries_length).ok().zip(usize::try_from(notes_length).ok());
        let parts = lengths.and_then(|(entries, notes)| {
            let (entries, rest) = body.split_at_checked(entries)?;
            (rest.len() == notes).then_some((entries, rest))
        });
        let (entries, notes) = parts.ok_or(RollUpError::Content("its parts have other lengths"))?;
        let entries = unpack_frame_of(entries, GROUP_SEGMENTS * ENTRY_BYTES)?;
        let entries = read_entries(&entries, name)?;
        Ok(RollUp { system_identifier, group: name.group, entries, notes: notes.to_vec() })
    }
}

fn hash(bytes: &[u8]) -> u64 {
    blake3::hash(bytes).as_bytes().first_chunk().map_or(0, |first| u64::from_be_bytes(*first))
}

/// The content of the frame that fills `frame` exactly.
fn unpack_frame_of(mut frame: &[u8], limit_bytes: usize) -> io::Result<Vec<u8>> {
    let content = unpack_frame(&mut frame, limit_bytes)?;
    if frame.is_empty() { Ok(content) } else { Err(io::Error::other("something follows the frame")) }
}

fn write_entry(entry: &RollUpEntry, out: &mut Writer) {
    let border = match entry.border {
        Straddling::None => 0,
        Straddling::Proved => 1,
        Straddling::Open => 2,
        Straddling::Damaged => 3,
    };
    // The segment's place in its group.
    #[allow(clippy::cast_possible_truncation)]
    out.u8(entry.segment.place() as u8);
    out.u8(ending_number(entry.facts.ending));
    out.u8(border);
    out.u8(u8::from(entry.scanned));
    out.u32(entry.raw_crc);
    out.u64(entry.stored_bytes);
    out.i64(entry.archived_at.0);
    out.u16(entry.origin);
    out.bytes(&[0; 6]);
    out.facts(&entry.facts);
}

fn read_entries(bytes: &[u8], name: RollUpName) -> Result<Vec<RollUpEntry>, RollUpError> {
    let chunks = bytes.chunks_exact(ENTRY_BYTES);
    if !chunks.remainder().is_empty() || chunks.len() != usize::from(name.count) {
        return Err(RollUpError::Content("it has another number of entries"));
    }
    let entries = chunks.map(|chunk| read_entry(chunk, name.group)).collect::<Result<Vec<_>, _>>();
    let entries = entries.map_err(RollUpError::Content)?;
    if entries.windows(2).any(|pair| pair[0].segment >= pair[1].segment) {
        return Err(RollUpError::Content("its entries are not in order"));
    }
    Ok(entries)
}

fn read_entry(chunk: &[u8], group: SegmentGroup) -> Result<RollUpEntry, &'static str> {
    let mut from = Reader(chunk);
    let segment = group.segment(from.u8()).ok_or("the segment is none")?;
    let ending = from.u8();
    let border = match from.u8() {
        0 => Straddling::None,
        1 => Straddling::Proved,
        2 => Straddling::Open,
        3 => Straddling::Damaged,
        _ => return Err("the border is none"),
    };
    let scanned = from.u8() != 0;
    let (raw_crc, stored_bytes, archived_at) = (from.u32(), from.u64(), PgTime(from.i64()));
    let origin = from.u16();
    let _reserved = from.take::<6>();
    let facts = from.facts(ending)?;
    Ok(RollUpEntry { segment, facts, border, scanned, stored_bytes, raw_crc, archived_at, origin })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::{EventKind, Lsn, SegmentEnding, Xid};

    fn sample() -> RollUp {
        let timeline = TimelineId(10);
        let group = SegmentName::at_place(timeline, 0x0000_0007_0000_0100).expect("a place").group();
        let entry = |low: u8, border| RollUpEntry {
            segment: group.segment(low).expect("a segment"),
            facts: SegmentFacts {
                first_record: Some(Lsn(0x300_0028)),
                before_first_record: None,
                last_record: Some(Lsn(0x3FF_0000 + u64::from(low))),
                end: Lsn(0x3FF_0100),
                ending: SegmentEnding::Switch,
                min_time: Some(PgTime(1)),
                max_time: None,
                first_time: Some(PgTime(-2)),
                last_time: None,
                first_xid: Some(Xid(700)),
                last_xid: None,
                last_commit: Some(Lsn(5)),
                commits: 1,
                aborts: 2,
                dropped_relations: 3,
                restore_points: 4,
                parameter_changes: 5,
                checkpoints: 6,
            },
            border,
            scanned: low == 9,
            stored_bytes: 1 << 33,
            raw_crc: 0xDEAD_BEEF,
            archived_at: PgTime(800_000_000_000_001),
            origin: 1,
        };
        let entries = vec![
            entry(0, Straddling::Open),
            entry(3, Straddling::Proved),
            entry(9, Straddling::None),
            entry(255, Straddling::Damaged),
        ];
        let event = Event { lsn: Lsn(1), end_lsn: Lsn(2), xid: Xid(3), kind: EventKind::BackupEnd { start: Lsn(4) } };
        let notes = RollUpNotes {
            origins: vec![Origin::default(), Origin { host: "db1".to_owned(), ..Origin::default() }],
            segments: vec![SegmentNotes {
                segment: group.segment(3).expect("a segment"),
                events: vec![event],
                events_cut: true,
                damage: Some(DamageNote { lsn: Lsn(9), why: "a test".to_owned(), or_before: None }),
            }],
        };
        RollUp::new(SystemIdentifier(7), group, entries, &notes).expect("memory takes it")
    }

    /// Entries and notes read back as they were written, and the name says what is in the object.
    #[test]
    fn round_trip() {
        let roll_up = sample();
        let (name, bytes) = roll_up.encode().expect("memory takes it");
        assert!(name.to_string().starts_with("00000007000001.004."), "{name}");
        assert_eq!(RollUpName::parse(&name.to_string(), TimelineId(10)), Ok(name));
        let found = RollUp::decode(&bytes, name, SystemIdentifier(7)).expect("it is whole");
        assert_eq!(found, roll_up);
        assert_eq!(found.notes().expect("notes").segments.len(), 1);
        let segment = |low| name.group.segment(low).expect("a segment");
        assert_eq!(found.entry(segment(9)).map(|entry| entry.scanned), Some(true));
        assert_eq!(found.entry(segment(10)), None);
        let empty = RollUp::new(SystemIdentifier(7), name.group, Vec::new(), &RollUpNotes::default()).expect("empty");
        let (name, bytes) = empty.encode().expect("memory takes it");
        assert_eq!(RollUp::decode(&bytes, name, SystemIdentifier(7)).expect("it is whole"), empty);
    }

    /// Any flipped bit and any cut is reported, and so is a roll-up under another's name.
    #[test]
    fn damage() {
        let (name, good) = sample().encode().expect("memory takes it");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(RollUp::decode(&bad, name, SystemIdentifier(7)).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert!(RollUp::decode(&good[..length], name, SystemIdentifier(7)).is_err(), "cut to {length}");
        }
        let other = RollUpName { count: 5, ..name };
        assert!(matches!(RollUp::decode(&good, other, SystemIdentifier(7)), Err(RollUpError::Identity)));
        assert!(matches!(RollUp::decode(&good, name, SystemIdentifier(8)), Err(RollUpError::Identity)));
        // Whoever makes the hash right still cannot make the program panic or believe a count.
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] = bad[at].wrapping_add(1);
            let _ = RollUp::decode(&bad, RollUpName { hash: hash(&bad), ..name }, SystemIdentifier(7));
        }
        let mut newer = good;
        let version = newer.len() - FOOTER_BYTES + 8;
        newer[version] = 2;
        let name = RollUpName { hash: hash(&newer), ..name };
        assert!(matches!(RollUp::decode(&newer, name, SystemIdentifier(7)), Err(RollUpError::Version(2))));
    }

    /// Names that are not as they are written are none.
    #[test]
    fn names() {
        for wrong in [
            "",
            "00000007000001",
            "00000007000001.004",
            "00000007000001.4.0000000000000001",
            "00000007000001.004.0000000000000001.x",
            "00000007000001.004.000000000000000G",
            "0000000700000.004.0000000000000001",
        ] {
            assert!(RollUpName::parse(wrong, TimelineId(1)).is_err(), "{wrong:?}");
        }
    }
}
