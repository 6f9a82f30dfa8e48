//! Where the server is, and where it goes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Args, Progress, ProgressError};
use crate::command::replay::Road;
use crate::command::server::{self, ServerError};
use crate::command::{Context, host};
use crate::config::ClusterConfig;
use crate::pgdata::asked::{AskedFor, AskedTimeline};
use crate::pgdata::recovering::{self, Mode};
use crate::recovery::{PlanError, PlanRequest, RestorePlan, plan};
use crate::replication::{ConnInfo, ReplicationError, SessionKind};
use crate::repository::Repository;
use crate::wal::{Lsn, PgTime, SystemIdentifier, TimelineId};

/// What one look tells about the server.
struct Seen {
    system_identifier: SystemIdentifier,
    in_recovery: bool,
    running: Option<bool>,
    standby: bool,
    asked: AskedFor,
    /// It waits for somebody to say how it goes on.
    paused: bool,
    /// The timeline that it is on.
    timeline: TimelineId,
    /// Where replay began.
    start: Option<Lsn>,
    /// Replay is at least here.
    lsn: Lsn,
    /// The last transaction's end that was replayed.
    time: Option<PgTime>,
    started_at: Option<PgTime>,
}

/// A server that is looked at once or again and again.
pub(super) struct Looking<'a> {
    context: &'a Context,
    cluster: ClusterConfig,
    data: Option<PathBuf>,
    conninfo: Option<ConnInfo>,
    road: Option<Road>,
    /// Where and when it was seen first.
    first: Option<(Lsn, Instant)>,
}

