//! What lies between a client and the server: a network's latency, and TLS.
//!
//! Bytes take so long in each direction, however many are on their way. A new connection costs a round trip before its first
//! byte arrives, as TCP's handshake does: loopback has none to speak of.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// Bytes of one piece, and pieces on their way at most: 16 MiB, enough for 400 MB/s at 20 ms each way.
const PIECE: usize = 64 << 10;
const PIECES: usize = 256;

/// The way to the server; by default there is nothing on it.
#[derive(Clone, Default)]
pub struct Line {
    each_way: Duration,
    tls: Option<TlsAcceptor>,
}

/// One connection, as the server sees it.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Line {
    /// Bytes take so long to the server, and so long back.
    pub fn set_latency(&mut self, each_way: Duration) {
        self.each_way = each_way;
    }

    /// Speaks TLS with this certificate and its key, both in PEM.
    pub fn set_certificate(&mut self, certificate: &Path, key: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
        self.tls = Some(TlsAcceptor::from(Arc::new(config)));
        Ok(())
    }

    pub(super) fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Takes up a connection that has arrived.
    pub(super) async fn open(&self, stream: TcpStream) -> io::Result<Box<dyn Connection>> {
        let stream: Box<dyn Connection> =
            if self.each_way.is_zero() { Box::new(stream) } else { Box::new(far(stream, self.each_way)) };
        match &self.tls {
            Some(tls) => Ok(Box::new(tls.accept(stream).await?)),
            None => Ok(stream),
        }
    }
}

/// The same connection from far away.
fn far(stream: TcpStream, each_way: Duration) -> impl Connection {
    let (near, end) = tokio::io::duplex(4 * PIECE);
    let (from_client, to_client) = stream.into_split();
    let (from_server, to_server) = tokio::io::split(end);
    // SYN and its answer are still on their way when loopback's handshake is over.
    let first = Instant::now() + 3 * each_way;
    carry(from_client, to_server, each_way, first);
    carry(from_server, to_client, each_way, first);
    near
}

/// Carries bytes in one direction, each so long after it was sent, none before `first`.
fn carry(
    mut from: impl AsyncRead + Send + Unpin + 'static,
    mut to: impl AsyncWrite + Send + Unpin + 'static,
    each_way: Duration,
    first: Instant,
) {
    let (sender, mut receiver) = mpsc::channel::<(Instant, Bytes)>(PIECES);
    tokio::spawn(async move {
        loop {
            let mut piece = BytesMut::with_capacity(PIECE);
            if !matches!(from.read_buf(&mut piece).await, Ok(1..)) {
                break;
            }
            if sender.send(((Instant::now() + each_way).max(first), piece.freeze())).await.is_err() {
                break;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((due, piece)) = receiver.recv().await {
            tokio::time::sleep_until(due).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    });
}
