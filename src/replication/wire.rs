//! Messages over a connection: framing, buffers, deadlines. What the messages mean is for the modules above.
//!
//! The stream of a base backup decides the shape of this module. One large block takes what the socket has; a
//! `CopyData` body is handed out as a view into that block, never copied. Such a view keeps its whole block (half a MiB)
//! alive: whoever stores views for long should copy them.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use postgres_protocol::message::backend::Message;
use rustls::{ClientConnection, StreamOwned};

use super::ReplicationError;
use super::patience::{Patience, Wait};
use super::socket::Socket;

/// Size of a receive block.
const BLOCK_BYTES: usize = 512 * 1024;
/// A block with less room than this is replaced, so that reads stay large.
const LEAST_READ_BYTES: usize = 128 * 1024;
/// No message of a sound server comes near this: base backups use 32 KiB, WAL 128 KiB; the largest is a manifest row
/// or a history file. A length beyond it means that the two sides are out of step, or that the other is hostile.
const LONGEST_MESSAGE_BYTES: usize = 64 * 1024 * 1024;
/// Tag and length.
const HEADER_BYTES: usize = 5;

/// A connection, in the clear or in TLS.
pub(super) enum Transport {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Transport {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.read(buffer),
            Transport::Tls(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Plain(socket) => socket.write(buffer),
            Transport::Tls(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Transport::Plain(socket) => socket.flush(),
            Transport::Tls(stream) => stream.flush(),
        }
    }
}

/// One message from the server.
pub(super) enum Frame {
    /// `CopyData`, without its header.
    CopyData(Bytes),
    /// `CopyBothResponse`, which `postgres-protocol` does not know.
    CopyBoth,
    /// Everything else.
    Message(Message),
}

/// Messages in and out.
pub(super) struct Wire {
    transport: Transport,
    patience: Patience,
    /// Until when the login has to be done; `None` afterwards.
    deadline: Option<Instant>,
    /// Received bytes at its front, room behind them.
    block: BytesMut,
    received: usize,
    /// Bytes to send.
    pub(super) out: BytesMut,
}

impl Wire {
    pub(super) fn new(transport: Transport, patience: Patience, deadline: Option<Instant>) -> Self {
        Wire { transport, patience, deadline, block: BytesMut::new(), received: 0, out: BytesMut::new() }
    }

    pub(super) fn patience_mut(&mut self) -> &mut Patience {
        &mut self.patience
    }

    /// The login is done: from now on only silence is limited.
    pub(super) fn lift_deadline(&mut self) {
        self.deadline = None;
    }

    /// Whether the connection is encrypted.
    pub(super) fn is_encrypted(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }

    /// How long the next wait may take.
    fn limit(&self) -> Duration {
        let silence = self.patience.silence;
        self.deadline.map_or(silence, |deadline| silence.min(deadline.saturating_duration_since(Instant::now())))
    }

    /// Sends what is in `out`.
    pub(super) fn send(&mut self, doing: &'static str) -> Result<(), ReplicationError> {
        let mut wait = Wait::begin(&self.patience, self.limit(), doing);
        let mut sent = 0;
        loop {
            let result = match &self.out[sent..] {
                [] => self.transport.flush().map(|()| None),
                rest => self.transport.write(rest).map(Some),
            };
            match result {
                Ok(None) => break,
                Ok(Some(0)) => return Err(ReplicationError::Closed { doing }),
                Ok(Some(count)) => {
                    sent += count;
                    wait = Wait::begin(&self.patience, self.limit(), doing);
                }
                Err(error) if is_slice_end(&error) => wait.go_on()?,
                Err(error) => return Err(broken(error, doing)),
            }
        }
        self.out.clear();
        Ok(())
    }

    /// The next message; waits for it as long as patience lasts.
    pub(super) fn receive(&mut self, doing: &'static str) -> Result<Frame, ReplicationError> {
        loop {
            if let Some(frame) = self.take(doing)? {
                return Ok(frame);
            }
            self.fill(None, doing)?;
        }
    }

    /// The next message if it comes before `until` (give or take [`super::patience::SLICE`]).
    pub(super) fn receive_until(
        &mut self,
        until: Instant,
        doing: &'static str,
    ) -> Result<Option<Frame>, ReplicationError> {
        loop {
            if let Some(frame) = self.take(doing)? {
                return Ok(Some(frame));
            }
            if !self.fill(Some(until), doing)? {
                return Ok(None);
            }
        }
    }

    /// Takes a message out of what was received, if a whole one is there.
    fn take(&mut self, doing: &'static str) -> Result<Option<Frame>, ReplicationError> {
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

    /// Receives at least one byte; `false` if `until` came first.
    fn fill(&mut self, until: Option<Instant>, doing: &'static str) -> Result<bool, ReplicationError> {
        self.patience.check_interrupt()?;
        let needed = self.announced(doing)?.unwrap_or(HEADER_BYTES);
        if self.block.len() - self.received < LEAST_READ_BYTES || self.block.len() < needed {
            let mut fresh = BytesMut::zeroed(BLOCK_BYTES.max(needed + LEAST_READ_BYTES));
            fresh[..self.received].copy_from_slice(&self.block[..self.received]);
            self.block = fresh;
        }
        let limit = self.limit();
        // The clock is read only where there is something to wait for.
        let mut wait = None;
        loop {
            match self.transport.read(&mut self.block[self.received..]) {
                Ok(0) => return Err(ReplicationError::Closed { doing }),
                Ok(count) => {
                    self.received += count;
                    return Ok(true);
                }
                Err(error) if is_slice_end(&error) => match until {
                    Some(until) if Instant::now() >= until => return Ok(false),
                    Some(_) => self.patience.check_interrupt()?,
                    None => wait.get_or_insert_with(|| Wait::begin(&self.patience, limit, doing)).go_on()?,
                },
                Err(error) => return Err(broken(error, doing)),
            }
        }
    }

    /// Says goodbye, if that can be done at once.
    pub(super) fn terminate(&mut self) {
        self.out.clear();
        postgres_protocol::message::frontend::terminate(&mut self.out);
        let farewell = self.out.split();
        // Nobody can be told, and nothing is lost: the server notices the closed connection as well.
        let _ = self.transport.write(&farewell).and_then(|_| self.transport.flush());
    }
}

/// Whether nothing happened for the length of a slice, or a signal came.
pub(super) fn is_slice_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn broken(source: io::Error, doing: &'static str) -> ReplicationError {
    match source.kind() {
        io::ErrorKind::UnexpectedEof => ReplicationError::Closed { doing },
        _ => ReplicationError::Lost { doing, source },
    }
}

pub(super) fn out_of_step(doing: &'static str, reason: String) -> ReplicationError {
    ReplicationError::Protocol { doing, reason }
}
