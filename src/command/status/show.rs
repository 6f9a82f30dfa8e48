//! The text of `pitr status`.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::HumanBytes;
use jiff::tz::TimeZone;

use super::look::{ClusterStatus, ServerStatus};
use crate::recovery::Window;
use crate::recovery::moment::in_both;

pub(super) fn write(status: &ClusterStatus, zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "cluster {} in {}", status.cluster, status.repository)?;
    if status.servers.is_empty() {
        writeln!(out, "\nThe repository knows no server of this cluster: run \"pitr init\".")?;
    }
    for server in &status.servers {
        write_server(server, zone, out)?;
    }
    for mirror in &status.mirrors {
        writeln!(out, "\n{mirror}")?;
    }
    let behind = status.mirrors.iter().filter(|mirror| !mirror.is_up_to_date()).map(ToString::to_string);
    let problems = status.servers.iter().flat_map(|server| server.problems.iter().cloned()).chain(behind);
    for (number, problem) in problems.enumerate() {
        writeln!(out, "{}PROBLEM: {problem}", if number == 0 { "\n" } else { "" })?;
    }
    if status.servers.last().is_some_and(|server| server.windows.is_empty()) {
        writeln!(out, "\nPROBLEM: nothing can be restored yet: take a base backup with \"pitr backup\"")?;
    }
    out.flush()
}

fn write_server(server: &ServerStatus, zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nPostgreSQL {}, system identifier {}", server.postgres_major, server.system_identifier)?;
    match &server.last_archived {
        Some(last) => {
            let age = Duration::from_secs(u64::try_from(last.age_seconds).unwrap_or(0));
            let age = humantime::format_duration(age);
            writeln!(out, "  last archived  {} at {}, {age} ago", last.segment, in_both(last.archived_at, zone))?;
        }
        None => writeln!(out, "  last archived  nothing yet")?,
    }
    let (raw, stored) = (HumanBytes(server.backup_raw_bytes), HumanBytes(server.backup_stored_bytes));
    match server.backups {
        Some(backups) => writeln!(out, "  backups        {backups}, {raw} stored as {stored}")?,
        None => writeln!(out, "  backups        UNKNOWN: they could not be read")?,
    }
    match &server.verified {
        Some(verified) => writeln!(out, "  verified       {verified}")?,
        None => writeln!(out, "  verified       UNKNOWN: it could not be read")?,
    }
    for timeline in &server.timelines {
        let (raw, stored) = (HumanBytes(timeline.raw_bytes), HumanBytes(timeline.stored_bytes));
        write!(out, "  timeline {:<5} {} segments, {raw} stored as {stored}", timeline.timeline, timeline.segments)?;
        match (timeline.first, timeline.last) {
            (Some(first), Some(last)) => writeln!(out, ", {first} to {last}")?,
            _ => writeln!(out)?,
        }
    }
    if !server.windows.is_empty() {
        writeln!(out, "  recovery windows")?;
    }
    for window in &server.windows {
        write_window(window, zone, out)?;
    }
    for found in &server.damaged {
        let (damage, timeline) = (&found.damage, found.damage.segment.timeline());
        writeln!(out, "  DAMAGED WAL    timeline {timeline}: {}, good up to {}", damage.segment, damage.good_until)?;
    }
    for hole in &server.holes {
        writeln!(
            out,
            "  missing WAL    timeline {}: {} to {} ({})",
            hole.timeline, hole.first, hole.last, hole.segments
        )?;
    }
    Ok(())
}

fn write_window(window: &Window, zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    let (timeline, from, start) = (window.timeline, in_both(window.start_time, zone), window.start_lsn);
    match &window.last_commit {
        Some(commit) => {
            writeln!(out, "    timeline {timeline}: from {from} to {}, the last commit", in_both(commit.time, zone))?;
        }
        None => writeln!(out, "    timeline {timeline}: from {from}, no commit since")?,
    }
    writeln!(
        out,
        "      LSN {start} to {}, from backup {} on ({} in it)",
        window.end_lsn, window.backup, window.backups
    )
}
