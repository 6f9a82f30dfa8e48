//! `Recorder`: what was verified, into the ledger every now and then, so that a run that is killed has lost little.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::scope::Scope;
use crate::catalog::{BackupId, LedgerName, PackId, Verified, VerifiedBackup};
use crate::command::host;
use crate::repository::{RepositoryError, ServerRepository};
use crate::wal::{PgTime, SegmentNo, SegmentSize, TimelineId};

/// How often it is written: soon after the beginning, then less and less often, but at least every so many seconds.
const WRITTEN_FIRST: Duration = Duration::from_secs(2);
const WRITTEN_EVERY: Duration = Duration::from_secs(40);
/// So many objects are left lying; more are put together into one.
const MOST_OBJECTS: usize = 12;

/// What was verified since it was written last.
#[derive(Debug)]
pub(super) struct Recorder {
    size: SegmentSize,
    inner: Mutex<Pending>,
}

#[derive(Debug)]
struct Pending {
    verified: Verified,
    /// What is verified from now on is said to have been verified then: one moment for all, so that runs stay runs.
    at: PgTime,
    since: Instant,
    /// How long until it is written again.
    wait: Duration,
    /// Why it could not be written.
    failed: Option<RepositoryError>,
}

impl Recorder {
    pub(super) fn new(size: SegmentSize) -> Recorder {
        let (verified, since) = (Verified::default(), Instant::now());
        let pending = Pending { verified, at: host::now(), since, wait: WRITTEN_FIRST, failed: None };
        Recorder { size, inner: Mutex::new(pending) }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn segment(&self, timeline: TimelineId, SegmentNo(number): SegmentNo) {
        let mut inner = self.lock();
        let at = inner.at;
        inner.verified.segments.entry(timeline).or_default().set(number, number, at);
    }

    pub(super) fn pack(&self, PackId { backup, number }: PackId) {
        let mut inner = self.lock();
        let at = inner.at;
        inner.verified.packs.entry(backup).or_default().set(number.into(), number.into(), at);
    }

    pub(super) fn others(&self, timeline: TimelineId) {
        let mut inner = self.lock();
        let at = inner.at;
        inner.verified.others.insert(timeline, at);
    }

    /// `assembled`: it was not finished.
    pub(super) fn backup(&self, id: BackupId, assembled: Option<u64>) {
        let mut inner = self.lock();
        let at = inner.at;
        inner.verified.backups.insert(id, VerifiedBackup { id, at, assembled });
    }

    /// Writes what there is, if that is due.
    pub(super) fn flush_if_due(&self, server: &ServerRepository) {
        let is_due = {
            let inner = self.lock();
            inner.since.elapsed() >= inner.wait
        };
        if is_due {
            self.flush(server);
        }
    }

    fn flush(&self, server: &ServerRepository) {
        let (verified, failed) = {
            let mut inner = self.lock();
            inner.since = Instant::now();
            inner.wait = (inner.wait * 2).min(WRITTEN_EVERY);
            inner.at = host::now();
            (std::mem::take(&mut inner.verified), inner.failed.is_some())
        };
        if verified.is_empty() || failed {
            return;
        }
        let ledger = verified.to_ledger(host::host_name(), self.size);
        if let Err(error) = write(server, &ledger) {
            self.lock().failed = Some(error);
        }
    }

    /// Writes the rest, and puts the objects of the ledger together if they have become many. Gives why it could not be written.
    pub(super) fn finish(&self, scope: &Scope) -> Option<RepositoryError> {
        self.flush(&scope.server);
        let failed = self.lock().failed.take();
        if failed.is_some() {
            return failed;
        }
        self.put_together(scope).err()
    }

    fn put_together(&self, scope: &Scope) -> Result<(), RepositoryError> {
        let server = &scope.server;
        let stored = server.ledger()?;
        if stored.current.len() <= MOST_OBJECTS {
            return Ok(());
        }
        let mut verified = Verified::of(&stored.ledgers(), self.size);
        // What is gone with its backup or its timeline need not be told any more.
        verified.packs.retain(|backup, _| scope.packs.keys().any(|pack| pack.backup == *backup));
        verified.backups.retain(|id, _| scope.backups.iter().any(|backup| backup.id == *id));
        verified.segments.retain(|timeline, _| scope.snapshot.timelines.contains_key(timeline));
        let mut ledger = verified.to_ledger(host::host_name(), self.size);
        stored.replace_all(&mut ledger, host::now());
        write(server, &ledger)?;
        server.tidy_ledger(&stored.listed);
        Ok(())
    }
}

fn write(server: &ServerRepository, ledger: &crate::catalog::Ledger) -> Result<(), RepositoryError> {
    let mut random = [0_u8; 4];
    // Without randomness two writers of one second may meet: then one of them is verified again.
    let _ = getrandom::fill(&mut random);
    server.put_ledger(LedgerName::new(host::now(), u32::from_le_bytes(random)), ledger)?;
    Ok(())
}
