//! How a bucket is reached and how objects are stored in it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::storage::Key;

/// Everything that the S3 store needs to know; secrets are not in it, or do not show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct S3Settings {
    /// The bucket's name.
    pub bucket: String,
    /// The folder of the bucket that is the repository; the root for the whole bucket.
    pub prefix: Key,
    /// The bucket's region; `None` for what the environment or the profile says, and with an endpoint of one's own `us-east-1`.
    pub region: Option<String>,
    /// URL of the server; `None` for Amazon's of the region.
    pub endpoint: Option<String>,
    /// Where the bucket's name stands in URLs; `None` for the path with an endpoint, else the host.
    pub style: Option<Style>,
    /// Certificates (PEM) that are trusted instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The profile of the AWS configuration files; `None` for the environment's choice.
    pub profile: Option<String>,
    /// A file of profiles with credentials, in the form of `~/.aws/credentials`, that is used instead of what the environment
    /// says and this machine's role.
    pub credentials_file: Option<PathBuf>,
    /// Storage class of new objects; `None` for the bucket's.
    pub storage_class: Option<StorageClass>,
    /// How the server encrypts new objects.
    pub encryption: Encryption,
    /// Whoever asks pays for requests.
    pub request_payer: bool,
    /// Tags of new objects.
    pub tags: Tags,
    /// How long new objects cannot be deleted.
    pub object_lock: Option<ObjectLock>,
    /// The server honours `If-None-Match: *`. Where it does not, each put looks first, and of two writers at the same moment
    /// the later one wins.
    pub conditional_writes: bool,
    /// When one try of a request is given up.
    pub attempt_timeout: Duration,
    /// When a request is given up with all its tries.
    pub call_timeout: Duration,
    /// Tries of a request, the first one included, 1 to 64.
    pub attempts: u32,
    /// Most bytes of objects that one process sends a second; `None` for as many as go.
    pub upload_limit: Option<u64>,
    /// Most bytes of objects that one process receives a second.
    pub download_limit: Option<u64>,
}

impl S3Settings {
    /// The settings of a bucket, all others as they are when nobody sets them.
    #[must_use]
    pub fn new(bucket: &str, prefix: Key) -> S3Settings {
        S3Settings {
            bucket: bucket.to_owned(),
            prefix,
            region: None,
            endpoint: None,
            style: None,
            ca_file: None,
            profile: None,
            credentials_file: None,
            storage_class: None,
            encryption: Encryption::Bucket,
            request_payer: false,
            tags: Tags::default(),
            object_lock: None,
            conditional_writes: true,
            attempt_timeout: Duration::from_secs(30),
            call_timeout: Duration::from_secs(120),
            attempts: 10,
            upload_limit: None,
            download_limit: None,
        }
    }

    /// Reads `s3://bucket` or `s3://bucket/folder/folder`.
    ///
    /// # Errors
    /// What belongs there, in words.
    pub fn parse_url(url: &str) -> Result<S3Settings, &'static str> {
        const EXPECTED: &str = "\"s3://BUCKET/FOLDER\", a folder of A-Z, a-z, 0-9, \".\", \"_\", \"-\" and \"/\"";
        let rest = url.strip_prefix("s3://").ok_or(EXPECTED)?.trim_end_matches('/');
        let (bucket, prefix) = rest.split_once('/').map_or((rest, ""), |(bucket, prefix)| (bucket, prefix));
        // Rules for bucket names: 3 to 63 of these; access points and other servers allow a little more.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        if !(3..=255).contains(&bucket.len()) || !bucket.bytes().all(plain) {
            return Err(EXPECTED);
        }
        let prefix = if prefix.is_empty() { Key::root() } else { Key::parse(prefix).map_err(|_| EXPECTED)? };
        Ok(S3Settings::new(bucket, prefix))
    }

    /// The place as a URL: `s3://bucket/prefix`.
    #[must_use]
    pub fn url(&self) -> String {
        let slash = if self.prefix.as_str().is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{}", self.bucket, self.prefix)
    }

    /// Where the bucket's name stands in URLs.
    #[must_use]
    pub fn uses_path_style(&self) -> bool {
        self.style.map_or(self.endpoint.is_some(), |style| style == Style::Path)
    }

    /// Whether requests go unencrypted, to a server of one's own.
    #[must_use]
    pub fn is_plain_http(&self) -> bool {
        self.endpoint.as_deref().is_some_and(|url| url.starts_with("http://"))
    }
}

/// Where the bucket's name stands in URLs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// `https://server/bucket/key`.
    Path,
    /// `https://bucket.server/key`.
    Host,
}

impl FromStr for Style {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "path" => Ok(Style::Path),
            "host" => Ok(Style::Host),
            _ => Err("\"path\" or \"host\""),
        }
    }
}

/// A storage class whose objects can be read at once: a restore cannot wait hours for each object to be thawed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StorageClass(String);

impl StorageClass {
    /// Its name as S3 writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for StorageClass {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        let frozen = ["GLACIER", "DEEP_ARCHIVE"].contains(&text);
        if text.is_empty() || frozen || !text.bytes().all(plain) {
            return Err("a storage class that can be read at once, such as \"STANDARD_IA\" or \"GLACIER_IR\"");
        }
        Ok(StorageClass(text.to_owned()))
    }
}

