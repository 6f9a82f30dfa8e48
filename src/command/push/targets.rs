//! `Targets`: the repositories that WAL files go to, and when there are enough of them.
//!
//! With one repository this is that one, and nothing else happens. With several, a file is read, proved and compressed once, into memory;
//! the same bytes are then sent to all of them at the same time. `push_policy` says how many must hold the file before it counts as
//! archived. Those that do not are waited for a moment, then noted in the spool, with what they lack: [`super::catch_up`] makes
//! that good. A file that one of them holds with other content is a conflict whatever the others say.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::PushError;
use crate::command::call::{CallError, Open, Server};
use crate::command::several::{AWAY_FOR, Failure, gather};
use crate::config::Place;
use crate::report::{self, Report};
use crate::repository::wal::{Archived, StoredAs};
use crate::repository::{RepositoryError, RepositoryId, RepositoryName, ServerRecord, ServerRepository};
use crate::spool::{Acknowledgement, Behind, Spool};
use crate::storage::Put;
use crate::wal::WalFileName;

/// How long the others are waited for once enough repositories have answered.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where files go.
#[derive(Debug)]
pub(super) struct Targets {
    /// The first one that answers: what is known about the server is asked of it.
    lead: Arc<Open>,
    several: Option<Several>,
    /// What is sent is whole in memory before.
    in_memory: bool,
}

/// More than one.
#[derive(Debug)]
struct Several {
    members: Vec<Member>,
    /// How many must hold a file.
    needed: usize,
    /// Without it, what a repository lacks cannot be noted.
    spool: Option<Spool>,
    /// Those that could not be opened.
    unopened: Vec<Arc<Failure>>,
    /// What a person has to know, by the repository that it is about.
    warnings: Mutex<BTreeMap<RepositoryName, Report>>,
}

#[derive(Debug)]
struct Member {
    place: Place,
    /// `None` if it could not be opened, or was not tried because it did not answer a moment ago.
    open: Option<Arc<Open>>,
    /// It failed in this call, or shortly before.
    away: AtomicBool,
}

/// Where a file is now.
#[derive(Debug)]
pub(super) struct Delivered {
    /// The repositories that hold it.
    pub(super) holders: Vec<RepositoryId>,
    /// Those among them that have it byte for byte as it lies on the stage: the others had it before.
    pub(super) as_staged: Vec<RepositoryId>,
}

impl Targets {
    /// Opens them, as far as they answer.
    pub(super) fn open(server: &Arc<Server>) -> Result<Targets, PushError> {
        let mut places = server.config.repositories();
        if places.len() == 1 {
            let only = places.remove(0);
            let in_memory = only.location.directory().is_none();
            return Ok(Targets { lead: Arc::new(server.open_noted(&only)?), several: None, in_memory });
        }
        let needed = server.config.push_policy.needed(places.len());
        let spool = server.make_spool();
        let is_away = |place: &Place| {
            let since = spool.as_ref().and_then(|spool| spool.away_since(&place.name));
            since.is_some_and(|age| age < AWAY_FOR)
        };
        // Those that did not answer a moment ago are left alone only if the others are enough.
        let near: Vec<Place> = places.iter().filter(|place| !is_away(place)).cloned().collect();
        let asked = if near.len() >= needed { near } else { places.clone() };
        let opener = Arc::clone(server);
        let enough = |answers: &[Option<Result<Open, CallError>>]| answers.iter().flatten().flatten().count() >= needed;
        let answers = gather(asked.clone(), move |place| opener.open_noted(&place), enough, PATIENCE);
        let mut answers: BTreeMap<RepositoryName, _> = asked.into_iter().map(|place| place.name).zip(answers).collect();
        let mut members = Vec::new();
        let mut failures = Vec::new();
        for place in places {
            let answer = answers.remove(&place.name);
            let was_asked = answer.is_some();
            let (open, error) = match answer.flatten() {
                Some(Ok(open)) => (Some(Arc::new(open)), None),
                Some(Err(error)) => (None, Some(error)),
                None => (None, None),
            };
            if was_asked && open.is_none() {
                failures.push(Arc::new(Failure::new(&place.name, error)));
            }
            members.push(Member { away: AtomicBool::new(open.is_none()), place, open });
        }
        let lead = members.iter().find_map(|member| member.open.clone());
        let several = Several { members, needed, spool, unopened: failures, warnings: Mutex::default() };
        let Some(lead) = lead else { return Err(several.too_few("open a repository".to_owned(), Vec::new())) };
        for failure in &several.unopened {
            several.note_away(failure);
        }
        Ok(Targets { lead, several: Some(several), in_memory: true })
    }

