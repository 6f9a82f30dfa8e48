//! Making roll-ups from the stored segments alone.

use super::{GroupListing, RepositoryError, SegmentReader, SegmentReading, ServerRecord, ServerRepository};
use crate::catalog::{RollUp, RollUpEntry, RollUpName, RollUpNotes, SegmentNotes, Straddling};
use crate::codec::{DamageNote, Origin};
use crate::recovery::WalCopy;
use crate::wal::{PgTime, SegmentGroup, SegmentName, TimelineId};

/// Most roll-ups that are made beside other work, and most groups that are looked at for it.
const MOST_BESIDE: usize = 16;
const MOST_LOOKED_AT: usize = 64;

/// What came of one group.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GroupReport {
    /// Complete segments in it.
    pub segments: u64,
    /// Of those, how many had to be read whole.
    pub scanned: u64,
    /// Its roll-up was written; else the one that is there tells all of it already.
    pub written: bool,
    /// What is wrong in it.
    pub problems: Vec<Problem>,
}

/// Something wrong with stored WAL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The segment.
    pub segment: SegmentName,
    /// What is wrong.
    pub kind: ProblemKind,
    /// In words.
    pub why: String,
}

/// What is wrong with a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// Its object cannot be read.
    Unreadable,
    /// Its records stop making sense.
    Records,
    /// The record that leads into it from the segment before does not make sense.
    Border,
    /// Only a damaged copy of it was archived.
    DamagedCopy,
}

/// Makes the roll-ups of one server.
#[derive(Debug)]
pub struct Reindexer {
    reader: SegmentReader,
    /// Nothing of the roll-ups that are there is taken over.
    afresh: bool,
    /// The roll-ups of the timeline that is gone through.
    there: Option<(TimelineId, Vec<RollUpName>)>,
}

/// A roll-up in the making.
#[derive(Default)]
pub(super) struct Draft {
    entries: Vec<RollUpEntry>,
    notes: RollUpNotes,
    report: GroupReport,
}

impl ServerRepository {
    /// Makes roll-ups from the stored segments; `afresh`: without taking over anything from those that are there.
    #[must_use]
    pub fn reindexer(&self, record: &ServerRecord, afresh: bool) -> Reindexer {
        Reindexer { reader: SegmentReader::new(self, record), afresh, there: None }
    }

    /// Makes the roll-ups of a timeline's complete groups that have none, or only part of one, the newest first, as many as can be
    /// made beside other work; returns how many. Segments whose description lacks the facts are left to a [`Reindexer`].
    ///
    /// # Errors
    /// The store fails.
    pub fn roll_up_complete(&self, record: &ServerRecord, timeline: TimelineId) -> Result<usize, RepositoryError> {
        let made = self.roll_ups(timeline)?;
        let groups = self.groups(timeline)?;
        let mut reader = SegmentReader::new(self, record);
        let mut count = 0;
        let known = |group: &SegmentGroup| made.get(group).map(|name| u64::from(name.count));
        let capacity = |group: &SegmentGroup| group.capacity(record.segment_size_bytes);
        let open = groups.into_iter().rev().filter(|group| known(group).is_none_or(|count| count < capacity(group)));
        for group in open.take(MOST_LOOKED_AT) {
            let listing = self.list_group(group)?;
            if listing.count() < capacity(&group) {
                continue;
            }
            let mut draft = Draft::default();
            reader.read_ahead(&listing.segments().collect::<Vec<_>>())?;
            for segment in listing.segments() {
                if reader.has_facts(segment) {
                    draft.add(&mut reader, segment)?;
                }
            }
            // Segments without facts are no reason to do it again each time.
            if known(&group).is_some_and(|count| count >= draft.entries.len() as u64) {
                continue;
            }
            let replaces: Vec<RollUpName> = made.get(&group).copied().into_iter().collect();
            self.put_roll_up(&draft.finish(self, &listing)?.0, &replaces)?;
            count += 1;
            if count == MOST_BESIDE {
                break;
            }
        }
        Ok(count)
    }
}

impl Reindexer {
    /// Brings the roll-up of a group up to date. `go_on` is asked before each segment; `None` if it said no.
    ///
    /// # Errors
    /// The store fails.
    pub fn group(
        &mut self,
        listing: &GroupListing,
        go_on: &dyn Fn() -> bool,
    ) -> Result<Option<GroupReport>, RepositoryError> {
        let server = self.reader.server().clone();
        let there = self.there(listing.group)?;
        // The folder of what retention removed.
        if there.is_empty() && listing.count() == 0 && listing.others.is_empty() {
            return Ok(Some(GroupReport::default()));
        }
        let old = match there.last() {
            Some(name) if !self.afresh => server.roll_up(*name)?,
            _ => None,
        };
        let old = old.and_then(|roll_up| Some((roll_up.notes().ok()?, roll_up)));
        if let Some((notes, roll_up)) = &old
            && self.is_up_to_date(roll_up, listing)?
        {
            return Ok(Some(GroupReport { written: false, ..told(roll_up, notes, listing) }));
        }
        let mut draft = Draft::default();
        // What was read whole before need not be again.
        let known = |segment| {
            let (notes, roll_up) = old.as_ref()?;
            roll_up.entry(segment).filter(|entry| entry.scanned).map(|entry| (notes, entry))
        };
        let unknown: Vec<_> = listing.segments().filter(|segment| known(*segment).is_none()).collect();
        self.reader.read_ahead(&unknown)?;
        for segment in listing.segments() {
            if !go_on() {
                return Ok(None);
            }
            match known(segment) {
                Some((notes, entry)) if self.reader.is_settled(entry)? => draft.take_over(entry, notes),
                _ => draft.add(&mut self.reader, segment)?,
            }
        }
        let (roll_up, mut report) = draft.finish(&server, listing)?;
        report.written = server.put_roll_up(&roll_up, &there)?;
        Ok(Some(report))
    }

