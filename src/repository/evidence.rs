//! What the repository tells a plan: listings as a [`Snapshot`], and what happened inside a segment on demand.
//!
//! Roll-ups tell for a whole group at once; what they do not have is read from the segments themselves, by
//! [`SegmentReader`]. An entry of a roll-up counts only for a segment that a listing has.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};

use super::keys::WalObjectName;
use super::proof::is_remarkable;
use super::read_ahead::Streak;
use super::seek::Seeking;
use super::{GroupListing, RepositoryError, SegmentReader, ServerRecord, ServerRepository};
use crate::catalog::{BackupInfo, BackupWal, GROUP_SEGMENTS, RollUp, RollUpEntry, RollUpName, RollUpNotes};
use crate::recovery::{BackupFacts, Snapshot, StoredDamage, StoredPartial, TimelineRecord, WalCopy, WalEvidence};
use crate::wal::{Event, Lsn, PgTime, SegmentFacts, SegmentGroup, SegmentName, SegmentNo, SegmentSize, TimelineId};

/// Most groups that are kept in mind: about 10 MB.
const MOST_GROUPS: usize = 128;
/// Most roll-ups that are read in one go, and most bytes of them that are kept as they are stored: those of a million segments.
const MOST_ROLL_UPS_AHEAD: u64 = 64;
const MOST_ENCODED_BYTES: usize = 64 << 20;
/// Most segments whose events are kept: a plan returns to the last few.
const MOST_SEGMENTS: usize = 4;

impl ServerRepository {
    /// Everything that listings tell for a plan.
    ///
    /// # Errors
    /// The store fails, or a history file or a backup's info is damaged.
    pub fn snapshot(&self, record: &ServerRecord) -> Result<Snapshot, RepositoryError> {
        let backups = self.live_backups()?;
        self.snapshot_with(record, &backups)
    }

    /// Everything that listings tell for a plan, as if these were the backups.
    ///
    /// # Errors
    /// As for [`ServerRepository::snapshot`].
    pub fn snapshot_with(&self, record: &ServerRecord, backups: &[BackupInfo]) -> Result<Snapshot, RepositoryError> {
        let size = record.segment_size_bytes;
        let mut timelines = BTreeMap::new();
        for timeline in self.timelines()? {
            let listings = self.listing(timeline)?;
            timelines.insert(timeline, self.timeline_record(timeline, size, &listings)?);
        }
        self.snapshot_of(record, backups, timelines)
    }

    /// A snapshot with these backups and timelines, which were listed before.
    ///
    /// # Errors
    /// The store fails.
    pub fn snapshot_of(
        &self,
        record: &ServerRecord,
        backups: &[BackupInfo],
        mut timelines: BTreeMap<TimelineId, TimelineRecord>,
    ) -> Result<Snapshot, RepositoryError> {
        let size = record.segment_size_bytes;
        for (timeline, expired) in self.expired_wal(size)? {
            if let Some(record) = timelines.get_mut(&timeline) {
                record.expired = expired;
            }
        }
        Ok(Snapshot { segment_size: size, backups: backups.iter().map(backup_facts).collect(), timelines })
    }

    /// One timeline of a snapshot.
    ///
    /// # Errors
    /// As for [`ServerRepository::snapshot`].
    pub fn timeline_record(
        &self,
        timeline: TimelineId,
        size: SegmentSize,
        listings: &[GroupListing],
    ) -> Result<TimelineRecord, RepositoryError> {
        let mut found = TimelineRecord { history: self.history(timeline)?, ..TimelineRecord::default() };
        for listing in listings {
            // A name of another segment size cannot be placed; it is not this cluster's.
            found.segments.extend(listing.segments().filter_map(|name| name.number(size).ok()));
            for name in &listing.others {
                let Ok(number) = name.segment().number(size) else { continue };
                match name {
                    WalObjectName::Partial(_, hash) => found.partials.push(StoredPartial {
                        segment: number,
                        hash: format!("{hash:016x}"),
                        stored_bytes: self.stored_bytes(*name)?,
                    }),
                    WalObjectName::Damaged(segment, _) if !listing.contains(*segment) => {
                        // They are few, and each is a matter for a person.
                        let damage = self.described_or_not(*name, number, size)?;
                        // Of several damaged copies the one that is good the furthest.
                        if found.damaged.get(&number).is_none_or(|other| other.good_until < damage.good_until) {
                            found.damaged.insert(number, damage);
                        }
                    }
                    WalObjectName::Segment(_) | WalObjectName::Damaged(..) | WalObjectName::Backup(..) => {}
                }
            }
        }
        Ok(found)
    }

