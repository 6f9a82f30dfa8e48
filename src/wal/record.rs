//! WAL records: header, checksum, and where the main data is.
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
use super::{EventKind, Flaw, Lsn, PostgresMajor, Xid, tablespace, xact, xlog};

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
/// `RM_TBLSPC_ID`
const RM_TBLSPC: u8 = 5;
/// The last built-in resource manager, `RM_LOGICALMSG_ID`.
const RM_LAST: u8 = 21;
/// The first number for resource managers of extensions (15 and later).
const RM_FIRST_CUSTOM: u8 = 128;

/// Block reference ids that are none: main data with a length of one or four bytes, origin, top-level transaction.
const ID_DATA_SHORT: u8 = 255;
const ID_DATA_LONG: u8 = 254;
const ID_ORIGIN: u8 = 253;
const ID_TOPLEVEL_XID: u8 = 252;

/// A record's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RecordHeader {
    pub(super) length: u32,
    pub(super) xid: Xid,
    pub(super) previous: Lsn,
    pub(super) info: u8,
    pub(super) manager: u8,
    pub(super) crc: u32,
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

    /// The resource manager's operation.
    #[inline]
    pub(super) fn operation(&self) -> u8 {
        self.info & 0xF0
    }

    /// The record may be an [`super::Event`], so its content is worth gathering.
    #[inline]
    pub(super) fn is_of_interest(&self) -> bool {
        match self.manager {
            RM_XACT => xact::is_of_interest(self.info),
            RM_XLOG => xlog::is_of_interest(self.operation()),
            RM_TBLSPC => tablespace::is_of_interest(self.operation()),
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

/// The record's checksum: `body` is the CRC-32C of what follows the header.
#[inline]
pub(super) fn finish_crc(body: u32, header: &[u8]) -> u32 {
    crc32c::crc32c_append(body, &header[..CRC_OFFSET])
}

/// The main data of a record without block references, from the bytes after its header; and whether it is all there.
///
/// `body` may be cut at its end. `None` for a record with block references: none of interest has any.
fn main_data(body: &[u8]) -> Option<(&[u8], bool)> {
    let mut at = 0;
    loop {
        let id = *body.get(at)?;
        at += 1;
        let length = match id {
            ID_ORIGIN => {
                at += 2;
                continue;
            }
            ID_TOPLEVEL_XID => {
                at += 4;
                continue;
            }
            ID_DATA_SHORT => {
                at += 1;
                usize::from(*body.get(at - 1)?)
            }
            ID_DATA_LONG => {
                at += 4;
                u32_at(body, at - 4)? as usize
            }
            _ => return None,
        };
        let data = body.get(at..)?;
        return Some((data.get(..length).unwrap_or(data), data.len() >= length));
    }
}

/// What a record of interest says. `body` is what follows the header, perhaps cut at its end.
///
/// Returns the transaction and the kind of event. `None` if the content is not what the operation has in any known
/// version.
pub(super) fn read_event(header: &RecordHeader, body: &[u8], major: PostgresMajor) -> Option<(Xid, EventKind)> {
    let (data, whole) = main_data(body)?;
    match header.manager {
        RM_XACT => xact::read(header, data, whole, major),
        RM_XLOG => xlog::read(header.operation(), data).map(|kind| (header.xid, kind)),
        RM_TBLSPC => tablespace::read(header.operation(), data).map(|kind| (header.xid, kind)),
        _ => None,
    }
}
