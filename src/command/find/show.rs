//! What was found, as text.

use std::io::{self, Write};

use indicatif::HumanCount;
use jiff::tz::TimeZone;

use super::{Answer, Judged};
use crate::recovery::moment::in_both;
use crate::wal::PgTime;

/// Relations of one candidate that are named.
const NAMED: usize = 12;

/// `to_the_end`: the search was not to end earlier.
pub(super) fn write(answer: &Answer<'_>, zone: &TimeZone, to_the_end: bool, out: &mut impl Write) -> io::Result<()> {
    let when = |time: Option<PgTime>| time.map_or_else(|| "at an unknown time".to_owned(), |time| in_both(time, zone));
    for judged in &answer.candidates {
        candidate(judged, zone, out)?;
    }
    for renamed in answer.renamed {
        let (before, after, xid, lsn) = (&renamed.before, &renamed.after, renamed.xid, renamed.lsn);
        writeln!(
            out,
            "{before} was not dropped but renamed to {after}: {}, transaction {xid}, LSN {lsn}\n\
             \"pitr find drop '{after}'\" tells whether that was dropped\n",
            when(renamed.time)
        )?;
    }
    let (from, to) = (answer.searched_from, answer.searched_to);
    match answer.candidates.len() {
        0 => writeln!(out, "Nothing was found between LSN {from} and {to}.")?,
        1 => writeln!(out, "One was found between LSN {from} and {to}.")?,
        count => writeln!(out, "{count} were found between LSN {from} and {to}.")?,
    }
    if let Some(time) = answer.last_time {
        writeln!(out, "The last commit in it is of {}.", in_both(time, zone))?;
    }
    if answer.candidates.is_empty() && to_the_end {
        let hint = "What happened since is not archived yet: SELECT pg_switch_wal() on the server closes its segment. \
                    \"pitr log --kind drop,truncate,delete\" shows all that was lost, by whatever name.";
        writeln!(out, "{hint}")?;
    }
    if answer.more > 0 {
        writeln!(out, "{} more are not listed: --limit, or --from and --to.", HumanCount(answer.more))?;
    }
    if answer.earlier_not_searched {
        writeln!(out, "WAL from before that is stored and was not searched: --all searches it.")?;
    }
    for note in answer.notes {
        writeln!(out, "note: {note}")?;
    }
    out.flush()
}

fn candidate(judged: &Judged<'_>, zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    let (candidate, verdict) = (judged.candidate, &judged.verdict);
    let names: Vec<String> = candidate
        .relations
        .iter()
        .map(|name| {
            let database = name.database.as_ref().map_or_else(String::new, |database| format!(" in {database}"));
            format!("{} {name}{database}", name.kind)
        })
        .collect();
    let more = names.len().saturating_sub(NAMED);
    let more = if more > 0 { format!("; and {} more", HumanCount(more as u64)) } else { String::new() };
    let names = names.into_iter().take(NAMED).collect::<Vec<_>>().join("; ") + &more;
    let names = if names.is_empty() { String::new() } else { format!("{names}: ") };
    writeln!(out, "{names}{}", candidate.what)?;
    let time = candidate.time.map_or_else(|| "unknown".to_owned(), |time| in_both(time, zone));
    writeln!(out, "  when         {time}")?;
    let xid = if candidate.xid.0 == 0 { String::new() } else { format!("transaction {}, ", candidate.xid) };
    writeln!(out, "  where        {xid}LSN {}, timeline {}", candidate.lsn, candidate.timeline)?;
    match &verdict.why_not {
        Some(why) => writeln!(out, "  CANNOT be restored: {why}\n"),
        None => {
            if let Some(last) = &verdict.last_commit {
                writeln!(out, "  keeps        up to transaction {} of {}", last.xid, in_both(last.time, zone))?;
            }
            let sure = if verdict.lost_complete { "" } else { " at least: WAL is missing there" };
            writeln!(out, "  loses        {} commits{sure}", HumanCount(verdict.lost_commits))?;
            if candidate.prepared {
                let what =
                    "it is still prepared there, with its locks: ROLLBACK PREPARED (pg_prepared_xacts has its name)";
                writeln!(out, "  afterwards   {what}")?;
            }
            writeln!(out, "  restore with {}\n", judged.command)
        }
    }
}
