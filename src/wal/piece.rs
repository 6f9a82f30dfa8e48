//! Records that straddle the border of two segments: the piece in each, and how pieces are joined.
//!
//! A scan of one segment keeps what a reader of two neighbouring catalog entries needs to prove such a record and to
//! read its event, so that nothing has to be handed from one archiving call to the next. A record may span three and
//! more segments: the ones in the middle are all head.

use serde::{Deserialize, Deserializer, Serialize};

use super::record::{HEADER_SIZE, RecordHeader, read_event};
use super::record_crc::finish_crc;
use super::{Damage, Event, Flaw, Lsn, PostgresMajor, RawRecord};

/// Most bytes of a straddling record that a piece keeps.
pub const PIECE_BYTES_LIMIT: usize = 64 * 1024;

/// Of a longer head this much is kept: more than the record's header, those of 33 block references and that of the main data take
/// (`xlogrecord.h`).
pub(super) const HEADERS_LIMIT: usize = 1024;

/// The beginning of a record that goes on in the next segment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TailPiece {
    /// Where the record begins.
    pub start: Lsn,
    /// Its length in bytes, header included.
    pub total_length: u32,
    /// How many of them this segment has.
    pub length: u32,
    /// CRC-32C of those after the record's header.
    pub crc: u32,
    /// The first of them: the header as far as it is here, and up to [`PIECE_BYTES_LIMIT`] bytes if the record may
    /// be an event.
    #[serde(with = "base64_bytes")]
    pub bytes: Vec<u8>,
}

/// What a segment begins with, if not with a record of its own.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeadPiece {
    /// The segment's first byte.
    pub start: Lsn,
    /// Bytes that the record lacked before this segment. 0 if `overwrites` at the first page.
    pub remaining: u32,
    /// How many of them this segment has; fewer than `remaining` if the record goes on in the next segment too, or
    /// was overwritten, or the segment is damaged.
    pub length: u32,
    /// CRC-32C of those.
    pub crc: u32,
    /// Where the record ends, rounded up as records are; the segment's end if it goes on.
    pub end: Lsn,
    /// A crash lost the rest of the record, and new WAL was written in its place: no record to be proved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrites: bool,
    /// The first bytes, up to [`PIECE_BYTES_LIMIT`]; only the headers' rest, a kibibyte, if `remaining` is more than that.
    #[serde(with = "base64_bytes")]
    pub bytes: Vec<u8>,
}

/// Outcome of [`join`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Joined {
    /// No record straddles the border.
    Nothing,
    /// The record is whole.
    Proved {
        /// Where it ends.
        end: Lsn,
        /// What happened, if the record is one of interest.
        event: Option<Event>,
        /// The record is one of interest, and the pieces keep only its beginning: the event may lack something or be
        /// missing. Pieces from a new scan of the segments may keep more.
        short: bool,
    },
    /// The record goes on in a segment that was not given.
    Incomplete,
    /// A crash cut the record off; PostgreSQL passes over it, and WAL goes on behind it.
    Overwritten,
    /// The pieces do not make a record.
    Damaged(Damage),
}

impl TailPiece {
    /// The piece with at most so many bytes of the record. It still proves the record; less of its event can be read.
    #[must_use]
    pub fn trimmed(mut self, most: usize) -> TailPiece {
        self.bytes.truncate(most.max(HEADER_SIZE));
        self
    }
}

impl HeadPiece {
    /// The piece with at most so many bytes of the record. It still proves the record; less of its event can be read.
    #[must_use]
    pub fn trimmed(mut self, most: usize) -> HeadPiece {
        self.bytes.truncate(most.max(HEADER_SIZE));
        self
    }

    /// The record ends in this segment, or was overwritten in it: the next segment's head is another record's.
    #[must_use]
    pub fn is_last(&self) -> bool {
        self.overwrites || self.length >= self.remaining
    }
}

