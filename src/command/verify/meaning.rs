//! What damage means: which backups can still be restored, and which moments cannot any more.
//!
//! The recovery windows are computed twice: as they seemed by what is stored, and without what was found to be bad.

use super::finding::BackupVerdict;
use super::found::{BackupDamage, Found};
use super::scope::Scope;
use crate::catalog::BackupId;
use crate::recovery::{
    BackupFacts, Closed, Snapshot, StoredDamage, WalCopy, WalEvidence, Window, closed, windows, within,
};
use crate::repository::evidence::StoredEvidence;
use crate::repository::{RepositoryError, SegmentFlaw};
use crate::wal::{Event, Lsn, PgTime, SegmentEnding, SegmentFacts, SegmentName, SegmentNo, SegmentSize, TimelineId};

/// Most segments that turn out to be damaged while windows are computed.
const MOST_DAMAGED: usize = 64;

/// What is left.
pub(super) struct Meaning {
    /// The store answered, so that what follows is known.
    known: bool,
    /// Windows without what is bad.
    pub(super) windows: Vec<Window>,
    /// What could be restored if all were good, and cannot.
    pub(super) closed: Vec<Closed>,
    /// All complete backups.
    pub(super) backups: Vec<BackupVerdict>,
    /// Backups that are good and lack WAL, and the first segment that each lacks.
    pub(super) without_wal: Vec<(BackupId, Option<SegmentName>)>,
}

impl Meaning {
    /// Works it out.
    pub(super) fn of(scope: &Scope, found: &Found) -> Result<Meaning, RepositoryError> {
        let size = scope.record.segment_size_bytes;
        let mut evidence = Lenient { inner: scope.server.evidence(&scope.record), size };
        let before = windows(&scope.snapshot, &mut evidence)?;
        let mut after = scope.snapshot.clone();
        let complete: Vec<String> = scope.complete().map(|backup| backup.id.to_string()).collect();
        after.backups.retain(|backup| complete.contains(&backup.id) && is_good(backup, found));
        for (segment, flaws) in &found.segments {
            after.set_damaged(damage(*segment, flaws, size));
        }
        for (timeline, _) in &scope.history_flaws {
            if let Some(record) = after.timelines.get_mut(timeline) {
                record.history = None;
            }
        }
        for record in after.timelines.values_mut() {
            record.partials.retain(|partial| {
                let suffix = format!(".partial.{}", partial.hash);
                !found.others.iter().any(|(key, _)| key.ends_with(&suffix))
            });
        }
        let left = settled(scope, &mut after)?;
        let inside = within(&after, &left);
        let mut backups = Vec::new();
        let mut without_wal = Vec::new();
        for listed in scope.complete() {
            let facts = after.backups.iter().find(|facts| facts.id == listed.id.to_string());
            let restorable = match facts {
                None => false,
                Some(facts) if inside.contains(&facts.id) => true,
                Some(facts) => {
                    // Its own tail may lead further than the windows of others.
                    let alone = Snapshot { backups: vec![facts.clone()], ..after.clone() };
                    let reaches = !windows(&alone, &mut evidence)?.is_empty();
                    if !reaches {
                        without_wal.push((listed.id, lacking(listed.info.as_ref().ok(), &after)));
                    }
                    reaches
                }
            };
            backups.push(BackupVerdict { id: listed.id, restorable });
        }
        let closed = closed(&before, &left);
        Ok(Meaning { known: true, windows: left, closed, backups, without_wal })
    }

    /// What is left when the store cannot be asked any more: what the findings alone say.
    pub(super) fn unknown(scope: &Scope, found: &Found) -> Meaning {
        let good = |id: BackupId| found.backups.get(&id).is_none_or(BackupDamage::is_restorable);
        let backups = scope.complete().map(|backup| BackupVerdict { id: backup.id, restorable: good(backup.id) });
        Meaning {
            known: false,
            windows: Vec::new(),
            closed: Vec::new(),
            backups: backups.collect(),
            without_wal: Vec::new(),
        }
    }

    /// The end of what can be restored before a place in the WAL of a timeline, and the window that ends there.
    pub(super) fn last_before(&self, timeline: TimelineId, lsn: Lsn) -> Option<&Window> {
        let reaches = |window: &&Window| window.timeline == timeline && window.end_lsn <= lsn;
        self.windows.iter().filter(reaches).max_by_key(|window| window.end_lsn)
    }

    /// What closes, in words; `None` if every moment can still be restored.
    pub(super) fn closing(&self) -> Option<String> {
        if !self.known {
            return Some("Which moments that costs cannot be told: the store did not answer.".to_owned());
        }
        let words: Vec<String> = self.closed.iter().map(stretch).collect();
        (!words.is_empty()).then(|| words.join(" "))
    }
}

