//! Carrying a plan out: what is forgotten, removed, spared and marked, in this order.

use super::removal::{Fate, fate, why_removed};
use super::{Collected, CollectionPlan, Due, Going, What};
use crate::catalog::{BackupId, Doom, PackId, RollUpName, Saying};
use crate::repository::collect::wal::Unneeded;
use crate::repository::notes::Author;
use crate::repository::{KnownBackup, RepositoryError, ServerRepository, keys};
use crate::storage::{Key, StorageError, StorageErrorKind};
use crate::wal::{PgTime, SegmentGroup, TimelineId};

/// The longest time between the announcement of a backup's removal and its manifest's, in microseconds.
const MOST_ANNOUNCED_US: i64 = 3_600_000_000;

/// Objects that are removed, in parallel or in one request, before it is looked whether to go on.
const AT_ONCE: usize = 512;

impl ServerRepository {
    /// Carries a plan out. `clock` tells the time; `go_on` is asked again and again; `say` is told what is removed, before it is.
    ///
    /// # Errors
    /// The store fails. What was done is done, and the next run goes on from there.
    pub fn collect(
        &self,
        plan: &CollectionPlan,
        clock: &dyn Fn() -> PgTime,
        go_on: &dyn Fn() -> bool,
        say: &mut dyn FnMut(&Going),
    ) -> Result<Collected, RepositoryError> {
        let mut run = Run { server: self, plan, clock, go_on, say, done: Collected::default() };
        run.forget()?;
        run.remove(&plan.due)?;
        if !run.goes_on() {
            return Ok(run.done);
        }
        run.spare()?;
        if !plan.mark.is_empty() {
            // It stands for its whole time from when others can see it.
            let at = clock();
            let due = PgTime(at.0.saturating_add(plan.rules.age_us));
            self.put_doom(&Doom { at, due, ..plan.mark.clone() })?;
        }
        // What they named and is still to go has just been marked anew.
        for (stamp, _) in &plan.unreadable {
            self.delete_doom(*stamp)?;
        }
        Ok(run.done)
    }
}

struct Run<'a> {
    server: &'a ServerRepository,
    plan: &'a CollectionPlan,
    clock: &'a dyn Fn() -> PgTime,
    go_on: &'a dyn Fn() -> bool,
    say: &'a mut dyn FnMut(&Going),
    done: Collected,
}

