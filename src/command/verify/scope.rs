//! What there is, and what of it is to be verified in which order.
//!
//! Everything that listings tell is looked at in every run: that all is there costs little. What is read is chosen: what was never
//! verified comes first, then what was verified the longest ago.

use std::collections::{BTreeMap, BTreeSet};

use super::budget::{Lot, Percent};
use super::coverage::Coverage;
use crate::catalog::{BackupId, PackId, Verified};
use crate::command::verify::assemble::pack_of;
use crate::manifest::ManifestLine;
use crate::recovery::{BackupFacts, Snapshot};
use crate::repository::evidence::backup_facts;
use crate::repository::verifying::ListedBackup;
use crate::repository::{RepositoryError, ServerRecord, ServerRepository, WalObjectName};
use crate::wal::{PgTime, SegmentName, SegmentNo, TimelineId};

/// Segments that one thread goes through in order.
const RUN_SEGMENTS: u64 = 64;
/// Segments before the first one that was archived since a time that are verified with it: they are not archived strictly in order.
const MARGIN_SEGMENTS: u64 = 32;

/// One thing to be verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Unit {
    /// A pack.
    Pack(PackId),
    /// A backup: manifest, info, tail, references.
    Backup(BackupId),
    /// What is stored of a timeline beside complete segments.
    Others(TimelineId),
    /// Complete segments.
    Segments { timeline: TimelineId, first: SegmentNo, last: SegmentNo },
}

/// A unit in the order of work.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Queued {
    pub(super) unit: Unit,
    /// When it was verified last.
    pub(super) last: Option<PgTime>,
    /// About the bytes to be read.
    pub(super) weight: u64,
}

/// What of it is wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) backups: Vec<BackupId>,
    pub(super) wal_only: bool,
    pub(super) since: Option<PgTime>,
    pub(super) share: Option<Percent>,
    /// The time is limited: by age, whatever it is. Else packs come before the manifests that refer to them.
    pub(super) by_age: bool,
}

/// One server of the cluster.
pub(super) struct Scope {
    pub(super) server: ServerRepository,
    pub(super) record: ServerRecord,
    /// All that have a folder, broken-off ones too.
    pub(super) backups: Vec<ListedBackup>,
    /// Backups whose packs a complete backup refers to, itself included.
    pub(super) sources: BTreeMap<BackupId, Vec<BackupId>>,
    /// Packs that a complete backup may refer to, with their sizes.
    pub(super) packs: BTreeMap<PackId, u64>,
    /// What plans are made from, without timelines whose history cannot be read.
    pub(super) snapshot: Snapshot,
    pub(super) others: BTreeMap<TimelineId, Vec<WalObjectName>>,
    /// Timelines whose history file is damaged, and why.
    pub(super) broken_histories: BTreeSet<TimelineId>,
    pub(super) history_flaws: Vec<(TimelineId, String)>,
    pub(super) verified: Verified,
}

impl Scope {
    /// Looks at what there is.
    pub(super) fn gather(server: ServerRepository, record: ServerRecord) -> Result<Scope, RepositoryError> {
        // What is forgotten, or on its way out, is nobody's any more, and neither is the WAL that only it needed.
        let doomed = server.doomed()?;
        let mut backups = Vec::new();
        for backup in server.listed_backups()? {
            if !doomed.has_backup(backup.id) && server.backup_notes(backup.id)?.forgotten.is_none() {
                backups.push(backup);
            }
        }
        let mut sources = BTreeMap::new();
        for backup in backups.iter().filter(|backup| backup.complete) {
            let named = match server.prove_manifest(backup.id) {
                Ok(manifest) => manifest.reader.header().pack_sources.clone(),
                // It is told where the manifest is verified.
                Err(_) => vec![backup.id],
            };
            sources.insert(backup.id, named);
        }
        let needed: BTreeSet<BackupId> = sources.values().flatten().copied().collect();
        let listed = if needed.is_empty() { Vec::new() } else { server.packs()? };
        let packs = listed.into_iter().filter(|pack| needed.contains(&pack.id.backup));
        let packs = packs.map(|pack| (pack.id, pack.stored_bytes)).collect();
        let size = record.segment_size_bytes;
        let verified = Verified::of(&server.ledger()?.ledgers(), size);
        let facts = backups.iter().filter_map(|backup| match &backup.info {
            // One that was verified, and whose manifest is gone, is missed.
            Ok(info) if backup.complete || verified.backups.contains_key(&backup.id) => Some(backup_facts(info)),
            Err(_) if backup.complete => facts_of_manifest(&server, backup.id),
            _ => None,
        });
        let facts = facts.collect();
        let mut scope = Scope {
            server,
            record,
            backups,
            sources,
            packs,
            snapshot: Snapshot { segment_size: size, backups: facts, timelines: BTreeMap::new() },
            others: BTreeMap::new(),
            broken_histories: BTreeSet::new(),
            history_flaws: Vec::new(),
            verified,
        };
        scope.timelines()?;
        Ok(scope)
    }