/// Joins the pieces of a record that straddles segments.
///
/// `tail` is that of the segment where the record begins; `heads` are those of the following segments in order, as
/// many as there are at hand, up to the first that [`HeadPiece::is_last`] (`None`: the segment has no head). For a
/// segment that is all head, do not ask for its own tail: it is in the middle of the chain.
#[must_use]
pub fn join(tail: Option<&TailPiece>, heads: &[Option<&HeadPiece>], major: PostgresMajor) -> Joined {
    match join_record(tail, heads, major) {
        Ok(record) => Joined::Proved { end: record.end, event: record.event(major), short: record.is_short() },
        Err(joined) => joined,
    }
}

/// A record joined from its pieces, proved.
#[derive(Clone, Debug)]
pub(super) struct JoinedRecord {
    start: Lsn,
    end: Lsn,
    pub(super) header: RecordHeader,
    body: Vec<u8>,
    whole: bool,
}

impl JoinedRecord {
    /// The record as scans hand them out.
    pub(super) fn raw(&self) -> RawRecord<'_> {
        RawRecord { lsn: self.start, end_lsn: self.end, header: self.header, body: &self.body, whole: self.whole }
    }

    /// It is one of interest, and only its beginning is here.
    fn is_short(&self) -> bool {
        self.header.is_of_interest() && !self.whole
    }

    /// Its event, if it is one of interest.
    pub(super) fn event(&self, major: PostgresMajor) -> Option<Event> {
        let event = self.header.is_of_interest().then(|| read_event(&self.header, &self.body, major)).flatten();
        event.map(|(xid, kind)| Event { lsn: self.start, end_lsn: self.end, xid, kind })
    }
}

/// As [`join`], with the record itself; `Err` is every other outcome.
fn join_record(
    tail: Option<&TailPiece>,
    heads: &[Option<&HeadPiece>],
    major: PostgresMajor,
) -> Result<JoinedRecord, Joined> {
    let Some(tail) = tail else {
        return Err(match heads.first() {
            None | Some(None) => Joined::Nothing,
            Some(Some(head)) if head.overwrites => Joined::Overwritten,
            Some(Some(head)) => damaged(head.start, Flaw::Continuation { expected: 0, found: head.remaining }),
        });
    };
    let cut = || damaged(tail.start, Flaw::CutOff { expected: tail.total_length, found: tail.length });
    let Some(mut chain) = Chain::begin(tail) else {
        return Err(cut());
    };
    for head in heads {
        let expected = tail.total_length - chain.have;
        let found = head.map_or(0, |head| head.remaining);
        match head {
            Some(head) if head.overwrites && (found == 0 || found == expected) => return Err(Joined::Overwritten),
            Some(head) if found == expected && head.length <= expected => {
                if chain.add(head).is_none() {
                    return Err(cut());
                }
                if chain.have == tail.total_length {
                    return chain.finish(tail, head.end, major);
                }
            }
            _ => return Err(damaged(tail.start, Flaw::Continuation { expected, found })),
        }
    }
    Err(Joined::Incomplete)
}

/// Joins the pieces of consecutive segments, one segment after the other.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Borders {
    /// What ended the segment before; `None` if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known")]
    before: Option<Option<TailPiece>>,
    /// Heads of segments that are nothing but head.
    heads: Vec<HeadPiece>,
}

impl Borders {
    /// Before the first segment. What its head belongs to is not known.
    #[must_use]
    pub fn new() -> Self {
        Borders::default()
    }

    /// The record over the border, if this is the last of its pieces and the others are here.
    pub(super) fn complete(&self, last: &HeadPiece, major: PostgresMajor) -> Result<JoinedRecord, Joined> {
        match &self.before {
            Some(before) => {
                let heads: Vec<_> = self.heads.iter().chain([last]).map(Some).collect();
                join_record(before.as_ref(), &heads, major)
            }
            None => Err(Joined::Incomplete),
        }
    }

