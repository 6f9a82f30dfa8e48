//! Page headers of WAL segments, and the check that a file is the segment its name says.
//!
//! Every page of 8192 bytes begins with a short header; the first page of a segment with a long one
//! (`XLogPageHeaderData` and `XLogLongPageHeaderData` in `xlog_internal.h`):
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 2 | magic, one for each major version |
//! | 2 | 2 | flags: 1 continues a record, 2 long header, 4 backup blocks removable, 8 overwrites a broken record |
//! | 4 | 4 | timeline of the page's first record |
//! | 8 | 8 | LSN of the page |
//! | 16 | 4 | bytes still to come of the record that the page continues |
//! | 20 | 4 | padding: end of the short header |
//! | 24 | 8 | system identifier (long header only, like the next two) |
//! | 32 | 4 | segment size |
//! | 36 | 4 | page size (`XLOG_BLCKSZ`) |

use super::bytes::{u16_at, u32_at, u64_at};
use super::{Lsn, NameError, PostgresMajor, SegmentName, SegmentNo, SegmentSize, SystemIdentifier, TimelineId};

/// Bytes in a WAL page: `XLOG_BLCKSZ` as every common build has it. Others are refused ([`HeaderError::PageSize`]).
pub const WAL_PAGE_SIZE: usize = 8192;

/// Bytes that [`check_segment_header`] needs to see: the long page header.
pub const LONG_HEADER_SIZE: usize = 40;

/// Bytes of the header on every page but a segment's first.
pub(super) const SHORT_HEADER_SIZE: usize = 24;

/// The page begins with the rest of a record.
pub(super) const FIRST_IS_CONTRECORD: u16 = 1;
/// The page has a long header.
pub(super) const LONG_HEADER: u16 = 2;
/// The page begins with a record that replaces one whose end was lost in a crash.
pub(super) const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 8;
/// All flags that PostgreSQL 13 to 18 know (`XLP_ALL_FLAGS`).
pub(super) const ALL_FLAGS: u16 = 15;

/// The short header, as it stands on the page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PageHeader {
    pub(super) magic: u16,
    pub(super) flags: u16,
    pub(super) timeline: u32,
    pub(super) address: Lsn,
    pub(super) remaining: u32,
}

impl PageHeader {
    /// Reads the first 24 bytes of a page; `None` if there are fewer.
    pub(super) fn read(page: &[u8]) -> Option<Self> {
        Some(PageHeader {
            magic: u16_at(page, 0)?,
            flags: u16_at(page, 2)?,
            timeline: u32_at(page, 4)?,
            address: Lsn(u64_at(page, 8)?),
            remaining: u32_at(page, 16)?,
        })
    }

    pub(super) fn continues_record(self) -> bool {
        self.flags & FIRST_IS_CONTRECORD != 0
    }

    pub(super) fn overwrites_record(self) -> bool {
        self.flags & FIRST_IS_OVERWRITE_CONTRECORD != 0
    }
}

/// What the first page of a segment says, after [`check_segment_header`] found that it fits the file's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// The name that the header was checked against.
    pub name: SegmentName,
    /// The segment's number in its cluster.
    pub number: SegmentNo,
    /// LSN of the segment's first byte.
    pub start: Lsn,
    /// The server version that wrote it.
    pub major: PostgresMajor,
    /// Timeline of the first record on the first page: the file's, or an ancestor of it in the segment where the
    /// file's timeline began.
    pub first_timeline: TimelineId,
    /// The cluster that wrote it. The caller compares it with the one it works for.
    pub system_identifier: SystemIdentifier,
    /// The cluster's segment size, equal to the file's length.
    pub segment_size: SegmentSize,
}

impl SegmentHeader {
    /// LSN of the byte after the segment's last.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.number.end(self.segment_size)
    }
}

