//! `SegmentReader`: what the stored copies of segments say, each together with the record that leads into it.
//!
//! A segment's description comes from the end of its object and costs one small read; its events cost reading it whole.
//! The record that straddles the border to the segment before is put together here from the pieces that both
//! descriptions carry, so that no commit is overlooked because it happens to lie on a border.

use std::collections::{HashMap, VecDeque};

use super::proof::is_remarkable;
use super::scanning::Scanning;
use super::wal::{StoredWalFile, WalObjectName};
use super::{RepositoryError, ServerRecord, ServerRepository};
use crate::catalog::{RollUpEntry, SegmentNotes, Straddling};
use crate::codec::{DamageNote, Details, Footer, Origin};
use crate::recovery::WalCopy;
use crate::wal::{
    Completeness, Damage, Event, EventsTo, Flaw, HeadPiece, Joined, Lsn, PostgresMajor, SegmentEnding, SegmentFacts,
    SegmentName, SegmentNo, SegmentScan, SegmentSize, TailPiece, TimelineHistory, TimelineId, join,
};

/// A record spans few segments (at most 1 GiB in all); what claims more is no record.
const MOST_HEADS: usize = 1024;
/// Segments whose pieces are remembered: who reads one after the other needs the last.
const MOST_PIECES: usize = 4;

/// Reads stored segments.
#[derive(Debug)]
pub struct SegmentReader {
    server: ServerRepository,
    major: PostgresMajor,
    segment_size: SegmentSize,
    histories: HashMap<TimelineId, Option<TimelineHistory>>,
    /// The latest at the end.
    pieces: VecDeque<(SegmentName, Pieces)>,
    /// Descriptions that were read in one go.
    described: HashMap<SegmentName, StoredWalFile>,
}

/// What a segment has to do with its neighbours.
#[derive(Clone, Debug)]
struct Pieces {
    head: Option<HeadPiece>,
    tail: Option<TailPiece>,
    /// The last record that begins and ends in it.
    last_record: Option<Lsn>,
    /// Its records are good to its end.
    whole: bool,
}

/// What a stored copy says.
#[derive(Clone, Debug)]
pub struct SegmentReading {
    /// Its facts, with the record over the border before it.
    pub facts: SegmentFacts,
    /// That record.
    pub border: Straddling,
    /// The facts were not in the object's description: its body was read.
    pub scanned: bool,
    /// Bytes of the object; 0 for the tail of a backup.
    pub stored_bytes: u64,
    /// CRC-32 of the raw bytes, when and by whom it was archived; nothing of it is known of a backup's tail.
    pub footer: Option<Footer>,
    /// Who archived it.
    pub archived_by: Origin,
    /// What happened, and what is wrong.
    pub notes: SegmentNotes,
}

/// A copy's own content, without its neighbours.
struct Look {
    facts: SegmentFacts,
    details: Details,
    scanned: bool,
    stored_bytes: u64,
    footer: Option<Footer>,
}

/// The record over a border, as far as it can be told.
struct Crossing {
    border: Straddling,
    event: Option<Event>,
    damage: Option<Damage>,
}

impl Crossing {
    fn of(border: Straddling) -> Crossing {
        Crossing { border, event: None, damage: None }
    }
}

impl SegmentReader {
    /// A reader of one server's segments.
    #[must_use]
    pub fn new(server: &ServerRepository, record: &ServerRecord) -> SegmentReader {
        SegmentReader {
            server: server.clone(),
            major: record.major,
            segment_size: record.segment_size_bytes,
            histories: HashMap::new(),
            pieces: VecDeque::new(),
            described: HashMap::new(),
        }
    }

    /// The server's part of the repository.
    #[must_use]
    pub fn server(&self) -> &ServerRepository {
        &self.server
    }

    /// The segment size.
    #[must_use]
    pub fn segment_size(&self) -> SegmentSize {
        self.segment_size
    }

