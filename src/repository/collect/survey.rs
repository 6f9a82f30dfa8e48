//! What is there, what is needed, and so what is to be done: reads only.

use std::collections::BTreeSet;

use super::wal::Unneeded;
use super::{CollectionPlan, Due, Forgetting, Going, Packs, Rules, Waiting, What, pack_goings, why_packs};
use crate::catalog::{BackupId, DOOM_FORMAT, Doom, PackId, Stamp, pack_runs};
use crate::recovery::{BackupFacts, Circumstances, Judged, NeededWal, Snapshot, Verdict, judge};
use crate::repository::doomed::wal_runs;
use crate::repository::evidence::backup_facts;
use crate::repository::wal::WalObjectName;
use crate::repository::{KnownBackup, References, RepositoryError, ServerRecord, ServerRepository};
use crate::wal::{PgTime, SegmentName, SegmentNo, TimelineId};

impl ServerRepository {
    /// What is to be done. Nothing is written.
    ///
    /// # Errors
    /// The store fails, a newer version wrote a mark, or a backup's info cannot be understood.
    pub fn plan_collection(&self, record: &ServerRecord, rules: &Rules) -> Result<CollectionPlan, RepositoryError> {
        let dooms = self.doomed()?;
        let known = self.known_backups()?;
        let live: Vec<_> = known.iter().filter(|known| known.notes.forgotten.is_none()).cloned().collect();
        let infos: Vec<_> = live.iter().map(|known| known.info.clone()).collect();
        let snapshot = self.snapshot_with(record, &infos)?;
        let judged = self.judge(&snapshot, &live, rules)?;
        let forgetting = forgetting(&judged, rules);
        let lost: BTreeSet<BackupId> = forgetting.iter().map(|it| it.id).collect();
        let staying: Vec<_> = live.iter().filter(|known| !lost.contains(&known.info.id)).collect();
        let staying_ids: Vec<_> = staying.iter().map(|known| known.info.id).collect();
        let references = self.references(&staying_ids)?;
        let needed = needed(&snapshot, &staying, &[], &judged, rules);
        let complete: BTreeSet<BackupId> = known.iter().map(|known| known.info.id).collect();

        let folders: Vec<_> = self.backup_folders()?.into_iter().collect();
        let over = |id: &BackupId| id.started_at() <= rules.over_before();
        let goes = |id: &BackupId| !staying_ids.contains(id) && (complete.contains(id) || over(id));
        let mut gone: BTreeSet<BackupId> = folders.into_iter().filter(goes).collect();
        // A directory keeps the empty folder of what is gone.
        for id in gone.clone().difference(&complete) {
            if self.objects_of(*id)?.is_empty() {
                gone.remove(id);
            }
        }
        let unneeded = |id: &PackId| !references.contains(*id) && (complete.contains(&id.backup) || over(&id.backup));
        let packs: Packs = self.packs()?.iter().map(|pack| (pack.id, pack.stored_bytes)).collect();
        let dead_bytes = packs.iter().map(|(id, bytes)| references.dead_bytes(*id, *bytes)).sum();
        let garbage: Packs = packs.iter().filter(|(id, _)| unneeded(id)).map(|(id, bytes)| (*id, *bytes)).collect();
        let marked = dooms.wal(record.segment_size_bytes);
        let of_lost = of_lost(&snapshot, &known, &staying_ids, rules);
        let goes = |timeline, number| {
            !marked.get(&timeline).is_some_and(|marked| marked.contains(number)) && of_lost(timeline, number)
        };
        let wal = self.unneeded_wal(record, &snapshot, &needed, None, &goes)?;

        let new_packs =
            garbage.iter().filter(|(id, _)| !dooms.has_pack(**id)).map(|(id, bytes)| (*id, *bytes)).collect();
        let new_backups: Vec<_> = gone.iter().copied().filter(|id| !dooms.has_backup(*id)).collect();
        let mark = Doom {
            format: DOOM_FORMAT,
            at: rules.now,
            due: rules.due(),
            host: rules.host.clone(),
            backups: new_backups.clone(),
            packs: pack_runs(Packs::keys(&new_packs).copied()),
            wal: wal_runs(&Unneeded::segments(&wal), record.segment_size_bytes),
        };
        let why = |id: &BackupId| why_backup(*id, &known, &forgetting);
        let mut marking: Vec<Going> =
            new_backups.iter().map(|id| self.going_backup(*id, why(id))).collect::<Result<_, _>>()?;
        marking.extend(pack_goings(&new_packs, why_packs(&complete)));
        marking.extend(wal.iter().flat_map(|wal| wal.goings(record.segment_size_bytes)));
        let (due, rest): (Vec<_>, Vec<_>) =
            dooms.marks.iter().cloned().partition(|(_, doom)| doom.is_due(rules.now, rules.age_us));
        let mut plan = CollectionPlan {
            system_identifier: self.system_identifier(),
            judged,
            forgetting,
            going: Vec::new(),
            marking,
            waiting: rest.iter().map(|(_, doom)| waiting(doom)).collect(),
            problems: problems(&references),
            unreadable: dooms.unreadable.clone(),
            dead_bytes,
            pack_bytes: packs.values().sum(),
            mark,
            due: Due::of(due, record.segment_size_bytes),
            sparing: sparing(&rest, &gone, &garbage, &packs),
            snapshot,
            record: record.clone(),
            rules: rules.clone(),
        };
        plan.going = self.foresee(&plan)?;
        Ok(plan)
    }

