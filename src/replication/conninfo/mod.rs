//! Connection settings, written and completed as libpq does it (manual, "Database Connection Control Functions").
//!
//! A text (`key='value'` pairs or a `postgresql://` URI) is completed from a service file, the `PG*` variables and
//! libpq's defaults, in this order; everything that a user of `psql` has set up keeps working. What this program
//! does not support is refused by name, never skipped: a setting that is silently ignored could be a security setting.
//!
//! Passwords are held in [`Secret`], which no `Debug` or `Display` prints.

mod environment;
mod passfile;
mod service;
mod settings;
mod text;

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use environment::Environment;

/// A password. Printing it prints dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a password.
    #[must_use]
    pub fn new(password: String) -> Self {
        Secret(password)
    }

    /// The password itself, for the message that carries it to the server.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"***\"")
    }
}

/// What is wrong with connection settings. Never carries a password.
#[derive(Debug, thiserror::Error)]
pub enum ConnInfoError {
    /// The text is neither pairs nor a URI.
    #[error("invalid connection string: {reason}")]
    Syntax {
        /// What is wrong, without the text.
        reason: String,
    },
    /// No such setting.
    #[error("unknown connection setting \"{key}\"")]
    UnknownKey {
        /// As written.
        key: String,
    },
    /// A setting of libpq's that this program does not have.
    #[error("connection setting \"{key}\" is not supported: {why}")]
    Unsupported {
        /// libpq's name.
        key: String,
        /// The reason.
        why: &'static str,
    },
    /// A value that the setting cannot have.
    #[error("invalid value \"{value}\" of connection setting \"{key}\": expected {expected}")]
    Value {
        /// The setting.
        key: String,
        /// As written.
        value: String,
        /// What it can be.
        expected: &'static str,
    },
    /// No service file has the service.
    #[error("service \"{service}\" was not found in {}", paths(searched))]
    ServiceNotFound {
        /// Its name.
        service: String,
        /// The files looked at, or looked for.
        searched: Vec<PathBuf>,
    },
    /// A service file's line is not `key=value`.
    #[error("line {line} of service file \"{}\" is not a setting (or names another service)", path.display())]
    ServiceFile {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// A file that the settings name cannot be read.
    #[error("could not read {what} \"{}\": {source}", path.display())]
    File {
        /// What it is.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No role was named and the operating system user has no name.
    #[error("no user is named for the connection, and the operating system user has no name to take instead")]
    NoUser,
}

fn paths(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("\"{}\"", path.display())).collect::<Vec<_>>().join(", ")
}

/// One server to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// Over TCP.
    Tcp {
        /// Name or address as given; certificates are checked against it.
        host: String,
        /// Address to use instead of resolving the name (`hostaddr`).
        address: Option<IpAddr>,
        /// 1 to 65535.
        port: u16,
    },
    /// Over the socket `.s.PGSQL.<port>` in a directory.
    Unix {
        /// The directory.
        directory: PathBuf,
        /// 1 to 65535; part of the socket's name.
        port: u16,
    },
}

impl Endpoint {
    /// What lines of the password file must name to fit.
    fn passfile_host(&self) -> String {
        match self {
            Endpoint::Tcp { host, .. } => host.clone(),
            Endpoint::Unix { directory, .. }
                if settings::SOCKET_DIRECTORIES.iter().any(|d| directory == Path::new(d)) =>
            {
                "localhost".to_owned()
            }
            Endpoint::Unix { directory, .. } => directory.display().to_string(),
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Endpoint::Tcp { port, .. } | Endpoint::Unix { port, .. } => *port,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { host, address: Some(address), port } if host != &address.to_string() => {
                write!(f, "\"{host}\" ({address}), port {port}")
            }
            Endpoint::Tcp { host, port, .. } => write!(f, "\"{host}\", port {port}"),
            Endpoint::Unix { directory, port } => write!(f, "socket \"{}/.s.PGSQL.{port}\"", directory.display()),
        }
    }
}

/// How much TLS is wanted (`sslmode`). Unix sockets never use TLS, whatever the mode.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server refuses without.
    Allow,
    /// If the server has it; without otherwise.
    Prefer,
    /// Encrypted, or not at all. The certificate is checked only if a root certificate file exists.
    Require,
    /// The certificate's chain is checked.
    VerifyCa,
    /// The chain and the name are checked.
    VerifyFull,
}

