//! Going through what is to be verified, in parallel; what was verified is noted in the ledger while it goes on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::assemble::Windows;
use super::backups::{self, Look, Outcome};
use super::budget::{Budget, Lot, Percent};
use super::found::{Counts, Found};
use super::frames::{Frame, Frames};
use super::packs::{self, Hand};
use super::progress::Progress;
use super::record::Recorder;
use super::scope::{Queued, Scope, Unit};
use crate::catalog::{BackupId, BackupInfo, PackId};
use crate::repository::{RepositoryError, SegmentVerifier, ServerRepository, WalObjectName};
use crate::wal::{SegmentName, SegmentNo, TimelineId};

/// So many times in a row without an answer, and the store is given up.
const MOST_SILENCES: u32 = 6;
/// Most chunks of which it is remembered that they were put together: 40 MB.
const MOST_ASSEMBLED: usize = 1 << 20;

/// Goes through the stages one after the other, each in parallel.
pub(super) fn go(runs: &[Run<'_>], stages: &[Vec<(usize, Queued)>], budget: &Budget, jobs: usize) {
    for (number, stage) in stages.iter().enumerate() {
        let next = AtomicUsize::new(0);
        let take = || {
            let mut hands: Vec<Option<Hand<'_>>> = runs.iter().map(|_| None).collect();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let Some((server, queued)) = stage.get(at) else { return };
                // The first one is verified however short the time is: so any number of runs comes to the end.
                let first = number == 0 && at == 0;
                if budget.is_interrupted() || (budget.is_over() && !first) {
                    return;
                }
                let run = &runs[*server];
                run.unit(queued, hands[*server].get_or_insert_with(|| run.hand()));
                run.recorder.flush_if_due(run.server());
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..jobs.min(stage.len()) {
                scope.spawn(take);
            }
            take();
        });
    }
}

/// The verification of one server.
pub(super) struct Run<'a> {
    pub(super) scope: &'a Scope,
    pub(super) budget: &'a Budget,
    pub(super) frames: Frames,
    recorder: &'a Recorder,
    progress: &'a Progress<'a>,
    share: Option<Percent>,
    found: Mutex<Found>,
    /// What was begun, whatever came of it.
    seen: Mutex<Counts>,
    assembled: Mutex<HashMap<[u8; 16], u32>>,
    silences: AtomicU32,
}

