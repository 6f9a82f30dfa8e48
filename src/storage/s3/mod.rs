//! A store in a bucket of Amazon S3, or of any server that speaks its protocol.
//!
//! The client is Amazon's own, asynchronous, with its runtime inside the store: [`client`]. Callers are blocking threads; each
//! waits for its own request, so as many run at once as there are threads.
//!
//! * [`settings`]: how the bucket is reached, and how new objects are kept.
//! * [`writing`]: put-if-absent, uploads in parts.
//! * [`reading`]: ranges, and streams that survive a broken connection.
//! * [`listing`]: what lies under a folder.
//! * [`deleting`]: one object, or a thousand in a request.
//! * [`upkeep`]: what the server can do, and sweeping up after killed processes.
//! * [`error`]: what a refusal means. Absence is believed only when it is certain.
//! * [`counters`]: what all of it cost.
//! * [`pace`]: no more bytes a second than allowed.
//!
//! What is assumed of the server: an object that was stored is durable and is seen by every later request (S3 promises both
//! since 2020), and `If-None-Match: *` is honoured. Some servers ignore the latter without a word:
//! [`S3::probe_conditional_writes`] finds out, and [`S3Settings::conditional_writes`] says so.

mod client;
mod counters;
mod deleting;
mod error;
mod listing;
mod options;
mod pace;
mod reading;
mod settings;
mod upkeep;
mod writing;

use std::fmt;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::{Key, Listed, NewObject, Storage, StorageError, StorageErrorKind, Suffix};
use client::Engine;
use counters::Counters;
pub use counters::{RequestCounts, request_counts};
use error::Failure;
use pace::Pace;
pub use settings::{CustomerKey, Encryption, ObjectLock, S3Settings, StorageClass, Style, Tags};
use writing::NewS3Object;

/// A store in a bucket.
#[derive(Clone, Debug)]
pub struct S3 {
    bucket: Arc<Bucket>,
}

impl S3 {
    /// A store with these settings. Nothing is asked, read or started yet: that happens at the first request.
    #[must_use]
    pub fn new(settings: S3Settings) -> S3 {
        let (upload, download) = (Pace::new(settings.upload_limit), Pace::new(settings.download_limit));
        let (engine, starting) = (OnceLock::new(), Mutex::new(()));
        let (counters, deletes_singly) = (Arc::default(), AtomicBool::new(false));
        let bucket = Bucket { settings, counters, upload, download, engine, starting, deletes_singly };
        S3 { bucket: Arc::new(bucket) }
    }

    /// What this store has cost so far.
    #[must_use]
    pub fn counts(&self) -> RequestCounts {
        self.bucket.counters.sum()
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &S3Settings {
        &self.bucket.settings
    }
}

/// The bucket, shared by the store and by what is being written to and read from it.
struct Bucket {
    settings: S3Settings,
    counters: Arc<Counters>,
    upload: Pace,
    download: Pace,
    engine: OnceLock<Engine>,
    starting: Mutex<()>,
    /// The server does not know requests that delete many objects.
    deletes_singly: AtomicBool,
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("url", &self.settings.url()).finish_non_exhaustive()
    }
}

impl Bucket {
    /// The running client. A failed start is tried again by the next request.
    fn engine(&self) -> Result<&Engine, Failure> {
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let _starting = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(engine) = self.engine.get() {
            return Ok(engine);
        }
        let engine = Engine::start(&self.settings, &self.counters)?;
        Ok(self.engine.get_or_init(|| engine))
    }

    /// The name of an object in the bucket.
    fn path(&self, key: &Key) -> String {
        let prefix = &self.settings.prefix;
        let slash = if prefix.as_str().is_empty() || key.as_str().is_empty() { "" } else { "/" };
        format!("{prefix}{slash}{key}")
    }

    fn describe(&self) -> String {
        let at = self.settings.endpoint.as_ref().map_or_else(String::new, |endpoint| format!(" at {endpoint}"));
        format!("bucket \"{}\"{at}", self.settings.url())
    }

    fn dress(&self, action: &'static str, key: &Key, failure: Failure) -> StorageError {
        let (storage, key) = (self.describe(), key.to_string());
        let mut reason = failure.reason;
        if failure.kind == StorageErrorKind::Denied {
            reason.push_str(&format!("; it takes the right {}", right(action)));
        }
        StorageError { storage, key, action, kind: failure.kind, reason }
    }
}