    /// What is wrong with a damaged copy. One that has rotted since it was stored tells nothing more, and hides nothing else.
    fn described_or_not(
        &self,
        name: WalObjectName,
        number: SegmentNo,
        size: SegmentSize,
    ) -> Result<StoredDamage, RepositoryError> {
        match self.describe_damage(name, size) {
            Err(error) if !error.is_no_answer() => Ok(StoredDamage {
                segment: name.segment(),
                hash: String::new(),
                good_until: number.start(size),
                why: format!("the damaged copy cannot be read any more ({error})"),
                or_before: None,
                archived_at: PgTime(0),
            }),
            other => other,
        }
    }

    /// What happened inside the stored segments, for a plan.
    #[must_use]
    pub fn evidence(&self, record: &ServerRecord) -> StoredEvidence {
        StoredEvidence {
            reader: SegmentReader::new(self, record),
            roll_ups: HashMap::new(),
            encoded: HashMap::new(),
            groups_in_a_row: Streak::default(),
            segments_in_a_row: Streak::default(),
            groups: VecDeque::new(),
            ahead: VecDeque::new(),
            notes: None,
            events: Vec::new(),
        }
    }
}

/// What a plan has to know about a backup.
#[must_use]
pub fn backup_facts(info: &BackupInfo) -> BackupFacts {
    BackupFacts {
        id: info.id.to_string(),
        start_lsn: info.start_lsn,
        stop_lsn: info.stop_lsn,
        start_timeline: info.start_timeline,
        stop_timeline: info.stop_timeline,
        start_time: info.start_time,
        stop_time: info.stop_time,
        size_bytes: info.raw_bytes,
        stored_bytes: info.stored_bytes,
        tail: match &info.wal {
            BackupWal::Stream { tail: Some(tail) } => Some(tail.segment),
            BackupWal::Archive | BackupWal::Stream { tail: None } => None,
        },
    }
}

/// Tells what happened inside stored segments, remembering the last answers.
#[derive(Debug)]
pub struct StoredEvidence {
    reader: SegmentReader,
    /// Names of the roll-ups, by timeline.
    roll_ups: HashMap<TimelineId, BTreeMap<SegmentGroup, RollUpName>>,
    /// What is known of groups, the latest met at the end.
    groups: VecDeque<(SegmentGroup, Known)>,
    /// Roll-ups that were read along with others out of a store that is near, unpacked.
    ahead: VecDeque<(RollUpName, Option<RollUp>)>,
    /// Roll-ups of a store behind a network as they are stored, all that were read: a plan goes over the WAL several times.
    encoded: HashMap<RollUpName, Option<Vec<u8>>>,
    groups_in_a_row: Streak,
    segments_in_a_row: Streak,
    /// The notes that were unpacked last.
    notes: Option<(SegmentGroup, RollUpNotes)>,
    /// The segments read last, the latest at the end.
    events: Vec<(WalCopy, Vec<Event>)>,
}

/// What is known of the segments of a group.
#[derive(Debug, Default)]
struct Known {
    roll_up: Option<RollUp>,
    /// Segments that its roll-up does not tell all of.
    unsettled: Vec<SegmentName>,
    /// What is stored of the group, if that had to be found out.
    listed: Option<GroupListing>,
    /// Facts and stored bytes of copies of which the roll-up does not tell.
    read: BTreeMap<WalCopy, (SegmentFacts, u64)>,
}

impl Known {
    /// What the roll-up tells of a segment, if that is all there is to tell.
    fn entry(&self, segment: SegmentName) -> Option<&RollUpEntry> {
        self.roll_up
            .as_ref()?
            .entry(segment)
            .filter(|_| self.unsettled.is_empty() || !self.unsettled.contains(&segment))
    }
}

impl WalEvidence for StoredEvidence {
    type Error = RepositoryError;