impl<'a> Run<'a> {
    pub(super) fn new(
        scope: &'a Scope,
        budget: &'a Budget,
        recorder: &'a Recorder,
        progress: &'a Progress<'a>,
        share: Option<Percent>,
    ) -> Run<'a> {
        Run {
            scope,
            budget,
            frames: Frames::default(),
            recorder,
            progress,
            share,
            found: Mutex::default(),
            seen: Mutex::default(),
            assembled: Mutex::default(),
            silences: AtomicU32::new(0),
        }
    }

    pub(super) fn server(&self) -> &'a ServerRepository {
        &self.scope.server
    }

    /// The info of a backup, if it can be trusted.
    pub(super) fn info(&self, id: BackupId) -> Option<&'a BackupInfo> {
        self.scope.backups.iter().find(|backup| backup.id == id)?.info.as_ref().ok()
    }

    /// Bytes of a pack, if it is there.
    pub(super) fn pack_size(&self, pack: PackId) -> Option<u64> {
        self.scope.packs.get(&pack).copied()
    }

    pub(super) fn with_found<T>(&self, change: impl FnOnce(&mut Found) -> T) -> T {
        change(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The store answers.
    pub(super) fn answered(&self) {
        self.silences.store(0, Ordering::Relaxed);
    }

    /// Notes that the store could not be asked about an object. When it never answers, it is given up.
    pub(super) fn no_answer(&self, object: String, error: RepositoryError) {
        if self.silences.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_SILENCES {
            self.budget.give_up();
        }
        self.with_found(|found| found.no_answers.push((object, error)));
    }

    /// Keeps what is known of a pack's frames. Without room for it, manifests ask the index again.
    pub(super) fn keep(&self, pack: PackId, frames: Vec<Frame>) {
        if let Err(error) = self.frames.put(pack, frames) {
            tracing::warn!("could not write to a temporary file: {error}");
        }
    }

    /// The CRC-32C of a chunk that was put together before.
    pub(super) fn assembled(&self, key: &[u8; 16]) -> Option<u32> {
        self.assembled.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    pub(super) fn set_assembled(&self, key: [u8; 16], crc: u32) {
        let mut assembled = self.assembled.lock().unwrap_or_else(PoisonError::into_inner);
        if assembled.len() < MOST_ASSEMBLED {
            assembled.insert(key, crc);
        }
        drop(assembled);
        self.with_found(|found| found.counts.assembled += 1);
    }

    /// Which files need what is damaged in packs.
    pub(super) fn trace(&self) {
        let damage = self.with_found(|found| found.packs.clone());
        if damage.is_empty() {
            return;
        }
        let mut hand = self.hand();
        for (id, sources) in &self.scope.sources {
            if damage.keys().any(|pack| sources.contains(&pack.backup)) {
                backups::verify(self, &mut hand, *id, Look::For(&damage));
            }
        }
    }

    /// What was found, and how much was looked at.
    pub(super) fn into_found(self) -> (Found, Counts) {
        let found = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        (found, self.seen.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    fn saw(&self, unit: &Unit) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).add(unit);
    }

    /// What a thread needs.
    pub(super) fn hand(&self) -> Hand<'_> {
        Hand {
            wal: SegmentVerifier::new(self.server(), &self.scope.record),
            windows: Windows::new(self.server(), self.budget),
            lot: Lot::new(self.share),
        }
    }

    fn unit(&self, queued: &Queued, hand: &mut Hand<'_>) {
        match &queued.unit {
            Unit::Pack(pack) => {
                if packs::verify(self, *pack, &mut hand.lot) {
                    self.recorder.pack(*pack);
                }
                self.saw(&queued.unit);
                self.progress.advance(queued.weight);
            }
            Unit::Backup(id) => {
                if self.backup(*id, hand) {
                    self.saw(&queued.unit);
                }
                self.progress.advance(queued.weight);
            }
            Unit::Others(timeline) => {
                self.others(*timeline, hand);
                self.progress.advance(queued.weight);
            }
            Unit::Segments { timeline, first, last } => {
                let count = last.0 - first.0 + 1;
                for (at, number) in (first.0..=last.0).enumerate() {
                    if at > 0 && self.budget.is_over() || self.budget.is_interrupted() {
                        return;
                    }
                    let (timeline, number) = (*timeline, SegmentNo(number));
                    self.segment(timeline, number, hand);
                    self.saw(&Unit::Segments { timeline, first: number, last: number });
                    self.progress.advance(queued.weight / count);
                }
            }
        }
    }

    /// Whether it was finished.
    fn backup(&self, id: BackupId, hand: &mut Hand<'_>) -> bool {
        let before = self.scope.verified.backups.get(&id).and_then(|found| found.assembled).unwrap_or_default();
        let outcome = backups::verify(self, hand, id, Look::Full { assembled_before: before });
        match outcome {
            // What an earlier run put together was good then; now all was.
            Outcome::Good => self.recorder.backup(id, None),
            Outcome::Partly(assembled) => self.recorder.backup(id, Some(assembled)),
            Outcome::Sampled | Outcome::Not => {}
        }
        let finished = !matches!(outcome, Outcome::Partly(_)) && !self.budget.is_interrupted();
        self.with_found(|found| found.counts.backups += u64::from(finished));
        finished
    }

    fn segment(&self, timeline: TimelineId, number: SegmentNo, hand: &mut Hand<'_>) {
        let size = self.scope.record.segment_size_bytes;
        if !self.scope.snapshot.is_stored(timeline, number) {
            return;
        }
        let segment = SegmentName::new(timeline, number, size);
        match hand.wal.segment(segment) {
            Ok(verdict) => {
                self.answered();
                self.budget.spend(verdict.stored_bytes);
                if verdict.flaws.is_empty() {
                    self.recorder.segment(timeline, number);
                }
                self.with_found(|found| {
                    found.counts.segments += 1;
                    if !verdict.flaws.is_empty() {
                        found.segments.insert(segment, verdict.flaws);
                    }
                });
            }
            Err(error) if error.is_not_found() => self.with_found(|found| found.vanished = true),
            Err(error) => self.no_answer(self.server().wal_object(WalObjectName::Segment(segment)).to_string(), error),
        }
    }

    fn others(&self, timeline: TimelineId, hand: &mut Hand<'_>) {
        let mut good = true;
        for name in self.scope.others.get(&timeline).into_iter().flatten() {
            if self.budget.is_interrupted() {
                return;
            }
            match hand.wal.other(*name) {
                Ok(bytes) => {
                    self.answered();
                    self.budget.spend(bytes);
                    self.with_found(|found| found.counts.others += 1);
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    good = false;
                    let key = self.server().wal_object(*name).to_string();
                    if error.is_no_answer() {
                        self.no_answer(key, error);
                    } else {
                        self.with_found(|found| found.others.push((key, error.to_string())));
                    }
                }
            }
        }
        match hand.wal.history(timeline) {
            Ok(there) => self.with_found(|found| found.counts.others += u64::from(there)),
            // What is wrong with it was told when the timelines were listed, unless it is its description.
            Err(error) if error.is_no_answer() => {
                good = false;
                self.no_answer(format!("{timeline}.history"), error);
            }
            Err(error) => {
                good = false;
                let key = self.server().history_object(timeline).to_string();
                if !self.scope.broken_histories.contains(&timeline) {
                    self.with_found(|found| found.others.push((key, error.to_string())));
                }
            }
        }
        if good {
            self.recorder.others(timeline);
        }
    }
}
