//! The WAL without which the copy is worth nothing: which segments, and waiting for them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{BackupError, Interrupt};
use crate::catalog::WalRange;
use crate::codec::{Compression, Origin};
use crate::command::host;
use crate::replication::{ReplicationError, Session};
use crate::repository::wal::{NewWalFile, WalObjectName};
use crate::repository::{RepositoryError, ServerRepository};
use crate::wal::{SegmentName, SegmentNo, SegmentSize, TimelineHistory, TimelineId, WalFileName};

/// How often the repository is asked.
const POLL: Duration = Duration::from_millis(200);

/// The segments that hold these ranges, in WAL order.
pub(super) fn needed(ranges: &[WalRange], size: SegmentSize) -> Vec<SegmentName> {
    let of_range = |range: &WalRange| {
        let (first, last) = (SegmentNo::of(range.start_lsn, size), SegmentNo::before(range.end_lsn, size));
        let timeline = range.timeline;
        (first.0..=last.0).map(move |number| SegmentName::new(timeline, SegmentNo(number), size))
    };
    ranges.iter().flat_map(of_range).collect()
}

/// Waits until all segments are in the repository.
pub(super) fn wait(
    repository: &ServerRepository,
    needed: &[SegmentName],
    deadline: Duration,
    standby: bool,
    interrupt: &Interrupt,
    say: impl Fn(&str),
) -> Result<(), BackupError> {
    let begun = Instant::now();
    let mut missing: VecDeque<SegmentName> = needed.iter().copied().collect();
    let mut said = false;
    while let Some(&next) = missing.front() {
        if is_archived(repository, next)? {
            missing.pop_front();
            continue;
        }
        if begun.elapsed() >= deadline {
            return Err(BackupError::WalMissing { missing: describe(&missing), waited: deadline, standby });
        }
        if !said && begun.elapsed() >= Duration::from_secs(2) {
            said = true;
            let why =
                if standby { "; a standby cannot end a segment, so this needs activity on the primary" } else { "" };
            say(&format!("waiting for {} to be archived, at most {} s{why}", describe(&missing), deadline.as_secs()));
        }
        if interrupt.requested() {
            return Err(BackupError::Interrupted);
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn is_archived(repository: &ServerRepository, segment: SegmentName) -> Result<bool, RepositoryError> {
    match repository.describe(WalObjectName::Segment(segment)) {
        Ok(_) => Ok(true),
        Err(RepositoryError::Storage(error)) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

fn describe(missing: &VecDeque<SegmentName>) -> String {
    match (missing.front(), missing.back()) {
        (Some(only), Some(_)) if missing.len() == 1 => format!("WAL segment {only}"),
        (Some(first), Some(last)) => format!("{} WAL segments from {first} to {last}", missing.len()),
        _ => "no WAL segment".to_owned(),
    }
}

/// Makes sure that the history of the backup's timeline is in the repository: a restore finds its way by it. A server whose
/// archiving was set up after its promotion has never archived it, so it is fetched from the server.
pub(super) fn history(
    repository: &ServerRepository,
    session: &mut Session,
    timeline: TimelineId,
    compression: Compression,
) -> Result<(), BackupError> {
    if timeline == TimelineId::FIRST || repository.history(timeline)?.is_some() {
        return Ok(());
    }
    let raw = session.timeline_history(timeline)?.content;
    parse(timeline, &raw)?;
    let new = NewWalFile::new(WalFileName::History(timeline), &raw, origin(session), host::now());
    repository.archive(&new, compression)?;
    Ok(())
}

/// The server's own past: the WAL that what it has now was made from.
pub(super) fn path(
    repository: &ServerRepository,
    session: &mut Session,
    timeline: TimelineId,
) -> Result<TimelineHistory, BackupError> {
    if timeline == TimelineId::FIRST {
        return Ok(TimelineHistory::first());
    }
    let refused = match session.timeline_history(timeline) {
        Ok(file) => return parse(timeline, &file.content),
        Err(error @ ReplicationError::Server(_)) => error,
        Err(error) => return Err(error.into()),
    };
    // It was cleared away on the server, which is none the worse for it.
    Ok(repository.history(timeline)?.ok_or(refused)?)
}

fn parse(timeline: TimelineId, raw: &[u8]) -> Result<TimelineHistory, BackupError> {
    TimelineHistory::parse(timeline, raw).map_err(|error| BackupError::StreamedWal(error.to_string()))
}

/// Who stores what this backup brings along.
pub(super) fn origin(session: &Session) -> Origin {
    Origin {
        host: host::host_name(),
        source: format!("streamed from {}", session.server()),
        program: format!("pitr {}", env!("CARGO_PKG_VERSION")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::Lsn;

    /// A stop LSN on a border does not need the segment that begins there: it may never come on an idle server.
    #[test]
    fn segments_of_ranges() {
        let size = SegmentSize::DEFAULT;
        let range = |timeline, start, end| WalRange {
            timeline: TimelineId(timeline),
            start_lsn: Lsn(start),
            end_lsn: Lsn(end),
        };
        let names = |ranges: &[WalRange]| needed(ranges, size).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&[range(1, 0x200_0028, 0x200_0100)]), ["000000010000000000000002"]);
        let two = ["000000010000000000000002", "000000010000000000000003"];
        assert_eq!(names(&[range(1, 0x200_0028, 0x400_0000)]), two);
        assert_eq!(
            names(&[range(1, 0x200_0028, 0x300_0000), range(2, 0x300_0000, 0x300_0001)]),
            ["000000010000000000000002", "000000020000000000000003",]
        );
    }
}
