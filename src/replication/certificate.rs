//! What is believed of a server's certificate, and what of it binds SCRAM to the channel.
//!
//! Beyond rustls' own rules, two kinds of certificates that PostgreSQL's manual teaches to make are accepted, because
//! libpq accepts them: one that is itself in the root file, and one that has its host name in the common name only.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore};
use x509_cert::Certificate;
use x509_cert::der::asn1::{ObjectIdentifier, PrintableStringRef, Utf8StringRef};
use x509_cert::der::{Any, Decode, Encode};

/// Root certificates, ready for use.
#[derive(Debug)]
pub(super) struct Trust {
    anchors: RootCertStore,
    /// As in the file, for the server certificate that is itself trusted.
    exact: Vec<CertificateDer<'static>>,
    /// Knows the signature algorithms of a chain.
    provider: Arc<CryptoProvider>,
}

impl Trust {
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, String> {
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
pub(super) struct Verifier {
    pub(super) trust: Option<Trust>,
    pub(super) check_name: bool,
    pub(super) provider: Arc<CryptoProvider>,
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
    let text = |value: &Any| {
        value
            .decode_as::<Utf8StringRef<'_>>()
            .map(|text| text.as_str().to_owned())
            .or_else(|_| value.decode_as::<PrintableStringRef<'_>>().map(|text| text.as_str().to_owned()))
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
