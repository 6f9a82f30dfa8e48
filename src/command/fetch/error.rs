//! `FetchError`: why a WAL file was not delivered although nothing says that there is none.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::command::call::CallError;
use crate::repository::{RepositoryError, RepositoryName};
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
    /// None of several repositories has delivered it, and not all of them say that there is none.
    #[error("cannot tell whether the archive has \"{file}\": {}", list(answers))]
    Several {
        /// What was asked for.
        file: WalFileName,
        /// What each of them said.
        answers: Vec<Answer>,
    },
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

/// What one of several repositories said.
#[derive(Debug)]
pub struct Answer {
    /// What the configuration calls it.
    pub name: RepositoryName,
    /// Why it did not deliver; `None` if it certainly has no such file.
    pub error: Option<Box<FetchError>>,
}

impl Answer {
    /// It may answer better a moment later.
    pub(super) fn is_passing(&self) -> bool {
        self.error.as_ref().is_some_and(|error| error.is_passing())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "{}: {error}", self.name),
            None => write!(f, "{}: no such file", self.name),
        }
    }
}

fn list(answers: &[Answer]) -> String {
    answers.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl FetchError {
    pub(super) fn no_thread(source: io::Error) -> FetchError {
        CallError::Local { action: "start a thread".to_owned(), source }.into()
    }

    /// The error that decides what is done about it: of several, one that may pass, else the first.
    #[must_use]
    pub fn deciding(&self) -> &FetchError {
        let FetchError::Several { answers, .. } = self else { return self };
        let mut errors = answers.iter().filter_map(|answer| answer.error.as_deref());
        let passing = errors.clone().find(|error| error.is_passing());
        passing.or_else(|| errors.next()).unwrap_or(self)
    }

    /// The store may answer better a moment later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            FetchError::Call(CallError::Repository(error)) | FetchError::Repository(error) => {
                matches!(error, RepositoryError::Storage(error) if !error.is_permanent())
            }
            FetchError::Several { answers, .. } => answers.iter().any(Answer::is_passing),
            FetchError::Unreachable { .. } => true,
            _ => false,
        }
    }

    /// The last one of several tries.
    pub(super) fn after(self, tries: u32, waited: Duration) -> FetchError {
        match self {
            FetchError::Call(CallError::Repository(source)) | FetchError::Repository(source) if matches!(&source, RepositoryError::Storage(error) if !error.is_permanent()) => {
                FetchError::Unreachable { tries, waited, source: Box::new(source) }
            }
            other => other,
        }
    }

    /// A standby lives on with it: it gets the WAL by streaming, or asks again. What no time will mend, because the call
    /// itself is wrong or leads to another cluster's archive, stops even a standby.
    pub(super) fn spares_a_standby(&self) -> bool {
        match self {
            FetchError::Call(CallError::Repository(error)) | FetchError::Repository(error) => {
                !matches!(error, RepositoryError::Format { .. } | RepositoryError::UnknownServer { .. })
            }
            FetchError::Several { answers, .. } => {
                answers.iter().filter_map(|answer| answer.error.as_ref()).all(|error| error.spares_a_standby())
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