impl<'a> Looking<'a> {
    pub(super) fn begin(args: &Args, context: &'a Context) -> Result<Looking<'a>, ProgressError> {
        let conninfo = args.conninfo.as_deref().map(ConnInfo::parse).transpose();
        let conninfo = conninfo.map_err(|error| ServerError::Session(ReplicationError::from(error)))?;
        let cluster = context.cluster_config()?;
        Ok(Looking { context, cluster, data: args.data.clone(), conninfo, road: None, first: None })
    }

    /// One look.
    pub(super) fn look(&mut self) -> Result<Progress, ProgressError> {
        let seen = self.see()?;
        let Seen { system_identifier, in_recovery, running, standby, paused, .. } = seen;
        let target = seen.asked.target.clone();
        let progress = Progress {
            system_identifier,
            in_recovery,
            running,
            standby,
            paused,
            target,
            timeline: None,
            position: None,
        };
        if !in_recovery {
            return Ok(progress);
        }
        // The archive of a standby grows.
        let mut road = match self.road.take().filter(|_| !standby) {
            Some(road) => road,
            None => self.road(&seen)?,
        };
        let lsn = seen.lsn.max(seen.start.unwrap_or(Lsn::INVALID));
        // Whoever waits has no rate.
        let (from, taken) = if seen.paused { (None, Duration::ZERO) } else { self.way(&seen, lsn) };
        let position = road.position(lsn, seen.time, from, taken);
        let timeline = Some(road.timeline());
        self.road = Some(road);
        Ok(Progress { timeline, position: Some(position), ..progress })
    }

    /// The way whose time is known: since the first look, or else since the server started.
    fn way(&mut self, seen: &Seen, lsn: Lsn) -> (Option<Lsn>, Duration) {
        match self.first {
            Some((first, at)) if first < lsn => (Some(first), at.elapsed()),
            Some(_) => (None, Duration::ZERO),
            None => {
                self.first = Some((lsn, Instant::now()));
                let age = seen.started_at.map(|started| host::now().0.saturating_sub(started.0));
                let age = age.and_then(|age| u64::try_from(age).ok()).map(Duration::from_micros);
                (seen.start.filter(|_| age.is_some() && !seen.standby), age.unwrap_or_default())
            }
        }
    }

    /// The road to the target, planned with what the archive has now.
    fn road(&self, seen: &Seen) -> Result<Road, ProgressError> {
        let storage = self.cluster.repository.open().map_err(crate::repository::RepositoryError::from)?;
        let cluster = Repository::open(storage)?.cluster(&self.cluster.name);
        let record = cluster.server_record(seen.system_identifier)?;
        let server = cluster.server(seen.system_identifier);
        let snapshot = server.snapshot(&record)?;
        let timeline = match seen.asked.timeline {
            AskedTimeline::Latest => None,
            AskedTimeline::Current => Some(seen.timeline),
            AskedTimeline::Number(timeline) => Some(timeline),
        };
        // The backup that it was restored from, if it is one of ours; the way is the same from any other.
        let backup = snapshot.backups.iter().find(|backup| Some(backup.start_lsn) == seen.start);
        let backup = backup.map(|backup| backup.id.clone());
        let request = PlanRequest { target: seen.asked.target.clone(), timeline, backup };
        let planned: Result<RestorePlan, _> = plan(&snapshot, &request, &mut server.evidence(&record));
        let planned = planned.map_err(|error| match error {
            PlanError::Unreachable(refusal) => {
                ProgressError::Unreachable { target: request.target.clone(), why: Box::new(refusal.why) }
            }
            PlanError::Evidence(error) => error.into(),
        })?;
        Ok(Road::new(server, record.segment_size_bytes, planned, seen.start))
    }

    /// What the directory says, made exact by what the server says.
    fn see(&self) -> Result<Seen, ProgressError> {
        let from_data = self.data.as_deref().map(recovering::look).transpose()?;
        let mut seen = match from_data {
            Some(found) => Some(of_data(found)?),
            None => None,
        };
        let Some(info) = &self.conninfo else {
            // The command line demands one of the two.
            return seen.ok_or_else(|| std::io::Error::other("neither --data nor --conninfo").into());
        };
        match (self.ask(info), &mut seen) {
            (Ok(told), None) => Ok(told),
            // The signal file tells a standby for certain; the server's settings do only if it streams as well.
            (Ok(told), Some(seen)) => {
                Ok(Seen { start: seen.start, running: Some(true), standby: seen.standby, ..told })
            }
            // It lets nobody in before it is consistent.
            (Err(_), Some(_)) => seen.ok_or_else(|| std::io::Error::other("nothing was seen").into()),
            (Err(error), None) => Err(error),
        }
    }

    fn ask(&self, info: &ConnInfo) -> Result<Seen, ProgressError> {
        const QUESTION: &str = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_last_wal_replay_lsn(), \
             (extract(epoch FROM pg_catalog.pg_last_xact_replay_timestamp()) * 1000000)::bigint, \
             (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint, \
             (SELECT system_identifier FROM pg_catalog.pg_control_system()), \
             (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()), \
             pg_catalog.current_setting('primary_conninfo', true) <> '', \
             CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_is_wal_replay_paused() END";
        let mut session = server::connect(info, SessionKind::Sql, &self.context.interrupt)?;
        let row = server::row(&mut session, QUESTION)?;
        let mut settings = BTreeMap::new();
        for name in SETTINGS {
            let shown = server::row(&mut session, &format!("SELECT pg_catalog.current_setting('{name}', true)"))?;
            settings.insert(name.to_owned(), server::value(&shown, 0).to_owned());
        }
        let asked = AskedFor::of(&settings)?;
        let text = |at| server::value(&row, at);
        let micros = |at| text(at).split('.').next().and_then(|number| number.parse::<i64>().ok()).map(of_unix_micros);
        let wrong = |name, at| ServerError::Setting { name, value: text(at).to_owned() };
        Ok(Seen {
            system_identifier: text(4).parse().map_err(|_| wrong("system_identifier", 4))?,
            in_recovery: text(0) == "t",
            running: Some(true),
            // A recovery without a target that streams as well.
            standby: text(6) == "t",
            paused: text(7) == "t",
            asked,
            timeline: TimelineId(text(5).parse().map_err(|_| wrong("timeline_id", 5))?),
            start: None,
            lsn: text(1).parse().unwrap_or(Lsn::INVALID),
            time: micros(2),
            started_at: micros(3),
        })
    }
}

/// Settings that name the target.
const SETTINGS: [&str; 7] = [
    "recovery_target",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
];

fn of_data(found: recovering::Recovering) -> Result<Seen, ProgressError> {
    let control = &found.control;
    let size = control.segment_size;
    let replayed = found.segment.and_then(|segment| segment.number(size).ok()).map(|number| number.start(size));
    let standby = found.mode == Mode::Standby;
    Ok(Seen {
        system_identifier: control.system_identifier,
        in_recovery: found.mode != Mode::None,
        running: Some(found.running),
        standby,
        paused: false,
        asked: AskedFor::of(&found.settings)?,
        timeline: control.timeline,
        start: found.start,
        lsn: replayed.unwrap_or(control.redo).max(control.redo),
        time: None,
        started_at: found.started_at,
    })
}

/// PostgreSQL counts from 2000.
fn of_unix_micros(micros: i64) -> PgTime {
    const UNIX_TO_2000_SECONDS: i64 = 946_684_800;
    PgTime(micros.saturating_sub(UNIX_TO_2000_SECONDS * 1_000_000))
}
