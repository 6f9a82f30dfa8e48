//! What the repository tells a plan: listings as a [`Snapshot`], and what happened inside a segment on demand.
//!
//! A segment's description comes from the end of its object and costs one small read; its events cost reading it whole.
//! The record that straddles the border to the segment before is put together here from the pieces that both
//! descriptions carry, so that no commit is overlooked because it happens to lie on a border.

use std::collections::HashMap;
use std::io::{self, Write};

use super::wal::{StoredWalFile, WalObjectName};
use super::{RepositoryError, ServerRecord, ServerRepository, keys, malformed};
use crate::catalog::{BackupInfo, BackupWal};
use crate::codec::Footer;
use crate::recovery::{BackupFacts, Snapshot, StoredPartial, TimelineRecord, WalCopy, WalEvidence};
use crate::storage::Key;
use crate::wal::{
    Completeness, Event, HeadPiece, Joined, PostgresMajor, SegmentFacts, SegmentName, SegmentNo, SegmentScan,
    SegmentScanner, SegmentSize, TailPiece, TimelineHistory, TimelineId, check_segment_header, join,
};

/// Most descriptions that are kept: about 50 MB.
const MOST_FACTS: usize = 200_000;
/// Most segments whose events are kept: a plan returns to the last few.
const MOST_SEGMENTS: usize = 4;
/// A record spans few segments (at most 1 GiB in all); what claims more is no record.
const MOST_HEADS: usize = 1024;

impl ServerRepository {
    /// Everything that listings tell for a plan.
    ///
    /// # Errors
    /// The store fails, or a history file or a backup's info is damaged.
    pub fn snapshot(&self, record: &ServerRecord) -> Result<Snapshot, RepositoryError> {
        let segment_size = record.segment_size_bytes;
        let backups = self.backups()?.iter().map(backup_facts).collect();
        let mut snapshot = Snapshot { segment_size, backups, timelines: Default::default() };
        for timeline in self.timelines()? {
            let mut found = TimelineRecord { history: self.history(timeline)?, ..TimelineRecord::default() };
            for object in self.wal_objects(timeline)? {
                // A name of another segment size cannot be placed; it is not this cluster's.
                let Ok(number) = object.name.segment().number(segment_size) else { continue };
                match object.name {
                    WalObjectName::Segment(_) => {
                        found.segments.insert(number);
                    }
                    WalObjectName::Partial(_, hash) => found.partials.push(StoredPartial {
                        segment: number,
                        hash: format!("{hash:016x}"),
                        stored_bytes: object.stored_bytes,
                    }),
                    WalObjectName::Damaged(..) | WalObjectName::Backup(..) => {}
                }
            }
            snapshot.timelines.insert(timeline, found);
        }
        Ok(snapshot)
    }