/// Where trusted root certificates come from (`sslrootcert`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RootCertificates {
    /// `~/.postgresql/root.crt`, if it exists.
    Default(Option<PathBuf>),
    /// A file, which must exist.
    File(PathBuf),
    /// Those of the operating system.
    System,
}

/// Whether SCRAM must be bound to the TLS channel (`channel_binding`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChannelBindingMode {
    /// Never.
    Disable,
    /// Where the server offers it.
    Prefer,
    /// Refuse to go on without.
    Require,
}

/// Which servers of a list will do (`target_session_attrs`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetServer {
    /// The first that answers.
    Any,
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
    /// A standby if one of the list is, else the first that answers.
    PreferStandby,
    /// Accepts writes.
    ReadWrite,
    /// Does not accept writes.
    ReadOnly,
}

/// TCP keepalive settings; `None` leaves the system's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Keepalives {
    /// Whether they are sent at all.
    pub enabled: bool,
    /// Quiet time before the first.
    pub idle: Option<Duration>,
    /// Time between two.
    pub interval: Option<Duration>,
    /// Unanswered ones before the connection is given up.
    pub count: Option<u32>,
}

/// A client certificate and its key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientCertificate {
    /// The certificate (chain), PEM.
    pub certificate: PathBuf,
    /// The unencrypted key, PEM, readable by its owner only.
    pub key: PathBuf,
}

/// Complete connection settings. Made by [`ConnInfo::parse`]; `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct ConnInfo {
    /// Servers to try, in order; at least one.
    pub endpoints: Vec<Endpoint>,
    /// The role.
    pub user: String,
    /// The database of SQL sessions; the role's name if not given.
    pub dbname: String,
    /// From the text, the service or `PGPASSWORD`.
    password: Option<Secret>,
    /// Where to look otherwise.
    passfile: Option<PathBuf>,
    /// How much TLS.
    pub ssl_mode: SslMode,
    /// Whom to trust.
    pub root_certificates: RootCertificates,
    /// Who we are, if the server asks for a certificate.
    pub client_certificate: Option<ClientCertificate>,
    /// Channel binding.
    pub channel_binding: ChannelBindingMode,
    /// Time for one attempt on one address, login included.
    pub connect_timeout: Duration,
    /// Shown in `pg_stat_replication`, and what `synchronous_standby_names` would match.
    pub application_name: String,
    /// Command-line options for the server process (`options`).
    pub options: Option<String>,
    /// TCP keepalives.
    pub keepalives: Keepalives,
    /// Which server will do.
    pub target: TargetServer,
}

/// A password, or why there is none.
pub(super) enum PasswordFor {
    Known(Secret),
    /// With the reason why the password file was not used, if it was not.
    Missing(Option<String>),
}

impl ConnInfo {
    /// Reads a text and completes it from the environment of this process.
    ///
    /// # Errors
    /// Whatever is not understood is refused, see [`ConnInfoError`].
    pub fn parse(text: &str) -> Result<Self, ConnInfoError> {
        Self::parse_in(text, &Environment::of_process())
    }

    /// Reads a text and completes it from the given environment.
    ///
    /// # Errors
    /// Whatever is not understood is refused, see [`ConnInfoError`].
    pub fn parse_in(text: &str, environment: &Environment) -> Result<Self, ConnInfoError> {
        settings::Settings::collect(text, environment)?.resolve(environment)
    }

    /// The password for one server. `database` is `replication` for physical replication.
    pub(super) fn password_for(&self, endpoint: &Endpoint, database: &str) -> PasswordFor {
        if let Some(password) = &self.password {
            return PasswordFor::Known(password.clone());
        }
        let Some(path) = &self.passfile else { return PasswordFor::Missing(None) };
        let host = endpoint.passfile_host();
        let wanted = passfile::Wanted { host: &host, port: endpoint.port(), database, user: &self.user };
        match passfile::look_up(path, &wanted) {
            passfile::Lookup::Found(password) => PasswordFor::Known(password),
            passfile::Lookup::Nothing => PasswordFor::Missing(None),
            passfile::Lookup::Refused(reason) => PasswordFor::Missing(Some(reason)),
        }
    }
}
