//! `FetchError`: why a WAL file was not delivered although nothing says that there is none.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::command::call::CallError;
use crate::repository::RepositoryError;
use crate::wal::{HeaderError, Lsn, NameError, SegmentName, SystemIdentifier, WalFileName};

/// Why a WAL file was not delivered. `report::fetch` has the advice for each.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The call could not begin.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The name is none that PostgreSQL asks for.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The path to deliver to names no file.
    #[error("\"{}\" is not a path of a file", path.display())]
    Target {
        /// The path.
        path: PathBuf,
    },
    /// The file could not be written where it was wanted.
    #[error("could not write \"{}\": {source}", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The repository did not answer, however often it was asked.
    #[error("{source}; tried {tries} times in {waited:.1?}")]
    Unreachable {
        /// How often.
        tries: u32,
        /// How long.
        waited: Duration,
        /// The last answer.
        source: Box<RepositoryError>,
    },
    /// The repository answers with an error.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The segment is missing, and later ones are there.
    #[error("WAL segment \"{missing}\" is missing in {storage}, but the later \"{next}\" is there")]
    Gap {
        /// The store.
        storage: String,
        /// What was asked for.
        missing: SegmentName,
        /// The next one of its timeline that is there.
        next: SegmentName,
    },
    /// Only a damaged copy was archived.
    #[error("WAL segment \"{segment}\" was damaged when it was archived in {storage}: at {good_until}, {why}")]
    ArchivedDamaged {
        /// The store.
        storage: String,
        /// What was asked for.
        segment: SegmentName,
        /// WAL before this is good.
        good_until: Lsn,
        /// What is wrong there.
        why: String,
    },
    /// What came out of the repository does not begin like the segment that was asked for.
    #[error("what {storage} holds for \"{file}\" is no such segment: {source}")]
    Header {
        /// The store.
        storage: String,
        /// What was asked for.
        file: WalFileName,
        /// What is wrong with its first page.
        source: HeaderError,
    },
    /// More comes out of the stored object than a segment of this cluster has.
    #[error("what {storage} holds for \"{file}\" is longer than the {limit_bytes} bytes of a segment")]
    TooLong {
        /// The store.
        storage: String,
        /// What was asked for.
        file: WalFileName,
        /// The cluster's segment size in bytes.
        limit_bytes: u64,
    },
    /// What came out of the repository was written by another cluster.
    #[error(
        "what {storage} holds for \"{file}\" was written by the cluster with system identifier {found}, not {expected}"
    )]
    Foreign {
        /// The store.
        storage: String,
        /// What was asked for.
        file: WalFileName,
        /// The cluster that asks.
        expected: SystemIdentifier,
        /// What the first page says.
        found: SystemIdentifier,
    },
}

impl FetchError {
    /// A standby lives on with it: it gets the WAL by streaming, or asks again. What no time will mend, because the call
    /// itself is wrong or leads to another cluster's archive, stops even a standby.
    pub(super) fn spares_a_standby(&self) -> bool {
        match self {
            FetchError::Call(CallError::Repository(error)) | FetchError::Repository(error) => {
                !matches!(error, RepositoryError::Format { .. } | RepositoryError::UnknownServer { .. })
            }
            FetchError::Call(CallError::Local { .. })
            | FetchError::Write { .. }
            | FetchError::Unreachable { .. }
            | FetchError::Gap { .. }
            | FetchError::ArchivedDamaged { .. }
            | FetchError::Header { .. }
            | FetchError::TooLong { .. } => true,
            FetchError::Call(
                CallError::Usage { .. }
                | CallError::Config(_)
                | CallError::ControlFileRead { .. }
                | CallError::ControlFile { .. }
                | CallError::NoIdentity { .. },
            )
            | FetchError::Name(_)
            | FetchError::Target { .. }
            | FetchError::Foreign { .. } => false,
        }
    }
}
