//! `pitr forget`: a backup that nothing is restored from any more, and that `pitr expire` removes later.

use std::io::{self, Write};

use serde::Serialize;

use super::{KeepingError, Named, ShownBackup, author, find, tell};
use crate::catalog::{BackupId, BackupInfo, Saying};
use crate::command::{Context, RepositoryArg, confirm};
use crate::recovery::{Closed, Snapshot, closed, windows};
use crate::report::ExitStatus;
use crate::repository::evidence::backup_facts;
use crate::repository::{Remembering, RepositoryError};

/// Forget a base backup, so that "pitr expire" removes it later
///
/// Says first what can no longer be restored without it, and asks. From then on no restore, plan or window uses it. It is still there:
/// until "pitr expire" has removed it, undelete_days after it marked it at the earliest, --undo brings it back. Other backups are not
/// affected: what they need of it stays. A kept backup is refused, and so is the last one that anything can be restored from.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
    /// The backup
    #[arg(value_name = "BACKUP")]
    pub backup: BackupId,
    /// Use it again
    #[arg(long, conflicts_with_all = ["even_the_last", "dry_run"])]
    pub undo: bool,
    /// Even if nothing can be restored then
    #[arg(long)]
    pub even_the_last: bool,
    /// Say what can no longer be restored, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
}

const EXAMPLES: &str = "\
Examples:  pitr forget 20261121T104500Z-1a2b3c4d --dry-run
           pitr forget 20261121T104500Z-1a2b3c4d --yes
           pitr forget 20261121T104500Z-1a2b3c4d --undo";

/// The JSON document.
#[derive(Serialize)]
struct Document {
    backup: ShownBackup,
    /// What can no longer be restored.
    closes: Vec<Closed>,
    done: bool,
}

/// Forgets, or remembers.
///
/// # Errors
/// See [`KeepingError`].
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, KeepingError> {
    let named = find(args.backup, context)?;
    if args.undo {
        undo(args.backup, &named, context)?
    } else {
        forget(args, &named, context)?
    }
    Ok(ExitStatus::Success)
}

fn undo(id: BackupId, named: &Named, context: &Context) -> Result<(), KeepingError> {
    if named.known.notes.forgotten.is_none() {
        return Err(KeepingError::NotForgotten(id));
    }
    match named.server.remember(id, &author())? {
        Remembering::TooLate => Err(KeepingError::TooLate(id)),
        Remembering::Done => {
            let text = format!(
                "backup {id} is used again. If the retention rules let it go, the next \"pitr expire\" forgets it again: \"pitr \
                 keep {id}\" prevents that."
            );
            tell(named, context, &text)
        }
    }
}

fn forget(args: &Args, named: &Named, context: &Context) -> Result<(), KeepingError> {
    let (id, now) = (args.backup, author().now);
    let notes = &named.known.notes;
    if let Some(keep) = notes.kept.as_ref().filter(|_| notes.is_kept(now)) {
        return Err(KeepingError::Kept { id, until: keep.until });
    }
    if let Some(forgotten) = &notes.forgotten {
        return Err(KeepingError::Forgotten { id, since: forgotten.since });
    }
    let (closes, last) = consequences(named)?;
    if last && !args.even_the_last {
        return Err(KeepingError::Last(id));
    }
    let mut out = context.stdout();
    if !context.json {
        write(&named.known.info, &closes, &mut out)?;
    }
    if !args.dry_run {
        if !args.yes {
            let question = format!("Forget backup {id}?");
            confirm::ask(context, &question).map_err(|declined| KeepingError::Declined { asked: declined.asked })?;
        }
        let says = Saying::Forgotten { why: "asked for with \"pitr forget\"".to_owned() };
        // Somebody may have said something while the question stood.
        let seen = named.server.backup_notes(id)?;
        if let Some(keep) = seen.kept.as_ref().filter(|_| seen.is_kept(now)) {
            return Err(KeepingError::Kept { id, until: keep.until });
        }
        named.server.add_note(id, &seen, &author(), says)?;
    }
    if context.json {
        let known = named.server.known_backup(id)?.unwrap_or_else(|| named.known.clone());
        out.json(&Document { backup: known.into(), closes, done: !args.dry_run })?;
    } else if !args.dry_run {
        let days = named.config.undelete.as_secs() / 86_400;
        writeln!(
            out,
            "Forgotten. \"pitr expire\" removes it {days} days after it has marked it; until then \"pitr forget --undo {id}\" brings \
             it back."
        )?;
        out.flush()?;
    }
    Ok(())
}

/// What closes without a backup, and whether nothing is left to restore from.
fn consequences(named: &Named) -> Result<(Vec<Closed>, bool), RepositoryError> {
    let live = named.server.live_backups()?;
    let before = named.server.snapshot_with(&named.record, &live)?;
    let others = live.iter().filter(|info| info.id != named.known.info.id).map(backup_facts).collect();
    let after = Snapshot { backups: others, ..before.clone() };
    let mut evidence = named.server.evidence(&named.record);
    let (was, will_be) = (windows(&before, &mut evidence)?, windows(&after, &mut evidence)?);
    // What pg_upgrade left behind is not what the present server needs.
    let servers = named.repository.cluster(&named.config.name).servers()?;
    let present = servers.last().is_none_or(|record| record.system_identifier == named.record.system_identifier);
    let nothing_left = will_be.is_empty() && (!was.is_empty() || after.backups.is_empty());
    Ok((closed(&was, &will_be), present && nothing_left))
}

fn write(info: &BackupInfo, closes: &[Closed], out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "backup {}  {}", info.id, info.label)?;
    writeln!(out, "  time      {} to {}", info.start_time, info.stop_time)?;
    if closes.is_empty() {
        writeln!(out, "  closes    nothing: every moment can be restored from other backups as well")?;
    }
    for close in closes {
        writeln!(out, "  closes    {}; {}", close.stretch(), close.rest())?;
    }
    out.flush()
}
