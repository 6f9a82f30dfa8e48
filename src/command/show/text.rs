//! A backup's contents as text: what is wrong first, then where the bytes are, then what is in it.

use std::io::{self, Write};

use indicatif::{HumanBytes, HumanCount};

use super::super::contents::columns::{head, line, size};
use super::super::contents::table::Wanted;
use super::super::contents::tally::Tally;
use super::{Answer, Bad, Earlier, Named, Reading};

/// Blocks of one file that are named.
const BLOCKS_NAMED: usize = 12;

/// What "pitr list" does not say.
pub(super) fn write(answer: &Answer, wanted: Wanted<'_>, out: &mut impl Write) -> io::Result<()> {
    for bad in &answer.bad_page_files {
        writeln!(out, "  DAMAGED   {}", damaged(bad))?;
    }
    let parent = answer.backup.info.parent.map(|id| id.to_string()).unwrap_or_default();
    match answer.read {
        Reading::Full => writeln!(out, "  read      everything, without an earlier backup")?,
        Reading::Compared => writeln!(out, "  read      everything; what {parent} has is referred to")?,
        Reading::ChangedOnly => {
            writeln!(out, "  read      what had changed since {parent}, as the WAL told")?;
        }
    }
    stored(answer, out)?;
    let whole = wanted.database.is_none() && wanted.relation.is_none();
    if whole {
        sums("databases", &answer.databases, out)?;
        sums("tablespaces", &answer.by_tablespace, out)?;
    }
    tables(answer, wanted, out)?;
    if whole {
        writeln!(out)?;
        head(&["size", "stored", "earlier"], "other files", out)?;
        for group in &answer.other_files {
            let files = HumanCount(group.total.files);
            line(&cells(group.total), format!("{} ({files})", group.kind), out)?;
        }
        configuration(answer, out)?;
    }
    for remark in &answer.remarks {
        writeln!(out, "note: {remark}")?;
    }
    if !answer.remarks.is_empty() {
        writeln!(out, "      Relations that have no name for that reason are shown by the path of their file.")?;
    }
    Ok(())
}

fn cells(total: Tally) -> [String; 3] {
    [total.size_bytes, total.stored_bytes, total.referenced_bytes].map(size)
}

fn damaged(Bad { pages, relation }: &Bad) -> String {
    let folder = pages.tablespace.map_or_else(String::new, |oid| format!("pg_tblspc/{oid}/"));
    let name = relation.as_ref().map_or_else(String::new, |name| format!("{name}, "));
    let shown: Vec<_> = pages.blocks.iter().take(BLOCKS_NAMED).map(ToString::to_string).collect();
    let more = pages.blocks.len().saturating_sub(BLOCKS_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{name}{folder}{}: blocks {}{more}", pages.path, shown.join(", "))
}

/// Where the bytes are.
fn stored(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    let Tally { stored_bytes, referenced_bytes, .. } = answer.total;
    let share = answer.stored_share.map_or_else(String::new, |share| format!(", {:.0} % of its size", share * 100.0));
    let both = HumanBytes(stored_bytes + referenced_bytes);
    let whose = match referenced_bytes {
        0 => "all of it its own".to_owned(),
        _ => format!("{} of its own, {} of earlier backups", HumanBytes(stored_bytes), HumanBytes(referenced_bytes)),
    };
    writeln!(out, "  needs     {both} compressed{share}: {whose}")?;
    for Earlier { backup, referenced_bytes, label, stop_time, forgotten } in &answer.earlier {
        let what = match (label, stop_time) {
            (Some(label), Some(time)) => {
                let forgotten = if *forgotten { ", FORGOTTEN" } else { "" };
                format!("{}, ended {time}{forgotten}", super::list::one_line(label))
            }
            _ => "expired; the packs that are referred to stay".to_owned(),
        };
        writeln!(out, "            {:>10} of {backup}  {what}", HumanBytes(*referenced_bytes).to_string())?;
    }
    Ok(())
}

fn sums(title: &str, all: &[Named], out: &mut impl Write) -> io::Result<()> {
    writeln!(out)?;
    head(&["size", "stored", "earlier"], title, out)?;
    all.iter().try_for_each(|named| line(&cells(named.total), &named.name, out))
}

fn tables(answer: &Answer, wanted: Wanted<'_>, out: &mut impl Write) -> io::Result<()> {
    writeln!(out)?;
    let all = answer.tables.len() as u64 + answer.tables_not_listed;
    let title = match answer.tables.len() {
        0 => "no such relation".to_owned(),
        count => format!("largest tables, with indexes and TOAST ({count} of {})", HumanCount(all)),
    };
    head(&["size", "indexes", "TOAST", "stored", "earlier"], &title, out)?;
    for table in &answer.tables {
        let Tally { size_bytes, stored_bytes, referenced_bytes, .. } = table.total;
        let cells = [size_bytes, table.index_bytes, table.toast_bytes, stored_bytes, referenced_bytes].map(size);
        line(&cells, table.title(), out)?;
        // Who asks for one relation wants to see what it consists of.
        for part in table.parts.iter().filter(|_| wanted.relation.is_some() && table.parts.len() > 1) {
            let Tally { size_bytes, stored_bytes, referenced_bytes, .. } = part.total;
            let cells = [size_bytes, 0, 0, stored_bytes, referenced_bytes];
            let cells = [size(cells[0]), String::new(), String::new(), size(cells[3]), size(cells[4])];
            line(
                &cells,
                format!("  {} ({}, {})", part.relation, part.kind, super::super::contents::path_of(part.file)),
                out,
            )?;
        }
    }
    Ok(())
}

fn configuration(answer: &Answer, out: &mut impl Write) -> io::Result<()> {
    if answer.configuration.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nconfiguration files outside the data directory")?;
    for file in &answer.configuration {
        let what = match &file.missing {
            None => size(file.size_bytes),
            Some(_) => "MISSING".to_owned(),
        };
        let why = file.missing.as_ref().map_or_else(String::new, |why| format!(": {why}"));
        line(&[what], format!("{}{why}", file.source), out)?;
    }
    Ok(())
}