    /// What is known about the server.
    pub(super) fn record(&self) -> &ServerRecord {
        &self.lead.record
    }

    /// The repository that knows what was archived before.
    pub(super) fn lead(&self) -> &Open {
        &self.lead
    }

    /// Where files go, in words.
    pub(super) fn describe(&self) -> String {
        let describe = |open: &Open| open.server.storage().describe();
        match &self.several {
            None => describe(&self.lead),
            Some(several) => {
                let places = several.members.iter().map(|member| match &member.open {
                    Some(open) => describe(open),
                    None => member.place.location.to_string(),
                });
                places.collect::<Vec<_>>().join(" and ")
            }
        }
    }

    /// Whether a file is whole in memory before it is sent.
    pub(super) fn are_sent_from_memory(&self) -> bool {
        self.in_memory
    }

    /// Where a file is archived at first: in the only repository, or in memory.
    pub(super) fn stage(&self) -> ServerRepository {
        match self.several {
            None => self.lead.server.clone(),
            Some(_) => self.lead.server.in_memory(),
        }
    }

    /// A file was archived on the stage: brings it to where it is durable.
    pub(super) fn deliver(&self, stage: &ServerRepository, archived: Archived) -> Result<Delivered, PushError> {
        let Some(several) = &self.several else {
            let id = vec![self.lead.id.clone()];
            return Ok(Delivered { holders: id.clone(), as_staged: id });
        };
        let (Archived::Stored(name) | Archived::AlreadyThere(name)) = archived;
        several.store(stage, name)
    }

    /// Whether exactly this file was archived ahead, and today's policy is kept with it: enough of today's repositories hold it, and
    /// those that do not are noted to lack it.
    pub(super) fn are_vouched_for(&self, spool: &Spool, file: WalFileName, metadata: &Metadata) -> bool {
        let Some(several) = &self.several else {
            let id = std::slice::from_ref(&self.lead.id);
            return spool.is_acknowledged(file, &Acknowledgement::new(metadata, id));
        };
        let holders = spool.acknowledged_by(file, metadata);
        let holds = |member: &&Member| member.open.as_ref().is_some_and(|open| holders.contains(&open.id));
        let (with, without): (Vec<_>, Vec<_>) = several.members.iter().partition(holds);
        with.len() >= several.needed && without.iter().all(|member| spool.behind(&member.place.name).covers(file))
    }

    /// Those that can be caught up, and those that they can be caught up from. Empty with one repository.
    pub(super) fn present(&self) -> Vec<Arc<Open>> {
        let Some(several) = &self.several else { return Vec::new() };
        let present = several.members.iter().filter(|member| !member.away.load(Ordering::Relaxed));
        present.filter_map(|member| member.open.clone()).collect()
    }

    /// Those that answer, also with one repository.
    pub(super) fn answering(&self) -> Vec<Arc<Open>> {
        if self.several.is_some() { self.present() } else { vec![Arc::clone(&self.lead)] }
    }

    /// Whether every repository of the cluster answers.
    pub(super) fn are_all_present(&self) -> bool {
        self.several.as_ref().is_none_or(|several| self.present().len() == several.members.len())
    }

    /// Notes what one of them lacks now, if nothing was added to what it lacked before.
    pub(super) fn note_caught_up(&self, spool: &Spool, name: &RepositoryName, before: &Behind, now: &Behind) {
        let Some(several) = &self.several else { return };
        // Not while a segment that is still being archived ahead adds to the note.
        let _one_at_a_time = several.warnings();
        // Without the new note the next call compares the listings again.
        let _ = spool.replace_behind(name, before, now);
    }

