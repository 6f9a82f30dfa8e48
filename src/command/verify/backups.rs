//! One backup: its manifest whole, its info and its tail, and that every chunk it refers to is where it is said to be.
//!
//! A chunk that is one frame of a pack is proved by the pack's index, and its bytes when the pack is read. One with page sets, or one
//! that was cut, is put together from the stored bytes. The same chunk of several backups is put together once a run.

use std::collections::BTreeMap;

use super::assemble::{Fault, pack_of};
use super::found::PackDamage;
use super::frames::{Frame, Known, find};
use super::packs::{self, Hand};
use super::work::Run;
use crate::catalog::{BackupId, BackupInfo, BackupWal, PackId};
use crate::chunk::{ChunkContent, ChunkId, ChunkRef, Place};
use crate::manifest::{ManifestEnd, ManifestHeader, ManifestLine, ManifestStop};
use crate::repository::RepositoryError;

/// What is looked for.
#[derive(Clone, Copy)]
pub(super) enum Look<'a> {
    /// Everything. Of the chunks that have to be put together, the first so many were so in an earlier run.
    Full { assembled_before: u64 },
    /// Which files need what is damaged in these packs.
    For(&'a BTreeMap<PackId, PackDamage>),
}

/// How far a backup was verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// All of it is good.
    Good,
    /// Good so far; only so many chunks were put together.
    Partly(u64),
    /// Good as far as a sample tells.
    Sampled,
    /// Something is wrong, or could not be looked at.
    Not,
}

/// Verifies a backup.
pub(super) fn verify(run: &Run<'_>, hand: &mut Hand<'_>, id: BackupId, look: Look<'_>) -> Outcome {
    let mut walk = Walk {
        run,
        hand,
        id,
        look,
        assembled: 0,
        stopped: false,
        skipped: false,
        good: true,
        file: None,
        answered: true,
    };
    if let Look::Full { .. } = look {
        walk.beside();
    }
    if let Err(error) = walk.manifest() {
        walk.good = false;
        if error.is_no_answer() {
            run.no_answer(run.server().manifest_object(id).to_string(), error);
            walk.answered = false;
        } else {
            run.with_found(|found| found.backups.entry(id).or_default().manifest = Some(error.to_string()));
        }
    }
    if walk.answered {
        run.answered();
    }
    match (walk.good, walk.stopped) {
        (false, _) => Outcome::Not,
        (true, _) if walk.skipped => Outcome::Sampled,
        (true, true) => Outcome::Partly(walk.assembled),
        (true, false) => Outcome::Good,
    }
}

struct Walk<'r, 'a, 'h> {
    run: &'r Run<'a>,
    hand: &'r mut Hand<'h>,
    id: BackupId,
    look: Look<'r>,
    /// Chunks that were put together, those of earlier runs included.
    assembled: u64,
    /// The time was over before all were.
    stopped: bool,
    /// Some were not drawn.
    skipped: bool,
    good: bool,
    /// The file whose checksum is computed: its path so far, and the checksum while it is known.
    file: Option<(String, Option<u32>)>,
    answered: bool,
}