/// Whether one of these backups could be replayed over a place.
pub(super) fn wants(backups: &[BackupFacts], timeline: TimelineId, lsn: Lsn) -> bool {
    backups.iter().any(|backup| backup.start_timeline <= timeline && backup.start_lsn < lsn)
}

fn is_good(backup: &BackupFacts, found: &Found) -> bool {
    let damage = found.backups.iter().find(|(id, _)| id.to_string() == backup.id);
    damage.is_none_or(|(_, damage)| damage.is_restorable())
}

fn damage(segment: SegmentName, flaws: &[SegmentFlaw], size: SegmentSize) -> StoredDamage {
    let start = segment.number(size).map_or(Lsn::INVALID, |number| number.start(size));
    let (good_until, why) = flaws.first().map_or((start, String::new()), |flaw| told(flaw, start));
    StoredDamage { segment, hash: String::new(), good_until, why, or_before: None, archived_at: PgTime(0) }
}

/// Where a flaw begins, and what it is.
pub(super) fn told(flaw: &SegmentFlaw, start: Lsn) -> (Lsn, String) {
    match flaw {
        SegmentFlaw::Unreadable { why } => (start, format!("its stored copy cannot be used: {why}")),
        SegmentFlaw::Description { why } => (start, format!("its description is not that of its content: {why}")),
        SegmentFlaw::Records { good_until, why } => {
            (*good_until, format!("its records stop making sense at {good_until}: {why}"))
        }
        SegmentFlaw::Border { good_until, why } => (
            *good_until,
            format!(
                "the record at {good_until} over the border from the segment before does not hold ({why}); either of the two may be \
                 the bad one"
            ),
        ),
    }
}

/// The windows; segments that turn out to be damaged on the way are taken for what they are, as a plan does.
fn settled(scope: &Scope, after: &mut Snapshot) -> Result<Vec<Window>, RepositoryError> {
    for _ in 0..MOST_DAMAGED {
        match windows(after, &mut scope.server.evidence(&scope.record)) {
            Ok(windows) => return Ok(windows),
            Err(error) => {
                let damage = scope.server.rotten(&error, after.segment_size);
                if !damage.is_some_and(|damage| after.set_damaged(damage)) {
                    break;
                }
            }
        }
    }
    windows(after, &mut Lenient { inner: scope.server.evidence(&scope.record), size: after.segment_size })
}

/// The first segment that a backup needs to become consistent and that is not there.
fn lacking(info: Option<&crate::catalog::BackupInfo>, snapshot: &Snapshot) -> Option<SegmentName> {
    let size = snapshot.segment_size;
    info?.wal_ranges.iter().find_map(|range| {
        let (first, last) = (SegmentNo::of(range.start_lsn, size), SegmentNo::before(range.end_lsn, size));
        let missing = (first.0..=last.0).find(|number| !snapshot.is_stored(range.timeline, SegmentNo(*number)))?;
        Some(SegmentName::new(range.timeline, SegmentNo(missing), size))
    })
}

fn stretch(closed: &Closed) -> String {
    format!("The window on {} closes; {}.", closed.stretch(), closed.rest())
}

/// Evidence that takes a segment whose description is damaged for one that goes on to its end: for windows as they seemed.
struct Lenient {
    inner: StoredEvidence,
    size: SegmentSize,
}

impl WalEvidence for Lenient {
    type Error = RepositoryError;

    fn facts(&mut self, copy: &WalCopy) -> Result<SegmentFacts, RepositoryError> {
        match self.inner.facts(copy) {
            Err(error) if !error.is_no_answer() => {
                let end = copy.segment().number(self.size).map_or(Lsn::INVALID, |number| number.end(self.size));
                Ok(SegmentFacts { ending: SegmentEnding::Full, ..SegmentFacts::unreachable(end) })
            }
            other => other,
        }
    }

    fn stored_bytes(&mut self, copy: &WalCopy) -> Result<u64, RepositoryError> {
        self.inner.stored_bytes(copy)
    }

    fn events(&mut self, copy: &WalCopy) -> Result<Vec<Event>, RepositoryError> {
        match self.inner.events(copy) {
            Err(error) if !error.is_no_answer() => Ok(Vec::new()),
            other => other,
        }
    }

    fn record_from(&mut self, copy: &WalCopy, from: Lsn) -> Result<Option<Lsn>, RepositoryError> {
        self.inner.record_from(copy, from)
    }
}
