//! What was said about backups after they were complete: annotations, holds, and that they are forgotten.
//!
//! A forgotten backup is still there, as a whole: [`super::collect`] removes it later. Until then it can be remembered. Removal
//! and remembering do not wait for each other: each writes its note first and reads the other's then, so at least one of the two
//! sees the other and gives way.

use super::backup::pass_over;
use super::{RepositoryError, SMALL_OBJECT_BYTES, ServerRepository, keys, malformed};
use crate::catalog::{BackupId, BackupInfo, BackupNotes, NOTE_FORMAT, Note, Saying, Stamp};
use crate::storage::Put;
use crate::wal::PgTime;

/// The longest that a removal may take from its announcement to the end of the manifest, in microseconds.
const MOST_REMOVAL_US: i64 = 86_400_000_000;

/// A complete backup, and what was said about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KnownBackup {
    /// What it is.
    pub info: BackupInfo,
    /// What was said about it.
    pub notes: BackupNotes,
}

/// Who says something, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Author {
    /// The host.
    pub host: String,
    /// The time, by its clock.
    pub now: PgTime,
}

/// What came of remembering a forgotten backup.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remembering {
    /// It is used again.
    Done,
    /// Its removal had begun, or it is gone.
    TooLate,
}

impl ServerRepository {
    /// All complete backups with their notes, in the order of their ids.
    ///
    /// # Errors
    /// The store fails, or the info of a complete backup is malformed.
    pub fn known_backups(&self) -> Result<Vec<KnownBackup>, RepositoryError> {
        let (known, wrong) = self.all_known()?;
        wrong.into_iter().next().map_or(Ok(known), Err)
    }

    /// The same, and apart from them what is wrong with the infos of further ones.
    ///
    /// # Errors
    /// The store fails.
    pub fn all_known(&self) -> Result<(Vec<KnownBackup>, Vec<RepositoryError>), RepositoryError> {
        let found = self.in_parallel(&self.backup_folders()?, |id| match self.known_backup(*id) {
            Err(error) if error.is_no_answer() && !matches!(error, RepositoryError::Format { .. }) => Err(error),
            known => Ok(known),
        })?;
        let (mut known, mut wrong) = (Vec::new(), Vec::new());
        for found in found {
            match found {
                Ok(backup) => known.extend(backup),
                Err(error) => wrong.push(error),
            }
        }
        Ok((known, wrong))
    }

    /// A complete backup with its notes; `None` if there is none of this id.
    ///
    /// # Errors
    /// As for [`ServerRepository::known_backups`].
    pub fn known_backup(&self, id: BackupId) -> Result<Option<KnownBackup>, RepositoryError> {
        let Some(info) = self.backup_info(id)? else { return Ok(None) };
        Ok(Some(KnownBackup { info, notes: self.backup_notes(id)? }))
    }

    /// The complete backups that are not forgotten: those that anything is restored from. One whose info cannot be trusted is passed
    /// over with a warning, so that it does not keep anybody from restoring the others.
    ///
    /// # Errors
    /// The store fails, or there are backups and no info of them can be trusted.
    pub fn live_backups(&self) -> Result<Vec<BackupInfo>, RepositoryError> {
        let (known, wrong) = self.all_live()?;
        pass_over(known, wrong)
    }

    /// The same, and apart from them what is wrong with the infos of further ones.
    ///
    /// # Errors
    /// The store fails.
    pub fn all_live(&self) -> Result<(Vec<BackupInfo>, Vec<RepositoryError>), RepositoryError> {
        let (known, wrong) = self.all_known()?;
        let live = known.into_iter().filter(|known| known.notes.forgotten.is_none()).map(|known| known.info);
        Ok((live.collect(), wrong))
    }

