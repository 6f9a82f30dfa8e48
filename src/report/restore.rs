//! What to tell about restores: a moment that cannot be reached, a directory that is not free, a server that did not get
//! there.

use super::{ExitStatus, Explain, Report};
use crate::command::restore::RestoreError;
use crate::pgdata::state::Holds;
use crate::pgdata::{PgDataError, StartError};
use crate::recovery::moment::MomentError;
use crate::recovery::{BackupElsewhere, Commit, TargetError, Unreachable};

/// What did not begin.
const UNTOUCHED: &str = "Nothing was written.";
/// What broke off while writing.
const BROKEN_OFF: &str = "The directory is marked as a broken-off restore; no server starts on it.";
/// How to go on then.
const AGAIN: &str = "Run the same command again: what is already right is kept.";

impl Explain for RestoreError {
    fn report(&self) -> Report {
        let what = self.to_string();
        match self {
            RestoreError::Config(error) => error.report(),
            RestoreError::Repository(error) => error.report(),
            RestoreError::Target(error) => error.report(),
            RestoreError::Unreachable { why, .. } => {
                let (status, meaning, hint) = unreachable(why);
                Report::new(status, what, meaning, hint)
            }
            RestoreError::Usage(_) => {
                Report::new(ExitStatus::Usage, what, UNTOUCHED, "\"pitr help restore\" shows the options.")
            }
            RestoreError::Occupied { holds, .. } => Report::new(ExitStatus::Occupied, what, UNTOUCHED, free_it(holds)),
            RestoreError::Overlap { .. } => Report::new(
                ExitStatus::Usage,
                what,
                "Nothing was written: one would destroy the other.",
                "Choose directories beside each other.",
            ),
            RestoreError::NoSuchTablespace { known, .. } => {
                let hint = match known.as_slice() {
                    [] => "The backup has no tablespaces; leave --tablespace out.".to_owned(),
                    known => format!("Its tablespaces are at {}.", known.join(", ")),
                };
                Report::new(ExitStatus::Usage, what, UNTOUCHED, hint)
            }
            RestoreError::LaterTablespace { entry: Some(_), .. } => Report::new(
                ExitStatus::Occupied,
                what,
                "Nothing was written. PostgreSQL replays CREATE TABLESPACE at its original path and removes what another \
                 server keeps there: it would destroy a living cluster's tablespace.",
                "Restore on a host where that directory is empty, or from a base backup taken after the tablespace was \
                 made: its tablespaces can be moved with --tablespace.",
            ),
            RestoreError::LaterTablespace { entry: None, .. } => Report::new(
                ExitStatus::Occupied,
                what,
                "Nothing was written. Recovery would stop there: PostgreSQL does not make a tablespace's directory.",
                "Make that directory, empty and owned by the user that the server will run as, and run this again.",
            ),
            RestoreError::NoSpace { .. } => {
                Report::new(ExitStatus::Local, what, UNTOUCHED, "Choose a larger file system, or make room.")
            }
            RestoreError::NoFetchProgram { .. } => Report::new(
                ExitStatus::Local,
                what,
                "Nothing was written: the restored server fetches its WAL with that program.",
                "Install all three programs in one directory, or name it with --wal-fetch.",
            ),
            RestoreError::NoOwner { .. } => Report::new(
                ExitStatus::Usage,
                what,
                "Nothing was written: a server does not run as root.",
                "Name the user with --owner.",
            ),
            RestoreError::Declined { asked } => Report::new(
                ExitStatus::Declined,
                what,
                UNTOUCHED,
                if *asked { "" } else { "Read the plan above, and run the command again with --yes." },
            ),
            RestoreError::PgData(error) => error.report(),
            RestoreError::Start(error) => error.report(),
            RestoreError::Local { .. } => {
                Report::new(ExitStatus::Local, what, UNTOUCHED, "Look at the path and its permissions.")
            }
            RestoreError::Output(_) => Report::new(
                ExitStatus::Local,
                what,
                "What was to be shown is incomplete.",
                "Is the disk behind the redirection full?",
            ),
        }
    }
}