    /// Whether an entry of a roll-up tells all that there is to tell now: a record that leads into its segment was known, or
    /// still is not.
    ///
    /// # Errors
    /// The store fails.
    pub fn is_settled(&mut self, entry: &RollUpEntry) -> Result<bool, RepositoryError> {
        Ok(entry.border != Straddling::Open || self.before(entry.segment)?.is_none())
    }

    /// Reads the descriptions of these segments in one go, in as many threads as the store is quicker with, and keeps them until
    /// the next such call. One that is damaged or gone is left to whoever asks for it.
    ///
    /// # Errors
    /// The store fails.
    pub fn read_ahead(&mut self, segments: &[SegmentName]) -> Result<(), RepositoryError> {
        self.described.clear();
        let server = &self.server;
        let described =
            server.in_parallel(segments, |segment| match server.describe(WalObjectName::Segment(*segment)) {
                Ok(described) => Ok(Some((*segment, described))),
                Err(RepositoryError::Damaged { .. }) => Ok(None),
                Err(RepositoryError::Storage(error)) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            });
        self.described.extend(described?.into_iter().flatten());
        Ok(())
    }

    /// Whether a segment was read by the last [`SegmentReader::read_ahead`].
    #[must_use]
    pub fn was_read_ahead(&self, segment: SegmentName) -> bool {
        self.described.contains_key(&segment)
    }

    /// Whether it was, and its description has the facts.
    #[must_use]
    pub fn has_facts(&self, segment: SegmentName) -> bool {
        self.described.get(&segment).is_some_and(|described| described.footer.facts.is_some())
    }

    /// Reads what a copy says. Its body is read only if its description lacks the facts.
    ///
    /// # Errors
    /// The copy is damaged or gone, or the store fails.
    pub fn read(&mut self, copy: &WalCopy) -> Result<SegmentReading, RepositoryError> {
        let Look { mut facts, mut details, scanned, stored_bytes, footer } = self.look(copy)?;
        let segment = copy.segment();
        let crossing = self.crossing(segment, details.head.take(), facts.before_first_record)?;
        let mut notes =
            SegmentNotes { segment, events: Vec::new(), events_cut: details.events_cut, damage: details.damage };
        if let Some(event) = crossing.event {
            facts.prepend(&event);
            if is_remarkable(&event) {
                notes.events.push(event);
            }
        }
        notes.events.append(&mut details.events);
        if let Some(damage) = crossing.damage {
            let start = segment.number(self.segment_size).map(|number| number.start(self.segment_size));
            facts = SegmentFacts::unreachable(start.unwrap_or(facts.end));
            notes.damage = Some(damage.into());
        }
        let archived_by = details.archived_by;
        Ok(SegmentReading { facts, border: crossing.border, scanned, stored_bytes, footer, archived_by, notes })
    }

    /// Takes in what the body of a stored segment says, and tells about the record that leads into it from the segment before.
    ///
    /// # Errors
    /// The store fails, or a history file is damaged.
    pub(super) fn lead_in(
        &mut self,
        segment: SegmentName,
        scan: &SegmentScan,
    ) -> Result<(Straddling, Option<Damage>), RepositoryError> {
        let whole = scan.damage.is_none() && scan.facts.ending != SegmentEnding::Unfinished;
        let (head, tail) = (scan.head.clone(), scan.tail.clone());
        let pieces = Pieces { head, tail, last_record: scan.facts.last_record, whole };
        self.keep(segment, pieces);
        let crossing = self.crossing(segment, scan.head.clone(), scan.facts.before_first_record)?;
        Ok((crossing.border, crossing.damage))
    }

    /// Hands out everything of interest in a copy, in LSN order: reads it whole.
    ///
    /// # Errors
    /// As for [`SegmentReader::read`].
    pub fn events(&mut self, copy: &WalCopy, each: &mut dyn FnMut(Event)) -> Result<(), RepositoryError> {
        let mut events = Vec::new();
        let scan = self.scan(copy, &mut |event| events.push(event))?;
        let crossing = self.crossing(copy.segment(), scan.head, scan.facts.before_first_record)?;
        if crossing.border != Straddling::Damaged {
            crossing.event.into_iter().chain(events).for_each(each);
        }
        Ok(())
    }

