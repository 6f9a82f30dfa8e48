//! WAL records: header and checksum, who wants to see them, and those of interest.
//!
//! A record begins on an 8-byte boundary with a header of 24 bytes (`XLogRecord` in `xlogrecord.h`):
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 4 | length, header included |
//! | 4 | 4 | transaction |
//! | 8 | 8 | where the record before it begins |
//! | 16 | 1 | flags: low four bits common to all, high four the resource manager's operation |
//! | 17 | 1 | resource manager |
//! | 18 | 2 | padding |
//! | 20 | 4 | CRC-32C of the bytes from 24 on, then of the bytes 0 to 19 |
//!
//! Headers of block references and of the main data follow, then block data; main data is last.

use super::bytes::{array_at, u32_at, u64_at};
use super::{Event, EventKind, Flaw, Lsn, PostgresMajor, RecordContent, Xid, database, heap, tablespace, xact, xlog};

/// Bytes of a record's header.
pub(super) const HEADER_SIZE: usize = 24;
/// Where the checksum stands in the header; it covers what is before it, and the body.
pub(super) const CRC_OFFSET: usize = 20;
/// No record is longer (`MaxAllocSize`; 16 and later allow 1020 MiB).
const MAX_LENGTH: u32 = 0x3FFF_FFFF;

/// `RM_XLOG_ID`
pub(super) const RM_XLOG: u8 = 0;
/// `RM_XACT_ID`
pub(super) const RM_XACT: u8 = 1;
/// `RM_SMGR_ID`
pub(super) const RM_SMGR: u8 = 2;
/// `RM_DBASE_ID`
pub(super) const RM_DBASE: u8 = 4;
/// `RM_TBLSPC_ID`
const RM_TBLSPC: u8 = 5;
/// `RM_HEAP2_ID`
pub(super) const RM_HEAP2: u8 = 9;
/// `RM_HEAP_ID`
pub(super) const RM_HEAP: u8 = 10;
/// Of a record's `info`: it changes relation files otherwise than by the blocks that it names (`XLR_SPECIAL_REL_UPDATE`).
pub(super) const SPECIAL_UPDATE: u8 = 0x01;
/// The last built-in resource manager, `RM_LOGICALMSG_ID`.
const RM_LAST: u8 = 21;
/// The first number for resource managers of extensions (15 and later).
pub(super) const RM_FIRST_CUSTOM: u8 = 128;

/// A record's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordHeader {
    /// Length of the record in bytes, header included.
    pub length: u32,
    /// The transaction that wrote it, 0 if none did.
    pub xid: Xid,
    /// Where the record before it begins.
    pub previous: Lsn,
    /// The resource manager's operation in the high four bits, flags common to all in the low four.
    pub info: u8,
    /// The resource manager (`rmgrlist.h`).
    pub manager: u8,
    /// The record's CRC-32C.
    pub crc: u32,
}

/// A proved record, as it stands in the WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawRecord<'a> {
    /// Where it begins.
    pub lsn: Lsn,
    /// Where the next record may begin.
    pub end_lsn: Lsn,
    /// Its header.
    pub header: RecordHeader,
    /// What follows the header, without the page headers between; cut at its end unless `whole`.
    pub body: &'a [u8],
    /// The body is all there. Records of more than a mebibyte, and those of more than 64 KiB over a border of segments,
    /// are not kept whole.
    pub whole: bool,
}

/// Who looks at the records of a segment while they are proved.
///
/// Every call is about a record whose checksum is right, in LSN order. What a record is asked for is decided by its header
/// alone, so that those that nobody wants cost nothing.
pub trait RecordVisitor {
    /// A record of interest, read.
    fn event(&mut self, event: Event);

    /// Whether [`RecordVisitor::record`] is to be called for the record of this header. It may be asked before the header
    /// is proved.
    fn wants(&self, _header: &RecordHeader) -> bool {
        false
    }

    /// A record that was wanted; its event, if it is one, comes after it.
    fn record(&mut self, _record: &RawRecord<'_>) {}
}

/// The visitor that wants events alone.
pub struct EventsTo<'a>(pub &'a mut dyn FnMut(Event));

impl RecordVisitor for EventsTo<'_> {
    fn event(&mut self, event: Event) {
        (self.0)(event);
    }
}

impl RecordHeader {
    /// Reads the first 24 bytes of a record; `None` if there are fewer.
    #[inline]
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; HEADER_SIZE] = array_at(bytes, 0)?;
        Some(RecordHeader {
            length: u32_at(&bytes, 0)?,
            xid: Xid(u32_at(&bytes, 4)?),
            previous: Lsn(u64_at(&bytes, 8)?),
            info: bytes[16],
            manager: bytes[17],
            crc: u32_at(&bytes, CRC_OFFSET)?,
        })
    }

    /// What is wrong with the header on its face.
    #[inline]
    pub(super) fn check(&self, major: PostgresMajor) -> Result<(), Flaw> {
        check_length(self.length)?;
        let custom = self.manager >= RM_FIRST_CUSTOM && major.0 >= 15;
        if self.manager > RM_LAST && !custom {
            return Err(Flaw::ResourceManager { found: self.manager });
        }
        Ok(())
    }

    /// The resource manager's operation: the high four bits of `info`.
    #[must_use]
    #[inline]
    pub fn operation(&self) -> u8 {
        self.info & 0xF0
    }

    /// The record may be an [`super::Event`], so its content is worth gathering.
    #[inline]
    pub(super) fn is_of_interest(&self) -> bool {
        match self.manager {
            RM_XACT => xact::is_of_interest(self.info),
            RM_XLOG => xlog::is_of_interest(self.operation()),
            RM_TBLSPC => tablespace::is_of_interest(self.operation()),
            RM_DBASE => database::is_of_interest(self.operation()),
            RM_HEAP => heap::is_truncate(self.info),
            _ => false,
        }
    }

    /// A segment switch: nothing follows in the segment.
    #[inline]
    pub(super) fn is_switch(&self) -> bool {
        self.manager == RM_XLOG && self.operation() == xlog::SWITCH
    }
}

/// A length that no record can have.
#[inline]
pub(super) fn check_length(length: u32) -> Result<(), Flaw> {
    if (length as usize) < HEADER_SIZE || length > MAX_LENGTH {
        return Err(Flaw::RecordLength { found: length });
    }
    Ok(())
}

/// What a record of interest says. `body` is what follows the header, perhaps cut at its end.
///
/// Returns the transaction and the kind of event. `None` if the content is not what the operation has in any known
/// version.
pub(super) fn read_event(header: &RecordHeader, body: &[u8], major: PostgresMajor) -> Option<(Xid, EventKind)> {
    let RecordContent { data, data_whole: whole, .. } = RecordContent::of_body(header, body, major)?;
    match header.manager {
        RM_XACT => xact::read(header, data, whole, major),
        RM_XLOG => xlog::read(header.operation(), data).map(|kind| (header.xid, kind)),
        RM_TBLSPC => tablespace::read(header.operation(), data).map(|kind| (header.xid, kind)),
        RM_DBASE => database::read(header.operation(), data, major).map(|kind| (header.xid, kind)),
        RM_HEAP => heap::read_truncate(data).map(|kind| (header.xid, kind)),
        _ => None,
    }
}
