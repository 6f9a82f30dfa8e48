//! Messages out of received bytes. Pure: no socket, no clock.
//!
//! The stream of a base backup decides the shape of this module. One large block takes what the socket has; a
//! `CopyData` body is handed out as a view into that block, never copied. Such a view keeps its whole block (half a MiB)
//! alive: whoever stores views for long should copy them.

use std::io;

use bytes::{Bytes, BytesMut};
use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::{DataRowBody, ErrorFields, Message};

use super::error::{ReplicationError, ServerMessage};

/// Size of a receive block.
const BLOCK_BYTES: usize = 512 * 1024;
/// A block with less room than this is replaced, so that reads stay large.
const LEAST_READ_BYTES: usize = 128 * 1024;
/// No message of a sound server comes near this: base backups use 32 KiB, WAL 128 KiB; the largest is a history file or a
/// row of a query. A length beyond it means that the two sides are out of step, or that the other is hostile.
const LONGEST_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// Tag and length.
const HEADER_BYTES: usize = 5;

/// One message from the server.
pub(super) enum Frame {
    /// `CopyData`, without its header.
    CopyData(Bytes),
    /// `CopyBothResponse`, which `postgres-protocol` does not know.
    CopyBoth,
    /// Everything else.
    Message(Message),
}

/// Received bytes, and room for more.
#[derive(Default)]
pub(super) struct Frames {
    /// Received bytes at its front, room behind them.
    block: BytesMut,
    received: usize,
}

impl Frames {
    /// Room for what comes next; never empty. [`Frames::filled`] tells how much came.
    pub(super) fn room(&mut self, doing: &'static str) -> Result<&mut [u8], ReplicationError> {
        let needed = self.announced(doing)?.unwrap_or(HEADER_BYTES);
        if self.block.len() - self.received < LEAST_READ_BYTES || self.block.len() < needed {
            let mut fresh = BytesMut::zeroed(BLOCK_BYTES.max(needed + LEAST_READ_BYTES));
            fresh[..self.received].copy_from_slice(&self.block[..self.received]);
            self.block = fresh;
        }
        Ok(&mut self.block[self.received..])
    }

    /// `count` bytes of [`Frames::room`] have been filled.
    pub(super) fn filled(&mut self, count: usize) {
        self.received = (self.received + count).min(self.block.len());
    }

    /// Takes a message, if a whole one is there.
    pub(super) fn take(&mut self, doing: &'static str) -> Result<Option<Frame>, ReplicationError> {
        let Some(length) = self.announced(doing)? else { return Ok(None) };
        if self.received < length {
            return Ok(None);
        }
        self.received -= length;
        let mut message = self.block.split_to(length);
        match message[0] {
            b'd' => Ok(Some(Frame::CopyData(message.freeze().split_off(HEADER_BYTES)))),
            b'W' => Ok(Some(Frame::CopyBoth)),
            tag => match Message::parse(&mut message) {
                Ok(Some(message)) => Ok(Some(Frame::Message(message))),
                Ok(None) => Err(out_of_step(doing, format!("message '{}' is cut short", tag.escape_ascii()))),
                Err(error) => Err(out_of_step(doing, error.to_string())),
            },
        }
    }

    /// The length of the message at the front, header included, once its header is there.
    fn announced(&self, doing: &'static str) -> Result<Option<usize>, ReplicationError> {
        match self.block.get(..HEADER_BYTES.min(self.received)) {
            Some(&[_, a, b, c, d]) => {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                match (4..LONGEST_MESSAGE_BYTES).contains(&length) {
                    true => Ok(Some(length + 1)),
                    false => Err(out_of_step(doing, format!("a message of {length} bytes"))),
                }
            }
            _ => Ok(None),
        }
    }
}

/// The conversation cannot go on.
pub(super) fn out_of_step(doing: &'static str, reason: String) -> ReplicationError {
    ReplicationError::Protocol { doing, reason }
}

/// The values of a row.
pub(super) fn values(row: &DataRowBody) -> io::Result<Vec<Option<Vec<u8>>>> {
    // The ranges were checked against the buffer by `postgres-protocol`; `get` keeps a mistake there from being a panic.
    let value = |range: std::ops::Range<usize>| row.buffer().get(range).map(<[u8]>::to_vec);
    row.ranges().map(|range| Ok(range.and_then(value))).collect()
}

/// The fields of an error or notice. What cannot be read is left out: an error must get through.
pub(super) fn server_message(fields: &mut ErrorFields<'_>) -> ServerMessage {
    let mut message = ServerMessage::default();
    while let Ok(Some(field)) = fields.next() {
        let text = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            // "V" is never translated and wins; "S" is all that is there before the session has settled.
            b'V' => message.severity = text,
            b'S' if message.severity.is_empty() => message.severity = text,
            b'C' => message.sqlstate = text,
            b'M' => message.message = text,
            b'D' => message.detail = Some(text),
            b'H' => message.hint = Some(text),
            _ => {}
        }
    }
    message
}

