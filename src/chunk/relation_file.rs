//! Names of relation files: `16384`, `16384_fsm`, `16384_vm.1`, `16384_init` (`relpath.c`, `parse_filename_for_nontemp_relation`).

use serde::Serialize;

use super::EntryPath;

/// Which of a relation's forks a file is part of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fork {
    /// Rows, or an index's pages.
    Main,
    /// Where there is free space.
    FreeSpace,
    /// Which pages everybody sees.
    Visibility,
    /// What an unlogged relation is set back to.
    Init,
}

/// A file of a relation that is not temporary, by its name in the directory of its database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RelationFile {
    /// The relation's file number.
    pub number: u32,
    /// The fork.
    pub fork: Fork,
    /// Which file of the fork, from 0; each but the last has a full segment.
    pub segment: u32,
}

impl RelationFile {
    /// Takes a name apart; `None` if it is no relation file's.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<RelationFile> {
        let name = std::str::from_utf8(name).ok()?;
        let (name, segment) = match name.split_once('.') {
            Some((name, segment)) => (name, number(segment)?),
            None => (name, 0),
        };
        let (name, fork) = match name.split_once('_') {
            Some((name, "fsm")) => (name, Fork::FreeSpace),
            Some((name, "vm")) => (name, Fork::Visibility),
            Some((name, "init")) => (name, Fork::Init),
            Some(_) => return None,
            None => (name, Fork::Main),
        };
        Some(RelationFile { number: number(name)?, fork, segment })
    }
}

/// Whether a name is that of a temporary relation's file: `t3_16384`, with fork and segment as others have them
/// (`looks_like_temp_rel_name`).
#[must_use]
pub fn is_temporary(name: &[u8]) -> bool {
    let rest = name.strip_prefix(b"t").and_then(|rest| {
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        rest[digits..].strip_prefix(b"_").filter(|_| digits > 0)
    });
    rest.and_then(RelationFile::parse).is_some()
}

/// Whether a directory holds relation files of one database: `base/5`, or `PG_15_202209061/5` of a tablespace.
#[must_use]
pub fn is_database_directory(path: &EntryPath, in_tablespace: bool) -> bool {
    let at = path.as_bytes().iter().position(|byte| *byte == b'/');
    at.is_some_and(|at| database(&path.as_bytes()[..at], &path.as_bytes()[at + 1..], in_tablespace).is_some())
}

/// The OID of the database that a directory is of, by its name and that of the one above (`GetDatabasePath` in `relpath.c`).
#[must_use]
pub fn database(above: &[u8], name: &[u8], in_tablespace: bool) -> Option<u32> {
    let is_above = if in_tablespace { above.starts_with(b"PG_") } else { above == b"base" };
    std::str::from_utf8(name).ok().filter(|_| is_above).and_then(number)
}

/// A number as file names have it: no sign, no zero in front.
fn number(text: &str) -> Option<u32> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every name is what the server takes it for.
    #[test]
    fn names() {
        let file = |number, fork, segment| Some(RelationFile { number, fork, segment });
        for (name, expected) in [
            ("16384", file(16_384, Fork::Main, 0)),
            ("16384.12", file(16_384, Fork::Main, 12)),
            ("16384_fsm", file(16_384, Fork::FreeSpace, 0)),
            ("16384_vm.1", file(16_384, Fork::Visibility, 1)),
            ("4294967295_init", file(u32::MAX, Fork::Init, 0)),
            ("4294967296", None),
            ("016384", None),
            ("+1", None),
            ("16384.", None),
            ("16384.0", None),
            ("16384_tmp", None),
            ("_init", None),
            ("PG_VERSION", None),
            ("pg_filenode.map", None),
        ] {
            assert_eq!(RelationFile::parse(name.as_bytes()), expected, "{name}");
        }
        for (name, expected) in [
            ("t3_16384", true),
            ("t3_16384_fsm.1", true),
            ("t_16384", false),
            ("t3_", false),
            ("t3", false),
            ("3_16384", false),
            ("toast", false),
        ] {
            assert_eq!(is_temporary(name.as_bytes()), expected, "{name}");
        }
        let path = |path: &str| EntryPath::new(path.as_bytes()).expect("a path");
        assert!(is_database_directory(&path("base/5"), false));
        assert!(is_database_directory(&path("PG_15_202209061/5"), true));
        assert!(
            !is_database_directory(&path("base/5"), true) && !is_database_directory(&path("base/pgsql_tmp"), false)
        );
        assert!(!is_database_directory(&path("base/5/6"), false) && !is_database_directory(&path("global"), false));
    }
}
