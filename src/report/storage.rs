//! What to tell about the store behind the repository.

use super::{ExitStatus, Explain, Report};
use crate::storage::{StorageError, StorageErrorKind};

impl Explain for StorageError {
    fn report(&self) -> Report {
        let (status, meaning, hint) = match self.kind {
            StorageErrorKind::NotFound if self.key.is_empty() => (
                ExitStatus::NoRepository,
                "Nothing was read or written. PostgreSQL keeps what is not archived.",
                "Is the file system of the repository mounted, and is the path in the configuration right? A new \
                 repository is made by \"pitr init\".",
            ),
            StorageErrorKind::NotFound => (
                ExitStatus::Damaged,
                "Something that the repository should hold is not in it.",
                "Is the right directory mounted, and does nothing else delete files in it? \"pitr status\" shows what is there.",
            ),
            StorageErrorKind::NoSpace => (
                ExitStatus::Full,
                "Nothing half-written counts, and what was stored before is safe. WAL that cannot be archived stays in pg_wal.",
                "Make room in the repository; archiving goes on by itself. Watch the free space of pg_wal meanwhile.",
            ),
            StorageErrorKind::Denied => (
                ExitStatus::Denied,
                "Nothing was changed.",
                "The repository must belong to the user that the PostgreSQL server runs as; look at its owner and mode. \
                 Run this command as that user, or as root.",
            ),
            StorageErrorKind::ReadOnly => (
                ExitStatus::Denied,
                "Nothing was changed.",
                "Is the repository mounted read-only on purpose? Restoring needs no more; archiving and backups do. \
                 Otherwise look for disk errors in the kernel's log.",
            ),
            StorageErrorKind::Unreachable => (
                ExitStatus::Unreachable,
                "What was stored before is not affected. WAL that cannot be archived stays in pg_wal and is tried again.",
                "Run \"pitr check\", and look at the disk or the network behind the repository.",
            ),
            StorageErrorKind::TooShort => (
                ExitStatus::Damaged,
                "The object lost its end since it was stored. What is missing was not made up; other objects are not affected.",
                "Look for errors of the disk behind the repository. If another copy of it has the object whole, put that \
                 copy in its place.",
            ),
            StorageErrorKind::TooLarge => (
                ExitStatus::Damaged,
                "The object is larger than anything that this program writes under such a name; it was not read.",
                "Did something else write into the repository?",
            ),
        };
        Report::new(status, self.to_string(), meaning, hint)
    }
}
