//! Reading a road's segments in order, from the place where relations have names, and going on when more is archived.

use jiff::tz::TimeZone;

use super::{History, HistoryError, Place, RelationPattern};
use crate::command::Interrupt;
use crate::recovery::moment::in_both;
use crate::recovery::{Road, RoadSegment, WalCopy};
use crate::repository::RepositoryError;
use crate::repository::evidence::StoredEvidence;
use crate::wal::activity::{Activity, ActivityReader};
use crate::wal::names::{RelationKind, RelationNames};
use crate::wal::{Borders, Lsn, PgTime, PostgresMajor, SegmentNo, SegmentSize};

/// How far reading has come.
pub struct Reading {
    reader: ActivityReader,
    major: PostgresMajor,
    size: SegmentSize,
    borders: Borders,
    next: SegmentNo,
    /// Nothing before this is handed out: it was read for the names.
    start: Lsn,
    /// The last time of a commit, rollback or checkpoint.
    time: Option<PgTime>,
    /// The incomplete copy that was read last, and how far it goes: it is not read again until there is more of it.
    incomplete: Option<(WalCopy, Lsn)>,
    /// What could not be read on the way.
    holes: Vec<Hole>,
}

/// WAL that cannot be read: what happened in it is not known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hole {
    /// Where it begins and ends.
    from: Lsn,
    to: Lsn,
    /// The last time of a commit before it.
    after: Option<PgTime>,
    /// Why it cannot be read; `None`: it is missing.
    damage: Option<String>,
}

impl Hole {
    /// In a sentence, with the time in UTC and in a zone.
    #[must_use]
    pub fn told(&self, zone: &TimeZone) -> String {
        let Hole { from, to, after, damage } = self;
        let when = after.map_or_else(String::new, |time| format!(", behind commits of {}", in_both(time, zone)));
        let what = match damage {
            None => format!("WAL is missing between LSN {from} and {to}"),
            Some(why) => format!("the WAL between LSN {from} and {to} is damaged as it is stored ({why})"),
        };
        format!("{what}{when}: what happened there is not known")
    }
}

/// A segment that was read.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Where it is on the road.
    pub at: RoadSegment,
    /// Where its records end.
    pub end: Lsn,
    /// What could not be read before it, or of it.
    pub holes: Vec<Hole>,
}

impl Reading {
    /// Begins at a place: with the names of the base backup there, or as `named` says without names.
    ///
    /// # Errors
    /// The base backup cannot be read.
    pub fn begin(history: &History, place: &Place, named: bool) -> Result<Reading, HistoryError> {
        let (major, size) = (history.record.major, history.record.segment_size_bytes);
        let names = match &place.backup {
            _ if !named => None,
            Some(backup) => match backup.id.parse() {
                Ok(id) => Some(history.server.names_of_backup(id)?),
                Err(_) => Some(RelationNames::new(major)),
            },
            None => Some(RelationNames::new(major)),
        };
        let from = place.backup.as_ref().map_or_else(|| place.first.start(size), |backup| backup.start_lsn);
        Ok(Reading {
            reader: ActivityReader::new(major, names, from),
            major,
            size,
            borders: Borders::new(),
            next: place.first,
            start: place.start,
            time: None,
            incomplete: None,
            holes: Vec::new(),
        })
    }

