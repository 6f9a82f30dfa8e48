//! A session with a server: connecting, logging in, and commands over the simple query protocol.
//!
//! One session runs one command at a time. The streams of [`super::BaseBackup`] and [`super::WalStream`] borrow it;
//! one that is dropped before its end leaves the session unusable, which is right: closing the connection is the only way
//! to make a server stop sending a base backup, and it leaves nothing behind there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fallible_iterator::FallibleIterator;
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;

use super::connect;
use super::conninfo::ConnInfo;
use super::error::{ReplicationError, ServerMessage};
use super::frames::{Frame, out_of_step, server_message, values};
use super::patience::Patience;
use super::wire::Wire;

/// Notices kept for the caller; a server with a damaged disk can send any number of them.
const NOTICES_KEPT: usize = 1000;

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionKind {
    /// Physical replication (`replication=true`): replication commands, `SHOW`, no SQL, no database. The role needs
    /// REPLICATION, and `pg_hba.conf` a line for the database `replication`.
    Physical,
    /// Ordinary SQL in [`ConnInfo::dbname`].
    Sql,
}

/// What one command of a query answered.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct QueryResult {
    /// Names of the columns; empty for a command without rows.
    pub columns: Vec<String>,
    /// Values in text form, `None` for NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// The command tag, such as `SELECT 1`.
    pub tag: String,
}

/// A result whose values need not be UTF-8.
#[derive(Default)]
pub(super) struct RawResult {
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<Vec<Option<Vec<u8>>>>,
    tag: String,
}

impl RawResult {
    /// With every value as text.
    pub(super) fn into_text(self, doing: &'static str) -> Result<QueryResult, ReplicationError> {
        let text = |value: Option<Vec<u8>>| value.map(String::from_utf8).transpose();
        let rows: Result<Vec<Vec<_>>, _> =
            self.rows.into_iter().map(|row| row.into_iter().map(text).collect()).collect();
        let rows = rows.map_err(|_| out_of_step(doing, "a value that is not UTF-8".to_owned()))?;
        Ok(QueryResult { columns: self.columns, rows, tag: self.tag })
    }
}

/// Where the conversation stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// A command can be sent.
    Ready,
    /// A command is being answered.
    Busy,
    /// The server reported an error and will say when it is ready.
    AfterError,
    /// The connection cannot be used any more.
    Broken,
}

/// A logged-in connection.
pub struct Session {
    wire: Wire,
    kind: SessionKind,
    server: String,
    parameters: BTreeMap<String, String>,
    notices: Vec<ServerMessage>,
    phase: Phase,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("server", &self.server)
            .field("kind", &self.kind)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Connects to the first server of the list that will do, and logs in.
    ///
    /// # Errors
    /// [`ReplicationError`]; with several servers, a failure of each.
    pub fn connect(info: &ConnInfo, kind: SessionKind, patience: &Patience) -> Result<Self, ReplicationError> {
        connect::connect(info, kind, patience)
    }

    /// After the login: takes what the server tells about itself and waits until it is ready.
    pub(super) fn begin(wire: Wire, kind: SessionKind, server: String) -> Result<Self, ReplicationError> {
        let doing = "logging in";
        let (parameters, notices) = (BTreeMap::new(), Vec::new());
        let mut session = Session { wire, kind, server, parameters, notices, phase: Phase::Busy };
        loop {
            match session.receive(doing)? {
                Frame::Message(Message::BackendKeyData(_)) => {}
                Frame::Message(Message::ReadyForQuery(_)) => break,
                _ => return Err(out_of_step(doing, "something else than the end of the login".to_owned())),
            }
        }
        session.phase = Phase::Ready;
        session.wire.lift_deadline();
        Ok(session)
    }

    /// Which kind of session it is.
    #[must_use]
    pub fn kind(&self) -> SessionKind {
        self.kind
    }

