//! What to tell about conversations with a PostgreSQL server.

use super::{ExitStatus, Explain, Report};
use crate::replication::{ConnInfoError, ReplicationError, ServerMessage};

/// Nothing was lost by a connection that failed.
const UNTOUCHED: &str =
    "Nothing was changed on the server or in the repository. Archiving does not need this connection.";

impl Explain for ReplicationError {
    fn report(&self) -> Report {
        let (status, meaning, hint) = match self {
            ReplicationError::ConnInfo(error) => return error.report(),
            ReplicationError::Server(message) => return server(message),
            ReplicationError::Connect { .. } => (
                ExitStatus::Server,
                UNTOUCHED,
                "Is the server running, and are host and port in conninfo right? \"pitr config show\" shows them.",
            ),
            ReplicationError::NoServer { .. } => {
                (ExitStatus::Server, UNTOUCHED, "Each server of the list was tried; is one of them running?")
            }
            ReplicationError::WrongServer { .. } => (
                ExitStatus::Server,
                UNTOUCHED,
                "Look at target_session_attrs in conninfo, and at the roles of the servers.",
            ),
            ReplicationError::TlsNotOffered { .. } => (
                ExitStatus::Refused,
                "No password was sent.",
                "Turn ssl on in the server, or choose another sslmode in conninfo if the network can be trusted.",
            ),
            ReplicationError::Tls { .. } => (
                ExitStatus::Refused,
                "No password was sent.",
                "Look at sslrootcert and sslmode in conninfo, and at the server's certificate.",
            ),
            ReplicationError::NoPassword { .. } => (
                ExitStatus::Refused,
                UNTOUCHED,
                "Put the password into ~/.pgpass of the user who runs pitr (mode 0600; the database is \"replication\" for \
                 base backups), or into PGPASSWORD.",
            ),
            ReplicationError::Authentication { .. } => (
                ExitStatus::Refused,
                UNTOUCHED,
                "Look at the server's log for its side of the story, and at the role's line in pg_hba.conf.",
            ),
            ReplicationError::Lost { .. } | ReplicationError::Closed { .. } => (
                ExitStatus::Server,
                "What was being done is not finished and does not count.",
                "Was the server stopped or restarted? Its log tells. Run the command again.",
            ),
            ReplicationError::Silent { .. } => (
                ExitStatus::Timeout,
                "What was being done is not finished and does not count.",
                "Is the server overloaded, or a firewall dropping idle connections? Run the command again.",
            ),
            ReplicationError::Interrupted => (
                ExitStatus::Interrupted,
                "What was being done is not finished and does not count.",
                "Run the command again.",
            ),
            ReplicationError::Promoted => (
                ExitStatus::Server,
                "What was being done is not finished and does not count.",
                "The server is the primary of a new timeline now. Take the backup again.",
            ),
            ReplicationError::Protocol { .. } => (
                ExitStatus::Unsupported,
                "What was being done is not finished and does not count.",
                "Is it a PostgreSQL server of version 13 to 18 at this address, and no pooler between? Poolers do not \
                 pass replication on.",
            ),
            ReplicationError::Argument { .. } => (ExitStatus::Usage, UNTOUCHED, "Choose another value."),
        };
        Report::new(status, self.to_string(), meaning, hint)
    }
}

/// An error that the server itself reported: its own detail and hint are worth more than ours.
fn server(message: &ServerMessage) -> Report {
    // Classes and codes of the manual's appendix "PostgreSQL Error Codes".
    let (status, hint) = match (message.sqlstate.get(..2).unwrap_or_default(), message.sqlstate.as_str()) {
        (_, "28P01") => (ExitStatus::Refused, "Is the password in ~/.pgpass or PGPASSWORD the role's?"),
        (_, "28000") => {
            (ExitStatus::Refused, "\"pitr init\" prints the role and the lines of pg_hba.conf that let it in.")
        }
        (_, "42501") => (ExitStatus::Refused, "\"pitr init\" prints the rights that the role needs."),
        (_, "3D000") => (ExitStatus::Refused, "Put dbname=postgres into conninfo."),
        ("53", _) => (ExitStatus::Server, "Are max_connections and max_wal_senders large enough?"),
        ("57" | "08", _) => (ExitStatus::Server, "The server is starting, stopping or in recovery; try again."),
        _ => (ExitStatus::Refused, "The server's log has the whole story."),
    };
    let what = format!("the server refused: {}", message.message);
    let detail = message.detail.clone().unwrap_or_else(|| UNTOUCHED.to_owned());
    let hint = message.hint.as_ref().map_or_else(|| hint.to_owned(), |own| format!("{own} {hint}"));
    Report::new(status, what, detail, hint)
}

impl Explain for ConnInfoError {
    fn report(&self) -> Report {
        let hint = match self {
            ConnInfoError::Syntax { .. } => {
                "Write key=value pairs or a postgresql:// URI; \"pitr config show\" shows what is configured."
            }
            ConnInfoError::UnknownKey { .. } => "Is it mistyped? The names are libpq's.",
            ConnInfoError::Unsupported { .. } => "Leave it out.",
            ConnInfoError::Value { .. } => "Correct the value.",
            ConnInfoError::ServiceNotFound { .. } => {
                "Is the name right, and does PGSERVICEFILE or ~/.pg_service.conf of this user have it?"
            }
            ConnInfoError::ServiceFile { .. } => "Correct the line.",
            ConnInfoError::File { .. } => "Does the file exist, and may this user read it?",
            ConnInfoError::NoUser => "Put user=… into conninfo.",
        };
        Report::new(ExitStatus::Configuration, self.to_string(), "No connection was tried.", hint)
    }
}
