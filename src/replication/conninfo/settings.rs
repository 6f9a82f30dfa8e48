//! From named settings to [`ConnInfo`]: precedence, defaults, and what each value may be.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::{
    ChannelBindingMode, ClientCertificate, ConnInfo, ConnInfoError, Endpoint, Environment, Keepalives,
    RootCertificates, Secret, SslMode, TargetServer, passfile, service, text,
};

/// Debian's place for the server's socket, then that of PostgreSQL's own builds; tried in this order.
pub(super) const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// Longer than any sound network needs, and short enough for an answer while someone waits for it. (libpq
/// waits without end by default; nothing here does.)
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// Settings understood here, each with the variable that gives its default.
const KEYS: [(&str, Option<&str>); 30] = [
    ("application_name", Some("PGAPPNAME")),
    ("channel_binding", Some("PGCHANNELBINDING")),
    ("client_encoding", None),
    ("connect_timeout", Some("PGCONNECT_TIMEOUT")),
    ("dbname", Some("PGDATABASE")),
    ("fallback_application_name", None),
    ("gssencmode", None),
    ("host", Some("PGHOST")),
    ("hostaddr", Some("PGHOSTADDR")),
    ("keepalives", None),
    ("keepalives_count", None),
    ("keepalives_idle", None),
    ("keepalives_interval", None),
    ("options", Some("PGOPTIONS")),
    ("passfile", Some("PGPASSFILE")),
    ("password", Some("PGPASSWORD")),
    ("port", Some("PGPORT")),
    ("replication", None),
    ("service", Some("PGSERVICE")),
    ("servicefile", None),
    ("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION")),
    ("sslcert", Some("PGSSLCERT")),
    ("sslcompression", None),
    ("sslkey", Some("PGSSLKEY")),
    ("sslmode", Some("PGSSLMODE")),
    ("sslnegotiation", Some("PGSSLNEGOTIATION")),
    ("sslrootcert", Some("PGSSLROOTCERT")),
    ("sslsni", None),
    ("target_session_attrs", Some("PGTARGETSESSIONATTRS")),
    ("user", Some("PGUSER")),
];

/// Settings of libpq's that would change who is trusted or how, and that are not there.
const UNSUPPORTED: [(&str, &str); 12] = [
    ("gssdelegation", "there is no GSSAPI"),
    ("gsslib", "there is no GSSAPI"),
    ("krbsrvname", "there is no GSSAPI"),
    ("load_balance_hosts", "hosts are tried in the order given"),
    ("require_auth", "set channel_binding=require or sslmode=verify-full instead"),
    ("requirepeer", "use TCP with sslmode=verify-full where the server must be proved"),
    ("ssl_max_protocol_version", "the newest version both sides know is used"),
    ("sslcertmode", "the certificate is sent when it exists and the server asks for it"),
    ("sslcrl", "revocation lists are not read"),
    ("sslcrldir", "revocation lists are not read"),
    ("sslpassword", "encrypted client keys are not read"),
    ("tcp_user_timeout", "silence is limited by the program's own deadlines"),
];

