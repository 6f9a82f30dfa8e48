//! What changed, as text: the few large things first, then tables by how much of them changed.

use std::io::{self, Write};

use indicatif::{HumanBytes, HumanCount};

use super::super::contents::columns::{head, line, size};
use super::super::list::one_line;
use super::group::{PartChange, TableChange};
use super::relations::Event;
use super::{Answer, Ends, Fate, Holder, Shown};
use crate::chunk::PAGE_BYTES;

pub(super) fn write(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    let Answer { before, after, .. } = answer;
    for (word, ends) in [("before", before), ("after", after)] {
        self::ends(word, ends, out)?;
    }
    wal(answer, out)?;
    let changed = amount(answer.changed);
    let (was, is) = (HumanBytes(before.total.size_bytes), HumanBytes(after.total.size_bytes));
    writeln!(out, "changed  {changed} of {is} (before: {was})")?;
    configuration(answer, out)?;
    holders("databases", &answer.databases, out)?;
    holders("tablespaces", &answer.tablespaces, out)?;
    tables(answer, out)?;
    if !answer.other_files.is_empty() {
        writeln!(out)?;
        head(&["before", "after", "changed"], "other files", out)?;
        for group in &answer.other_files {
            line(&[size(group.before_bytes), size(group.after_bytes), amount(group.changed)], group.kind, out)?;
        }
    }
    answer.remarks.iter().try_for_each(|remark| writeln!(out, "note: {remark}"))
}

fn ends(word: &str, ends: &Ends, out: &mut impl Write) -> io::Result<()> {
    let Ends { backup, label, stop_time, stop_lsn, stop_timeline, .. } = ends;
    writeln!(out, "{word:7}  {backup}  {}", one_line(label))?;
    writeln!(out, "         ended {stop_time} at {stop_lsn}, timeline {stop_timeline}")?;
    if ends.bad_pages > 0 {
        writeln!(out, "         DAMAGED: {} pages have a wrong checksum on the server", ends.bad_pages)?;
    }
    if ends.forgotten {
        writeln!(out, "         FORGOTTEN: nothing is restored from it")?;
    }
    Ok(())
}

fn wal(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    match (answer.wal.bytes, answer.wal.backwards) {
        (Some(bytes), false) => writeln!(out, "WAL      {} between their ends", HumanBytes(bytes)),
        (Some(bytes), true) => {
            writeln!(out, "WAL      {} between their ends; the first one named is the LATER one", HumanBytes(bytes))
        }
        (None, _) => {
            writeln!(out, "WAL      none leads from one to the other: they are on different branches of history")
        }
    }
}

/// Changed bytes; ≤ where some of them may be the same.
fn amount(changed: Shown) -> String {
    let bytes = size(changed.changed_bytes);
    if changed.perhaps_unchanged_bytes > 0 { format!("≤{bytes}") } else { bytes }
}

fn pages(changed: Shown) -> String {
    let pages = changed.changed_bytes.div_ceil(PAGE_BYTES as u64);
    match (pages, changed.perhaps_unchanged_bytes) {
        (0, _) => "-".to_owned(),
        (pages, 0) => HumanCount(pages).to_string(),
        (pages, _) => format!("≤{}", HumanCount(pages)),
    }
}

fn configuration(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    if answer.configuration.is_empty() {
        return writeln!(out, "         no configuration file changed");
    }
    writeln!(out)?;
    head(&["before", "after"], "configuration files", out)?;
    for file in &answer.configuration {
        let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size);
        let word = if file.what == Fate::Changed { "changed" } else { fate(file.what) };
        line(&[bytes(file.before_bytes), bytes(file.after_bytes)], format!("{}  {word}", file.path), out)?;
    }
    Ok(())
}

fn fate(what: Fate) -> &'static str {
    match what {
        Fate::Created => "CREATED",
        Fate::Dropped => "DROPPED",
        Fate::Renamed => "RENAMED",
        Fate::Changed | Fate::Same => "",
    }
}

fn holders(title: &str, all: &[Holder], out: &mut impl Write) -> io::Result<()> {
    writeln!(out)?;
    head(&["before", "after", "changed"], title, out)?;
    for holder in all {
        let was = holder.was.as_ref().map_or_else(String::new, |was| format!(" from {was}"));
        let what = format!("{}  {}{was}", holder.name, fate(holder.what));
        line(&[size(holder.before_bytes), size(holder.after_bytes), amount(holder.changed)], what.trim_end(), out)?;
    }
    Ok(())
}

fn events(events: &[Event], was: Option<&String>) -> String {
    let words: Vec<String> = events
        .iter()
        .map(|event| match event {
            Event::Created => "CREATED".to_owned(),
            Event::Dropped => "DROPPED".to_owned(),
            Event::Rewritten => "rewritten".to_owned(),
            Event::Renamed => format!("RENAMED from {}", was.map_or("", String::as_str)),
            Event::Moved => "moved to another tablespace".to_owned(),
        })
        .collect();
    words.join(", ")
}

fn tables(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    writeln!(out)?;
    let all = answer.tables.len() as u64 + answer.tables_not_listed;
    let same = HumanCount(answer.unchanged_relations);
    if all == 0 {
        return writeln!(out, "no table changed ({same} relations are the same)");
    }
    let title = format!("changed tables, with indexes and TOAST ({} of {})", answer.tables.len(), HumanCount(all));
    head(&["before", "after", "changed", "pages"], &title, out)?;
    for table in &answer.tables {
        let TableChange { before_bytes, after_bytes, changed, was, .. } = table;
        let cells = [size(*before_bytes), size(*after_bytes), amount(*changed), pages(*changed)];
        let what = format!("{}  {}", table.title(), events(&table.events, was.as_ref()));
        line(&cells, what.trim_end(), out)?;
        for part in table.parts.iter().filter(|part| is_news(part, table)) {
            let PartChange { relation, before_bytes, after_bytes, changed, was, .. } = part;
            let bytes = |bytes: Option<u64>| bytes.map_or_else(|| "-".to_owned(), size);
            let cells = [bytes(*before_bytes), bytes(*after_bytes), amount(*changed), pages(*changed)];
            line(&cells, format!("  {relation}  {}", events(&part.events, was.as_ref())), out)?;
        }
    }
    Ok(())
}

/// What happens to a part along with its table need not be told.
fn is_news(part: &PartChange, table: &TableChange) -> bool {
    part.part != crate::repository::Part::Itself && part.events.iter().any(|event| !table.events.contains(event))
}