    /// Where the record begins that straddles the border, if that is known.
    #[must_use]
    pub fn open_record(&self) -> Option<Lsn> {
        self.before.as_ref()?.as_ref().map(|tail| tail.start)
    }

    /// Takes the next segment's pieces, and tells about the record over the border before it.
    ///
    /// [`Joined::Incomplete`] if the record goes on, or if its beginning is not known. After a segment that is not
    /// there, or damaged, begin anew.
    pub fn pass(&mut self, head: Option<HeadPiece>, tail: Option<TailPiece>, major: PostgresMajor) -> Joined {
        let goes_on = head.as_ref().is_some_and(|head| !head.is_last());
        let joined = match &self.before {
            Some(before) => {
                let mut heads: Vec<_> = self.heads.iter().map(Some).collect();
                heads.push(head.as_ref());
                join(before.as_ref(), &heads, major)
            }
            None if head.is_some() => Joined::Incomplete,
            None => Joined::Nothing,
        };
        if goes_on {
            self.heads.extend(head);
        } else {
            self.heads.clear();
            self.before = Some(tail);
        }
        joined
    }
}

/// Tells "not known" (absent) from "nothing straddles" (null).
fn known<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<TailPiece>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn damaged(lsn: Lsn, why: Flaw) -> Joined {
    Joined::Damaged(Damage { lsn, why })
}

/// A record as far as it is joined.
struct Chain {
    header: Vec<u8>,
    /// The body's first bytes without a gap.
    body: Vec<u8>,
    /// All of the body so far is in `body`.
    whole: bool,
    /// CRC-32C of the body so far.
    crc: u32,
    /// Bytes so far, header included.
    have: u32,
}

impl Chain {
    /// `None` for a piece that no scan makes.
    fn begin(tail: &TailPiece) -> Option<Self> {
        let header_length = HEADER_SIZE.min(tail.length as usize);
        let (header, body) = tail.bytes.split_at_checked(header_length)?;
        let plausible = tail.length < tail.total_length && tail.total_length as usize >= HEADER_SIZE;
        plausible.then(|| Chain {
            header: header.to_vec(),
            body: body.to_vec(),
            whole: header_length + body.len() == tail.length as usize,
            crc: tail.crc,
            have: tail.length,
        })
    }

    /// `None` for a piece that no scan makes.
    fn add(&mut self, head: &HeadPiece) -> Option<()> {
        let missing = (HEADER_SIZE - self.header.len()).min(head.length as usize);
        let (header, body) = head.bytes.split_at_checked(missing)?;
        self.header.extend_from_slice(header);
        let body_length = head.length as usize - missing;
        if body_length > 0 {
            // The head's checksum is of all its bytes; the combination takes those of the record's header out again.
            let body_crc = crc32c::crc32c_combine(crc32c::crc32c(header), head.crc, body_length);
            self.crc = crc32c::crc32c_combine(self.crc, body_crc, body_length);
        }
        if self.whole {
            self.body.extend_from_slice(body);
            self.whole = body.len() == body_length;
        }
        self.have += head.length;
        Some(())
    }

    fn finish(self, tail: &TailPiece, end: Lsn, major: PostgresMajor) -> Result<JoinedRecord, Joined> {
        let Some(header) = RecordHeader::read(&self.header).filter(|header| header.length == tail.total_length) else {
            return Err(damaged(tail.start, Flaw::RecordLength { found: tail.total_length }));
        };
        header.check(major).map_err(|why| damaged(tail.start, why))?;
        let found = finish_crc(self.crc, &self.header);
        if found != header.crc {
            return Err(damaged(tail.start, Flaw::Checksum { expected: header.crc, found }));
        }
        Ok(JoinedRecord { start: tail.start, end, header, body: self.body, whole: self.whole })
    }
}

mod base64_bytes {
    //! Bytes as Base64 in JSON.
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}
