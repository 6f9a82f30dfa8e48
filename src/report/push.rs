//! What to tell about WAL that was not archived, or archived with a warning.

use std::time::Duration;

use super::{ExitStatus, Explain, Report};
use crate::codec::DamageNote;
use crate::command::push::PushError;
use crate::command::several::Failure;
use crate::repository::RepositoryName;
use crate::wal::{HeaderError, SegmentName, WalFileName};

/// Nothing is lost by a failed attempt, but something has to give in the end.
const RETRIED: &str =
    "The file stays in pg_wal and PostgreSQL will retry. Nothing is lost; pg_wal grows until this succeeds.";

/// The same, where trying again is not enough.
const REFUSED: &str = "The file was not archived. It stays in pg_wal; PostgreSQL will retry, and archives nothing behind it until this succeeds.";

impl Explain for PushError {
    fn report(&self) -> Report {
        let (status, meaning, hint) = match self {
            PushError::Call(error) => return error.report(),
            PushError::Repository(error) => return error.report(),
            PushError::TooFew { failures, .. } => {
                let first = failures.first().map(|failure| failure.report());
                let (status, hint) = first.map_or((ExitStatus::Unreachable, String::new()), |it| (it.status, it.hint));
                let meaning = "What the others hold stays there, and is no obstacle when PostgreSQL tries again. "
                    .to_owned()
                    + RETRIED;
                return Report::new(status, self.to_string(), meaning, hint);
            }
            PushError::Name(_) => (
                ExitStatus::Usage,
                "Only segments, .partial, .history and .backup files are archived.",
                "Is archive_command set to \"pitr-wal-push %p\"?",
            ),
            PushError::Read { .. } => (
                ExitStatus::Local,
                RETRIED,
                "Run this as the user that the PostgreSQL server runs as, in the data directory. Is the disk failing?",
            ),
            PushError::TooLong { .. } => {
                (ExitStatus::NotWal, REFUSED, "Did something else write into pg_wal? Look at the file.")
            }
            PushError::Changed { .. } => (
                ExitStatus::NotWal,
                RETRIED,
                "PostgreSQL hands over finished files only. Does something else write into pg_wal?",
            ),
            PushError::Header(error) => (ExitStatus::NotWal, REFUSED, header_hint(error)),
            PushError::History(_) => (
                ExitStatus::NotWal,
                REFUSED,
                "A history file that cannot be read would lead recoveries astray. Was it edited, or cut short by a crash?",
            ),
            PushError::Foreign { .. } => (
                ExitStatus::WrongCluster,
                REFUSED,
                "Was the file copied into pg_wal by hand, or does the path lead into another server's directory?",
            ),
            PushError::OtherKind { .. } => (
                ExitStatus::WrongCluster,
                REFUSED,
                "Was the segment size changed with pg_resetwal? Such a cluster is another one to its archive: announce it \
                 with \"pitr init\" under a new name, and take a base backup.",
            ),
            PushError::InsideDataDirectory { .. } => (
                ExitStatus::Configuration,
                "Losing the server would lose its archive too, and every base backup would contain all others. Nothing was stored.",
                "Move the repository to another file system, best on another machine, and correct its path in the configuration.",
            ),
        };
        Report::new(status, self.to_string(), meaning, hint)
    }
}

fn header_hint(error: &HeaderError) -> &'static str {
    match error {
        HeaderError::TooShort { .. } | HeaderError::Length { .. } => {
            "Was the file cut short by a full disk or by a copy that broke off? A standby may have it whole."
        }
        HeaderError::NotWritten { .. } | HeaderError::Recycled { .. } => {
            "PostgreSQL has not written to this file under its present name. Was it marked ready by hand?"
        }
        HeaderError::Magic { .. } | HeaderError::NotFirstPage { .. } | HeaderError::PageSize { .. } => {
            "Is it a file of PostgreSQL 13 to 18, built with the usual page size? Otherwise the disk may be failing: a \
             standby may have a good copy."
        }
        HeaderError::SegmentSize { .. }
        | HeaderError::Address { .. }
        | HeaderError::Timeline { .. }
        | HeaderError::SystemIdentifier { .. } => {
            "Was the file renamed or copied by hand? Look for where it came from."
        }
    }
}