    /// The roll-ups of a group, the fullest last.
    fn there(&mut self, group: SegmentGroup) -> Result<Vec<RollUpName>, RepositoryError> {
        let timeline = group.timeline();
        if self.there.as_ref().is_none_or(|(known, _)| *known != timeline) {
            self.there = Some((timeline, self.reader.server().all_roll_ups(timeline)?));
        }
        let names = self.there.iter().flat_map(|(_, names)| names);
        Ok(names.filter(|name| name.group == group).copied().collect())
    }

    /// Whether a roll-up tells of exactly the segments that are there, and of every record over a border that can be told.
    fn is_up_to_date(&mut self, roll_up: &RollUp, listing: &GroupListing) -> Result<bool, RepositoryError> {
        if !roll_up.entries.iter().map(|entry| entry.segment).eq(listing.segments()) {
            return Ok(false);
        }
        for entry in &roll_up.entries {
            if !self.reader.is_settled(entry)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// What a roll-up that is there tells.
fn told(roll_up: &RollUp, notes: &RollUpNotes, listing: &GroupListing) -> GroupReport {
    let mut report = GroupReport { segments: roll_up.entries.len() as u64, ..GroupReport::default() };
    for notes in &notes.segments {
        let border = roll_up.entry(notes.segment).map(|entry| entry.border);
        report.problems.extend(notes.damage.as_ref().map(|damage| problem(notes.segment, border, damage)));
    }
    report.add_damaged_copies(listing);
    report
}

fn problem(segment: SegmentName, border: Option<Straddling>, damage: &DamageNote) -> Problem {
    let (kind, what) = match border {
        Some(Straddling::Damaged) => (ProblemKind::Border, "the record that leads into it is none"),
        _ => (ProblemKind::Records, "its records stop making sense"),
    };
    Problem { segment, kind, why: format!("{what} at {}: {}", damage.lsn, damage.why) }
}

impl GroupReport {
    fn add_damaged_copies(&mut self, listing: &GroupListing) {
        for segment in listing.only_damaged() {
            let why = "only a damaged copy of it was archived".to_owned();
            self.problems.push(Problem { segment, kind: ProblemKind::DamagedCopy, why });
        }
    }
}

impl Draft {
    /// Reads a segment. One that cannot be read gets no entry, so that whoever needs it meets it itself.
    fn add(&mut self, reader: &mut SegmentReader, segment: SegmentName) -> Result<(), RepositoryError> {
        match reader.read(&WalCopy::Segment(segment)) {
            Ok(reading) => self.push(segment, reading),
            Err(RepositoryError::Damaged { source, .. }) => {
                let kind = ProblemKind::Unreadable;
                self.report.problems.push(Problem { segment, kind, why: source.to_string() });
            }
            // It was listed, and removed since.
            Err(RepositoryError::Storage(error)) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn push(&mut self, segment: SegmentName, reading: SegmentReading) {
        let SegmentReading { facts, border, scanned, stored_bytes, footer, archived_by, notes } = reading;
        self.report.scanned += u64::from(scanned);
        let entry = RollUpEntry {
            segment,
            facts,
            border,
            scanned,
            stored_bytes,
            raw_crc: footer.as_ref().map_or(0, |footer| footer.raw_crc),
            archived_at: footer.map_or(PgTime(0), |footer| footer.archived_at),
            origin: self.origin(&archived_by),
        };
        self.put(entry, Some(notes));
    }

    fn take_over(&mut self, entry: &RollUpEntry, notes: &RollUpNotes) {
        let origin = notes.origins.get(usize::from(entry.origin)).cloned().unwrap_or_default();
        let origin = self.origin(&origin);
        let notes = notes.segments.iter().find(|notes| notes.segment == entry.segment);
        self.put(RollUpEntry { origin, ..entry.clone() }, notes.cloned());
    }

    pub(super) fn put(&mut self, entry: RollUpEntry, notes: Option<SegmentNotes>) {
        self.report.segments += 1;
        if let Some(notes) = notes {
            let border = Some(entry.border);
            self.report.problems.extend(notes.damage.as_ref().map(|damage| problem(notes.segment, border, damage)));
            if !notes.events.is_empty() || notes.events_cut || notes.damage.is_some() {
                self.notes.segments.push(notes);
            }
        }
        self.entries.push(entry);
    }

    /// The index of an origin among those of the group, which are few.
    pub(super) fn origin(&mut self, origin: &Origin) -> u16 {
        let known = self.notes.origins.iter().position(|known| known == origin);
        let at = known.unwrap_or_else(|| {
            self.notes.origins.push(origin.clone());
            self.notes.origins.len() - 1
        });
        // There are no more than segments.
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    fn finish(
        mut self,
        server: &ServerRepository,
        listing: &GroupListing,
    ) -> Result<(RollUp, GroupReport), RepositoryError> {
        self.report.add_damaged_copies(listing);
        let report = std::mem::take(&mut self.report);
        Ok((self.roll_up(server, listing.group)?, report))
    }

    pub(super) fn roll_up(self, server: &ServerRepository, group: SegmentGroup) -> Result<RollUp, RepositoryError> {
        let roll_up = RollUp::new(server.system_identifier, group, self.entries, &self.notes);
        Ok(roll_up.map_err(|error| server.storage.failed("write", &server.folder, &error))?)
    }
}
