//! Names of relations as a base backup has them: its copy of the catalog, read out of its chunks.
//!
//! Only the catalog's own files are read, a few chunks for each database. Where those are stands in other files of the backup
//! (maps, and rows of `pg_class`), so the manifest may have to be read again when a catalog was rewritten since `initdb`;
//! in the ordinary case one pass does.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::catalog::BackupCatalog;
use super::{RepositoryError, ServerRepository};
use crate::catalog::BackupId;
use crate::chunk::EntryPath;
use crate::chunk::relation_file::Fork;
use crate::manifest::place::{FileKind, FilePlace};
use crate::manifest::{FileEntry, ManifestHeader, ManifestLine, ManifestStop};
use crate::wal::names::{CatalogCopy, PG_INDEX, RelationNames, index_owners};
use crate::wal::{ControlFile, DATA_PAGE_SIZE, RelationFile};

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

/// What becomes of a part of the catalog that cannot be read. It may be passed over, or end the whole.
type Lost<'a> = &'a mut dyn FnMut(RepositoryError) -> Result<(), RepositoryError>;

impl ServerRepository {
    /// Names at the redo point of a backup; WAL is to be read from there on ([`crate::catalog::BackupInfo`] `start_lsn`).
    ///
    /// # Errors
    /// The store fails, there is no such backup, or what is stored of the catalog is damaged.
    pub fn names_of_backup(&self, id: BackupId) -> Result<RelationNames, RepositoryError> {
        let mut catalog = StoredCatalog::open(self, id, &FIRST_FILES)?;
        catalog.names(&mut Err)
    }

    /// What the catalogs of a backup tell at its end: names, and whose the indexes are. What is damaged of them is passed over and told.
    ///
    /// # Errors
    /// The store fails, there is no such backup, or its manifest is damaged.
    pub fn catalog_of_backup(&self, id: BackupId) -> Result<BackupCatalog, RepositoryError> {
        let mut catalog = StoredCatalog::open(self, id, &[FIRST_FILES.as_slice(), &[PG_INDEX]].concat())?;
        let mut damaged = Vec::new();
        let mut lost = |error: RepositoryError| match &error {
            RepositoryError::Chunk { .. } => {
                damaged.push(error.to_string());
                Ok(())
            }
            RepositoryError::Storage(storage) if storage.is_not_found() => {
                damaged.push(error.to_string());
                Ok(())
            }
            _ => Err(error),
        };
        let mut names = catalog.names(&mut lost)?;
        // All that the copy knows to have ended has ended there.
        names.pass(catalog.stop.stop_lsn);
        let owners = catalog.tables_of_indexes(&names, &mut lost)?;
        damaged.sort_unstable();
        damaged.dedup();
        if catalog.header.block_size as usize != DATA_PAGE_SIZE {
            damaged.push(format!(
                "its blocks have {} bytes, and only those of {DATA_PAGE_SIZE} are read for names",
                catalog.header.block_size
            ));
        }
        Ok(BackupCatalog::new(names, owners, damaged))
    }
}

/// The catalogs in one backup.
struct StoredCatalog<'a> {
    repository: &'a ServerRepository,
    id: BackupId,
    header: ManifestHeader,
    stop: ManifestStop,
    lines: Lines,
    /// Pages that the server found damaged.
    bad: BTreeSet<(RelationFile, u32)>,
}

impl<'a> StoredCatalog<'a> {
    /// Reads what the manifest says about small files that are needed, and about files of relations with these numbers.
    fn open(repository: &'a ServerRepository, id: BackupId, first: &[u32]) -> Result<Self, RepositoryError> {
        let (header, stop, lines) = lines_about(repository, id, |file| first.contains(&file.relation))?;
        let mut bad = BTreeSet::new();
        for pages in &stop.bad_pages {
            if let Some(Needed::Relation { file, .. }) = needed(&pages.path, pages.tablespace) {
                bad.extend(pages.blocks.iter().map(|block| (file, *block)));
            }
        }
        Ok(StoredCatalog { repository, id, header, stop, lines, bad })
    }

