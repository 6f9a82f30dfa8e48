//! Gathering the tree of a server's timelines.

use std::collections::BTreeMap;

use serde::Serialize;

use super::origins::origins;
use crate::codec::Origin;
use crate::recovery::{Snapshot, TimelineRecord, Window, beginning, holes, windows};
use crate::repository::wal::{StoredWalFile, WalObjectName};
use crate::repository::{Cluster, RepositoryError, ServerRecord, ServerRepository};
use crate::wal::{
    ClusterName, Lsn, PgTime, PostgresMajor, SegmentName, SegmentNo, SystemIdentifier, TimelineHistory, TimelineId,
};

/// All timelines of one cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ClusterTimelines {
    /// The user's name for it.
    pub cluster: ClusterName,
    /// The store.
    pub repository: String,
    /// Its system identifiers, oldest first.
    pub servers: Vec<ServerTimelines>,
}

/// All timelines of one system identifier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ServerTimelines {
    /// The identifier.
    pub system_identifier: SystemIdentifier,
    /// The server's major version.
    pub postgres_major: PostgresMajor,
    /// The branch that is written to, as far as the archive can tell; `None` if there is no WAL.
    pub live: Option<Live>,
    /// By number.
    pub timelines: Vec<TimelineNode>,
}

/// The branch that is written to: the one whose last segment was archived last, by the clocks of the hosts that archive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Live {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its last segment.
    pub segment: SegmentName,
    /// When that was archived.
    pub archived_at: PgTime,
    /// By whom.
    pub archived_by: Origin,
    /// Other branches that were archived after this one had begun: two servers may have written.
    pub rivals: Vec<TimelineId>,
}

/// One timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TimelineNode {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it begins; `None` for the first one, and where its history file is missing.
    pub fork: Option<ForkPoint>,
    /// It should have a history file, and the archive has none: nobody can tell where it belongs.
    pub history_missing: bool,
    /// Complete segments.
    pub segments: u64,
    /// The first of them.
    pub first: Option<SegmentName>,
    /// The last of them.
    pub last: Option<SegmentName>,
    /// Where the last record ends in it, if its records were read.
    pub end_lsn: Option<Lsn>,
    /// The last commit or abort in it, if it has one.
    pub last_time: Option<PgTime>,
    /// When it was archived.
    pub last_archived_at: Option<PgTime>,
    /// Who archived the timeline, in the order in which they are met.
    pub archived_by: Vec<ArchivedBy>,
    /// How many segments were asked for that.
    pub sampled: usize,
    /// Segments of which the beginning is stored as a `.partial`.
    pub partials: Vec<SegmentName>,
    /// Segments of which only a damaged copy is stored.
    pub damaged: Vec<SegmentName>,
    /// Missing segments before the last one.
    pub missing: u64,
    /// Base backups that end on it.
    pub backups: usize,
    /// Stretches in which every moment can be restored.
    pub windows: Vec<Window>,
}

/// Where a timeline begins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ForkPoint {
    /// The timeline it branched off.
    pub parent: TimelineId,
    /// The first byte of its own.
    pub lsn: Lsn,
    /// When, as its first records say; `None` if they are not in the archive.
    pub time: Option<PgTime>,
    /// Why, in the words of the server.
    pub reason: String,
}

/// A host that archived.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ArchivedBy {
    /// Its name.
    pub host: String,
    /// The data directory there.
    pub source: String,
    /// The first segment of its that was met.
    pub first: SegmentName,
    /// The last one.
    pub last: SegmentName,
}

/// Gathers the trees of all system identifiers.
pub(super) fn look(cluster: &Cluster, repository: String) -> Result<ClusterTimelines, RepositoryError> {
    let records = cluster.servers()?;
    let servers = records.iter().map(|record| server(&cluster.server(record.system_identifier), record));
    Ok(ClusterTimelines { cluster: cluster.name().clone(), repository, servers: servers.collect::<Result<_, _>>()? })
}

fn server(server: &ServerRepository, record: &ServerRecord) -> Result<ServerTimelines, RepositoryError> {
    let snapshot = server.snapshot(record)?;
    let windows = windows(&snapshot, &mut server.evidence(record))?;
    let mut ends = BTreeMap::new();
    let mut timelines = Vec::new();
    for (timeline, found) in &snapshot.timelines {
        let end = End::of(server, &snapshot, *timeline, found)?;
        let mut node = node(server, &snapshot, *timeline, found, &end)?;
        node.windows = windows.iter().filter(|window| window.timeline == *timeline).cloned().collect();
        timelines.push(node);
        ends.insert(*timeline, end);
    }
    for hole in holes(&snapshot) {
        if let Some(node) = timelines.iter_mut().find(|node| node.timeline == hole.timeline) {
            node.missing += hole.segments;
        }
    }
    Ok(ServerTimelines {
        system_identifier: record.system_identifier,
        postgres_major: record.major,
        live: live(&snapshot, &ends),
        timelines,
    })
}

