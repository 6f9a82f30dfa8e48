//! What `pg_waldump` says.

use std::path::Path;
use std::time::Duration;

use pitr::wal::{ImageCompression, RelationFile};

use super::harness::{Postgres, Run, as_test_user};
use super::record::{Block, Image, Record};

/// A record, and what is said about its content.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) record: Record,
    /// `COMMIT 2026-...; rels: ...`
    pub(super) desc: String,
}

/// All records of the segments from `first` to `last` in a directory.
pub(super) fn read(postgres: &Postgres, dir: &Path, first: &str, last: &str) -> Vec<Told> {
    let waldump = postgres.waldump().expect("there is a pg_waldump for this major");
    let managers = as_test_user(&waldump).arg("--rmgr=list").run().ok().stdout;
    let managers: Vec<&str> = managers.lines().collect();
    let mut command = as_test_user(&waldump);
    command.args(["--bkp-details", "--path"]).arg(dir).args([first, last]);
    // It ends with an error where nothing more was written.
    let said = command.run_within(Duration::from_secs(120)).stdout;
    let mut all: Vec<Told> = Vec::new();
    for line in said.lines() {
        if line.starts_with("rmgr: ") {
            all.push(told(line, &managers).unwrap_or_else(|| panic!("cannot read {line}")));
        } else if let Some(block) = line.trim_start().strip_prefix("blkref #") {
            let block = block_reference(block).unwrap_or_else(|| panic!("cannot read {line}"));
            all.last_mut().expect("a record comes first").record.blocks.push(block);
        } else {
            assert!(line.is_empty() || line.starts_with("first record is after"), "cannot read {line}");
        }
    }
    all
}

/// The text between two others.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(rest[..rest.find(after)?].trim())
}

/// `rmgr: Heap  len (rec/tot):  54/  150, tx:  743, lsn: 0/0150, prev 0/0140, desc: INSERT off: 1`.
fn told(line: &str, managers: &[&str]) -> Option<Told> {
    let manager = between(line, "rmgr: ", " ")?;
    let (own, total) = between(line, "len (rec/tot):", ", tx:")?.split_once('/')?;
    let length: u32 = total.trim().parse().ok()?;
    let record = Record {
        lsn: between(line, "lsn: ", ", prev")?.parse().ok()?,
        previous: between(line, "prev ", ", desc:")?.parse().ok()?,
        manager: managers.iter().position(|name| *name == manager)?.try_into().ok()?,
        xid: between(line, "tx:", ", lsn:")?.parse().ok()?,
        length,
        image_length: length - own.trim().parse::<u32>().ok()?,
        blocks: Vec::new(),
    };
    Some(Told { record, desc: line.split_once(", desc: ")?.1.to_owned() })
}

/// `0: rel 1663/5/2662 fork main blk 2 (FPW); hole: offset: 40, length: 7000, compression saved: 3, method: pglz`.
fn block_reference(text: &str) -> Option<Block> {
    let (id, rest) = text.split_once(": rel ")?;
    let mut words = rest.split_whitespace();
    let mut file = words.next()?.split('/').map(str::parse);
    let mut number = || file.next()?.ok();
    let file = RelationFile { tablespace: number()?, database: number()?, relation: number()? };
    let fork = ["main", "fsm", "vm", "init"].iter().position(|fork| rest.contains(&format!(" fork {fork} ")))?;
    let block = rest.split_once(" blk ")?.1.split_whitespace().next()?.parse().ok()?;
    let image = if rest.contains(" (FPW") { Some(image(rest)?) } else { None };
    Some(Block { id: id.parse().ok()?, file, fork: fork.try_into().ok()?, block, image })
}

fn image(text: &str) -> Option<Image> {
    let number = |name: &str| text.split_once(name)?.1.split(',').next()?.trim().parse().ok();
    let compression = match text.split_once("method: ").map(|(_, method)| method.trim()) {
        None => ImageCompression::None,
        Some("pglz") => ImageCompression::Pglz,
        Some("lz4") => ImageCompression::Lz4,
        Some("zstd") => ImageCompression::Zstd,
        Some(_) => return None,
    };
    let saved = match compression {
        ImageCompression::None => 0,
        _ => number("compression saved: ")?,
    };
    Some(Image {
        applied: !text.contains("(FPW for WAL verification)"),
        hole_offset: number("hole: offset: ")?.try_into().ok()?,
        hole_length: number(" length: ")?.try_into().ok()?,
        compression,
        saved,
    })
}
