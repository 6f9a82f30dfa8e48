//! Finding the record that an LSN, a transaction or a restore point means in the stored WAL of a branch.

use super::branch::{Branch, Found};
use super::snapshot::WalEvidence;
use super::walk::{Sought, Stop, best, restore_point, transaction_end};
use crate::wal::{Event, EventKind, Lsn, SegmentEnding, SegmentFacts, SegmentNo, Xid};

/// The first record that begins at or after an LSN (`recoveryStopsBefore`, `recoveryStopsAfter`), if all of it is stored.
///
/// A record whose end a crash lost is none: the server wrote another one in its place.
pub(super) fn record<E: WalEvidence>(
    branch: &Branch<'_>,
    lsn: Lsn,
    before: bool,
    evidence: &mut E,
) -> Result<Option<Sought>, E::Error> {
    let size = branch.snapshot.segment_size;
    let mut number = SegmentNo::of(lsn, size);
    // A record that began in an earlier segment, and has not ended yet.
    let mut open: Option<Lsn> = None;
    while let Some((found, facts)) = best(candidates(branch, number), evidence)? {
        let mut from = lsn.max(number.start(size));
        if let Some(start) = open.filter(|_| facts.end > number.start(size)) {
            match overwritten(start, &found, evidence)? {
                false => return sought(branch, start, number, before, &found, evidence).map(Some),
                true => (open, from) = (None, number.start(size)),
            }
        }
        if open.is_none() {
            let mut start = evidence.record_from(&found.copy, from)?;
            while let Some(lost) = start
                && overwritten(lost, &found, evidence)?
            {
                start = evidence.record_from(&found.copy, Lsn(lost.0 + 1))?;
            }
            match start {
                Some(start) if !found.holds(start) => return Ok(None),
                Some(start) if start < facts.end => {
                    return sought(branch, start, number, before, &found, evidence).map(Some);
                }
                Some(start) if facts.ending == SegmentEnding::Full => open = Some(start),
                Some(_) | None => {}
            }
        }
        if !found.copy.is_served() || facts.ending == SegmentEnding::Unfinished || found.valid_until.is_some() {
            return Ok(None);
        }
        number = number.next();
    }
    Ok(None)
}

/// The copies of a segment, the tails of backups among them.
fn candidates(branch: &Branch<'_>, number: SegmentNo) -> Vec<Found> {
    let found = branch.find(number, None);
    if !found.is_empty() {
        return found;
    }
    let backups = branch.snapshot.backups.iter();
    backups.flat_map(|backup| branch.find(number, Some(backup))).collect()
}

fn overwritten<E: WalEvidence>(start: Lsn, found: &Found, evidence: &mut E) -> Result<bool, E::Error> {
    let events = evidence.events(&found.copy)?;
    Ok(events
        .iter()
        .any(|event| matches!(event.kind, EventKind::OverwriteContrecord { overwritten, .. } if overwritten == start)))
}

/// A record found by its place: with time and transaction if it is the end of one.
fn sought<E: WalEvidence>(
    branch: &Branch<'_>,
    start: Lsn,
    ends_in: SegmentNo,
    before: bool,
    found: &Found,
    evidence: &mut E,
) -> Result<Sought, E::Error> {
    let size = branch.snapshot.segment_size;
    if let Some(event) = evidence.events(&found.copy)?.iter().find(|event| event.lsn == start) {
        return Ok(Sought { ends_in, ..Sought::event(event, before, size) });
    }
    Ok(Sought { stop: Stop { lsn: start, time: None, xid: None, before }, ends_in, end_lsn: None, earlier: Vec::new() })
}

/// Every restore point of this name on the branch, in LSN order, from a segment on. Only segments with restore points are
/// read.
pub(super) fn restore_points<E: WalEvidence>(
    branch: &Branch<'_>,
    first: SegmentNo,
    name: &str,
    evidence: &mut E,
) -> Result<Vec<Event>, E::Error> {
    let mut found = all_restore_points(branch, first, evidence)?;
    found.retain(|event| restore_point(event) == Some(name));
    Ok(found)
}

/// Every restore point on the branch, in LSN order, from a segment on.
pub(super) fn all_restore_points<E: WalEvidence>(
    branch: &Branch<'_>,
    first: SegmentNo,
    evidence: &mut E,
) -> Result<Vec<Event>, E::Error> {
    let mut points = Vec::new();
    for (_, found) in branch.stored(first) {
        let Some((found, facts)) = best(found, evidence)? else { continue };
        if facts.restore_points > 0 {
            let events = evidence.events(&found.copy)?.into_iter();
            points.extend(events.filter(|event| found.holds(event.lsn) && restore_point(event).is_some()));
        }
    }
    Ok(points)
}

/// The commit or abort of a transaction on the branch, from a segment on.
///
/// Xids are given out in order, and most transactions are short. So the search begins in the last segment before one whose
/// first or last transaction is as new, goes on to the end (the transaction may have been a long one), and only then looks at
/// the segments before. A summary shows the first and the last transaction that ended in a segment, which is all of them where
/// two ended or fewer; every other segment has to be read.
pub(super) fn transaction<E: WalEvidence>(
    branch: &Branch<'_>,
    first: SegmentNo,
    xid: Xid,
    evidence: &mut E,
) -> Result<Option<Event>, E::Error> {
    let mut begin = None;
    let mut last_with_ends = first;
    for (number, found) in branch.stored(first) {
        let Some((_, facts)) = best(found, evidence)? else { continue };
        if facts.commits + facts.aborts == 0 {
            continue;
        }
        let reached = [facts.first_xid, facts.last_xid].into_iter().flatten().any(|seen| not_older(seen, xid));
        if reached {
            begin = Some(last_with_ends);
            break;
        }
        last_with_ends = number;
    }
    let begin = begin.unwrap_or(last_with_ends);
    if let Some(event) = transaction_between(branch, begin, SegmentNo(u64::MAX), xid, evidence)? {
        return Ok(Some(event));
    }
    transaction_between(branch, first, begin, xid, evidence)
}

fn transaction_between<E: WalEvidence>(
    branch: &Branch<'_>,
    first: SegmentNo,
    end: SegmentNo,
    xid: Xid,
    evidence: &mut E,
) -> Result<Option<Event>, E::Error> {
    for (_, found) in branch.stored(first).take_while(|(number, _)| *number < end) {
        let Some((found, facts)) = best(found, evidence)? else { continue };
        if may_end_in(&facts, xid) {
            let mut events = evidence.events(&found.copy)?.into_iter();
            let ends = |event: &Event| event.xid == xid && transaction_end(event).is_some() && found.holds(event.lsn);
            if let Some(event) = events.find(ends) {
                return Ok(Some(event));
            }
        }
    }
    Ok(None)
}

/// Whether the transaction can have ended in the segment.
fn may_end_in(facts: &SegmentFacts, xid: Xid) -> bool {
    match facts.commits + facts.aborts {
        0 => false,
        1 | 2 => facts.first_xid == Some(xid) || facts.last_xid == Some(xid),
        _ => true,
    }
}

/// `a` is not older than `b` in the circle of 32-bit xids (`TransactionIdFollowsOrEquals`).
pub(super) fn not_older(a: Xid, b: Xid) -> bool {
    a.0.wrapping_sub(b.0) < 1 << 31
}
