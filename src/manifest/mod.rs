//! The manifest of a base backup: what it contains and where every byte of it is stored.
//!
//! Layer 2 (formats). A manifest is one LZ4 frame of JSON lines: a header, one line for every directory, link and file in the
//! order in which the server sent them, one for the stop of the backup, and a last line with counts and a checksum over
//! all lines before it. It is written and read as a stream, so that memory does not grow with the database. It is the
//! commit point of a backup: where it is missing, or does not end as it should, there is no backup.
//! `docs/FORMAT.md` has the fields. [`server`] reads PostgreSQL's own `backup_manifest`, which is another thing, [`server_merge`]
//! makes that of a full backup of an incremental one's, and [`server_writer`] writes one where no server does; [`place`] says what a
//! file is by its path.

pub mod place;
mod reader;
pub mod server;
pub mod server_merge;
pub mod server_writer;
#[cfg(test)]
mod tests;
mod types;
mod writer;

pub use reader::{ManifestError, ManifestReader, fuzz};
pub use types::{
    BadPages, ConfigFile, Directory, FileEntry, MANIFEST_FORMAT, MAX_CHUNKS_PER_LINE, ManifestEnd, ManifestHeader,
    ManifestLine, ManifestStop, Symlink,
};
pub use writer::ManifestWriter;
