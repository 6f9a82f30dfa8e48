//! `--wal stream`: a second session brings the WAL along that the backup needs, where archiving is not set up yet.
//!
//! Complete segments go to the archive under their own names, with the same checks as those that the server archives;
//! only complete ones may stand there. What is left at the end is the beginning of one segment, which is kept with the backup.
//! A temporary slot keeps the server from removing WAL that has not been received; it goes with the session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{BackupError, Interrupt, wal};
use crate::codec::{Compression, Origin};
use crate::command::host;
use crate::command::server::connect;
use crate::replication::{ConnInfo, Session, SessionKind, StreamEvent, WalStream};
use crate::repository::ServerRepository;
use crate::repository::wal::NewWalFile;
use crate::wal::{
    LONG_HEADER_SIZE, Lsn, SegmentName, SegmentNo, SegmentSize, TimelineId, WalFileName, check_segment_header,
};

/// How long the segment that the backup ends in is given to become complete: a primary ends it with the backup.
const LAST_SEGMENT: Duration = Duration::from_secs(5);

/// A session with a slot, from before the backup begins.
pub(super) struct Slot {
    session: Session,
    name: String,
}

impl Slot {
    /// Connects and makes the slot.
    pub(super) fn reserve(info: &ConnInfo, random: u32, interrupt: &Interrupt) -> Result<Slot, BackupError> {
        let mut session = connect(info, SessionKind::Physical, interrupt)?;
        let name = format!("pitr_backup_{random:08x}");
        session.create_temporary_slot(&name)?;
        Ok(Slot { session, name })
    }

    /// Begins to stream from the segment that `start` lies in.
    pub(super) fn stream(
        self,
        repository: ServerRepository,
        start: Lsn,
        timeline: TimelineId,
        size: SegmentSize,
        compression: Compression,
    ) -> Streaming {
        let stop_at = Arc::new(AtomicU64::new(0));
        let abandoned = Arc::new(AtomicBool::new(false));
        let origin = wal::origin(&self.session);
        let number = SegmentNo::of(start, size);
        let segment = Segment { repository, origin, timeline, size, compression, number, raw: Vec::new() };
        let (until, flag) = (stop_at.clone(), abandoned.clone());
        let thread = std::thread::spawn(move || receive(self, segment, &until, &flag));
        Streaming { thread: Some(thread), stop_at, abandoned }
    }
}

/// A stream under way. Dropped, it ends soon.
pub(super) struct Streaming {
    thread: Option<JoinHandle<Result<Option<Tail>, BackupError>>>,
    /// Where to end, once it is known; 0 before.
    stop_at: Arc<AtomicU64>,
    abandoned: Arc<AtomicBool>,
}

/// The beginning of the segment that the backup ends in.
pub(super) struct Tail {
    pub(super) segment: SegmentName,
    pub(super) raw: Vec<u8>,
}

impl Streaming {
    /// Whether the stream has failed: then there is no use in going on with the backup.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until all WAL up to `stop` is stored, but for the tail, which is handed back.
    pub(super) fn finish(mut self, stop: Lsn) -> Result<Option<Tail>, BackupError> {
        self.stop_at.store(stop.0, Ordering::Relaxed);
        match self.thread.take() {
            Some(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => Err(BackupError::Broken),
        }
    }
}

impl Streaming {
    /// Why a stream that has ended did so.
    pub(super) fn cause(self) -> BackupError {
        self.finish(Lsn(u64::MAX)).err().unwrap_or(BackupError::Broken)
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }
}

/// The segment being received.
struct Segment {
    repository: ServerRepository,
    origin: Origin,
    timeline: TimelineId,
    size: SegmentSize,
    compression: Compression,
    number: SegmentNo,
    raw: Vec<u8>,
}

fn receive(
    mut slot: Slot,
    mut segment: Segment,
    stop_at: &AtomicU64,
    abandoned: &AtomicBool,
) -> Result<Option<Tail>, BackupError> {
    let start = segment.number.start(segment.size);
    let mut stream = WalStream::start(&mut slot.session, Some(&slot.name), start, segment.timeline)?;
    let mut reached: Option<Instant> = None;
    loop {
        let event = stream.next()?;
        let quiet = event == StreamEvent::Idle;
        match event {
            StreamEvent::Data { bytes, .. } => {
                if let Some(stored) = segment.push(&bytes)? {
                    stream.set_flushed(stored);
                }
            }
            StreamEvent::EndOfTimeline { next, .. } => {
                return Err(BackupError::TimelineChanged { start: segment.timeline, stop: next });
            }
            StreamEvent::Keepalive { .. } | StreamEvent::Idle => {}
        }
        if abandoned.load(Ordering::Relaxed) {
            return Err(BackupError::Broken);
        }
        let stop = stop_at.load(Ordering::Relaxed);
        if stop > 0 && stream.position() >= Lsn(stop) {
            let since = *reached.get_or_insert_with(Instant::now);
            // The segment after the one with the stop may have begun; nothing of it is needed.
            if segment.number.start(segment.size) >= Lsn(stop) {
                return Ok(None);
            }
            if quiet || since.elapsed() >= LAST_SEGMENT {
                let name = SegmentName::new(segment.timeline, segment.number, segment.size);
                return Ok(Some(Tail { segment: name, raw: segment.raw }));
            }
        }
    }
}

impl Segment {
    /// Adds WAL; the end of the last segment that became complete and durable, if one did.
    fn push(&mut self, mut bytes: &[u8]) -> Result<Option<Lsn>, BackupError> {
        let size = self.size.bytes() as usize;
        let mut stored = None;
        while !bytes.is_empty() {
            if self.raw.is_empty() {
                self.raw.reserve_exact(size);
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(size - self.raw.len()));
            self.raw.extend_from_slice(taken);
            bytes = rest;
            if self.raw.len() == size {
                self.store()?;
                stored = Some(self.number.end(self.size));
                self.raw.clear();
                self.number = self.number.next();
            }
        }
        Ok(stored)
    }

    /// Archives the segment, which is complete.
    fn store(&self) -> Result<(), BackupError> {
        let name = SegmentName::new(self.timeline, self.number, self.size);
        let wrong = |reason: String| BackupError::StreamedWal(format!("segment {name}: {reason}"));
        let first = &self.raw[..LONG_HEADER_SIZE];
        let header =
            check_segment_header(first, name, self.raw.len() as u64).map_err(|error| wrong(error.to_string()))?;
        if header.system_identifier != self.repository.system_identifier() {
            return Err(wrong(format!("it belongs to cluster {}", header.system_identifier)));
        }
        let file = WalFileName::Segment(name);
        let new = NewWalFile::new(file, &self.raw, self.origin.clone(), host::now()).with_records(&header);
        if let Some(damage) = &new.details.damage {
            return Err(wrong(format!("damaged at {}: {}", damage.lsn, damage.why)));
        }
        self.repository.archive(&new, self.compression)?;
        Ok(())
    }
}
