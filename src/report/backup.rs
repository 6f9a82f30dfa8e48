//! What to tell about base backups that were not taken.

use super::{ExitStatus, Explain, Report};
use crate::command::backup::BackupError;
use crate::replication::ReplicationError;

/// What it means that a backup failed, whatever the reason.
const NO_BACKUP: &str =
    "There is no new backup; what was stored of it does not count. Earlier backups and archived WAL are not affected.";

const OWN_HOST: &str = "--source local reads files: run it on the server's own host, in the same container, or leave it out. \"pitr config \
                        show\" shows which server is meant.";

impl Explain for BackupError {
    fn report(&self) -> Report {
        let (status, hint) = match self {
            BackupError::Config(error) => return error.report(),
            BackupError::Repository(error) => return no_backup(error.report()),
            BackupError::EarlierUnread(error) => return no_backup(error.report()),
            BackupError::Server(error) => return no_backup(error.report()),
            BackupError::Session(error) => return session(self, error),
            BackupError::Record { .. } => (
                ExitStatus::WrongCluster,
                "Was the server upgraded? \"pitr init --upgraded\" announces it. Otherwise look at conninfo: is it the right server?",
            ),
            BackupError::NotArchiving { .. } => (
                ExitStatus::Refused,
                "Set archive_mode = on and archive_command as \"pitr init\" shows, or use --wal stream, which brings the WAL of the \
                 backup along (it can then be restored to its own end, and no further).",
            ),
            BackupError::Tar(_) | BackupError::Entry { .. } => {
                (ExitStatus::Unsupported, "Is it a plain PostgreSQL server, and no proxy between? Please report it.")
            }
            BackupError::Changed { .. } | BackupError::EarlierDamaged(_) => (
                ExitStatus::Damaged,
                "Take the backup again with --full-read, which does not need the earlier one, and look for errors of the disk behind the \
                 repository.",
            ),
            BackupError::ServerManifest(_) | BackupError::ManifestTooLarge => {
                (ExitStatus::Unsupported, "Take the backup again; if it fails again, please report it.")
            }
            BackupError::FileDiffers { .. } => (
                ExitStatus::Damaged,
                "Something between the server's disk and this program changes data: memory or the network. Take the backup again, and \
                 look at the hardware if it fails again.",
            ),
            BackupError::Label(_) | BackupError::NoLabel | BackupError::LabelDiffers { .. } => {
                (ExitStatus::Unsupported, "Is it a plain PostgreSQL server, and no proxy between? Please report it.")
            }
            BackupError::TimelineChanged { .. } => (
                ExitStatus::Server,
                "The server was promoted, or its primary was replaced, while it sent the data. Take the backup again.",
            ),
            BackupError::WalMissing { standby: true, .. } => (
                ExitStatus::Timeout,
                "A standby cannot end a WAL segment: it takes activity on the primary, or \"SELECT pg_switch_wal()\" there. Is archiving \
                 working on the primary (\"pitr check\")? --wal-timeout gives it longer, --wal stream does without the archiver.",
            ),
            BackupError::WalMissing { standby: false, .. } => (
                ExitStatus::Timeout,
                "Is archiving working? Look at the server's log and at pg_stat_archiver, and run \"pitr check\". --wal-timeout gives it \
                 longer, --wal stream does without the archiver.",
            ),
            BackupError::TooLong { .. } => (
                ExitStatus::Timeout,
                "\"pitr expire\" could have taken it for broken off meanwhile. Raise undelete_days, on every host that runs \
                 \"pitr expire\" too, or find out why it takes so long.",
            ),
            BackupError::StreamedWal(_) => {
                (ExitStatus::Damaged, "Look at the server's log and disk. Take the backup again.")
            }
            BackupError::Files(error) if error.is_not_permitted() => (
                ExitStatus::Local,
                "Run it as the user that the server runs as, or let that user's group read: \"initdb --allow-group-access\" (-g) for a new \
                 cluster; of an existing one stop the server, \"chmod -R g+rX\" the data directory and the tablespaces, start it, and put \
                 the user who runs pitr into the group.",
            ),
            BackupError::NotTheServers { .. } => (ExitStatus::WrongCluster, OWN_HOST),
            BackupError::Files(error) if error.is_not_found() => (ExitStatus::WrongCluster, OWN_HOST),
            BackupError::Files(_) => {
                (ExitStatus::Local, "Look at the server's disk and at the kernel's log. Then take the backup again.")
            }
            BackupError::LocalRights(_) => (
                ExitStatus::Refused,
                "As a superuser, in the database of conninfo: \"GRANT pg_read_all_settings TO role\", and EXECUTE ON FUNCTION \
                 pg_backup_start(text, boolean) and pg_backup_stop(boolean); on 13 and 14 pg_start_backup(text, boolean, boolean) and \
                 pg_stop_backup(boolean, boolean).",
            ),
            BackupError::Local { .. } => (ExitStatus::Local, "Look at the free memory and disk space of this machine."),
            BackupError::Interrupted => (ExitStatus::Interrupted, "Take the backup again when it suits."),
            BackupError::Broken => (ExitStatus::Internal, "Please report it."),
        };
        Report::new(status, self.to_string(), NO_BACKUP, hint)
    }
}

/// The advice of the layer below, with what it means here.
fn no_backup(report: Report) -> Report {
    Report { meaning: NO_BACKUP.to_owned(), ..report }
}

fn session(error: &BackupError, cause: &ReplicationError) -> Report {
    let report = match cause {
        // Raised by the server at the end of a backup during which it was promoted (do_pg_backup_stop).
        ReplicationError::Server(message) if message.message.contains("promoted") => {
            ReplicationError::Promoted.report()
        }
        cause => cause.report(),
    };
    Report { what: error.to_string(), meaning: NO_BACKUP.to_owned(), ..report }
}
