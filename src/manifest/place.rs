//! What a file of a base backup is, by its path: which fork of which relation, or which kind of other file.
//!
//! The places are those of `relpath.c` and of the manual's "Database File Layout": `base/<database>` for `pg_default`, `global` for
//! what all databases share, `PG_<version>/<database>` below the location of every other tablespace.

use std::fmt;

use serde::Serialize;

use crate::chunk::EntryPath;
use crate::chunk::relation_file::{self, Fork, is_temporary};
use crate::wal::RelationFile;

/// Oid of `pg_default`.
pub const DEFAULT_TABLESPACE: u32 = 1663;
/// Oid of `pg_global`.
pub const GLOBAL_TABLESPACE: u32 = 1664;

/// A kind of file that is no relation's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileGroup {
    /// `postgresql.conf`, `pg_hba.conf` and what else ends so, in the data directory.
    Configuration,
    /// `pg_control`, maps of relations to files, version files: what makes the rest readable.
    Control,
    /// Which transactions committed: `pg_xact`, `pg_multixact`, `pg_commit_ts`, `pg_subtrans`, `pg_twophase`.
    Transactions,
    /// `pg_wal`.
    Wal,
    /// Slots and state of logical replication: `pg_logical`, `pg_replslot`.
    Replication,
    /// Counters and planner statistics kept in files: `pg_stat`, `pg_stat_tmp`.
    Statistics,
    /// What the backup itself brings: `backup_label`, `tablespace_map`, `backup_manifest`.
    Backup,
    /// The server's own log, if it is inside the data directory.
    Log,
    /// Temporary relations and files of sorts.
    Temporary,
    /// Anything else: what people or extensions put there.
    Other,
}

impl fmt::Display for FileGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileGroup::Configuration => "configuration",
            FileGroup::Control => "pg_control, maps, version files",
            FileGroup::Transactions => "transaction status",
            FileGroup::Wal => "WAL in the data directory",
            FileGroup::Replication => "replication slots and state",
            FileGroup::Statistics => "statistics files",
            FileGroup::Backup => "the backup's own label and manifest",
            FileGroup::Log => "server log",
            FileGroup::Temporary => "temporary files",
            FileGroup::Other => "other files",
        })
    }
}

/// What a file is, apart from where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A part of a relation.
    Relation {
        /// Which relation's.
        file: RelationFile,
        /// Which fork.
        fork: Fork,
        /// Which gibibyte of the fork, from 0.
        segment: u32,
    },
    /// Not a relation's.
    Other(FileGroup),
}

/// What a file is and to whom it belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FilePlace {
    /// Oid of the tablespace in which it is; `None` for what lies in the data directory but in no tablespace.
    pub tablespace: Option<u32>,
    /// Oid of the database that it belongs to, 0 for what all share; `None` if it belongs to the cluster as a whole.
    pub database: Option<u32>,
    /// What it is.
    pub kind: FileKind,
}

impl FilePlace {
    /// What the file at this path is; `tablespace` is the oid that the manifest has beside the path.
    #[must_use]
    pub fn of(path: &EntryPath, tablespace: Option<u32>) -> FilePlace {
        let in_cluster = |group| FilePlace { tablespace, database: None, kind: FileKind::Other(group) };
        let Ok(text) = std::str::from_utf8(path.as_bytes()) else { return in_cluster(FileGroup::Other) };
        let parts: Vec<&str> = text.split('/').collect();
        let in_directory =
            |above: &str, name: &str| relation_file::database(above.as_bytes(), name.as_bytes(), tablespace.is_some());
        let (oid, database, name) = match (tablespace, parts.as_slice()) {
            (None, ["global", name]) => (GLOBAL_TABLESPACE, Some(0), *name),
            (None, ["base", database, name]) => (DEFAULT_TABLESPACE, in_directory("base", database), *name),
            (Some(oid), [version, database, name]) if version.starts_with("PG_") => {
                (oid, in_directory(version, database), *name)
            }
            (None, _) => return in_cluster(group_of(&parts)),
            (Some(_), _) => return in_cluster(FileGroup::Other),
        };
        let group = if database.is_none() || is_temporary(name.as_bytes()) {
            FileGroup::Temporary
        } else if is_control(name) {
            FileGroup::Control
        } else {
            FileGroup::Other
        };
        let relation = database.and_then(|database| relation(oid, database, name));
        FilePlace { tablespace: Some(oid), database, kind: relation.unwrap_or(FileKind::Other(group)) }
    }
}

/// A file by 128 bits of its name, which bounds the memory of a large cluster.
#[must_use]
pub fn file_key(path: &EntryPath, tablespace: Option<u32>) -> u128 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&tablespace.map_or(u64::MAX, u64::from).to_le_bytes());
    hasher.update(path.as_bytes());
    let mut key = [0; 16];
    hasher.finalize_xof().fill(&mut key);
    u128::from_le_bytes(key)
}

