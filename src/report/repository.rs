//! What to tell about the repository and what is stored in it.

use super::{ExitStatus, Explain, Report};
use crate::manifest::ManifestError;
use crate::repository::RepositoryError;

impl Explain for RepositoryError {
    fn report(&self) -> Report {
        let (status, meaning, hint) = match self {
            RepositoryError::Storage(error) => return error.report(),
            RepositoryError::NotARepository { .. } => (
                ExitStatus::NoRepository,
                "Nothing was read or written there: WAL must not go to the disk under an empty mount point. PostgreSQL \
                 keeps what is not archived."
                    .to_owned(),
                "Is the file system of the repository mounted, and is the path in the configuration right? A new \
                 repository is made by \"pitr init\"."
                    .to_owned(),
            ),
            RepositoryError::Format { .. } => (
                ExitStatus::Format,
                "Nothing was read or written: guessing at an unknown format could lose data.".to_owned(),
                "Use a newer pitr for this repository, on all hosts that share it.".to_owned(),
            ),
            RepositoryError::NotEmpty { .. } => (
                ExitStatus::NoRepository,
                "No repository was made: what lies there is not ours, and was not touched.".to_owned(),
                "Choose an empty directory.".to_owned(),
            ),
            RepositoryError::Malformed { .. } => (
                ExitStatus::Damaged,
                "The object was changed after it was stored, or never written by pitr.".to_owned(),
                "Did something else write into the repository, or is its disk failing? Restore the file from a copy of \
                 the repository."
                    .to_owned(),
            ),
            RepositoryError::UnknownServer { .. } => (
                ExitStatus::WrongCluster,
                "This server's WAL was never announced to the repository, so nothing is stored for or taken from it."
                    .to_owned(),
                "Is it the right --cluster and the right repository? A new server is announced by \"pitr init\", one \
                 after pg_upgrade by \"pitr init --upgraded\"."
                    .to_owned(),
            ),
            RepositoryError::Damaged { .. } => (
                ExitStatus::Damaged,
                "The damaged bytes were not used. Other stored files are not affected.".to_owned(),
                "Look for errors of the disk behind the repository. If another copy of the repository has the file, \
                 put that copy in its place; otherwise recovery can only go as far as the WAL before it."
                    .to_owned(),
            ),
            RepositoryError::Manifest { source: ManifestError::Format { .. }, .. } => (
                ExitStatus::Format,
                "The backup was not read: guessing at an unknown format could lose data.".to_owned(),
                "Use a newer pitr for this repository, on all hosts that share it.".to_owned(),
            ),
            RepositoryError::Manifest { .. } => (
                ExitStatus::Damaged,
                "Without its manifest this backup cannot be restored. Other backups are not affected.".to_owned(),
                "Restore from another backup (\"pitr list\" shows them), and take a new one. Look for errors of the disk \
                 behind the repository, and for whoever edits files in it."
                    .to_owned(),
            ),
            RepositoryError::Chunk { .. } => (
                ExitStatus::Damaged,
                "The damaged bytes were not used. Backups that do not need them are not affected.".to_owned(),
                "Restore from another backup (\"pitr list\" shows them), and take a new one. Look for errors of the disk \
                 behind the repository; if another copy of it has the file, put that copy in its place."
                    .to_owned(),
            ),
            RepositoryError::Occupied { .. } => (
                ExitStatus::Conflict,
                "The name belongs to this backup alone, so somebody else wrote it. It was not touched; this backup does \
                 not count."
                    .to_owned(),
                "Take the backup again; it gets another id.".to_owned(),
            ),
            RepositoryError::Doomed { .. } => (
                ExitStatus::Conflict,
                "Nothing had referred to it for so long that \"pitr expire\" marked it. What was about to be complete would lose \
                 a part of itself; it does not count. What is stored is not affected."
                    .to_owned(),
                "Run the same again. If it takes longer than half of undelete_days, raise that setting.".to_owned(),
            ),
            RepositoryError::UnreadableMark { .. } => (
                ExitStatus::Damaged,
                "Nothing is removed by a damaged mark, but until it is replaced nobody can tell whether something that others stored is about \
                 to go. What was about to be complete refers to such; it does not count. What is stored is not affected."
                    .to_owned(),
                "Run \"pitr expire\", which replaces the mark, and then the same again. Look for errors of the disk behind the repository."
                    .to_owned(),
            ),
            RepositoryError::Late { .. } => (
                ExitStatus::Timeout,
                "Something that it needs may have been removed while the store kept it waiting. It is marked as forgotten, and \
                 never used."
                    .to_owned(),
                "Take the backup again. Look at why the store took so long.".to_owned(),
            ),
            RepositoryError::Conflict(conflict) => (
                ExitStatus::Conflict,
                format!(
                    "Stored is the file of {}, archived at {}; refused was the one of {}. The stored one was not touched.",
                    conflict.theirs, conflict.archived_at, conflict.ours
                ),
                "Do two servers write as one: a copy of the server that archives too, a former primary that was started \
                 again, or a restore with archiving left on? Stop the wrong one, or set its archive_mode to off."
                    .to_owned(),
            ),
        };
        Report::new(status, self.to_string(), meaning, hint)
    }
}
