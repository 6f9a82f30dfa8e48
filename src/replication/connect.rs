//! From settings to a logged-in session: which servers to try, in which order, with or without TLS.

use std::io::{self, Read, Write};
use std::time::Instant;

use bytes::BytesMut;
use postgres_protocol::message::frontend;

use super::auth::Login;
use super::certificate;
use super::conninfo::{ConnInfo, Endpoint, SslMode, TargetServer};
use super::error::ReplicationError;
use super::frames::out_of_step;
use super::patience::{Patience, Wait};
use super::session::{Session, SessionKind};
use super::socket::{Address, Socket, addresses};
use super::tls;
use super::wire::{Transport, Wire, is_slice_end};

const DOING: &str = "connecting";

/// What to do about TLS in one attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encryption {
    Off,
    IfOffered,
    Must,
}

/// Tries the servers in order until one will do.
pub(super) fn connect(info: &ConnInfo, kind: SessionKind, patience: &Patience) -> Result<Session, ReplicationError> {
    let mut failures = Vec::new();
    let passes = match info.target {
        TargetServer::PreferStandby => vec![TargetServer::Standby, TargetServer::Any],
        other => vec![other],
    };
    for target in passes {
        failures.clear();
        for endpoint in &info.endpoints {
            match connect_to(info, endpoint, kind, target, patience) {
                Ok(session) => return Ok(session),
                Err(error) if another_may_do(&error) => failures.push(error),
                Err(error) => return Err(error),
            }
        }
    }
    match failures.len() {
        1 => Err(failures.remove(0)),
        _ => Err(ReplicationError::NoServer { failures }),
    }
}

/// Whether the next server of the list is worth a try. A refused login is not: the same mistake everywhere.
fn another_may_do(error: &ReplicationError) -> bool {
    match error {
        ReplicationError::Connect { .. } | ReplicationError::WrongServer { .. } | ReplicationError::NoServer { .. } => {
            true
        }
        // Starting up, shutting down, or no connection free.
        ReplicationError::Server(message) => ["57P03", "53300"].contains(&message.sqlstate.as_str()),
        _ => false,
    }
}

/// One server, all its addresses.
fn connect_to(
    info: &ConnInfo,
    endpoint: &Endpoint,
    kind: SessionKind,
    target: TargetServer,
    patience: &Patience,
) -> Result<Session, ReplicationError> {
    let mut failures = Vec::new();
    for address in addresses(endpoint)? {
        patience.check_interrupt()?;
        match with_tls_choices(info, endpoint, &address, kind, patience) {
            Ok(mut session) => {
                check_target(&mut session, target)?;
                return Ok(session);
            }
            Err(error @ ReplicationError::Connect { .. }) => failures.push(error),
            Err(error) => return Err(error),
        }
    }
    match failures.len() {
        1 => Err(failures.remove(0)),
        _ => Err(ReplicationError::NoServer { failures }),
    }
}

/// One address, with and without TLS as `sslmode` allows.
fn with_tls_choices(
    info: &ConnInfo,
    endpoint: &Endpoint,
    address: &Address<'_>,
    kind: SessionKind,
    patience: &Patience,
) -> Result<Session, ReplicationError> {
    let is_unix = matches!(endpoint, Endpoint::Unix { .. });
    let (first, second) = match info.ssl_mode {
        _ if is_unix => (Encryption::Off, None),
        SslMode::Disable => (Encryption::Off, None),
        SslMode::Allow => (Encryption::Off, Some(Encryption::IfOffered)),
        SslMode::Prefer => (Encryption::IfOffered, Some(Encryption::Off)),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Encryption::Must, None),
    };
    let error = match attempt(info, endpoint, address, kind, patience, first) {
        Ok(session) => return Ok(session),
        Err(error) => error,
    };
    let other_way = match &error {
        ReplicationError::Tls { .. } => true,
        // "No pg_hba.conf entry": there may be one for the other way. A wrong password stays wrong.
        ReplicationError::Server(message) => message.sqlstate == "28000",
        _ => false,
    };
    match second.filter(|_| other_way) {
        // If neither works, the first answer is the one that tells what was meant to happen.
        Some(second) => attempt(info, endpoint, address, kind, patience, second).map_err(|_| error),
        None => Err(error),
    }
}

