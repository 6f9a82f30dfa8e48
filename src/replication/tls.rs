//! TLS as libpq's `sslmode` means it, done by rustls with ring.
//!
//! | mode | chain | name | without a root certificate file |
//! |---|---|---|---|
//! | `allow`, `prefer`, `require` | checked if `~/.postgresql/root.crt` or `sslrootcert` exists | not checked | anything is accepted |
//! | `verify-ca` | checked | not checked | refused |
//! | `verify-full` | checked | checked | refused |

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::ReplicationError;
use super::certificate::{Trust, Verifier};
use super::conninfo::{ClientCertificate, ConnInfo, Endpoint, RootCertificates, SslMode};
use super::patience::Wait;
use super::socket::Socket;
use super::wire::is_slice_end;

/// Runs the handshake over a socket whose server has just agreed to TLS.
pub(super) fn handshake(
    mut socket: Socket,
    info: &ConnInfo,
    endpoint: &Endpoint,
    wait: &Wait<'_>,
) -> Result<StreamOwned<ClientConnection, Socket>, ReplicationError> {
    let failed = |reason: String| ReplicationError::Tls { server: endpoint.to_string(), reason };
    let config = client_config(info).map_err(failed)?;
    let mut connection = ClientConnection::new(config, server_name(info, endpoint).map_err(failed)?)
        .map_err(|error| failed(error.to_string()))?;
    while connection.is_handshaking() {
        match connection.complete_io(&mut socket) {
            Ok(_) => {}
            Err(error) if is_slice_end(&error) => wait.go_on()?,
            Err(error) => return Err(failed(explain(&error))),
        }
    }
    Ok(StreamOwned::new(connection, socket))
}

/// The name to send and to check. Where it is not checked, a name that TLS cannot carry is simply not sent.
fn server_name(info: &ConnInfo, endpoint: &Endpoint) -> Result<ServerName<'static>, String> {
    let Endpoint::Tcp { host, .. } = endpoint else { return Err("a socket has no TLS".to_owned()) };
    match ServerName::try_from(host.clone()) {
        Ok(name) => Ok(name),
        Err(_) if info.ssl_mode < SslMode::VerifyFull => {
            Ok(ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into()))
        }
        Err(error) => Err(format!("host name \"{host}\": {error}")),
    }
}

/// A handshake error in words that say what to do, for the cases people meet.
fn explain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.contains("UnsupportedCertVersion") {
        true => format!(
            "{text}: the server's certificate is of the old X.509 version 1; make one of version 3, with the host \
             name as subjectAltName"
        ),
        false => text,
    }
}

fn client_config(info: &ConnInfo) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier {
        trust: trust(info, &provider)?,
        check_name: info.ssl_mode == SslMode::VerifyFull,
        provider: Arc::clone(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let config = match &info.client_certificate {
        None => builder.with_no_client_auth(),
        Some(ours) => {
            let (chain, key) = own_certificate(ours)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                format!("client certificate \"{}\" and its key: {error}", ours.certificate.display())
            })?
        }
    };
    Ok(Arc::new(config))
}

/// The certificates to trust; `None` where the mode asks for no check.
fn trust(info: &ConnInfo, provider: &Arc<CryptoProvider>) -> Result<Option<Trust>, String> {
    let path = match &info.root_certificates {
        RootCertificates::System => {
            let loaded = rustls_native_certs::load_native_certs();
            if loaded.certs.is_empty() {
                return Err("the operating system has no root certificates".to_owned());
            }
            return Trust::new(loaded.certs, provider).map(Some);
        }
        RootCertificates::File(path) => path,
        RootCertificates::Default(Some(path)) if path.exists() => path,
        RootCertificates::Default(_) if info.ssl_mode < SslMode::VerifyCa => return Ok(None),
        RootCertificates::Default(path) => {
            let place = path.as_ref().map(|path| format!(" \"{}\"", path.display())).unwrap_or_default();
            return Err(format!(
                "there is no root certificate file{place}: provide it, name one with sslrootcert, or use sslrootcert=system"
            ));
        }
    };
    let wrong = |error: &dyn std::fmt::Display| format!("root certificate file \"{}\": {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(&error))?;
    match certificates.is_empty() {
        true => Err(wrong(&"there is no certificate in it")),
        false => Trust::new(certificates, provider).map(Some).map_err(|error| wrong(&error)),
    }
}

/// Our certificate and key, if the key is kept as libpq demands.
fn own_certificate(ours: &ClientCertificate) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let chain = CertificateDer::pem_file_iter(&ours.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| format!("client certificate \"{}\": {error}", ours.certificate.display()))?;
    check_key_permissions(&ours.key)?;
    let key = PrivateKeyDer::from_pem_file(&ours.key)
        .map_err(|error| format!("key of the client certificate \"{}\": {error}", ours.key.display()))?;
    Ok((chain, key))
}

/// As `initialize_SSL` in libpq's `fe-secure-openssl.c`: 0600, or 0640 where root owns the file.
fn check_key_permissions(path: &Path) -> Result<(), String> {
    let wrong = |reason: String| Err(format!("key of the client certificate \"{}\": {reason}", path.display()));
    match std::fs::metadata(path) {
        Err(error) => wrong(error.to_string()),
        Ok(metadata) => {
            let allowed = if metadata.uid() == 0 { 0o640 } else { 0o600 };
            match metadata.permissions().mode() & 0o777 & !allowed {
                0 => Ok(()),
                _ => wrong("others may read it; its permissions should be 0600 or less".to_owned()),
            }
        }
    }
}
