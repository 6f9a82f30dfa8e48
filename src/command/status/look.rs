//! Gathering the state of a cluster from its repository.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::damaged::{self, DamagedSegment};
use super::mirrors::MirrorStatus;
use crate::catalog::{BackupId, PackId, Verified};
use crate::command::verify::Coverage;
use crate::recovery::{Hole, Snapshot, Window, holes, windows};
use crate::report::Explain;
use crate::repository::wal::WalObjectName;
use crate::repository::{Cluster, GroupListing, RepositoryError, ServerRecord, ServerRepository};
use crate::wal::{ClusterName, PgTime, PostgresMajor, SegmentName, SystemIdentifier, TimelineId};

/// Everything about one cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ClusterStatus {
    /// The user's name for it.
    pub cluster: ClusterName,
    /// The store.
    pub repository: String,
    /// There is something to restore, and nothing is wrong.
    pub ok: bool,
    /// Its system identifiers, oldest first: more than one after `pg_upgrade`.
    pub servers: Vec<ServerStatus>,
    /// The other repositories of the cluster, and what they lack of this one's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<MirrorStatus>,
}

/// Everything about one system identifier.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ServerStatus {
    /// The identifier.
    pub system_identifier: SystemIdentifier,
    /// The server's major version.
    pub postgres_major: PostgresMajor,
    /// The segment archived last, by the clock of the host that did.
    pub last_archived: Option<LastArchived>,
    /// Stretches in which every moment can be restored.
    pub windows: Vec<Window>,
    /// Missing WAL.
    pub holes: Vec<Hole>,
    /// Segments of which only a damaged copy was archived.
    pub damaged: Vec<DamagedSegment>,
    /// Timelines with stored WAL.
    pub timelines: Vec<TimelineStatus>,
    /// Complete base backups; `None` if they could not be read.
    pub backups: Option<usize>,
    /// Bytes of all backups' files.
    pub backup_raw_bytes: u64,
    /// Bytes that the backups take in the repository.
    pub backup_stored_bytes: u64,
    /// What was verified by `pitr verify`, and how long ago; `None` if that could not be read.
    pub verified: Option<Coverage>,
    /// What a person should look at, in words.
    pub problems: Vec<String>,
}

/// When WAL came last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct LastArchived {
    /// The segment.
    pub segment: SegmentName,
    /// When.
    pub archived_at: PgTime,
    /// How long ago, by this host's clock. An idle server archives nothing; its age is no fault.
    pub age_seconds: i64,
}

/// The stored WAL of one timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TimelineStatus {
    /// The timeline.
    pub timeline: TimelineId,
    /// Complete segments.
    pub segments: u64,
    /// The first of them.
    pub first: Option<SegmentName>,
    /// The last of them.
    pub last: Option<SegmentName>,
    /// Their bytes as PostgreSQL wrote them.
    pub raw_bytes: u64,
    /// Bytes that the timeline's WAL takes in the repository.
    pub stored_bytes: u64,
}

/// Gathers the state. Damage in one part is a problem to be shown, and does not hide the others.
///
/// # Errors
/// The store fails at the beginning.
pub(super) fn look(cluster: &Cluster, repository: String, now: PgTime) -> Result<ClusterStatus, RepositoryError> {
    let records = cluster.servers()?;
    let servers: Vec<_> =
        records.iter().map(|record| server(&cluster.server(record.system_identifier), record, now)).collect();
    // What came before pg_upgrade may expire; the present server must be restorable.
    let restorable = servers.last().is_some_and(|server| !server.windows.is_empty());
    let ok = restorable && servers.iter().all(|server| server.problems.is_empty());
    Ok(ClusterStatus { cluster: cluster.name().clone(), repository, ok, servers, mirrors: Vec::new() })
}

/// What fills in a part of the state.
type Part = fn(&mut ServerStatus, &ServerRepository, &ServerRecord, PgTime) -> Result<(), RepositoryError>;

