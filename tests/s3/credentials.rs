//! Where credentials come from, each proved by requests that the server accepted with them; credentials that expire; wrong
//! clocks; proxies.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pitr::repository::{Repository, ServerRecord};
use pitr::storage::{Key, S3, S3Settings};
use pitr::wal::{PgTime, PostgresMajor, SegmentSize, SystemIdentifier};

use super::S3Server;
use super::harness::{Run, TestDir};
use super::issuer::{self, TOKEN};
use super::s3_server::BUCKET;

/// How long `pitr` may take: the SDK looks for credentials in places that are not there, too.
const LONG: Duration = Duration::from_secs(90);

/// An empty repository in the server's bucket, and a directory with a configuration that names no credentials.
fn repository(server: &S3Server, endpoint: &str) -> TestDir {
    let settings = S3Settings {
        endpoint: Some(server.endpoint()),
        credentials_file: Some(server.credentials_file()),
        ..S3Settings::new(BUCKET, Key::parse("pg").expect("a key"))
    };
    let made = Repository::create(Arc::new(S3::new(settings)), PgTime(0)).expect("made");
    made.cluster(&"main".parse().expect("a name"))
        .add_server(&ServerRecord {
            system_identifier: SystemIdentifier(7),
            major: PostgresMajor(15),
            segment_size_bytes: SegmentSize::DEFAULT,
            page_checksums: false,
            created_at: PgTime(0),
            created_by: "a test".to_owned(),
            upgraded_from: None,
        })
        .expect("added");
    let dir = TestDir::new();
    let text = format!(
        "[repository]\npath = \"s3://{BUCKET}/pg\"\ns3_endpoint = \"{endpoint}\"\n[cluster.main]\nsystem_identifier = \"7\"\n"
    );
    dir.write("pitr.toml", text);
    server.faults.take_seen();
    dir
}

fn list(dir: &TestDir) -> Command {
    let mut command = dir.pitr("pitr");
    command.arg("--config").arg(dir.join("pitr.toml")).arg("list");
    command
}

/// The keys that requests to the server were signed with since the last look, and that all of them brought the token.
fn keys(server: &S3Server) -> BTreeSet<String> {
    let seen = server.faults.take_seen();
    assert!(!seen.is_empty(), "something was asked");
    let key = |authorization: &String| {
        let (_, from) = authorization.split_once("Credential=").expect("signed");
        from.split('/').next().unwrap_or_default().to_owned()
    };
    let signed = seen.iter().map(|seen| {
        assert_eq!(seen.headers.get("x-amz-security-token").map(String::as_str), Some(TOKEN));
        key(seen.headers.get("authorization").expect("signed"))
    });
    signed.collect()
}

fn assert_issued(server: &S3Server) {
    let keys = keys(server);
    assert!(keys.iter().all(|key| key.starts_with("AKIAISSUED")), "{keys:?}");
}

/// Promise: without credentials nothing is asked, and the message says what is missing.
#[test]
fn none() {
    let server = S3Server::start();
    let dir = repository(&server, &server.endpoint());
    let mut command = list(&dir);
    let said = command.env("AWS_EC2_METADATA_DISABLED", "true").run_within(LONG);
    assert!(!said.status.success() && said.stderr.contains("credentials"), "{said}");
    assert_eq!(server.faults.take_seen().len(), 0);
}

/// Promise: the role of an instance counts, by the second version of its service.
#[test]
fn an_instance() {
    let server = S3Server::start();
    server.keys.accept_issued_for(3600);
    let dir = repository(&server, &server.endpoint());
    let issuer = issuer::instance(3600);
    list(&dir).env("AWS_EC2_METADATA_SERVICE_ENDPOINT", issuer.url()).run_within(LONG).ok();
    assert_issued(&server);
    assert!(issuer.asked().iter().any(|asked| asked.method == "PUT"), "a session was asked for");
}

/// Promise: the role of a container counts, with the authorization that it was given.
#[test]
fn a_container() {
    let server = S3Server::start();
    server.keys.accept_issued_for(3600);
    let dir = repository(&server, &server.endpoint());
    let issuer = issuer::container(3600, "a-permission");
    let mut command = list(&dir);
    command.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/credentials", issuer.url()));
    command.env("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a-permission").run_within(LONG).ok();
    assert_issued(&server);
}

/// Promise: the token of an identity provider counts: Kubernetes service accounts use that.
#[test]
fn a_web_identity() {
    let server = S3Server::start();
    server.keys.accept_issued_for(3600);
    let dir = repository(&server, &server.endpoint());
    let issuer = issuer::web_identity(3600, "who-i-am");
    let mut command = list(&dir);
    command.env("AWS_WEB_IDENTITY_TOKEN_FILE", dir.write("token", "who-i-am"));
    command.env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/r").env("AWS_ROLE_SESSION_NAME", "s");
    command.env("AWS_REGION", "eu-central-1").env("AWS_ENDPOINT_URL_STS", issuer.url()).run_within(LONG).ok();
    assert_issued(&server);
}