    /// What a person has to know of them.
    pub(super) fn warnings(&self) -> Vec<Report> {
        let Some(several) = &self.several else { return Vec::new() };
        std::mem::take(&mut *several.warnings()).into_values().collect()
    }

    /// The directories among them.
    pub(super) fn directories(server: &Server) -> Vec<std::path::PathBuf> {
        let places = server.config.repositories();
        places.iter().filter_map(|place| place.location.directory().map(Path::to_owned)).collect()
    }
}

impl Several {
    fn warnings(&self) -> MutexGuard<'_, BTreeMap<RepositoryName, Report>> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, stage: &ServerRepository, name: StoredAs) -> Result<Delivered, PushError> {
        let object = Arc::new(stage.stored_object(name)?);
        let opened: Vec<_> = self.members.iter().filter_map(|member| Some((member, member.open.clone()?))).collect();
        let near: Vec<_> = opened.iter().filter(|(member, _)| !member.away.load(Ordering::Relaxed)).cloned().collect();
        let asked = if near.len() >= self.needed { near } else { opened };
        let (members, opens): (Vec<&Member>, Vec<Arc<Open>>) = asked.into_iter().unzip();
        let sent = Arc::clone(&object);
        let enough =
            |answers: &[Option<Result<_, RepositoryError>>]| answers.iter().flatten().flatten().count() >= self.needed;
        let answers = gather(opens.clone(), move |open| open.server.place(&sent), enough, PATIENCE);
        let (mut holders, mut as_staged) = (BTreeMap::new(), Vec::new());
        let mut failures = Vec::new();
        for ((member, open), answer) in members.into_iter().zip(opens).zip(answers) {
            let failure = match answer {
                Some(Ok(put)) => {
                    as_staged.extend((put == Put::Created).then(|| open.id.clone()));
                    holders.insert(member.place.name.clone(), open.id.clone());
                    continue;
                }
                Some(Err(error @ RepositoryError::Conflict(_))) => return Err(error.into()),
                Some(Err(error)) => Failure::new(&member.place.name, Some(error.into())),
                None => Failure::new(&member.place.name, None),
            };
            member.away.store(true, Ordering::Relaxed);
            failures.push(Arc::new(failure));
        }
        let file = name.file();
        for failure in &failures {
            self.note_away(failure);
        }
        if holders.len() < self.needed {
            return Err(self.too_few(format!("store WAL file \"{file}\""), failures));
        }
        for member in &self.members {
            match holders.contains_key(&member.place.name) {
                true => self.spool.iter().for_each(|spool| spool.note_back(&member.place.name)),
                false => self.note_behind(&member.place.name, file),
            }
        }
        Ok(Delivered { holders: holders.into_values().collect(), as_staged })
    }

    /// It is left alone for a while, and a person is told.
    fn note_away(&self, failure: &Failure) {
        if let Some(spool) = &self.spool {
            // Without the note the next call waits for it as long as this one.
            let _ = spool.note_away(&failure.name);
        }
        self.warnings().insert(failure.name.clone(), report::push::away(failure));
    }

    fn note_behind(&self, name: &RepositoryName, file: WalFileName) {
        // One at a time: segments that are archived ahead end at the same time, and each reads the note to add to it.
        let mut warnings = self.warnings();
        let noted = match &self.spool {
            Some(spool) => spool.note_behind(name, file).map_err(|error| error.to_string()),
            None => Err("there is no spool".to_owned()),
        };
        if let Err(why) = noted {
            warnings.insert(name.clone(), report::push::not_remembered(name, file, &why));
        }
    }

    fn too_few(&self, action: String, failures: Vec<Arc<Failure>>) -> PushError {
        let failures = self.unopened.iter().cloned().chain(failures).collect();
        PushError::TooFew { action, needed: self.needed, of: self.members.len(), failures }
    }
}
