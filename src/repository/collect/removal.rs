//! What of a mark may go now: told beforehand for the plan, and again, with the manifests read anew, before it goes.

use std::collections::BTreeMap;

use super::wal::Unneeded;
use super::{CollectionPlan, Due, Going, Packs, Rules, pack_goings, survey, why_packs};
use crate::catalog::{BackupId, PackId};
use crate::repository::{KnownBackup, References, RepositoryError, ServerRepository, keys};
use crate::storage::Key;

/// Why a backup of a mark stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// It has no manifest: what is left of it goes.
    Leftover,
    /// It was forgotten long enough ago.
    Goes,
    /// It is used again, or was forgotten anew not long ago.
    Stays,
}

/// What becomes of a backup that a due mark names.
pub(super) fn fate(known: Option<&KnownBackup>, rules: &Rules) -> Fate {
    match known.map(|known| (&known.notes.forgotten, known.notes.is_kept(rules.now))) {
        None => Fate::Leftover,
        Some((Some(forgotten), false)) if forgotten.since <= rules.over_before() => Fate::Goes,
        Some(_) => Fate::Stays,
    }
}

impl ServerRepository {
    /// All objects in a backup's folder with their bytes, the manifest first.
    pub(super) fn objects_of(&self, id: BackupId) -> Result<Vec<(Key, u64)>, RepositoryError> {
        let (mut found, mut folders) = (Vec::new(), vec![keys::backup(&self.folder, id)]);
        while let Some(folder) = folders.pop() {
            for entry in self.storage.list(&folder)? {
                let Ok(key) = folder.join(&entry.name) else { continue };
                if entry.folder { folders.push(key) } else { found.push((key, entry.size)) }
            }
        }
        let manifest = keys::manifest(&self.folder, id);
        // Its notes say that it is forgotten, until nothing of it is left.
        let rank = |key: &Key| (*key != manifest, key.as_str().contains("/notes/"));
        found.sort_by(|(a, _), (b, _)| (rank(a), a).cmp(&(rank(b), b)));
        Ok(found)
    }

    /// What marks name of packs and is not needed by any backup that is there.
    pub(super) fn removable_packs(&self, due: &Due, references: &References) -> Result<Packs, RepositoryError> {
        let mut packs = Packs::new();
        for pack in self.packs()? {
            if due.packs.contains(&pack.id) && !references.contains(pack.id) {
                packs.insert(pack.id, pack.stored_bytes);
            }
        }
        Ok(packs)
    }

    /// What marks name of WAL and is not needed by any backup that is there.
    pub(super) fn removable_wal(
        &self,
        plan: &CollectionPlan,
        there: &[KnownBackup],
    ) -> Result<Vec<Unneeded>, RepositoryError> {
        if plan.due.wal.is_empty() {
            return Ok(Vec::new());
        }
        let (forgotten, staying): (Vec<_>, Vec<_>) = there.iter().partition(|it| it.notes.forgotten.is_some());
        let needed = survey::needed(&plan.snapshot, &staying, &forgotten, &plan.judged, &plan.rules);
        self.unneeded_wal(&plan.record, &plan.snapshot, &needed, Some(&plan.due.wal), &|_, _| true)
    }

    /// What goes by the marks that are due, as things are now.
    pub(super) fn foresee(&self, plan: &CollectionPlan) -> Result<Vec<Going>, RepositoryError> {
        if plan.due.stamps.is_empty() {
            return Ok(Vec::new());
        }
        let mut going = Vec::new();
        let mut there = self.known_backups()?;
        for id in &plan.due.backups {
            let known = there.iter().find(|known| known.info.id == *id);
            if fate(known, &plan.rules) == Fate::Stays {
                continue;
            }
            let found = self.going_backup(*id, why_removed(known))?;
            there.retain(|known| known.info.id != *id);
            if found.objects > 0 {
                going.push(found);
            }
        }
        let ids: Vec<_> = there.iter().map(|known| known.info.id).collect();
        let references = self.references(&ids)?;
        going.extend(self.going_packs(&self.removable_packs(&plan.due, &references)?, &there));
        let wal = self.removable_wal(plan, &there)?;
        going.extend(wal.iter().flat_map(|wal| wal.goings(plan.record.segment_size_bytes)));
        Ok(going)
    }

    pub(super) fn going_packs(&self, packs: &BTreeMap<PackId, u64>, there: &[KnownBackup]) -> Vec<Going> {
        let complete = there.iter().map(|known| known.info.id).collect();
        pack_goings(packs, why_packs(&complete))
    }
}

/// Why a backup goes.
pub(super) fn why_removed(known: Option<&KnownBackup>) -> String {
    match known.and_then(|known| known.notes.forgotten.as_ref()) {
        Some(forgotten) => format!("forgotten at {}: {}", forgotten.since, forgotten.why),
        None => "it was never complete, or its removal broke off".to_owned(),
    }
}