    /// Lists the stored WAL anew.
    pub(super) fn timelines(&mut self) -> Result<(), RepositoryError> {
        self.snapshot.timelines.clear();
        self.others.clear();
        self.broken_histories.clear();
        self.history_flaws.clear();
        for timeline in self.server.timelines()? {
            let listings = self.server.listing(timeline)?;
            let others = listings.iter().flat_map(|listing| listing.others.iter().copied()).collect();
            self.others.insert(timeline, others);
            match self.server.timeline_record(timeline, self.record.segment_size_bytes, &listings) {
                Ok(record) => drop(self.snapshot.timelines.insert(timeline, record)),
                Err(error) if error.is_no_answer() => return Err(error),
                Err(error) => {
                    self.broken_histories.insert(timeline);
                    self.history_flaws.push((timeline, error.to_string()));
                    // Its segments are verified all the same.
                    let segments = listings.iter().flat_map(|listing| listing.segments());
                    let segments = segments.filter_map(|name| name.number(self.record.segment_size_bytes).ok());
                    let record = crate::recovery::TimelineRecord { segments: segments.collect(), ..Default::default() };
                    self.snapshot.timelines.insert(timeline, record);
                }
            }
        }
        // What retention removed is not missed.
        for (timeline, expired) in self.server.expired_wal(self.record.segment_size_bytes)? {
            if let Some(record) = self.snapshot.timelines.get_mut(&timeline) {
                record.expired = expired;
            }
        }
        Ok(())
    }

    /// Complete backups.
    pub(super) fn complete(&self) -> impl Iterator<Item = &ListedBackup> {
        self.backups.iter().filter(|backup| backup.complete)
    }

    /// How much of it the ledger says was verified.
    pub(super) fn coverage(&self, verified: &Verified) -> Coverage {
        let backups = self.complete().map(|backup| backup.id);
        Coverage::of(verified, &self.snapshot, backups, self.packs.keys().copied())
    }

    /// What is to be verified: stages that follow each other, each in order.
    pub(super) fn queue(&self, wanted: &Wanted) -> Result<Vec<Vec<Queued>>, RepositoryError> {
        let (mut packs, mut backups, mut wal) = (Vec::new(), Vec::new(), Vec::new());
        if !wanted.wal_only {
            let ids: Vec<BackupId> = self.complete().filter(|it| is_wanted(it, wanted)).map(|it| it.id).collect();
            packs = self.queued_packs(wanted, &ids);
            backups = ids.iter().map(|id| self.queued_backup(*id)).collect();
        }
        let mut lot = Lot::new(wanted.share);
        for (timeline, first, last) in self.stretches(wanted)? {
            self.queue_segments(timeline, first, last, &mut lot, &mut wal);
        }
        if wanted.backups.is_empty() {
            let others = self.others.keys().map(|timeline| Queued {
                unit: Unit::Others(*timeline),
                last: self.verified.others.get(timeline).copied(),
                weight: 0,
            });
            packs.extend(others);
        }
        let mut stages = if wanted.by_age {
            backups.append(&mut packs);
            backups.append(&mut wal);
            vec![backups]
        } else {
            vec![packs, backups, wal]
        };
        // What was never verified has no time, which is less than any; what is alike keeps its order.
        stages.iter_mut().for_each(|stage| stage.sort_by_key(|queued| queued.last));
        stages.retain(|stage| !stage.is_empty());
        Ok(stages)
    }

    fn queued_packs(&self, wanted: &Wanted, ids: &[BackupId]) -> Vec<Queued> {
        let mut chosen: BTreeSet<PackId> = self.packs.keys().copied().collect();
        if !wanted.backups.is_empty() {
            chosen.clear();
            for id in ids {
                self.packs_of(*id, &mut chosen);
            }
        }
        if wanted.since.is_some() {
            chosen.retain(|pack| ids.contains(&pack.backup));
        }
        let queued = chosen.into_iter().filter_map(|pack| {
            let last = self.verified.packs.get(&pack.backup).and_then(|spans| spans.at(pack.number.into()));
            Some(Queued { unit: Unit::Pack(pack), last, weight: *self.packs.get(&pack)? })
        });
        queued.collect()
    }

    /// The packs that a backup refers to.
    fn packs_of(&self, id: BackupId, packs: &mut BTreeSet<PackId>) {
        let mut add = || -> Result<(), RepositoryError> {
            let mut manifest = self.server.prove_manifest(id)?;
            let sources = manifest.reader.header().pack_sources.clone();
            while let Some(line) = manifest.reader.next() {
                let chunks = match line.map_err(|error| manifest.error(error))? {
                    ManifestLine::File(file) => file.chunks,
                    ManifestLine::Config(file) => file.chunks,
                    ManifestLine::Directory(_) | ManifestLine::Symlink(_) => continue,
                };
                for chunk in &chunks {
                    packs.extend(chunk.places().filter_map(|place| pack_of(&sources, place)));
                }
            }
            Ok(())
        };
        // What is wrong with it is told where the manifest is verified.
        drop(add());
    }