    /// What was said about a backup. A note that cannot be read is told as a warning, and makes the backup one that is kept:
    /// that may be what it says.
    ///
    /// # Errors
    /// The store fails.
    pub fn backup_notes(&self, id: BackupId) -> Result<BackupNotes, RepositoryError> {
        let mut notes = Vec::new();
        let mut unread = None;
        for name in self.storage.names(&keys::notes(&self.folder, id))? {
            let Some(stamp) = keys::stamp(&name) else { continue };
            let key = keys::note(&self.folder, id, stamp);
            let bytes = match self.storage.get(&key, SMALL_OBJECT_BYTES) {
                Err(error) if error.is_not_found() => continue,
                other => other?,
            };
            match serde_json::from_slice::<Note>(&bytes) {
                Ok(note) if note.format == NOTE_FORMAT => notes.push((stamp, note)),
                other => {
                    let why = other.map_or_else(|error| error.to_string(), |_| "its format is not known".to_owned());
                    let storage = self.storage.describe();
                    tracing::warn!("note \"{key}\" in {storage} cannot be understood, so its backup is kept: {why}");
                    let host = String::new();
                    unread = Some((
                        stamp,
                        Note { format: NOTE_FORMAT, at: stamp.at, host, says: Saying::Kept { until: None } },
                    ));
                }
            }
        }
        let mut all = BackupNotes::of(notes);
        if let Some(unread) = unread {
            all.newest = all.newest.max(Some(unread.0.at));
            all.kept = BackupNotes::of([unread]).kept;
        }
        Ok(all)
    }

    /// Adds a note to those that its writer has seen.
    ///
    /// # Errors
    /// The store fails.
    pub fn add_note(
        &self,
        id: BackupId,
        seen: &BackupNotes,
        author: &Author,
        says: Saying,
    ) -> Result<(), RepositoryError> {
        let at = seen.next_time(author.now);
        let note = Note { format: NOTE_FORMAT, at, host: author.host.clone(), says };
        loop {
            let key = keys::note(&self.folder, id, Stamp { at, writer: self.draw()? });
            let bytes = serde_json::to_vec_pretty(&note);
            let bytes = bytes.map_err(|error| malformed(self.storage.as_ref(), &key, &error))?;
            if self.storage.put(&key, &bytes)? == Put::Created {
                return Ok(());
            }
        }
    }

    /// Uses a forgotten backup again.
    ///
    /// # Errors
    /// The store fails.
    pub fn remember(&self, id: BackupId, author: &Author) -> Result<Remembering, RepositoryError> {
        let seen = self.backup_notes(id)?;
        // From its announcement to the end of the manifest, a removal takes a moment: an old one was broken off or refused.
        let begun = |at: PgTime| at.0 > author.now.0.saturating_sub(MOST_REMOVAL_US);
        if seen.forgotten.as_ref().and_then(|forgotten| forgotten.removing).is_some_and(begun)
            || !self.is_complete(id)?
        {
            return Ok(Remembering::TooLate);
        }
        self.add_note(id, &seen, author, Saying::Remembered)?;
        // Whoever removes it wrote a note before it read the notes: it is here, or has seen this one.
        let since = seen.forgotten.as_ref().map(|forgotten| forgotten.since);
        let begun = self.raw_notes(id)?.into_iter().any(|(stamp, note)| {
            note.says == Saying::Removing && since.is_none_or(|since| stamp.at >= since) && begun(stamp.at)
        });
        Ok(if begun || !self.is_complete(id)? { Remembering::TooLate } else { Remembering::Done })
    }

    /// Announces a forgotten backup's removal; whether it may go on, since nobody remembered it meanwhile.
    pub(super) fn begin_removal(&self, id: BackupId, author: &Author) -> Result<bool, RepositoryError> {
        let seen = self.backup_notes(id)?;
        let Some(forgotten) = &seen.forgotten else { return Ok(false) };
        // Announced anew each time: an old announcement is not believed any more.
        let announced = forgotten.removing.is_some_and(|at| at >= author.now);
        if !announced {
            self.add_note(id, &seen, author, Saying::Removing)?;
        }
        Ok(self.backup_notes(id)?.forgotten.is_some())
    }

    fn raw_notes(&self, id: BackupId) -> Result<Vec<(Stamp, Note)>, RepositoryError> {
        let mut notes = Vec::new();
        for stamp in self.storage.names(&keys::notes(&self.folder, id))?.iter().filter_map(|name| keys::stamp(name)) {
            match self.storage.get(&keys::note(&self.folder, id, stamp), SMALL_OBJECT_BYTES) {
                Err(error) if error.is_not_found() => {}
                bytes => notes.extend(serde_json::from_slice(&bytes?).ok().map(|note| (stamp, note))),
            }
        }
        Ok(notes)
    }

    /// A random number by which a writer is told from others.
    pub(super) fn draw(&self) -> Result<u32, RepositoryError> {
        let mut bytes = [0; 4];
        let failed = |error: getrandom::Error| {
            self.storage.failed("draw a name in", &self.folder, &std::io::Error::other(error.to_string()))
        };
        getrandom::fill(&mut bytes).map_err(failed)?;
        Ok(u32::from_le_bytes(bytes))
    }
}