    fn judge(&self, snapshot: &Snapshot, live: &[KnownBackup], rules: &Rules) -> Result<Vec<Judged>, RepositoryError> {
        let kept = live.iter().filter(|known| known.notes.is_kept(rules.now)).map(|known| known.info.id.to_string());
        let recent = match rules.retention.window_start(rules.now) {
            Some(start) => self.recent(snapshot, start, rules.superseded)?,
            None => BTreeSet::new(),
        };
        let circumstances = Circumstances { kept: kept.collect(), recent, superseded: rules.superseded };
        Ok(judge(snapshot, rules.retention, &circumstances, rules.now))
    }

    /// Timelines with moments after `start`: the newest, that of the newest backup, and those with WAL that was archived since. One
    /// that does not tell may have some.
    fn recent(
        &self,
        snapshot: &Snapshot,
        start: PgTime,
        superseded: bool,
    ) -> Result<BTreeSet<TimelineId>, RepositoryError> {
        let newest = snapshot.timelines.keys().last().copied();
        let of_backup = snapshot.backups.iter().map(|backup| (backup.stop_timeline, backup.stop_lsn)).max();
        let present = newest.into_iter().chain(of_backup.map(|(timeline, _)| timeline)).filter(|_| !superseded);
        let mut recent: BTreeSet<_> = present.collect();
        for (timeline, record) in &snapshot.timelines {
            let Some(last) = record.segments.last() else {
                // Only an incomplete segment, or nothing but a history file.
                recent.insert(*timeline);
                continue;
            };
            let last = SegmentName::new(*timeline, last, snapshot.segment_size);
            match self.describe(WalObjectName::Segment(last)) {
                Ok(described) if described.footer.archived_at <= start => {}
                Err(error @ RepositoryError::Storage(_)) => return Err(error),
                _ => {
                    recent.insert(*timeline);
                }
            }
        }
        Ok(recent)
    }

    pub(super) fn going_backup(&self, id: BackupId, why: String) -> Result<Going, RepositoryError> {
        let objects = self.objects_of(id)?;
        let stored_bytes = objects.iter().map(|(_, bytes)| bytes).sum();
        Ok(Going { what: What::Backup(id), objects: objects.len() as u64, stored_bytes, why })
    }
}

/// Backups that the rules let go.
fn forgetting(judged: &[Judged], rules: &Rules) -> Vec<Forgetting> {
    let why = || {
        let retention = rules.retention;
        let days = retention.days.map(|days| format!("the window of {days} days is reached without it"));
        let count = retention.count.map(|count| format!("{count} newer ones are there"));
        days.into_iter().chain(count).collect::<Vec<_>>().join(", and ")
    };
    let gone = judged.iter().filter(|it| it.verdict == Verdict::Goes);
    gone.filter_map(|it| Some(Forgetting { id: it.id.parse().ok()?, why: why() })).collect()
}

