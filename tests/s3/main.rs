//! The S3 store against real servers of the protocol: one inside the test process, with faults, and moto.

mod changed;
mod closing;
mod credentials;
mod faults;
#[path = "../harness/mod.rs"]
mod harness;
mod issuer;
mod moto;
#[path = "../s3_server/moto.rs"]
mod moto_server;
mod outages;
mod road;
#[path = "../s3_server/mod.rs"]
mod s3_server;
mod settings;
mod store;

use std::time::Duration;

use pitr::storage::{Key, S3, S3Settings};
use s3_server::{BUCKET, S3Server};

/// The settings for a folder of the server's bucket. They give up sooner than others do.
fn settings(server: &S3Server) -> S3Settings {
    let mut settings = S3Settings::new(BUCKET, key("folder"));
    settings.endpoint = Some(server.endpoint());
    settings.credentials_file = Some(server.credentials_file());
    settings.call_timeout = Duration::from_secs(20);
    settings
}

fn store(server: &S3Server) -> S3 {
    S3::new(settings(server))
}

fn key(text: &str) -> Key {
    Key::parse(text).expect("a key of the test")
}