/// One attempt, within `connect_timeout`. Whatever breaks the connection on the way is a failure to connect.
fn attempt(
    info: &ConnInfo,
    endpoint: &Endpoint,
    address: &Address<'_>,
    kind: SessionKind,
    patience: &Patience,
    encryption: Encryption,
) -> Result<Session, ReplicationError> {
    let server = match address {
        Address::Tcp(resolved) => {
            let named = Endpoint::Tcp { address: Some(resolved.ip()), host: host(endpoint), port: resolved.port() };
            named.to_string()
        }
        Address::Unix { .. } => endpoint.to_string(),
    };
    let wait = Wait::begin(patience, info.connect_timeout, DOING);
    let failed = |error: ReplicationError| {
        let source = match error {
            ReplicationError::Silent { .. } => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it did not complete the connection within {} s", info.connect_timeout.as_secs()),
            ),
            ReplicationError::Closed { .. } => {
                io::Error::new(io::ErrorKind::ConnectionReset, "it closed the connection before the login was done")
            }
            ReplicationError::Lost { source, .. } => source,
            other => return other,
        };
        ReplicationError::Connect { server: server.clone(), source }
    };
    let login = || {
        let deadline = Instant::now() + info.connect_timeout;
        let socket = Socket::connect(address, &info.keepalives, &server, &wait)?;
        let (transport, end_point) = encrypt(socket, info, endpoint, encryption, &wait)?;
        let mut wire = Wire::new(transport, patience.clone(), Some(deadline));
        startup(&mut wire, info, kind)?;
        let passfile_database = match kind {
            SessionKind::Physical => "replication",
            SessionKind::Sql => &info.dbname,
        };
        Login { info, endpoint, passfile_database, end_point }.run(&mut wire)?;
        Session::begin(wire, kind, endpoint.to_string())
    };
    login().map_err(failed)
}

fn host(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Tcp { host, .. } => host.clone(),
        Endpoint::Unix { directory, .. } => directory.display().to_string(),
    }
}

/// Asks for TLS and sets it up. The answer is a single byte, read without a buffer: nothing that someone slipped in
/// before the handshake can be taken for what came after it (CVE-2021-23222).
fn encrypt(
    mut socket: Socket,
    info: &ConnInfo,
    endpoint: &Endpoint,
    encryption: Encryption,
    wait: &Wait<'_>,
) -> Result<(Transport, Option<Vec<u8>>), ReplicationError> {
    if encryption == Encryption::Off {
        return Ok((Transport::Plain(socket), None));
    }
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    let lost = |source| ReplicationError::Lost { doing: DOING, source };
    // Eight bytes always fit into a fresh socket's buffer.
    socket.write_all(&request).map_err(lost)?;
    let mut answer = [0; 1];
    loop {
        match socket.read(&mut answer) {
            Ok(0) => return Err(ReplicationError::Closed { doing: DOING }),
            Ok(_) => break,
            Err(error) if is_slice_end(&error) => wait.go_on()?,
            Err(error) => return Err(lost(error)),
        }
    }
    match answer[0] {
        b'S' => {
            let stream = tls::handshake(socket, info, endpoint, wait)?;
            let end_point =
                stream.conn.peer_certificates().and_then(|chain| chain.first()).and_then(certificate::end_point);
            Ok((Transport::Tls(Box::new(stream)), end_point))
        }
        b'N' if encryption == Encryption::Must => Err(ReplicationError::TlsNotOffered { server: endpoint.to_string() }),
        b'N' => Ok((Transport::Plain(socket), None)),
        other => Err(out_of_step(DOING, format!("'{}' to the request for TLS", other.escape_ascii()))),
    }
}

/// Says who we are and what we want.
fn startup(wire: &mut Wire, info: &ConnInfo, kind: SessionKind) -> Result<(), ReplicationError> {
    let mut parameters = vec![("user", info.user.as_str()), ("application_name", info.application_name.as_str())];
    match kind {
        SessionKind::Physical => parameters.push(("replication", "true")),
        SessionKind::Sql => parameters.extend([("database", info.dbname.as_str()), ("client_encoding", "UTF8")]),
    }
    parameters.extend(info.options.as_deref().map(|options| ("options", options)));
    frontend::startup_message(parameters, &mut wire.out)
        .map_err(|error| ReplicationError::Argument { what: "connection setting", reason: error.to_string() })?;
    wire.send(DOING)
}

/// Whether the server is of the kind asked for. From version 14 on the server reports by itself what it is; version 13
/// is asked whether transactions are read-only, which a standby's always are.
fn check_target(session: &mut Session, target: TargetServer) -> Result<(), ReplicationError> {
    if matches!(target, TargetServer::Any | TargetServer::PreferStandby) {
        return Ok(());
    }
    let on = |value: Option<&str>| value.map(|value| value == "on");
    let (in_recovery, read_only) = match on(session.parameter("in_hot_standby")) {
        Some(standby) => (standby, standby || on(session.parameter("default_transaction_read_only")).unwrap_or(false)),
        None => {
            let read_only = session.show("transaction_read_only")? == "on";
            (read_only, read_only)
        }
    };
    let (fits, wanted) = match target {
        TargetServer::Primary => (!in_recovery, "a primary"),
        TargetServer::Standby => (in_recovery, "a standby"),
        TargetServer::ReadWrite => (!read_only, "open for writing"),
        TargetServer::ReadOnly => (read_only, "read-only"),
        TargetServer::Any | TargetServer::PreferStandby => (true, ""),
    };
    match fits {
        true => Ok(()),
        false => Err(ReplicationError::WrongServer { server: session.server().to_owned(), wanted }),
    }
}
