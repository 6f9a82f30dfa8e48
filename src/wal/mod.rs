//! The write-ahead log as PostgreSQL writes it: positions, names, pages, records, timelines, `pg_control`.
//!
//! Layer 1 (domain): bytes and values in, values out. No I/O, no clock, no error that is not about the bytes.
//! Start at [`Lsn`] and [`SegmentName`]; a segment's content is read by [`check_segment_header`], then
//! [`SegmentScanner`], which yields [`Event`]s and [`SegmentFacts`].

pub mod activity;
mod backup_label;
mod border;
mod bytes;
mod changed_blocks;
mod cluster_name;
mod content;
mod control_file;
mod damage;
mod database;
mod event;
mod facts;
mod file_name;
#[cfg(test)]
pub(crate) mod fixtures;
mod heap;
mod history;
mod ids;
mod image;
mod lsn;
pub mod names;
mod page;
mod pglz;
mod piece;
mod record;
mod record_crc;
mod record_start;
mod scan;
mod segment;
mod tablespace;
mod time;
mod xact;
mod xlog;

pub use backup_label::{BackupLabel, BackupLabelError, BackupSource, BackupStop};
pub use border::{Border, Continuity};
pub use changed_blocks::{ChangedBlocks, ChangedBlocksReader, NotProved};
pub use cluster_name::ClusterName;
pub use content::{BlockReference, RecordContent};
pub use control_file::{CONTROL_FILE_READ_SIZE, ClusterState, ControlFile, ControlFileError};
pub use damage::{Damage, Flaw};
pub use event::{Event, EventKind, RelationFile, ServerLimits, TransactionEnd, WalLevel};
pub use facts::{SegmentEnding, SegmentFacts};
pub use file_name::WalFileName;
pub use heap::{HeapChange, HeapChangeKind, HeapTuple, MultiInsert, TUPLE_HEADER_SIZE, UpdatedTuple, is_heap_change};
pub use history::{HistoryEntry, HistoryError, TimelineHistory};
pub use ids::{PostgresMajor, SystemIdentifier, TimelineId, Xid};
pub use image::{BlockImage, DATA_PAGE_SIZE, ImageCompression, ImageError};
pub use lsn::Lsn;
pub use page::{HeaderError, LONG_HEADER_SIZE, SegmentHeader, WAL_PAGE_SIZE, check_segment_header};
pub use piece::{Borders, HeadPiece, Joined, PIECE_BYTES_LIMIT, TailPiece, join};
pub use record::{EventsTo, RawRecord, RecordHeader, RecordVisitor};
pub use record_start::{RecordStart, first_record_on_page};
pub use scan::{Completeness, SegmentScan, SegmentScanner, scan_segment, scan_segment_for};
pub use segment::{SegmentGroup, SegmentName, SegmentNo, SegmentSize};
pub use time::PgTime;

/// A text or number that is not the name it was given for.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NameError {
    /// Not `16/B374D848`.
    #[error("\"{0}\" is not an LSN such as 16/B374D848")]
    Lsn(String),
    /// Not eight hexadecimal digits, or zero.
    #[error("\"{0}\" is not a timeline of eight hexadecimal digits")]
    Timeline(String),
    /// Not a positive decimal number of 64 bits.
    #[error("\"{0}\" is not a system identifier")]
    SystemIdentifier(String),
    /// Not a name that a cluster can have.
    #[error("\"{0}\" is not a cluster name (1 to 63 of a-z, 0-9, _ and -, not beginning with -)")]
    Cluster(String),
    /// Not a power of two from 1 MiB to 1 GiB.
    #[error("{0} bytes is not a WAL segment size (a power of two from 1 MiB to 1 GiB)")]
    SegmentSize(u32),
    /// Not 24 upper-case hexadecimal digits that any segment size allows.
    #[error("\"{0}\" is not the name of a WAL segment")]
    Segment(String),
    /// Not a segment, `.partial`, `.history` or `.backup` name.
    #[error("\"{0}\" is not the name of a WAL file")]
    WalFile(String),
    /// The name's last part is too large for the cluster's segment size.
    #[error("WAL segment \"{name}\" cannot belong to a cluster with segments of {} bytes", size.bytes())]
    SegmentSizeMismatch {
        /// The name.
        name: SegmentName,
        /// The cluster's segment size.
        size: SegmentSize,
    },
}
