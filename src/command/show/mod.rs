//! `pitr show`: what is in one base backup, by name and size, and where its bytes are stored.
//!
//! `look` reads manifest and catalogs into an [`Answer`], `files` lists single files as the manifest streams by, `text` tells.

mod files;
mod look;
mod text;

use std::io::Write as _;

use super::contents::table::{Table, Wanted};
use super::contents::tally::Tally;
use super::contents::{ContentsError, Meant, find};
use super::history::RelationPattern;
use super::keeping::ShownBackup;
use super::looking::{self, RepositoryArg};
use super::{Context, list};
use crate::catalog::BackupId;
use crate::manifest::place::FileGroup;
use crate::manifest::{BadPages, ConfigFile};
use crate::report::ExitStatus;
use crate::wal::PgTime;
use serde::Serialize;

/// Show what is in a base backup: databases, tablespaces, the largest tables by name, and where their bytes are stored
///
/// Reads the backup's manifest, and of its data only the catalogs that tell names. The size of a table is that of all its files, with
/// its indexes and TOAST table, as pg_total_relation_size tells it. "stored" is what this backup wrote itself, compressed; "earlier" is
/// what it refers to in the packs of earlier backups.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
    /// The backup: its id, "latest", or a label that no other has
    #[arg(value_name = "BACKUP")]
    pub backup: Meant,
    /// Most tables that are listed
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// List every file instead: size, where it is stored, time of change, checksum, path and relation
    #[arg(long, conflicts_with = "top")]
    pub files: bool,
    /// Only what belongs to this database
    #[arg(long, value_name = "NAME")]
    pub database: Option<String>,
    /// Only these relations and their indexes and TOAST tables: NAME, SCHEMA.NAME or DATABASE.SCHEMA.NAME, with * and ?
    #[arg(long, value_name = "NAME")]
    pub relation: Option<RelationPattern>,
}

const EXAMPLES: &str = "\
Examples:  pitr show latest
           pitr show 20261121T104500Z-1a2b3c4d --top 50 --database shop
           pitr show latest --relation public.orders
           pitr show latest --files --relation \"public.ord*\"";

/// A backup's contents, for programs.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(flatten)]
    backup: ShownBackup,
    /// How the server was read.
    read: Reading,
    /// All files of data directory and tablespaces.
    total: Tally,
    /// Of 1 byte on the server so much is stored, here and in earlier backups; absent for an empty one.
    stored_share: Option<f64>,
    /// What it refers to, the most first.
    earlier: Vec<Earlier>,
    databases: Vec<Named>,
    by_tablespace: Vec<Named>,
    /// Tables and other relations that were asked for, and how many of them are not listed.
    tables: Vec<Table>,
    tables_not_listed: u64,
    other_files: Vec<Group>,
    bad_page_files: Vec<Bad>,
    configuration: Vec<Configuration>,
    /// Why some relations have no name.
    remarks: Vec<String>,
}

/// How a backup was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum Reading {
    /// Everything was sent and stored.
    Full,
    /// Everything was sent; what the parent has is referred to.
    Compared,
    /// Only what had changed since the parent was read, as the WAL told.
    ChangedOnly,
}

/// An earlier backup that is referred to.
#[derive(Debug, Serialize)]
struct Earlier {
    backup: BackupId,
    referenced_bytes: u64,
    /// Its label and end; absent if the backup itself is gone and only its packs are kept.
    label: Option<String>,
    stop_time: Option<PgTime>,
    forgotten: bool,
}

/// A database or a tablespace.
#[derive(Debug, Serialize)]
struct Named {
    /// Absent for what belongs to none.
    oid: Option<u32>,
    name: String,
    #[serde(flatten)]
    total: Tally,
}

/// Files that are no relations.
#[derive(Debug, Serialize)]
struct Group {
    kind: FileGroup,
    #[serde(flatten)]
    total: Tally,
}

/// A file with pages that the server found damaged.
#[derive(Debug, Serialize)]
struct Bad {
    #[serde(flatten)]
    pages: BadPages,
    relation: Option<String>,
}

/// A configuration file from outside the data directory.
#[derive(Debug, Serialize)]
struct Configuration {
    source: String,
    size_bytes: u64,
    /// Why it could not be read.
    missing: Option<String>,
}

impl From<ConfigFile> for Configuration {
    fn from(file: ConfigFile) -> Self {
        Configuration { source: file.source, size_bytes: file.size, missing: file.missing }
    }
}

/// Shows a backup.
///
/// # Errors
/// See [`ContentsError`].
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, ContentsError> {
    let (config, repository) = looking::open(context)?;
    let found = find(&args.backup, &repository.cluster(&config.name))?;
    let catalog = found.server.catalog_of_backup(found.known.info.id)?;
    let wanted = Wanted { database: args.database.as_deref(), relation: args.relation.as_ref() };
    let top = if args.files { 0 } else { args.top };
    let answer = look::look(&found, &catalog, wanted, top, context)?;
    let mut out = context.stdout();
    if args.files {
        let listing = files::Listing::new(&found, &catalog, wanted, context);
        if context.json {
            listing.json(&answer, &mut out)?;
        } else {
            listing.text(&mut out)?;
        }
    } else if context.json {
        out.json(&answer)?;
    } else {
        list::describe(&answer.backup, &mut out)?;
        text::write(&answer, wanted, &mut out)?;
    }
    out.flush()?;
    Ok(ExitStatus::Success)
}