    fn facts(&mut self, copy: &WalCopy) -> Result<SegmentFacts, RepositoryError> {
        if let WalCopy::Segment(segment) = copy
            && let Some(entry) = self.known(segment.group())?.entry(*segment)
        {
            return Ok(entry.facts);
        }
        Ok(self.read(copy)?.0)
    }

    fn stored_bytes(&mut self, copy: &WalCopy) -> Result<u64, RepositoryError> {
        if let WalCopy::Tail { .. } = copy {
            return Ok(0);
        }
        if let WalCopy::Segment(segment) = copy
            && let Some(entry) = self.known(segment.group())?.entry(*segment)
        {
            return Ok(entry.stored_bytes);
        }
        Ok(self.read(copy)?.1)
    }

    fn events(&mut self, copy: &WalCopy) -> Result<Vec<Event>, RepositoryError> {
        if let Some((_, events)) = self.events.iter().find(|(known, _)| known == copy) {
            return Ok(events.clone());
        }
        let mut events = Vec::new();
        self.reader.events(copy, &mut |event| events.push(event))?;
        if self.events.len() >= MOST_SEGMENTS {
            self.events.remove(0);
        }
        self.events.push((copy.clone(), events.clone()));
        Ok(events)
    }

    fn record_from(&mut self, copy: &WalCopy, lsn: Lsn) -> Result<Option<Lsn>, RepositoryError> {
        let mut seeking = Seeking::new(copy.segment(), self.reader.segment_size(), lsn);
        self.reader.server().read_copy(copy, &mut seeking)?;
        Ok(seeking.found())
    }
}

impl StoredEvidence {
    /// The remarkable events of a copy, in LSN order: all but prepared transactions, and commits and aborts that remove
    /// nothing. Costs one read for a group that has a roll-up; the segment itself is read only if so much happened in it that
    /// its description could not hold it.
    ///
    /// # Errors
    /// The copy is damaged or gone, or the store fails.
    pub fn remarkable(&mut self, copy: &WalCopy) -> Result<Vec<Event>, RepositoryError> {
        let notes = match copy {
            WalCopy::Segment(segment) if self.known(segment.group())?.entry(*segment).is_some() => {
                let notes = self.notes(segment.group())?;
                let at = notes.segments.binary_search_by_key(segment, |notes| notes.segment);
                match at {
                    Ok(at) => notes.segments[at].clone(),
                    Err(_) => return Ok(Vec::new()),
                }
            }
            _ => self.reader.read(copy)?.notes,
        };
        if !notes.events_cut {
            return Ok(notes.events);
        }
        let mut events = Vec::new();
        self.reader.events(copy, &mut |event| {
            if is_remarkable(&event) {
                events.push(event);
            }
        })?;
        Ok(events)
    }

    /// Reads a copy of which no roll-up tells.
    fn read(&mut self, copy: &WalCopy) -> Result<(SegmentFacts, u64), RepositoryError> {
        let group = copy.segment().group();
        if let Some(known) = self.known(group)?.read.get(copy) {
            return Ok(*known);
        }
        if let WalCopy::Segment(segment) = copy {
            self.read_segments(*segment)?;
        }
        let reading = self.reader.read(copy)?;
        let known = (reading.facts, reading.stored_bytes);
        self.known(group)?.read.insert(copy.clone(), known);
        Ok(known)
    }

    /// What is known of a group; reads its roll-up if there is one.
    fn known(&mut self, group: SegmentGroup) -> Result<&mut Known, RepositoryError> {
        // A walk asks for each of a group's segments: it is the last one nearly always.
        let at = self.groups.iter().rposition(|(known, _)| *known == group);
        let at = match at {
            Some(at) => at,
            None => self.meet(group)?,
        };
        Ok(&mut self.groups[at].1)
    }

    /// Reads a group's roll-up and remembers it.
    fn meet(&mut self, group: SegmentGroup) -> Result<usize, RepositoryError> {
        let roll_up = self.read_roll_up(group)?;
        let mut unsettled = Vec::new();
        for entry in roll_up.iter().flat_map(|roll_up| &roll_up.entries) {
            if !self.reader.is_settled(entry)? {
                unsettled.push(entry.segment);
            }
        }
        if self.groups.len() >= MOST_GROUPS {
            self.groups.pop_front();
        }
        self.groups.push_back((group, Known { roll_up, unsettled, ..Known::default() }));
        Ok(self.groups.len() - 1)
    }

