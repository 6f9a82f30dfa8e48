//! What a store has cost so far: requests by kind, and bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::BeforeTransmitInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use serde::Serialize;

/// Requests and bytes since the store was opened. A request that was tried three times counts three times: the bill does too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct RequestCounts {
    /// Objects and parts of objects sent.
    pub put: u64,
    /// Objects and ranges of objects read.
    pub get: u64,
    /// Looks at an object without its content.
    pub head: u64,
    /// Pages of listings.
    pub list: u64,
    /// Beginnings and ends of uploads in parts.
    pub multipart: u64,
    /// Deletions, abandoned uploads included.
    pub delete: u64,
    /// Tries after the first one, counted above as well.
    pub repeated: u64,
    /// Bytes of content sent, repeated ones included.
    pub sent_bytes: u64,
    /// Bytes of content received.
    pub received_bytes: u64,
}

impl RequestCounts {
    /// All requests together.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.put + self.get + self.head + self.list + self.multipart + self.delete
    }
}

/// The counters that add up to [`RequestCounts`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    put: AtomicU64,
    get: AtomicU64,
    head: AtomicU64,
    list: AtomicU64,
    multipart: AtomicU64,
    delete: AtomicU64,
    repeated: AtomicU64,
    sent_bytes: AtomicU64,
    received_bytes: AtomicU64,
}

/// Those of all stores of this process together.
static PROCESS: Counters = Counters {
    put: AtomicU64::new(0),
    get: AtomicU64::new(0),
    head: AtomicU64::new(0),
    list: AtomicU64::new(0),
    multipart: AtomicU64::new(0),
    delete: AtomicU64::new(0),
    repeated: AtomicU64::new(0),
    sent_bytes: AtomicU64::new(0),
    received_bytes: AtomicU64::new(0),
};

/// What all stores of this process have cost so far.
#[must_use]
pub fn request_counts() -> RequestCounts {
    PROCESS.sum()
}

impl Counters {
    pub(super) fn received(&self, bytes: usize) {
        self.add(|counters| &counters.received_bytes, bytes as u64);
    }

    fn add(&self, counter: impl Fn(&Counters) -> &AtomicU64, count: u64) {
        for counters in [self, &PROCESS] {
            counter(counters).fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(super) fn sum(&self) -> RequestCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            put: read(&self.put),
            get: read(&self.get),
            head: read(&self.head),
            list: read(&self.list),
            multipart: read(&self.multipart),
            delete: read(&self.delete),
            repeated: read(&self.repeated),
            sent_bytes: read(&self.sent_bytes),
            received_bytes: read(&self.received_bytes),
        }
    }

    /// Which counter a request belongs to, by what distinguishes requests in the S3 protocol: method and query.
    fn of(&self, method: &str, query: &str) -> &AtomicU64 {
        let asks = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
        match method {
            "GET" if asks("list-type") || asks("uploads") => &self.list,
            "GET" => &self.get,
            "HEAD" => &self.head,
            "DELETE" => &self.delete,
            "POST" if asks("delete") => &self.delete,
            "POST" => &self.multipart,
            _ => &self.put,
        }
    }
}

/// Counts each request as it leaves.
#[derive(Clone, Debug)]
pub(super) struct CountRequests(pub(super) Arc<Counters>);

impl Intercept for CountRequests {
    fn name(&self) -> &'static str {
        "CountRequests"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request();
        let query = request.uri().split_once('?').map_or("", |(_, query)| query);
        self.0.add(|counters| counters.of(request.method(), query), 1);
        let length = request.headers().get("content-length").and_then(|length| length.parse().ok());
        self.0.add(|counters| &counters.sent_bytes, length.unwrap_or(0));
        // The SDK numbers the tries of a request in this header: `attempt=2; max=10`.
        let is_first = request.headers().get("amz-sdk-request").is_none_or(|tries| tries.starts_with("attempt=1;"));
        self.0.add(|counters| &counters.repeated, u64::from(!is_first));
        Ok(())
    }
}

/// Counts the tries of one request: after more than one, a refusal may be about what an earlier one has stored.
#[derive(Clone, Debug, Default)]
pub(super) struct Tries(Arc<AtomicU32>);

impl Tries {
    pub(super) fn several(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 1
    }
}

impl Intercept for Tries {
    fn name(&self) -> &'static str {
        "Tries"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