/// The deadline passed while something was being done.
#[must_use]
pub fn expired(limit: Duration, doing: &str) -> Report {
    Report::new(
        ExitStatus::Timeout,
        format!("could not {doing}: it took more than {limit:?}"),
        RETRIED,
        "Run \"pitr check\", look at the disk or the network behind the repository, and watch the free space of pg_wal. \
         Where the repository is only slow, raise push_timeout.",
    )
}

/// One of several repositories did not do its part, and the others are enough.
#[must_use]
pub fn away(failure: &Failure) -> Report {
    let Report { hint, .. } = failure.report();
    Report::new(
        ExitStatus::Success,
        format!("repository {failure}"),
        "The other repositories hold as much as push_policy demands, so archiving goes on. This one is left alone for a minute; what it \
         lacks is noted, and brought there when it answers again.",
        hint,
    )
}

/// One of several repositories lacks a file, and that could not be noted.
#[must_use]
pub fn not_remembered(name: &RepositoryName, file: WalFileName, why: &str) -> Report {
    Report::new(
        ExitStatus::Success,
        format!("repository {name} lacks \"{file}\", and this could not be noted: {why}"),
        "The other repositories hold as much as push_policy demands. This one is not caught up by itself.",
        format!(
            "When it answers again, run \"pitr copy --from NAME --to {name}\". \"pitr init\" tells how to make the spool."
        ),
    )
}

/// A segment was archived, and its records make no sense from some point on.
#[must_use]
pub fn damaged(file: WalFileName, DamageNote { lsn, why, or_before }: &DamageNote) -> Report {
    const KEPT: &str = "It was archived all the same, marked as damaged, so that PostgreSQL goes on. As long as no good copy is \
                        archived, restores can go to the end of the segment before it and no further.";
    const NOW: &str = "Take a base backup now with \"pitr backup\": restores from it do not need this segment.";
    const DISK: &str = "Look for errors of this server's disk and memory.";
    match or_before {
        None => Report::new(
            ExitStatus::Success,
            format!("WAL segment \"{file}\" is damaged on this server: at {lsn}, {why}"),
            format!("Everything before {lsn} is good. {KEPT}"),
            format!("{NOW} If a standby has a good copy, archive that with pitr-wal-push. {DISK}"),
        ),
        Some(before) => Report::new(
            ExitStatus::Success,
            format!("WAL segment \"{file}\" does not go on where \"{before}\" ends: at {lsn}, {why}"),
            format!(
                "One of the two is damaged on this server, and either may be the bad one: \"{before}\", which is archived \
                 already, or \"{file}\". Everything before {lsn} is good. {KEPT}"
            ),
            format!(
                "{NOW} While both are still in pg_wal, compare them with those of a standby: if \"{file}\" differs, archive \
                 the standby's with pitr-wal-push; if \"{before}\" differs, only the new base backup helps. {DISK}"
            ),
        ),
    }
}

/// A segment was archived that does not go on where the archived one before it ends, though both are whole.
#[must_use]
pub fn other_history(file: WalFileName, before: SegmentName) -> Report {
    Report::new(
        ExitStatus::Success,
        format!("WAL segment \"{file}\" is not what followed the archived \"{before}\""),
        format!(
            "Both are whole, but of different histories: this server was set back to an earlier state, or its WAL was reset. \
             \"{file}\" was archived. Restores from backups taken before it cannot go past the end of \"{before}\"."
        ),
        "Take a base backup now with \"pitr backup\". Was the server's disk set back to a snapshot? \"pitr restore\" begins a \
         new timeline, which keeps the two histories apart.",
    )
}
