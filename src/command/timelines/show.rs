//! The tree as text.

use std::io::{self, Write};

use jiff::tz::TimeZone;

use super::look::{ClusterTimelines, ForkPoint, ServerTimelines, TimelineNode};
use crate::recovery::moment::in_both;
use crate::wal::TimelineId;

pub(super) fn write(all: &ClusterTimelines, zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "cluster {} in {}", all.cluster, all.repository)?;
    for server in &all.servers {
        writeln!(out, "\nPostgreSQL {}, system identifier {}", server.postgres_major, server.system_identifier)?;
        if server.timelines.is_empty() {
            writeln!(out, "nothing is archived yet")?;
        }
        let mut roots = server.timelines.iter().filter(|node| parent(server, node).is_none()).peekable();
        while let Some(root) = roots.next() {
            branch(server, root, zone, ("", ""), out)?;
            if roots.peek().is_some() {
                writeln!(out)?;
            }
        }
        judge(server, zone, out)?;
    }
    out.flush()
}

/// The nearest ancestor that the archive has something of.
fn parent(server: &ServerTimelines, node: &TimelineNode) -> Option<TimelineId> {
    let parent = node.fork.as_ref()?.parent;
    server.timelines.iter().map(|other| other.timeline).find(|other| *other == parent)
}

/// One timeline and its children. `head` stands before its first line, `body` before the others.
fn branch(
    server: &ServerTimelines,
    node: &TimelineNode,
    zone: &TimeZone,
    (head, body): (&str, &str),
    out: &mut impl Write,
) -> io::Result<()> {
    let live = server.live.as_ref().is_some_and(|live| live.timeline == node.timeline);
    write!(out, "{head}timeline {}", node.timeline)?;
    if let Some(fork) = &node.fork {
        write!(out, "  {}", describe(server, fork, zone))?;
    }
    writeln!(out, "{}", if live { "  <- LIVE" } else { "" })?;
    let mut children: Vec<_> =
        server.timelines.iter().filter(|child| parent(server, child) == Some(node.timeline)).collect();
    children.sort_by_key(|child| (child.fork.as_ref().map(|fork| fork.lsn), child.timeline));
    let bar = if children.is_empty() { "   " } else { "│  " };
    for line in facts(node, zone) {
        writeln!(out, "{body}{bar}{line}")?;
    }
    let last = children.len().saturating_sub(1);
    for (at, child) in children.into_iter().enumerate() {
        let (corner, below) = if at == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        branch(server, child, zone, (&format!("{body}{corner}"), &format!("{body}{below}")), out)?;
    }
    Ok(())
}

fn describe(server: &ServerTimelines, fork: &ForkPoint, zone: &TimeZone) -> String {
    let known = server.timelines.iter().any(|node| node.timeline == fork.parent);
    let parent = if known { String::new() } else { format!(" timeline {} (not in the archive)", fork.parent) };
    let time = fork.time.map_or_else(String::new, |time| format!(", {}", in_both(time, zone)));
    let reason = if fork.reason.is_empty() { String::new() } else { format!(", {}", fork.reason) };
    format!("branched off{parent} at {}{time}{reason}", fork.lsn)
}

fn facts(node: &TimelineNode, zone: &TimeZone) -> Vec<String> {
    let mut lines = Vec::new();
    if node.history_missing {
        let file = node.timeline.to_hex();
        lines.push(format!(
            "HISTORY MISSING: nobody can tell where it belongs; look for {file}.history in the pg_wal of its server, and push it"
        ));
    }
    match (node.first, node.last) {
        (Some(first), Some(last)) => {
            let end = node.end_lsn.map_or_else(String::new, |end| format!(", up to {end}"));
            let time = node
                .last_time
                .map_or_else(String::new, |time| format!(", last commit or abort {}", in_both(time, zone)));
            let names = if first == last { first.to_string() } else { format!("{first} to {last}") };
            let word = if node.segments == 1 { "segment" } else { "segments" };
            lines.push(format!("{} {word}, {names}{end}{time}", node.segments));
        }
        _ => lines.push("no complete segment".to_owned()),
    }
    for by in &node.archived_by {
        // One origin of all of them needs no range.
        let range = if node.archived_by.len() > 1 { format!(", {} to {}", by.first, by.last) } else { String::new() };
        lines.push(format!("archived from {} on host {}{range}", by.source, by.host));
    }
    if node.archived_by.len() > 1 && (node.sampled as u64) < node.segments {
        lines.push(format!("  (as {} of its segments say)", node.sampled));
    }
    lines.extend(node.partials.iter().map(|partial| format!("{partial}.partial: where it was left")));
    lines.extend(node.damaged.iter().map(|segment| format!("DAMAGED: {segment}")));
    if node.missing > 0 {
        lines.push(format!("MISSING: {} segments", node.missing));
    }
    for window in &node.windows {
        let end = match &window.last_commit {
            Some(commit) => format!("to {}, the last commit", in_both(commit.time, zone)),
            None => "on, no commit since".to_owned(),
        };
        lines.push(format!(
            "can be restored from {} {end} (LSN {} to {}, {} backups)",
            in_both(window.start_time, zone),
            window.start_lsn,
            window.end_lsn,
            window.backups
        ));
    }
    if node.windows.is_empty() {
        lines.push("cannot be restored: no base backup leads here".to_owned());
    }
    lines
}

/// Which branch is live, and how that is judged.
fn judge(server: &ServerTimelines, zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    let Some(live) = &server.live else { return Ok(()) };
    writeln!(
        out,
        "\nLIVE is timeline {}: its segment {} was archived last of all, {}, from {} (by the clocks of the hosts that archive).",
        live.timeline,
        live.segment,
        in_both(live.archived_at, zone),
        live.archived_by
    )?;
    for rival in &live.rivals {
        writeln!(
            out,
            "WARNING: timeline {rival} was archived too after timeline {} had begun: two servers may have written. Is the old one \
             stopped?",
            live.timeline
        )?;
    }
    Ok(())
}
