//! How far a replay is, measured by the plan: what `pitr restore --start` and `pitr progress` show.
//!
//! The plan knows where replay begins and ends; the index knows which commits each segment holds. So a position in the WAL is
//! enough to tell how much is done, which time has been reached, and how long the rest will take at the rate so far.

use std::time::Duration;

use indicatif::HumanBytes;
use serde::Serialize;

use crate::recovery::RestorePlan;
use crate::repository::ServerRepository;
use crate::repository::wal::WalObjectName;
use crate::wal::{Lsn, PgTime, SegmentName, SegmentNo, SegmentSize, TimelineId};

/// The WAL from where replay began to where it will stop.
#[derive(Debug)]
pub(super) struct Road {
    server: ServerRepository,
    size: SegmentSize,
    plan: RestorePlan,
    /// Where replay began; `None` if nobody knows.
    start: Option<Lsn>,
    /// The segment that was described last, and the latest commit or abort known to be replayed.
    described: Option<SegmentName>,
    time: Option<PgTime>,
}

/// How far a replay is.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Position {
    /// The segment being replayed.
    pub segment: SegmentName,
    /// Replay is at least here.
    pub lsn: Lsn,
    /// Where it will stop.
    pub stop_lsn: Lsn,
    /// Segments before that one; `None` if it is not known where replay began.
    pub segments_done: Option<u64>,
    /// Segments from the beginning to the stop.
    pub segments_total: Option<u64>,
    /// Bytes of WAL replayed.
    pub bytes_done: Option<u64>,
    /// Bytes of WAL from the beginning to the stop.
    pub bytes_total: Option<u64>,
    /// Bytes of WAL to go.
    pub bytes_left: u64,
    /// Commits up to this time are replayed.
    pub time_reached: Option<PgTime>,
    /// Bytes of WAL a second so far.
    pub bytes_per_second: Option<u64>,
    /// At that rate.
    pub seconds_left: Option<u64>,
}

impl Road {
    pub(super) fn new(server: ServerRepository, size: SegmentSize, plan: RestorePlan, start: Option<Lsn>) -> Road {
        Road { server, size, plan, start, described: None, time: None }
    }

    /// The timeline of the stop point.
    pub(super) fn timeline(&self) -> TimelineId {
        self.plan.timeline
    }

    /// The segment of an LSN, under the name that the plan has for it.
    pub(super) fn segment_at(&self, lsn: Lsn) -> SegmentName {
        let number = SegmentNo::of(lsn, self.size);
        let holds = |name: SegmentName| name.number(self.size).is_ok_and(|first| first <= number);
        let run = self.plan.wal.iter().rev().find(|run| holds(run.first));
        SegmentName::new(run.map_or(self.plan.timeline, |run| run.first.timeline()), number, self.size)
    }

    /// The first byte of a segment, or where replay began if that is later.
    pub(super) fn start_of(&self, segment: SegmentName) -> Lsn {
        let start = segment.number(self.size).map_or(Lsn::INVALID, |number| number.start(self.size));
        start.max(self.start.unwrap_or(Lsn::INVALID))
    }

    /// The position at an LSN. `time` is what the server says about the last transaction, `taken` how long the way from `from` to
    /// there took.
    pub(super) fn position(&mut self, lsn: Lsn, time: Option<PgTime>, from: Option<Lsn>, taken: Duration) -> Position {
        let segment = self.segment_at(lsn);
        let time_reached = time.or_else(|| self.time_at(segment));
        let stop_lsn = self.plan.stop.lsn;
        let bytes_left = stop_lsn.0.saturating_sub(lsn.0);
        let way = from.map(|from| lsn.0.saturating_sub(from.0)).filter(|way| *way > 0);
        let milliseconds = u64::try_from(taken.as_millis()).unwrap_or(u64::MAX);
        let rate = way.and_then(|way| way.saturating_mul(1000).checked_div(milliseconds)).filter(|rate| *rate > 0);
        let number = SegmentNo::of(lsn, self.size).0;
        let first = self.start.map(|start| SegmentNo::of(start, self.size).0);
        // The stop lies before the byte that it names, unless it is a record that begins there.
        let last = SegmentNo::of(stop_lsn, self.size).0;
        Position {
            segment,
            lsn,
            stop_lsn,
            segments_done: first.map(|first| number.saturating_sub(first)),
            segments_total: first.map(|first| (last + 1).saturating_sub(first)),
            bytes_done: self.start.map(|start| lsn.0.saturating_sub(start.0)),
            bytes_total: self.start.map(|start| stop_lsn.0.saturating_sub(start.0)),
            bytes_left,
            time_reached,
            bytes_per_second: rate,
            seconds_left: rate.and_then(|rate| bytes_left.checked_div(rate)),
        }
    }

    /// What is replayed when a segment begins, by its description: one small read for each segment. The last known time stays
    /// where a segment has no commit.
    fn time_at(&mut self, segment: SegmentName) -> Option<PgTime> {
        if self.described != Some(segment) {
            self.described = Some(segment);
            let described = self.server.describe(WalObjectName::Segment(segment)).ok();
            let first = described.and_then(|described| described.footer.facts).and_then(|facts| facts.first_time);
            self.time = first.or(self.time);
        }
        self.time
    }
}

impl Position {
    /// In one line.
    pub(super) fn line(&self) -> String {
        let mut parts = Vec::new();
        match (self.segments_done, self.segments_total, self.bytes_done, self.bytes_total) {
            (Some(done), Some(total), Some(bytes), Some(all)) => {
                parts.push(format!(
                    "replayed {done} of {total} WAL segments, {} of {}",
                    HumanBytes(bytes),
                    HumanBytes(all)
                ));
            }
            _ => parts.push(format!("replayed up to {}, {} to go", self.lsn, HumanBytes(self.bytes_left))),
        }
        parts.extend(self.time_reached.map(|time| format!("commits of {time}")));
        parts.extend(self.bytes_per_second.map(|rate| format!("{}/s", HumanBytes(rate))));
        if let Some(seconds) = self.seconds_left {
            parts.push(format!("{} left", humantime::format_duration(Duration::from_secs(seconds))));
        }
        parts.join(", ")
    }

    /// How much of it is done, from 0 to 1000.
    pub(super) fn permille(&self) -> u64 {
        let (done, total) = (self.bytes_done.unwrap_or(0), self.bytes_total.unwrap_or(0));
        done.saturating_mul(1000).checked_div(total).unwrap_or(0).min(1000)
    }
}