/// The WAL that backups need: all from the start of those that stay and of those that may still be remembered, and of each one
/// what makes it consistent.
pub(super) fn needed(
    snapshot: &Snapshot,
    staying: &[&KnownBackup],
    forgotten: &[&KnownBackup],
    judged: &[Judged],
    rules: &Rules,
) -> NeededWal {
    let keeps = |known: &&&KnownBackup| {
        let id = known.info.id.to_string();
        judged.iter().find(|it| it.id == id).is_none_or(|it| it.verdict.keeps_wal())
    };
    let whole: Vec<BackupFacts> =
        staying.iter().filter(keeps).chain(forgotten).map(|known| backup_facts(&known.info)).collect();
    let ranges = staying.iter().chain(forgotten).flat_map(|known| &known.info.wal_ranges);
    let own: Vec<_> = ranges.map(|range| (range.timeline, range.start_lsn, range.end_lsn)).collect();
    let needed = NeededWal::of(snapshot, &whole.iter().collect::<Vec<_>>(), &own);
    // Where no backup is left WAL is kept for the first one to come, which may be running; here none comes any more.
    if whole.is_empty() && rules.superseded { needed.nothing_else() } else { needed }
}

/// Which WAL may go at all. Where no rule is set, only what was kept for backups that people forgot: the rest was never named.
fn of_lost<'a>(
    snapshot: &Snapshot,
    known: &[KnownBackup],
    staying: &[BackupId],
    rules: &Rules,
) -> Box<dyn Fn(TimelineId, SegmentNo) -> bool + Sync + 'a> {
    if !rules.retention.is_none() {
        return Box::new(|_, _| true);
    }
    let lost: Vec<_> = known.iter().filter(|known| !staying.contains(&known.info.id)).collect();
    if lost.is_empty() {
        return Box::new(|_, _| false);
    }
    let theirs = needed(snapshot, &[], &lost, &[], rules);
    Box::new(move |timeline, number| theirs.is_needed(timeline, number))
}

fn why_backup(id: BackupId, known: &[KnownBackup], forgetting: &[Forgetting]) -> String {
    if let Some(forgetting) = forgetting.iter().find(|it| it.id == id) {
        return forgetting.why.clone();
    }
    let forgotten = known.iter().find(|known| known.info.id == id).and_then(|known| known.notes.forgotten.as_ref());
    match forgotten {
        Some(forgotten) => format!("forgotten at {}: {}", forgotten.since, forgotten.why),
        None => "it was never complete, or its manifest is gone".to_owned(),
    }
}

fn problems(references: &References) -> Vec<String> {
    let problem = |(id, why): &(BackupId, String)| {
        format!("no pack is removed: which ones backup {id} needs cannot be told, since {why}")
    };
    references.untold.iter().map(problem).collect()
}

fn waiting(doom: &Doom) -> Waiting {
    let packs = doom.packs.iter().map(|run| u64::from(run.last - run.first) + 1).sum();
    Waiting { at: doom.at, due: doom.due, backups: doom.backups.clone(), packs, wal: doom.wal.clone() }
}

/// Marks that name what is needed again, with what is left of them.
fn sparing(dooms: &[(Stamp, Doom)], gone: &BTreeSet<BackupId>, garbage: &Packs, there: &Packs) -> Vec<(Stamp, Doom)> {
    let mut spared = Vec::new();
    for (stamp, doom) in dooms {
        let backups: Vec<_> = doom.backups.iter().copied().filter(|id| gone.contains(id)).collect();
        let needed = |id: &PackId| there.contains_key(id) && !garbage.contains_key(id);
        if backups.len() < doom.backups.len() || doom.packs().any(|id| needed(&id)) {
            let packs = doom.packs().filter(|id| garbage.contains_key(id));
            let rest = Doom { backups, packs: pack_runs(packs), ..doom.clone() };
            spared.push((*stamp, rest));
        }
    }
    spared
}

impl CollectionPlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.forgetting.is_empty()
            && self.due.stamps.is_empty()
            && self.mark.is_empty()
            && self.sparing.is_empty()
            && self.unreadable.is_empty()
    }

    /// When what is marked now may be removed.
    #[must_use]
    pub fn due(&self) -> PgTime {
        self.mark.due
    }
}
