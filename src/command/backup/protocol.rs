//! The server reads and sends: `BASE_BACKUP` over the replication protocol.

use super::source::{Source, Streamed};
use super::{BackupError, Begun, Checkpoint, Feed, Reading, Task};
use crate::catalog::Tablespace;
use crate::manifest::server_merge::with_whole_visibility_maps;
use crate::replication::{BaseBackup, BaseBackupOptions, ReplicationError, Session};

/// The first version that keeps summaries of what its WAL changes.
const FIRST_WITH_SUMMARIES: u16 = 17;

/// A backup that the server has begun.
pub(super) struct Protocol<'s> {
    backup: BaseBackup<'s>,
    /// It sends only what has changed since the earlier one.
    changed_only: bool,
}

impl<'s> Protocol<'s> {
    /// Starts a backup, of what has changed where the server can tell.
    pub(super) fn start(task: &Task<'_>, session: &'s mut Session) -> Result<Protocol<'s>, BackupError> {
        let changed_only = task.hand_over_manifest(session)?;
        let (backup, changed_only) = task.start(session, changed_only)?;
        Ok(Protocol { backup, changed_only })
    }

    /// What is known now.
    pub(super) fn begun(&self) -> Begun {
        let tablespaces = self.backup.tablespaces();
        let named = tablespaces
            .iter()
            .filter_map(|tablespace| Some(Tablespace { oid: tablespace.oid?, location: tablespace.location.clone()? }));
        Begun {
            lsn: self.backup.start_lsn(),
            timeline: self.backup.timeline(),
            tablespaces: named.collect(),
            estimate: tablespaces.iter().map(|tablespace| tablespace.size_bytes).sum(),
        }
    }

    /// Receives everything, to the end.
    pub(super) fn read(self, task: &Task<'_>, feed: &Feed, reading: &Reading<'_>) -> Result<Streamed, BackupError> {
        let Protocol { backup, changed_only } = self;
        Source::new(feed, reading.progress, task.check_pages(), task.earlier.as_ref(), reading.streaming)
            .changed_only(changed_only.then_some(task.block_size))
            .read(backup)
    }
}

impl Task<'_> {
    /// Hands the earlier backup's manifest to a server that can tell what has changed since. Whether it took it.
    fn hand_over_manifest(&self, session: &mut Session) -> Result<bool, BackupError> {
        let Some(earlier) = self.earlier.as_ref().filter(|earlier| earlier.is_whole() && !self.args.full_read) else {
            return Ok(false);
        };
        if session.server_major()? < FIRST_WITH_SUMMARIES || session.show("summarize_wal")? != "on" {
            return Ok(false);
        }
        // The server holds the end of the manifest's WAL against the start of the new backup only, and not against the place where it left
        // that timeline (PrepareForIncrementalBackup): it would leave out pages that were changed behind the fork, on the other branch.
        let (timeline, end) = earlier.end();
        if !self.path.holds(timeline, end) {
            tell_full_read(&format!(
                "that one ended at {end} on timeline {timeline}, which is not in the server's past"
            ));
            return Ok(false);
        }
        // What was read wrongly would be kept as long as nobody changes it.
        if !earlier.stop().bad_pages.is_empty() {
            tell_full_read("that one has damaged pages");
            return Ok(false);
        }
        let Some(manifest) = earlier.server_manifest()? else { return Ok(false) };
        match session.upload_manifest(&with_whole_visibility_maps(&manifest)) {
            Ok(()) => Ok(true),
            Err(ReplicationError::Server(why)) => {
                tell_full_read(&why.message);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Starts the backup, with everything if the server cannot tell what has changed. Whether it sends only that.
    fn start<'s>(&self, session: &'s mut Session, changed_only: bool) -> Result<(BaseBackup<'s>, bool), BackupError> {
        if changed_only {
            match BaseBackup::begin(session, &self.options(true)) {
                Ok(begun) => {
                    let (backup, asked) = (begun.on(session), self.facts.timeline);
                    // The path that was looked at is that of another timeline.
                    if backup.timeline() != asked {
                        let (start, stop) = (asked.min(backup.timeline()), asked.max(backup.timeline()));
                        return Err(BackupError::TimelineChanged { start, stop });
                    }
                    return Ok((backup, true));
                }
                Err(ReplicationError::Server(why)) => tell_full_read(&why.message),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((BaseBackup::start(session, &self.options(false))?, false))
    }

    pub(super) fn options(&self, incremental: bool) -> BaseBackupOptions {
        BaseBackupOptions {
            label: self.args.label.clone(),
            fast_checkpoint: self.args.checkpoint == Checkpoint::Fast,
            rate_limit_kib: self.args.rate_limit.map(|rate| rate.0),
            verify_checksums: self.facts.page_checksums,
            progress: true,
            incremental,
            ..BaseBackupOptions::default()
        }
    }
}

/// Says that a server which could have told what has changed did not.
fn tell_full_read(why: &str) {
    eprintln!(
        "pitr: NOTE:  the server cannot tell what has changed since the latest base backup ({why}): it reads and sends everything"
    );
}
