//! `--before-drop`: the moment just before a table was dropped, found in the stored WAL.

use jiff::tz::TimeZone;

use super::RestoreError;
use crate::command::Context;
use crate::command::find::{Candidate, Extent, Sought, search};
use crate::command::history::{History, RelationPattern, Within};
use crate::recovery::moment::in_both;
use crate::recovery::{RecoveryTarget, TargetKind};
use crate::repository::{Cluster, ServerRecord};
use crate::wal::TimelineId;

/// Most moments that are listed where one is wanted.
const MOST: usize = 10;

/// The target, and the timeline that it lies on.
pub(super) fn target(
    table: &RelationPattern,
    cluster: &Cluster,
    servers: &[ServerRecord],
    timeline: Option<TimelineId>,
    zone: &TimeZone,
    context: &Context,
) -> Result<(RecoveryTarget, TimelineId), RestoreError> {
    let not_dropped = |renamed, notes| RestoreError::NotDropped { table: table.to_string(), renamed, notes };
    let Some(record) = servers.first() else { return Err(not_dropped(Vec::new(), Vec::new())) };
    let history = History::of(cluster.server(record.system_identifier), record.clone(), zone.clone())?;
    let road = history.road(timeline)?;
    let extent = Extent { all: false, limit: MOST };
    let found = search(&history, &road, &Sought::Drop(table.clone()), &Within::default(), extent, context)?;
    match found.candidates.as_slice() {
        [only] => {
            let names: Vec<String> = only.relations.iter().map(ToString::to_string).collect();
            eprintln!("note: meant is transaction {}, LSN {}: {}: {}", only.xid, only.lsn, names.join(", "), only.what);
            found.notes.iter().for_each(|note| eprintln!("note: {note}"));
            let kind = TargetKind::Lsn(only.lsn);
            Ok((RecoveryTarget::exclusive(kind)?, only.timeline))
        }
        [] => {
            let renamed =
                found.renamed.iter().map(|renamed| format!("{} was renamed to {}", renamed.before, renamed.after));
            Err(not_dropped(renamed.collect(), found.notes))
        }
        several => {
            let words = |candidate: &Candidate| {
                let when = candidate.time.map_or_else(String::new, |time| format!("{}: ", in_both(time, zone)));
                let names: Vec<String> = candidate.relations.iter().map(ToString::to_string).collect();
                format!("{when}{} ({})", candidate.option, names.join(", "))
            };
            let moments = several.iter().map(words).collect();
            Err(RestoreError::DroppedOften { table: table.to_string(), moments })
        }
    }
}
