//! Marks of what is to be removed, and how a backup that is about to be complete takes account of them.
//!
//! Nothing is locked. What nothing refers to is named by a mark, and removed when the mark is due, after the manifests have been
//! read again. So a manifest must not be written that refers to what is nearly due; a mark that is younger does no harm, since
//! the manifest will be there when the mark is due. A backup asks [`ServerRepository::doomed`] before it refers to packs of
//! others, and [`ServerRepository::commit_manifest`] asks again just before the manifest is written.
//!
//! A mark that is damaged names nothing any more, so nothing is removed by it; the next collection marks anew what it named, for the whole
//! time, and then takes it away. Somebody who read it before may still be removing: until it is away a backup refers to nothing of others.

use std::collections::{BTreeMap, BTreeSet};

use super::notes::Author;
use super::{RepositoryError, ServerRepository, keys, malformed, parse};
use crate::catalog::{BackupId, BackupNotes, DOOM_FORMAT, Doom, Expired, PackId, Saying, Stamp, WalRun};
use crate::recovery::StoredSegments;
use crate::storage::{Key, NewObject, Put, StorageErrorKind};
use crate::wal::{PgTime, SegmentName, SegmentNo, SegmentSize, TimelineId};

/// Largest mark that is read: it names runs, not single objects.
const DOOM_BYTES: u64 = 64 << 20;

/// The longest that a manifest may take to be published, in microseconds; marks stand for a day at least.
const MOST_COMMIT_US: i64 = 3_600_000_000;

/// All marks of a server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Dooms {
    /// Those that can be read.
    pub marks: Vec<(Stamp, Doom)>,
    /// Those that are damaged, and why: what they name cannot be told. Nothing is removed by them.
    pub unreadable: Vec<(Stamp, String)>,
}

impl Dooms {
    /// Whether a pack is marked. A backup that begins now does not refer to it.
    #[must_use]
    pub fn has_pack(&self, id: PackId) -> bool {
        self.marks.iter().any(|(_, doom)| doom.has_pack(id))
    }

    /// Whether a backup's folder is marked.
    #[must_use]
    pub fn has_backup(&self, id: BackupId) -> bool {
        self.marks.iter().any(|(_, doom)| doom.backups.contains(&id))
    }

    /// The mark of a pack that is so near its removal that nothing complete may refer to it any more.
    #[must_use]
    pub fn near(&self, id: PackId, now: PgTime) -> Option<&Doom> {
        self.marks.iter().map(|(_, doom)| doom).find(|doom| doom.is_near(now) && doom.has_pack(id))
    }

    /// Marked WAL by timeline.
    #[must_use]
    pub fn wal(&self, size: SegmentSize) -> BTreeMap<TimelineId, StoredSegments> {
        let mut all = BTreeMap::new();
        self.marks.iter().for_each(|(_, doom)| add_runs(&mut all, &doom.wal, size));
        all
    }
}

/// Adds runs to what is known by timeline.
pub(super) fn add_runs(all: &mut BTreeMap<TimelineId, StoredSegments>, runs: &[WalRun], size: SegmentSize) {
    for run in runs {
        let numbers = run.first.number(size).ok().zip(run.last.number(size).ok());
        if let Some((first, last)) = numbers.filter(|_| run.first.timeline() == run.last.timeline()) {
            all.entry(run.first.timeline()).or_default().insert_run(first..=last);
        }
    }
}

/// Segments by timeline as runs.
pub(super) fn wal_runs(all: &BTreeMap<TimelineId, StoredSegments>, size: SegmentSize) -> Vec<WalRun> {
    let name = |timeline: TimelineId, number: SegmentNo| SegmentName::new(timeline, number, size);
    let runs = all.iter().flat_map(|(timeline, segments)| {
        segments.runs().map(|run| WalRun { first: name(*timeline, *run.start()), last: name(*timeline, *run.end()) })
    });
    runs.collect()
}

