//! What to tell about a target that cannot be reached: why, what lies nearest, and the words that ask for that.

use jiff::tz::TimeZone;

use crate::recovery::moment::in_both;
use crate::recovery::{BackupElsewhere, Commit, Nearest, RecoveryTarget, Refusal, TargetKind, Unreachable};
use crate::wal::TimelineId;

const STATUS: &str = "\"pitr status\" shows what can be restored.";

/// What it means, and what to do.
pub(super) fn told(target: &RecoveryTarget, refusal: &Refusal, zone: &TimeZone) -> (String, String) {
    let (mut meaning, mut hint) = why(target, &refusal.why, zone);
    for (side, nearest) in [("before", &refusal.before), ("after", &refusal.after)] {
        if let Some(nearest) = nearest {
            meaning.push_str(&format!(" The nearest moment {side} it that can be reached: {}.", moment(nearest, zone)));
        }
    }
    let options: Vec<&str> =
        [&refusal.before, &refusal.after].into_iter().flatten().map(|it| it.option.as_str()).collect();
    if !options.is_empty() {
        hint.push_str(&format!(" Within reach: {}.", options.join("; or ")));
    }
    if !refusal.reachable_on.is_empty() {
        hint.push_str(&format!(
            " The target lies on timeline {}: --timeline chooses it.",
            numbers(&refusal.reachable_on)
        ));
    }
    (meaning, hint.trim_start().to_owned())
}

/// A moment within reach.
fn moment(nearest: &Nearest, zone: &TimeZone) -> String {
    match &nearest.commit {
        Some(last) => format!("last commit {} (stops at {})", commit(last, zone), nearest.lsn),
        None => format!("LSN {} on timeline {}", nearest.lsn, nearest.timeline),
    }
}

fn commit(commit: &Commit, zone: &TimeZone) -> String {
    let Commit { time, lsn, xid, timeline } = commit;
    format!("{}, transaction {xid}, LSN {lsn}, timeline {timeline}", in_both(*time, zone))
}

