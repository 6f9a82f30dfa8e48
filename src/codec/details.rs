//! Details of a stored WAL file: who archived it, and what in it has no fixed size.

use serde::{Deserialize, Serialize};

use super::{Compression, FOOTER_FRAME_BYTES, read_frame, skippable};
use crate::wal::{Damage, Event, EventKind, HeadPiece, Lsn, SegmentName, TailPiece};

/// Most bytes that the index of a segment (details and footer) takes, unless the names of its origin alone are longer.
pub const INDEX_LIMIT_BYTES: usize = 8 << 10;
/// Most bytes that are kept of a record over the segment's border: enough for nearly all commits. What reads a longer one
/// finds the rest in the segment itself.
const PIECE_BYTES: usize = 1 << 10;
/// Most relation files that are named in one event.
const MOST_DROPPED: usize = 64;
/// Most events that are tried to fit in.
const MOST_EVENTS: usize = 512;

/// Longest details that are read, in bytes of JSON: far above what a segment's records can fill.
const LIMIT_BYTES: u64 = 64 << 20;

/// Who stored an object: what split-brain messages name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Origin {
    /// The host's name.
    pub host: String,
    /// The data directory that the file came from, or what else it came from.
    pub source: String,
    /// Program and version.
    pub program: String,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on host {}", self.source, self.host)
    }
}

/// Where a segment's records stop making sense, and why, in words: a note for people that outlives the list of flaws.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct DamageNote {
    /// Everything before it was found good.
    pub lsn: Lsn,
    /// What is wrong there.
    pub why: String,
    /// The segment before, if it is the record over the border to it that does not hold: either may be the bad one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub or_before: Option<SegmentName>,
}

impl From<Damage> for DamageNote {
    fn from(damage: Damage) -> Self {
        DamageNote { lsn: damage.lsn, why: damage.why.to_string(), or_before: None }
    }
}

/// The variable part of a description.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Details {
    /// Who stored it.
    pub archived_by: Origin,
    /// What happened in the segment, without the commits and aborts that drop nothing: those are counted in the footer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// More happened of this kind than `events` tells: the segment itself has all of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub events_cut: bool,
    /// The end of a record that began in an earlier segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadPiece>,
    /// The beginning of a record that ends in a later segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<TailPiece>,
    /// Where the records stop making sense, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damage: Option<DamageNote>,
}

impl Details {
    /// Takes in an event, unless there are too many already.
    pub fn note(&mut self, mut event: Event) {
        if self.events.len() >= MOST_EVENTS {
            self.events_cut = true;
            return;
        }
        if let EventKind::Commit(end) | EventKind::Abort(end) = &mut event.kind {
            end.subtransaction_xids = Vec::new();
            if end.dropped.len() > MOST_DROPPED {
                end.dropped.truncate(MOST_DROPPED);
                end.cut = true;
            }
        }
        self.events.push(event);
    }

    /// The same, with so much left out that the segment's index keeps to [`INDEX_LIMIT_BYTES`].
    #[must_use]
    pub fn bounded(mut self) -> Details {
        self.head = self.head.map(|head| head.trimmed(PIECE_BYTES));
        self.tail = self.tail.map(|tail| tail.trimmed(PIECE_BYTES));
        let room = INDEX_LIMIT_BYTES - FOOTER_FRAME_BYTES - skippable::HEADER_BYTES;
        while !self.events.is_empty() && self.encode().is_ok_and(|payload| payload.len() > room) {
            self.events.truncate(self.events.len() / 2);
            self.events_cut = true;
        }
        self
    }

    /// The payload of the details frame: one LZ4 frame of JSON.
    ///
    /// # Errors
    /// Never in practice: writing to memory does not fail.
    pub(super) fn encode(&self) -> std::io::Result<Vec<u8>> {
        let json = serde_json::to_vec(self)?;
        let mut payload = Vec::with_capacity(json.len() / 2 + 64);
        Compression::Lz4.write_frame(&json, &mut payload)?;
        Ok(payload)
    }

    /// Reads the payload of a details frame.
    ///
    /// # Errors
    /// Damaged, cut short, or not what this version writes.
    pub(super) fn decode(mut payload: &[u8]) -> std::io::Result<Details> {
        let mut json = Vec::new();
        read_frame(&mut payload, LIMIT_BYTES, &mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::{PgTime, RelationFile, TransactionEnd, Xid};

    fn drops(count: u32) -> Event {
        let dropped = |number| RelationFile { tablespace: 1663, database: 5, relation: number * 7919 };
        let end = TransactionEnd {
            time: PgTime(0),
            prepared: false,
            database: Some(5),
            subtransactions: 0,
            subtransaction_xids: Vec::new(),
            dropped_count: count,
            dropped: (0..count).map(dropped).collect(),
            cut: false,
        };
        Event { lsn: Lsn(1), end_lsn: Lsn(2), xid: Xid(3), kind: EventKind::Commit(end) }
    }

    /// Bytes that no compression makes smaller.
    fn noise(count: u32) -> Vec<u8> {
        (0..count).map(|number| blake3::hash(&number.to_le_bytes()).as_bytes()[0]).collect()
    }

    fn crowded(events: usize, relations: u32) -> Details {
        let (start, end) = (Lsn(1), Lsn(9));
        let head = HeadPiece {
            start,
            remaining: 65_000,
            length: 65_000,
            crc: 1,
            end,
            overwrites: false,
            bytes: noise(65_000),
        };
        let tail = TailPiece { start, total_length: 90_000, length: 60_000, crc: 2, bytes: noise(60_000) };
        let mut details = Details { head: Some(head), tail: Some(tail), ..Details::default() };
        (0..events).for_each(|_| details.note(drops(relations)));
        details
    }

    /// Whatever happened in a segment, its index keeps to the limit, says what it left out, and reads back.
    #[test]
    fn bounded() {
        for (events, relations, cut) in
            [(0, 0, false), (1, 10_000, false), (3, 5, false), (400, 64, true), (5000, 1, true)]
        {
            let details = crowded(events, relations).bounded();
            let payload = details.encode().expect("memory takes it");
            let index = payload.len() + skippable::HEADER_BYTES + FOOTER_FRAME_BYTES;
            assert!(index <= INDEX_LIMIT_BYTES, "{events} events of {relations} relations: {index} bytes");
            assert_eq!(details.events_cut, cut, "{events} events of {relations} relations");
            assert_eq!(Details::decode(&payload).expect("it is whole"), details);
            if let Some(EventKind::Commit(end)) = details.events.first().map(|event| &event.kind) {
                assert_eq!((end.dropped_count, end.cut), (relations, relations > 64), "the count is that of all");
            }
        }
    }

    /// What was written before lists were bounded is still read: long pieces, and no word about cuts.
    #[test]
    fn written_before() {
        let json = r#"{"archived_by":{"host":"db1","source":"/data","program":"pitr 0.1.0"},
            "events":[{"lsn":"0/1","end_lsn":"0/2","xid":7,"kind":{"restore_point":{"time":"2026-01-01T00:00:00Z","name":"a"}}}],
            "tail":{"start":"0/5","total_length":100,"length":30,"crc":9,"bytes":"AAAA"}}"#;
        let mut payload = Vec::new();
        Compression::Lz4.write_frame(json.as_bytes(), &mut payload).expect("memory takes it");
        let details = Details::decode(&payload).expect("it is whole");
        assert_eq!((details.events.len(), details.events_cut, details.head), (1, false, None));
        let unbounded = crowded(2000, 64);
        assert_eq!(Details::decode(&unbounded.encode().expect("memory takes it")).expect("it is whole"), unbounded);
    }
}