    fn queued_backup(&self, id: BackupId) -> Queued {
        let found = self.verified.backups.get(&id);
        let info = self.backups.iter().find(|backup| backup.id == id).and_then(|backup| backup.info.as_ref().ok());
        Queued {
            unit: Unit::Backup(id),
            last: found.filter(|found| found.assembled.is_none()).map(|found| found.at),
            // A manifest takes about a thousandth of what it tells of.
            weight: info.map_or(0, |info| info.raw_bytes / 1000),
        }
    }

    /// The runs of stored segments that are wanted.
    fn stretches(&self, wanted: &Wanted) -> Result<Vec<(TimelineId, u64, u64)>, RepositoryError> {
        let size = self.record.segment_size_bytes;
        let mut found = Vec::new();
        for (timeline, record) in &self.snapshot.timelines {
            let from = match wanted.since {
                Some(since) => self.first_since(*timeline, since)?,
                None => 0,
            };
            for run in record.segments.runs() {
                let (first, last) = (run.start().0.max(from), run.end().0);
                if wanted.backups.is_empty() {
                    found.push((*timeline, first, last));
                    continue;
                }
                let infos = self.complete().filter(|backup| is_wanted(backup, wanted));
                let ranges = infos.filter_map(|it| it.info.as_ref().ok()).flat_map(|info| &info.wal_ranges);
                for range in ranges.filter(|range| range.timeline == *timeline) {
                    let needed = (SegmentNo::of(range.start_lsn, size), SegmentNo::before(range.end_lsn, size));
                    found.push((*timeline, first.max(needed.0.0), last.min(needed.1.0)));
                }
            }
        }
        found.retain(|(_, first, last)| first <= last);
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// The number of the first segment that was archived since a time, and some before it.
    fn first_since(&self, timeline: TimelineId, since: PgTime) -> Result<u64, RepositoryError> {
        let Some(record) = self.snapshot.timelines.get(&timeline) else { return Ok(0) };
        let (mut low, mut high) = (0, record.segments.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let Some(number) = record.segments.nth(middle) else { break };
            let name = SegmentName::new(timeline, number, self.record.segment_size_bytes);
            let before = match self.server.describe(WalObjectName::Segment(name)) {
                Ok(described) => described.footer.archived_at < since,
                Err(error) if error.is_no_answer() => return Err(error),
                // It is damaged: rather too much than too little.
                Err(_) => false,
            };
            if before { low = middle + 1 } else { high = middle }
        }
        let number = record.segments.nth(low).map_or(u64::MAX, |number| number.0);
        Ok(if number == u64::MAX { number } else { number.saturating_sub(MARGIN_SEGMENTS) })
    }

    fn queue_segments(&self, timeline: TimelineId, first: u64, last: u64, lot: &mut Lot, queue: &mut Vec<Queued>) {
        // About what a segment takes when it is compressed.
        let weight = self.record.segment_size_bytes.bytes() / 3;
        let spans = self.verified.segments.get(&timeline);
        // What of it was verified when differs after a run that was broken off: then it is a piece of its own.
        let mut add = |first: u64, last: u64| {
            let at = |number| spans.and_then(|spans| spans.at(number));
            let mut begins = first;
            for number in first..=last {
                if number == last || at(number + 1) != at(begins) {
                    let unit = Unit::Segments { timeline, first: SegmentNo(begins), last: SegmentNo(number) };
                    queue.push(Queued { unit, last: at(begins), weight: (number - begins + 1) * weight });
                    begins = number + 1;
                }
            }
        };
        if !lot.takes_all() {
            (first..=last).filter(|_| lot.draws()).for_each(|number| add(number, number));
            return;
        }
        // Runs end at the same places in every run, so that what was verified together comes together again.
        let mut at = first;
        while at <= last {
            let end = (at - at % RUN_SEGMENTS + RUN_SEGMENTS - 1).min(last);
            add(at, end);
            at = end + 1;
        }
    }
}

/// What a manifest tells of a backup whose info cannot be trusted: for the windows as they seemed.
fn facts_of_manifest(server: &ServerRepository, id: BackupId) -> Option<BackupFacts> {
    let mut manifest = server.prove_manifest(id).ok()?;
    let stop = manifest.reader.verify_to_end().ok()?;
    let header = manifest.reader.header();
    Some(BackupFacts {
        id: id.to_string(),
        start_lsn: header.start_lsn,
        stop_lsn: stop.stop_lsn,
        start_timeline: header.start_timeline,
        stop_timeline: stop.stop_timeline,
        start_time: header.start_time,
        stop_time: stop.stop_time,
        size_bytes: 0,
        stored_bytes: 0,
        tail: None,
    })
}

fn is_wanted(backup: &ListedBackup, wanted: &Wanted) -> bool {
    let named = wanted.backups.is_empty() || wanted.backups.contains(&backup.id);
    let stored = match (&backup.info, wanted.since) {
        (Ok(info), Some(since)) => info.stop_time >= since,
        _ => true,
    };
    named && stored
}