/// What every version of a mark has.
#[derive(serde::Deserialize)]
struct FormatOf {
    format: u32,
}

impl ServerRepository {
    /// All marks.
    ///
    /// # Errors
    /// The store fails, or a newer version wrote a mark.
    pub fn doomed(&self) -> Result<Dooms, RepositoryError> {
        let mut found = Dooms::default();
        for stamp in self.stamps(&keys::dooms(&self.folder))? {
            let key = keys::doom(&self.folder, stamp);
            let bytes = match self.storage.get(&key, DOOM_BYTES) {
                Err(error) if error.is_not_found() => continue,
                Err(error) if error.kind == StorageErrorKind::TooLarge => {
                    found.unreadable.push((stamp, error.to_string()));
                    continue;
                }
                bytes => bytes?,
            };
            // Another format is no damage, whatever else it has.
            if let Ok(FormatOf { format }) = serde_json::from_slice(&bytes) {
                self.known_format(&key, format)?;
            }
            match parse(self.storage.as_ref(), &key, &bytes) {
                Ok(doom) => found.marks.push((stamp, doom)),
                Err(error) => found.unreadable.push((stamp, error.to_string())),
            }
        }
        Ok(found)
    }

    fn known_format(&self, key: &Key, format: u32) -> Result<(), RepositoryError> {
        if format == DOOM_FORMAT {
            return Ok(());
        }
        let reason = format!("it has format {format}, and this pitr knows format {DOOM_FORMAT}");
        Err(RepositoryError::Malformed { storage: self.storage.describe(), key: key.to_string(), reason })
    }

    fn stamps(&self, folder: &Key) -> Result<Vec<Stamp>, RepositoryError> {
        let names = self.storage.names(folder)?;
        let mut stamps: Vec<_> = names.iter().filter_map(|name| keys::stamp(name)).collect();
        stamps.sort_unstable();
        Ok(stamps)
    }

    /// Marks what it names.
    pub(super) fn put_doom(&self, doom: &Doom) -> Result<(), RepositoryError> {
        loop {
            let key = keys::doom(&self.folder, Stamp { at: doom.at, writer: self.draw()? });
            if self.put_json(&key, doom)? == Put::Created {
                return Ok(());
            }
        }
    }

    pub(super) fn delete_doom(&self, stamp: Stamp) -> Result<(), RepositoryError> {
        Ok(self.storage.delete(&keys::doom(&self.folder, stamp))?)
    }

    fn put_json(&self, key: &Key, value: &impl serde::Serialize) -> Result<Put, RepositoryError> {
        let bytes = serde_json::to_vec(value).map_err(|error| malformed(self.storage.as_ref(), key, &error))?;
        Ok(self.storage.put(key, &bytes)?)
    }

    /// Declares a backup complete, unless its folder or a pack that it refers to is about to be removed. `packs` are all that it
    /// refers to, its own included.
    ///
    /// # Errors
    /// The store fails; [`RepositoryError::Occupied`], [`RepositoryError::Doomed`], [`RepositoryError::Late`].
    pub fn commit_manifest(
        &self,
        id: BackupId,
        manifest: Box<dyn NewObject>,
        packs: &BTreeSet<PackId>,
        host: &str,
        clock: &dyn Fn() -> PgTime,
    ) -> Result<(), RepositoryError> {
        let asked_at = clock();
        let limit = self.refuse_doomed(id, packs, asked_at)?;
        self.publish_manifest(id, manifest)?;
        let now = clock();
        let longest = PgTime(asked_at.0.saturating_add(MOST_COMMIT_US));
        if now >= limit.map_or(longest, |limit| limit.min(longest)) {
            // Something may have been removed on the assumption that no such manifest would come.
            let why = "it was complete too late: what it needs may have been removed".to_owned();
            let author = Author { host: host.to_owned(), now };
            self.add_note(id, &BackupNotes::default(), &author, Saying::Forgotten { why })?;
            return Err(RepositoryError::Late { storage: self.storage.describe(), id });
        }
        Ok(())
    }

