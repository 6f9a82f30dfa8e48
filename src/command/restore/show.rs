//! The plan as a person reads it.

use indicatif::{HumanBytes, HumanCount};
use jiff::tz::TimeZone;

use super::Args;
use super::databases::Databases;
use super::ground::Ground;
use super::resolve::Resolved;
use super::summary;
use super::survey::Survey;
use crate::pgdata::state::Holds;
use crate::recovery::moment::in_both;
use crate::recovery::{Commit, Lost, PlanNote, RecoveryTarget, RestorePlan, TargetKind, WalCopy};
use crate::wal::PgTime;

/// The plan as text, one fact a line.
pub(super) fn text(
    args: &Args,
    resolved: &Resolved,
    survey: &Survey,
    ground: Option<&Ground>,
    databases: Option<&Databases>,
    notes: &[String],
) -> String {
    let Resolved { plan, zone, .. } = resolved;
    let mut text = format!("Restore of cluster \"{}\" to {}\n", resolved.cluster.name, target(&plan.target, zone));
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<14}{value}\n"));
    line("base backup", backup(plan, survey, zone));
    line("timeline", timelines(plan));
    line("WAL", wal(plan));
    line("stops", stop(plan, zone));
    line(
        "last commit",
        plan.last_commit.as_ref().map_or_else(|| "long before the backup".into(), |last| commit(last, zone)),
    );
    if plan.target.kind != TargetKind::Latest {
        line("lost", lost(&plan.lost, zone));
    }
    if let Some(databases) = databases {
        line("databases", databases.line());
    }
    if let Some(ground) = ground {
        line("target", format!("{}: {}", ground.target.display(), holds(ground)));
        if let Some(waldir) = &ground.waldir {
            line("pg_wal", waldir.display().to_string());
        }
        for moved in &ground.tablespaces {
            line("tablespace", format!("{} (was {})", moved.new.display(), moved.old));
        }
    }
    line("afterwards", afterwards(args));
    for note in notes {
        line("note", note.clone());
    }
    text
}

/// A target, with a time in both zones.
pub(super) fn target(target: &RecoveryTarget, zone: &TimeZone) -> String {
    let TargetKind::Time(time) = target.kind else { return target.to_string() };
    let exclusive = if target.inclusive { "" } else { " (exclusive)" };
    format!("{}{exclusive}", in_both(time, zone))
}

fn backup(plan: &RestorePlan, survey: &Survey, zone: &TimeZone) -> String {
    let ended = in_both(plan.backup.stop_time, zone);
    format!("{}, ended {ended}; {} in {} files", plan.backup.id, HumanBytes(survey.bytes), survey.files)
}

fn timelines(plan: &RestorePlan) -> String {
    let steps = plan.path.iter().map(|step| match step.until {
        Some(until) => format!("{} up to {until}", step.timeline),
        None => step.timeline.to_string(),
    });
    steps.collect::<Vec<_>>().join(", then ")
}

fn wal(plan: &RestorePlan) -> String {
    let (Some(first), Some(last)) = (plan.wal.first(), plan.wal.last()) else { return "none".to_owned() };
    let bytes = HumanBytes(plan.wal_stored_bytes);
    match plan.wal_segments {
        1 => format!("1 segment, {}; {bytes} to fetch", first.first),
        count => format!("{count} segments, {} to {}; {bytes} to fetch", first.first, last.last),
    }
}

fn stop(plan: &RestorePlan, zone: &TimeZone) -> String {
    let stop = &plan.stop;
    match (&plan.target.kind, stop.time, stop.xid) {
        (TargetKind::Latest, ..) => format!("at the end of the archived WAL, {}", stop.lsn),
        (TargetKind::Immediate, ..) => format!("as soon as the backup is consistent, at {}", stop.lsn),
        (TargetKind::Name(_), Some(time), _) => {
            format!("at the restore point of {}, LSN {}", in_both(time, zone), stop.lsn)
        }
        (_, Some(time), Some(xid)) => {
            let side = if stop.before { "before" } else { "after" };
            format!("{side} the end of transaction {xid} of {}, LSN {}", in_both(time, zone), stop.lsn)
        }
        _ if stop.before => format!("before the first record at or after LSN {}", stop.lsn),
        _ => format!("after the first record at or after LSN {}", stop.lsn),
    }
}

fn commit(commit: &Commit, zone: &TimeZone) -> String {
    format!("{}, transaction {}, LSN {}", in_both(commit.time, zone), commit.xid, commit.lsn)
}

fn lost(lost: &Lost, zone: &TimeZone) -> String {
    let times = |first: PgTime, last: PgTime| format!("{} and {}", in_both(first, zone), in_both(last, zone));
    let what = match (lost.commits, &lost.first, &lost.last) {
        (0, ..) => "nothing".to_owned(),
        (1, Some(first), _) => format!("one commit, of {}", in_both(first.time, zone)),
        (count, Some(first), Some(last)) => {
            format!("{} commits between {}", HumanCount(count), times(first.time, last.time))
        }
        (count, ..) => format!("{} commits", HumanCount(count)),
    };
    let sure = if lost.complete { "" } else { " at least: WAL is missing there" };
    format!("{what} on timeline {} up to {}{sure}", lost.timeline, lost.end)
}

