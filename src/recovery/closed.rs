//! What is lost when something stored turns out to be damaged, or when a backup is forgotten: the stretches that could be restored and cannot be any more.

use serde::Serialize;

use super::window::Window;
use crate::wal::{Lsn, PgTime, TimelineId};

/// An end of a stretch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Edge {
    /// Where.
    pub lsn: Lsn,
    /// The time of the last commit there, or of the backup that is complete there; `None` if none is known.
    pub time: Option<PgTime>,
}

/// A stretch of one timeline that cannot be restored any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Closed {
    /// The timeline.
    pub timeline: TimelineId,
    /// The last moment before it that can be, or the first of the window.
    pub from: Edge,
    /// The first moment behind it that can be, or the last of the window.
    pub to: Edge,
    /// Moments of this timeline before it can be restored.
    pub earlier: bool,
    /// Moments of this timeline behind it can be restored.
    pub later: bool,
}

impl Closed {
    /// Where it lies, for people.
    #[must_use]
    pub fn stretch(&self) -> String {
        let edge = |edge: &Edge| match edge.time {
            Some(time) => format!("{} (LSN {})", time.to_timestamp(), edge.lsn),
            None => format!("LSN {}", edge.lsn),
        };
        format!("timeline {} from {} to {}", self.timeline, edge(&self.from), edge(&self.to))
    }

    /// What is left, for people.
    #[must_use]
    pub fn rest(&self) -> &'static str {
        match (self.earlier, self.later) {
            (true, true) => "earlier and later moments are unaffected",
            (true, false) => "earlier moments are unaffected",
            (false, true) => "later moments are unaffected",
            (false, false) => "nothing else of this timeline can be restored",
        }
    }
}

/// Compares the windows as they seemed with those that are left.
#[must_use]
pub fn closed(before: &[Window], after: &[Window]) -> Vec<Closed> {
    let mut found = Vec::new();
    for window in before {
        let left = || after.iter().filter(|left| left.timeline == window.timeline);
        let mut overlapping: Vec<&Window> =
            left().filter(|left| left.start_lsn < window.end_lsn && left.end_lsn > window.start_lsn).collect();
        overlapping.sort_by_key(|left| left.start_lsn);
        let mut close = |from: Edge, to: Edge| {
            if from.lsn < to.lsn {
                let earlier = left().any(|left| left.end_lsn <= from.lsn);
                let later = left().any(|left| left.start_lsn >= to.lsn);
                found.push(Closed { timeline: window.timeline, from, to, earlier, later });
            }
        };
        let mut at = Edge { lsn: window.start_lsn, time: Some(window.start_time) };
        for left in overlapping {
            close(at, Edge { lsn: left.start_lsn, time: Some(left.start_time) });
            if left.end_lsn > at.lsn {
                at = end_of(left);
            }
        }
        close(at, end_of(window));
    }
    found
}

fn end_of(window: &Window) -> Edge {
    Edge { lsn: window.end_lsn, time: window.last_commit.map(|commit| commit.time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(start: u64, end: u64) -> Window {
        Window {
            timeline: TimelineId(1),
            backup: String::new(),
            backups: 1,
            start_lsn: Lsn(start),
            start_time: PgTime(0),
            end_lsn: Lsn(end),
            last_commit: None,
        }
    }

    fn stretches(before: &[(u64, u64)], after: &[(u64, u64)]) -> Vec<(u64, u64, bool, bool)> {
        let windows = |pairs: &[(u64, u64)]| pairs.iter().map(|(from, to)| window(*from, *to)).collect::<Vec<_>>();
        let closed = closed(&windows(before), &windows(after));
        closed.iter().map(|closed| (closed.from.lsn.0, closed.to.lsn.0, closed.earlier, closed.later)).collect()
    }

    /// A window may close at its beginning, in its middle, at its end, or altogether; what is left is said.
    #[test]
    fn kinds() {
        assert_eq!(stretches(&[(10, 90)], &[(10, 90)]), []);
        assert_eq!(stretches(&[(10, 90)], &[(40, 90)]), [(10, 40, false, true)]);
        assert_eq!(stretches(&[(10, 90)], &[(10, 40)]), [(40, 90, true, false)]);
        assert_eq!(stretches(&[(10, 90)], &[(10, 40), (60, 90)]), [(40, 60, true, true)]);
        assert_eq!(stretches(&[(10, 90)], &[]), [(10, 90, false, false)]);
        assert_eq!(stretches(&[(10, 20), (40, 90)], &[(40, 90)]), [(10, 20, false, true)]);
        assert_eq!(stretches(&[(10, 90)], &[(10, 90), (50, 60)]), []);
    }
}
