//! `pitr keep`: neither rules nor people remove a backup that is kept.

use jiff::Timestamp;

use super::{KeepingError, author, find, tell};
use crate::catalog::{BackupId, Saying};
use crate::command::{Context, RepositoryArg, host};
use crate::recovery::moment::{self, MomentError, Surroundings, in_both};
use crate::report::ExitStatus;
use crate::wal::PgTime;

/// Keep a base backup, whatever the retention rules say
///
/// A kept backup is neither expired nor forgotten. Beyond the retention rules' window it keeps the WAL that makes it consistent and no
/// more: it can then be restored to its own end ("--to immediate"), not to moments behind it. Inside the window nothing changes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
    /// The backup
    #[arg(value_name = "BACKUP")]
    pub backup: BackupId,
    /// Only as long as this: a day (to its end), a moment, or a time from now such as 90d
    #[arg(long, value_name = "TIME", conflicts_with = "release")]
    pub until: Option<String>,
    /// Keep it no longer: the rules count again
    #[arg(long)]
    pub release: bool,
}

const EXAMPLES: &str = "\
Examples:  pitr keep 20261121T104500Z-1a2b3c4d
           pitr keep 20261121T104500Z-1a2b3c4d --until 2027-12-31
           pitr keep 20261121T104500Z-1a2b3c4d --until 90d
           pitr keep 20261121T104500Z-1a2b3c4d --release";

/// Writes a note.
///
/// # Errors
/// See [`KeepingError`].
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, KeepingError> {
    let zone = host::local_zone();
    let until = match &args.until {
        Some(text) => {
            let lookup = |name: &str| jiff::tz::TimeZone::get(name).ok();
            let surroundings = Surroundings { now: Timestamp::now(), zone: zone.clone(), lookup: &lookup };
            Some(until(text, &surroundings)?)
        }
        None => None,
    };
    if until.is_some_and(|until| until <= host::now()) {
        return Err(KeepingError::Usage("the time given with --until is over".to_owned()));
    }
    let named = find(args.backup, context)?;
    if let Some(forgotten) = &named.known.notes.forgotten {
        return Err(KeepingError::Forgotten { id: args.backup, since: forgotten.since });
    }
    let says = if args.release { Saying::Released } else { Saying::Kept { until } };
    named.server.add_note(args.backup, &named.known.notes, &author(), says)?;
    let id = args.backup;
    let text = match (args.release, until) {
        (true, _) => {
            format!("backup {id} is not kept any longer; \"pitr expire --dry-run\" shows whether the rules let it go")
        }
        (false, Some(until)) => format!("backup {id} is kept until {}", in_both(until, &zone)),
        (false, None) => format!("backup {id} is kept until \"pitr keep {id} --release\""),
    };
    tell(&named, context, &text)?;
    Ok(ExitStatus::Success)
}

/// The end of the time that a text means: a moment, the end of a day, or so long from now.
fn until(text: &str, surroundings: &Surroundings<'_>) -> Result<PgTime, MomentError> {
    if let Ok(duration) = humantime::parse_duration(text) {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        return Ok(PgTime(PgTime::from_timestamp(surroundings.now).0.saturating_add(micros)));
    }
    match moment::parse(text, surroundings) {
        Err(MomentError::DayOnly(_)) => moment::parse(&format!("{text} 23:59:59"), surroundings),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days count to their end, and times from now are understood.
    #[test]
    fn ends() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().expect("a time");
        let lookup = |_: &str| None;
        let surroundings = Surroundings { now, zone: jiff::tz::TimeZone::UTC, lookup: &lookup };
        let read = |text: &str| until(text, &surroundings).map(|time| time.to_string()).ok();
        assert_eq!(read("2027-12-31").as_deref(), Some("2027-12-31T23:59:59.000000Z"));
        assert_eq!(read("2027-12-31 12:00:00").as_deref(), Some("2027-12-31T12:00:00.000000Z"));
        assert_eq!(read("2d").as_deref(), Some("2026-11-23T10:00:00.000000Z"));
        assert_eq!(read("never"), None);
    }
}
