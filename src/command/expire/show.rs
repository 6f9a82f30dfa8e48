//! The words of `pitr expire`.

use std::io::{self, Write};

use indicatif::HumanBytes;

use crate::recovery::Verdict;
use crate::repository::collect::{Collected, CollectionPlan, Going, Rules, Waiting, What};
use crate::wal::ClusterName;

/// The rules.
pub(super) fn head(
    cluster: &ClusterName,
    repository: &str,
    rules: &Rules,
    dry_run: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    writeln!(out, "cluster {cluster} in {repository}{}", if dry_run { ": what would be done" } else { "" })?;
    let (days, count) = (rules.retention.days, rules.retention.count);
    match (days, count) {
        (None, None) => writeln!(
            out,
            "No retention rule is set, so nothing goes by itself: set retention_days or retention_count. What was forgotten with \
             \"pitr forget\" goes."
        )?,
        (Some(days), None) => writeln!(out, "Kept is what it takes to restore to any moment of {days} days.")?,
        (None, Some(count)) => writeln!(out, "Kept are {count} base backups and the WAL from the oldest of them on.")?,
        (Some(days), Some(count)) => writeln!(
            out,
            "Kept is what it takes to restore to any moment of {days} days, and at least {count} base backups."
        )?,
    }
    if let Some(start) = rules.retention.window_start(rules.now) {
        writeln!(out, "The window begins at {start}.")?;
    }
    Ok(())
}

/// What is to be done.
pub(super) fn plan(plan: &CollectionPlan, dry_run: bool, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nsystem identifier {}", plan.system_identifier)?;
    for judged in &plan.judged {
        writeln!(out, "  backup {}  {}", judged.id, verdict(&judged.verdict))?;
    }
    for forgetting in &plan.forgetting {
        writeln!(out, "  forgets  backup {}: {}", forgetting.id, forgetting.why)?;
    }
    for gone in &plan.going {
        writeln!(out, "  removes  {}", going(gone))?;
    }
    for marked in &plan.marking {
        writeln!(out, "  marks    {}", going(marked))?;
    }
    if !plan.marking.is_empty() {
        writeln!(
            out,
            "           not removed before {}; until then \"pitr forget --undo\" brings backups back",
            plan.due()
        )?;
    }
    for waiting in &plan.waiting {
        writeln!(out, "  waits    {}", words(waiting))?;
    }
    for (_, why) in &plan.unreadable {
        writeln!(out, "  replaces a damaged mark: what it named stands from now on, for the whole time ({why})")?;
    }
    if plan.dead_bytes > 0 {
        writeln!(
            out,
            "  dead     {} of {} in packs, which no backup that stays needs (new backups move what is left there, and it goes with the old ones)",
            HumanBytes(plan.dead_bytes),
            HumanBytes(plan.pack_bytes)
        )?;
    }
    for problem in &plan.problems {
        writeln!(out, "  PROBLEM  {problem}")?;
    }
    if plan.is_empty() {
        writeln!(out, "  nothing to {}", if dry_run { "be done" } else { "do" })?;
    }
    // What is removed is said before it is.
    out.flush()
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::NoRule => "stays: no rule is set".to_owned(),
        Verdict::InWindow => "stays: it ended inside the window".to_owned(),
        Verdict::OpensWindow { timelines } => {
            let timelines: Vec<_> = timelines.iter().map(ToString::to_string).collect();
            format!("stays: the window's beginning is reached from it (timeline {})", timelines.join(", "))
        }
        Verdict::Counted => "stays: one of the newest ones that are to be there".to_owned(),
        Verdict::HistoryMissing => "stays: its timeline's history file is missing".to_owned(),
        Verdict::Newest => "stays: the newest one that can be used".to_owned(),
        Verdict::Kept => "stays: it is kept, to be restored to its own end and no further".to_owned(),
        Verdict::Goes => "goes".to_owned(),
    }
}

/// Something that goes, in one line.
pub(super) fn going(going: &Going) -> String {
    let bytes = HumanBytes(going.stored_bytes);
    let what = match &going.what {
        What::Backup(id) => format!("backup {id}: manifest and {} more objects", going.objects.saturating_sub(1)),
        What::Packs(run) => format!("{} packs of backup {}, {bytes}", going.objects, run.backup),
        What::Wal(run) => {
            format!("WAL of timeline {}: {run}, {} files, {bytes}", run.first.timeline(), going.objects)
        }
    };
    format!("{what} ({})", going.why)
}

fn words(waiting: &Waiting) -> String {
    let backups: Vec<_> = waiting.backups.iter().map(ToString::to_string).collect();
    let wal: Vec<_> = waiting.wal.iter().map(ToString::to_string).collect();
    let mut parts = Vec::new();
    if !backups.is_empty() {
        parts.push(format!("backup {}", backups.join(", ")));
    }
    if waiting.packs > 0 {
        parts.push(format!("{} packs", waiting.packs));
    }
    if !wal.is_empty() {
        parts.push(format!("WAL {}", wal.join(", ")));
    }
    format!("until {}: {} (marked at {})", waiting.due, parts.join("; "), waiting.at)
}

/// What was done.
pub(super) fn done(done: &Collected, out: &mut impl Write) -> io::Result<()> {
    for id in &done.spared {
        writeln!(out, "  spared   backup {id}: it is used again")?;
    }
    let bytes: u64 = done.removed.iter().map(|going| going.stored_bytes).sum();
    let objects: u64 = done.removed.iter().map(|going| going.objects).sum();
    if objects > 0 {
        writeln!(out, "  removed  {objects} objects, {}", HumanBytes(bytes))?;
    }
    if done.refused > 0 {
        writeln!(out, "  REFUSED  {} objects are still there", done.refused)?;
    }
    if done.interrupted {
        writeln!(out, "  interrupted: the next run goes on")?;
    }
    Ok(())
}

/// What killed processes had left.
pub(super) fn swept(swept: Option<u64>, out: &mut impl Write) -> io::Result<()> {
    if let Some(count) = swept.filter(|count| *count > 0) {
        writeln!(out, "\nswept up {count} temporary files, unfinished uploads and empty folders of killed processes")?;
    }
    out.flush()
}