/// Settings by name, before their values are understood.
pub(super) struct Settings(BTreeMap<&'static str, String>);

impl Settings {
    /// Text first, then the service it names (or `PGSERVICE` does), then the environment.
    pub(super) fn collect(connection: &str, environment: &Environment) -> Result<Self, ConnInfoError> {
        let mut settings = Settings(BTreeMap::new());
        // A key written twice: the last one holds, as in libpq.
        for (key, value) in text::pairs(connection)? {
            settings.0.insert(known(&key)?, value);
        }
        let named = settings.get("service").map(str::to_owned);
        if let Some(service) = named.or_else(|| environment.variable("PGSERVICE").map(str::to_owned)) {
            let file = settings.get("servicefile").map(str::to_owned);
            for (key, value) in service::settings(&service, file.as_deref(), environment)? {
                settings.0.entry(known(&key)?).or_insert(value);
            }
        }
        for (key, variable) in KEYS {
            if let Some(value) = variable.and_then(|variable| environment.variable(variable)) {
                settings.0.entry(key).or_insert_with(|| value.to_owned());
            }
        }
        Ok(settings)
    }

    /// A setting that is there and not empty; empty stands for the default, as in libpq.
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Gives every value its meaning.
    pub(super) fn resolve(&self, environment: &Environment) -> Result<ConnInfo, ConnInfoError> {
        self.refuse_what_is_not_done()?;
        let user = self.get("user").or(environment.os_user()).ok_or(ConnInfoError::NoUser)?.to_owned();
        let root_certificates = match self.get("sslrootcert") {
            None => RootCertificates::Default(environment.in_home(".postgresql/root.crt")),
            Some("system") => RootCertificates::System,
            Some(path) => RootCertificates::File(path.into()),
        };
        Ok(ConnInfo {
            endpoints: self.endpoints()?,
            dbname: self.get("dbname").unwrap_or(&user).to_owned(),
            user,
            password: self.get("password").map(|password| Secret::new(password.to_owned())),
            passfile: passfile::path(self.get("passfile"), environment),
            ssl_mode: self.ssl_mode(&root_certificates)?,
            root_certificates,
            client_certificate: self.client_certificate(environment),
            channel_binding: self.channel_binding()?,
            connect_timeout: self.connect_timeout()?,
            application_name: ["application_name", "fallback_application_name"]
                .iter()
                .find_map(|key| self.get(key))
                .unwrap_or("pitr")
                .to_owned(),
            options: self.get("options").map(str::to_owned),
            keepalives: self.keepalives()?,
            target: self.target()?,
        })
    }

    /// Values that ask for something that is not done here.
    fn refuse_what_is_not_done(&self) -> Result<(), ConnInfoError> {
        let only = |key: &'static str, good: &[&str], why: &'static str| match self.get(key) {
            Some(value) if !good.contains(&value) => Err(ConnInfoError::Unsupported { key: key.to_owned(), why }),
            _ => Ok(()),
        };
        only("replication", &[], "each session chooses its kind itself")?;
        only("gssencmode", &["disable", "prefer"], "there is no GSSAPI")?;
        only("client_encoding", &["UTF8", "utf8", "UTF-8", "utf-8", "auto"], "sessions always use UTF8")?;
        only("sslcompression", &["0"], "TLS compression is unsafe and not done")?;
        only("sslnegotiation", &["postgres"], "TLS begins with PostgreSQL's own request")?;
        only("sslsni", &["1"], "the server name is always sent")?;
        only("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"], "the oldest version is TLSv1.2")
    }

    /// Pairs up `host`, `hostaddr` and `port` (`pqConnectOptions2`): as many ports as hosts, or one for all.
    fn endpoints(&self) -> Result<Vec<Endpoint>, ConnInfoError> {
        let list = |key: &str| self.get(key).map(|text| text.split(',').map(str::trim).collect::<Vec<_>>());
        let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
        let count = addresses.as_ref().or(hosts.as_ref()).map_or(1, Vec::len);
        let matching = |key: &str, given: usize, expected: &'static str| match given == count {
            true => Ok(()),
            false => Err(self.wrong(key, expected)),
        };
        matching("host", hosts.as_ref().map_or(count, Vec::len), "as many names as hostaddr has addresses")?;
        let ports = match ports {
            None => vec![""; count],
            Some(ports) if ports.len() == 1 => vec![ports[0]; count],
            Some(ports) => {
                matching("port", ports.len(), "one port for all hosts, or one for each")?;
                ports
            }
        };
        let mut endpoints = Vec::new();
        for (at, port) in ports.into_iter().enumerate() {
            let port = match port {
                "" => 5432,
                text => text
                    .parse()
                    .ok()
                    .filter(|port| *port > 0)
                    .ok_or_else(|| self.wrong("port", "numbers from 1 to 65535"))?,
            };
            let host = hosts.as_ref().map_or("", |hosts| hosts[at]);
            let address = addresses.as_ref().map_or("", |addresses| addresses[at]);
            endpoints.extend(self.endpoint(host, address, port)?);
        }
        Ok(endpoints)
    }

    fn endpoint(&self, host: &str, address: &str, port: u16) -> Result<Vec<Endpoint>, ConnInfoError> {
        if !address.is_empty() {
            let parsed: IpAddr = address.parse().map_err(|_| self.wrong("hostaddr", "IP addresses"))?;
            let host = if host.is_empty() { address } else { host };
            return Ok(vec![Endpoint::Tcp { host: host.to_owned(), address: Some(parsed), port }]);
        }
        Ok(match host {
            "" => SOCKET_DIRECTORIES.iter().map(|d| Endpoint::Unix { directory: PathBuf::from(d), port }).collect(),
            _ if host.starts_with('@') => {
                return Err(self.wrong("host", "names, addresses or directories (no abstract sockets)"));
            }
            _ if host.starts_with('/') => vec![Endpoint::Unix { directory: host.into(), port }],
            _ => vec![Endpoint::Tcp { host: host.to_owned(), address: None, port }],
        })
    }

    fn ssl_mode(&self, roots: &RootCertificates) -> Result<SslMode, ConnInfoError> {
        let system = *roots == RootCertificates::System;
        let mode = match self.get("sslmode") {
            None if system => SslMode::VerifyFull,
            None | Some("prefer") => SslMode::Prefer,
            Some("disable") => SslMode::Disable,
            Some("allow") => SslMode::Allow,
            Some("require") => SslMode::Require,
            Some("verify-ca") => SslMode::VerifyCa,
            Some("verify-full") => SslMode::VerifyFull,
            Some(_) => return Err(self.wrong("sslmode", "disable, allow, prefer, require, verify-ca or verify-full")),
        };
        // Anyone can have a certificate from a public authority: without the name check it proves nothing.
        if system && mode != SslMode::VerifyFull {
            return Err(self.wrong("sslmode", "verify-full, because sslrootcert is \"system\""));
        }
        Ok(mode)
    }

    /// Named files must exist (found out when used); the default ones are used if they do.
    fn client_certificate(&self, environment: &Environment) -> Option<ClientCertificate> {
        let key =
            || self.get("sslkey").map(PathBuf::from).or_else(|| environment.in_home(".postgresql/postgresql.key"));
        match self.get("sslcert") {
            Some(path) => Some(ClientCertificate { certificate: path.into(), key: key()? }),
            None => {
                let certificate = environment.in_home(".postgresql/postgresql.crt")?;
                certificate.exists().then_some(ClientCertificate { certificate, key: key()? })
            }
        }
    }

    fn channel_binding(&self) -> Result<ChannelBindingMode, ConnInfoError> {
        Ok(match self.get("channel_binding") {
            None | Some("prefer") => ChannelBindingMode::Prefer,
            Some("disable") => ChannelBindingMode::Disable,
            Some("require") => ChannelBindingMode::Require,
            Some(_) => return Err(self.wrong("channel_binding", "disable, prefer or require")),
        })
    }

    fn target(&self) -> Result<TargetServer, ConnInfoError> {
        Ok(match self.get("target_session_attrs") {
            None | Some("any") => TargetServer::Any,
            Some("primary") => TargetServer::Primary,
            Some("standby") => TargetServer::Standby,
            Some("prefer-standby") => TargetServer::PreferStandby,
            Some("read-write") => TargetServer::ReadWrite,
            Some("read-only") => TargetServer::ReadOnly,
            Some(_) => {
                let expected = "any, primary, standby, prefer-standby, read-write or read-only";
                return Err(self.wrong("target_session_attrs", expected));
            }
        })
    }

    /// Zero and negative values mean "for ever" to libpq; here they mean the default.
    fn connect_timeout(&self) -> Result<Duration, ConnInfoError> {
        Ok(match self.whole_seconds("connect_timeout")? {
            Some(seconds) if !seconds.is_zero() => seconds,
            _ => CONNECT_TIMEOUT,
        })
    }

    fn keepalives(&self) -> Result<Keepalives, ConnInfoError> {
        let system_if_zero = |value: Duration| (!value.is_zero()).then_some(value);
        Ok(Keepalives {
            enabled: self.number("keepalives")?.is_none_or(|number| number != 0),
            idle: self.whole_seconds("keepalives_idle")?.and_then(system_if_zero),
            interval: self.whole_seconds("keepalives_interval")?.and_then(system_if_zero),
            count: self.number("keepalives_count")?.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0),
        })
    }

    fn whole_seconds(&self, key: &str) -> Result<Option<Duration>, ConnInfoError> {
        Ok(self.number(key)?.map(|number| Duration::from_secs(u64::try_from(number).unwrap_or(0))))
    }

    fn number(&self, key: &str) -> Result<Option<i32>, ConnInfoError> {
        self.get(key).map(|text| text.trim().parse().map_err(|_| self.wrong(key, "a whole number"))).transpose()
    }

    fn wrong(&self, key: &str, expected: &'static str) -> ConnInfoError {
        ConnInfoError::Value { key: key.to_owned(), value: self.get(key).unwrap_or_default().to_owned(), expected }
    }
}

