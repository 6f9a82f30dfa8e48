//! The footer: 256 bytes at the end of a stored WAL file that say what it is, so that one small read is enough.
//!
//! Byte table in `docs/FORMAT.md`. All integers are little-endian; an absent LSN or xid is 0, an absent time the
//! smallest 64-bit integer. The footer's own CRC-32 comes last.

use super::skippable;
use crate::wal::{
    Lsn, PgTime, PostgresMajor, SegmentEnding, SegmentFacts, SegmentName, SegmentSize, SystemIdentifier, TimelineId,
    WalFileName, Xid,
};

/// Bytes of the footer's payload.
const FOOTER_BYTES: usize = 256;
/// Bytes of the whole footer frame, which ends every stored WAL file.
pub const FOOTER_FRAME_BYTES: usize = FOOTER_BYTES + skippable::HEADER_BYTES;

const MAGIC: &[u8; 8] = b"PITRWAL\0";
const VERSION: u16 = 1;
const NO_TIME: i64 = i64::MIN;

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
        let ending = self.facts.map_or(0, |facts| match facts.ending {
            SegmentEnding::Full => 0,
            SegmentEnding::Switch => 1,
            SegmentEnding::Unfinished => 2,
        });
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
        out.facts(self.facts.as_ref());
        out.finish()
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
            VERSION => from.footer(),
            version => Err(FooterError::Version(version)),
        }
    }
}

/// Fills the footer's fields one after the other.
struct Writer {
    payload: [u8; FOOTER_BYTES],
    at: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Writer { payload: [0; FOOTER_BYTES], at: 0 }
    }
}

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.payload[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn u16(&mut self, number: u16) {
        self.bytes(&number.to_le_bytes());
    }

    fn u32(&mut self, number: u32) {
        self.bytes(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    fn i64(&mut self, number: i64) {
        self.bytes(&number.to_le_bytes());
    }

    fn facts(&mut self, facts: Option<&SegmentFacts>) {
        let Some(facts) = facts else { return };
        let lsns =
            [facts.first_record, facts.before_first_record, facts.last_record, Some(facts.end), facts.last_commit];
        for lsn in lsns {
            self.u64(lsn.unwrap_or(Lsn::INVALID).0);
        }
        for time in [facts.min_time, facts.max_time, facts.first_time, facts.last_time] {
            self.i64(time.map_or(NO_TIME, |time| time.0));
        }
        for xid in [facts.first_xid, facts.last_xid] {
            self.u32(xid.map_or(0, |xid| xid.0));
        }
        for count in [
            facts.commits,
            facts.aborts,
            facts.dropped_relations,
            facts.restore_points,
            facts.parameter_changes,
            facts.checkpoints,
        ] {
            self.u32(count);
        }
    }

    fn finish(mut self) -> [u8; FOOTER_FRAME_BYTES] {
        let (content, checksum) = self.payload.split_at_mut(FOOTER_BYTES - 4);
        checksum.copy_from_slice(&crc32fast::hash(content).to_le_bytes());
        let mut frame = [0; FOOTER_FRAME_BYTES];
        frame[..4].copy_from_slice(&skippable::FOOTER.to_le_bytes());
        #[allow(clippy::cast_possible_truncation)] // 256 fits.
        frame[4..8].copy_from_slice(&(FOOTER_BYTES as u32).to_le_bytes());
        frame[8..].copy_from_slice(&self.payload);
        frame
    }
}

/// Takes the footer's fields one after the other; the payload is longer than all of them together.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn lsn(&mut self) -> Option<Lsn> {
        Some(Lsn(self.u64())).filter(|lsn| *lsn != Lsn::INVALID)
    }

    fn time(&mut self) -> Option<PgTime> {
        Some(PgTime(i64::from_le_bytes(self.take()))).filter(|time| time.0 != NO_TIME)
    }

    fn footer(&mut self) -> Result<Footer, FooterError> {
        let kind = self.u16();
        let flags = self.u32();
        let system_identifier = SystemIdentifier(self.u64());
        let timeline = TimelineId(self.u32());
        let segment_size = match self.u32() {
            0 => None,
            bytes => Some(SegmentSize::try_from(bytes).map_err(|_| FooterError::Content("the segment size is none"))?),
        };
        let place = self.u64();
        let segment = SegmentName::at_place(timeline, place).ok_or(FooterError::Content("the segment is none"));
        let offset = self.u32();
        let file = match kind {
            0 => WalFileName::Segment(segment?),
            1 => WalFileName::Partial(segment?),
            2 if timeline.0 > 0 => WalFileName::History(timeline),
            3 => WalFileName::Backup { segment: segment?, offset },
            _ => return Err(FooterError::Content("the kind of file is none")),
        };
        let major = u16::try_from(self.u32()).map_err(|_| FooterError::Content("the version is none"))?;
        let raw_length = self.u64();
        let body_length = self.u64();
        let details_length = self.u64();
        let raw_crc = self.u32();
        let _reserved = self.u32();
        let archived_at = PgTime(i64::from_le_bytes(self.take()));
        let facts = if flags & 1 == 0 { None } else { Some(self.facts(flags >> 8 & 0xFF)?) };
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

    fn facts(&mut self, ending: u32) -> Result<SegmentFacts, FooterError> {
        let ending = match ending {
            0 => SegmentEnding::Full,
            1 => SegmentEnding::Switch,
            2 => SegmentEnding::Unfinished,
            _ => return Err(FooterError::Content("the ending is none")),
        };
        let (first_record, before_first_record, last_record) = (self.lsn(), self.lsn(), self.lsn());
        let end = self.lsn().ok_or(FooterError::Content("the records end nowhere"))?;
        let last_commit = self.lsn();
        let (min_time, max_time, first_time, last_time) = (self.time(), self.time(), self.time(), self.time());
        let (first_xid, last_xid) = (self.u32(), self.u32());
        Ok(SegmentFacts {
            first_record,
            before_first_record,
            last_record,
            end,
            ending,
            min_time,
            max_time,
            first_time,
            last_time,
            first_xid: first_time.map(|_| Xid(first_xid)),
            last_xid: last_time.map(|_| Xid(last_xid)),
            last_commit,
            commits: self.u32(),
            aborts: self.u32(),
            dropped_relations: self.u32(),
            restore_points: self.u32(),
            parameter_changes: self.u32(),
            checkpoints: self.u32(),
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

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