fn why(target: &RecoveryTarget, why: &Unreachable, zone: &TimeZone) -> (String, String) {
    match why {
        Unreachable::NoBackup => {
            (String::new(), "Take a base backup (\"pitr backup\"); WAL alone restores nothing.".to_owned())
        }
        Unreachable::NoBackupOnTimeline { with_backups, nearest, timeline } => (
            match nearest {
                Some(BackupElsewhere { id, fork: Some(fork), .. }) => format!(
                    "The fork in the way: {fork}; base backup \"{id}\" leads on the other branch. A backup leads forward \
                     only, so none taken after a fork on the one branch serves the other."
                ),
                _ => String::new(),
            },
            format!(
                "Timelines with base backups: {}; give one of them as --timeline{}. \"pitr timelines\" draws the forks. For \
                 timeline {timeline} itself, take a base backup of the server that runs on it.",
                numbers(with_backups),
                nearest.as_ref().map_or_else(String::new, |it| format!(", for example --timeline {}", it.timeline))
            ),
        ),
        Unreachable::BeforeFirstBackup { first, start_lsn, start_time, stop_lsn, stop_time, inside } => (
            if *inside {
                format!(
                    "It lies inside the backup, which ran from {} to {} (LSN {start_lsn} to {stop_lsn}) and is consistent only \
                     from its end on.",
                    in_both(*start_time, zone),
                    in_both(*stop_time, zone)
                )
            } else {
                "A backup leads forward only, from its end on.".to_owned()
            },
            format!(
                "The first moment that can be reached is the end of {first}: {}, LSN {stop_lsn}. {STATUS}",
                in_both(*stop_time, zone)
            ),
        ),
        Unreachable::AfterEnd { end, last_time, last_commit, timeline, known_until } => {
            let mut meaning = "Nothing in the archived WAL lies past it.".to_owned();
            if let TargetKind::Time(_) = target.kind {
                let last = last_time.map_or_else(
                    || " No commit or rollback is archived since the backup.".to_owned(),
                    |time| format!(" The last commit or rollback archived is of {}.", in_both(time, zone)),
                );
                meaning = format!(
                    "PostgreSQL stops at a time only when it meets a later commit or rollback; it would replay to the end and \
                     fail with \"recovery ended before configured recovery target was reached\".{last}"
                );
                if let Some(known) = known_until {
                    meaning.push_str(&format!(
                        " Since then the server was idle, as far as the archive tells: its last checkpoint began {}. What \
                         happened later is not archived.",
                        in_both(*known, zone)
                    ));
                }
            }
            let last = last_commit.map_or_else(String::new, |last| format!(", last commit {}", in_both(last.time, zone)));
            let hint = format!(
                "If nothing was committed since, --to latest gives that state (timeline {timeline}, up to {end}{last}). Is WAL \
                 still to be archived? \"pitr check\" tells; pg_switch_wal() hands over what the server has."
            );
            (meaning, hint)
        }
        Unreachable::Gap { missing, next, .. } => (
            format!(
                "Replay cannot pass over missing WAL.{}",
                next.map_or_else(String::new, |next| format!(" The next segment that is there is {next}."))
            ),
            format!("If segment {missing} is still in some server's pg_wal, push it into the archive."),
        ),
        Unreachable::DamagedSegment { damage, .. } => (
            format!(
                "WAL is good up to {}, and a restore can go to the end of the segment before \"{}\".{}",
                damage.good_until,
                damage.segment,
                damage.or_before.map_or_else(String::new, |before| format!(
                    " The record over the border of \"{before}\" and this segment does not hold: either may be the bad one."
                ))
            ),
            if damage.hash.is_empty() {
                format!(
                    "It was archived whole: look for errors of the disk behind the repository. Another repository of the cluster \
                     may have it (--repository); if a copy of this one has the object of \"{}\", put that in its place.",
                    damage.segment
                )
            } else {
                format!(
                    "If some server's pg_wal has a good copy of \"{}\", archive that with pitr-wal-push: it takes the damaged \
                     one's place.",
                    damage.segment
                )
            },
        ),
        Unreachable::NotFound { names, .. } => {
            let hint = match target.kind {
                TargetKind::Name(_) if names.is_empty() => "There are no restore points in it.".to_owned(),
                TargetKind::Name(_) => format!("Restore points that there are, the latest first: {}.", names.join(", ")),
                _ => "Of a subtransaction, give the id of the transaction around it. Is the WAL archived already?".to_owned(),
            };
            ("All WAL from the first base backup on was looked through.".to_owned(), hint)
        }
        Unreachable::UnknownTimeline { known, .. } => {
            (String::new(), format!("Timelines in the archive: {}.", numbers(known)))
        }
        Unreachable::HistoryMissing { timeline } => (
            format!("Without it nobody knows where timeline {timeline} branched off."),
            format!("Look for {}.history in the pg_wal of the server that ran on it, and push it.", timeline.to_hex()),
        ),
        Unreachable::UnknownBackup { .. } => (String::new(), "\"pitr list\" shows the base backups.".to_owned()),
        Unreachable::BackupOnOtherBranch { backup_timeline, fork, timeline, .. } => (
            format!(
                "That backup leads along timeline {backup_timeline}, and timeline {timeline} never had what it holds.{}",
                fork.map_or_else(String::new, |fork| format!(" The fork in the way: {fork}."))
            ),
            format!(
                "Leave --backup out, and the right one is found; or stay on the backup's own branch with --timeline \
                 {backup_timeline}."
            ),
        ),
        Unreachable::BackupTooLate { stop_lsn, .. } => (
            format!("It is consistent from {stop_lsn} on only."),
            "Leave --backup out, and the right one is found.".to_owned(),
        ),
        Unreachable::BetweenBranches { older, older_last, newer, fork, .. } => (
            format!(
                "The two part at {fork}. Two states can be meant: that of timeline {older}, last changed {}, or what timeline \
                 {newer} had inherited by then.",
                in_both(*older_last, zone)
            ),
            format!("Say which: --timeline {older} --to latest, or --timeline {newer} with this time."),
        ),
        Unreachable::MinimalWal { lsn, .. } => (
            "WAL of that kind lacks what a restore needs.".to_owned(),
            format!("Restore to a moment before {lsn}, or from a backup taken after it."),
        ),
    }
}

fn numbers(timelines: &[TimelineId]) -> String {
    timelines.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
