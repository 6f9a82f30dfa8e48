//! The settings of a repository in a bucket: all that begin with `s3_`.
//!
//! Secrets stand in files that they name, or in the environment; none is part of the configuration or shown.

use std::path::PathBuf;

use super::error::ConfigError;
use super::settings::{Entry, Values, invalid};
use super::values;
use super::{Origin, Raw};
use crate::storage::{CustomerKey, Encryption, Location, S3Settings};

/// The variable with the key of SSE-C, where no file holds it.
pub(super) const CUSTOMER_KEY_VARIABLE: &str = "PITR_S3_CUSTOMER_KEY";

/// Where a repository lies, without the settings of a bucket.
pub(super) fn location(text: &str) -> Result<Location, &'static str> {
    if text.starts_with("s3:") {
        return Ok(Location::S3(Box::new(S3Settings::parse_url(text)?)));
    }
    let directory = values::absolute_path(text).map(Location::Directory);
    directory.map_err(|_| "an absolute path without \"..\", or \"s3://BUCKET/FOLDER\"")
}

/// Reads the settings of a bucket into those that its location gave.
pub(super) fn settings(place: S3Settings, values: &mut Values<'_>) -> Result<S3Settings, ConfigError> {
    Ok(S3Settings {
        endpoint: values.optional("s3_endpoint", endpoint)?,
        region: values.optional("s3_region", word)?,
        style: values.optional("s3_style", str::parse)?,
        ca_file: values.optional("s3_ca_file", values::absolute_path)?,
        profile: values.optional("s3_profile", word)?,
        credentials_file: values.optional("s3_credentials_file", values::absolute_path)?,
        storage_class: values.optional("s3_storage_class", str::parse)?,
        encryption: encryption(values)?,
        request_payer: values.required("s3_request_payer", switch)?,
        tags: values.optional("s3_tags", str::parse)?.unwrap_or_default(),
        object_lock: values.optional("s3_object_lock", str::parse)?,
        conditional_writes: values.required("s3_conditional_writes", switch)?,
        attempt_timeout: values.required("s3_attempt_timeout", values::duration)?,
        call_timeout: values.required("s3_call_timeout", values::duration)?,
        attempts: values.required("s3_attempts", attempts)?,
        upload_limit: values.optional("s3_upload_limit", values::rate)?,
        download_limit: values.optional("s3_download_limit", values::rate)?,
        ..place
    })
}

/// What `s3_encryption` says, with the key that `sse-c` needs.
fn encryption(values: &mut Values<'_>) -> Result<Encryption, ConfigError> {
    let text = values.required("s3_encryption", |text| Ok::<_, &'static str>(text.to_owned()))?;
    let raw = Raw { text: text.clone(), origin: values.last_origin() };
    let name = values.last_name();
    let refuse = |expected| invalid(&name, &raw, expected);
    let key = customer_key(values)?;
    match (text.as_str(), key) {
        ("sse-c", Some(key)) => Ok(Encryption::Customer(key)),
        ("sse-c", None) => Err(refuse("\"sse-c\" only with a key, in s3_customer_key_file or PITR_S3_CUSTOMER_KEY")),
        (_, Some(_)) => Err(refuse("\"sse-c\" where a key is given")),
        ("bucket", None) => Ok(Encryption::Bucket),
        ("sse-s3", None) => Ok(Encryption::S3),
        ("sse-kms", None) => Ok(Encryption::Kms(None)),
        (other, None) => match other.strip_prefix("sse-kms:").filter(|key| word(key).is_ok()) {
            Some(key) => Ok(Encryption::Kms(Some(key.to_owned()))),
            None => Err(refuse("\"bucket\", \"sse-s3\", \"sse-kms\", \"sse-kms:KEY\" or \"sse-c\"")),
        },
    }
}

/// The key of SSE-C: from its file, else from the environment.
fn customer_key(values: &mut Values<'_>) -> Result<Option<CustomerKey>, ConfigError> {
    let read = |text: &str| -> Result<CustomerKey, &'static str> {
        let path: PathBuf = values::absolute_path(text)?;
        let bytes = std::fs::read(path).map_err(|_| "a file that can be read, with a key of 32 bytes")?;
        CustomerKey::read(&bytes)
    };
    if let Some(key) = values.optional("s3_customer_key_file", read)? {
        return Ok(Some(key));
    }
    // A variable cannot say which of several buckets it is for: it is the first one's.
    let Some(text) = values.variable(CUSTOMER_KEY_VARIABLE) else { return Ok(None) };
    let hidden = Raw { text: "(secret)".to_owned(), origin: Origin::Environment(CUSTOMER_KEY_VARIABLE.to_owned()) };
    let key = CustomerKey::read(text.as_bytes()).map_err(|expected| invalid("s3_customer_key", &hidden, expected))?;
    values.add(Entry { name: "s3_customer_key".into(), value: Some(hidden.text), origin: hidden.origin });
    Ok(Some(key))
}

fn endpoint(text: &str) -> Result<String, &'static str> {
    const EXPECTED: &str = "a URL such as \"https://s3.example.com:9000\", without a user and without a path";
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).ok_or(EXPECTED)?;
    let host = host.strip_suffix('/').unwrap_or(host);
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    if host.is_empty() || !host.bytes().all(plain) { Err(EXPECTED) } else { Ok(text.trim_end_matches('/').to_owned()) }
}

fn word(text: &str) -> Result<String, &'static str> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if plain { Ok(text.to_owned()) } else { Err("a name without spaces") }
}

fn switch(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("\"on\" or \"off\""),
    }
}

fn attempts(text: &str) -> Result<u32, &'static str> {
    values::count(text).ok().filter(|count| *count > 0).ok_or("a number from 1 to 64")
}
