//! moto: an S3 server that shares no code with ours nor with the one in this process.

// Each integration test is a crate of its own that compiles this module and uses a part of it.
#![allow(dead_code, unreachable_pub)]

use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::harness::server::free_port;
use crate::harness::{install, wait_for};

/// A running moto with one bucket, ended when it is dropped.
pub struct Moto {
    process: Child,
    /// Where it listens, on loopback.
    pub port: u16,
    credentials: tempfile::NamedTempFile,
}

impl Moto {
    /// Starts it with the buckets `plain` and, with object lock, `locked`.
    pub fn start() -> Moto {
        let moto = Moto::start_with(&[]);
        moto.make_bucket("plain", "");
        moto.make_bucket("locked", "x-amz-bucket-object-lock-enabled: true\r\n");
        moto
    }

    /// Starts it with these options and no bucket.
    pub fn start_with(options: &[&str]) -> Moto {
        let port = free_port();
        let process = Command::new(install::moto())
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &port.to_string()])
            .args(options)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("moto starts");
        let mut credentials = tempfile::NamedTempFile::new().expect("a temporary file");
        credentials.write_all(b"[default]\naws_access_key_id = any\naws_secret_access_key = any\n").expect("written");
        credentials.as_file().set_permissions(Permissions::from_mode(0o644)).expect("made readable");
        let moto = Moto { process, port, credentials };
        wait_for("moto", || TcpStream::connect(("127.0.0.1", port)).ok());
        moto
    }

    /// Makes a bucket: the store has no words for that. moto asks for no signature.
    fn make_bucket(&self, name: &str, headers: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("moto listens");
        let authorization =
            "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        write!(
            stream,
            "PUT /{name} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: {authorization}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// The server's URL.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A file with credentials, readable by every user.
    pub fn credentials_file(&self) -> PathBuf {
        self.credentials.path().to_owned()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