impl Walk<'_, '_, '_> {
    /// Info and tail.
    fn beside(&mut self) {
        let Some(info) = self.run.info(self.id) else {
            self.good = false;
            return;
        };
        if let BackupWal::Stream { tail: Some(tail) } = &info.wal {
            match self.run.server().wal_tail(self.id, tail) {
                Ok(_) => {}
                Err(error) if error.is_no_answer() => {
                    self.good = false;
                    self.answered = false;
                    self.run.no_answer(format!("tail of backup {}", self.id), error);
                }
                Err(error) => {
                    self.good = false;
                    self.run.with_found(|found| {
                        found.backups.entry(self.id).or_default().tail = Some(error.to_string());
                    });
                }
            }
        }
    }

    fn manifest(&mut self) -> Result<(), RepositoryError> {
        let mut manifest = self.run.server().prove_manifest(self.id)?;
        let sources = manifest.reader.header().pack_sources.clone();
        while let Some(line) = manifest.reader.next() {
            if self.run.budget.is_interrupted() || self.run.budget.is_hopeless() {
                // Half a manifest proves nothing.
                (self.good, self.answered) = (false, false);
                return Ok(());
            }
            match line.map_err(|error| manifest.error(error))? {
                ManifestLine::File(file) => {
                    let path = match file.tablespace {
                        Some(oid) => format!("{} (tablespace {oid})", file.path),
                        None => file.path.to_string(),
                    };
                    if file.from == 0 {
                        self.file = Some((path.clone(), Some(0)));
                    }
                    self.chunks(&sources, &path, &file.chunks)?;
                    self.end_of_file(&path, file.crc32c.as_deref());
                }
                ManifestLine::Config(file) => {
                    self.file = None;
                    self.chunks(&sources, &file.source, &file.chunks)?;
                }
                ManifestLine::Directory(_) | ManifestLine::Symlink(_) => {}
            }
        }
        let reader = &manifest.reader;
        if let (Look::Full { .. }, Some(info), Some(stop)) = (self.look, self.run.info(self.id), reader.stop())
            && let Some(what) = disagreement(info, reader.header(), stop, reader.counts())
        {
            self.good = false;
            let why = format!("the info says another {what} than the manifest");
            self.run.with_found(|found| found.backups.entry(self.id).or_default().info = Some(why));
        }
        if let (Look::Full { .. }, Some(info)) = (self.look, self.run.info(self.id)) {
            self.own_packs(info);
        }
        Ok(())
    }

    /// What the info says of the packs that the backup wrote. Later some of them may be collected: then nothing can be said.
    fn own_packs(&mut self, info: &BackupInfo) {
        let own = self.run.scope.packs.iter().filter(|(pack, _)| pack.backup == self.id);
        let (count, bytes) = own.fold((0, 0), |(count, bytes), (_, size)| (count + 1, bytes + size));
        let wrong = count > info.packs || (count == info.packs && bytes != info.stored_bytes);
        if wrong {
            self.good = false;
            let why = format!(
                "the info says that it wrote {} packs of {} bytes, and {count} of {bytes} bytes are there",
                info.packs, info.stored_bytes
            );
            self.run.with_found(|found| {
                // Where a pack was cut short that is the better word for it.
                let damage = found.backups.entry(self.id).or_default();
                damage.info.get_or_insert(why);
            });
        }
    }

    fn chunks(&mut self, sources: &[BackupId], path: &str, chunks: &[ChunkRef]) -> Result<(), RepositoryError> {
        for chunk in chunks {
            let proved = self.chunk(sources, chunk).and_then(|crc| match (crc, chunk.crc32c) {
                (Some(found), Some(said)) if found != said => Err(wrong(format!(
                    "the checksum of one of its chunks is {found:08x}, and the manifest says {said:08x}"
                ))),
                _ => Ok(crc),
            });
            let crc = match proved {
                Ok(crc) => crc,
                Err(Fault::NoAnswer(error)) => return Err(error),
                Err(Fault::Damaged(why)) => {
                    self.good = false;
                    self.run.with_found(|found| found.backups.entry(self.id).or_default().add_file(path, why));
                    None
                }
            };
            if let Some((_, sum)) = &mut self.file {
                *sum =
                    sum.zip(crc).map(|(so_far, next)| crc32c::crc32c_combine(so_far, next, chunk.raw_length as usize));
            }
        }
        Ok(())
    }

    /// Compares the checksum of a file whose last chunk was seen, if all of its chunks were read.
    fn end_of_file(&mut self, path: &str, expected: Option<&str>) {
        let Some(expected) = expected else { return };
        let Some((_, Some(found))) = self.file.take() else { return };
        if !matches!(self.look, Look::Full { .. }) {
            return;
        }
        let found = format!("{found:08x}");
        self.run.with_found(|all| {
            all.counts.files += 1;
            if found != expected.to_ascii_lowercase() {
                let why = format!("its checksum is {found}, and the manifest says {expected}");
                all.backups.entry(self.id).or_default().add_file(path, why);
                self.good = false;
            }
        });
    }

    /// Proves a chunk; gives the CRC-32C of its content if that is known.
    fn chunk(&mut self, sources: &[BackupId], chunk: &ChunkRef) -> Result<Option<u32>, Fault> {
        let ChunkContent::Stored { id, base, sets } = &chunk.content else {
            return Ok(chunk.checksum());
        };
        if let Look::For(damage) = self.look {
            return self.touched(sources, chunk, damage);
        }
        let frame = self.resolve(sources, *base)?;
        if sets.is_empty()
            && let Some(frame) = frame
            && frame.raw_length == chunk.raw_length
        {
            return match frame.id == *id {
                true => Ok(frame.crc),
                false => Err(wrong(format!("its chunk {id} is not where the manifest says: another one stands there"))),
            };
        }
        for set in sets {
            self.resolve(sources, set.place)?;
        }
        self.assemble(sources, chunk)
    }

    /// Puts a chunk together, unless that was done already, or is not to be done now.
    fn assemble(&mut self, sources: &[BackupId], chunk: &ChunkRef) -> Result<Option<u32>, Fault> {
        if let Look::Full { assembled_before } = self.look {
            if self.assembled < assembled_before {
                self.assembled += 1;
                return Ok(None);
            }
            if !self.hand.lot.draws() {
                self.skipped = true;
                return Ok(None);
            }
            // One at least in a run, so that any number of runs comes to the end.
            if self.stopped || (self.run.budget.is_spent() && self.assembled > assembled_before) {
                self.stopped = true;
                return Ok(None);
            }
        }
        let key = fingerprint(sources, chunk);
        if let Some(crc) = self.run.assembled(&key) {
            self.assembled += 1;
            return Ok(Some(crc));
        }
        let size = |pack| self.run.pack_size(pack);
        let crc = self.hand.windows.prove(sources, chunk, &size)?;
        self.assembled += 1;
        self.run.set_assembled(key, crc);
        Ok(Some(crc))
    }

    /// The frame that a place names, by the index of its pack; `None` if the pack has no good index.
    fn resolve(&mut self, sources: &[BackupId], place: Place) -> Result<Option<Frame>, Fault> {
        let Some(pack) = pack_of(sources, place) else {
            return Err(wrong("the manifest does not name the backup whose pack a chunk lies in".to_owned()));
        };
        let table = match self.run.known(pack)? {
            Known::Table(table) => table,
            Known::Missing => return Err(wrong(format!("pack {pack} is not there"))),
            Known::NoIndex | Known::Unknown => return Ok(None),
        };
        match find(&table, place.offset) {
            Some(frame) if frame.stored_length == place.length => Ok(Some(*frame)),
            _ => Err(wrong(format!("pack {pack} has no chunk of {} bytes at byte {}", place.length, place.offset))),
        }
    }

    /// Whether a chunk needs something that is damaged.
    fn touched(
        &mut self,
        sources: &[BackupId],
        chunk: &ChunkRef,
        damage: &BTreeMap<PackId, PackDamage>,
    ) -> Result<Option<u32>, Fault> {
        let mut unproved = false;
        for place in chunk.places() {
            let Some(pack) = pack_of(sources, place) else { continue };
            let Some(found) = damage.get(&pack) else { continue };
            if found.missing {
                return Err(wrong(format!("pack {pack} is not there")));
            }
            if let Some(why) = found.frames.get(&place.offset) {
                return Err(wrong(format!("pack {pack} is damaged at byte {}: {why}", place.offset)));
            }
            unproved |= found.index.is_some();
        }
        // Without its index a pack's chunks may be good all the same: a restore never reads the index.
        if unproved { self.assemble(sources, chunk) } else { Ok(None) }
    }
}

