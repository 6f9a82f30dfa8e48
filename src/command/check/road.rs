//! The way of one WAL segment: ended on the server, archived by it, read back from the repository.

use std::io;
use std::time::{Duration, Instant};

use super::finding::Finding;
use crate::command::Interrupt;
use crate::command::server::{self, ServerError, ServerFacts};
use crate::replication::Session;
use crate::report::Explain;
use crate::repository::wal::Absence;
use crate::repository::{RepositoryError, ServerRepository};
use crate::wal::{Lsn, SegmentName, SegmentNo, WalFileName};

/// Pause between two looks at the repository.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a failure of `archive_command` leaves its three parts.
const SERVERS_LOG: &str = "The server's log has the message of pitr-wal-push.";

/// What the server's own statistics say.
pub(super) fn archiver(sql: &mut Session) -> Finding {
    let asked = server::row(
        sql,
        "SELECT last_archived_wal, last_archived_time::text, last_failed_wal, last_failed_time::text, failed_count::text, \
         coalesce(last_failed_time > last_archived_time, last_failed_time IS NOT NULL) \
         FROM pg_catalog.pg_stat_archiver",
    );
    match asked {
        Ok(row) => verdict(&row),
        Err(error) => Finding::failed("archiver", &error.report()),
    }
}

fn verdict(row: &[Option<String>]) -> Finding {
    let value = |at| server::value(row, at);
    let (archived, at, failed, failed_at, failures) = (value(0), value(1), value(2), value(3), value(4));
    if value(5) == "t" {
        // Not the end of it: the road will show whether it works again.
        let what =
            format!("the last attempt failed: \"{failed}\" at {failed_at} ({failures} failures since the last reset)");
        return Finding::warning("archiver", &what, SERVERS_LOG);
    }
    if archived.is_empty() {
        return Finding::ok("archiver", "nothing archived yet");
    }
    Finding::ok("archiver", format!("last archived \"{archived}\" at {at}"))
}

/// Ends a segment and watches it arrive.
pub(super) fn road(
    sql: &mut Session,
    facts: &ServerFacts,
    stored: &ServerRepository,
    timeout: Duration,
    interrupt: &Interrupt,
) -> Finding {
    match walk(sql, facts, stored, timeout, interrupt) {
        Ok(finding) => finding,
        Err(RoadError::Server(error)) => Finding::failed("road", &error.report()),
        Err(RoadError::Repository(error)) => Finding::failed("road", &error.report()),
    }
}

enum RoadError {
    Server(ServerError),
    Repository(RepositoryError),
}

impl From<ServerError> for RoadError {
    fn from(error: ServerError) -> Self {
        RoadError::Server(error)
    }
}

impl From<RepositoryError> for RoadError {
    fn from(error: RepositoryError) -> Self {
        RoadError::Repository(error)
    }
}

fn walk(
    sql: &mut Session,
    facts: &ServerFacts,
    stored: &ServerRepository,
    timeout: Duration,
    interrupt: &Interrupt,
) -> Result<Finding, RoadError> {
    let failures = failures(sql)?;
    let (segment, ended) = end_segment(sql, facts)?;
    let begun = Instant::now();
    loop {
        let mut bytes = Counting(0);
        if stored.fetch(WalFileName::Segment(segment), &mut bytes)?.is_some() {
            let took = begun.elapsed().as_secs_f64();
            let what = format!("segment \"{segment}\" arrived within {took:.1} s and was read back, {} bytes", bytes.0);
            return Ok(Finding::ok("road", what));
        }
        if let Absence::Damaged(_) = stored.why_absent(segment)? {
            let what = format!("segment \"{segment}\" arrived damaged: its records make no sense from some point on");
            return Ok(Finding::wrong(
                "road",
                &what,
                "Look for errors of the server's disk and memory; take a new base backup.",
            ));
        }
        if ended && self::failures(sql)? != failures {
            let what = format!("the server could not archive segment \"{segment}\"");
            return Ok(Finding::wrong("road", &what, SERVERS_LOG));
        }
        if interrupt.requested() {
            return Ok(Finding::skipped("road", "interrupted"));
        }
        if begun.elapsed() >= timeout {
            return Ok(too_late(segment, ended, timeout));
        }
        std::thread::sleep(PAUSE);
    }
}

fn too_late(segment: SegmentName, ended: bool, timeout: Duration) -> Finding {
    let timeout = humantime::format_duration(timeout);
    if ended {
        let what = format!("segment \"{segment}\" did not arrive within {timeout}");
        let hint = "Is the archiver busy with older segments? pg_stat_archiver and the server's log tell. \
                    --timeout waits longer.";
        return Finding::wrong("road", &what, hint);
    }
    let what = format!("segment \"{segment}\" was not ended and archived within {timeout}");
    let hint = "Only the primary ends segments, and only when something is written; GRANT EXECUTE ON FUNCTION \
                pg_switch_wal() lets pitr end one there.";
    Finding::wrong("road", &what, hint)
}

/// Attempts of the archiver that failed so far.
fn failures(sql: &mut Session) -> Result<String, ServerError> {
    let row = server::row(sql, "SELECT failed_count::text FROM pg_catalog.pg_stat_archiver")?;
    Ok(server::value(&row, 0).to_owned())
}

/// The segment to wait for, and whether it has been ended. A message that nobody reads goes into it first, because the
/// server does not end an empty segment.
fn end_segment(sql: &mut Session, facts: &ServerFacts) -> Result<(SegmentName, bool), ServerError> {
    let rights = server::rights(sql)?;
    let (asked, ended) = if rights.in_recovery {
        ("SELECT greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())::text", false)
    } else if rights.switch_wal || rights.superuser {
        server::row(sql, "SELECT pg_catalog.pg_logical_emit_message(false, 'pitr', 'check')::text")?;
        ("SELECT pg_catalog.pg_switch_wal()::text", true)
    } else {
        ("SELECT pg_catalog.pg_current_wal_insert_lsn()::text", false)
    };
    let row = server::row(sql, asked)?;
    let lsn: Lsn = server::value(&row, 0).parse()?;
    // The switch ends the segment before the LSN that it answers; otherwise the segment of the LSN is still to be ended.
    let number =
        if ended { SegmentNo::before(lsn, facts.segment_size) } else { SegmentNo::of(lsn, facts.segment_size) };
    Ok((SegmentName::new(facts.timeline, number, facts.segment_size), ended))
}

/// Counts what is written to it.
struct Counting(u64);

impl io::Write for Counting {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
