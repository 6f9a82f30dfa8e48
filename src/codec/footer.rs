//! The footer: 256 bytes at the end of a stored WAL file that say what it is, so that one small read is enough.
//!
//! Byte table in `docs/FORMAT.md`. The footer's own CRC-32 comes last.

use super::fields::{Reader, Writer, ending_number};
use super::skippable;
use crate::wal::{
    PgTime, PostgresMajor, SegmentFacts, SegmentName, SegmentSize, SystemIdentifier, TimelineId, WalFileName,
};

/// Bytes of the footer's payload.
const FOOTER_BYTES: usize = 256;
/// Bytes of the whole footer frame, which ends every stored WAL file.
pub const FOOTER_FRAME_BYTES: usize = FOOTER_BYTES + skippable::HEADER_BYTES;

const MAGIC: &[u8; 8] = b"PITRWAL\0";
const VERSION: u16 = 1;

/// The fixed-size description of a stored WAL file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Footer {
    /// The cluster that wrote the WAL.
    pub system_identifier: SystemIdentifier,
    /// Which file it is. Bound to the object's name: a reader compares.
    pub file: WalFileName,
    /// The cluster's segment size; not known of history files.
    pub segment_size: Option<SegmentSize>,
    /// The server version that wrote it; not known of history files.
    pub major: Option<PostgresMajor>,
    /// Length of the raw file in bytes.
    pub raw_length: u64,
    /// CRC-32 (IEEE) of the raw file.
    pub raw_crc: u32,
    /// Length of the body frame in bytes.
    pub body_length: u64,
    /// Length of the details frame in bytes, its header included.
    pub details_length: u64,
    /// When it was archived, by the clock of the host that did.
    pub archived_at: PgTime,
    /// What is in it, if its records were read: files other than segments have none.
    pub facts: Option<SegmentFacts>,
    /// The records were read and do not make sense from some point on (see `Details::damage`).
    pub damaged: bool,
}

/// Why bytes are not a footer, or not the one expected.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FooterError {
    /// No footer frame stands at the end: cut short, or not one of ours.
    #[error("it does not end with a description: it is cut short, or nothing that pitr stored")]
    Missing,
    /// The footer's checksum is wrong.
    #[error("its description is damaged (checksum {found:08X}, expected {expected:08X})")]
    Checksum {
        /// What the footer says.
        expected: u32,
        /// What its bytes give.
        found: u32,
    },
    /// Written by a newer version.
    #[error("its format version is {0}, and this pitr reads {VERSION}")]
    Version(u16),
    /// The checksum is right and the content is not.
    #[error("its description makes no sense: {0}")]
    Content(&'static str),
}

impl Footer {
    /// The whole footer frame.
    #[must_use]
    pub fn encode(&self) -> [u8; FOOTER_FRAME_BYTES] {
        let mut out = Writer::default();
        out.bytes(MAGIC);
        out.u16(VERSION);
        let (kind, segment, offset) = match self.file {
            WalFileName::Segment(name) => (0, Some(name), 0),
            WalFileName::Partial(name) => (1, Some(name), 0),
            WalFileName::History(_) => (2, None, 0),
            WalFileName::Backup { segment, offset } => (3, Some(segment), offset),
        };
        out.u16(kind);
        let ending = self.facts.map_or(0, |facts| u32::from(ending_number(facts.ending)));
        out.u32(u32::from(self.facts.is_some()) | u32::from(self.damaged) << 1 | ending << 8);
        out.u64(self.system_identifier.0);
        out.u32(self.file.timeline().0);
        out.u32(self.segment_size.map_or(0, u32::from));
        out.u64(segment.map_or(0, SegmentName::place));
        out.u32(offset);
        out.u32(self.major.map_or(0, |major| u32::from(major.0)));
        out.u64(self.raw_length);
        out.u64(self.body_length);
        out.u64(self.details_length);
        out.u32(self.raw_crc);
        out.u32(0);
        out.i64(self.archived_at.0);
        if let Some(facts) = &self.facts {
            out.facts(facts);
        }
        let mut frame = [0; FOOTER_FRAME_BYTES];
        frame[..4].copy_from_slice(&skippable::FOOTER.to_le_bytes());
        #[allow(clippy::cast_possible_truncation)] // 256 fits.
        frame[4..8].copy_from_slice(&(FOOTER_BYTES as u32).to_le_bytes());
        frame[8..].copy_from_slice(&out.seal(FOOTER_BYTES));
        frame
    }

