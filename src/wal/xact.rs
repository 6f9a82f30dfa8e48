//! Records of the transaction manager: commit, abort, their prepared forms, and prepare (`xact.h`, `xactdesc.c`).
//!
//! A commit or abort is its time, then, if the header's flag says so, a word of bits and the parts that they
//! announce, in this order: database (1), subtransactions (2), dropped relations (4), dropped statistics (256),
//! invalidation messages (8, commits only), transaction id (16, prepared ones only). More may follow that is not of
//! interest here.

use super::bytes::{i64_at, u32_at};
use super::record::RecordHeader;
use super::{EventKind, PgTime, PostgresMajor, RelationFile, TransactionEnd, Xid};

const OPERATION_MASK: u8 = 0x70;
const COMMIT: u8 = 0x00;
const PREPARE: u8 = 0x10;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
const HAS_INFO: u8 = 0x80;

const HAS_DATABASE: u32 = 1 << 0;
const HAS_SUBTRANSACTIONS: u32 = 1 << 1;
const HAS_RELATIONS: u32 = 1 << 2;
const HAS_INVALIDATIONS: u32 = 1 << 3;
const HAS_PREPARED_XID: u32 = 1 << 4;
const HAS_STATISTICS: u32 = 1 << 8;

/// The first field of a prepare record (`TWOPHASE_MAGIC`), the same in 13 to 18.
const PREPARE_MAGIC: u32 = 0x57F9_4534;

/// An operation that [`read`] understands.
#[inline]
pub(super) fn is_of_interest(info: u8) -> bool {
    info & OPERATION_MASK <= ABORT_PREPARED
}

/// Reads the main data of an operation of interest; `whole` tells that it is not cut at its end.
pub(super) fn read(header: &RecordHeader, data: &[u8], whole: bool, major: PostgresMajor) -> Option<(Xid, EventKind)> {
    let operation = header.info & OPERATION_MASK;
    if operation == PREPARE {
        let magic = u32_at(data, 0)?;
        let event = EventKind::Prepare { time: PgTime(i64_at(data, 16)?) };
        return (magic == PREPARE_MAGIC).then_some((Xid(u32_at(data, 8)?), event));
    }
    let mut end = TransactionEnd {
        time: PgTime(i64_at(data, 0)?),
        prepared: matches!(operation, COMMIT_PREPARED | ABORT_PREPARED),
        database: None,
        subtransactions: 0,
        subtransaction_xids: Vec::new(),
        dropped_count: 0,
        dropped: Vec::new(),
        cut: false,
    };
    let mut xid = header.xid;
    if header.info & HAS_INFO != 0 {
        let mut parts = Parts { data, at: 8 };
        match parts.read(&mut end, major) {
            Some(prepared) => xid = prepared.unwrap_or(xid),
            // Only a record that was cut may lack a part: else it is not of a form that is known here.
            None if whole => return None,
            None => end.cut = true,
        }
    }
    match operation {
        COMMIT | COMMIT_PREPARED => Some((xid, EventKind::Commit(end))),
        ABORT | ABORT_PREPARED => Some((xid, EventKind::Abort(end))),
        _ => None,
    }
}

/// Reads part after part.
struct Parts<'a> {
    data: &'a [u8],
    at: usize,
}

