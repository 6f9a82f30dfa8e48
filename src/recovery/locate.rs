//! Finding the record of a transaction or of a restore point in the stored WAL of a branch.

use super::branch::Branch;
use super::snapshot::{WalCopy, WalEvidence};
use super::walk::{copies, restore_point, transaction_end};
use crate::wal::{Event, Lsn, SegmentNo, Xid};

/// Every restore point of this name on the branch, in LSN order, from a segment on. Only segments with restore points are
/// read.
pub(super) fn restore_points<E: WalEvidence>(
    branch: &Branch<'_>,
    first: SegmentNo,
    name: &str,
    evidence: &mut E,
) -> Result<Vec<Event>, E::Error> {
    let mut found = Vec::new();
    for (_, copy, valid_until) in copies(branch, first) {
        if evidence.facts(&copy)?.restore_points > 0 {
            let events = evidence.events(&copy)?.into_iter();
            let events = events.filter(|event| valid_until.is_none_or(|until| event.lsn < until));
            found.extend(events.filter(|event| restore_point(event) == Some(name)));
        }
    }
    Ok(found)
}

/// The commit or abort of a transaction on the branch, from a segment on.
///
/// Xids are given out in order, and most transactions are short. So the search begins in the last segment before one whose
/// first or last transaction is as new, goes on to the end (the transaction may have been a long one), and only then looks at
/// the segments before (their summaries do not show every transaction).
pub(super) fn transaction<E: WalEvidence>(
    branch: &Branch<'_>,
    first: SegmentNo,
    xid: Xid,
    evidence: &mut E,
) -> Result<Option<Event>, E::Error> {
    let mut with_ends: Vec<(WalCopy, Option<Lsn>)> = Vec::new();
    let mut begin = None;
    for (_, copy, valid_until) in copies(branch, first) {
        let facts = evidence.facts(&copy)?;
        if facts.commits + facts.aborts == 0 {
            continue;
        }
        let reached = [facts.first_xid, facts.last_xid].into_iter().flatten().any(|seen| not_older(seen, xid));
        if reached && begin.is_none() {
            begin = Some(with_ends.len().saturating_sub(1));
        }
        with_ends.push((copy, valid_until));
    }
    let begin = begin.unwrap_or(with_ends.len().saturating_sub(1));
    let (before, after) = with_ends.split_at(begin);
    for (copy, valid_until) in after.iter().chain(before.iter().rev()) {
        let mut events = evidence.events(copy)?.into_iter();
        let valid = |event: &Event| valid_until.is_none_or(|until| event.lsn < until);
        if let Some(event) = events.find(|event| event.xid == xid && transaction_end(event).is_some() && valid(event)) {
            return Ok(Some(event));
        }
    }
    Ok(None)
}

/// `a` is not older than `b` in the circle of 32-bit xids (`TransactionIdFollowsOrEquals`).
fn not_older(a: Xid, b: Xid) -> bool {
    a.0.wrapping_sub(b.0) < 1 << 31
}
