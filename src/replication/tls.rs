//! TLS as libpq's `sslmode` means it, done by rustls with ring.
//!
//! | mode | chain | name | without a root certificate file |
//! |---|---|---|---|
//! | `allow`, `prefer`, `require` | checked if `~/.postgresql/root.crt` or `sslrootcert` exists | not checked | anything is accepted |
//! | `verify-ca` | checked | not checked | refused |
//! | `verify-full` | checked | checked | refused |
//!
//! Beyond rustls' own rules, two kinds of certificates that PostgreSQL's manual teaches to make are accepted, because
//! libpq accepts them: one that is itself in the root file, and one that has its host name in the common name only.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, StreamOwned};
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, Utf8StringRef};
use x509_cert::der::{Decode, Encode};

use super::ReplicationError;
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

/// Root certificates, ready for use.
#[derive(Debug)]
struct Trust {
    anchors: RootCertStore,
    /// As in the file, for the server certificate that is itself trusted.
    exact: Vec<CertificateDer<'static>>,
    /// Checks the dates and the form of such a certificate, each being the only anchor.
    provider: Arc<CryptoProvider>,
}

impl Trust {
    fn new(certificates: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Result<Self, String> {
        let mut anchors = RootCertStore::empty();
        // Files of the operating system hold certificates that rustls cannot use; one good one is enough.
        let (added, _) = anchors.add_parsable_certificates(certificates.iter().cloned());
        match added {
            0 => Err("none of the certificates can be used as a root".to_owned()),
            _ => Ok(Trust { anchors, exact: certificates, provider: Arc::clone(provider) }),
        }
    }

    /// Whether the chain leads to a trusted certificate.
    fn check(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if self.exact.iter().any(|trusted| trusted.as_ref() == certificate.as_ref()) {
            return within_dates(certificate, now);
        }
        let parsed = ParsedCertificate::try_from(certificate)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.anchors, intermediates, now, algorithms)
    }
}

fn parse(certificate: &CertificateDer<'_>) -> Result<Certificate, rustls::Error> {
    Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

fn within_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let validity = parse(certificate)?.tbs_certificate.validity;
    let now = now.as_secs();
    if now < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    match now > validity.not_after.to_unix_duration().as_secs() {
        true => Err(CertificateError::Expired.into()),
        false => Ok(()),
    }
}

/// Checks the server's certificate as far as `sslmode` asks for it. The handshake's signature is always checked.
#[derive(Debug)]
struct Verifier {
    trust: Option<Trust>,
    check_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(trust) = &self.trust {
            trust.check(certificate, intermediates, now)?;
        }
        if self.check_name {
            check_name(certificate, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// subjectAltName (2.5.29.17).
const SUBJECT_ALT_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
/// commonName (2.5.4.3).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Checks the name against the alternative names, or against the common name of a certificate that has none of the
/// former (`pq_verify_peer_name_matches_certificate`).
fn check_name(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), rustls::Error> {
    let by_alternative_names = verify_server_name(&ParsedCertificate::try_from(certificate)?, name);
    let Err(error) = by_alternative_names else { return Ok(()) };
    let parsed = parse(certificate)?.tbs_certificate;
    let has_names = parsed.extensions.iter().flatten().any(|extension| extension.extn_id == SUBJECT_ALT_NAME);
    let wanted = name.to_str();
    let matches = |common: &str| match common.strip_prefix("*.") {
        // One star stands for one label, and never for part of an address.
        Some(domain) => {
            matches!(name, ServerName::DnsName(_))
                && wanted
                    .split_once('.')
                    .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain))
        }
        None => common.eq_ignore_ascii_case(&wanted),
    };
    let common_names = parsed.subject.0.iter().flat_map(|part| part.0.iter()).filter(|part| part.oid == COMMON_NAME);
    let text = |value: &x509_cert::der::Any| {
        value.decode_as::<Utf8StringRef<'_>>().map(|text| text.as_str().to_owned()).or_else(|_| {
            value.decode_as::<x509_cert::der::asn1::PrintableStringRef<'_>>().map(|text| text.as_str().to_owned())
        })
    };
    let by_common_name = !has_names && common_names.filter_map(|part| text(&part.value).ok()).any(|cn| matches(&cn));
    if by_common_name { Ok(()) } else { Err(error) }
}

/// The data that binds SCRAM to this channel (`tls-server-end-point`, RFC 5929): the server certificate's hash by the
/// hash function of its signature, SHA-256 in place of MD5 and SHA-1. `None` where the RFC defines none (Ed25519) or
/// the function is not known here.
pub(super) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    use sha2::{Digest, Sha256, Sha384, Sha512};
    let algorithm = Certificate::from_der(certificate).ok()?.signature_algorithm;
    let hash = match algorithm.oid.to_string().as_str() {
        // RSASSA-PSS names its hash in the parameters; SHA-1 if it names none.
        "1.2.840.113549.1.1.10" => pss_hash(&algorithm.parameters?.to_der().ok()?),
        other => signature_hash(other)?,
    };
    Some(match hash {
        256 => Sha256::digest(certificate).to_vec(),
        384 => Sha384::digest(certificate).to_vec(),
        _ => Sha512::digest(certificate).to_vec(),
    })
}

/// Bits of the hash to use for a signature algorithm.
fn signature_hash(oid: &str) -> Option<u16> {
    Some(match oid {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256.
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.113549.1.1.11" => 256,
        "1.2.840.10045.4.1" | "1.2.840.10045.4.3.2" => 256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => 384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => 512,
        _ => return None,
    })
}

/// The parameters hold the object identifier of the hash first: 2.16.840.1.101.3.4.2.{1,2,3} for SHA-256, -384, -512.
fn pss_hash(parameters: &[u8]) -> u16 {
    const SHA2: [u8; 8] = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];
    let which = parameters.windows(9).find(|window| window[..8] == SHA2).map(|window| window[8]);
    match which {
        Some(2) => 384,
        Some(3) => 512,
        _ => 256,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash for channel binding follows the signature's own, as the server computes it.
    #[test]
    fn hashes() {
        assert_eq!(signature_hash("1.2.840.113549.1.1.5"), Some(256));
        assert_eq!(signature_hash("1.2.840.10045.4.3.3"), Some(384));
        assert_eq!(signature_hash("1.3.101.112"), None);
        assert_eq!(pss_hash(&[0x30, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03]), 512);
        assert_eq!(pss_hash(&[]), 256);
    }
}