fn server(server: &ServerRepository, record: &ServerRecord, now: PgTime) -> ServerStatus {
    let mut status = ServerStatus {
        system_identifier: record.system_identifier,
        postgres_major: record.major,
        last_archived: None,
        windows: Vec::new(),
        holes: Vec::new(),
        damaged: Vec::new(),
        timelines: Vec::new(),
        backups: None,
        backup_raw_bytes: 0,
        backup_stored_bytes: 0,
        verified: None,
        problems: Vec::new(),
    };
    for part in [count_backups, look_at_wal] as [Part; 2] {
        if let Err(error) = part(&mut status, server, record, now) {
            let what = error.report().what;
            // What hides one part hides the windows too.
            if !status.problems.contains(&what) {
                status.problems.push(what);
            }
        }
    }
    let damaged = status.damaged.iter().map(ToString::to_string);
    let holes = status.holes.iter().filter(|hole| hole.matters).map(|hole| {
        let (first, last, count) = (hole.first, hole.last, hole.segments);
        format!("WAL is missing on timeline {}: {count} segments, \"{first}\" to \"{last}\"", hole.timeline)
    });
    let found: Vec<String> = damaged.chain(holes).collect();
    status.problems.extend(found);
    status
}

fn count_backups(
    status: &mut ServerStatus,
    server: &ServerRepository,
    _: &ServerRecord,
    _: PgTime,
) -> Result<(), RepositoryError> {
    let (backups, wrong) = server.all_live()?;
    status.problems.extend(wrong.iter().map(|error| error.report().what));
    // Of several the good ones are told; none at all that can be read is not told as nothing.
    status.backups = Some(backups.len()).filter(|count| *count > 0 || wrong.is_empty());
    status.backup_raw_bytes = backups.iter().map(|backup| backup.raw_bytes).sum();
    status.backup_stored_bytes = backups.iter().map(|backup| backup.stored_bytes).sum();
    Ok(())
}

fn look_at_wal(
    status: &mut ServerStatus,
    server: &ServerRepository,
    record: &ServerRecord,
    now: PgTime,
) -> Result<(), RepositoryError> {
    let mut listed = Vec::new();
    for timeline in server.timelines()? {
        // Listed once: of a large archive that is nearly all of the work.
        let listings = server.listing(timeline)?;
        let found = look_at_timeline(server, record, timeline, &listings)?;
        if let Some(last) = found.last {
            let archived_at = server.describe(WalObjectName::Segment(last))?.footer.archived_at;
            if status.last_archived.as_ref().is_none_or(|so_far| so_far.archived_at < archived_at) {
                let age_seconds = now.0.saturating_sub(archived_at.0) / 1_000_000;
                status.last_archived = Some(LastArchived { segment: last, archived_at, age_seconds });
            }
        }
        status.timelines.push(found);
        listed.push((timeline, listings));
    }
    let record_of =
        |timeline, listings: &[GroupListing]| server.timeline_record(timeline, record.segment_size_bytes, listings);
    let records = listed.iter().map(|(timeline, listings)| Ok((*timeline, record_of(*timeline, listings)?)));
    let records = records.collect::<Result<BTreeMap<_, _>, RepositoryError>>()?;
    let snapshot = server.snapshot_of(record, &server.live_backups()?, records)?;
    status.holes = holes(&snapshot);
    status.damaged = damaged::look(server, &snapshot)?;
    status.windows = windows(&snapshot, &mut server.evidence(record))?;
    status.verified = Some(coverage(server, record, &snapshot)?);
    Ok(())
}

/// By the ledger. Packs count that were written by the backups that are there, or by those whose chunks they refer to.
fn coverage(
    server: &ServerRepository,
    record: &ServerRecord,
    snapshot: &Snapshot,
) -> Result<Coverage, RepositoryError> {
    let verified = Verified::of(&server.ledger()?.ledgers(), record.segment_size_bytes);
    let ids: BTreeSet<BackupId> = snapshot.backups.iter().filter_map(|backup| backup.id.parse().ok()).collect();
    let packs = if ids.is_empty() { Vec::new() } else { server.packs()? };
    let known = |pack: &PackId| ids.contains(&pack.backup) || verified.packs.contains_key(&pack.backup);
    let packs = packs.into_iter().map(|pack| pack.id).filter(known);
    Ok(Coverage::of(&verified, snapshot, ids.iter().copied(), packs))
}

fn look_at_timeline(
    server: &ServerRepository,
    record: &ServerRecord,
    timeline: TimelineId,
    listings: &[GroupListing],
) -> Result<TimelineStatus, RepositoryError> {
    let mut found = TimelineStatus { timeline, segments: 0, first: None, last: None, raw_bytes: 0, stored_bytes: 0 };
    found.stored_bytes = server.stored_bytes_of(timeline, listings)?;
    for listing in listings {
        found.segments += listing.count();
        found.raw_bytes += listing.count() * record.segment_size_bytes.bytes();
        found.first = found.first.or(listing.segments().next());
        found.last = listing.segments().last().or(found.last);
    }
    Ok(found)
}