fn known(key: &str) -> Result<&'static str, ConnInfoError> {
    if let Some((known, _)) = KEYS.iter().find(|(known, _)| *known == key) {
        return Ok(known);
    }
    match UNSUPPORTED.iter().find(|(name, _)| *name == key) {
        Some((_, why)) => Err(ConnInfoError::Unsupported { key: key.to_owned(), why }),
        None => Err(ConnInfoError::UnknownKey { key: key.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_surroundings(text: &str, variables: &[(&str, &str)]) -> Result<ConnInfo, ConnInfoError> {
        ConnInfo::parse_in(text, &Environment::of_values(variables.iter().copied(), None, Some("ann")))
    }

    fn endpoints(text: &str, variables: &[(&str, &str)]) -> String {
        match in_surroundings(text, variables) {
            Ok(info) => info.endpoints.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | "),
            Err(error) => error.to_string(),
        }
    }

    /// Hosts, addresses and ports pair up as in libpq; lists of unequal length are refused.
    #[test]
    fn servers() {
        let sockets = "socket \"/var/run/postgresql/.s.PGSQL.5432\" | socket \"/tmp/.s.PGSQL.5432\"";
        assert_eq!(endpoints("", &[]), sockets);
        assert_eq!(endpoints("host=''", &[("PGPORT", "5432")]), sockets);
        assert_eq!(
            endpoints("host=a,/s,::1 port=1,2,3", &[]),
            "\"a\", port 1 | socket \"/s/.s.PGSQL.2\" | \"::1\", port 3"
        );
        assert_eq!(endpoints("host=a,b port=7", &[]), "\"a\", port 7 | \"b\", port 7");
        assert_eq!(endpoints("postgresql://a:1,b/", &[]), "\"a\", port 1 | \"b\", port 5432");
        assert_eq!(endpoints("host=db hostaddr=10.0.0.1", &[]), "\"db\" (10.0.0.1), port 5432");
        assert_eq!(endpoints("", &[("PGHOST", "h"), ("PGPORT", "9")]), "\"h\", port 9");
        for wrong in [
            "host=a,b port=1,2,3",
            "port=0",
            "port=65536",
            "port=x",
            "hostaddr=a",
            "host=@x",
            "host=a hostaddr=::1,::2",
        ] {
            assert!(in_surroundings(wrong, &[]).is_err(), "{wrong}");
        }
    }

    /// The text wins over the environment, and the environment over the defaults.
    #[test]
    fn precedence() {
        let variables = [("PGUSER", "bob"), ("PGSSLMODE", "require"), ("PGAPPNAME", "x")];
        let info = in_surroundings("user=eve", &variables).unwrap();
        assert_eq!((info.user.as_str(), info.dbname.as_str()), ("eve", "eve"));
        assert_eq!((info.ssl_mode, info.application_name.as_str()), (SslMode::Require, "x"));
        let info = in_surroundings("", &[]).unwrap();
        assert_eq!((info.user.as_str(), info.ssl_mode), ("ann", SslMode::Prefer));
        assert_eq!((info.application_name.as_str(), info.connect_timeout), ("pitr", CONNECT_TIMEOUT));
        assert!(matches!(ConnInfo::parse_in("", &Environment::default()), Err(ConnInfoError::NoUser)));
    }

    /// Nothing that libpq would honour is passed over in silence, and weak TLS with public roots is refused.
    #[test]
    fn refusals() {
        for (text, expected) in [
            ("hots=a", "unknown connection setting \"hots\""),
            ("sslcrl=x", "connection setting \"sslcrl\" is not supported: revocation lists are not read"),
            ("sslmode=on", "invalid value \"on\" of connection setting \"sslmode\""),
            ("sslrootcert=system sslmode=require", "expected verify-full"),
            ("channel_binding=yes", "expected disable, prefer or require"),
            ("replication=database", "each session chooses its kind itself"),
            ("connect_timeout=soon", "expected a whole number"),
            ("service=none", "service \"none\" was not found in"),
        ] {
            let error = in_surroundings(text, &[("PGSYSCONFDIR", "/nonexistent")]).expect_err(text).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// No way of printing the settings shows a password.
    #[test]
    fn passwords_stay_hidden() {
        let info = in_surroundings("password=sesame", &[]).unwrap();
        assert!(!format!("{info:?}").contains("sesame"));
        let info = in_surroundings("", &[("PGPASSWORD", "sesame")]).unwrap();
        assert!(!format!("{info:?}").contains("sesame"));
    }
}
