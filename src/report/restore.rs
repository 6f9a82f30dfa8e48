//! What to tell about restores: a moment that cannot be reached, a directory that is not free, a server that did not get
//! there.

use super::{ExitStatus, Explain, Report, unreachable};
use crate::command::restore::RestoreError;
use crate::pgdata::state::Holds;
use crate::pgdata::{PgDataError, StartError};
use crate::recovery::TargetError;
use crate::recovery::moment::MomentError;

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
            RestoreError::Unreachable { target, refusal, zone, .. } => {
                let (meaning, hint) = unreachable::told(target, refusal, zone);
                Report::new(ExitStatus::Target, what, format!("{UNTOUCHED} {meaning}"), hint)
            }
            RestoreError::Forgotten { id, .. } => Report::new(
                ExitStatus::Target,
                what,
                "Nothing was written. A forgotten backup is used for nothing; \"pitr expire\" removes it and what only it needs.",
                format!(
                    "\"pitr forget --undo {id}\" brings it back if it is not being removed. Without --backup another one is chosen."
                ),
            ),
            RestoreError::History(error) => error.report(),
            RestoreError::NotDropped { renamed, notes, .. } => {
                let said = renamed.iter().chain(notes).map(|text| format!(" {text}.")).collect::<String>();
                Report::new(
                    ExitStatus::Target,
                    what,
                    format!("{UNTOUCHED}{said}"),
                    "Is the name right? Quote it as in SQL. \"pitr log --kind drop\" shows all that was dropped.",
                )
            }
            RestoreError::DroppedOften { moments, .. } => Report::new(
                ExitStatus::Usage,
                what,
                format!("{UNTOUCHED} Which one is meant cannot be told: {}.", moments.join("; ")),
                "Give the words of the one that is meant instead of --before-drop.",
            ),
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
            RestoreError::NoSuchDatabase { known, .. } => Report::new(
                ExitStatus::Usage,
                what,
                format!("{UNTOUCHED} Names are those at the time of the backup. It has {}.", known.join(", ")),
                "Give one of these names. A database that was made later comes with the WAL by itself, unless it is a copy of one \
                 that is left out; \"pitr log --kind database\" shows when one was made.",
            ),
            RestoreError::PartTakesOver => Report::new(
                ExitStatus::Usage,
                what,
                "Nothing was written. The other databases would be lost to everybody who uses the cluster.",
                "Leave --take-over out: restore a clone, and bring what is needed over with pg_dump.",
            ),
            RestoreError::InvalidPages { log, .. } => Report::new(
                ExitStatus::Recovery,
                what,
                "The directory is restored and its server ran, but WAL changed pages there that are not as they should be: something \
                 of these databases is damaged or missing.",
                format!(
                    "Look for \"of relation\" in {}. \"pitr verify\" says whether the backup is whole; restore from another one.",
                    log.display()
                ),
            ),
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