fn holds(ground: &Ground) -> String {
    let free = format!("{} free", HumanBytes(ground.free_bytes));
    match &ground.target_holds {
        Holds::Nothing => format!("will be made, {free}"),
        Holds::Empty => format!("empty, {free}"),
        Holds::BrokenOffRestore { backup, .. } => format!("a restore of {backup} that broke off; goes on, {free}"),
        Holds::Cluster { system_identifier, .. } => {
            let identifier =
                system_identifier.map_or_else(|| "unknown".to_owned(), |identifier| identifier.to_string());
            format!("a cluster (system identifier {identifier}), WILL BE REPLACED; {free}")
        }
        Holds::Running { .. } | Holds::Foreign { .. } => free,
    }
}

fn afterwards(args: &Args) -> String {
    let action = match args.action {
        super::Action::Promote => "opens for writing",
        super::Action::Pause => "stays read-only",
        super::Action::Shutdown => "shuts down",
    };
    let role =
        if args.take_over { "takes the cluster's place and archives on" } else { "a clone that does not archive" };
    format!("the server {action}; {role}")
}

/// What the user should know before saying yes.
pub(super) fn notes(resolved: &Resolved, survey: &Survey, ground: Option<&Ground>) -> Vec<String> {
    let mut notes: Vec<String> = resolved.plan.notes.iter().map(|note| plan_note(note, &resolved.zone)).collect();
    for laid in &resolved.plan.lay {
        notes.push(match &laid.copy {
            WalCopy::Segment(name) => format!("WAL segment {} is laid into pg_wal from the copy {name}", laid.name),
            WalCopy::Partial { .. } => format!("the beginning of WAL segment {} is laid into pg_wal", laid.name),
            WalCopy::Tail { .. } => {
                format!("WAL segment {} is laid into pg_wal as far as the backup has it", laid.name)
            }
        });
    }
    if let Some(Holds::Cluster { unarchived, .. }) = ground.map(|ground| &ground.target_holds)
        && *unarchived > 0
    {
        notes.push(format!(
            "{unarchived} WAL files of the cluster in the target are not archived and will be LOST: copy its pg_wal first"
        ));
    }
    if !survey.has_configuration {
        notes.push(if survey.configuration_elsewhere.is_empty() {
            "postgresql.conf is not part of the backup; --start uses a minimal one".to_owned()
        } else {
            "postgresql.conf lay outside the data directory; the backup's copies go to pitr.config in the target"
                .to_owned()
        });
    }
    for file in &survey.configuration_unread {
        notes.push(format!("configuration file {file} could not be read when the backup was taken"));
    }
    for file in &survey.damaged_files {
        notes.push(format!("pages of {file} were damaged on the server already"));
    }
    notes
}

fn plan_note(note: &PlanNote, zone: &TimeZone) -> String {
    match note {
        PlanNote::AlsoOn { timelines } => {
            let timelines: Vec<String> = timelines.iter().map(ToString::to_string).collect();
            format!("timeline {} holds this target too, with another outcome; --timeline chooses", timelines.join(", "))
        }
        PlanNote::BeforeFirstCommitOf { timeline, fork } => format!(
            "timeline {timeline} branched off at {fork} and has no commits of that time; the older timeline has, so it is followed"
        ),
        PlanNote::HistoryMissing { timeline } => {
            format!("timeline {timeline} is passed over: its history file is not in the archive")
        }
        PlanNote::SameName { others } => {
            let others: Vec<String> = others.iter().map(ToString::to_string).collect();
            format!(
                "the first of {} restore points of this name; the others: --to-lsn {}",
                others.len() + 1,
                others.join(", ")
            )
        }
        PlanNote::Idle { since, lsn, time } => format!(
            "{}; a checkpoint that began {} proves it. PostgreSQL cannot stop at such a time by itself, so it is told to stop \
             just before that checkpoint, LSN {lsn}: the state is the same",
            since.map_or_else(
                || "nothing was committed between the backup and this time".to_owned(),
                |since| format!("nothing was committed between {} and this time", in_both(since, zone))
            ),
            in_both(*time, zone)
        ),
        PlanNote::EarlierTimesBehind { commits, at_least, earliest } => format!(
            "commit times run backwards: {}{} behind the stop carry times that are not past the target, from {} on, and are LOST, \
             because PostgreSQL stops at the first commit or rollback past the target",
            if *at_least { "at least " } else { "" },
            match commits {
                1 => "one commit".to_owned(),
                count => format!("{} commits", HumanCount(*count)),
            },
            in_both(*earliest, zone)
        ),
        PlanNote::PassedAgain { others } => {
            let others: Vec<String> = others.iter().map(|at| format!("--to-lsn {} --exclusive", at.lsn)).collect();
            format!(
                "the commit times pass this time more than once, since clocks were set back or commits overtook each other; the \
                 stop above is the one meant, the others: {}",
                others.join(", ")
            )
        }
        PlanNote::NotNewest { newer, fork } => {
            format!(
                "this is not the newest timeline: timeline {newer} branched off at {fork}, and is not what is restored"
            )
        }
        PlanNote::StillPrepared { xids } => summary::still_prepared(xids),
        PlanNote::LaterCommitsOn { timeline, time } => {
            format!(
                "timeline {timeline} has later commits, up to {}; --timeline {timeline} follows it",
                in_both(*time, zone)
            )
        }
    }
}