    /// Reads the footer from the end of an object, of which `suffix` holds at least the last 264 bytes.
    ///
    /// # Errors
    /// The first of the [`FooterError`]s that applies.
    pub fn decode(suffix: &[u8]) -> Result<Footer, FooterError> {
        let frame = suffix.last_chunk::<FOOTER_FRAME_BYTES>().ok_or(FooterError::Missing)?;
        let payload = skippable::payload(skippable::FOOTER, frame).ok_or(FooterError::Missing)?;
        let (content, checksum) = payload.split_last_chunk::<4>().ok_or(FooterError::Missing)?;
        let mut from = Reader(content);
        if &from.take::<8>() != MAGIC {
            return Err(FooterError::Missing);
        }
        let (expected, found) = (u32::from_le_bytes(*checksum), crc32fast::hash(content));
        if expected != found {
            return Err(FooterError::Checksum { expected, found });
        }
        match from.u16() {
            VERSION => read(&mut from),
            version => Err(FooterError::Version(version)),
        }
    }
}

/// Reads the fields after magic and version.
fn read(from: &mut Reader<'_>) -> Result<Footer, FooterError> {
    let kind = from.u16();
    let flags = from.u32();
    let system_identifier = SystemIdentifier(from.u64());
    let timeline = TimelineId(from.u32());
    let segment_size = match from.u32() {
        0 => None,
        bytes => Some(SegmentSize::try_from(bytes).map_err(|_| FooterError::Content("the segment size is none"))?),
    };
    let place = from.u64();
    let segment = SegmentName::at_place(timeline, place).ok_or(FooterError::Content("the segment is none"));
    let offset = from.u32();
    let file = match kind {
        0 => WalFileName::Segment(segment?),
        1 => WalFileName::Partial(segment?),
        2 if timeline.0 > 0 => WalFileName::History(timeline),
        3 => WalFileName::Backup { segment: segment?, offset },
        _ => return Err(FooterError::Content("the kind of file is none")),
    };
    let major = u16::try_from(from.u32()).map_err(|_| FooterError::Content("the version is none"))?;
    let raw_length = from.u64();
    let body_length = from.u64();
    let details_length = from.u64();
    let raw_crc = from.u32();
    let _reserved = from.u32();
    let archived_at = PgTime(from.i64());
    #[allow(clippy::cast_possible_truncation)] // Bits 8 to 15.
    let ending = (flags >> 8) as u8;
    let facts = if flags & 1 == 0 { None } else { Some(from.facts(ending).map_err(FooterError::Content)?) };
    Ok(Footer {
        system_identifier,
        file,
        segment_size,
        major: (major > 0).then_some(PostgresMajor(major)),
        raw_length,
        raw_crc,
        body_length,
        details_length,
        archived_at,
        facts,
        damaged: flags & 2 != 0,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::wal::{Lsn, SegmentEnding, Xid};

    pub(in crate::codec) fn sample(file: WalFileName) -> Footer {
        Footer {
            system_identifier: SystemIdentifier(7_312_345_678_901_234_567),
            file,
            segment_size: Some(SegmentSize::DEFAULT),
            major: Some(PostgresMajor(17)),
            raw_length: 16 << 20,
            raw_crc: 0xDEAD_BEEF,
            body_length: 1234,
            details_length: 56,
            archived_at: PgTime(800_000_000_000_001),
            facts: Some(SegmentFacts {
                first_record: Some(Lsn(0x300_0028)),
                before_first_record: Some(Lsn(0x2FF_FF00)),
                last_record: Some(Lsn(0x3FF_0000)),
                end: Lsn(0x3FF_0100),
                ending: SegmentEnding::Switch,
                min_time: Some(PgTime(1)),
                max_time: Some(PgTime(4)),
                first_time: Some(PgTime(-2)),
                last_time: Some(PgTime(3)),
                first_xid: Some(Xid(700)),
                last_xid: Some(Xid(0)),
                last_commit: None,
                commits: 1,
                aborts: 2,
                dropped_relations: 3,
                restore_points: 4,
                parameter_changes: 5,
                checkpoints: 6,
            }),
            damaged: true,
        }
    }

    /// Every kind of file reads back as it was written.
    #[test]
    fn round_trip() {
        for name in [
            "0000000A0000000A0000003F",
            "0000000A0000000A0000003F.partial",
            "0000000A.history",
            "0000000A0000000A0000003F.00000028.backup",
        ] {
            let mut footer = sample(name.parse().unwrap());
            assert_eq!(Footer::decode(&footer.encode()), Ok(footer.clone()));
            footer.facts = None;
            assert_eq!(Footer::decode(&footer.encode()), Ok(footer));
        }
    }

    /// Any flipped bit and any cut is reported, and a newer format is refused by its number.
    #[test]
    fn damage() {
        let good = sample("0000000A.history".parse().unwrap()).encode();
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Footer::decode(&bad).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            assert_eq!(Footer::decode(&good[..length]), Err(FooterError::Missing));
        }
        let mut newer = good;
        newer[16] = 2;
        let checksum = crc32fast::hash(&newer[8..260]);
        newer[260..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Footer::decode(&newer), Err(FooterError::Version(2)));
    }
}