    /// Fails if the folder of a backup, or one of these packs, is about to be removed or may be. Otherwise tells when the first of them may
    /// be, if any is marked at all.
    ///
    /// # Errors
    /// The store fails; [`RepositoryError::Doomed`], [`RepositoryError::UnreadableMark`].
    pub fn refuse_doomed(
        &self,
        id: BackupId,
        packs: &BTreeSet<PackId>,
        now: PgTime,
    ) -> Result<Option<PgTime>, RepositoryError> {
        let mut limit: Option<PgTime> = None;
        let dooms = self.doomed()?;
        if let Some((stamp, why)) = dooms.unreadable.into_iter().next()
            && packs.iter().any(|pack| pack.backup != id)
        {
            let (storage, key) = (self.storage.describe(), keys::doom(&self.folder, stamp).to_string());
            return Err(RepositoryError::UnreadableMark { storage, key, reason: why });
        }
        for (_, doom) in dooms.marks {
            let key = if doom.backups.contains(&id) {
                keys::backup(&self.folder, id)
            } else if let Some(pack) = packs.iter().find(|pack| doom.has_pack(**pack)) {
                keys::pack(&self.folder, *pack)
            } else {
                continue;
            };
            if doom.is_near(now) {
                let (storage, key) = (self.storage.describe(), key.to_string());
                return Err(RepositoryError::Doomed { storage, key, due: doom.due });
            }
            limit = Some(limit.map_or(doom.due, |limit| limit.min(doom.due)));
        }
        Ok(limit)
    }

    /// WAL that retention removed, by timeline.
    ///
    /// # Errors
    /// The store fails, or a record cannot be understood.
    pub fn expired_wal(&self, size: SegmentSize) -> Result<BTreeMap<TimelineId, StoredSegments>, RepositoryError> {
        let mut all = BTreeMap::new();
        add_runs(&mut all, &self.expired_runs()?, size);
        Ok(all)
    }

    /// WAL that retention removed, as it is recorded.
    ///
    /// # Errors
    /// The store fails, or a record cannot be understood.
    pub fn expired_runs(&self) -> Result<Vec<WalRun>, RepositoryError> {
        let mut all = Vec::new();
        // A record that goes while this reads is followed by one that says the same.
        let mut again = true;
        while std::mem::take(&mut again) {
            for stamp in self.stamps(&keys::expired(&self.folder))? {
                let key = keys::expired_record(&self.folder, stamp);
                let record: Expired = match self.storage.get(&key, DOOM_BYTES) {
                    Err(error) if error.is_not_found() => {
                        again = true;
                        continue;
                    }
                    bytes => parse(self.storage.as_ref(), &key, &bytes?)?,
                };
                self.known_format(&key, record.format)?;
                all.extend(record.wal);
            }
        }
        Ok(all)
    }

    /// Records that WAL is removed by retention, before it is.
    pub(super) fn record_expired(
        &self,
        more: &BTreeMap<TimelineId, StoredSegments>,
        size: SegmentSize,
        now: PgTime,
    ) -> Result<(), RepositoryError> {
        let old = self.stamps(&keys::expired(&self.folder))?;
        let mut all = self.expired_wal(size)?;
        let before = all.clone();
        for (timeline, segments) in more {
            let known = all.entry(*timeline).or_default();
            segments.runs().for_each(|run| known.insert_run(run));
        }
        if all == before {
            return Ok(());
        }
        let at = old.last().map_or(now, |last| now.max(PgTime(last.at.0.saturating_add(1))));
        let record = Expired { format: DOOM_FORMAT, wal: wal_runs(&all, size) };
        self.put_json(&keys::expired_record(&self.folder, Stamp { at, writer: self.draw()? }), &record)?;
        for stamp in old {
            self.storage.delete(&keys::expired_record(&self.folder, stamp))?;
        }
        Ok(())
    }
}
