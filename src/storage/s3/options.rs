//! What is said with every request of a kind: who pays, and how new objects are to be kept.
//!
//! The SDK has one type a request, with the same setters on each and no trait for them: hence macros.

use aws_sdk_s3::types::{ObjectLockMode, ServerSideEncryption};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};

use super::settings::{Encryption, ObjectLock, S3Settings};

/// Whoever asks pays, if that was agreed.
macro_rules! payer {
    ($request:expr, $settings:expr) => {
        $request.set_request_payer($settings.request_payer.then_some(aws_sdk_s3::types::RequestPayer::Requester))
    };
}

/// The key of SSE-C, if objects are encrypted with one.
macro_rules! with_key {
    ($request:expr, $settings:expr) => {
        $request
            .set_sse_customer_algorithm($crate::storage::s3::options::customer_algorithm(&$settings))
            .set_sse_customer_key($crate::storage::s3::options::customer_key(&$settings))
            .set_sse_customer_key_md5($crate::storage::s3::options::customer_key_md5(&$settings))
    };
}

/// Storage class, encryption, tags, lock and payer of a new object.
macro_rules! new_object {
    ($request:expr, $settings:expr, $lock_until:expr) => {{
        let class = $settings.storage_class.as_ref().map(|class| class.as_str().into());
        let (encryption, key_id) = $crate::storage::s3::options::encryption(&$settings);
        let request = $crate::storage::s3::options::payer!($request, $settings);
        $crate::storage::s3::options::with_key!(request, $settings)
            .set_storage_class(class)
            .set_server_side_encryption(encryption)
            .set_ssekms_key_id(key_id)
            .set_tagging($settings.tags.header())
            .set_object_lock_mode($settings.object_lock.map($crate::storage::s3::options::lock_mode))
            .set_object_lock_retain_until_date($lock_until)
    }};
}

pub(super) use {new_object, payer, with_key};

pub(super) fn customer_algorithm(settings: &S3Settings) -> Option<String> {
    raw_customer_key(settings).map(|_| "AES256".to_owned())
}

fn raw_customer_key(settings: &S3Settings) -> Option<&[u8; 32]> {
    match &settings.encryption {
        Encryption::Customer(key) => Some(key.bytes()),
        Encryption::Bucket | Encryption::S3 | Encryption::Kms(_) => None,
    }
}

pub(super) fn customer_key(settings: &S3Settings) -> Option<String> {
    raw_customer_key(settings).map(|key| STANDARD.encode(key))
}

pub(super) fn customer_key_md5(settings: &S3Settings) -> Option<String> {
    raw_customer_key(settings).map(|key| md5(key))
}

/// MD5 as S3 writes it.
fn md5(bytes: &[u8]) -> String {
    STANDARD.encode(Md5::digest(bytes))
}

/// Some servers take a locked object only with this checksum.
pub(super) fn content_md5(settings: &S3Settings, bytes: &[u8]) -> Option<String> {
    settings.object_lock.map(|_| md5(bytes))
}

pub(super) fn encryption(settings: &S3Settings) -> (Option<ServerSideEncryption>, Option<String>) {
    match &settings.encryption {
        Encryption::Bucket | Encryption::Customer(_) => (None, None),
        Encryption::S3 => (Some(ServerSideEncryption::Aes256), None),
        Encryption::Kms(key) => (Some(ServerSideEncryption::AwsKms), key.clone()),
    }
}

pub(super) fn lock_mode(lock: ObjectLock) -> ObjectLockMode {
    if lock.compliance { ObjectLockMode::Compliance } else { ObjectLockMode::Governance }
}