    /// Reads the next segment, not behind `last`, and hands out what happened, each with the last time known then. `None` at the end.
    ///
    /// One that is damaged is a hole, as one that is missing: there are no names behind it until the WAL tells them again.
    ///
    /// # Errors
    /// The store fails.
    pub fn step(
        &mut self,
        history: &History,
        road: &Road<'_>,
        evidence: &mut StoredEvidence,
        last: Option<SegmentNo>,
        each: &mut dyn FnMut(Activity, Option<PgTime>),
    ) -> Result<Option<Segment>, HistoryError> {
        let Some(at) = self.next_on(road, evidence)? else { return Ok(None) };
        if last.is_some_and(|last| at.number > last) {
            return Ok(None);
        }
        let known = self.holes.len();
        if at.after_gap || at.number > self.next {
            self.gap(self.next.start(self.size), at.number.start(self.size), None);
        }
        let (start, time) = (self.start, &mut self.time);
        let mut visitor = self.reader.visitor(at.valid_until, |activity: Activity| {
            *time = activity.time().or(*time);
            if activity.lsn() >= start {
                each(activity, *time);
            }
        });
        let mut borders = self.borders.clone();
        let end = match history.server.visit(&at.copy, self.size, self.major, &mut borders, &mut visitor) {
            Ok(scan) => scan.facts.end,
            Err(RepositoryError::Damaged { source, .. }) => {
                self.gap(at.number.start(self.size), at.number.end(self.size), Some(source.to_string()));
                self.next = at.number.next();
                let holes = self.holes[known..].to_vec();
                return Ok(Some(Segment { end: at.number.end(self.size), at, holes }));
            }
            Err(error) => return Err(error.into()),
        };
        let complete = at.copy.is_served() && at.valid_until.is_none();
        if complete {
            self.borders = borders;
            self.next = at.number.next();
            self.incomplete = None;
        } else {
            self.next = at.number;
            self.incomplete = Some((at.copy.clone(), end));
        }
        Ok(Some(Segment { end, at, holes: self.holes[known..].to_vec() }))
    }

    fn gap(&mut self, from: Lsn, to: Lsn, damage: Option<String>) {
        self.reader.gap();
        self.borders = Borders::new();
        self.holes.push(Hole { from, to, after: self.time, damage });
    }

    /// The last time of a commit, rollback or checkpoint so far.
    #[must_use]
    pub fn last_time(&self) -> Option<PgTime> {
        self.time
    }

    /// What could not be read so far.
    #[must_use]
    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// The segment to read; behind an incomplete one that has nothing new, if more is stored there.
    fn next_on(&self, road: &Road<'_>, evidence: &mut StoredEvidence) -> Result<Option<RoadSegment>, RepositoryError> {
        let Some(at) = road.next(self.next, evidence)? else { return Ok(None) };
        match &self.incomplete {
            Some((copy, end)) if *copy == at.copy && at.facts.end <= *end => road.next(at.number.next(), evidence),
            _ => Ok(Some(at)),
        }
    }

    /// Reads on to `last` or the end. `seen` hears of each segment.
    ///
    /// # Errors
    /// As for [`Reading::step`]; [`HistoryError::Interrupted`].
    pub fn run(
        &mut self,
        history: &History,
        road: &Road<'_>,
        last: Option<SegmentNo>,
        interrupt: &Interrupt,
        each: &mut dyn FnMut(Activity, Option<PgTime>),
        seen: &mut dyn FnMut(&Segment) -> Result<(), HistoryError>,
    ) -> Result<(), HistoryError> {
        let mut evidence = history.evidence();
        while let Some(segment) = self.step(history, road, &mut evidence, last, each)? {
            seen(&segment)?;
            if interrupt.requested() {
                return Err(HistoryError::Interrupted);
            }
        }
        Ok(())
    }

    /// The segment to be read next.
    #[must_use]
    pub fn next_segment(&self) -> SegmentNo {
        self.next
    }

    /// The tables of partitions that a pattern means, as they are called where reading has come to. Their rows lie in the partitions, and
    /// the WAL names those.
    #[must_use]
    pub fn partitioned(&self, pattern: &RelationPattern) -> Vec<String> {
        let Some(names) = self.reader.names() else { return Vec::new() };
        let all = names.databases().flat_map(|database| names.relations(database));
        let meant = all.filter(|name| name.kind == RelationKind::PartitionedTable && pattern.matches(name));
        let mut meant: Vec<String> = meant.map(|name| format!("{}.{}", name.schema, name.name)).collect();
        meant.sort_unstable();
        meant
    }

    /// Why some relations have numbers, or rows are not counted, in sentences.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let names = self.reader.names().into_iter().flat_map(RelationNames::notes).map(ToString::to_string);
        let rows = self
            .reader
            .overflowed()
            .then(|| "too many transactions were open at once: some rows are not counted".to_owned());
        names.chain(rows).collect()
    }
}