/// Why a file is not the WAL segment that its name says.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than a long page header.
    #[error("WAL file \"{name}\" has only {found} bytes")]
    TooShort {
        /// The file's name.
        name: SegmentName,
        /// Its length in bytes.
        found: u64,
    },
    /// The first page is zero: the file was allocated, and nothing was written to it yet.
    #[error("WAL file \"{name}\" begins with zeros: nothing was written to it yet")]
    NotWritten {
        /// The file's name.
        name: SegmentName,
    },
    /// Not WAL, or of a version that this program does not know.
    #[error("WAL file \"{name}\" begins with page magic {found:#06X}, which no PostgreSQL from 13 to 18 writes")]
    Magic {
        /// The file's name.
        name: SegmentName,
        /// The first two bytes.
        found: u16,
    },
    /// The first page lacks the long header's flag, or has flags that no known version sets.
    #[error("WAL file \"{name}\" does not begin with the first page of a segment (page flags {flags:#06X})")]
    NotFirstPage {
        /// The file's name.
        name: SegmentName,
        /// The page's flags.
        flags: u16,
    },
    /// A page size other than 8192 bytes.
    #[error("WAL file \"{name}\" has pages of {found} bytes; only {WAL_PAGE_SIZE} are supported")]
    PageSize {
        /// The file's name.
        name: SegmentName,
        /// What the header says.
        found: u32,
    },
    /// The header's segment size is none, or the name cannot belong to a cluster with it.
    #[error("WAL file \"{name}\": {source}")]
    SegmentSize {
        /// The file's name.
        name: SegmentName,
        /// What is wrong with the size.
        source: NameError,
    },
    /// The file is cut short or too long.
    #[error("WAL file \"{name}\" has {found} bytes, but a segment of its cluster has {expected}")]
    Length {
        /// The file's name.
        name: SegmentName,
        /// The header's segment size in bytes.
        expected: u64,
        /// The file's length in bytes.
        found: u64,
    },
    /// The page's address is earlier than the name's: a file renamed for reuse, whose new content is not there yet.
    #[error(
        "WAL file \"{name}\" should begin at {expected}, but its first page is of {found}: a recycled file that was not written yet"
    )]
    Recycled {
        /// The file's name.
        name: SegmentName,
        /// Where a segment of this name begins.
        expected: Lsn,
        /// The old page's address.
        found: Lsn,
    },
    /// The page's address is later than the name's: the file has another segment's name.
    #[error("WAL file \"{name}\" should begin at {expected}, but its first page is of {found}")]
    Address {
        /// The file's name.
        name: SegmentName,
        /// Where a segment of this name begins.
        expected: Lsn,
        /// The page's address.
        found: Lsn,
    },
    /// The page's timeline is later than the name's (or 0): the file has another timeline's name.
    #[error("WAL file \"{name}\" is named for timeline {}, but its first page is of timeline {found}", name.timeline())]
    Timeline {
        /// The file's name.
        name: SegmentName,
        /// The page's timeline.
        found: u32,
    },
    /// The system identifier is 0, which no cluster has.
    #[error("WAL file \"{name}\" carries no system identifier")]
    SystemIdentifier {
        /// The file's name.
        name: SegmentName,
    },
}

