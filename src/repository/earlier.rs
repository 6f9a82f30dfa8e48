//! `EarlierBackup`: the chunks of an earlier backup, as a new one refers to them.
//!
//! Held in memory for the time of a backup: about 100 bytes a chunk, 200 MB for a terabyte. A chunk any of whose packs is missing is not
//! offered, so that a new backup stores anew what an earlier one has lost. Page hashes come from the packs' indexes, read when a chunk
//! has changed, and kept as long as the stream goes through that pack.
//!
//! # Packs that are mostly dead
//!
//! A pack stays as long as a backup that is kept refers to one frame in it. What a new backup takes over from its parent therefore decides what
//! can ever go: one table that nobody writes to would hold the dead frames around it for ever. So of a pack of which the parent uses less than
//! a third ([`USED_PART`]) nothing is taken over: its pages are stored anew, in the new backup's packs ([`EarlierBackup::moving`]), and the pack goes as
//! a whole when the last backup that refers to it does. The server sends those pages anyway; where it sends only changes, they are read from
//! the repository. Nothing that is stored changes, no manifest is written again, and `pitr expire` has nothing to know of it.
//!
//! Simulated over two years of daily backups of 4 GiB, each kept for 30 days. What is in the store is in parts of the first backup (mean of the second
//! year; in brackets how much of it no kept backup refers to), what a backup sends in percent of the first:
//!
//! | pages that change a day | taken over always | used part a quarter | a third | a half |
//! |---|---|---|---|---|
//! | 2 %, anywhere | 5.3 (29 %), 7.7 % | 4.4 (14 %), 8.0 % | 4.4 (12 %), 8.1 % | 4.4 (8 %), 8.7 % |
//! | 0.2 %, anywhere | 3.0 (52 %), 0.8 % | 2.2 (31 %), 0.9 % | 2.0 (27 %), 0.9 % | 1.9 (20 %), 1.0 % |
//! | 2 %, nine of ten in a tenth of the chunks, side by side | 6.7 (55 %), 5.5 % | 4.4 (31 %), 5.7 % | 4.1 (24 %), 5.9 % | 3.8 (15 %), 6.2 % |
//! | 2 %, nine of ten in a tenth of the chunks, scattered | 16.6 (82 %), 5.5 % | 5.2 (38 %), 6.4 % | 4.7 (28 %), 6.8 % | 4.4 (16 %), 7.8 % |
//! | 2 %, nearly all in a fifth, scattered, and 0.3 % new | 37.6 (87 %, rising), 6.3 % | 9.1 (43 %), 7.2 % | 7.0 (25 %), 7.4 % | 5.8 (8 %), 7.9 % |
//! | 2 % by whole chunks of a half, scattered | 4.5 (63 %), 2.0 % | 2.8 (33 %), 2.6 % | 2.8 (30 %), 2.9 % | 2.8 (20 %), 3.8 % |
//!
//! The most that a third sent in one day beyond the changes was 17 % of the first backup. Rewriting by `pitr expire`, which would take manifests that
//! can be replaced, was simulated beside it: at a third it leaves 4.4, 2.2, 4.2, 3.9, 7.3 and 2.5 with 10.9, 1.1, 6.4, 6.8, 8.3 and 2.9 % a day, so it
//! sends as much or more in all of them, and stores clearly less in two only, since it moves what is about to die by itself.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::frames::Frames;
use super::read_along::{self, ReadAlong};
use super::{RepositoryError, ServerRepository};
use crate::catalog::{BackupId, PackId};
use crate::chunk::change::page_hashes;
use crate::chunk::pack::PackEntry;
use crate::chunk::{CHUNK_BYTES, ChunkContent, ChunkRef, EntryPath, PageHash, Place, pack};
use crate::manifest::place::file_key;
use crate::manifest::{ManifestHeader, ManifestLine, ManifestStop};
use crate::wal::{Lsn, TimelineId};

/// A pack is taken over from only if the earlier backup uses at least this part of its bytes: one in so many.
const USED_PART: u64 = 3;

/// Most bytes of indexes that are kept: those of about fifty packs.
const INDEX_BYTES: usize = 48 << 20;

/// An earlier backup.
#[derive(Debug)]
pub struct EarlierBackup {
    server: ServerRepository,
    header: ManifestHeader,
    stop: ManifestStop,
    sources: Vec<BackupId>,
    files: HashMap<u128, EarlierFile>,
    chunks: Vec<Option<ChunkRef>>,
    /// Packs of which it uses too little, by source and number.
    mostly_dead: HashSet<(u16, u32)>,
    indexes: Mutex<Indexes>,
    along: ReadAlong,
}

/// What of a chunk that has not changed is to be stored anew, since it lies in packs that are mostly dead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Moving {
    /// Nothing.
    Nothing,
    /// These pages: those of page sets.
    Pages(Vec<u8>),
    /// All of it: its base.
    All,
}

/// A file of an earlier backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EarlierFile {
    /// Bytes.
    pub size: u64,
    /// Which of the backup's chunks it has.
    chunks: Range<usize>,
}

