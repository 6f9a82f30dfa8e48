//! Archiving ahead: while one segment is archived, those that wait behind it are too.
//!
//! A backlog drains as fast as processors and disk allow although PostgreSQL hands over one file at a time: one segment is
//! compressed while another is being synced. Each one that is durable leaves an acknowledgement in the spool, and its own
//! call returns at once. What waits is found by looking for `<next name>.ready`, never by listing: a directory with a
//! million files is listed for seconds.
//!
//! All of this is extra work: it may fail silently (the file's own call will tell why), it is broken off when it takes too
//! long, and a process that ends in the middle of it leaves nothing, since objects have no name before they are whole.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::PushError;
use super::archiver::Archiver;
use super::borders::Reading;
use super::memory::Held;
use super::source::Source;
use crate::spool::Acknowledgement;
use crate::wal::{SegmentName, SegmentNo, WalFileName};

/// Segments archived at the same time beside the call's own one. Measured on two processors, draining a backlog with the
/// real archiver: 29 segments a second with one, 40 with two, 46 with three, since some of them always wait for their sync.
const WORKERS: u32 = 3;

/// The same where they are sent from memory: most of them wait for the network. How many are in memory is bounded apart from that.
const SENDERS: u32 = 8;

/// Most bytes that one call archives ahead.
const BYTES_AHEAD: u64 = 1 << 30;

/// How long after a call's start it may begin another segment although its own one is durable: a process start, a connection
/// and the archiver's own work for each file are then shared by several, and neither processors nor network run dry in between.
const BEGINNING: Duration = Duration::from_secs(2);

/// The least and the most that a call waits for what it has begun.
const LEAST_GRACE: Duration = Duration::from_millis(100);
const MOST_GRACE: Duration = Duration::from_secs(1);

/// The segments behind the one that the call is about.
#[derive(Debug)]
pub(super) struct Ahead {
    shared: Arc<Shared>,
    begun: Instant,
}

#[derive(Debug)]
struct Shared {
    archiver: Arc<Archiver>,
    timeline_of: SegmentName,
    folder: PathBuf,
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Debug)]
struct State {
    /// The next one to look for.
    next: SegmentNo,
    /// How many more may be begun.
    left: u64,
    /// When beginning ends, once the call's own segment is durable.
    until: Option<Instant>,
    /// Begun and not ended.
    in_flight: u32,
    /// One of them was not archived.
    failed: bool,
}

impl Ahead {
    /// Begins to archive the successors of `segment`, which lies at `path`: at most `most` of them. `None` if there is no spool: what
    /// is archived ahead could not be acknowledged.
    pub(super) fn start(archiver: &Arc<Archiver>, segment: SegmentName, path: &Path, most: u32) -> Option<Ahead> {
        archiver.spool()?;
        let size = archiver.record().segment_size_bytes;
        let left = u64::from(most).min(BYTES_AHEAD / size.bytes());
        let workers = if archiver.targets().are_sent_from_memory() { SENDERS } else { WORKERS };
        let state = State { next: segment.number(size).ok()?.next(), left, until: None, in_flight: 0, failed: false };
        let shared = Arc::new(Shared {
            archiver: Arc::clone(archiver),
            timeline_of: segment,
            folder: path.parent()?.to_owned(),
            state: Mutex::new(state),
            idle: Condvar::new(),
        });
        let ahead = Ahead { shared, begun: Instant::now() };
        for number in 0..workers {
            // Looked for before a thread is started: at an ordinary pace nothing waits.
            if !ahead.shared.waits_behind(number) {
                break;
            }
            let shared = Arc::clone(&ahead.shared);
            // Without a thread the call's own segment is archived all the same.
            let _ = std::thread::Builder::new().spawn(move || shared.work());
        }
        Some(ahead)
    }