fn is_control(name: &str) -> bool {
    matches!(name, "pg_control" | "pg_filenode.map" | "pg_internal.init" | "PG_VERSION")
}

fn relation(tablespace: u32, database: u32, name: &str) -> Option<FileKind> {
    let relation_file::RelationFile { number, fork, segment } = relation_file::RelationFile::parse(name.as_bytes())?;
    Some(FileKind::Relation { file: RelationFile { tablespace, database, relation: number }, fork, segment })
}

/// Files of the data directory that are in no tablespace.
fn group_of(parts: &[&str]) -> FileGroup {
    let last = parts.last().copied().unwrap_or_default();
    match parts.first().copied().unwrap_or_default() {
        "pg_xact" | "pg_multixact" | "pg_commit_ts" | "pg_subtrans" | "pg_twophase" => FileGroup::Transactions,
        "pg_wal" => FileGroup::Wal,
        "pg_logical" | "pg_replslot" => FileGroup::Replication,
        "pg_stat" | "pg_stat_tmp" => FileGroup::Statistics,
        "backup_label" | "tablespace_map" | "backup_manifest" => FileGroup::Backup,
        "log" | "pg_log" => FileGroup::Log,
        "base" => FileGroup::Temporary,
        "PG_VERSION" => FileGroup::Control,
        _ if last.ends_with(".conf") => FileGroup::Configuration,
        _ => FileGroup::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, tablespace: Option<u32>) -> FilePlace {
        FilePlace::of(&EntryPath::new(path.as_bytes()).expect("a good path"), tablespace)
    }

    /// Promise: every fork and segment of a relation is known as its own, wherever it lies.
    #[test]
    fn relations() {
        let file = |tablespace, database, relation| RelationFile { tablespace, database, relation };
        for (path, tablespace, expected, fork, segment) in [
            ("global/1262", None, file(1664, 0, 1262), Fork::Main, 0),
            ("base/5/1259", None, file(1663, 5, 1259), Fork::Main, 0),
            ("base/5/1259.12", None, file(1663, 5, 1259), Fork::Main, 12),
            ("base/5/1259_fsm", None, file(1663, 5, 1259), Fork::FreeSpace, 0),
            ("base/5/1259_vm.1", None, file(1663, 5, 1259), Fork::Visibility, 1),
            ("base/5/16400_init", None, file(1663, 5, 16400), Fork::Init, 0),
            ("PG_15_202209061/5/1259", Some(16390), file(16390, 5, 1259), Fork::Main, 0),
        ] {
            let found = place(path, tablespace);
            assert_eq!(found.kind, FileKind::Relation { file: expected, fork, segment }, "{path}");
            assert_eq!((found.tablespace, found.database), (Some(expected.tablespace), Some(expected.database)));
        }
    }

    /// Promise: what is no relation's file is not taken for one, and is in the group that people look for it in.
    #[test]
    fn others() {
        for (path, tablespace, database, group) in [
            ("postgresql.auto.conf", None, None, FileGroup::Configuration),
            ("conf.d/10-memory.conf", None, None, FileGroup::Configuration),
            ("PG_VERSION", None, None, FileGroup::Control),
            ("global/pg_control", Some(1664), Some(0), FileGroup::Control),
            ("base/5/pg_filenode.map", Some(1663), Some(5), FileGroup::Control),
            ("base/5/PG_VERSION", Some(1663), Some(5), FileGroup::Control),
            ("base/5/t3_16384", Some(1663), Some(5), FileGroup::Temporary),
            ("base/pgsql_tmp/pgsql_tmp12.0", Some(1663), None, FileGroup::Temporary),
            ("base/5/012", Some(1663), Some(5), FileGroup::Other),
            ("base/5/12_x", Some(1663), Some(5), FileGroup::Other),
            ("pg_xact/0000", None, None, FileGroup::Transactions),
            ("pg_multixact/members/0000", None, None, FileGroup::Transactions),
            ("pg_wal/000000010000000000000001", None, None, FileGroup::Wal),
            ("pg_replslot/a/state", None, None, FileGroup::Replication),
            ("pg_stat/pgstat.stat", None, None, FileGroup::Statistics),
            ("backup_label", None, None, FileGroup::Backup),
            ("log/postgresql.log", None, None, FileGroup::Log),
            ("server.key", None, None, FileGroup::Other),
        ] {
            let found = place(path, None);
            assert_eq!(found, FilePlace { tablespace, database, kind: FileKind::Other(group) }, "{path}");
        }
        // Below another tablespace nothing but PG_<version> is PostgreSQL's.
        let foreign = FilePlace { tablespace: Some(9), database: None, kind: FileKind::Other(FileGroup::Other) };
        assert_eq!(place("base/5/1259", Some(9)), foreign);
    }
}
