//! What to tell about WAL that was not delivered.

use std::time::Duration;

use super::{ExitStatus, Explain, Report};
use crate::command::fetch::{Answer, FetchError};
use crate::repository::RepositoryName;
use crate::wal::WalFileName;

/// What a status of 200 or more does in a recovery.
const HALTED: &str = "Recovery stops here instead of opening the database too early. Start the server again when the cause is mended: \
     it goes on where it stopped.";

const LOOK: &str = "Run \"pitr check\", and look at the disk or the network behind the repository.";

impl Explain for FetchError {
    fn report(&self) -> Report {
        let (status, meaning, hint) = match self {
            FetchError::Call(error) => return halted(error.report()),
            FetchError::Repository(error) => return halted(error.report()),
            FetchError::Unreachable { source, .. } => {
                let Report { hint, status, .. } = source.report();
                (status, HALTED.to_owned(), hint)
            }
            FetchError::Several { .. } => {
                let Report { hint, status, .. } = match self.deciding() {
                    FetchError::Several { .. } => Report::new(ExitStatus::Unreachable, "", "", LOOK),
                    one => one.report(),
                };
                let every = "Only if every repository says so is there no such file.";
                (status, format!("{every} {HALTED}"), hint)
            }
            FetchError::Name(_) => (
                ExitStatus::Usage,
                "PostgreSQL asks for segments and .history files only.".to_owned(),
                "Is restore_command set to \"pitr-wal-fetch %f %p\"?".to_owned(),
            ),
            FetchError::Target { .. } => (
                ExitStatus::Usage,
                "Nothing was delivered.".to_owned(),
                "Is restore_command set to \"pitr-wal-fetch %f %p\"?".to_owned(),
            ),
            FetchError::Write { .. } => (
                ExitStatus::Local,
                format!("The archive is not at fault, and nothing half-written was left. {HALTED}"),
                "Make room on the file system of the data directory, or look at its rights and for errors of its disk.".to_owned(),
            ),
            FetchError::Gap { missing, .. } => (
                ExitStatus::Gap,
                format!("WAL is missing in between, so what follows cannot be replayed. {HALTED}"),
                format!(
                    "If the old server or a standby still has \"{missing}\" in its pg_wal, archive it with pitr-wal-push. \
                     Otherwise restore to a moment before it: \"pitr status\" shows what can be reached."
                ),
            ),
            FetchError::ArchivedDamaged { good_until, segment, .. } => (
                ExitStatus::Damaged,
                format!("WAL is good up to {good_until}. {HALTED}"),
                format!(
                    "If a standby has a good copy of \"{segment}\", archive that with pitr-wal-push, and start the \
                     server again. Otherwise restore to a moment before that segment, or from a later base backup: \"pitr \
                     status\" shows what can be reached."
                ),
            ),
            FetchError::Header { .. } | FetchError::TooLong { .. } => (
                ExitStatus::Damaged,
                format!("It was not delivered. {HALTED}"),
                "Did something else write into the repository? If another copy of the repository has the file, use that.".to_owned(),
            ),
            FetchError::Foreign { .. } => (
                ExitStatus::WrongCluster,
                format!("It was not delivered. {HALTED}"),
                "Is it the right --cluster and the right repository?".to_owned(),
            ),
        };
        Report::new(status, self.to_string(), meaning, hint)
    }
}

/// One repository did not deliver a file, and another did.
#[must_use]
pub fn fell_over(file: WalFileName, name: &RepositoryName, answer: Option<&Answer>, from: &RepositoryName) -> Report {
    let (what, hint) = match answer.map(|answer| &answer.error) {
        Some(Some(error)) => (error.to_string(), error.report().hint),
        Some(None) => (
            "it has no such file".to_owned(),
            format!("If it should, \"pitr copy --from {from} --to {name} --wal-only\" brings it what it lacks."),
        ),
        None => ("no answer yet".to_owned(), LOOK.to_owned()),
    };
    let what = format!("could not fetch \"{file}\" from repository {name}: {what}");
    let meaning = format!("Repository {from} had the file, and it was delivered from there.");
    Report::new(ExitStatus::Success, what, meaning, hint)
}

/// The advice of the layers below speaks of archiving too; here only recovery counts.
fn halted(report: Report) -> Report {
    match report.status {
        ExitStatus::Unreachable | ExitStatus::NoRepository | ExitStatus::Denied | ExitStatus::Damaged => {
            Report { meaning: HALTED.to_owned(), ..report }
        }
        _ => report,
    }
}

/// The same on a standby, which is told that there is no such file.
#[must_use]
pub fn on_standby(report: Report) -> Report {
    Report {
        status: ExitStatus::No,
        meaning: "This standby is told for now that there is no such file, so that it can stream from its primary; it asks again \
                  by itself."
            .to_owned(),
        ..report
    }
}

/// The deadline passed while something was being done.
#[must_use]
pub fn expired(limit: Duration, doing: &str) -> Report {
    Report::new(ExitStatus::Timeout, format!("could not {doing}: it took more than {limit:?}"), HALTED, LOOK)
}

/// The same on a standby.
#[must_use]
pub fn expired_on_standby(limit: Duration, doing: &str) -> Report {
    on_standby(expired(limit, doing))
}