/// Checks that a file is the segment its name says: version, page size, length, address and timeline.
///
/// `first` is the beginning of the file, at least [`LONG_HEADER_SIZE`] bytes; `length` is the whole file's.
/// A `.partial` has the full length too, and is checked by the same rules. The system identifier is returned for the
/// caller to compare: it knows which cluster it works for.
///
/// # Errors
/// The first of the [`HeaderError`]s that applies.
pub fn check_segment_header(first: &[u8], name: SegmentName, length: u64) -> Result<SegmentHeader, HeaderError> {
    let short = || HeaderError::TooShort { name, found: length };
    let page = PageHeader::read(first).ok_or_else(short)?;
    let identifier = u64_at(first, 24).ok_or_else(short)?;
    let size = u32_at(first, 32).ok_or_else(short)?;
    let page_size = u32_at(first, 36).ok_or_else(short)?;

    if first[..LONG_HEADER_SIZE].iter().all(|byte| *byte == 0) {
        return Err(HeaderError::NotWritten { name });
    }
    let major = PostgresMajor::from_page_magic(page.magic).ok_or(HeaderError::Magic { name, found: page.magic })?;
    if page.flags & LONG_HEADER == 0 || page.flags & !ALL_FLAGS != 0 {
        return Err(HeaderError::NotFirstPage { name, flags: page.flags });
    }
    if page_size as usize != WAL_PAGE_SIZE {
        return Err(HeaderError::PageSize { name, found: page_size });
    }
    let wrong_size = |source| HeaderError::SegmentSize { name, source };
    let segment_size = SegmentSize::try_from(size).map_err(wrong_size)?;
    let number = name.number(segment_size).map_err(wrong_size)?;
    if length != segment_size.bytes() {
        return Err(HeaderError::Length { name, expected: segment_size.bytes(), found: length });
    }
    let start = number.start(segment_size);
    if page.address < start {
        return Err(HeaderError::Recycled { name, expected: start, found: page.address });
    }
    if page.address > start {
        return Err(HeaderError::Address { name, expected: start, found: page.address });
    }
    // The page carries the timeline of its first record. A timeline that begins inside this segment copied the
    // beginning from its parent, so the page's may be earlier than the name's, never later.
    if page.timeline == 0 || page.timeline > name.timeline().0 {
        return Err(HeaderError::Timeline { name, found: page.timeline });
    }
    if identifier == 0 {
        return Err(HeaderError::SystemIdentifier { name });
    }
    Ok(SegmentHeader {
        name,
        number,
        start,
        major,
        first_timeline: TimelineId(page.timeline),
        system_identifier: SystemIdentifier(identifier),
        segment_size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> SegmentName {
        "000000020000000100000003".parse().expect("a valid name")
    }

    const LENGTH: u64 = 16 << 20;

    fn header() -> [u8; LONG_HEADER_SIZE] {
        let mut page = [0; LONG_HEADER_SIZE];
        page[0..2].copy_from_slice(&0xD110u16.to_le_bytes());
        page[2..4].copy_from_slice(&7u16.to_le_bytes());
        page[4..8].copy_from_slice(&1u32.to_le_bytes());
        page[8..16].copy_from_slice(&0x1_0300_0000u64.to_le_bytes());
        page[24..32].copy_from_slice(&7_000_000_000_000_000_001u64.to_le_bytes());
        page[32..36].copy_from_slice(&(16u32 << 20).to_le_bytes());
        page[36..40].copy_from_slice(&8192u32.to_le_bytes());
        page
    }

    /// A segment in which its timeline began still carries the parent's timeline on its first page, and is accepted.
    #[test]
    fn accepted() {
        let found = check_segment_header(&header(), name(), LENGTH).expect("a good header");
        assert_eq!(found.major, PostgresMajor(15));
        assert_eq!(found.first_timeline, TimelineId(1));
        assert_eq!(found.system_identifier, SystemIdentifier(7_000_000_000_000_000_001));
        assert_eq!((found.start, found.end()), (Lsn(0x1_0300_0000), Lsn(0x1_0400_0000)));
    }

    /// Each way in which a file can be another than its name says is told apart.
    #[test]
    #[allow(clippy::type_complexity)] // A table reads better inline than behind a type alias.
    fn refused() {
        let start = Lsn(0x1_0300_0000);
        let rows: &[(&str, &dyn Fn(&mut [u8]), HeaderError)] = &[
            ("zero", &|p| p.fill(0), HeaderError::NotWritten { name: name() }),
            ("magic", &|p| p[0] = 0x22, HeaderError::Magic { name: name(), found: 0xD122 }),
            ("short header", &|p| p[2] = 1, HeaderError::NotFirstPage { name: name(), flags: 1 }),
            ("unknown flag", &|p| p[2] = 0x12, HeaderError::NotFirstPage { name: name(), flags: 0x12 }),
            ("page size", &|p| p[37] = 0x40, HeaderError::PageSize { name: name(), found: 16384 }),
            (
                "segment size",
                &|p| p[32] = 1,
                HeaderError::SegmentSize { name: name(), source: NameError::SegmentSize((16 << 20) + 1) },
            ),
            ("cut short", &|p| p[35] = 2, HeaderError::Length { name: name(), expected: 32 << 20, found: LENGTH }),
            (
                "recycled",
                &|p| p[11] = 2,
                HeaderError::Recycled { name: name(), expected: start, found: Lsn(0x1_0200_0000) },
            ),
            (
                "renamed",
                &|p| p[11] = 4,
                HeaderError::Address { name: name(), expected: start, found: Lsn(0x1_0400_0000) },
            ),
            ("timeline", &|p| p[4] = 3, HeaderError::Timeline { name: name(), found: 3 }),
            ("no timeline", &|p| p[4] = 0, HeaderError::Timeline { name: name(), found: 0 }),
            ("no identifier", &|p| p[24..32].fill(0), HeaderError::SystemIdentifier { name: name() }),
        ];
        for (what, change, expected) in rows {
            let mut page = header();
            change(&mut page);
            assert_eq!(check_segment_header(&page, name(), LENGTH), Err(expected.clone()), "{what}");
        }
        let cut = check_segment_header(&header()[..39], name(), 39);
        assert_eq!(cut, Err(HeaderError::TooShort { name: name(), found: 39 }));
    }

    /// A name of a 1 MiB cluster is not accepted for a header that says 16 MiB.
    #[test]
    fn name_of_another_segment_size() {
        let small: SegmentName = "000000020000000100000FFF".parse().expect("valid for 1 MiB segments");
        let refused = check_segment_header(&header(), small, LENGTH);
        assert!(matches!(refused, Err(HeaderError::SegmentSize { .. })), "{refused:?}");
    }
}
