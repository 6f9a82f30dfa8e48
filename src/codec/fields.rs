//! Fields of fixed size one after the other: what footers and roll-ups are made of.
//!
//! All integers are little-endian; an absent LSN or xid is 0, an absent time the smallest 64-bit integer.

use crate::wal::{Lsn, PgTime, SegmentEnding, SegmentFacts, Xid};

/// Bytes of [`Writer::facts`].
pub(crate) const FACTS_BYTES: usize = 104;

const NO_TIME: i64 = i64::MIN;

/// Appends fields.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn u8(&mut self, number: u8) {
        self.bytes(&[number]);
    }

    pub(crate) fn u16(&mut self, number: u16) {
        self.bytes(&number.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, number: u32) {
        self.bytes(&number.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, number: i64) {
        self.bytes(&number.to_le_bytes());
    }

    /// A segment's facts but for its ending, which has a number of its own: [`ending_number`].
    pub(crate) fn facts(&mut self, facts: &SegmentFacts) {
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

    /// Fills up with zero bytes to `length`, the last four of which are the CRC-32 of all before.
    pub(crate) fn seal(mut self, length: usize) -> Vec<u8> {
        self.0.resize(length - 4, 0);
        self.u32(crc32fast::hash(&self.0));
        self.0
    }
}

/// How a segment ends, as a number.
pub(crate) fn ending_number(ending: SegmentEnding) -> u8 {
    match ending {
        SegmentEnding::Full => 0,
        SegmentEnding::Switch => 1,
        SegmentEnding::Unfinished => 2,
    }
}

/// Takes fields; beyond the end everything is 0. The caller has checked that there is enough.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl Reader<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }

    pub(crate) fn u8(&mut self) -> u8 {
        let [number] = self.take();
        number
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    pub(crate) fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.take())
    }

    pub(crate) fn lsn(&mut self) -> Option<Lsn> {
        Some(Lsn(self.u64())).filter(|lsn| *lsn != Lsn::INVALID)
    }

    pub(crate) fn time(&mut self) -> Option<PgTime> {
        Some(PgTime(self.i64())).filter(|time| time.0 != NO_TIME)
    }

    /// A segment's facts. What is wrong with them, in words, if they cannot be any.
    pub(crate) fn facts(&mut self, ending: u8) -> Result<SegmentFacts, &'static str> {
        let ending = match ending {
            0 => SegmentEnding::Full,
            1 => SegmentEnding::Switch,
            2 => SegmentEnding::Unfinished,
            _ => return Err("the ending is none"),
        };
        let (first_record, before_first_record, last_record) = (self.lsn(), self.lsn(), self.lsn());
        let end = self.lsn().ok_or("the records end nowhere")?;
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