    /// The server connected to, for messages.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.wire.is_encrypted()
    }

    /// A parameter that the server reports by itself, such as `server_version`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The server's major version: 17 for `17.2 (Debian 17.2-1)`, 19 for `19devel`.
    ///
    /// # Errors
    /// A server that does not tell it.
    pub fn server_major(&self) -> Result<u16, ReplicationError> {
        let version = self.parameter("server_version").unwrap_or_default();
        let digits = version.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().map_err(|_| out_of_step("logging in", format!("server version \"{version}\"")))
    }

    /// Changes how long silence is borne; returns the previous limit.
    pub fn set_silence(&mut self, silence: Duration) -> Duration {
        std::mem::replace(&mut self.wire.patience_mut().silence, silence)
    }

    /// How long silence is borne.
    pub(super) fn silence(&mut self) -> Duration {
        self.wire.patience_mut().silence
    }

    /// Takes the notices (warnings included) received so far. Of very many, the first thousand are kept.
    pub fn take_notices(&mut self) -> Vec<ServerMessage> {
        std::mem::take(&mut self.notices)
    }

    /// Runs a replication command or SQL, and collects all it answers. Meant for small answers: they are held in
    /// memory.
    ///
    /// # Errors
    /// [`ReplicationError::Server`] leaves the session usable, every other error does not.
    pub fn query(&mut self, sql: &str) -> Result<Vec<QueryResult>, ReplicationError> {
        let doing = "running a command";
        self.query_raw(sql, doing)?.into_iter().map(|result| result.into_text(doing)).collect()
    }

    /// As [`Session::query`], for values that need not be UTF-8.
    pub(super) fn query_raw(&mut self, sql: &str, doing: &'static str) -> Result<Vec<RawResult>, ReplicationError> {
        self.send_query(sql, doing)?;
        let mut results = Vec::new();
        loop {
            match self.receive_result(doing)? {
                Some(result) => results.push(result),
                None => return Ok(results),
            }
        }
    }

    /// Sends a command, once the server is ready for one.
    pub(super) fn send_query(&mut self, sql: &str, doing: &'static str) -> Result<(), ReplicationError> {
        if self.phase == Phase::AfterError {
            // The rest of the failed command's answer.
            while !matches!(self.receive(doing)?, Frame::Message(Message::ReadyForQuery(_))) {}
            self.phase = Phase::Ready;
        }
        if self.phase != Phase::Ready {
            return Err(out_of_step(doing, "the session is in the middle of an earlier command".to_owned()));
        }
        frontend::query(sql, &mut self.wire.out)
            .map_err(|error| ReplicationError::Argument { what: "command", reason: error.to_string() })?;
        self.phase = Phase::Busy;
        self.send(doing)
    }

    /// Receives one result, or `None` when the server is ready again.
    pub(super) fn receive_result(&mut self, doing: &'static str) -> Result<Option<RawResult>, ReplicationError> {
        let mut result = RawResult::default();
        let wrong = |error: std::io::Error| out_of_step(doing, error.to_string());
        loop {
            match self.receive(doing)? {
                Frame::Message(Message::RowDescription(body)) => {
                    result.columns = body.fields().map(|field| Ok(field.name().to_owned())).collect().map_err(wrong)?;
                }
                Frame::Message(Message::DataRow(body)) => result.rows.push(values(&body).map_err(wrong)?),
                Frame::Message(Message::CommandComplete(body)) => {
                    body.tag().map_err(wrong)?.clone_into(&mut result.tag);
                    return Ok(Some(result));
                }
                Frame::Message(Message::EmptyQueryResponse) => return Ok(Some(result)),
                Frame::Message(Message::ReadyForQuery(_)) => {
                    self.phase = Phase::Ready;
                    return Ok(None);
                }
                _ => return Err(self.unexpected(doing, "something else than rows")),
            }
        }
    }

    /// The next message; notices, parameters and errors are dealt with here.
    pub(super) fn receive(&mut self, doing: &'static str) -> Result<Frame, ReplicationError> {
        loop {
            let received = self.wire.receive(doing);
            let frame = self.broken_if_failed(received)?;
            if let Some(frame) = self.sort(frame, doing)? {
                return Ok(frame);
            }
        }
    }

    /// As [`Session::receive`], giving up at `until` without harm.
    pub(super) fn receive_until(
        &mut self,
        until: Instant,
        doing: &'static str,
    ) -> Result<Option<Frame>, ReplicationError> {
        loop {
            let received = self.wire.receive_until(until, doing);
            let Some(frame) = self.broken_if_failed(received)? else { return Ok(None) };
            if let Some(frame) = self.sort(frame, doing)? {
                return Ok(Some(frame));
            }
        }
    }

    /// Deals with what may come at any time; gives back everything else.
    fn sort(&mut self, frame: Frame, doing: &'static str) -> Result<Option<Frame>, ReplicationError> {
        match frame {
            Frame::Message(Message::NoticeResponse(body)) => {
                if self.notices.len() < NOTICES_KEPT {
                    self.notices.push(server_message(&mut body.fields()));
                }
            }
            Frame::Message(Message::ParameterStatus(body)) => {
                let read = body.name().and_then(|name| Ok((name.to_owned(), body.value()?.to_owned())));
                let (name, value) = read.map_err(|error| out_of_step(doing, error.to_string()))?;
                self.parameters.insert(name, value);
            }
            Frame::Message(Message::NotificationResponse(_)) => {}
            Frame::Message(Message::ErrorResponse(body)) => {
                let message = server_message(&mut body.fields());
                self.phase = if message.severity == "ERROR" { Phase::AfterError } else { Phase::Broken };
                return Err(ReplicationError::Server(Box::new(message)));
            }
            other => return Ok(Some(other)),
        }
        Ok(None)
    }

    /// The place to write messages to before [`Session::send`].
    pub(super) fn out(&mut self) -> &mut bytes::BytesMut {
        &mut self.wire.out
    }

    /// Sends what was written.
    pub(super) fn send(&mut self, doing: &'static str) -> Result<(), ReplicationError> {
        let sent = self.wire.send(doing);
        self.broken_if_failed(sent)
    }

    fn broken_if_failed<T>(&mut self, result: Result<T, ReplicationError>) -> Result<T, ReplicationError> {
        if result.is_err() {
            self.phase = Phase::Broken;
        }
        result
    }

    /// An error for a message that does not belong here. The conversation cannot go on after it.
    pub(super) fn unexpected(&mut self, doing: &'static str, what: &str) -> ReplicationError {
        self.phase = Phase::Broken;
        out_of_step(doing, what.to_owned())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.phase == Phase::Ready {
            self.wire.terminate();
        }
    }
}
