//! Bytes of stored WAL files: compressed frames that the lz4 and zstd tools read, and the description behind them.
//!
//! Layer 2 (formats): bytes to types and back, through `Read` and `Write`; no sockets, no files of its own. The byte
//! tables are in `docs/FORMAT.md`. A stored WAL file ([`stored`]) is
//!
//! ```text
//! | body: one LZ4 or Zstandard frame | details: skippable frame | footer: skippable frame, 264 bytes |
//! ```
//!
//! so the body can be compressed before anything about it is known, and one read of the last bytes tells everything
//! about an object. What the records mean is `wal`'s business, where objects lie `repository`'s.

mod compression;
mod details;
pub(crate) mod fields;
mod footer;
pub mod skippable;
pub mod stored;

pub(crate) use compression::Whole;
pub use compression::{Compression, CompressionError, LZ4_MAGIC, ZSTD_MAGIC, read_frame, unpack_frame};
pub use details::{DamageNote, Details, INDEX_LIMIT_BYTES, Origin};
pub use footer::{FOOTER_FRAME_BYTES, Footer, FooterError};