    /// The object that holds a copy; none for the tail of a backup.
    fn object(&self, copy: &WalCopy) -> Result<Option<WalObjectName>, RepositoryError> {
        match copy {
            WalCopy::Tail { .. } => Ok(None),
            WalCopy::Segment(_) | WalCopy::Partial { .. } => self.server.object_of(copy).map(Some),
        }
    }

    /// What a copy says for itself.
    fn look(&mut self, copy: &WalCopy) -> Result<Look, RepositoryError> {
        let described = match self.object(copy)? {
            Some(name) => Some(match (name, self.described.get(&copy.segment())) {
                (WalObjectName::Segment(_), Some(described)) => described.clone(),
                _ => self.server.describe(name)?,
            }),
            None => None,
        };
        let look = match described {
            Some(StoredWalFile { footer, details, stored_bytes }) => match footer.facts {
                Some(facts) => Look { facts, details, scanned: false, stored_bytes, footer: Some(footer) },
                None => {
                    let read = self.read_body(copy, details.archived_by)?;
                    Look { stored_bytes, footer: Some(footer), ..read }
                }
            },
            None => self.read_body(copy, Origin::default())?,
        };
        if let WalCopy::Segment(segment) = copy {
            self.remember(*segment, &look);
        }
        Ok(look)
    }

    fn read_body(&self, copy: &WalCopy, archived_by: Origin) -> Result<Look, RepositoryError> {
        let mut details = Details { archived_by, ..Details::default() };
        let scan = self.scan(copy, &mut |event| {
            if is_remarkable(&event) {
                details.note(event);
            }
        })?;
        let damage = scan.damage.map(DamageNote::from);
        let details = Details { head: scan.head, tail: scan.tail, damage, ..details };
        Ok(Look { facts: scan.facts, details, scanned: true, stored_bytes: 0, footer: None })
    }

    fn scan(&self, copy: &WalCopy, each: &mut dyn FnMut(Event)) -> Result<SegmentScan, RepositoryError> {
        let completeness = if copy.is_served() { Completeness::Complete } else { Completeness::MayEnd };
        let mut visitor = EventsTo(each);
        let mut scanning = Scanning::new(copy.segment(), self.segment_size, completeness, None, &mut visitor);
        self.server.read_copy(copy, &mut scanning)?;
        scanning.finish().ok_or_else(|| self.server.unknown(&copy.segment().to_string()))
    }

    fn remember(&mut self, segment: SegmentName, look: &Look) {
        let whole = look.details.damage.is_none() && look.facts.ending != SegmentEnding::Unfinished;
        let (head, tail) = (look.details.head.clone(), look.details.tail.clone());
        self.keep(segment, Pieces { head, tail, last_record: look.facts.last_record, whole });
    }

    fn keep(&mut self, segment: SegmentName, pieces: Pieces) {
        self.pieces.retain(|(known, _)| *known != segment);
        if self.pieces.len() >= MOST_PIECES {
            self.pieces.pop_front();
        }
        self.pieces.push_back((segment, pieces));
    }