/// A profile whose credentials are printed by a program, new ones each time, for so many seconds.
fn with_process(dir: &TestDir, seconds: u64) -> Command {
    let script = format!(
        "#!/bin/sh\nnow=$(date +%s)\nkey=AKIAISSUED$now\n\
         end=$(date -u -d @$((now + {seconds})) +%Y-%m-%dT%H:%M:%SZ)\n\
         printf '{{\"Version\":1,\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"secret-of-%s\",\"SessionToken\":\"{TOKEN}\",\"Expiration\":\"%s\"}}' $key $key $end\n"
    );
    let script = dir.write("issue", script);
    let config = format!("[default]\ncredential_process = /bin/sh {}\n", script.display());
    let mut command = list(dir);
    command.env("AWS_CONFIG_FILE", dir.write("aws-config", config));
    command
}

/// Promise: credentials that expire while a command runs are fetched anew, and the command notices nothing.
#[test]
fn refreshed_while_running() {
    let server = S3Server::start();
    server.keys.accept_issued_for(13);
    let dir = repository(&server, &server.endpoint());
    // Longer than any of them lives.
    server.faults.set_latency(Duration::from_secs(5));
    let took = with_process(&dir, 12).run_within(LONG).ok().took;
    assert!(took > Duration::from_secs(14), "{took:?}: it was too quick to tell anything");
    let keys = keys(&server);
    assert!(keys.len() > 1, "{keys:?}");
}

/// Promise: where they are not renewed, that is said: never is anything taken for missing.
#[test]
fn expired() {
    let server = S3Server::start();
    let dir = repository(&server, &server.endpoint());
    server.keys.accept_issued_for(3600);
    // They say that they live for an hour, and the server thinks otherwise.
    let mut command = with_process(&dir, 3600);
    server.keys.accept_issued_for(0);
    server.faults.set_latency(Duration::from_millis(1500));
    let said = command.run_within(LONG);
    assert!(!said.status.success() && said.stderr.contains("ExpiredToken"), "{said}");
    assert!(said.stderr.contains("credentials"), "{said}");
}

/// Promise: a clock that is off is made up for, by what the server says about the time.
#[test]
fn a_wrong_clock() {
    let server = S3Server::start();
    let dir = repository(&server, &server.endpoint());
    for offset in ["-2h", "+2h"] {
        let mut plain = list(&dir);
        plain.env("AWS_SHARED_CREDENTIALS_FILE", server.credentials_file());
        let mut command = super::harness::as_test_user("/usr/bin/env");
        command
            .args(["LD_PRELOAD=/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]);
        command.arg(format!("FAKETIME={offset}")).arg(dir.binary("pitr"));
        command.arg("--config").arg(dir.join("pitr.toml")).arg("list");
        command.env("AWS_SHARED_CREDENTIALS_FILE", server.credentials_file()).env("HOME", dir.path());
        command.run_within(LONG).ok();
        assert!(!server.faults.take_seen().is_empty());
    }
}

/// Promise: where a server insists that the clock is wrong, the message says so and what to do.
#[test]
fn a_clock_that_cannot_be_mended() {
    let server = S3Server::start();
    let dir = repository(&server, &server.endpoint());
    server.faults.add("GET", "", 100, super::s3_server::Fault::Refuse(403, "RequestTimeTooSkewed"));
    let mut command = list(&dir);
    command.env("AWS_SHARED_CREDENTIALS_FILE", server.credentials_file());
    let said = command.run_within(LONG);
    assert!(!said.status.success() && said.stderr.contains("RequestTimeTooSkewed"), "{said}");
    assert!(said.stderr.contains("clock"), "{said}");
}

/// Promise: a bucket that only a proxy knows the way to is reached, and `NO_PROXY` is obeyed.
#[test]
fn a_proxy() {
    let server = S3Server::start();
    let port = server.address().port();
    let dir = repository(&server, &format!("http://bucket.example.invalid:{port}"));
    let (address, seen) = issuer::proxy(server.address());
    let with = |no_proxy: &str| {
        let mut command = list(&dir);
        command.env("AWS_SHARED_CREDENTIALS_FILE", server.credentials_file());
        command.env("HTTP_PROXY", format!("http://{address}")).env("NO_PROXY", no_proxy);
        command
    };
    with("").run_within(LONG).ok();
    let asked = seen.lock().expect("no panic under it").len();
    assert!(asked > 0 && asked == server.faults.take_seen().len(), "{asked}");
    let mut around = with("bucket.example.invalid");
    around.env("PITR_S3_ATTEMPTS", "1");
    assert!(!around.run_within(LONG).status.success(), "nobody knows that name");
    assert_eq!(server.faults.take_seen().len(), 0);
}
