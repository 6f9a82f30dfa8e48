//! The text of `pitr verify`.

use std::io::{self, Write};
use std::time::Duration;

use indicatif::{HumanBytes, HumanCount};

use super::finding::{Finding, Outcome, ServerOutcome, Severity};
use super::found::Counts;
use crate::command::Context;

/// Most of a kind that are told one by one; JSON has all.
const MOST_TOLD: usize = 20;

/// The result on standard output.
pub(super) fn tell(outcome: &Outcome, context: &Context) -> io::Result<()> {
    let mut out = context.stdout();
    if context.json {
        return out.json(outcome);
    }
    writeln!(out, "cluster {} in {}", outcome.cluster, outcome.repository)?;
    for server in &outcome.servers {
        tell_server(server, &mut out)?;
    }
    let (read, took) = (HumanBytes(outcome.read_bytes), Duration::from_secs_f64(outcome.seconds.round()));
    writeln!(out, "\n{}; read {read} in {}", summary(outcome), humantime::format_duration(took))?;
    if let Some(why) = &outcome.not_noted {
        writeln!(out, "It could not be noted what was verified, so the next run begins anew: {why}")?;
    }
    out.flush()
}

fn tell_server(server: &ServerOutcome, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nPostgreSQL {}, system identifier {}", server.postgres_major, server.system_identifier)?;
    writeln!(out, "  verified       {}", words(&server.verified))?;
    if server.left != Counts::default() {
        let Counts { backups, packs, segments, .. } = server.left;
        writeln!(
            out,
            "  left           {backups} backups, {packs} packs, {segments} segments: later runs begin with them"
        )?;
    }
    writeln!(out, "  ever verified  {}", server.coverage)?;
    for finding in server.findings.iter().take(MOST_TOLD) {
        tell_finding(finding, out)?;
    }
    if let Some(more) = server.findings.len().checked_sub(MOST_TOLD).filter(|more| *more > 0) {
        writeln!(out, "\n  and {more} more: --json has all of them")?;
    }
    for not in server.not_looked.iter().take(MOST_TOLD) {
        writeln!(out, "\n  COULD NOT LOOK at {}: {}", not.object, not.why)?;
    }
    if let Some(more) = server.not_looked.len().checked_sub(MOST_TOLD).filter(|more| *more > 0) {
        writeln!(out, "\n  and {more} more that could not be looked at")?;
    }
    Ok(())
}

fn tell_finding(finding: &Finding, out: &mut impl Write) -> io::Result<()> {
    let word = match finding.severity {
        Severity::Damaged => "DAMAGED",
        Severity::Missing => "MISSING",
        Severity::Harmless => "harmless",
    };
    writeln!(out, "\n  {word}: {}", finding.what)?;
    if let Some(object) = &finding.object {
        writeln!(out, "    object:  {object}")?;
    }
    writeln!(out, "    meaning: {}", finding.meaning)?;
    if finding.severity != Severity::Harmless {
        writeln!(out, "    help:    {}", finding.help)?;
    }
    Ok(())
}

fn words(counts: &Counts) -> String {
    let Counts { backups, packs, chunks, assembled, files, segments, others } = counts;
    let mut parts = vec![
        format!("{} backups", HumanCount(*backups)),
        format!("{} packs", HumanCount(*packs)),
        format!("{} chunks", HumanCount(*chunks)),
    ];
    if *assembled > 0 {
        parts.push(format!("{} chunks put together", HumanCount(*assembled)));
    }
    if *files > 0 {
        parts.push(format!("{} files by their checksums", HumanCount(*files)));
    }
    parts.push(format!("{} segments", HumanCount(*segments)));
    parts.push(format!("{} other WAL files", HumanCount(*others)));
    parts.join(", ")
}

fn summary(outcome: &Outcome) -> String {
    let findings = || outcome.servers.iter().flat_map(|server| &server.findings);
    let bad = findings().filter(|finding| finding.severity != Severity::Harmless).count();
    let silent: usize = outcome.servers.iter().map(|server| server.not_looked.len()).sum();
    let mut parts = Vec::new();
    match bad {
        0 => parts.push("nothing that was looked at is damaged or missing".to_owned()),
        1 => parts.push("1 PROBLEM".to_owned()),
        bad => parts.push(format!("{bad} PROBLEMS")),
    }
    if silent > 0 {
        parts.push(format!("{silent} OBJECTS COULD NOT BE LOOKED AT"));
    }
    match (outcome.interrupted, outcome.complete) {
        (true, _) => parts.push("broken off: what was verified until then is noted".to_owned()),
        (false, false) if silent == 0 => parts.push("the time was over before all was verified".to_owned()),
        _ => {}
    }
    parts.join("; ")
}
