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
            StorageErrorKind::Denied if self.action == "delete" => (
                ExitStatus::Denied,
                "It is still there, and nothing that counts is half removed: what goes loses its meaning first.",
                "Removing takes rights that archiving and backups do without: for a bucket docs/S3.md has them, for a directory be \
                 its owner. An object under a lock (s3_object_lock, a retention rule of the bucket) can be removed when that is \
                 over: give undelete_days at least as long.",
            ),
            StorageErrorKind::Denied => (
                ExitStatus::Denied,
                "Nothing was changed.",
                "A repository in a directory must belong to the user that the PostgreSQL server runs as: look at its owner \
                 and mode, and run this command as that user, or as root. For one in a bucket, docs/S3.md has the rights \
                 that each task needs.",
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
            StorageErrorKind::Throttled => (
                ExitStatus::Unreachable,
                "What was stored before is not affected. WAL that cannot be archived stays in pg_wal and is tried again.",
                "The store asks for fewer requests. It will go on by itself; where it happens often, lower \"jobs\" and \
                 \"look_ahead\", or look at what else uses the bucket.",
            ),
            StorageErrorKind::NoBucket => (
                ExitStatus::NoRepository,
                "Nothing was read or written. PostgreSQL keeps what is not archived. A missing bucket says nothing about \
                 what is stored: it is never taken for an empty archive.",
                "Are the bucket's name, the endpoint and the account in the configuration right? pitr makes no buckets: \
                 make it first, then run \"pitr init\".",
            ),
            StorageErrorKind::WrongRegion => (
                ExitStatus::Unreachable,
                "Nothing was read or written. PostgreSQL keeps what is not archived.",
                "Set s3_region to the region of the bucket; \"pitr config show\" tells what it is now.",
            ),
            StorageErrorKind::Credentials => (
                ExitStatus::Denied,
                "Nothing was read or written. What is stored is not affected. PostgreSQL keeps what is not archived.",
                "Does the user that runs this, the server's user for archiving, have valid credentials: AWS_ACCESS_KEY_ID \
                 and AWS_SECRET_ACCESS_KEY, a profile (s3_profile), or the role of this machine?",
            ),
            StorageErrorKind::ClockSkew => (
                ExitStatus::Unreachable,
                "Nothing was read or written. PostgreSQL keeps what is not archived.",
                "Set this host's clock: is its time service running? Requests to the bucket carry the time, and one that \
                 is off by more than 15 minutes is refused.",
            ),
            StorageErrorKind::Frozen => (
                ExitStatus::Unreachable,
                "The object is there and whole, but was moved to an archive class, from which it cannot be read at once.",
                "Bring it back (\"aws s3api restore-object\"), and change the lifecycle rule of the bucket: nothing of a \
                 repository may move to GLACIER or DEEP_ARCHIVE. GLACIER_IR is fine.",
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
