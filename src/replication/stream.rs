//! `START_REPLICATION`: WAL as the server writes it (manual, "Streaming Replication Protocol"; `walsender.c`).
//!
//! The stream goes both ways: WAL and signs of life come in, and the position up to which the caller has made WAL
//! durable goes out, on request and every ten seconds. The server keeps what was not reported (if there is a slot),
//! and counts it for `synchronous_standby_names`. The caller's part is to call [`WalStream::next`] without long pauses:
//! nothing is answered in between, and `wal_sender_timeout` (60 s by default) ends a stream whose receiver is silent.

use std::time::{Duration, Instant};

use bytes::Bytes;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend::{self, CopyData};

use crate::wal::{Lsn, PgTime, TimelineId};

use super::copy_data::{WalCopyData, parse_wal, status_update};
use super::error::ReplicationError;
use super::frames::{Frame, out_of_step};
use super::identify::{field, timeline};
use super::session::Session;

const STARTING: &str = "starting to stream WAL";
const STREAMING: &str = "streaming WAL";

/// As `wal_receiver_status_interval`.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// [`WalStream::next`] comes back at least this often.
const IDLE: Duration = Duration::from_secs(1);

/// What happened on the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StreamEvent {
    /// WAL, following what came before without a gap; at most 128 KiB from sound servers.
    Data {
        /// Where it begins.
        start_lsn: Lsn,
        /// A view into a larger receive block.
        bytes: Bytes,
    },
    /// A sign of life.
    Keepalive {
        /// How far the server's WAL reaches.
        end: Lsn,
        /// Whether the server wanted an answer; it has been sent.
        reply: bool,
    },
    /// The server has no more WAL on this timeline. The session can be used again, for the next one.
    EndOfTimeline {
        /// The timeline that goes on.
        next: TimelineId,
        /// Where it leaves this one.
        switch: Lsn,
    },
    /// Nothing for a second.
    Idle,
}

/// WAL from a server, until the timeline ends or the caller stops.
pub struct WalStream<'s> {
    session: &'s mut Session,
    /// Where the next WAL must begin.
    position: Lsn,
    flushed: Lsn,
    status_sent: Instant,
    heard: Instant,
    /// Longest silence of the server.
    silence: Duration,
    /// Whether an answer was asked for since the server was last heard.
    asked: bool,
    ended: Option<StreamEvent>,
}

impl Session {
    /// Makes a physical slot that holds WAL from now on, and goes when this session ends.
    ///
    /// # Errors
    /// [`ReplicationError::Server`] with `42710` if there is one of that name, `53400` if `max_replication_slots` are in use.
    pub fn create_temporary_slot(&mut self, name: &str) -> Result<(), ReplicationError> {
        check_slot_name(name)?;
        self.query(&format!("CREATE_REPLICATION_SLOT {name} TEMPORARY PHYSICAL RESERVE_WAL"))?;
        Ok(())
    }
}

impl<'s> WalStream<'s> {
    /// Starts to stream from `start`, which must lie on `timeline`. A slot makes the server keep WAL that was not yet
    /// reported as flushed.
    ///
    /// # Errors
    /// [`ReplicationError::Server`] with `55006` if another session uses the slot. Servers find out only after the stream has
    /// begun, and say it at the first [`WalStream::next`], that the WAL is gone (`58P01`) or not written yet.
    pub fn start(
        session: &'s mut Session,
        slot: Option<&str>,
        start: Lsn,
        timeline: TimelineId,
    ) -> Result<Self, ReplicationError> {
        let with_slot = match slot {
            None => String::new(),
            Some(name) => {
                check_slot_name(name)?;
                format!("SLOT {name} ")
            }
        };
        // Servers refuse to stream before they were asked who they are.
        session.identify_system()?;
        session.send_query(&format!("START_REPLICATION {with_slot}PHYSICAL {start} TIMELINE {timeline}"), STARTING)?;
        // The limit is counted here, since silence is no error while nothing happens on the server.
        let silence = session.silence();
        let now = Instant::now();
        let mut stream = WalStream {
            session,
            position: start,
            flushed: start,
            status_sent: now,
            heard: now,
            silence,
            asked: false,
            ended: None,
        };
        // At the very end of an old timeline there is nothing to stream, and the server says at once where it goes on.
        match stream.session.receive(STARTING)? {
            Frame::CopyBoth => {}
            Frame::Message(Message::RowDescription(_)) => stream.ended = stream.timeline_end()?,
            _ => return Err(stream.session.unexpected(STARTING, "neither a stream nor the end of a timeline")),
        }
        Ok(stream)
    }

    /// Where the next WAL begins.
    #[must_use]
    pub fn position(&self) -> Lsn {
        self.position
    }

    /// Tells that WAL up to here is durable. Reported with the next status; never goes back.
    pub fn set_flushed(&mut self, flushed: Lsn) {
        self.flushed = self.flushed.max(flushed);
    }

    /// Reports the flushed position at once, for those who wait for it.
    ///
    /// # Errors
    /// A broken connection.
    pub fn report(&mut self) -> Result<(), ReplicationError> {
        self.send_status(false)
    }

