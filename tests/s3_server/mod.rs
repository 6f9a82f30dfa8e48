//! An S3 server inside the test process: an ordered map behind the `s3s` library, which checks signatures, with faults on
//! demand in front of it.
//!
//! A test uses it with `#[path = "../s3_server/mod.rs"] mod s3_server;`. Other processes reach it as well, over loopback.
//!
//! * [`memory`]: the objects, and what the protocol says about them.
//! * [`keys`]: which credentials count, and for how long.
//! * [`faults`]: delays, refusals, broken connections, lost answers.
//! * [`line`]: latency and TLS between client and server, for measurements.

// Each integration test is a crate of its own that compiles this module and uses a part of it.
#![allow(dead_code, unreachable_pub, unused_imports)]

pub mod faults;
pub mod keys;
pub mod line;
pub mod memory;

pub use faults::{Fault, Seen};
pub use line::Line;

use std::fs::Permissions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use faults::Faults;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use keys::Keys;
use memory::Objects;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The only bucket there is.
pub const BUCKET: &str = "pitr-test";
/// The key that the server accepts.
pub const ACCESS_KEY: &str = "AKIAPITRTEST";
/// The secret that belongs to it.
pub const SECRET_KEY: &str = "not-a-secret";

/// A running server, gone when it is dropped.
pub struct S3Server {
    /// What is stored; tests may look and change.
    pub objects: Objects,
    /// What goes wrong, and what was asked.
    pub faults: Arc<Faults>,
    /// Which credentials it accepts.
    pub keys: Keys,
    address: SocketAddr,
    is_secure: bool,
    credentials: tempfile::NamedTempFile,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// Starts a server with an empty bucket on a free port of loopback.
    pub fn start() -> S3Server {
        S3Server::start_behind(Line::default())
    }

    /// Starts such a server at the other end of a line.
    pub fn start_behind(line: Line) -> S3Server {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("threads for the server");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (objects, faults) = (Objects::new(BUCKET), Arc::new(Faults::default()));
        let mut builder = S3ServiceBuilder::new(objects.clone());
        let keys = Keys::default();
        builder.set_auth(keys.clone());
        let is_secure = line.is_secure();
        runtime.spawn(accept(listener, line, builder.build(), Arc::clone(&faults)));
        let (credentials, runtime) = (credentials(), Some(runtime));
        S3Server { objects, faults, keys, address, is_secure, credentials, runtime }
    }

    /// A file with the credentials that the server accepts, readable by every user.
    pub fn credentials_file(&self) -> PathBuf {
        self.credentials.path().to_owned()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lines of `pitr.toml` for a cluster whose repository is in the bucket.
    pub fn settings(&self) -> String {
        format!(
            "repository = \"s3://{BUCKET}/pg\"\ns3_endpoint = \"{}\"\ns3_credentials_file = \"{}\"\n",
            self.endpoint(),
            self.credentials_file().display()
        )
    }

    /// The server's URL.
    pub fn endpoint(&self) -> String {
        let scheme = if self.is_secure { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }
}

fn credentials() -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    let text = format!("[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n");
    file.write_all(text.as_bytes()).expect("written");
    file.as_file().set_permissions(Permissions::from_mode(0o644)).expect("made readable");
    file
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn accept(listener: TcpListener, line: Line, service: S3Service, faults: Arc<Faults>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (line, service, faults) = (line.clone(), service.clone(), Arc::clone(&faults));
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let Ok(stream) = line.open(stream).await else { return };
            let answer = service_fn(move |request| faults::answer(Arc::clone(&faults), service.clone(), request));
            // An error here is a fault that was asked for, or a client that went away.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
