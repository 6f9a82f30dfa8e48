//! Restore points by the pattern of their names. Only segments that have one are read.

use super::super::history::{History, HistoryError, NamePattern, Within};
use super::sought::{Candidate, Found};
use crate::recovery::{Road, WalEvidence};
use crate::repository::RepositoryError;
use crate::wal::{EventKind, Lsn, SegmentNo};

/// All restore points of a road that are meant, the last `limit` of them.
pub(super) fn restore_points(
    history: &History,
    road: &Road<'_>,
    pattern: &NamePattern,
    within: &Within,
    limit: usize,
) -> Result<Found, HistoryError> {
    let mut evidence = history.evidence();
    let size = history.record.segment_size_bytes;
    let mut next = SegmentNo(0);
    let mut from = None;
    let mut to = Lsn::INVALID;
    let mut all: Vec<(String, Candidate)> = Vec::new();
    let mut notes = Vec::new();
    let mut last_time = None;
    while let Some(segment) = road.next(next, &mut evidence)? {
        if segment.after_gap && from.is_some() {
            notes.push(format!("WAL is missing before {}: what happened there is not known", segment.copy.segment()));
        }
        next = segment.number.next();
        last_time = segment.facts.last_time.or(last_time);
        from = from.or(Some(segment.number.start(size)));
        to = segment.facts.end;
        if segment.facts.restore_points == 0 {
            continue;
        }
        let events = match evidence.events(&segment.copy) {
            Err(RepositoryError::Damaged { source, .. }) => {
                notes.push(format!("{} is damaged as it is stored: {source}", segment.copy.segment()));
                continue;
            }
            events => events?,
        };
        for event in events {
            let EventKind::RestorePoint { time, name } = event.kind else { continue };
            if segment.valid_until.is_some_and(|until| event.lsn >= until)
                || !within.holds(event.lsn, Some(time))
                || !pattern.matches(&name)
            {
                continue;
            }
            let timeline = road.timeline_at(event.lsn);
            // PostgreSQL stops at the first one of a name.
            let option = if all.iter().any(|(known, _)| *known == name) {
                format!("--to-lsn {} --timeline {timeline}", event.lsn)
            } else {
                format!("--to-name '{}' --timeline {timeline}", name.replace('\'', "'\\''"))
            };
            let candidate = Candidate {
                what: format!("restore point \"{name}\""),
                relations: Vec::new(),
                rows: None,
                certain: true,
                time: Some(time),
                xid: event.xid,
                lsn: event.lsn,
                timeline,
                prepared: false,
                option,
            };
            all.push((name, candidate));
        }
    }
    let more = all.len().saturating_sub(limit);
    let candidates = all.into_iter().skip(more).map(|(_, candidate)| candidate).collect();
    let from = from.unwrap_or(Lsn::INVALID);
    Ok(Found { candidates, more: more as u64, renamed: Vec::new(), from, to, last_time, earlier: false, notes })
}
