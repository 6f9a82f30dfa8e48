//! The lines of a manifest.

use serde::{Deserialize, Serialize};

use crate::catalog::{BackupId, Tablespace, WalRange};
use crate::chunk::relation_file::RelationFile;
use crate::chunk::{ChunkRef, EntryPath};
use crate::wal::{BackupSource, Lsn, PgTime, PostgresMajor, SegmentSize, SystemIdentifier, TimelineId};

/// The version of the manifest that this program writes and reads.
pub const MANIFEST_FORMAT: u32 = 1;

/// The most chunks that one file line names: those of 1 GiB. A larger file has several lines.
pub const MAX_CHUNKS_PER_LINE: usize = 2048;

/// The first line: what was known when the backup began.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ManifestHeader {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The backup.
    pub id: BackupId,
    /// The cluster's name in the repository.
    pub cluster: String,
    /// The cluster's system identifier.
    pub system_identifier: SystemIdentifier,
    /// The server's major version.
    pub postgres_major: PostgresMajor,
    /// The server's full version, such as `16.14`.
    pub postgres_version: String,
    /// The cluster's WAL segment size in bytes.
    pub segment_size: SegmentSize,
    /// The cluster's block size in bytes.
    pub block_size: u32,
    /// Whether the cluster has data page checksums.
    pub page_checksums: bool,
    /// The backup's label.
    pub label: String,
    /// Redo point of the backup's checkpoint.
    pub start_lsn: Lsn,
    /// Timeline of the start.
    pub start_timeline: TimelineId,
    /// When the backup began, by the clock of the machine that took it.
    pub start_time: PgTime,
    /// Tablespaces.
    pub tablespaces: Vec<Tablespace>,
    /// How chunks are compressed: `lz4`, or `zstd:` and the level. Each frame tells for itself.
    pub compression: String,
    /// The version of this program.
    pub tool_version: String,
    /// Backups whose packs hold chunks of this one; the first is the backup itself.
    pub pack_sources: Vec<BackupId>,
}

/// What a manifest lists, between header and stop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ManifestLine {
    /// A directory; comes before what is in it.
    Directory(Directory),
    /// The link of a tablespace.
    Symlink(Symlink),
    /// A file, or the next gibibyte of one.
    File(FileEntry),
    /// A configuration file from outside the data directory.
    Config(ConfigFile),
}

/// A directory.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Directory {
    /// Path below the data directory, or below the tablespace's location.
    pub path: EntryPath,
    /// OID of the tablespace; absent for the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<u32>,
    /// Permission bits.
    pub mode: u32,
}

/// A symbolic link below `pg_tblspc`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Symlink {
    /// Path below the data directory.
    pub path: EntryPath,
    /// Where it pointed on the server.
    pub target: String,
}

/// A file, or a part of one with more than [`MAX_CHUNKS_PER_LINE`] chunks; the parts follow each other.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileEntry {
    /// Path below the data directory, or below the tablespace's location.
    pub path: EntryPath,
    /// OID of the tablespace; absent for the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<u32>,
    /// Permission bits.
    pub mode: u32,
    /// Bytes in the whole file.
    pub size: u64,
    /// Last modification on the server, in seconds since the Unix epoch.
    pub modified_at: i64,
    /// Where in the file the first chunk of this line belongs, in bytes; 0 except in later parts.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub from: u64,
    /// The content from there on, one chunk after the other without gaps.
    pub chunks: Vec<ChunkRef>,
    /// CRC-32C of the whole file, eight hexadecimal digits, in the last part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc32c: Option<String>,
}

impl FileEntry {
    /// The byte of the file after this line's last chunk; equals `size` in the last part.
    #[must_use]
    pub fn to(&self) -> u64 {
        self.chunks.iter().fold(self.from, |at, chunk| at.saturating_add(u64::from(chunk.raw_length)))
    }

    /// OID of the database in whose directory the file lies; `None` for what all databases share.
    #[must_use]
    pub fn database(&self) -> Option<u32> {
        self.path.in_database(self.tablespace.is_some()).map(|(database, _)| database)
    }

    /// The file belongs to a relation of one database: not to what is shared, and no map, version or other small file.
    #[must_use]
    pub fn is_relation(&self) -> bool {
        self.path.in_database(self.tablespace.is_some()).is_some_and(|(_, name)| RelationFile::parse(name).is_some())
    }

    /// The file that says of which version a database is: without it nobody can connect to the database (`ValidatePgVersion`).
    #[must_use]
    pub fn is_version_of_database(&self) -> bool {
        self.path.in_database(self.tablespace.is_some()).is_some_and(|(_, name)| name == b"PG_VERSION")
    }
}

// The signature is what serde's attribute asks for.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A configuration file that lives outside the data directory, as Debian's do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Its absolute path on the server.
    pub source: String,
    /// Bytes in the file; 0 if it could not be read.
    pub size: u64,
    /// The content.
    pub chunks: Vec<ChunkRef>,
    /// Why it could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// The line before the last: what was known when the server had sent everything.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ManifestStop {
    /// Primary or standby, as `backup_label` says.
    pub source: BackupSource,
    /// Replay must reach this before the copy is consistent.
    pub stop_lsn: Lsn,
    /// Timeline of the stop.
    pub stop_timeline: TimelineId,
    /// When the server had sent everything, by the clock of the machine that took the backup.
    pub stop_time: PgTime,
    /// Everything that must be replayed to become consistent.
    pub wal_ranges: Vec<WalRange>,
    /// Files with data pages whose checksum did not match, the first thousand of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_pages: Vec<BadPages>,
}

/// Damaged data pages of one file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct BadPages {
    /// The file, as in its own line.
    pub path: EntryPath,
    /// OID of its tablespace; absent for the data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tablespace: Option<u32>,
    /// Blocks, counted from the beginning of the relation fork as the server counts them; the first thousand.
    pub blocks: Vec<u32>,
}

/// The last line.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ManifestEnd {
    /// Directory lines.
    pub directories: u64,
    /// Link lines.
    pub symlinks: u64,
    /// Files, parts of one counted once.
    pub files: u64,
    /// Bytes of all files.
    pub raw_bytes: u64,
    /// Chunks of all files, configuration included.
    pub chunks: u64,
    /// SHA-256 over the bytes of all lines before this one, with their line feeds.
    pub sha256: String,
}

/// Any line, as it is in JSON: an object with one member that names its kind.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Line {
    Header(ManifestHeader),
    Directory(Directory),
    Symlink(Symlink),
    File(FileEntry),
    Config(ConfigFile),
    Stop(ManifestStop),
    End(ManifestEnd),
}

impl ManifestEnd {
    /// Counts one line.
    pub(super) fn count(&mut self, line: &Line) {
        match line {
            Line::Directory(_) => self.directories += 1,
            Line::Symlink(_) => self.symlinks += 1,
            Line::File(file) => {
                if file.from == 0 {
                    self.files += 1;
                    self.raw_bytes = self.raw_bytes.saturating_add(file.size);
                }
                self.chunks += file.chunks.len() as u64;
            }
            Line::Config(file) => self.chunks += file.chunks.len() as u64,
            Line::Header(_) | Line::Stop(_) | Line::End(_) => {}
        }
    }
}