/// The right that an action takes, as policies name it.
fn right(action: &str) -> &'static str {
    match action {
        "write" => "s3:PutObject",
        // Without the second S3 answers for an object that is not there as for one that is forbidden.
        "read" | "look for" | "sync" => "s3:GetObject, and s3:ListBucket on the bucket",
        "list" => "s3:ListBucket on the bucket",
        "delete" => "s3:DeleteObject",
        _ => "s3:ListBucketMultipartUploads on the bucket and s3:AbortMultipartUpload",
    }
}

/// How long to wait before try number `failed` + 1: doubling, at most a second, by chance between half of that and all.
fn pause_before(failed: u32, first: Duration) -> Duration {
    let longest = first.saturating_mul(1 << failed.min(8).saturating_sub(1)).min(Duration::from_secs(1));
    let mut random = [0_u8; 1];
    // Without chance all writers come back at the same moment, which is slow but not wrong.
    let share = if getrandom::fill(&mut random).is_ok() { u32::from(random[0]) } else { 255 };
    longest / 2 + longest / 2 * share / 255
}

/// Sends a request again while the server says that another one for the same name is under way.
fn retry_conflict<T>(bucket: &Bucket, mut send: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    let mut tries = 1;
    loop {
        match send() {
            Err(failure) if failure.is_conflict() && tries < bucket.settings.attempts => {
                std::thread::sleep(pause_before(tries, Duration::from_millis(50)));
                tries += 1;
            }
            other => return other,
        }
    }
}

impl Storage for S3 {
    fn describe(&self) -> String {
        self.bucket.describe()
    }

    fn threads_for(&self, requests: usize) -> usize {
        // All of them wait for the network.
        requests.clamp(1, 64)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn weakness(&self) -> Option<&'static str> {
        (!self.bucket.settings.conditional_writes).then_some(
            "the server cannot refuse a second object of one name, so each put looks first: of two servers that write the \
             same file at the same moment the later one wins",
        )
    }

    fn create(&self, key: &Key) -> Result<Box<dyn NewObject>, StorageError> {
        if key.as_str().is_empty() {
            return Err(self.failed("write", key, &io::Error::other("the root is not an object")));
        }
        Ok(Box::new(NewS3Object::new(Arc::clone(&self.bucket), key.clone())))
    }

    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        let read = || {
            let mut reader = self.bucket.stream(key)?;
            let size = reader.remaining();
            if size > limit_bytes {
                let reason = format!("it has {size} bytes, at most {limit_bytes} were expected");
                return Err(Failure::new(StorageErrorKind::TooLarge, reason));
            }
            reader.collect()
        };
        read().map_err(|failure| self.bucket.dress("read", key, failure))
    }

    fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.bucket.range(key, range).map_err(|failure| self.bucket.dress("read", key, failure))
    }

    fn get_suffix(&self, key: &Key, bytes: u64) -> Result<Suffix, StorageError> {
        self.bucket.suffix(key, bytes).map_err(|failure| self.bucket.dress("read", key, failure))
    }

    fn open(&self, key: &Key) -> Result<Box<dyn Read + Send>, StorageError> {
        let reader = self.bucket.stream(key).map_err(|failure| self.bucket.dress("read", key, failure))?;
        Ok(Box::new(reader))
    }

    fn size(&self, key: &Key) -> Result<Option<u64>, StorageError> {
        self.bucket.size(key).map_err(|failure| self.bucket.dress("look for", key, failure))
    }

    fn list(&self, folder: &Key) -> Result<Vec<Listed>, StorageError> {
        self.bucket.list(folder).map_err(|failure| self.bucket.dress("list", folder, failure))
    }

    fn settle(&self, key: &Key) -> Result<(), StorageError> {
        // What a bucket shows is durable.
        let look = || self.bucket.head(key)?.map(|_| ()).ok_or_else(Failure::not_found);
        look().map_err(|failure| self.bucket.dress("sync", key, failure))
    }

    fn sweep(&self, age: Duration) -> Result<u64, StorageError> {
        self.bucket
            .sweep(age)
            .map_err(|failure| self.bucket.dress("sweep unfinished uploads of", &Key::root(), failure))
    }

    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        self.bucket.delete(key).map_err(|failure| self.bucket.dress("delete", key, failure))
    }

    fn deletes_at_once(&self) -> usize {
        deleting::AT_ONCE
    }

    fn delete_all(&self, keys: &[Key]) -> Vec<StorageError> {
        let failed = keys.chunks(deleting::AT_ONCE).flat_map(|some| self.bucket.delete_all(some));
        failed.map(|(key, failure)| self.bucket.dress("delete", &key, failure)).collect()
    }
}
