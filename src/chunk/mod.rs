//! What a base backup is made of: the server's tar stream, cut into chunks that have an identity of their own.
//!
//! Layer 2 (formats): bytes in, values out; no sockets, no files. [`tar`] reads the stream, [`incremental`] what servers send in place of whole files, [`cut`] cuts file content
//! into chunks, [`change`] finds what of one is new, [`page`] checks the data pages in them, [`relation_file`] knows which files have such, [`frame`] compresses them, [`pack`] describes many of them in
//! one object, [`ChunkRef`] is how a manifest names one. Who moves the bytes is `command::backup` and `repository`.
//!
//! # Why fixed boundaries, and why these
//! PostgreSQL changes pages in place and never shifts them, so content-defined boundaries would cost a pass over
//! the data and find nothing. A chunk is [`CHUNK_BYTES`]: 64 pages, a whole number of which fill PostgreSQL's
//! 1 GiB relation segments. Larger chunks would be stored anew more often for the same few changed pages and make a
//! restore fetch more for one page; smaller ones cost manifest lines (150 bytes each) and compress worse: the matches of
//! LZ4 reach back 64 KiB, so at 512 KiB nearly all of them are found.

pub mod change;
pub mod cut;
pub mod frame;
mod identity;
pub mod incremental;
pub mod pack;
pub mod page;
mod path;
mod reference;
pub mod relation_file;
pub mod tar;

pub use identity::{ChunkId, PageHash, identify};
pub use path::{EntryPath, PathError};
pub(crate) use path::{from_hex, to_hex};
pub use reference::{ChunkContent, ChunkError, ChunkRef, MAX_PAGE_SETS, PageSet, Place, assemble};

/// Bytes in every chunk of a file but its last.
pub const CHUNK_BYTES: usize = 512 << 10;

/// Bytes in a page as hashes and page sets count them: PostgreSQL's default block size. A cluster with other blocks is
/// stored just as well, only its changed blocks are found in steps of this size.
pub const PAGE_BYTES: usize = 8192;

/// Pages in a full chunk.
pub const PAGES_PER_CHUNK: usize = CHUNK_BYTES / PAGE_BYTES;
