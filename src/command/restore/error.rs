//! Why a restore was not done, or not to its end.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use jiff::tz::TimeZone;

use crate::catalog::BackupId;
use crate::command::history::HistoryError;
use crate::config::ConfigError;
use crate::pgdata::state::Holds;
use crate::pgdata::{PgDataError, StartError};
use crate::recovery::{RecoveryTarget, Refusal, TargetError};
use crate::repository::RepositoryError;
use crate::storage::StorageError;
use crate::wal::{Lsn, PgTime};

/// Why a restore was not done, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The target cannot be understood.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The target cannot be reached.
    #[error("cannot restore cluster \"{cluster}\" to {target}: {}", refusal.why)]
    Unreachable {
        /// The cluster.
        cluster: String,
        /// What was asked for.
        target: RecoveryTarget,
        /// Why not, with what can be reached instead.
        refusal: Box<Refusal>,
        /// The zone that times are shown in besides UTC.
        zone: TimeZone,
    },
    /// `--backup` names one that is forgotten.
    #[error("cannot restore from backup {id}: it was forgotten at {since}")]
    Forgotten {
        /// The backup.
        id: BackupId,
        /// Since when.
        since: PgTime,
    },
    /// The history could not be read.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// `--before-drop`: no table of that name was dropped.
    #[error("no relation \"{table}\" was dropped in the archived WAL")]
    NotDropped {
        /// The name asked for.
        table: String,
        /// What was renamed instead, in words.
        renamed: Vec<String>,
        /// Why something may be missing.
        notes: Vec<String>,
    },
    /// `--before-drop`: it was dropped more than once.
    #[error("\"{table}\" was dropped more than once")]
    DroppedOften {
        /// The name asked for.
        table: String,
        /// The moments, each with the words that restore to just before it.
        moments: Vec<String>,
    },
    /// Options that contradict each other.
    #[error("{0}")]
    Usage(String),
    /// A directory to be written is not free.
    #[error("cannot restore into \"{}\": {}", path.display(), occupied(holds))]
    Occupied {
        /// The directory.
        path: PathBuf,
        /// What is in it.
        holds: Holds,
    },
    /// Directories that must not lie in each other do.
    #[error("{inner_what} \"{}\" lies in {outer_what} \"{}\"", inner.display(), outer.display())]
    Overlap {
        /// What the inner one is for.
        inner_what: String,
        /// The inner one.
        inner: PathBuf,
        /// What the outer one is for.
        outer_what: String,
        /// The outer one.
        outer: PathBuf,
    },
    /// `--tablespace` for a tablespace that the backup does not have.
    #[error("base backup \"{backup}\" has no tablespace at \"{old}\"")]
    NoSuchTablespace {
        /// The backup.
        backup: String,
        /// The old location given.
        old: String,
        /// The locations it has.
        known: Vec<String>,
    },
    /// `--only-database` names a database that the backup does not have.
    #[error("base backup \"{backup}\" has no database \"{name}\"")]
    NoSuchDatabase {
        /// The name asked for.
        name: String,
        /// The backup.
        backup: String,
        /// The names it has.
        known: Vec<String>,
    },
    /// `--only-database` with `--take-over`.
    #[error("a restore of some databases cannot take over the cluster")]
    PartTakesOver,
    /// Replay met invalid pages in databases that should be whole.
    #[error("recovery passed over invalid pages in databases that should be whole: {}", invalid(databases))]
    InvalidPages {
        /// How many, by OID of the database; 0: shared.
        databases: BTreeMap<u32, u64>,
        /// The server's log, which names them.
        log: PathBuf,
    },
    /// A tablespace that the WAL creates would be made in a directory of this host that is not free for it.
    #[error(
        "cannot restore here: the WAL to be replayed creates a tablespace in \"{}\" (at {lsn}), and that directory {}",
        location.display(),
        entry.as_ref().map_or("is missing".to_owned(), |entry| format!("holds \"{entry}\""))
    )]
    LaterTablespace {
        /// The tablespace's directory.
        location: PathBuf,
        /// Where in the WAL it is created.
        lsn: Lsn,
        /// What is in it; `None` if it is not there.
        entry: Option<String>,
    },
    /// Too little free space.
    #[error("not enough space in \"{}\": {needed_bytes} bytes are needed, {free_bytes} are free", path.display())]
    NoSpace {
        /// The directory.
        path: PathBuf,
        /// What the backup takes.
        needed_bytes: u64,
        /// What is free.
        free_bytes: u64,
    },
    /// There is no `pitr-wal-fetch`.
    #[error("cannot find pitr-wal-fetch: there is no \"{}\"", path.display())]
    NoFetchProgram {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The files would belong to root, as whom no server runs.
    #[error("cannot tell which user the restored server will run as: \"{}\" belongs to root", path.display())]
    NoOwner {
        /// The directory above the target.
        path: PathBuf,
    },
    /// The question could not be asked or was answered with no.
    #[error("{}", if *asked { "the question was answered with no" } else { "cannot ask for a confirmation: no terminal" })]
    Declined {
        /// It could be asked.
        asked: bool,
    },
    /// The data directory could not be written.
    #[error(transparent)]
    PgData(#[from] PgDataError),
    /// The restored server could not be started, or did not do what was asked.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Something on this host could not be read.
    #[error("could not look at \"{}\": {source}", path.display())]
    Local {
        /// What.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Standard output cannot be written to.
    #[error("could not write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl From<StorageError> for RestoreError {
    fn from(error: StorageError) -> Self {
        RestoreError::Repository(error.into())
    }
}

fn invalid(databases: &BTreeMap<u32, u64>) -> String {
    let told = databases.iter().map(|(oid, count)| match oid {
        0 => format!("{count} of shared relations"),
        oid => format!("{count} of the database with OID {oid}"),
    });
    told.collect::<Vec<_>>().join(", ")
}

fn occupied(holds: &Holds) -> String {
    match holds {
        Holds::Nothing => "it is not there".to_owned(),
        Holds::Empty => "it is empty".to_owned(),
        Holds::BrokenOffRestore { backup, .. } => format!("it holds a broken-off restore of base backup \"{backup}\""),
        Holds::Cluster { system_identifier: Some(identifier), .. } => {
            format!("it holds a cluster, system identifier {identifier}")
        }
        Holds::Cluster { system_identifier: None, .. } => "it holds a cluster without a readable pg_control".to_owned(),
        Holds::Running { pid } => format!("a server is running in it, process {pid}"),
        Holds::Foreign { entry } => format!("it holds \"{entry}\", which is no cluster"),
    }
}
