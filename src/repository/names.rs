//! Names of relations as a base backup has them: its copy of the catalog, read out of its chunks.
//!
//! Only the catalog's own files are read, a few chunks for each database. Where those are stands in other files of the backup
//! (maps, and rows of `pg_class`), so the manifest may have to be read again when a catalog was rewritten since `initdb`;
//! in the ordinary case one pass does.

use std::collections::{BTreeMap, BTreeSet};

use super::{RepositoryError, ServerRepository};
use crate::catalog::BackupId;
use crate::chunk::EntryPath;
use crate::manifest::{FileEntry, ManifestHeader, ManifestLine, ManifestStop};
use crate::wal::names::{CatalogCopy, RelationNames};
use crate::wal::{ControlFile, DATA_PAGE_SIZE, RelationFile};

/// Oids of `pg_default` and `pg_global`.
const DEFAULT_TABLESPACE: u32 = 1663;
const GLOBAL_TABLESPACE: u32 = 1664;
/// Numbers of the files that the three catalogs have at first.
const FIRST_FILES: [u32; 3] = [1259, 1262, 2615];
/// Blocks in a file of a relation (`RELSEG_SIZE`).
const BLOCKS_PER_FILE: u32 = (1 << 30) / DATA_PAGE_SIZE as u32;

/// A file that names may need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Needed {
    Control,
    SharedMap,
    Map { tablespace: u32, database: u32 },
    Prepared,
    Xact(u32),
    Relation { file: RelationFile, number: u32 },
}

/// Lines of the manifest about such files.
#[derive(Default)]
struct Lines {
    small: Vec<(Needed, FileEntry)>,
    relations: BTreeMap<RelationFile, Vec<(u32, FileEntry)>>,
}

impl ServerRepository {
    /// Names at the redo point of a backup; WAL is to be read from there on ([`crate::catalog::BackupInfo`] `start_lsn`).
    ///
    /// # Errors
    /// The store fails, there is no such backup, or what is stored of the catalog is damaged.
    pub fn names_of_backup(&self, id: BackupId) -> Result<RelationNames, RepositoryError> {
        let first = |file: RelationFile| FIRST_FILES.contains(&file.relation);
        let (header, stop, mut lines) = self.lines_about(id, first)?;
        if header.block_size as usize != DATA_PAGE_SIZE {
            return Ok(RelationNames::new(header.postgres_major));
        }
        let sources = &header.pack_sources;
        let mut copy = CatalogCopy::new(header.postgres_major, header.start_lsn, stop.stop_lsn);
        for (needed, line) in &lines.small {
            match needed {
                Needed::Control => {
                    // One that cannot be read tells nothing about who was running.
                    if let Ok(control) = ControlFile::parse(&self.content(sources, line)?) {
                        copy.control(&control);
                    }
                }
                Needed::SharedMap => copy.shared_map(&self.content(sources, line)?),
                Needed::Map { tablespace, database } => {
                    copy.database_map(*tablespace, *database, &self.content(sources, line)?);
                }
                Needed::Prepared => copy.prepared_transaction(&self.content(sources, line)?),
                Needed::Xact(_) | Needed::Relation { .. } => {}
            }
        }
        loop {
            let wanted: BTreeSet<RelationFile> = copy.wanted().into_iter().collect();
            if wanted.is_empty() {
                break;
            }
            if !wanted.iter().all(|file| lines.relations.contains_key(file)) {
                lines.relations = self.lines_about(id, |file| wanted.contains(&file))?.2.relations;
            }
            for file in wanted {
                for (number, line) in lines.relations.get(&file).into_iter().flatten() {
                    self.pages(sources, file, *number, line, &mut copy)?;
                }
                copy.finished(file);
            }
        }
        let wanted = copy.wanted_xact();
        for (needed, line) in &lines.small {
            if let Needed::Xact(number) = needed
                && wanted.contains(number)
            {
                copy.xact(*number, self.content(sources, line)?);
            }
        }
        Ok(copy.into_names())
    }

