//! What goes wrong between client and server, and a record of what was asked.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Request, Response};
use s3s::dto::StreamingBlob;
use s3s::service::S3Service;
use s3s::{Body, HttpResponse};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// One way for a request to fail.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered late.
    Delay(Duration),
    /// It is refused with this status and code, as S3 does.
    Refuse(u16, &'static str),
    /// It is refused with this status and no word of S3's, as a proxy does.
    Bare(u16),
    /// The connection breaks before anything is done.
    Reset,
    /// It is done, and the connection breaks before the answer.
    LoseAnswer,
    /// The answer's content breaks off after so many bytes.
    Truncate(usize),
    /// No answer ever comes.
    Silence,
}

/// One request that arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
}

impl Seen {
    /// The kind of request: the method, with what the query makes of it.
    pub fn kind(&self) -> String {
        let asks = ["uploads", "uploadId", "list-type", "delete"];
        let asked = self.query.split('&').filter_map(|part| part.split('=').next()).find(|name| asks.contains(name));
        asked.map_or_else(|| self.method.clone(), |name| format!("{} {name}", self.method))
    }
}

struct Rule {
    kind: String,
    path: String,
    skip: u32,
    times: u32,
    fault: Fault,
}

/// The faults to come, and the requests so far.
#[derive(Default)]
pub struct Faults {
    rules: Mutex<Vec<Rule>>,
    seen: Mutex<Vec<Seen>>,
    latency: Mutex<Duration>,
    away: AtomicBool,
}

impl Faults {
    /// Lets the next `times` requests of a kind ("PUT", "GET list-type", see [`Seen::kind`]) fail whose path contains `path`.
    pub fn add(&self, kind: &str, path: &str, times: u32, fault: Fault) {
        self.add_after(0, kind, path, times, fault);
    }

    /// As [`Faults::add`], after `skip` such requests that go well.
    pub fn add_after(&self, skip: u32, kind: &str, path: &str, times: u32, fault: Fault) {
        let (kind, path) = (kind.to_owned(), path.to_owned());
        lock(&self.rules).push(Rule { kind, path, skip, times, fault });
    }

    /// Ends all faults.
    pub fn clear(&self) {
        lock(&self.rules).clear();
    }

    /// Every request takes so long from now on, beside its work.
    pub fn set_latency(&self, latency: Duration) {
        *lock(&self.latency) = latency;
    }

    /// Breaks every connection before anything is done, until this is called again.
    pub fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    /// The requests since the last call.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *lock(&self.seen))
    }

    /// Kinds of the requests since the last call, in their order.
    pub fn take_kinds(&self) -> Vec<String> {
        self.take_seen().iter().map(Seen::kind).collect()
    }

    fn meet(&self, seen: Seen) -> Option<Fault> {
        let mut rules = lock(&self.rules);
        let kind = seen.kind();
        let mut found = None;
        for rule in rules.iter_mut().filter(|rule| rule.kind == kind && seen.path.contains(&rule.path)) {
            if rule.skip > 0 {
                rule.skip -= 1;
            } else if rule.times > 0 {
                rule.times -= 1;
                found = Some(rule.fault.clone());
                break;
            }
        }
        lock(&self.seen).push(seen);
        found
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers one request, or fails as asked for.
pub(super) async fn answer(
    faults: Arc<Faults>,
    service: S3Service,
    request: Request<Incoming>,
) -> Result<HttpResponse, Error> {
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let seen = Seen {
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned(),
        headers: request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect(),
    };
    let is_head = seen.method == "HEAD";
    let latency = *lock(&faults.latency);
    let fault = faults.meet(seen);
    let fault = if faults.away.load(Ordering::SeqCst) { Some(Fault::Reset) } else { fault };
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let broken = || -> Error { Box::new(io::Error::other("a fault that was asked for")) };
    match fault {
        None => ask(service, request).await,
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            ask(service, request).await
        }
        Some(Fault::Refuse(status, code)) => {
            // The content is taken first, as S3 does most often: else the client may see a broken connection only.
            let _ = request.into_body().collect().await;
            let text = format!("<Error><Code>{code}</Code><Message>asked for by a test</Message></Error>");
            let body = if is_head { Body::empty() } else { Body::from(text) };
            Ok(Response::builder().status(status).header("content-type", "application/xml").body(body)?)
        }
        Some(Fault::Bare(status)) => {
            let _ = request.into_body().collect().await;
            Ok(Response::builder().status(status).body(Body::empty())?)
        }
        Some(Fault::Reset) => Err(broken()),
        Some(Fault::LoseAnswer) => {
            let answer = ask(service, request).await?;
            let _ = BodyExt::collect(answer.into_body()).await;
            Err(broken())
        }
        Some(Fault::Truncate(length)) => {
            let (parts, body) = ask(service, request).await?.into_parts();
            let bytes = BodyExt::collect(body).await?.to_bytes();
            let first = bytes.slice(..length.min(bytes.len()));
            let end = async {
                // Else the answer may break before its head has left.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(io::Error::other("broken off"))
            };
            let pieces = futures::stream::once(async { Ok(first) }).chain(futures::stream::once(end));
            let body = Body::from(StreamingBlob::wrap(Box::pin(pieces)));
            Ok(Response::from_parts(parts, body))
        }
        Some(Fault::Silence) => {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            Err(broken())
        }
    }
}

async fn ask(service: S3Service, request: Request<Incoming>) -> Result<HttpResponse, Error> {
    Ok(service.call(request.map(Body::from)).await?)
}