    /// The pieces of a stored segment; `None` if it cannot be read.
    fn pieces(&mut self, segment: SegmentName) -> Result<Option<Pieces>, RepositoryError> {
        if let Some((_, pieces)) = self.pieces.iter().find(|(known, _)| *known == segment) {
            return Ok(Some(pieces.clone()));
        }
        match self.look(&WalCopy::Segment(segment)) {
            Ok(_) => Ok(self.pieces.back().map(|(_, pieces)| pieces.clone())),
            // It is told where it is read for its own sake.
            Err(RepositoryError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What there is of the record that leads into a segment. `previous` is what its own first record names as the one before.
    fn crossing(
        &mut self,
        segment: SegmentName,
        head: Option<HeadPiece>,
        previous: Option<Lsn>,
    ) -> Result<Crossing, RepositoryError> {
        if head.as_ref().is_some_and(|head| !head.is_last()) {
            // It ends in a later segment.
            return Ok(Crossing::of(Straddling::None));
        }
        let mut chain = vec![segment];
        let mut heads = vec![head];
        let mut at = segment;
        while heads.len() < MOST_HEADS {
            let Some(before) = self.before(at)? else { break };
            let Some(pieces) = self.pieces(before)?.filter(|pieces| pieces.whole) else { break };
            chain.insert(0, before);
            match pieces.head.clone().filter(|head| !head.is_last()) {
                Some(middle) => heads.insert(0, Some(middle)),
                None => return self.joined(&chain, &pieces, &heads, previous),
            }
            at = before;
        }
        Ok(Crossing::of(Straddling::Open))
    }

    fn joined(
        &mut self,
        chain: &[SegmentName],
        first: &Pieces,
        heads: &[Option<HeadPiece>],
        previous: Option<Lsn>,
    ) -> Result<Crossing, RepositoryError> {
        let heads: Vec<_> = heads.iter().map(Option::as_ref).collect();
        let before = first.tail.as_ref().map(|tail| tail.start).or(first.last_record);
        match join(first.tail.as_ref(), &heads, self.major) {
            Joined::Overwritten => Ok(Crossing::of(Straddling::None)),
            Joined::Incomplete => Ok(Crossing::of(Straddling::Open)),
            Joined::Damaged(damage) => Ok(Crossing { border: Straddling::Damaged, event: None, damage: Some(damage) }),
            joined @ (Joined::Nothing | Joined::Proved { .. }) => {
                if let (Some(expected), Some(found)) = (before, previous)
                    && expected != found
                {
                    let why = Flaw::PreviousRecord { expected, found };
                    let damage = Damage { lsn: expected, why };
                    return Ok(Crossing { border: Straddling::Damaged, event: None, damage: Some(damage) });
                }
                match joined {
                    Joined::Proved { short: true, .. } => self.joined_in_full(chain),
                    Joined::Proved { event, .. } => Ok(Crossing { border: Straddling::Proved, event, damage: None }),
                    _ => Ok(Crossing::of(Straddling::None)),
                }
            }
        }
    }

    /// Reads the bodies of all segments that a long record is in: their descriptions keep only its beginning and end.
    fn joined_in_full(&self, chain: &[SegmentName]) -> Result<Crossing, RepositoryError> {
        let mut tail = None;
        let mut heads = Vec::new();
        for (at, segment) in chain.iter().enumerate() {
            let scan = self.scan(&WalCopy::Segment(*segment), &mut drop)?;
            match at {
                0 => tail = scan.tail,
                _ => heads.push(scan.head),
            }
        }
        let heads: Vec<_> = heads.iter().map(Option::as_ref).collect();
        let event = match join(tail.as_ref(), &heads, self.major) {
            Joined::Proved { event, .. } => event,
            Joined::Nothing | Joined::Incomplete | Joined::Overwritten | Joined::Damaged(_) => None,
        };
        Ok(Crossing { border: Straddling::Proved, event, damage: None })
    }

    /// The stored segment before another. Where a fork cuts it, the child's copy alone leads on to this one.
    ///
    /// # Errors
    /// The store fails, or a history file is damaged.
    pub fn before(&mut self, segment: SegmentName) -> Result<Option<SegmentName>, RepositoryError> {
        let Ok(SegmentNo(number)) = segment.number(self.segment_size) else { return Ok(None) };
        let Some(number) = number.checked_sub(1).map(SegmentNo) else { return Ok(None) };
        let timeline = segment.timeline();
        if !self.histories.contains_key(&timeline) {
            let has_history = timeline != TimelineId::FIRST;
            let history = if has_history { self.server.history(timeline)? } else { None };
            self.histories.insert(timeline, history);
        }
        let history = self.histories.get(&timeline).and_then(Option::as_ref);
        let last_byte = Lsn(number.end(self.segment_size).0 - 1);
        let on = history.map_or(timeline, |history| history.timeline_at(last_byte));
        let name = SegmentName::new(on, number, self.segment_size);
        let known = self.pieces.iter().any(|(known, _)| *known == name);
        Ok((known || self.server.holds(WalObjectName::Segment(name))?).then_some(name))
    }
}