/// What makes a directory free, or what to use instead.
fn free_it(holds: &Holds) -> String {
    match holds {
        Holds::Running { .. } => {
            "Choose another directory, or stop that server first. A running server is never overwritten."
        }
        Holds::Cluster { .. } => "Choose another directory, or give --overwrite if this cluster is to be replaced.",
        Holds::BrokenOffRestore { .. } => {
            "It is a restore of another cluster. Choose another directory, or give --overwrite if it is to be replaced."
        }
        Holds::Foreign { .. } => {
            "Choose an empty directory. For a tablespace that is in use: --tablespace OLD=NEW puts it elsewhere."
        }
        Holds::Nothing | Holds::Empty => "Look at the directory again.",
    }
    .to_owned()
}

/// Why a target cannot be reached: status, meaning, and the nearest moments that can.
fn unreachable(why: &Unreachable) -> (ExitStatus, String, String) {
    let look = "\"pitr status\" shows what can be restored.";
    let (status, meaning, hint) = match why {
        Unreachable::NoBackup => {
            (ExitStatus::Target, UNTOUCHED.to_owned(), "Take a base backup (\"pitr backup\"); WAL alone restores nothing.".to_owned())
        }
        Unreachable::NoBackupOnTimeline { with_backups, nearest, timeline } => (
            ExitStatus::Target,
            match nearest {
                Some(BackupElsewhere { id, fork: Some(fork), .. }) => format!(
                    "{UNTOUCHED} The fork in the way: {fork}; base backup \"{id}\" leads on the other branch. A backup leads \
                     forward only, so none taken after a fork on the one branch serves the other."
                ),
                _ => UNTOUCHED.to_owned(),
            },
            format!(
                "Timelines with base backups: {}; give one of them as --timeline{}. \"pitr timelines\" draws the forks. For \
                 timeline {timeline} itself, take a base backup of the server that runs on it.",
                numbers(with_backups),
                nearest.as_ref().map_or_else(String::new, |it| format!(", for example --timeline {}", it.timeline))
            ),
        ),
        Unreachable::BeforeFirstBackup { first, stop_lsn, stop_time } => (
            ExitStatus::Target,
            format!("{UNTOUCHED} A backup leads forward only, from its end on."),
            format!("The first moment that can be reached is the end of {first}: {stop_time}, LSN {stop_lsn}. {look}"),
        ),
        Unreachable::AfterEnd { end, last_time, last_commit, timeline } => (
            ExitStatus::Target,
            format!(
                "{UNTOUCHED} PostgreSQL stops at a time only when it meets a later commit; it would fail with \"recovery ended \
                 before configured recovery target was reached\".{}",
                last_time.map_or_else(String::new, |time| format!(" The last commit or rollback archived is of {time}."))
            ),
            format!(
                "If nothing was committed since, --to latest gives the same state (timeline {timeline}, up to {end}{}). Is WAL \
                 still to be archived? \"pitr check\" tells.",
                last(last_commit.as_ref())
            ),
        ),
        Unreachable::Gap { missing, next, last_commit, .. } => (
            ExitStatus::Gap,
            format!(
                "{UNTOUCHED} Replay cannot pass over missing WAL.{}",
                next.map_or_else(String::new, |next| format!(" The next segment that is there is {next}."))
            ),
            match last_commit {
                Some(commit) => format!(
                    "Before the gap, --to-xid {} can be reached (committed {}). If segment {missing} is still in some \
                     server's pg_wal, push it into the archive.",
                    commit.xid, commit.time
                ),
                None => format!("If segment {missing} is still in some server's pg_wal, push it into the archive."),
            },
        ),
        Unreachable::DamagedSegment { damage, last_commit, .. } => (
            ExitStatus::Damaged,
            format!(
                "{UNTOUCHED} WAL is good up to {}, and a restore can go to the end of the segment before \"{}\".{}",
                damage.good_until,
                damage.segment,
                damage.or_before.map_or_else(String::new, |before| format!(
                    " The record over the border of \"{before}\" and this segment does not hold: either may be the bad one."
                ))
            ),
            match last_commit {
                Some(commit) => format!(
                    "--to-xid {} can be reached (committed {}). If some server's pg_wal has a good copy of \"{}\", archive \
                     that with pitr-wal-push: it takes the damaged one's place.",
                    commit.xid, commit.time, damage.segment
                ),
                None => format!(
                    "If some server's pg_wal has a good copy of \"{}\", archive that with pitr-wal-push: it takes the \
                     damaged one's place.",
                    damage.segment
                ),
            },
        ),
        Unreachable::NotFound { .. } => (
            ExitStatus::Target,
            format!("{UNTOUCHED} All WAL from the first base backup on was looked through."),
            "Is it spelled right? Of a subtransaction, give the id of the transaction around it. Is the WAL archived already?"
                .to_owned(),
        ),
        Unreachable::UnknownTimeline { known, .. } => {
            (ExitStatus::Target, UNTOUCHED.to_owned(), format!("Timelines in the archive: {}.", numbers(known)))
        }
        Unreachable::HistoryMissing { timeline } => (
            ExitStatus::Target,
            format!("{UNTOUCHED} Without it nobody knows where timeline {timeline} branched off."),
            format!("Look for {}.history in the pg_wal of the server that ran on it, and push it.", timeline.to_hex()),
        ),
        Unreachable::UnknownBackup { .. } => {
            (ExitStatus::Target, UNTOUCHED.to_owned(), "\"pitr list\" shows the base backups.".to_owned())
        }
        Unreachable::BackupOnOtherBranch { backup_timeline, fork, timeline, .. } => (
            ExitStatus::Target,
            format!(
                "{UNTOUCHED} That backup leads along timeline {backup_timeline}, and timeline {timeline} never had what it \
                 holds.{}",
                fork.map_or_else(String::new, |fork| format!(" The fork in the way: {fork}."))
            ),
            format!(
                "Leave --backup out, and the right one is found; or stay on the backup's own branch with --timeline \
                 {backup_timeline}."
            ),
        ),
        Unreachable::BackupTooLate { stop_lsn, .. } => (
            ExitStatus::Target,
            format!("{UNTOUCHED} It is consistent from {stop_lsn} on only."),
            "Leave --backup out, and the right one is found.".to_owned(),
        ),
        Unreachable::BetweenBranches { older, older_last, newer, fork } => (
            ExitStatus::Target,
            format!(
                "{UNTOUCHED} The two part at {fork}. Two states can be meant: that of timeline {older}, last changed {older_last}, or what timeline \
                 {newer} had inherited by then."
            ),
            format!("Say which: --timeline {older} --to latest, or --timeline {newer} with this time."),
        ),
        Unreachable::MinimalWal { lsn } => (
            ExitStatus::Target,
            format!("{UNTOUCHED} WAL of that kind lacks what a restore needs."),
            format!("Restore to a moment before {lsn} (--to-lsn), or from a backup taken after it."),
        ),
    };
    (status, meaning, hint)
}