impl Parts<'_> {
    /// Reads all parts up to the transaction id, which is returned if there is one. `None` if the data ends before.
    fn read(&mut self, end: &mut TransactionEnd, major: PostgresMajor) -> Option<Option<Xid>> {
        let bits = self.word()?;
        if bits & HAS_DATABASE != 0 {
            end.database = Some(self.word()?).filter(|database| *database != 0);
            self.skip(1, 4)?;
        }
        if bits & HAS_SUBTRANSACTIONS != 0 {
            end.subtransactions = self.word()?;
            let there = (self.data.len() - self.at) / 4;
            end.subtransaction_xids.reserve_exact(there.min(end.subtransactions as usize));
            for _ in 0..end.subtransactions {
                end.subtransaction_xids.push(Xid(self.word()?));
            }
        }
        if bits & HAS_RELATIONS != 0 {
            self.relations(end)?;
        }
        if bits & HAS_STATISTICS != 0 {
            // The object's id became 64 bits wide in 18.
            let size = if major.0 >= 18 { 16 } else { 12 };
            let count = self.word()?;
            self.skip(count, size)?;
        }
        if bits & HAS_INVALIDATIONS != 0 {
            let count = self.word()?;
            self.skip(count, 16)?;
        }
        if bits & HAS_PREPARED_XID != 0 {
            return Some(Some(Xid(self.word()?)));
        }
        Some(None)
    }

    fn relations(&mut self, end: &mut TransactionEnd) -> Option<()> {
        end.dropped_count = self.word()?;
        // What is not there is not allocated either, whatever the count says.
        let there = (self.data.len() - self.at) / 12;
        end.dropped.reserve_exact(there.min(end.dropped_count as usize));
        for _ in 0..end.dropped_count {
            let (tablespace, database) = (self.word()?, self.word()?);
            end.dropped.push(RelationFile { tablespace, database, relation: self.word()? });
        }
        Some(())
    }

    fn word(&mut self) -> Option<u32> {
        let word = u32_at(self.data, self.at)?;
        self.at += 4;
        Some(word)
    }

    /// Passes over `count` items of `size` bytes, all of which must be there.
    fn skip(&mut self, count: u32, size: usize) -> Option<()> {
        let at = self.at.checked_add((count as usize).checked_mul(size)?)?;
        (at <= self.data.len()).then(|| self.at = at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(info: u8) -> RecordHeader {
        RecordHeader { length: 0, xid: Xid(7), previous: super::super::Lsn(0), info, manager: 1, crc: 0 }
    }

    /// A prepared commit with every part that stands before its transaction id.
    fn commit(statistics_size: usize) -> Vec<u8> {
        let mut data = 42i64.to_le_bytes().to_vec();
        let bits =
            HAS_DATABASE | HAS_SUBTRANSACTIONS | HAS_RELATIONS | HAS_STATISTICS | HAS_INVALIDATIONS | HAS_PREPARED_XID;
        let mut words = vec![bits, 5, 1663, 2, 100, 101, 2, 1663, 5, 16384, 1663, 5, 16385, 3];
        words.extend(vec![0; 3 * statistics_size / 4]);
        words.push(1);
        words.extend([0; 4]);
        words.push(99);
        data.extend(words.into_iter().flat_map(u32::to_le_bytes));
        data
    }

    fn read_end(data: &[u8], whole: bool, major: u16) -> Option<(Xid, TransactionEnd)> {
        match read(&header(COMMIT_PREPARED | HAS_INFO), data, whole, PostgresMajor(major))? {
            (xid, EventKind::Commit(end)) => Some((xid, end)),
            other => panic!("{other:?}"),
        }
    }

    /// The parts are passed over in their order and their version's sizes: the transaction id is the prepared one's.
    #[test]
    fn all_parts() {
        for (major, size) in [(15, 12), (17, 12), (18, 16)] {
            let (xid, end) = read_end(&commit(size), true, major).expect("a whole commit");
            assert_eq!((xid, end.time, end.subtransactions), (Xid(99), PgTime(42), 2), "{major}");
            assert_eq!((end.database, end.subtransaction_xids), (Some(5), vec![Xid(100), Xid(101)]));
            let relation = |relation| RelationFile { tablespace: 1663, database: 5, relation };
            assert_eq!(end.dropped, [relation(16384), relation(16385)]);
            assert!(end.prepared && !end.cut);
        }
    }

    /// A commit that was too long to keep still has its time, and says that it was cut; one that is whole and yet
    /// lacks a part is of no form known here.
    #[test]
    fn cut_anywhere() {
        let data = commit(16);
        for length in 0..data.len() {
            let cut = read_end(&data[..length], false, 18);
            assert_eq!(cut.is_some(), length >= 8, "{length}");
            assert!(cut.is_none_or(|(_, end)| end.cut && end.time == PgTime(42)), "{length}");
            assert_eq!(read_end(&data[..length], true, 18), None, "{length}");
        }
    }

    /// A count of four billion neither allocates nor wraps.
    #[test]
    fn hostile_counts() {
        for bit in [HAS_SUBTRANSACTIONS, HAS_RELATIONS, HAS_STATISTICS, HAS_INVALIDATIONS] {
            let data = [&[0; 8], &bit.to_le_bytes()[..], &[0xFF; 20]].concat();
            let (_, end) = read_end(&data, false, 18).expect("the time is there");
            assert!(end.cut && end.dropped.len() <= 1);
        }
    }
}