/// Reads the server's side of a recorded conversation and counts its messages: all parsing of server bytes that a
/// session does, without a server. For fuzzing and for looking into recordings.
///
/// # Errors
/// The first thing that no server may say. A message that is cut short at the end is none.
pub fn read_recorded(mut bytes: &[u8]) -> Result<usize, ReplicationError> {
    const DOING: &str = "reading a recording";
    let wrong = |error: io::Error| out_of_step(DOING, error.to_string());
    let (mut frames, mut count) = (Frames::default(), 0);
    while !bytes.is_empty() {
        let room = frames.room(DOING)?;
        let (now, later) = bytes.split_at(bytes.len().min(room.len()));
        room[..now.len()].copy_from_slice(now);
        frames.filled(now.len());
        bytes = later;
        while let Some(frame) = frames.take(DOING)? {
            count += 1;
            match frame {
                Frame::Message(Message::DataRow(body)) => drop(values(&body).map_err(wrong)?),
                Frame::Message(Message::RowDescription(body)) => {
                    body.fields().for_each(|_| Ok(())).map_err(wrong)?;
                }
                Frame::Message(Message::ErrorResponse(body)) => drop(server_message(&mut body.fields())),
                Frame::Message(Message::NoticeResponse(body)) => drop(server_message(&mut body.fields())),
                Frame::Message(Message::AuthenticationSasl(body)) => {
                    body.mechanisms().for_each(|_| Ok(())).map_err(wrong)?;
                }
                Frame::Message(Message::CommandComplete(body)) => drop(body.tag().map_err(wrong)?.to_owned()),
                Frame::Message(_) | Frame::CopyData(_) | Frame::CopyBoth => {}
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("a short message");
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    /// Feeds bytes in pieces of the given size and joins what `CopyData` brought.
    fn copy_data(bytes: &[u8], piece: usize) -> (Vec<u8>, usize) {
        let (mut frames, mut joined, mut count) = (Frames::default(), Vec::new(), 0);
        for piece in bytes.chunks(piece) {
            frames.room("").expect("room")[..piece.len()].copy_from_slice(piece);
            frames.filled(piece.len());
            while let Some(frame) = frames.take("").expect("a sound message") {
                count += 1;
                if let Frame::CopyData(body) = frame {
                    joined.extend_from_slice(&body);
                }
            }
        }
        (joined, count)
    }

    /// Messages come out whole, however the bytes arrive: split anywhere, and larger than a block.
    #[test]
    fn pieces() {
        let bodies: Vec<Vec<u8>> = [0, 1, 32768, 700_000, 5, 131_097]
            .iter()
            .map(|n| (0..*n).map(|i: u32| (i % 251) as u8).collect())
            .collect();
        let mut bytes = message(b'W', b"\0\0\0");
        for body in &bodies {
            bytes.extend(message(b'd', body));
        }
        bytes.extend(message(b'c', b""));
        for piece in [1, 7, 4096, 100_000] {
            assert_eq!(copy_data(&bytes, piece), (bodies.concat(), bodies.len() + 2), "pieces of {piece}");
        }
    }

    /// Lengths and messages that no server sends are errors at once: nothing is allocated for them.
    #[test]
    fn hostile_bytes() {
        for wrong in [
            &b"d\0\0\0\x03"[..],
            b"d\xff\xff\xff\xff",
            b"d\x7f\xff\xff\xff",
            b"?\0\0\0\x04",
            b"T\0\0\0\x05\x01",
            b"R\0\0\0\x08\0\0\0\x63",
        ] {
            assert!(read_recorded(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(read_recorded(b"d\0\0\0\x05").ok(), Some(0), "cut short");
    }

    /// What a server says about an error arrives, in whatever encoding.
    #[test]
    fn errors() {
        let body = b"SFEHLER\0VERROR\0C42704\0Mno \xff such\0Hlook\0\0";
        let mut frames = Frames::default();
        let bytes = message(b'E', body);
        frames.room("").expect("room")[..bytes.len()].copy_from_slice(&bytes);
        frames.filled(bytes.len());
        let Ok(Some(Frame::Message(Message::ErrorResponse(body)))) = frames.take("") else { panic!("an error") };
        let error = server_message(&mut body.fields());
        assert_eq!((error.severity.as_str(), error.sqlstate.as_str()), ("ERROR", "42704"));
        assert_eq!((error.message.as_str(), error.hint.as_deref()), ("no \u{fffd} such", Some("look")));
    }

    proptest! {
        /// No bytes make the parser panic.
        #[test]
        fn any_bytes(tag in prop::sample::select(b"RTDCEHNSZKWGIvAdc".to_vec()), body in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = read_recorded(&message(tag, &body));
            let _ = super::super::copy_data::parse_backup(body.clone().into());
            let _ = super::super::copy_data::parse_wal(body.into());
        }
    }
}
