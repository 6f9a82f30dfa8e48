//! What can go wrong between this program and a server.

use std::io;
use std::time::Duration;

use super::conninfo::ConnInfoError;

/// A message of the server: an error, or a notice such as a warning (manual, "Error and Notice Message Fields").
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ServerMessage {
    /// `ERROR`, `FATAL`, `PANIC`, `WARNING`, `NOTICE`…, never translated.
    pub severity: String,
    /// Five characters, such as `28P01` (manual, appendix "PostgreSQL Error Codes").
    pub sqlstate: String,
    /// The primary message, in the server's language.
    pub message: String,
    /// More about the problem.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl std::fmt::Display for ServerMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:  {}", self.severity, self.message)?;
        for (name, text) in [("DETAIL", &self.detail), ("HINT", &self.hint)] {
            if let Some(text) = text {
                write!(f, "; {name}:  {text}")?;
            }
        }
        Ok(())
    }
}

/// A failure of a session. Carries no password.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// The connection settings are wrong.
    #[error(transparent)]
    ConnInfo(#[from] ConnInfoError),
    /// No connection to the address.
    #[error("could not connect to the server at {server}: {source}")]
    Connect {
        /// The server and address tried.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// None of several servers would do.
    #[error("{}", each(failures))]
    NoServer {
        /// What each of them answered, in the order tried.
        failures: Vec<ReplicationError>,
    },
    /// A server of another kind than `target_session_attrs` asks for.
    #[error("the server at {server} is not {wanted}")]
    WrongServer {
        /// The server.
        server: String,
        /// Such as "a standby".
        wanted: &'static str,
    },
    /// TLS is asked for and the server has none.
    #[error("the server at {server} does not support TLS, but sslmode requires it")]
    TlsNotOffered {
        /// The server.
        server: String,
    },
    /// TLS could not be set up: handshake, certificate, or a file it needs.
    #[error("could not set up TLS with the server at {server}: {reason}")]
    Tls {
        /// The server.
        server: String,
        /// What failed, with what to do where that is known.
        reason: String,
    },
    /// The server asks for a password and none is at hand.
    #[error("the server at {server} asks for the password of \"{user}\", but none was supplied{}", appended(unused))]
    NoPassword {
        /// The server.
        server: String,
        /// The role.
        user: String,
        /// Why the password file was not used, if there is one.
        unused: Option<String>,
    },
    /// Login cannot be done, or would not be safe.
    #[error("could not log in to the server at {server}: {reason}")]
    Authentication {
        /// The server.
        server: String,
        /// What failed.
        reason: String,
    },
    /// The server answered with an error.
    #[error("{0}")]
    Server(Box<ServerMessage>),
    /// The connection broke while something was being done.
    #[error("lost the connection to the server while {doing}: {source}")]
    Lost {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The server closed the connection without a word: a crash, a restart, or a proxy between.
    #[error("the server closed the connection while {doing}")]
    Closed {
        /// What was being done.
        doing: &'static str,
    },
    /// Nothing came from the server for too long.
    #[error("no answer from the server for {} s while {doing}", waited.as_secs())]
    Silent {
        /// What was being done.
        doing: &'static str,
        /// The limit that was exceeded.
        waited: Duration,
    },
    /// The program was asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// The server said something that the protocol does not allow here, or that is not understood.
    #[error("unexpected answer from the server while {doing}: {reason}")]
    Protocol {
        /// What was being done.
        doing: &'static str,
        /// What came.
        reason: String,
    },
    /// The server was a standby when a base backup began, and is none any more.
    #[error("the standby was promoted during the base backup")]
    Promoted,
    /// A value given to a command that the protocol cannot carry.
    #[error("invalid {what}: {reason}")]
    Argument {
        /// Which value.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

fn each(failures: &[ReplicationError]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn appended(reason: &Option<String>) -> String {
    reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
}

impl ReplicationError {
    /// Whether trying again later can help without anyone changing a setting.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            ReplicationError::ConnInfo(_)
            | ReplicationError::TlsNotOffered { .. }
            | ReplicationError::Tls { .. }
            | ReplicationError::NoPassword { .. }
            | ReplicationError::Authentication { .. }
            | ReplicationError::Protocol { .. }
            | ReplicationError::Argument { .. } => true,
            ReplicationError::Connect { .. }
            | ReplicationError::WrongServer { .. }
            | ReplicationError::Lost { .. }
            | ReplicationError::Closed { .. }
            | ReplicationError::Silent { .. }
            | ReplicationError::Promoted
            | ReplicationError::Interrupted => false,
            ReplicationError::NoServer { failures } => failures.iter().all(ReplicationError::is_permanent),
            // Connection trouble (08), too many connections and the like (53), wrong state (55: a slot in use), shutting
            // down or starting up (57), system errors such as a full disk (58) pass, though a file that is gone (58P01:
            // WAL that was removed) does not come back; the rest needs a person.
            ReplicationError::Server(message) => {
                let passes = ["08", "53", "55", "57", "58"].iter().any(|class| message.sqlstate.starts_with(class));
                !passes || message.sqlstate == "58P01"
            }
        }
    }

    /// The server's own error, if this is one.
    #[must_use]
    pub fn server_message(&self) -> Option<&ServerMessage> {
        match self {
            ReplicationError::Server(message) => Some(message),
            _ => None,
        }
    }
}