/// The indexes read last, the latest at the end.
#[derive(Debug, Default)]
struct Indexes {
    known: VecDeque<(PackId, Index)>,
    bytes: usize,
}

/// A pack's entries in the order of their offsets; `None` if it cannot be read.
type Index = Option<Arc<Vec<PackEntry>>>;

impl EarlierBackup {
    /// Reads what the backup `earlier` consists of, for the new backup `own`. `usable` are the packs that may be referred to, with
    /// their bytes.
    ///
    /// # Errors
    /// The manifest cannot be read, or is damaged.
    pub fn read(
        server: &ServerRepository,
        earlier: BackupId,
        own: BackupId,
        usable: &BTreeMap<PackId, u64>,
    ) -> Result<EarlierBackup, RepositoryError> {
        let mut manifest = server.open_manifest(earlier)?;
        let theirs = manifest.header().pack_sources.clone();
        // Only those that are still referred to: else each backup would hand the sources of all before it on for ever.
        let mut sources = vec![own];
        let mut renumbered: HashMap<u16, u16> = HashMap::new();
        let (mut files, mut chunks): (HashMap<u128, EarlierFile>, Vec<Option<ChunkRef>>) = (HashMap::new(), Vec::new());
        for line in manifest.by_ref() {
            let line = line.map_err(|error| server.manifest_error(earlier, error))?;
            let ManifestLine::File(file) = line else { continue };
            let known = files.entry(file_key(&file.path, file.tablespace));
            let here = chunks.len()..chunks.len();
            let known = known.or_insert(EarlierFile { size: file.size, chunks: here });
            for mut chunk in file.chunks {
                let mut place = |place: &mut Place| {
                    let backup = *theirs.get(usize::from(place.source))?;
                    if !usable.contains_key(&PackId { backup, number: place.pack }) {
                        return None;
                    }
                    place.source = match renumbered.get(&place.source) {
                        Some(source) => *source,
                        None => {
                            let source = u16::try_from(sources.len()).ok()?;
                            sources.push(backup);
                            renumbered.insert(place.source, source);
                            source
                        }
                    };
                    Some(())
                };
                let whole = match &mut chunk.content {
                    ChunkContent::Zero => Some(()),
                    ChunkContent::Stored { base, sets, .. } => {
                        place(base).and_then(|()| sets.iter_mut().try_for_each(|set| place(&mut set.place)))
                    }
                };
                chunks.push(whole.map(|()| chunk));
            }
            known.chunks.end = chunks.len();
        }
        // The lines are trusted only once the manifest has proved whole.
        let Some(stop) = manifest.stop().cloned() else {
            let error = crate::manifest::ManifestError::Truncated(0);
            return Err(server.manifest_error(earlier, error));
        };
        let header = manifest.header().clone();
        let mostly_dead = mostly_dead(&chunks, &sources, usable);
        let (server, indexes, along) = (server.clone(), Mutex::default(), ReadAlong::of(usable.clone()));
        Ok(EarlierBackup { server, header, stop, sources, files, chunks, mostly_dead, indexes, along })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> BackupId {
        self.header.id
    }

    /// What its manifest begins with.
    #[must_use]
    pub fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// What was known at its end.
    #[must_use]
    pub fn stop(&self) -> &ManifestStop {
        &self.stop
    }

    /// Its chunks have checksums: those of early versions have none.
    #[must_use]
    pub fn has_checksums(&self) -> bool {
        self.chunks.iter().flatten().any(|chunk| chunk.crc32c.is_some())
    }

    /// Bytes of all its files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.size).sum()
    }

    /// Where in the WAL it ended: its pages may hold everything up to here, and nothing behind.
    #[must_use]
    pub fn end(&self) -> (TimelineId, Lsn) {
        (self.stop.stop_timeline, self.stop.stop_lsn)
    }

    /// `pack_sources` of the new backup's manifest: what the chunks given out refer to.
    #[must_use]
    pub fn sources(&self) -> &[BackupId] {
        &self.sources
    }

    /// The pack that a place in a chunk given out means, by its source and number.
    #[must_use]
    pub fn pack(&self, (source, number): (u16, u32)) -> Option<PackId> {
        self.sources.get(usize::from(source)).map(|backup| PackId { backup: *backup, number })
    }