impl Run<'_> {
    fn goes_on(&mut self) -> bool {
        self.done.interrupted |= !(self.go_on)();
        !self.done.interrupted
    }

    fn author(&self) -> Author {
        Author { host: self.plan.rules.host.clone(), now: (self.clock)() }
    }

    fn forget(&mut self) -> Result<(), RepositoryError> {
        for forgetting in &self.plan.forgetting {
            let notes = self.server.backup_notes(forgetting.id)?;
            // Somebody may have asked to keep it while the plan was shown.
            if notes.is_kept(self.plan.rules.now) || notes.forgotten.is_some() {
                continue;
            }
            let says = Saying::Forgotten { why: format!("retention: {}", forgetting.why) };
            self.server.add_note(forgetting.id, &notes, &self.author(), says)?;
        }
        Ok(())
    }

    /// Removes what the marks name that are due and nothing needs, and then the marks.
    fn remove(&mut self, due: &Due) -> Result<(), RepositoryError> {
        if due.stamps.is_empty() || !self.goes_on() {
            return Ok(());
        }
        for id in &due.backups {
            self.backup(*id)?;
        }
        // The manifests that are there now count: those that were just removed do not, new ones do.
        let there = self.server.known_backups()?;
        let ids: Vec<_> = there.iter().map(|known| known.info.id).collect();
        let references = self.server.references(&ids)?;
        let packs = self.server.removable_packs(due, &references)?;
        for going in self.server.going_packs(&packs, &there) {
            let What::Packs(run) = going.what else { continue };
            let key = |number| keys::pack(&self.server.folder, PackId { backup: run.backup, number });
            let objects: Vec<Key> = (run.first..=run.last).map(key).collect();
            self.delete(going, &objects)?;
        }
        self.wal(&there)?;
        if !self.done.interrupted && self.done.refused == 0 {
            for stamp in &due.stamps {
                self.server.delete_doom(*stamp)?;
            }
        }
        Ok(())
    }

    /// Removes a backup, its manifest first, unless somebody remembered it.
    fn backup(&mut self, id: BackupId) -> Result<(), RepositoryError> {
        let known = self.server.known_backup(id)?;
        let going = self.server.going_backup(id, why_removed(known.as_ref()))?;
        let manifest = keys::manifest(&self.server.folder, id);
        match fate(known.as_ref(), &self.plan.rules) {
            Fate::Leftover => {
                if going.objects == 0 || !self.goes_on() {
                    return Ok(());
                }
                (self.say)(&going);
            }
            Fate::Goes => {
                if !self.goes_on() {
                    return Ok(());
                }
                let announced_at = (self.clock)();
                if !self.server.begin_removal(id, &self.author())? {
                    self.done.spared.push(id);
                    return Ok(());
                }
                // An announcement is believed for a day only: it must not be old when the manifest goes.
                if (self.clock)().0 >= announced_at.0.saturating_add(MOST_ANNOUNCED_US) {
                    self.done.spared.push(id);
                    return Ok(());
                }
                (self.say)(&going);
                if let Err(error) = self.server.storage.delete(&manifest) {
                    // As long as it is there, all of it stays.
                    return self.refused(error);
                }
            }
            Fate::Stays => {
                self.done.spared.push(id);
                return Ok(());
            }
        }
        let objects = self.server.objects_of(id)?.into_iter().map(|(key, _)| key);
        let rest: Vec<Key> = objects.filter(|key| *key != manifest).collect();
        self.delete_said(going, &rest)
    }

    fn wal(&mut self, there: &[KnownBackup]) -> Result<(), RepositoryError> {
        let size = self.plan.record.segment_size_bytes;
        let unneeded = self.server.removable_wal(self.plan, there)?;
        if unneeded.is_empty() {
            return Ok(());
        }
        self.server.record_expired(&Unneeded::segments(&unneeded), size, self.plan.rules.now)?;
        for of_timeline in unneeded {
            for going in of_timeline.goings(size) {
                let What::Wal(run) = going.what else { continue };
                let within = of_timeline.objects.iter().filter(|(_, object)| {
                    let segment = object.name.segment();
                    run.first <= segment && segment <= run.last
                });
                let objects: Vec<Key> =
                    within.map(|(_, object)| keys::object(&self.server.folder, object.name)).collect();
                self.delete(going, &objects)?;
            }
            let mut groups: Vec<_> =
                of_timeline.objects.iter().map(|(_, object)| object.name.segment().group()).collect();
            groups.dedup();
            self.roll_ups(of_timeline.timeline, &groups)?;
        }
        Ok(())
    }

    /// Removes the roll-ups of groups that have no segments any more. They say nothing that counts.
    fn roll_ups(&mut self, timeline: TimelineId, groups: &[SegmentGroup]) -> Result<(), RepositoryError> {
        let all: Vec<RollUpName> = self.server.all_roll_ups(timeline)?;
        let mut gone = Vec::new();
        for group in groups {
            if self.server.list_group(*group)?.count() == 0 {
                let of_group = all.iter().filter(|name| name.group == *group);
                gone.extend(of_group.map(|name| keys::roll_up(&self.server.folder, *name)));
            }
        }
        self.quietly(&gone)
    }

    /// Marks that name what is needed again are replaced by what is left of them.
    fn spare(&mut self) -> Result<(), RepositoryError> {
        for (stamp, rest) in &self.plan.sparing {
            if !rest.is_empty() {
                self.server.put_doom(rest)?;
            }
            self.server.delete_doom(*stamp)?;
        }
        Ok(())
    }

    fn delete(&mut self, going: Going, objects: &[Key]) -> Result<(), RepositoryError> {
        if !self.goes_on() {
            return Ok(());
        }
        (self.say)(&going);
        self.delete_said(going, objects)
    }

    fn delete_said(&mut self, going: Going, objects: &[Key]) -> Result<(), RepositoryError> {
        let refused = self.done.refused;
        self.quietly(objects)?;
        if !self.done.interrupted && self.done.refused == refused {
            self.done.removed.push(going);
        }
        Ok(())
    }

    fn quietly(&mut self, objects: &[Key]) -> Result<(), RepositoryError> {
        // In order, so that what breaks off leaves no hole behind that is older than what is left.
        let a_request = self.server.storage.deletes_at_once();
        for some in objects.chunks(AT_ONCE.max(a_request)) {
            if !self.goes_on() {
                return Ok(());
            }
            let requests: Vec<&[Key]> = some.chunks(a_request).collect();
            let answers = self.server.in_parallel(&requests, |keys| Ok(self.server.storage.delete_all(keys)))?;
            for error in answers.into_iter().flatten() {
                self.refused(error)?;
            }
        }
        Ok(())
    }

    /// A store that forbids the removal of one object may allow that of others.
    fn refused(&mut self, error: StorageError) -> Result<(), RepositoryError> {
        match error.kind {
            StorageErrorKind::Denied => {
                self.done.refused += 1;
                self.done.refusal.get_or_insert_with(|| error.to_string());
                Ok(())
            }
            _ => Err(error.into()),
        }
    }
}