    /// What happened inside the stored segments, for a plan.
    #[must_use]
    pub fn evidence(&self, record: &ServerRecord) -> StoredEvidence {
        StoredEvidence {
            server: self.clone(),
            major: record.major,
            segment_size: record.segment_size_bytes,
            facts: HashMap::new(),
            events: Vec::new(),
            histories: HashMap::new(),
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

/// Reads what happened inside stored segments, remembering the last answers.
#[derive(Debug)]
pub struct StoredEvidence {
    server: ServerRepository,
    major: PostgresMajor,
    segment_size: SegmentSize,
    facts: HashMap<WalCopy, SegmentFacts>,
    /// The segments read last, the latest at the end.
    events: Vec<(WalCopy, Vec<Event>)>,
    histories: HashMap<TimelineId, Option<TimelineHistory>>,
}

impl WalEvidence for StoredEvidence {
    type Error = RepositoryError;

    fn facts(&mut self, copy: &WalCopy) -> Result<SegmentFacts, RepositoryError> {
        if let Some(facts) = self.facts.get(copy) {
            return Ok(*facts);
        }
        let described = match self.object(copy)? {
            Some(name) => Some(self.server.describe(name)?),
            None => None,
        };
        let (mut facts, head) = match described {
            Some(StoredWalFile { footer: Footer { facts: Some(facts), .. }, details, .. }) => (facts, details.head),
            // Stored by somebody who did not read the records, or never stored as an object of its own.
            _ => {
                let (scan, _) = self.scan(copy)?;
                (scan.facts, scan.head)
            }
        };
        if let Some(event) = self.head_event(copy.segment(), head)? {
            take_in(&mut facts, &event);
        }
        if self.facts.len() >= MOST_FACTS {
            self.facts.clear();
        }
        self.facts.insert(copy.clone(), facts);
        Ok(facts)
    }

    fn stored_bytes(&mut self, copy: &WalCopy) -> Result<u64, RepositoryError> {
        match self.object(copy)? {
            Some(name) => self.server.stored_bytes(name),
            None => Ok(0),
        }
    }

    fn events(&mut self, copy: &WalCopy) -> Result<Vec<Event>, RepositoryError> {
        if let Some((_, events)) = self.events.iter().find(|(known, _)| known == copy) {
            return Ok(events.clone());
        }
        let (scan, mut events) = self.scan(copy)?;
        if let Some(event) = self.head_event(copy.segment(), scan.head)? {
            events.insert(0, event);
        }
        if self.events.len() >= MOST_SEGMENTS {
            self.events.remove(0);
        }
        self.events.push((copy.clone(), events.clone()));
        Ok(events)
    }
}

/// Counts the event of the record that straddles the border, unless whoever stored the segment knew it already.
fn take_in(facts: &mut SegmentFacts, event: &Event) {
    let mut with = *facts;
    with.prepend(event);
    let known = facts.first_time == with.first_time && facts.first_xid == with.first_xid;
    let is_end = with.commits + with.aborts > facts.commits + facts.aborts;
    if !(is_end && known) {
        *facts = with;
    }
}

impl StoredEvidence {
    /// The object that holds a copy; none for the tail of a backup.
    fn object(&self, copy: &WalCopy) -> Result<Option<WalObjectName>, RepositoryError> {
        Ok(match copy {
            WalCopy::Segment(name) => Some(WalObjectName::Segment(*name)),
            WalCopy::Partial { segment, hash } => {
                let name = format!("{segment}.partial.{hash}");
                Some(name.parse().map_err(|_| self.unknown(&name))?)
            }
            WalCopy::Tail { .. } => None,
        })
    }

    fn unknown(&self, name: &str) -> RepositoryError {
        let error = serde::de::Error::custom(format!("\"{name}\" names no stored WAL"));
        malformed(self.server.storage().as_ref(), self.server.folder(), &error)
    }

    /// Reads a copy whole.
    fn scan(&mut self, copy: &WalCopy) -> Result<(SegmentScan, Vec<Event>), RepositoryError> {
        let completeness = if copy.is_served() { Completeness::Complete } else { Completeness::MayEnd };
        let mut scanning = Scanning {
            name: copy.segment(),
            size: self.segment_size,
            completeness,
            first: Vec::new(),
            scanner: None,
            events: Vec::new(),
        };
        self.server.read_copy(copy, &mut scanning)?;
        match scanning.scanner {
            Some(scanner) => Ok((scanner.finish(), scanning.events)),
            None => Err(self.unknown(&copy.segment().to_string())),
        }
    }

    /// What happened in the record that began in an earlier segment and ends in this one.
    fn head_event(&mut self, segment: SegmentName, head: Option<HeadPiece>) -> Result<Option<Event>, RepositoryError> {
        let Some(head) = head.filter(HeadPiece::is_last) else { return Ok(None) };
        let mut heads = vec![head];
        let mut at = segment;
        while heads.len() < MOST_HEADS {
            let Some((before, described)) = self.before(at)? else { return Ok(None) };
            let (head, tail) = match described.footer.facts {
                Some(_) => (described.details.head, described.details.tail),
                None => {
                    let (scan, _) = self.scan(&WalCopy::Segment(before))?;
                    (scan.head, scan.tail)
                }
            };
            match head.filter(|head| !head.is_last()) {
                Some(middle) => heads.insert(0, middle),
                None => return Ok(self.joined(tail.as_ref(), &heads)),
            }
            at = before;
        }
        Ok(None)
    }

    fn joined(&self, tail: Option<&TailPiece>, heads: &[HeadPiece]) -> Option<Event> {
        let heads: Vec<_> = heads.iter().map(Some).collect();
        match join(tail, &heads, self.major) {
            Joined::Proved { event, .. } => event,
            Joined::Nothing | Joined::Incomplete | Joined::Overwritten | Joined::Damaged(_) => None,
        }
    }

    /// The stored segment before another: on its timeline, or where that begins with it, on its ancestors.
    fn before(&mut self, segment: SegmentName) -> Result<Option<(SegmentName, StoredWalFile)>, RepositoryError> {
        let Ok(SegmentNo(number)) = segment.number(self.segment_size) else { return Ok(None) };
        let Some(number) = number.checked_sub(1).map(SegmentNo) else { return Ok(None) };
        let timeline = segment.timeline();
        if !self.histories.contains_key(&timeline) {
            let history = self.server.history(timeline)?;
            self.histories.insert(timeline, history);
        }
        let history = self.histories.get(&timeline).and_then(Option::as_ref);
        let ancestors = history.into_iter().flat_map(|history| history.entries().iter().rev());
        let size = self.segment_size;
        let ancestors = ancestors.filter(|entry| number.start(size) < entry.switch).map(|entry| entry.timeline);
        for timeline in [timeline].into_iter().chain(ancestors) {
            let name = SegmentName::new(timeline, number, size);
            match self.server.describe(WalObjectName::Segment(name)) {
                Ok(described) => return Ok(Some((name, described))),
                Err(RepositoryError::Storage(error)) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl ServerRepository {
    /// Writes the raw bytes of a copy to `out`: a segment, a `.partial`, or the tail that a backup brought along.
    ///
    /// # Errors
    /// It is damaged or gone, or the store fails.
    pub fn read_copy(&self, copy: &WalCopy, out: &mut dyn Write) -> Result<(), RepositoryError> {
        let name = match copy {
            WalCopy::Segment(name) => WalObjectName::Segment(*name),
            WalCopy::Partial { segment, hash } => format!("{segment}.partial.{hash}")
                .parse()
                .map_err(|error| malformed(self.storage.as_ref(), &self.folder, &serde::de::Error::custom(error)))?,
            WalCopy::Tail { segment, backup } => return self.read_tail(*segment, backup, out),
        };
        match self.fetch_object(name, out)? {
            Some(_) => Ok(()),
            None => Err(self.gone(&keys::object(&self.folder, name))),
        }
    }

    fn read_tail(&self, segment: SegmentName, backup: &str, out: &mut dyn Write) -> Result<(), RepositoryError> {
        let info = match backup.parse() {
            Ok(id) => self.backup_info(id)?,
            Err(_) => None,
        };
        let Some(BackupInfo { id, wal: BackupWal::Stream { tail: Some(tail) }, .. }) = info else {
            let key = keys::backups(&self.folder);
            let key = key.join(&format!("{backup}.wal.{segment}.tail")).unwrap_or(key);
            return Err(self.gone(&key));
        };
        let raw = self.wal_tail(id, &tail)?;
        out.write_all(&raw).map_err(|error| self.storage.failed("read", &self.folder, &error).into())
    }

    pub(super) fn gone(&self, key: &Key) -> RepositoryError {
        let error = io::Error::new(io::ErrorKind::NotFound, "it was listed and is gone");
        self.storage.failed("open", key, &error).into()
    }
}

/// Scans what is written to it.
struct Scanning {
    name: SegmentName,
    size: SegmentSize,
    completeness: Completeness,
    /// Bytes before the segment's header could be read.
    first: Vec<u8>,
    scanner: Option<SegmentScanner>,
    events: Vec<Event>,
}

impl Write for Scanning {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        const LONG_HEADER_BYTES: usize = 40;
        let events = &mut self.events;
        match &mut self.scanner {
            Some(scanner) => scanner.feed(bytes, &mut |event| events.push(event)),
            None => {
                self.first.extend_from_slice(bytes);
                if self.first.len() >= LONG_HEADER_BYTES {
                    let header = check_segment_header(&self.first, self.name, self.size.bytes());
                    let header = header.map_err(io::Error::other)?;
                    let mut scanner = SegmentScanner::new(&header, self.completeness);
                    scanner.feed(&std::mem::take(&mut self.first), &mut |event| events.push(event));
                    self.scanner = Some(scanner);
                }
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
