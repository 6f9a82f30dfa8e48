//! `pitr diff`: what changed between two base backups of one cluster.
//!
//! `before` holds the chunks of the first one, small; `look` reads the second one against it; `relations` says what became of each
//! relation, `group` puts them together by table, `text` tells. Of the backups' data only the catalogs are read.

mod before;
mod group;
mod look;
mod relations;
mod text;

use std::io::Write as _;

use serde::Serialize;

use super::Context;
use super::contents::tally::Tally;
use super::contents::{ContentsError, Meant, find};
use super::looking::{self, RepositoryArg};
use crate::catalog::BackupId;
use crate::manifest::place::FileGroup;
use crate::report::ExitStatus;
use crate::wal::{Lsn, PgTime, TimelineId};
use group::TableChange;

/// Show what changed between two base backups: tables, databases, tablespaces, configuration
///
/// Compares the manifests: chunks of one identity are unchanged, and where only pages were stored anew, those have changed. So "changed"
/// counts what the second backup has at places where the first has something else or nothing; with ≤ before it, some of it may be
/// the same all the same. A table that was rewritten (VACUUM FULL, TRUNCATE, CLUSTER, ...) has new files, which count as changed.
/// Of the backups' data only the catalogs are read, for names.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
    /// The earlier backup: its id, "latest", or a label that no other has
    #[arg(value_name = "BEFORE")]
    pub before: Meant,
    /// The later backup
    #[arg(value_name = "AFTER")]
    pub after: Meant,
    /// Most tables that are listed
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub top: usize,
    /// Only tables of this database
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
}

const EXAMPLES: &str = "\
Examples:  pitr diff 20261121T104500Z-1a2b3c4d latest
           pitr diff \"before the migration\" latest --database shop --top 50";

/// What changed, for programs.
#[derive(Debug, Serialize)]
struct Answer {
    before: Ends,
    after: Ends,
    /// The WAL from the end of the one to the end of the other.
    wal: Wal,
    /// Bytes of the later backup that the earlier one does not have at the same place.
    changed: Shown,
    databases: Vec<Holder>,
    tablespaces: Vec<Holder>,
    configuration: Vec<ConfigurationChange>,
    /// Tables that are not the same, by how much changed; and how many of them are not listed.
    tables: Vec<TableChange>,
    tables_not_listed: u64,
    /// Relations of databases that are in both backups, that are the same.
    unchanged_relations: u64,
    other_files: Vec<GroupChange>,
    /// Why some relations have no name.
    remarks: Vec<String>,
}

/// One of the two.
#[derive(Debug, Serialize)]
struct Ends {
    backup: BackupId,
    label: String,
    start_time: PgTime,
    stop_time: PgTime,
    stop_lsn: Lsn,
    stop_timeline: TimelineId,
    forgotten: bool,
    bad_pages: u64,
    #[serde(flatten)]
    total: Tally,
}

/// The WAL between the two.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
struct Wal {
    /// Its bytes; absent if neither leads to the other along the timelines.
    bytes: Option<u64>,
    /// The one that was named first is the later one.
    backwards: bool,
}

/// How much changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
struct Shown {
    changed_bytes: u64,
    /// Of which so many may be the same all the same.
    perhaps_unchanged_bytes: u64,
}

impl From<before::Changed> for Shown {
    fn from(changed: before::Changed) -> Self {
        Shown { changed_bytes: changed.bytes, perhaps_unchanged_bytes: changed.perhaps }
    }
}

/// What became of something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Fate {
    Created,
    Dropped,
    /// It has another name, or place.
    Renamed,
    Changed,
    Same,
}

/// A database or a tablespace.
#[derive(Debug, Serialize)]
struct Holder {
    /// Absent for what belongs to none.
    oid: Option<u32>,
    name: String,
    /// What it was called, or where it was, if that is something else.
    was: Option<String>,
    what: Fate,
    before_bytes: u64,
    after_bytes: u64,
    #[serde(flatten)]
    changed: Shown,
}

/// A configuration file that is not the same.
#[derive(Debug, Serialize)]
struct ConfigurationChange {
    path: String,
    what: Fate,
    before_bytes: Option<u64>,
    after_bytes: Option<u64>,
}

/// Files that are no relations.
#[derive(Debug, Serialize)]
struct GroupChange {
    kind: FileGroup,
    before_bytes: u64,
    after_bytes: u64,
    #[serde(flatten)]
    changed: Shown,
}

/// Compares two backups.
///
/// # Errors
/// See [`ContentsError`].
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, ContentsError> {
    let (config, repository) = looking::open(context)?;
    let cluster = repository.cluster(&config.name);
    let (before, after) = (find(&args.before, &cluster)?, find(&args.after, &cluster)?);
    let (ours, theirs) = (&before.known.info, &after.known.info);
    if ours.id == theirs.id {
        return Err(ContentsError::Same(ours.id));
    }
    if ours.system_identifier != theirs.system_identifier {
        let (before, after) = (ours.id, theirs.id);
        let (ours, theirs) = (ours.system_identifier, theirs.system_identifier);
        return Err(ContentsError::Clusters { before, after, ours, theirs });
    }
    let answer = look::look(&before, &after, args, context)?;
    let mut out = context.stdout();
    if context.json {
        out.json(&answer)?;
    } else {
        text::write(&answer, &mut out)?;
    }
    out.flush()?;
    Ok(ExitStatus::Success)
}