/// How the server encrypts new objects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Encryption {
    /// As the bucket is set up.
    Bucket,
    /// SSE-S3: with keys of S3.
    S3,
    /// SSE-KMS, with this key of the key service or with the default one.
    Kms(Option<String>),
    /// SSE-C: with a key that comes along with each request.
    Customer(CustomerKey),
}

/// A key of SSE-C: 32 bytes. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct CustomerKey([u8; 32]);

impl CustomerKey {
    /// Reads 32 bytes in base64, or as they are.
    ///
    /// # Errors
    /// What belongs there, in words; never what stood there.
    pub fn read(bytes: &[u8]) -> Result<CustomerKey, &'static str> {
        use base64::Engine;
        if let Ok(raw) = bytes.try_into() {
            return Ok(CustomerKey(raw));
        }
        let text = bytes.trim_ascii();
        let decoded = base64::engine::general_purpose::STANDARD.decode(text).ok();
        let raw = decoded.and_then(|bytes| bytes.try_into().ok());
        raw.map(CustomerKey).ok_or("32 bytes, as they are or in base64 (\"openssl rand -base64 32\" makes such a key)")
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for CustomerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CustomerKey(secret)")
    }
}

/// Tags of objects, by which rules of the bucket and bills can tell them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tags(Vec<(String, String)>);

impl Tags {
    /// As the header `x-amz-tagging` wants them; `None` for no tags.
    #[must_use]
    pub fn header(&self) -> Option<String> {
        let pairs: Vec<String> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        (!pairs.is_empty()).then(|| pairs.join("&"))
    }
}

impl FromStr for Tags {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "up to 10 of \"name=value\" with commas between, of A-Z, a-z, 0-9, \".\", \"_\", \"-\", \":\", \"/\", \"@\"";
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-:/@".contains(&byte);
        let pairs: Option<Vec<(String, String)>> = text
            .split(',')
            .map(|pair| {
                let (name, value) = pair.trim().split_once('=')?;
                let fits = (1..=128).contains(&name.len()) && value.len() <= 256;
                (fits && name.bytes().chain(value.bytes()).all(plain)).then(|| (name.to_owned(), value.to_owned()))
            })
            .collect();
        pairs.filter(|pairs| pairs.len() <= 10).map(Tags).ok_or(EXPECTED)
    }
}

/// How long new objects cannot be deleted; needs a bucket with object lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ObjectLock {
    /// Nobody at all may delete (`compliance`), or nobody without a right of its own (`governance`).
    pub compliance: bool,
    /// Days from the moment of storing, 1 to 36500.
    pub days: u32,
}

impl FromStr for ObjectLock {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "\"governance:DAYSd\" or \"compliance:DAYSd\", such as \"governance:30d\"";
        let (mode, days) = text.split_once(':').ok_or(EXPECTED)?;
        let compliance = match mode {
            "compliance" => true,
            "governance" => false,
            _ => return Err(EXPECTED),
        };
        let days = days.strip_suffix('d').and_then(|days| days.parse().ok());
        let days = days.filter(|days| (1..=36_500).contains(days)).ok_or(EXPECTED)?;
        Ok(ObjectLock { compliance, days })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place is read and shown the same way; what cannot be a bucket or a folder of ours is refused.
    #[test]
    fn urls() {
        for url in ["s3://bucket", "s3://bucket/a", "s3://my.bucket-1/a/b_c"] {
            assert_eq!(S3Settings::parse_url(url).expect(url).url(), url);
        }
        assert_eq!(S3Settings::parse_url("s3://bucket/a/").expect("a slash at the end").url(), "s3://bucket/a");
        for wrong in ["s3:/bucket", "s3://", "s3://b", "s3://bu cket", "s3://bucket/../a", "s3://bucket//a", "/s3"] {
            assert!(S3Settings::parse_url(wrong).is_err(), "{wrong}");
        }
    }

    /// Values with rules of their own.
    #[test]
    fn values() {
        assert_eq!("a=b,c=d:e".parse::<Tags>().expect("tags").header().as_deref(), Some("a=b&c=d:e"));
        assert_eq!(Tags::default().header(), None);
        for wrong in ["", "a", "=b", "a=b&c", "a=ä"] {
            assert!(wrong.parse::<Tags>().is_err(), "{wrong}");
        }
        assert_eq!("compliance:7d".parse(), Ok(ObjectLock { compliance: true, days: 7 }));
        for wrong in ["governance", "governance:7", "x:7d", "governance:0d"] {
            assert!(wrong.parse::<ObjectLock>().is_err(), "{wrong}");
        }
        assert!("GLACIER".parse::<StorageClass>().is_err() && "GLACIER_IR".parse::<StorageClass>().is_ok());
    }

    /// The key of SSE-C is taken raw or in base64, and never shown.
    #[test]
    fn customer_keys() {
        let raw = CustomerKey::read(&[65; 32]).expect("raw");
        let encoded = CustomerKey::read(b"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=\n").expect("base64");
        assert_eq!(raw, encoded);
        assert!(CustomerKey::read(b"too short").is_err());
        assert_eq!(format!("{raw:?}"), "CustomerKey(secret)");
    }
}
