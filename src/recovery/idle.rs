//! A time after the last commit: is it known that nothing was committed up to it?
//!
//! PostgreSQL stops at a time only when it meets a later commit; where none follows, it replays to the end and fails with
//! "recovery ended before configured recovery target was reached". But a checkpoint carries the time at which it began, and a
//! commit that took its own time before that stands before the checkpoint's record: a checkpoint waits for transactions that
//! are about to commit (`delayChkptFlags` in `xact.c` and `CreateCheckPoint`). So a checkpoint of a later time behind the last
//! commit proves that the state just before it is the state at the time asked for. Restore points carry a time too; nobody waits
//! before they are written, so they prove nothing.

use super::branch::Branch;
use super::snapshot::WalEvidence;
use super::walk::{Walk, best, transaction_end};
use crate::wal::{EventKind, Lsn, PgTime, SegmentNo};

/// A record behind every commit and abort of the walk that tells a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sign {
    pub(super) lsn: Lsn,
    /// The segment in which it ends.
    pub(super) ends_in: SegmentNo,
    pub(super) time: PgTime,
}

/// The last record that tells a time, if no commit or abort follows it. Reads the segment with the last checkpoint, and goes by
/// the summaries of those behind it.
pub(super) fn sign<E: WalEvidence>(
    branch: &Branch<'_>,
    walk: &Walk,
    evidence: &mut E,
) -> Result<Option<Sign>, E::Error> {
    let Some((last, _)) = &walk.last else { return Ok(None) };
    for number in (walk.first.0..=last.0).rev().map(SegmentNo) {
        let Some(found) = walk.copy(number, branch) else { return Ok(None) };
        let Some((found, facts)) = best(vec![found], evidence)? else { return Ok(None) };
        let has_ends = facts.commits + facts.aborts > 0;
        // A recovery's end without a checkpoint is not counted; the checkpoint that it asks for follows soon.
        if facts.checkpoints > 0 {
            let events = evidence.events(&found.copy)?;
            let sign = events.iter().rev().take_while(|event| transaction_end(event).is_none()).find_map(|event| {
                let EventKind::Checkpoint { time, .. } = event.kind else { return None };
                found.holds(event.lsn).then_some(Sign { lsn: event.lsn, ends_in: number, time })
            });
            if sign.is_some() {
                return Ok(sign);
            }
        }
        if has_ends {
            return Ok(None);
        }
    }
    Ok(None)
}