/// The descriptions of a timeline's first and last segment.
struct End {
    first: Option<(SegmentName, StoredWalFile)>,
    last: Option<(SegmentName, StoredWalFile)>,
}

impl End {
    fn of(
        server: &ServerRepository,
        snapshot: &Snapshot,
        timeline: TimelineId,
        record: &TimelineRecord,
    ) -> Result<End, RepositoryError> {
        let described = |number: Option<SegmentNo>| -> Result<_, RepositoryError> {
            let Some(number) = number else { return Ok(None) };
            let name = SegmentName::new(timeline, number, snapshot.segment_size);
            Ok(Some((name, server.describe(WalObjectName::Segment(name))?)))
        };
        Ok(End { first: described(record.segments.first())?, last: described(record.segments.last())? })
    }
}

fn node(
    server: &ServerRepository,
    snapshot: &Snapshot,
    timeline: TimelineId,
    record: &TimelineRecord,
    end: &End,
) -> Result<TimelineNode, RepositoryError> {
    let name = |number| SegmentName::new(timeline, number, snapshot.segment_size);
    let (seen, sampled) = origins(&record.segments, |number| {
        match server.describe(WalObjectName::Segment(name(number))) {
            Ok(described) => Ok(Some((described.details.archived_by.host, described.details.archived_by.source))),
            // What is damaged in the store is a matter of its own.
            Err(RepositoryError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    })?;
    let archived_by = seen.into_iter().map(|seen| {
        let (host, source) = seen.origin;
        ArchivedBy { host, source, first: name(seen.first), last: name(seen.last) }
    });
    let facts = end.last.as_ref().and_then(|(_, last)| last.footer.facts);
    let mut partials: Vec<_> = record.partials.iter().map(|partial| name(partial.segment)).collect();
    partials.dedup();
    Ok(TimelineNode {
        timeline,
        fork: record.history.as_ref().and_then(|history| fork(history, snapshot, end)),
        history_missing: record.history.is_none() && timeline != TimelineId::FIRST,
        segments: record.segments.len(),
        first: end.first.as_ref().map(|(name, _)| *name),
        last: end.last.as_ref().map(|(name, _)| *name),
        end_lsn: facts.map(|facts| facts.end),
        last_time: facts.and_then(|facts| facts.last_time),
        last_archived_at: end.last.as_ref().map(|(_, last)| last.footer.archived_at),
        archived_by: archived_by.collect(),
        sampled,
        partials,
        damaged: record.damaged.values().map(|damage| damage.segment).collect(),
        missing: 0,
        backups: snapshot.backups.iter().filter(|backup| backup.stop_timeline == timeline).count(),
        windows: Vec::new(),
    })
}

fn fork(history: &TimelineHistory, snapshot: &Snapshot, end: &End) -> Option<ForkPoint> {
    let entry = history.entries().last()?;
    let own =
        SegmentName::new(history.timeline(), SegmentNo::of(entry.switch, snapshot.segment_size), snapshot.segment_size);
    let first = end.first.as_ref().filter(|(name, _)| *name == own);
    let time = first.and_then(|(_, first)| {
        let own = first.details.events.iter().filter(|event| event.lsn >= entry.switch);
        { own }.find_map(|event| beginning(&event.kind, history.timeline()))
    });
    Some(ForkPoint { parent: entry.timeline, lsn: entry.switch, time, reason: entry.reason.clone() })
}

/// The branch that is written to, and those that were archived after it had begun.
fn live(snapshot: &Snapshot, ends: &BTreeMap<TimelineId, End>) -> Option<Live> {
    let archived = |(timeline, end): (&TimelineId, &End)| {
        let (segment, last) = end.last.as_ref()?;
        Some((last.footer.archived_at, *timeline, *segment, last.details.archived_by.clone()))
    };
    let (archived_at, timeline, segment, archived_by) =
        ends.iter().filter_map(archived).max_by_key(|(at, timeline, ..)| (*at, *timeline))?;
    let began = ends.get(&timeline)?.first.as_ref()?.1.footer.archived_at;
    let history = snapshot.timelines.get(&timeline)?.history.as_ref();
    let rivals = ends.iter().filter_map(archived).filter(|(at, other, last, _)| {
        // An ancestor's WAL up to the fork is this branch's own.
        let left = history.and_then(|history| history.switch_from(*other));
        let beyond = left.is_none_or(|left| {
            last.number(snapshot.segment_size).is_ok_and(|number| number.start(snapshot.segment_size) >= left)
        });
        *other != timeline && beyond && *at > began
    });
    let rivals = rivals.map(|(_, other, ..)| other).collect();
    Some(Live { timeline, segment, archived_at, archived_by, rivals })
}
