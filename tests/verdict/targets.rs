//! Targets drawn at random: most of them near something that happened, some beyond everything.

use pitr::recovery::{RecoveryTarget, TargetKind};
use pitr::wal::{Lsn, PgTime, Xid};

use super::harness::Random;
use super::history::History;

/// A target, and the words of the command line that ask for it.
#[derive(Debug, Clone)]
pub struct Target {
    pub words: Vec<String>,
    pub target: RecoveryTarget,
    pub timeline: Option<u32>,
}

/// Draws a target. The kinds take turns.
pub fn draw(history: &History, random: &mut Random, number: usize) -> Target {
    let inclusive = random.coin();
    let (option, value, kind) = match number % 6 {
        0..=2 => {
            let time = time(history, random);
            ("--to", time.to_string(), TargetKind::Time(time))
        }
        3 => {
            let lsn = lsn(history, random);
            ("--to-lsn", lsn.to_string(), TargetKind::Lsn(lsn))
        }
        4 => {
            let xid = row(history, random).xid + if random.between(0, 4) == 0 { 100_000 } else { 0 };
            let option = if !inclusive && random.coin() { "--before-xid" } else { "--to-xid" };
            (option, xid.to_string(), TargetKind::Xid(Xid(xid)))
        }
        _ => {
            let names = &history.names;
            let name = if random.between(0, 5) == 0 { "never" } else { &names[random.between(0, names.len() - 1)] };
            ("--to-name", name.to_owned(), TargetKind::Name(name.to_owned()))
        }
    };
    let mut words = vec![option.to_owned(), value];
    let inclusive = inclusive || matches!(kind, TargetKind::Name(_));
    if !inclusive && option != "--before-xid" {
        words.push("--exclusive".to_owned());
    }
    let branch = &history.branches[random.between(0, history.branches.len() - 1)];
    let timeline = (random.between(0, 2) == 0).then_some(branch.timeline);
    if let Some(timeline) = timeline {
        words.extend(["--timeline".to_owned(), timeline.to_string()]);
    }
    Target { words, target: RecoveryTarget { kind, inclusive }, timeline }
}

fn row(history: &History, random: &mut Random) -> super::harness::Row {
    let rows: Vec<_> = history.rows().copied().collect();
    rows[random.between(0, rows.len() - 1)]
}

/// At a row's commit or a microsecond beside it, between rows, or a little before the first or behind the last.
fn time(history: &History, random: &mut Random) -> PgTime {
    let first = history.rows().map(|row| row.committed_at).min().expect("there are rows");
    let last = history.rows().map(|row| row.committed_at).max().expect("there are rows");
    let row = row(history, random).committed_at;
    PgTime(match random.between(0, 9) {
        0 => first - below(random, 1_000_000),
        1 => last + below(random, 3_000_000),
        2..=5 => row + below(random, 2) - 1,
        _ => row + below(random, 40_000) - 20_000,
    })
}

/// Where a row's commit ended, at a page's beginning, somewhere in between, or behind everything.
fn lsn(history: &History, random: &mut Random) -> Lsn {
    let last = history.rows().map(|row| row.lsn_after).max().expect("there are rows");
    let row = row(history, random).lsn_after;
    Lsn(match random.between(0, 9) {
        0 | 1 => row,
        2 => last + random.between(0, 3 << 20) as u64,
        3 => row >> 13 << 13,
        4 => row >> 20 << 20,
        _ => row - random.between(0, 9000) as u64,
    })
}

fn below(random: &mut Random, limit: usize) -> i64 {
    i64::try_from(random.between(0, limit)).expect("small")
}