    /// Reads the manifest to its end: what it says about small files that are needed, and about these relation files.
    fn lines_about(
        &self,
        id: BackupId,
        wanted: impl Fn(RelationFile) -> bool,
    ) -> Result<(ManifestHeader, ManifestStop, Lines), RepositoryError> {
        let failed = |error| self.manifest_error(id, error);
        let mut manifest = self.open_manifest(id)?;
        let mut lines = Lines::default();
        for line in manifest.by_ref() {
            let ManifestLine::File(line) = line.map_err(failed)? else { continue };
            match needed(&line.path, line.tablespace) {
                Some(Needed::Relation { file, number }) if wanted(file) => {
                    lines.relations.entry(file).or_default().push((number, line));
                }
                Some(Needed::Relation { .. }) | None => {}
                Some(small) => lines.small.push((small, line)),
            }
        }
        let stop = manifest.verify_to_end().map_err(failed)?;
        Ok((manifest.header().clone(), stop, lines))
    }

    /// The content of a small file.
    fn content(&self, sources: &[BackupId], line: &FileEntry) -> Result<Vec<u8>, RepositoryError> {
        let chunks = line.chunks.iter().map(|chunk| self.read_chunk(sources, chunk));
        Ok(chunks.collect::<Result<Vec<_>, _>>()?.concat())
    }

    fn pages(
        &self,
        sources: &[BackupId],
        file: RelationFile,
        number: u32,
        line: &FileEntry,
        copy: &mut CatalogCopy,
    ) -> Result<(), RepositoryError> {
        let mut at = line.from;
        for chunk in &line.chunks {
            let block = u32::try_from(at / DATA_PAGE_SIZE as u64)
                .ok()
                .and_then(|block| block.checked_add(number.checked_mul(BLOCKS_PER_FILE)?));
            let bytes = self.read_chunk(sources, chunk)?;
            if let Some(block) = block {
                copy.pages(file, block, &bytes);
            }
            at += u64::from(chunk.raw_length);
        }
        Ok(())
    }
}

/// What a file of the backup is, if names may need it.
fn needed(path: &EntryPath, tablespace: Option<u32>) -> Option<Needed> {
    let parts: Vec<&str> = std::str::from_utf8(path.as_bytes()).ok()?.split('/').collect();
    let (tablespace, database, name) = match (tablespace, parts.as_slice()) {
        (None, ["global", "pg_control"]) => return Some(Needed::Control),
        (None, ["global", "pg_filenode.map"]) => return Some(Needed::SharedMap),
        (None, ["pg_twophase", _]) => return Some(Needed::Prepared),
        (None, ["pg_xact", name]) => return u32::from_str_radix(name, 16).ok().map(Needed::Xact),
        (None, ["global", name]) => (GLOBAL_TABLESPACE, 0, name),
        (None, ["base", database, name]) => (DEFAULT_TABLESPACE, database.parse().ok()?, name),
        (Some(oid), [version, database, name]) if version.starts_with("PG_") => (oid, database.parse().ok()?, name),
        _ => return None,
    };
    if *name == "pg_filenode.map" {
        return Some(Needed::Map { tablespace, database });
    }
    let (relation, number) = name.split_once('.').unwrap_or((name, "0"));
    let file = RelationFile { tablespace, database, relation: relation.parse().ok()? };
    Some(Needed::Relation { file, number: number.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files of catalogs are found where clusters have them; forks, temporary relations and others are passed over.
    #[test]
    fn which_files() {
        let of = |path: &str, tablespace| needed(&EntryPath::new(path.as_bytes()).expect("a good path"), tablespace);
        let file = |tablespace, database, relation| RelationFile { tablespace, database, relation };
        for (path, expected) in [
            ("global/pg_control", Some(Needed::Control)),
            ("global/pg_filenode.map", Some(Needed::SharedMap)),
            ("base/5/pg_filenode.map", Some(Needed::Map { tablespace: 1663, database: 5 })),
            ("pg_twophase/0000000000000301", Some(Needed::Prepared)),
            ("pg_xact/000A", Some(Needed::Xact(10))),
            ("global/1262", Some(Needed::Relation { file: file(1664, 0, 1262), number: 0 })),
            ("base/5/1259.1", Some(Needed::Relation { file: file(1663, 5, 1259), number: 1 })),
            ("base/5/1259_fsm", None),
            ("base/5/t3_16384", None),
            ("base/pgsql_tmp/1259", None),
            ("PG_VERSION", None),
        ] {
            assert_eq!(of(path, None), expected, "{path}");
        }
        let moved = Needed::Relation { file: file(16400, 5, 1259), number: 0 };
        assert_eq!(of("PG_15_202209061/5/1259", Some(16400)), Some(moved));
        assert_eq!(of("base/5/1259", Some(16400)), None);
    }
}