    /// Reads the roll-up of a group, and those that a walk will ask for next.
    fn read_roll_up(&mut self, group: SegmentGroup) -> Result<Option<RollUp>, RepositoryError> {
        let server = self.reader.server().clone();
        let timeline = group.timeline();
        let names = match self.roll_ups.entry(timeline) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(server.roll_ups(timeline)?),
        };
        let Some(name) = names.get(&group).copied() else { return Ok(None) };
        if let Some(at) = self.ahead.iter().position(|(known, _)| *known == name) {
            return Ok(self.ahead.drain(..=at).next_back().and_then(|(_, roll_up)| roll_up));
        }
        if !self.encoded.contains_key(&name) {
            let at = names.range(..group).count() as u64;
            let numbers = self.groups_in_a_row.ask(at, MOST_ROLL_UPS_AHEAD, &(0..names.len() as u64));
            let all: Vec<RollUpName> = names.values().copied().collect();
            let wanted = numbers.iter().filter_map(|at| all.get(usize::try_from(*at).ok()?).copied());
            let wanted: Vec<_> = wanted.filter(|name| !self.encoded.contains_key(name)).collect();
            if !server.storage.is_remote() {
                // Unpacking is most of the work, and done by all processors.
                let mut read = server.in_parallel(&wanted, |name| Ok((*name, server.roll_up(*name)?)))?.into_iter();
                let first = read.next();
                self.ahead = read.collect();
                return Ok(first.and_then(|(_, roll_up)| roll_up));
            }
            let read = server.in_parallel(&wanted, |name| server.roll_up_bytes(*name))?;
            let kept: usize = self.encoded.values().flatten().map(Vec::len).sum();
            if kept > MOST_ENCODED_BYTES {
                self.encoded.clear();
            }
            self.encoded.extend(wanted.into_iter().zip(read));
        }
        let bytes = self.encoded.get(&name).and_then(Option::as_ref);
        Ok(bytes.and_then(|bytes| server.decode_roll_up(name, bytes)))
    }

    /// Reads the descriptions of segments of which no roll-up tells, if a walk goes from one to the next: of the same group.
    fn read_segments(&mut self, segment: SegmentName) -> Result<(), RepositoryError> {
        let size = self.reader.segment_size();
        let Ok(SegmentNo(number)) = segment.number(size) else { return Ok(()) };
        if self.reader.was_read_ahead(segment) {
            return Ok(());
        }
        let first = number - (segment.place() & 0xFF);
        let group = first..first + segment.group().capacity(size);
        let numbers = self.segments_in_a_row.ask(number, GROUP_SEGMENTS as u64, &group);
        if numbers.len() == 1 {
            return Ok(());
        }
        let server = self.reader.server().clone();
        let known = self.known(segment.group())?;
        if known.listed.is_none() {
            // One request, where asking for what is not there would cost more.
            known.listed = Some(server.list_group(segment.group())?);
        }
        let names = numbers.iter().map(|number| SegmentName::new(segment.timeline(), SegmentNo(*number), size));
        let is_listed = |name: &SegmentName| known.listed.as_ref().is_some_and(|listed| listed.contains(*name));
        let is_told =
            |name: &SegmentName| known.entry(*name).is_some() || known.read.contains_key(&WalCopy::Segment(*name));
        let wanted: Vec<_> = names.filter(|name| is_listed(name) && !is_told(name)).collect();
        self.reader.read_ahead(&wanted)
    }

    /// The notes of a group's roll-up. Notes that cannot be unpacked are as good as none that were written.
    fn notes(&mut self, group: SegmentGroup) -> Result<&RollUpNotes, RepositoryError> {
        if self.notes.as_ref().is_none_or(|(known, _)| *known != group) {
            let roll_up = self.known(group)?.roll_up.as_ref();
            let notes = roll_up.map(RollUp::notes).transpose();
            let notes = notes.map_err(|error| self.reader.server().unknown(&format!("{group}: {error}")))?;
            self.notes = Some((group, notes.unwrap_or_default()));
        }
        let notes = self.notes.as_ref().map(|(_, notes)| notes);
        Ok(notes.expect("it was just put there"))
    }
}
