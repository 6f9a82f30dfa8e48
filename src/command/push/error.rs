//! `PushError`: why a WAL file was not archived.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::command::call::CallError;
use crate::command::several::{self, Failure};
use crate::repository::RepositoryError;
use crate::wal::{HeaderError, HistoryError, NameError, PostgresMajor, SegmentSize, SystemIdentifier};

/// Why a WAL file was not archived. `report::push` has the advice for each.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The call could not begin.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The file's name is none that the archiver hands over.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The file cannot be read.
    #[error("could not read WAL file \"{}\": {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Longer than any file of its kind.
    #[error("WAL file \"{}\" has {found} bytes, and {limit} are the most that such a file can have", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The most in bytes.
        limit: u64,
    },
    /// The file grew or shrank while it was read.
    #[error("WAL file \"{}\" changed while it was read: {expected} bytes were announced, {found} came", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Length when it was opened.
        expected: u64,
        /// Length as it was read.
        found: u64,
    },
    /// The segment's first page is not that of the segment that the file is named for.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The history file is none.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The segment was written by another cluster than the one it is handed over for.
    #[error("WAL file \"{}\" was written by the cluster with system identifier {found}, not {expected}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The cluster that the call is about.
        expected: SystemIdentifier,
        /// What the first page says.
        found: SystemIdentifier,
    },
    /// Version or segment size are not those that the cluster was announced with.
    #[error(
        "WAL file \"{}\" is of PostgreSQL {found_major} with segments of {} bytes, but the repository knows the cluster with PostgreSQL {major} and {} bytes",
        path.display(), found_size.bytes(), size.bytes()
    )]
    OtherKind {
        /// The file.
        path: PathBuf,
        /// Version in the repository.
        major: PostgresMajor,
        /// Segment size in the repository.
        size: SegmentSize,
        /// Version of the file.
        found_major: PostgresMajor,
        /// Segment size of the file.
        found_size: SegmentSize,
    },
    /// The repository lies in the directory that it is to save.
    #[error("the repository \"{}\" lies inside \"{}\" of the server", repository.display(), directory.display())]
    InsideDataDirectory {
        /// The repository.
        repository: PathBuf,
        /// The data directory, or one of its tablespaces.
        directory: PathBuf,
    },
    /// Not as many repositories as the policy demands did what was needed.
    #[error("could not {action} in {needed} of the cluster's {of} repositories: {}", several::list(failures))]
    TooFew {
        /// What was needed, as a verb with its object.
        action: String,
        /// How many the policy demands.
        needed: usize,
        /// How many there are.
        of: usize,
        /// What became of those that did not.
        failures: Vec<Arc<Failure>>,
    },
    /// The repository did not take the file.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
}
