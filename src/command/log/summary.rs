//! Activity as a bar chart: a line for each second, minute, hour or day in which something happened.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::ValueEnum;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::super::history::RelationPattern;
use super::filter::{Kind, is_of_user, kinds};
use crate::recovery::moment::{in_zone, zone_name};
use crate::wal::activity::{Activity, RowCounts};
use crate::wal::names::CatalogChange as Change;
use crate::wal::{EventKind, PgTime};

/// Letters of the longest bar.
const WIDTH: u64 = 50;

/// How long a time a line stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Period {
    /// A second
    Second,
    /// A minute
    Minute,
    /// An hour
    Hour,
    /// A day of 24 hours, in UTC
    Day,
}

impl Period {
    fn microseconds(self) -> i64 {
        let seconds = match self {
            Period::Second => 1,
            Period::Minute => 60,
            Period::Hour => 3600,
            Period::Day => 24 * 3600,
        };
        seconds * 1_000_000
    }
}

/// What happened in a period.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
struct Line {
    commits: u64,
    aborts: u64,
    /// Rows of committed transactions, catalogs left out.
    #[serde(flatten)]
    rows: RowCounts,
    drops: u64,
    truncates: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    restore_points: Vec<String>,
}

/// A line with its time, for programs.
#[derive(Serialize)]
struct TimedLine<'a> {
    from: PgTime,
    #[serde(flatten)]
    line: &'a Line,
}

/// The chart.
pub(super) struct Summary {
    period: Period,
    zone: TimeZone,
    lines: BTreeMap<PgTime, Line>,
}

impl Summary {
    pub(super) fn new(period: Period, zone: TimeZone) -> Summary {
        Summary { period, zone, lines: BTreeMap::new() }
    }

    /// Takes in an entry. Rows count if they are those of the relation asked for.
    pub(super) fn add(&mut self, activity: &Activity, time: Option<PgTime>, relation: Option<&RelationPattern>) {
        let Some(time) = time else { return };
        let length = self.period.microseconds();
        let line = self.lines.entry(PgTime(time.0.div_euclid(length) * length)).or_default();
        match &activity.event.kind {
            EventKind::Commit(_) => {
                line.commits += 1;
                let asked = |rows: &&crate::wal::activity::RelationRows| match relation {
                    Some(pattern) => rows.relation.as_ref().is_some_and(|name| pattern.matches(name)),
                    None => is_of_user(rows),
                };
                activity.rows.iter().filter(asked).for_each(|rows| line.rows.add(rows.counts));
            }
            EventKind::Abort(_) => line.aborts += 1,
            EventKind::RestorePoint { name, .. } => line.restore_points.push(name.clone()),
            _ => {}
        }
        let kinds = kinds(activity);
        // The end of DROP DATABASE is told by its commit as well.
        let told_before = activity.is_commit()
            && activity.unnamed.is_empty()
            && activity
                .changes
                .iter()
                .all(|change| !matches!(change, Change::RelationDropped(_) | Change::SchemaDropped(_)));
        line.drops += u64::from(kinds.contains(&Kind::Drop) && !told_before);
        line.truncates += u64::from(kinds.contains(&Kind::Truncate));
    }

    pub(super) fn write(&self, json: bool, out: &mut impl Write) -> io::Result<()> {
        if json {
            for (from, line) in &self.lines {
                serde_json::to_writer(&mut *out, &TimedLine { from: *from, line })?;
                out.write_all(b"\n")?;
            }
            return Ok(());
        }
        let utc = self.lines.keys().all(|time| self.zone.to_offset(time.to_timestamp()).is_zero());
        let zone = if utc { "UTC".to_owned() } else { format!("UTC, then {}", zone_name(&self.zone)) };
        writeln!(out, "Time is {zone}. A bar is of rows: + inserted, ~ updated, - deleted.\n")?;
        let local = if utc { String::new() } else { format!("{:<22}", "") };
        writeln!(out, "{:<21}{local}{:>9}{:>11}{:>11}{:>11}", "", "commits", "inserted", "updated", "deleted")?;
        let most = self.lines.values().map(|line| line.rows.total()).max().unwrap_or(0);
        let mut before: Option<PgTime> = None;
        for (time, line) in &self.lines {
            let quiet = before.map_or(0, |before| (time.0 - before.0) / self.period.microseconds() - 1);
            if quiet > 0 {
                writeln!(out, "  ... nothing for {quiet} of these ...")?;
            }
            before = Some(*time);
            self.line(*time, line, most, utc, out)?;
        }
        if self.lines.is_empty() {
            writeln!(out, "nothing happened")?;
        }
        Ok(())
    }

    fn line(&self, time: PgTime, line: &Line, most: u64, utc: bool, out: &mut impl Write) -> io::Result<()> {
        let at = in_zone(time, &TimeZone::UTC);
        write!(out, "{:<21}", at.trim_end_matches("+00:00"))?;
        if !utc {
            let local = in_zone(time, &self.zone);
            write!(out, "{:<22}", local.split_once(' ').map_or(local.as_str(), |(_, time)| time))?;
        }
        let RowCounts { inserted, updated, deleted } = line.rows;
        write!(out, "{:>9}{inserted:>11}{updated:>11}{deleted:>11}  {}", line.commits, bar(line.rows, most))?;
        let mut marks = Vec::new();
        for (word, count) in [("drop", line.drops), ("truncate", line.truncates), ("rollback", line.aborts)] {
            match count {
                0 => {}
                1 => marks.push(word.to_owned()),
                count => marks.push(format!("{count} {word}s")),
            }
        }
        marks.extend(line.restore_points.iter().map(|name| format!("restore point \"{name}\"")));
        writeln!(out, "{}{}", if marks.is_empty() { "" } else { "  " }, marks.join(", "))
    }
}

/// A bar whose length is to [`WIDTH`] as these rows are to the most of a line; what happened at all has one letter at least.
fn bar(rows: RowCounts, most: u64) -> String {
    let length = |count: u64| match count {
        0 => 0,
        // The product fits: rows are fewer than 2^57.
        count => usize::try_from((count * WIDTH).div_ceil(most.max(1))).unwrap_or(usize::MAX),
    };
    ["+", "~", "-"]
        .iter()
        .zip([rows.inserted, rows.updated, rows.deleted])
        .map(|(letter, count)| letter.repeat(length(count)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: a burst stands out, and what is small beside it is still seen.
    #[test]
    fn bars() {
        let rows = |inserted, updated, deleted| RowCounts { inserted, updated, deleted };
        assert_eq!(bar(rows(1, 0, 0), 1_000_000), "+");
        assert_eq!(bar(rows(0, 0, 1_000_000), 1_000_000), "-".repeat(50));
        assert_eq!(bar(rows(50, 0, 50), 200), format!("{}{}", "+".repeat(13), "-".repeat(13)));
        assert_eq!(bar(rows(0, 0, 0), 0), "");
    }
}
