//! Messages over a connection: deadlines, interruption, sending and receiving. What the messages mean is for the
//! modules above, what they look like for [`super::frames`].

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustls::{ClientConnection, StreamOwned};

use super::ReplicationError;
use super::frames::{Frame, Frames};
use super::patience::{Patience, Wait};
use super::socket::Socket;

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

/// Messages in and out.
pub(super) struct Wire {
    transport: Transport,
    patience: Patience,
    /// Until when the login has to be done; `None` afterwards.
    deadline: Option<Instant>,
    frames: Frames,
    /// Bytes to send.
    pub(super) out: BytesMut,
}

impl Wire {
    pub(super) fn new(transport: Transport, patience: Patience, deadline: Option<Instant>) -> Self {
        Wire { transport, patience, deadline, frames: Frames::default(), out: BytesMut::new() }
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
            if let Some(frame) = self.frames.take(doing)? {
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
            if let Some(frame) = self.frames.take(doing)? {
                return Ok(Some(frame));
            }
            if !self.fill(Some(until), doing)? {
                return Ok(None);
            }
        }
    }

    /// Receives at least one byte; `false` if `until` came first.
    fn fill(&mut self, until: Option<Instant>, doing: &'static str) -> Result<bool, ReplicationError> {
        self.patience.check_interrupt()?;
        let limit = self.limit();
        // The clock is read only where there is something to wait for.
        let mut wait = None;
        loop {
            match self.transport.read(self.frames.room(doing)?) {
                Ok(0) => return Err(ReplicationError::Closed { doing }),
                Ok(count) => {
                    self.frames.filled(count);
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