fn last(commit: Option<&Commit>) -> String {
    commit.map_or_else(String::new, |commit| format!(", last commit {} of transaction {}", commit.time, commit.xid))
}

fn numbers(timelines: &[crate::wal::TimelineId]) -> String {
    timelines.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Explain for TargetError {
    fn report(&self) -> Report {
        let hint = match self {
            TargetError::Moment(error) => match error {
                MomentError::Unreadable(_) => {
                    "Write it as 2026-03-02 14:25:03+01, \"yesterday 14:25\", 14:25 or \"5 min ago\"."
                }
                MomentError::DayOnly(_) => "Add the time of day: 00:00 for the beginning of that day.",
                MomentError::TooPrecise(_) => "Leave out the digits after the sixth, downwards for what came before.",
                MomentError::UnknownZone { .. } => {
                    "Give an offset (+01:00) or the name of a place (Europe/Berlin): abbreviations mean different things."
                }
                MomentError::Ambiguous { .. } | MomentError::Skipped { .. } => "Give one of the two, with its offset.",
                MomentError::NotYet(_) => "Write \"yesterday\" before it, or the date.",
            },
            TargetError::Lsn(_) | TargetError::Xid(_) | TargetError::Name(_) => {
                "\"pitr help restore\" shows the forms."
            }
            TargetError::Exclusive(_) => "Leave --exclusive out.",
        };
        Report::new(ExitStatus::Usage, self.to_string(), UNTOUCHED, hint)
    }
}

impl Explain for PgDataError {
    fn report(&self) -> Report {
        let what = self.to_string();
        match self {
            PgDataError::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => Report::new(
                ExitStatus::Local,
                what,
                format!("The disk is full. {BROKEN_OFF}"),
                format!("Make room. {AGAIN}"),
            ),
            PgDataError::Io { .. } => Report::new(
                ExitStatus::Local,
                what,
                format!("If writing had begun: {BROKEN_OFF}"),
                format!("Look at the path, its permissions and its disk. {AGAIN}"),
            ),
            PgDataError::Repository(error) => {
                let mut report = error.report();
                report.meaning = format!("{} {BROKEN_OFF}", report.meaning);
                report
            }
            PgDataError::Manifest(_) => Report::new(
                ExitStatus::Damaged,
                what,
                BROKEN_OFF,
                "Restore from another backup (\"pitr list\" shows them), and take a new one.",
            ),
            PgDataError::Incomplete { .. } | PgDataError::UnknownTablespace { .. } => Report::new(
                ExitStatus::Damaged,
                what,
                BROKEN_OFF,
                "Restore from another backup (\"pitr list\" shows them), and take a new one.",
            ),
            PgDataError::Unquotable(_) => Report::new(
                ExitStatus::Usage,
                what,
                "Nothing was written: the restored server could not read its settings.",
                "Use paths without such characters.",
            ),
            PgDataError::Busy { .. } => {
                Report::new(ExitStatus::Occupied, what, UNTOUCHED, "Wait for it, or choose another directory.")
            }
            PgDataError::Interrupted => Report::new(ExitStatus::Interrupted, what, BROKEN_OFF, AGAIN),
        }
    }
}

impl Explain for StartError {
    fn report(&self) -> Report {
        let what = self.to_string();
        let whole = "The directory is restored; only its server is not where it should be.";
        match self {
            StartError::NoBinaries { looked_in, .. } => {
                let places: Vec<String> = looked_in.iter().map(|path| path.display().to_string()).collect();
                Report::new(
                    ExitStatus::Local,
                    what,
                    format!("{UNTOUCHED} Looked in {}.", places.join(", ")),
                    "Install that version, name its directory with --pg-bin, or restore without --start.",
                )
            }
            StartError::OtherVersion { .. } => {
                Report::new(ExitStatus::Unsupported, what, UNTOUCHED, "Name the right directory with --pg-bin.")
            }
            StartError::Io { .. } | StartError::Unquotable(_) => {
                Report::new(ExitStatus::Recovery, what, whole, "Start it by hand, and look at its log.")
            }
            StartError::Ended { log, .. } => Report::new(
                ExitStatus::Recovery,
                what,
                whole,
                format!("Its log is {}. What pitr-wal-fetch said stands there too.", log.display()),
            ),
            StartError::Interrupted { data } => Report::new(
                ExitStatus::Interrupted,
                what,
                "The server goes on replaying by itself.",
                format!("Stop it with pg_ctl stop -D {}, or follow its log in pitr.start/log there.", data.display()),
            ),
        }
    }
}