    /// Nothing that it refers to is missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.chunks.iter().all(Option::is_some)
    }

    /// What it had of a file.
    #[must_use]
    pub fn file(&self, path: &EntryPath, tablespace: Option<u32>) -> Option<&EarlierFile> {
        self.files.get(&file_key(path, tablespace))
    }

    /// The chunk of a file at an offset, if it had one there that can be referred to.
    #[must_use]
    pub fn chunk(&self, file: &EarlierFile, offset: u64) -> Option<&ChunkRef> {
        let at = usize::try_from(offset / CHUNK_BYTES as u64).ok()?.checked_add(file.chunks.start)?;
        self.chunks.get(at).filter(|_| file.chunks.contains(&at))?.as_ref()
    }

    /// What of a chunk is not to be taken over though it is there.
    #[must_use]
    pub fn moving(&self, chunk: &ChunkRef) -> Moving {
        let ChunkContent::Stored { base, sets, .. } = &chunk.content else { return Moving::Nothing };
        let moves = |place: &Place| self.mostly_dead.contains(&(place.source, place.pack));
        if self.mostly_dead.is_empty() {
            return Moving::Nothing;
        }
        if moves(base) {
            return Moving::All;
        }
        let sets = sets.iter().filter(|set| moves(&set.place));
        let pages: Vec<u8> = sets.flat_map(|set| set.pages.iter().copied()).collect();
        if pages.is_empty() { Moving::Nothing } else { Moving::Pages(pages) }
    }

    /// How many of these chunks, of one file and in their order, are best read at once: one at least.
    #[must_use]
    pub fn at_once(&self, chunks: &[&ChunkRef]) -> usize {
        read_along::at_once(chunks)
    }

    /// Reads the frames of some chunks, [`EarlierBackup::at_once`], and something of what the next ones may need.
    ///
    /// # Errors
    /// The store fails, or a pack is gone or shorter than a place in it.
    pub fn fetch(&self, chunks: &[&ChunkRef]) -> Result<Frames, RepositoryError> {
        self.along.fetch(&self.server, &self.sources, chunks)
    }

    /// The server's `backup_manifest` of it; `None` if it has none.
    ///
    /// # Errors
    /// The store fails, or what is stored is not the file.
    pub fn server_manifest(&self) -> Result<Option<Vec<u8>>, RepositoryError> {
        let path = EntryPath::new(b"backup_manifest").ok();
        let Some(file) = path.and_then(|path| self.file(&path, None)) else { return Ok(None) };
        let chunks: Option<Vec<&ChunkRef>> = self.chunks[file.chunks.clone()].iter().map(Option::as_ref).collect();
        let Some(chunks) = chunks else { return Ok(None) };
        let (mut content, mut rest) = (Vec::new(), chunks.as_slice());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(self.at_once(rest));
            let frames = self.fetch(now)?;
            for chunk in now {
                content.extend(frames.chunk(chunk)?);
            }
            rest = later;
        }
        Ok(Some(content))
    }

    /// The hashes of a chunk's pages; `None` if an index that has them cannot be read: then the chunk is to be stored anew.
    #[must_use]
    pub fn page_hashes(&self, chunk: &ChunkRef) -> Option<Vec<PageHash>> {
        let ChunkContent::Stored { base, sets, .. } = &chunk.content else { return None };
        let mut of_sets = Vec::with_capacity(sets.len());
        for set in sets {
            of_sets.push((set.pages.as_slice(), self.entry(set.place)?));
        }
        let of_sets: Vec<_> = of_sets.iter().map(|(pages, entry)| (*pages, entry.pages.as_slice())).collect();
        Some(page_hashes(self.entry(*base)?.pages, &of_sets))
    }

    fn entry(&self, place: Place) -> Option<PackEntry> {
        let id = PackId { backup: *self.sources.get(usize::from(place.source))?, number: place.pack };
        let index = self.index(id)?;
        let at = index.binary_search_by_key(&place.offset, |entry| entry.offset).ok()?;
        index.get(at).filter(|entry| entry.stored_length == place.length).cloned()
    }

    fn index(&self, id: PackId) -> Index {
        let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = indexes.known.iter().rposition(|(known, _)| *known == id) {
            return indexes.known[at].1.clone();
        }
        // Read with the lock held: whoever else works needs the same one.
        let index = match self.server.pack_entries(id) {
            Ok(entries) => Some(Arc::new(entries)),
            Err(error) => {
                tracing::warn!("chunks that have changed since are stored anew: {error}");
                None
            }
        };
        indexes.bytes += size(&index);
        indexes.known.push_back((id, index.clone()));
        while indexes.bytes > INDEX_BYTES
            && indexes.known.len() > 1
            && let Some((_, oldest)) = indexes.known.pop_front()
        {
            indexes.bytes -= size(&oldest);
        }
        index
    }
}

/// The packs of which these chunks use too little.
fn mostly_dead(
    chunks: &[Option<ChunkRef>],
    sources: &[BackupId],
    stored: &BTreeMap<PackId, u64>,
) -> HashSet<(u16, u32)> {
    let mut used: HashMap<(u16, u32), u64> = HashMap::new();
    for chunk in chunks.iter().flatten() {
        for (place, bytes) in pack::shares(chunk) {
            *used.entry((place.source, place.pack)).or_default() += bytes;
        }
    }
    let is_little = |((source, number), used): &((u16, u32), u64)| {
        let backup = sources.get(usize::from(*source));
        let stored = backup.and_then(|backup| stored.get(&PackId { backup: *backup, number: *number }));
        stored.is_some_and(|stored| used.saturating_mul(USED_PART) < stored.saturating_sub(pack::FIXED_BYTES))
    };
    used.into_iter().filter(is_little).map(|(pack, _)| pack).collect()
}

fn size(index: &Index) -> usize {
    let entries = index.iter().flat_map(|index| index.iter());
    entries.map(|entry| size_of::<PackEntry>() + entry.pages.len() * size_of::<PageHash>()).sum()
}