    /// The call's own segment is durable: helps with the others for a moment, then begins no more and waits a moment for
    /// what was begun. Returns the last segment up to which all are archived.
    pub(super) fn finish(self, left: Duration) -> SegmentName {
        let grace = (self.begun.elapsed() * 2).clamp(LEAST_GRACE, MOST_GRACE).min(left / 2);
        self.shared.lock().until = Some(self.begun + BEGINNING);
        self.shared.work();
        let mut state = self.shared.lock();
        state.left = 0;
        let waited = self.shared.idle.wait_timeout_while(state, grace, |state| state.in_flight > 0);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        let (all_done, failed, next) = (!timeout.timed_out(), state.failed, state.next);
        drop(state);
        if let Some(spool) = self.shared.archiver.spool().filter(|_| all_done) {
            spool.sweep(self.shared.timeline_of);
        }
        let size = self.shared.archiver.record().segment_size_bytes;
        let timeline = self.shared.timeline_of.timeline();
        let last = next.0.checked_sub(1).filter(|_| all_done && !failed);
        last.map_or(self.shared.timeline_of, |last| SegmentName::new(timeline, SegmentNo(last), size))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment's file, if PostgreSQL has marked it ready.
    fn ready(&self, number: SegmentNo) -> Option<SegmentName> {
        let name = SegmentName::new(self.timeline_of.timeline(), number, self.archiver.record().segment_size_bytes);
        let mark = self.folder.join("archive_status").join(format!("{name}.ready"));
        std::fs::symlink_metadata(mark).is_ok().then_some(name)
    }

    /// Whether so many segments, and one more, wait behind those that were begun.
    fn waits_behind(&self, number: u32) -> bool {
        let (next, left) = {
            let state = self.lock();
            (state.next, state.left)
        };
        u64::from(number) < left && self.ready(SegmentNo(next.0.saturating_add(u64::from(number)))).is_some()
    }

    /// Archives one after the other, until none waits or none may be begun.
    fn work(self: &Arc<Self>) {
        // The memory first: segments are begun in their order, so that none waits for one behind it.
        while let Some(held) = self.archiver.hold(self.patience())
            && let Some(claim) = Claim::next(self)
        {
            if self.archive(claim.name, held).is_err() {
                // Whatever it is, the next one would most likely meet it too.
                let mut state = self.lock();
                (state.left, state.failed) = (0, true);
            }
        }
    }

    /// How long it is worth while to wait for another one's turn.
    fn patience(&self) -> Duration {
        let until = self.lock().until;
        until.map_or(BEGINNING, |until| until.saturating_duration_since(Instant::now()))
    }

    fn archive(&self, name: SegmentName, held: Held) -> Result<(), PushError> {
        let source = Source::open(&self.folder.join(name.to_string()))?;
        let file = WalFileName::Segment(name);
        let metadata = source.metadata.clone();
        let (targets, spool) = (self.archiver.targets(), self.archiver.spool());
        if spool.is_some_and(|spool| targets.are_vouched_for(spool, file, &metadata)) {
            return Ok(());
        }
        // A damaged one is archived, but not acknowledged: its own call has to warn.
        let stored = self.archiver.archive(source, Some(held))?;
        if let Some(spool) = spool.filter(|_| stored.remark.is_none()) {
            // Without the note, its own call finds the segment in the repository.
            let _ = spool.acknowledge(file, &Acknowledgement::new(&metadata, &stored.holders));
        }
        Ok(())
    }
}

/// One segment that is being archived ahead.
struct Claim {
    shared: Arc<Shared>,
    name: SegmentName,
    _reading: Reading,
}

impl Claim {
    /// The next segment that waits, if it may be begun.
    fn next(shared: &Arc<Shared>) -> Option<Claim> {
        let mut state = shared.lock();
        if state.until.is_some_and(|until| Instant::now() >= until) {
            return None;
        }
        state.left = state.left.checked_sub(1)?;
        let Some(name) = shared.ready(state.next) else {
            state.left = 0;
            return None;
        };
        state.next = state.next.next();
        state.in_flight += 1;
        let reading = shared.archiver.borders().begin(name);
        Some(Claim { shared: Arc::clone(shared), name, _reading: reading })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.lock().in_flight -= 1;
        self.shared.idle.notify_all();
    }
}
