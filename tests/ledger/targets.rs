//! Targets drawn at random, and which rows must be there afterwards.

use std::ops::Range;

use super::harness::{Random, Row};
use super::history::{Branch, History};

/// A moment to restore to. Rows are counted from 0 along the branch; without a timeline `pitr` chooses it.
#[derive(Debug, Clone)]
pub enum Target {
    /// The commit time of a row, and so many microseconds more.
    Time { timeline: Option<u32>, row: usize, plus_us: i64, inclusive: bool },
    /// The LSN at which WAL went on behind a row's commit.
    Lsn { timeline: Option<u32>, row: usize, inclusive: bool },
    /// The transaction of a row.
    Xid { timeline: Option<u32>, row: usize, inclusive: bool },
    /// A restore point.
    Name { timeline: Option<u32>, name: String },
    /// The end of a timeline.
    Latest { timeline: Option<u32> },
}

impl Target {
    pub fn timeline(&self) -> Option<u32> {
        match self {
            Target::Time { timeline, .. }
            | Target::Lsn { timeline, .. }
            | Target::Xid { timeline, .. }
            | Target::Name { timeline, .. }
            | Target::Latest { timeline } => *timeline,
        }
    }

    /// How many rows of the branch PostgreSQL must show.
    pub fn expected_rows(&self, branch: &Branch) -> usize {
        match self {
            Target::Time { row, plus_us, inclusive, .. } => {
                let target = branch.rows[*row].committed_at + plus_us;
                // It stops at the first commit in WAL order whose time is past the target.
                let past = |row: &Row| if *inclusive { row.committed_at > target } else { row.committed_at >= target };
                branch.rows.iter().position(past).unwrap_or(branch.rows.len())
            }
            Target::Lsn { row, .. } => row + 1,
            Target::Xid { row, inclusive, .. } => row + usize::from(*inclusive),
            Target::Name { name, .. } => {
                branch.restore_points.iter().find(|point| point.name == *name).expect("a restore point").rows
            }
            Target::Latest { .. } => branch.rows.len(),
        }
    }

    /// The words of `pitr restore` that ask for it.
    pub fn words(&self, branch: &Branch) -> Vec<String> {
        let (mut words, inclusive) = match self {
            Target::Time { row, plus_us, inclusive, .. } => {
                let time = pitr::wal::PgTime(branch.rows[*row].committed_at + plus_us);
                (vec!["--to".to_owned(), time.to_string()], *inclusive)
            }
            Target::Lsn { row, inclusive, .. } => {
                let lsn = pitr::wal::Lsn(branch.rows[*row].lsn_after);
                (vec!["--to-lsn".to_owned(), lsn.to_string()], *inclusive)
            }
            Target::Xid { row, inclusive, .. } => {
                (vec!["--to-xid".to_owned(), branch.rows[*row].xid.to_string()], *inclusive)
            }
            Target::Name { name, .. } => (vec!["--to-name".to_owned(), name.clone()], true),
            Target::Latest { .. } => (vec!["--to".to_owned(), "latest".to_owned()], true),
        };
        if !inclusive {
            words.push("--exclusive".to_owned());
        }
        if let Some(timeline) = self.timeline() {
            words.extend(["--timeline".to_owned(), timeline.to_string()]);
        }
        words
    }
}

/// Draws targets: every kind in turn, on the first timeline by name, on the second by name or by default.
pub fn choose(history: &History, random: &mut Random, numbers: Range<usize>) -> Vec<Target> {
    numbers.map(|number| draw(history, random, number)).collect()
}

fn draw(history: &History, random: &mut Random, number: usize) -> Target {
    let branch = &history.branches[random.between(0, 1)];
    let timeline = if branch.timeline == 1 || random.coin() { Some(branch.timeline) } else { None };
    // The last row's commit is followed by nothing that a time or an LSN could stop at for certain.
    let mut row = random.between(branch.first + 1, branch.rows.len() - 3);
    let inclusive = random.coin();
    match number % 5 {
        0 => {
            // Between the fork's last commit and the second timeline's first one, the default is the first timeline.
            if timeline.is_none() && row + 1 == branch.shared {
                row += 1;
            }
            Target::Time { timeline, row, plus_us: i64::from(random.coin()), inclusive }
        }
        1 => Target::Lsn { timeline, row: if row + 1 == branch.shared { row + 1 } else { row }, inclusive },
        2 => Target::Xid { timeline, row, inclusive },
        3 => {
            let points = &branch.restore_points;
            Target::Name { timeline, name: points[random.between(0, points.len() - 1)].name.clone() }
        }
        _ => Target::Latest { timeline },
    }
}