    /// Waits for the next event, for a second at most; reports the position when it is due.
    ///
    /// # Errors
    /// [`ReplicationError`]; the stream cannot be continued. [`ReplicationError::Closed`] when the server shuts down.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would go on after an error")]
    pub fn next(&mut self) -> Result<StreamEvent, ReplicationError> {
        if let Some(end) = &self.ended {
            return Ok(end.clone());
        }
        if self.status_sent.elapsed() >= STATUS_INTERVAL {
            self.send_status(false)?;
        }
        let Some(frame) = self.session.receive_until(Instant::now() + IDLE, STREAMING)? else {
            self.check_silence()?;
            return Ok(StreamEvent::Idle);
        };
        (self.heard, self.asked) = (Instant::now(), false);
        match frame {
            Frame::CopyData(body) => self.event(body),
            Frame::Message(Message::CopyDone) => {
                frontend::copy_done(self.session.out());
                self.session.send(STREAMING)?;
                let end = self.timeline_end()?;
                self.ended.clone_from(&end);
                end.ok_or_else(|| out_of_step(STREAMING, "the stream ended without a next timeline".to_owned()))
            }
            // A server that shuts down says that the command is complete, and leaves.
            Frame::Message(Message::CommandComplete(_)) => Err(ReplicationError::Closed { doing: STREAMING }),
            _ => Err(self.session.unexpected(STREAMING, "something else than WAL")),
        }
    }

    /// Ends the stream in agreement with the server; the session can be used again. WAL that is still on the way is
    /// dropped.
    ///
    /// # Errors
    /// A broken connection.
    pub fn stop(mut self) -> Result<(), ReplicationError> {
        if self.ended.is_some() {
            return Ok(());
        }
        self.send_status(false)?;
        frontend::copy_done(self.session.out());
        self.session.send(STREAMING)?;
        loop {
            match self.session.receive(STREAMING)? {
                Frame::CopyData(_) => {}
                Frame::Message(Message::CopyDone) => break,
                _ => return Err(self.session.unexpected(STREAMING, "something else than the end of the stream")),
            }
        }
        self.timeline_end().map(|_| ())
    }

    fn event(&mut self, body: Bytes) -> Result<StreamEvent, ReplicationError> {
        match parse_wal(body).map_err(|error| self.session.unexpected(STREAMING, &error.to_string()))? {
            WalCopyData::Wal { start, bytes, .. } => {
                if start != self.position {
                    let what = format!("WAL from {start} where {} comes next", self.position);
                    return Err(self.session.unexpected(STREAMING, &what));
                }
                self.position = Lsn(start.0 + bytes.len() as u64);
                Ok(StreamEvent::Data { start_lsn: start, bytes })
            }
            WalCopyData::Keepalive { end, answer, .. } => {
                if answer {
                    self.send_status(false)?;
                }
                Ok(StreamEvent::Keepalive { end, reply: answer })
            }
        }
    }

    /// With `wal_sender_timeout = 0` an idle server never says a word by itself, so it is asked before it is given up.
    fn check_silence(&mut self) -> Result<(), ReplicationError> {
        let quiet = self.heard.elapsed();
        if quiet >= self.silence {
            return Err(ReplicationError::Silent { doing: STREAMING, waited: self.silence });
        }
        if quiet >= self.silence / 2 && !self.asked {
            self.asked = true;
            self.send_status(true)?;
        }
        Ok(())
    }

    fn send_status(&mut self, answer: bool) -> Result<(), ReplicationError> {
        let body = status_update(self.flushed, PgTime::from_timestamp(jiff::Timestamp::now()), answer);
        CopyData::new(body).map_err(|error| out_of_step(STREAMING, error.to_string()))?.write(self.session.out());
        self.session.send(STREAMING)?;
        self.status_sent = Instant::now();
        Ok(())
    }

    /// What follows the stream: the next timeline, if this one ended, and the end of the command.
    fn timeline_end(&mut self) -> Result<Option<StreamEvent>, ReplicationError> {
        let mut end = None;
        while let Some(result) = self.session.receive_result(STREAMING)? {
            let result = result.into_text(STREAMING)?;
            if !result.rows.is_empty() {
                let next = timeline(field(&result, 0, STREAMING)?, STREAMING)?;
                let switch = field(&result, 1, STREAMING)?;
                let switch =
                    switch.parse().map_err(|_| out_of_step(STREAMING, format!("switch point \"{switch}\"")))?;
                end = Some(StreamEvent::EndOfTimeline { next, switch });
            }
        }
        Ok(end)
    }
}

/// As `ReplicationSlotValidateName` in `slot.c`.
fn check_slot_name(name: &str) -> Result<(), ReplicationError> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match (1..64).contains(&name.len()) && name.chars().all(allowed) {
        true => Ok(()),
        false => Err(ReplicationError::Argument {
            what: "slot name",
            reason: format!("\"{name}\" is not made of 1 to 63 lower-case letters, digits and underscores"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slot name cannot carry anything else into a command.
    #[test]
    fn slot_names() {
        assert!(check_slot_name("pitr_1").is_ok());
        for wrong in ["", "A", "a b", "a;", "ä", &"a".repeat(64)] {
            assert!(check_slot_name(wrong).is_err(), "{wrong}");
        }
    }
}
