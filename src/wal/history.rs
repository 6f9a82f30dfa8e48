//! Timeline history: which timeline branched off which, and where (`.history` files, `timeline.c`).
//!
//! A file is text: comments (`#`) and blank lines aside, a line `<parent timeline>\t<switch LSN>\t<reason>` for each
//! ancestor, oldest first. A timeline's file repeats its parent's lines. The reason is for people and is never read.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Lsn, TimelineId};

/// The ancestry of one timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TimelineHistory {
    /// The timeline whose ancestry it is.
    timeline: TimelineId,
    /// Its ancestors, oldest first; none for timeline 1.
    entries: Vec<HistoryEntry>,
}

/// One ancestor of a timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The ancestor.
    pub timeline: TimelineId,
    /// Where its WAL ends on this path: the first byte that belongs to the next timeline.
    pub switch: Lsn,
    /// Why, as the server put it. For people only.
    pub reason: String,
}

/// Why a text is not the history of a timeline.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HistoryError {
    /// A line that is not `<timeline> <LSN> <reason>`.
    #[error("history of timeline {timeline}, line {line}: \"{text}\" is not a timeline, an LSN and a reason")]
    Syntax {
        /// Whose history it is.
        timeline: TimelineId,
        /// Number of the line, from 1.
        line: usize,
        /// The line, cut to 100 characters.
        text: String,
    },
    /// Ancestors out of order: each must be later than the one before, and earlier than the timeline itself.
    #[error(
        "history of timeline {timeline}, line {line}: timeline {found} does not come after {after} and before {timeline}"
    )]
    Order {
        /// Whose history it is.
        timeline: TimelineId,
        /// Number of the line, from 1.
        line: usize,
        /// The ancestor on that line.
        found: TimelineId,
        /// The ancestor before it, or 0.
        after: TimelineId,
    },
    /// Switch points that go backwards.
    #[error("history of timeline {timeline}, line {line}: switch at {found} lies before the one at {after}")]
    Switch {
        /// Whose history it is.
        timeline: TimelineId,
        /// Number of the line, from 1.
        line: usize,
        /// The switch point on that line.
        found: Lsn,
        /// The one before it.
        after: Lsn,
    },
    /// A timeline other than 1 without an ancestor: the file is empty, or cut off before its first line.
    #[error("history of timeline {timeline} names no ancestor")]
    Empty {
        /// Whose history it is.
        timeline: TimelineId,
    },
    /// The file does not end with a line's end: it may be cut off.
    #[error("history of timeline {timeline} is cut off in its last line")]
    CutOff {
        /// Whose history it is.
        timeline: TimelineId,
    },
}

impl TimelineHistory {
    /// The history of timeline 1, which has no file.
    #[must_use]
    pub fn first() -> Self {
        TimelineHistory { timeline: TimelineId::FIRST, entries: Vec::new() }
    }

    /// The history of a timeline that branches off this one at `switch`.
    ///
    /// # Errors
    /// `timeline` is not later than this one, or `switch` lies before this one's beginning.
    pub fn branch(&self, timeline: TimelineId, switch: Lsn, reason: &str) -> Result<Self, HistoryError> {
        let mut entries = self.entries.clone();
        entries.push(HistoryEntry { timeline: self.timeline, switch, reason: reason.to_owned() });
        TimelineHistory { timeline, entries }.checked(|entry| entry + 1)
    }

