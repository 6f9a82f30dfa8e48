//! What can no longer be restored once a backup is gone: the difference of two lists of windows.

use serde::Serialize;

use super::Window;
use crate::wal::{Lsn, PgTime, TimelineId};

/// A stretch of one timeline in which no moment can be restored any more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Closing {
    /// The timeline.
    pub timeline: TimelineId,
    /// The first moment of it.
    pub from: PgTime,
    /// The same as LSN.
    pub from_lsn: Lsn,
    /// The first moment behind it that can be restored, or the last commit of what could be; `None` where neither is known.
    pub until: Option<PgTime>,
    /// Where it ends.
    pub until_lsn: Lsn,
    /// Nothing later on this timeline can be restored either, as far as this window reached.
    pub whole: bool,
}

/// What the windows `before` hold and those `after` do not.
#[must_use]
pub fn closing(before: &[Window], after: &[Window]) -> Vec<Closing> {
    let mut closed = Vec::new();
    for window in before {
        let rest = after
            .iter()
            .filter(|other| other.timeline == window.timeline)
            .filter(|other| other.start_lsn < window.end_lsn && other.end_lsn > window.start_lsn)
            .min_by_key(|other| other.start_lsn);
        match rest {
            Some(rest) if rest.start_lsn <= window.start_lsn => {}
            rest => closed.push(Closing {
                timeline: window.timeline,
                from: window.start_time,
                from_lsn: window.start_lsn,
                until: match rest {
                    Some(rest) => Some(rest.start_time),
                    None => window.last_commit.as_ref().map(|commit| commit.time),
                },
                until_lsn: rest.map_or(window.end_lsn, |rest| rest.start_lsn),
                whole: rest.is_none(),
            }),
        }
    }
    closed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(timeline: u32, backup: &str, start: u64, end: u64) -> Window {
        Window {
            timeline: TimelineId(timeline),
            backup: backup.to_owned(),
            backups: 1,
            start_lsn: Lsn(start),
            start_time: PgTime(i64::try_from(start).expect("small")),
            end_lsn: Lsn(end),
            last_commit: None,
        }
    }

    /// The beginning of a window closes up to the next backup in it; a window without another backup closes whole, on its
    /// timeline only.
    #[test]
    fn what_closes() {
        let before = [window(1, "a", 10, 100), window(2, "a", 10, 80), window(1, "x", 200, 300)];
        let after = [window(1, "b", 40, 100), window(1, "x", 200, 300)];
        let closed = closing(&before, &after);
        let shown: Vec<_> =
            closed.iter().map(|it| (it.timeline.0, it.from_lsn.0, it.until_lsn.0, it.until, it.whole)).collect();
        assert_eq!(shown, [(1, 10, 40, Some(PgTime(40)), false), (2, 10, 80, None, true)]);
        assert_eq!(closing(&before, &before), []);
    }
}