    /// Names at the redo point.
    fn names(&mut self, lost: Lost<'_>) -> Result<RelationNames, RepositoryError> {
        let major = self.header.postgres_major;
        if self.header.block_size as usize != DATA_PAGE_SIZE {
            return Ok(RelationNames::new(major));
        }
        let mut copy = CatalogCopy::new(major, self.header.start_lsn, self.stop.stop_lsn);
        for (needed, line) in &self.lines.small {
            let content = match needed {
                Needed::Xact(_) | Needed::Relation { .. } => continue,
                _ => self.content(line),
            };
            let content = match content {
                Ok(content) => content,
                Err(error) => {
                    lost(error)?;
                    continue;
                }
            };
            match needed {
                Needed::Control => {
                    // One that cannot be read tells nothing about who was running.
                    if let Ok(control) = ControlFile::parse(&content) {
                        copy.control(&control);
                    }
                }
                Needed::SharedMap => copy.shared_map(&content),
                Needed::Map { tablespace, database } => copy.database_map(*tablespace, *database, &content),
                Needed::Prepared => copy.prepared_transaction(&content),
                Needed::Xact(_) | Needed::Relation { .. } => {}
            }
        }
        loop {
            let wanted: BTreeSet<RelationFile> = copy.wanted().into_iter().collect();
            if wanted.is_empty() {
                break;
            }
            self.want(&wanted)?;
            for file in wanted {
                let bad = |block| self.bad.contains(&(file, block));
                match self.pages(file, lost, &mut |block, bytes| copy.pages(file, block, bytes, bad))? {
                    true => {}
                    false => copy.lost(file),
                }
                copy.finished(file);
            }
        }
        let wanted = copy.wanted_xact();
        for (needed, line) in &self.lines.small {
            if let Needed::Xact(number) = needed
                && wanted.contains(number)
            {
                match self.content(line) {
                    Ok(content) => copy.xact(*number, content),
                    Err(error) => lost(error)?,
                }
            }
        }
        Ok(copy.into_names())
    }

    /// Tables by their indexes, both by database and oid.
    fn tables_of_indexes(
        &mut self,
        names: &RelationNames,
        lost: Lost<'_>,
    ) -> Result<HashMap<(u32, u32), u32>, RepositoryError> {
        let mut owners = HashMap::new();
        let files = names.databases().filter_map(|database| names.relation(database, PG_INDEX)?.file);
        let files: BTreeSet<RelationFile> = files.collect();
        self.want(&files)?;
        for file in files {
            let mut take = |_: u32, bytes: &[u8]| {
                owners.extend(index_owners(bytes).map(|(index, table)| ((file.database, index), table)));
            };
            self.pages(file, lost, &mut take)?;
        }
        Ok(owners)
    }

    /// Reads the manifest again if it was not read for these files.
    fn want(&mut self, wanted: &BTreeSet<RelationFile>) -> Result<(), RepositoryError> {
        if !wanted.iter().all(|file| self.lines.relations.contains_key(file)) {
            let found = lines_about(self.repository, self.id, |file| wanted.contains(&file))?.2;
            self.lines.relations = found.relations;
        }
        Ok(())
    }

    /// The content of a small file.
    fn content(&self, line: &FileEntry) -> Result<Vec<u8>, RepositoryError> {
        let chunks = line.chunks.iter().map(|chunk| self.repository.read_chunk(&self.header.pack_sources, chunk));
        Ok(chunks.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Hands out the pages of a file with the number of the first. Whether all of them could be read.
    fn pages(
        &self,
        file: RelationFile,
        lost: Lost<'_>,
        take: &mut dyn FnMut(u32, &[u8]),
    ) -> Result<bool, RepositoryError> {
        let mut all = true;
        for (number, line) in self.lines.relations.get(&file).into_iter().flatten() {
            let mut at = line.from;
            for chunk in &line.chunks {
                let block = u32::try_from(at / DATA_PAGE_SIZE as u64)
                    .ok()
                    .and_then(|block| block.checked_add(number.checked_mul(BLOCKS_PER_FILE)?));
                match self.repository.read_chunk(&self.header.pack_sources, chunk) {
                    Ok(bytes) => block.into_iter().for_each(|block| take(block, &bytes)),
                    Err(error) => {
                        lost(error)?;
                        all = false;
                    }
                }
                at += u64::from(chunk.raw_length);
            }
        }
        Ok(all)
    }
}

/// Reads a manifest to its end: what it says about small files that are needed, and about these relation files.
fn lines_about(
    repository: &ServerRepository,
    id: BackupId,
    wanted: impl Fn(RelationFile) -> bool,
) -> Result<(ManifestHeader, ManifestStop, Lines), RepositoryError> {
    let failed = |error| repository.manifest_error(id, error);
    let mut manifest = repository.open_manifest(id)?;
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

/// What a file of the backup is, if names may need it.
fn needed(path: &EntryPath, tablespace: Option<u32>) -> Option<Needed> {
    let place = FilePlace::of(path, tablespace);
    if let FileKind::Relation { file, fork, segment } = place.kind {
        return (fork == Fork::Main).then_some(Needed::Relation { file, number: segment });
    }
    let (folder, name) = std::str::from_utf8(path.as_bytes()).ok()?.rsplit_once('/')?;
    match (place.tablespace, place.database, name) {
        (None, None, _) if folder == "pg_twophase" => Some(Needed::Prepared),
        (None, None, _) if folder == "pg_xact" => u32::from_str_radix(name, 16).ok().map(Needed::Xact),
        (Some(_), Some(0), "pg_control") => Some(Needed::Control),
        (Some(_), Some(0), "pg_filenode.map") => Some(Needed::SharedMap),
        (Some(tablespace), Some(database), "pg_filenode.map") => Some(Needed::Map { tablespace, database }),
        _ => None,
    }
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
