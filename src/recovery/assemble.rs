//! Putting the plan together from the way that was chosen.

use super::choose::{Planned, Planner, Way};
use super::plan::{LaidSegment, PathStep, PlanNote, RestorePlan, SegmentRun, StopPoint};
use super::snapshot::{WalCopy, WalEvidence};
use super::{PlanError, TargetKind};
use crate::wal::{SegmentName, SegmentNo, TimelineId};

impl<E: WalEvidence> Planner<'_, E> {
    /// The plan of a way.
    pub(super) fn complete(mut self, way: Way<'_>) -> Planned<RestorePlan, E> {
        let size = self.snapshot.segment_size;
        let limit = way.stop.limit();
        let last_commit = way.walk.last_commit(limit, &way.branch, self.evidence).map_err(PlanError::Evidence)?;
        let limits = way.walk.limits(&way.branch, way.backup, limit, self.evidence).map_err(PlanError::Evidence)?.0;
        let lost = self.lost(&way)?;
        self.look_at_clock(&way)?;
        self.look_for_prepared(&way)?;
        self.look_for_newer(&way);
        if way.instead.is_some()
            && let Some(time) = way.stop.time
        {
            self.notes.push(PlanNote::Idle { since: way.walk.max_time, lsn: way.stop.lsn, time });
        }
        let timeline = match self.request.target.kind {
            TargetKind::Latest => way.branch.timeline(),
            TargetKind::Immediate => way.backup.stop_timeline,
            _ => way.branch.history.timeline_at(way.stop.lsn),
        };
        if !way.same_name.is_empty() {
            self.notes.push(PlanNote::SameName { others: way.same_name.clone() });
        }
        let (wal, lay) = self.wal(&way, timeline).map_err(PlanError::Evidence)?;
        let segment =
            wal.last().map_or(SegmentName::new(timeline, SegmentNo::of(way.stop.lsn, size), size), |run| run.last);
        let path = way.branch.history.path();
        let path = path.skip_while(|(step, _)| *step < way.backup.start_timeline).filter(|(step, _)| *step <= timeline);
        let path = path.map(|(step, until)| PathStep { timeline: step, until: until.filter(|_| step < timeline) });
        Ok(RestorePlan {
            target: self.request.target.clone(),
            recovery_target: way.instead.clone().unwrap_or_else(|| self.request.target.clone()),
            replay_bytes: way.stop.lsn.0.saturating_sub(way.backup.start_lsn.0),
            backup: way.backup.clone(),
            timeline,
            path: path.collect(),
            wal_segments: wal.iter().map(|run| run.count).sum(),
            wal_stored_bytes: wal.iter().map(|run| run.stored_bytes).sum(),
            wal,
            lay,
            stop: StopPoint {
                lsn: way.stop.lsn,
                timeline,
                segment,
                time: way.stop.time,
                xid: way.stop.xid,
                before: way.stop.before,
            },
            last_commit,
            lost,
            limits,
            notes: self.notes,
        })
    }

    /// The segments as PostgreSQL will ask for them, and those it will not get from `pitr-wal-fetch`.
    ///
    /// It follows the timeline of the stop point and looks for nothing on a later one. Where that timeline's own copy of its last
    /// segment was never completed, the child's copy has the same bytes up to the fork, and the stop lies before it.
    fn wal(&mut self, way: &Way<'_>, timeline: TimelineId) -> Result<(Vec<SegmentRun>, Vec<LaidSegment>), E::Error> {
        let mut runs: Vec<SegmentRun> = Vec::new();
        let mut lay = Vec::new();
        for (number, found) in way.walk.segments(&way.branch, way.backup) {
            let name = found.copy.segment();
            let (name, stored_bytes) = if name.timeline() > timeline {
                let own = name.on(timeline);
                let copy = if self.snapshot.is_stored(timeline, number) {
                    WalCopy::Segment(own)
                } else {
                    lay.push(LaidSegment { copy: found.copy.clone(), name: own });
                    found.copy.clone()
                };
                (own, self.evidence.stored_bytes(&copy)?)
            } else {
                if !matches!(found.copy, WalCopy::Segment(_)) {
                    lay.push(LaidSegment { copy: found.copy.clone(), name });
                }
                (name, self.evidence.stored_bytes(&found.copy)?)
            };
            match runs.last_mut() {
                Some(run) if run.last.timeline() == name.timeline() => {
                    run.last = name;
                    run.count += 1;
                    run.stored_bytes += stored_bytes;
                }
                _ => runs.push(SegmentRun { first: name, last: name, count: 1, stored_bytes }),
            }
        }
        Ok((runs, lay))
    }
}