    /// Reads a `.history` file of `timeline`.
    ///
    /// Fields may be separated by any white space, as PostgreSQL reads them. Bytes that are not UTF-8 can only stand
    /// in a reason, and are replaced.
    ///
    /// # Errors
    /// [`HistoryError`]: a file that PostgreSQL would refuse, and one without any ancestor.
    pub fn parse(timeline: TimelineId, text: &[u8]) -> Result<Self, HistoryError> {
        let text = String::from_utf8_lossy(text);
        let mut entries = Vec::new();
        let mut lines = Vec::new();
        for (number, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim_start())) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = HistoryEntry::parse(line).ok_or_else(|| HistoryError::Syntax {
                timeline,
                line: number,
                text: line.chars().take(100).collect(),
            })?;
            entries.push(entry);
            lines.push(number);
        }
        if entries.is_empty() && timeline != TimelineId::FIRST {
            return Err(HistoryError::Empty { timeline });
        }
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(HistoryError::CutOff { timeline });
        }
        TimelineHistory { timeline, entries }.checked(|entry| lines[entry])
    }

    /// Checks the order of ancestors and switch points; `line` tells the line of an entry.
    fn checked(self, line: impl Fn(usize) -> usize) -> Result<Self, HistoryError> {
        let timeline = self.timeline;
        let (mut after, mut switch) = (TimelineId(0), Lsn(0));
        for (at, entry) in self.entries.iter().enumerate() {
            if entry.timeline <= after || entry.timeline >= timeline {
                return Err(HistoryError::Order { timeline, line: line(at), found: entry.timeline, after });
            }
            if entry.switch < switch {
                return Err(HistoryError::Switch { timeline, line: line(at), found: entry.switch, after: switch });
            }
            (after, switch) = (entry.timeline, entry.switch);
        }
        Ok(self)
    }

    /// The timeline whose history it is.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// Its ancestors, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    /// The timeline this one branched off, and where; `None` for one without ancestors.
    #[must_use]
    pub fn parent(&self) -> Option<(TimelineId, Lsn)> {
        self.entries.last().map(|entry| (entry.timeline, entry.switch))
    }

    /// The timeline of this path on which the byte at `lsn` was written (`tliOfPointInHistory`).
    #[must_use]
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        self.entries.iter().find(|entry| lsn < entry.switch).map_or(self.timeline, |entry| entry.timeline)
    }

    /// Where `ancestor`'s WAL ends on this path; `None` if it is this timeline itself or not on the path
    /// (`tliSwitchPoint`).
    #[must_use]
    pub fn switch_from(&self, ancestor: TimelineId) -> Option<Lsn> {
        self.entries.iter().find(|entry| entry.timeline == ancestor).map(|entry| entry.switch)
    }

    /// `timeline` is this one or an ancestor of it.
    #[must_use]
    pub fn contains(&self, timeline: TimelineId) -> bool {
        self.timeline == timeline || self.switch_from(timeline).is_some()
    }

    /// All WAL of `timeline` below `lsn`, back to the beginning, is on this path: no branch was taken before.
    #[must_use]
    pub fn holds(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        self.timeline == timeline || self.switch_from(timeline).is_some_and(|switch| lsn <= switch)
    }

    /// Where WAL of `timeline` begins on this path: the switch point of the one before it, `0/0` for the oldest.
    #[must_use]
    pub fn start_of(&self, timeline: TimelineId) -> Option<Lsn> {
        let path = self.entries.iter().map(|entry| entry.timeline).chain([self.timeline]);
        let at = path.into_iter().position(|found| found == timeline)?;
        Some(at.checked_sub(1).map_or(Lsn(0), |before| self.entries[before].switch))
    }

    /// The last timeline that this path and another share, and where the first of them leaves it; the LSN is `None`
    /// if one is the other (they never part).
    ///
    /// `None` if they share no timeline: histories of different clusters.
    #[must_use]
    pub fn branch_point(&self, other: &TimelineHistory) -> Option<(TimelineId, Option<Lsn>)> {
        let mut common = None;
        let mut ours = self.path();
        let mut theirs = other.path();
        while let (Some((timeline, end)), Some((their_timeline, their_end))) = (ours.next(), theirs.next()) {
            if timeline != their_timeline {
                break;
            }
            let leaves = match (end, their_end) {
                (Some(end), Some(their_end)) => Some(end.min(their_end)),
                (end, their_end) => end.or(their_end),
            };
            common = Some((timeline, leaves));
            if end != their_end {
                break;
            }
        }
        common
    }

    /// The timelines of this path, oldest first, each with the LSN where the path leaves it (not the last).
    pub fn path(&self) -> impl Iterator<Item = (TimelineId, Option<Lsn>)> + '_ {
        let ancestors = self.entries.iter().map(|entry| (entry.timeline, Some(entry.switch)));
        ancestors.chain([(self.timeline, None)])
    }
}

