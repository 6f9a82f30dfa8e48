//! Reading what happened out of the stored WAL: what `pitr log`, `pitr find` and `--before-drop` share.
//!
//! `range` finds the segments that a question is about, `reading` reads them in order and hands out what happened.

mod error;
mod pattern;
mod range;
mod reading;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Context;
use crate::recovery::moment::{self, Surroundings};
use crate::recovery::{Road, Snapshot, TargetError};
use crate::repository::evidence::StoredEvidence;
use crate::repository::{Repository, RepositoryError, ServerRecord, ServerRepository};
use crate::wal::{Lsn, SystemIdentifier, TimelineId};
pub use error::HistoryError;
pub use pattern::{NamePattern, RelationPattern};
pub use range::{Bound, Place, Within};
pub use reading::{Hole, Reading, Segment};

/// Which part of the history is meant: options of every command that reads it.
#[derive(Clone, Debug, clap::Args)]
pub struct RangeArgs {
    /// Begin at this time or LSN
    #[arg(long, value_name = "TIME|LSN", help_heading = "Where to look")]
    pub from: Option<String>,
    /// End at this time or LSN
    #[arg(long, value_name = "TIME|LSN", help_heading = "Where to look")]
    pub to: Option<String>,
    /// Timeline to look at, with its ancestors, instead of the newest
    #[arg(long, value_name = "N", value_parser = timeline, help_heading = "Where to look")]
    pub timeline: Option<TimelineId>,
    /// Which of the cluster's system identifiers, if it went through pg_upgrade
    #[arg(long, value_name = "ID", help_heading = "Where to look")]
    pub system_identifier: Option<SystemIdentifier>,
}

/// The history of one server, as stored.
pub struct History {
    /// The server's part of the repository.
    pub server: ServerRepository,
    /// What is known about the server.
    pub record: ServerRecord,
    /// What listings tell.
    pub snapshot: Snapshot,
    /// The zone that times without one are read in, and are shown in besides UTC.
    pub zone: TimeZone,
}

impl History {
    /// The history of the cluster that is meant: of its present server, or of the one asked for.
    ///
    /// # Errors
    /// The configuration or the repository cannot be used, or there is no such server.
    pub fn open(context: &Context, identifier: Option<SystemIdentifier>) -> Result<History, HistoryError> {
        let cluster = context.cluster_config()?;
        let storage = cluster.repository.open().map_err(RepositoryError::from)?;
        let repository = Repository::open(storage)?.cluster(&cluster.name);
        let record = match identifier {
            Some(identifier) => Some(repository.server_record(identifier)?),
            None => repository.servers()?.pop(),
        };
        let record = record.ok_or_else(|| HistoryError::Nothing { cluster: cluster.name.to_string() })?;
        let server = repository.server(record.system_identifier);
        History::of(server, record, crate::command::host::local_zone())
    }

    /// The history of a server.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn of(server: ServerRepository, record: ServerRecord, zone: TimeZone) -> Result<History, HistoryError> {
        let snapshot = server.snapshot(&record)?;
        Ok(History { server, record, snapshot, zone })
    }

    /// Lists what is stored anew.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub fn refresh(&mut self) -> Result<(), HistoryError> {
        self.snapshot = self.server.snapshot(&self.record)?;
        Ok(())
    }

    /// The stored WAL along a timeline, or along the newest.
    ///
    /// # Errors
    /// There is no such timeline, or nothing is stored.
    pub fn road(&self, timeline: Option<TimelineId>) -> Result<Road<'_>, HistoryError> {
        match timeline {
            Some(timeline) => {
                Road::new(&self.snapshot, timeline).map_err(|why| HistoryError::Timeline { timeline, why })
            }
            None => Road::newest(&self.snapshot)
                .ok_or_else(|| HistoryError::Nothing { cluster: self.server.cluster().to_string() }),
        }
    }

    /// What is known about segments without reading them.
    #[must_use]
    pub fn evidence(&self) -> StoredEvidence {
        self.server.evidence(&self.record)
    }

    /// Reads a time or an LSN.
    ///
    /// # Errors
    /// It is neither.
    pub fn bound(&self, text: &str) -> Result<Bound, HistoryError> {
        if let Ok(lsn) = text.trim().parse::<Lsn>() {
            return Ok(Bound::Lsn(lsn));
        }
        let lookup = |name: &str| TimeZone::get(name).ok();
        let surroundings = Surroundings { now: Timestamp::now(), zone: self.zone.clone(), lookup: &lookup };
        Ok(Bound::Time(moment::parse(text, &surroundings).map_err(TargetError::from)?))
    }

    /// The part of the history that the options ask for.
    ///
    /// # Errors
    /// A bound cannot be read, or the two are in the wrong order.
    pub fn within(&self, args: &RangeArgs) -> Result<Within, HistoryError> {
        let bound = |text: &Option<String>| text.as_deref().map(|text| self.bound(text)).transpose();
        let within = Within { from: bound(&args.from)?, to: bound(&args.to)? };
        if within.is_reversed() {
            return Err(HistoryError::Reversed);
        }
        Ok(within)
    }
}

/// Reads a timeline on the command line.
///
/// # Errors
/// Not a number from 1 on.
pub fn timeline(text: &str) -> Result<TimelineId, String> {
    match text.parse::<u32>() {
        Ok(number) if number > 0 => Ok(TimelineId(number)),
        _ => {
            Err("a timeline is a number from 1 on (file names carry it in hexadecimal, this option in decimal)".into())
        }
    }
}
