//! What of a data directory does not belong into a base backup.
//!
//! The rules are the server's own (`basebackup.c`: `excludeFiles`, `excludeDirContents`, `sendDir`); the manual has them under "Backing Up
//! The Data Directory". Beyond them go `.DS_Store` of macOS and what a server leaves of the backup that it was started from.

use std::collections::HashSet;

use crate::chunk::EntryPath;
use crate::chunk::relation_file::{Fork, RelationFile, is_database_directory, is_temporary};

/// Directories that are kept empty: their content is made anew at every start, or is of no use to another server.
const EMPTY: [&[u8]; 7] =
    [b"pg_stat_tmp", b"pg_replslot", b"pg_dynshmem", b"pg_notify", b"pg_serial", b"pg_snapshots", b"pg_subtrans"];

/// Files of these names, wherever they lie.
const NAMES: [&[u8]; 8] = [
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    b"backup_label",
    b"tablespace_map",
    b"backup_manifest",
    b"postmaster.pid",
    b"postmaster.opts",
    b".DS_Store",
];

/// Files whose names begin so, wherever they lie.
const PREFIXES: [&[u8]; 2] = [b"pgsql_tmp", b"pg_internal.init"];

/// Files that lie in the data directory itself.
const OLD: [&[u8]; 2] = [b"backup_label.old", b"tablespace_map.old"];

/// Whether a directory is kept empty, by its own name.
pub(super) fn is_kept_empty(name: &[u8]) -> bool {
    EMPTY.contains(&name)
}

/// What is left out of one directory.
pub(super) struct Excluded {
    top: bool,
    /// File numbers of unlogged relations, if relations lie here: only their init forks are kept.
    unlogged: Option<HashSet<u32>>,
}

impl Excluded {
    /// For the directory at `path` (`None`: the data directory or tablespace itself), in which `names` lie.
    pub(super) fn of(path: Option<&EntryPath>, in_tablespace: bool, names: &[Vec<u8>]) -> Excluded {
        let relations = path.is_some_and(|path| is_database_directory(path, in_tablespace));
        let unlogged = relations.then(|| {
            let files = names.iter().filter_map(|name| RelationFile::parse(name));
            files.filter(|file| file.fork == Fork::Init).map(|file| file.number).collect()
        });
        Excluded { top: path.is_none() && !in_tablespace, unlogged }
    }

    /// Whether the file or directory of that name is left out.
    pub(super) fn has(&self, name: &[u8]) -> bool {
        let of_relation = self.unlogged.as_ref().is_some_and(|unlogged| {
            let file = RelationFile::parse(name).filter(|file| file.fork != Fork::Init);
            file.is_some_and(|file| unlogged.contains(&file.number)) || is_temporary(name)
        });
        of_relation
            || NAMES.contains(&name)
            || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || (self.top && OLD.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Unlogged and temporary relations are left out where relations lie and nowhere else, the server's own leftovers everywhere.
    #[test]
    fn rules() {
        let names: Vec<Vec<u8>> = ["7", "7_init", "7_fsm", "7.1", "70", "t3_9"].map(|name| name.into()).to_vec();
        let of = |path: &str, in_tablespace| {
            Excluded::of(EntryPath::new(path.as_bytes()).ok().as_ref(), in_tablespace, &names)
        };
        let left_out = |excluded: &Excluded| -> Vec<String> {
            let has = names.iter().filter(|name| excluded.has(name));
            has.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
        };
        let expected = ["7", "7_fsm", "7.1", "t3_9"];
        assert_eq!(left_out(&of("base/5", false)), expected);
        assert_eq!(left_out(&of("PG_15_202209061/5", true)), expected);
        assert!(left_out(&of("global", false)).is_empty() && left_out(&of("base", false)).is_empty());
        let top = of("", false);
        for name in ["postmaster.pid", "pgsql_tmp", "pgsql_tmp1.2", "pg_internal.init.77", "backup_label.old"] {
            assert!(top.has(name.as_bytes()), "{name}");
        }
        for name in ["postgresql.conf", "backup_labels", "PG_VERSION", "pg_internal", "standby.signal"] {
            assert!(!top.has(name.as_bytes()), "{name}");
        }
        assert!(!of("base/5", false).has(b"backup_label.old") && !of("", true).has(b"backup_label.old"));
        assert!(is_kept_empty(b"pg_notify") && !is_kept_empty(b"pg_xact"));
    }
}