impl Run<'_> {
    /// What is known of a pack; reads its index if nobody has.
    fn known(&self, pack: PackId) -> Result<Known, Fault> {
        let failed = |error: std::io::Error| {
            let server = self.server();
            Fault::NoAnswer(server.pack_failed(pack, &error))
        };
        let known = self.frames.get(pack).map_err(failed)?;
        if !matches!(known, Known::Unknown) {
            return Ok(known);
        }
        if self.pack_size(pack).is_none() {
            self.frames.set_missing(pack);
            self.with_found(|found| found.packs.entry(pack).or_default().missing = true);
            return Ok(Known::Missing);
        }
        if let Some(entries) = packs::index(self, pack) {
            let frames = entries.iter().map(packs::frame).collect();
            return self.frames.put(pack, frames).map(Known::Table).map_err(failed);
        }
        self.frames.get(pack).map_err(failed)
    }
}

fn wrong(why: String) -> Fault {
    Fault::Damaged(why)
}

/// What a chunk is made of, in 128 bits: the same in every backup that refers to it.
fn fingerprint(sources: &[BackupId], chunk: &ChunkRef) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    let ChunkContent::Stored { id: ChunkId(id), base, sets } = &chunk.content else { return [0; 16] };
    hasher.update(id).update(&chunk.raw_length.to_le_bytes());
    let mut add = |place: &Place, pages: &[u8]| {
        if let Some(pack) = pack_of(sources, *place) {
            hasher.update(pack.to_string().as_bytes());
        }
        hasher.update(&place.offset.to_le_bytes()).update(&place.length.to_le_bytes());
        hasher.update(&(pages.len() as u64).to_le_bytes()).update(pages);
    };
    add(base, &[]);
    sets.iter().for_each(|set| add(&set.place, &set.pages));
    hasher.finalize().as_bytes().first_chunk().copied().unwrap_or_default()
}

/// What the info of a backup says other than its manifest.
fn disagreement(
    info: &BackupInfo,
    header: &ManifestHeader,
    stop: &ManifestStop,
    counts: &ManifestEnd,
) -> Option<&'static str> {
    let comparisons = [
        ("cluster", (info.system_identifier, &info.cluster) == (header.system_identifier, &header.cluster)),
        ("version", info.postgres_version == header.postgres_version && info.tool_version == header.tool_version),
        ("major version", info.postgres_major == header.postgres_major),
        ("word on checksums", info.page_checksums == header.page_checksums),
        ("compression", info.compression == header.compression),
        ("source", info.source == stop.source),
        ("segment size", info.segment_size == header.segment_size),
        ("start", (info.start_lsn, info.start_timeline) == (header.start_lsn, header.start_timeline)),
        ("stop", (info.stop_lsn, info.stop_timeline) == (stop.stop_lsn, stop.stop_timeline)),
        ("time", (info.start_time, info.stop_time) == (header.start_time, stop.stop_time)),
        ("range of WAL", info.wal_ranges == stop.wal_ranges),
        ("list of tablespaces", info.tablespaces == header.tablespaces),
        ("label", info.label == header.label),
        ("number of files", info.files == counts.files),
        ("size", info.raw_bytes == counts.raw_bytes),
        ("verdict on damaged pages", (info.bad_pages > 0) != stop.bad_pages.is_empty()),
    ];
    comparisons.into_iter().find(|(_, same)| !same).map(|(what, _)| what)
}