impl HistoryEntry {
    fn parse(line: &str) -> Option<Self> {
        let (timeline, rest) = line.split_once(char::is_whitespace)?;
        let rest = rest.trim_start();
        let (switch, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if !timeline.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        Some(HistoryEntry {
            timeline: TimelineId(timeline.parse().ok()?),
            switch: switch.parse().ok()?,
            reason: reason.trim().to_owned(),
        })
    }
}

/// The text of the file, as PostgreSQL writes it.
impl fmt::Display for TimelineHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for entry in &self.entries {
            writeln!(f, "{}\t{}\t{}", entry.timeline, entry.switch, entry.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "1\t0/C001A18\tat restore point \"rp2\"\n3\t0/D000000\tbefore 2026-11-21 10:45:00+00\n";

    fn history(timeline: u32, text: &str) -> TimelineHistory {
        TimelineHistory::parse(TimelineId(timeline), text.as_bytes()).expect(text)
    }

    /// What the server wrote reads back and writes back as it was.
    #[test]
    fn round_trip() {
        let found = history(5, TEXT);
        assert_eq!(found.to_string(), TEXT);
        assert_eq!(found.parent(), Some((TimelineId(3), Lsn(0xD00_0000))));
        let commented = format!("# a comment\n\n{}", TEXT.replace('\t', "   "));
        assert_eq!(history(5, &commented).to_string(), TEXT);
        let json = serde_json::to_string(&found).expect("plain data");
        assert_eq!(serde_json::from_str::<TimelineHistory>(&json).expect("our own JSON"), found);
    }

    /// A switch point is the first byte of the new timeline.
    #[test]
    fn timeline_of_a_place() {
        let found = history(5, TEXT);
        for (lsn, timeline) in [(0, 1), (0xC00_1A17, 1), (0xC00_1A18, 3), (0xCFF_FFFF, 3), (0xD00_0000, 5)] {
            assert_eq!(found.timeline_at(Lsn(lsn)), TimelineId(timeline), "{lsn:X}");
        }
        assert_eq!(found.start_of(TimelineId(3)), Some(Lsn(0xC00_1A18)));
        assert_eq!(found.start_of(TimelineId(2)), None);
        assert_eq!(found.switch_from(TimelineId(5)), None);
        for (timeline, lsn, held) in [(1, 0xC00_1A18, true), (1, 0xC00_1A19, false), (2, 1, false), (5, u64::MAX, true)]
        {
            assert_eq!(found.holds(TimelineId(timeline), Lsn(lsn)), held, "{timeline} {lsn:X}");
        }
    }

    /// Siblings part where the earlier of the two left their parent; an ancestor and its descendant at the switch.
    #[test]
    fn branch_points() {
        let root = TimelineHistory::first();
        let two = root.branch(TimelineId(2), Lsn(200), "x").expect("a valid branch");
        let three = root.branch(TimelineId(3), Lsn(150), "x").expect("a valid branch");
        let four = two.branch(TimelineId(4), Lsn(300), "x").expect("a valid branch");
        assert_eq!(two.branch_point(&three), Some((TimelineId(1), Some(Lsn(150)))));
        assert_eq!(four.branch_point(&three), Some((TimelineId(1), Some(Lsn(150)))));
        assert_eq!(four.branch_point(&two), Some((TimelineId(2), Some(Lsn(300)))));
        assert_eq!(root.branch_point(&four), Some((TimelineId(1), Some(Lsn(200)))));
        assert_eq!(two.branch_point(&two), Some((TimelineId(2), None)));
    }

    /// A file that PostgreSQL would refuse, or that may be cut off, is refused with its line.
    #[test]
    fn refused() {
        let timeline = TimelineId(5);
        for (text, line) in [("x\t0/1\ty\n", 1), ("# c\n1\t0-1\ty\n", 2), ("1\n", 1), ("-1\t0/1\n", 1)] {
            let error = TimelineHistory::parse(timeline, text.as_bytes());
            assert!(matches!(error, Err(HistoryError::Syntax { line: found, .. }) if found == line), "{error:?}");
        }
        for text in ["5\t0/1\ty\n", "2\t0/1\ty\n2\t0/2\ty\n", "0\t0/1\ty\n"] {
            let error = TimelineHistory::parse(timeline, text.as_bytes());
            assert!(matches!(error, Err(HistoryError::Order { .. })), "{error:?}");
        }
        let error = TimelineHistory::parse(timeline, b"1\t0/2\ty\n2\t0/1\ty\n");
        assert!(matches!(error, Err(HistoryError::Switch { line: 2, .. })), "{error:?}");
        assert_eq!(TimelineHistory::parse(timeline, b"# x\n"), Err(HistoryError::Empty { timeline }));
        assert_eq!(TimelineHistory::parse(timeline, b"1\t0/1\tno"), Err(HistoryError::CutOff { timeline }));
    }
}
