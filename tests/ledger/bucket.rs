//! The same with the repository in a bucket, over a network that does what networks do.

use std::time::Duration;

use super::harness::{Random, newest, seed};
use super::moto_server::Moto;
use super::s3_server::{BUCKET, Fault, S3Server};
use super::{EVERYDAY_TARGETS, run_in};

fn settings(bucket: &str, endpoint: &str, credentials: &std::path::Path) -> String {
    format!(
        "repository = \"s3://{bucket}/pg\"\ns3_endpoint = \"{endpoint}\"\ns3_credentials_file = \"{}\"\n\
         s3_attempt_timeout = \"5s\"\n",
        credentials.display()
    )
}

/// Lets now and then a request fail, of every kind and in every way.
fn disturb(server: &S3Server, random: &mut Random, faults: usize) {
    server.faults.set_latency(Duration::from_millis(2));
    for _ in 0..faults {
        let kinds = ["PUT", "GET", "GET list-type", "HEAD", "POST uploads", "POST uploadId", "PUT uploadId"];
        let kind = kinds[random.between(0, kinds.len() - 1)];
        let fault = match random.between(0, 5) {
            0 => Fault::Refuse(503, "SlowDown"),
            1 => Fault::Refuse(500, "InternalError"),
            2 => Fault::Reset,
            3 => Fault::LoseAnswer,
            4 => Fault::Truncate(random.between(0, 5000)),
            _ => Fault::Delay(Duration::from_millis(700)),
        };
        let skip = u32::try_from(random.between(0, 400)).expect("small");
        server.faults.add_after(skip, kind, "", 1, fault);
    }
}

fn disturbed(major: u32, targets: usize, faults: usize) {
    let server = S3Server::start();
    disturb(&server, &mut Random::new(seed()), faults);
    run_in(&settings(BUCKET, &server.endpoint(), &server.credentials_file()), major, targets);
    assert_eq!(server.objects.unfinished_uploads(), 0);
}

/// A restore from a bucket shows exactly the rows committed up to its target, whatever the network did meanwhile.
#[test]
fn in_a_bucket() {
    disturbed(newest().major, EVERYDAY_TARGETS / 2, 60);
}

/// The same with more faults, on every second major.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn long_in_a_bucket() {
    for postgres in super::harness::majors().iter().step_by(2) {
        disturbed(postgres.major, EVERYDAY_TARGETS, 300);
    }
}

/// The same on a server that shares no code with the other one.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn long_in_moto() {
    let moto = Moto::start();
    run_in(&settings("plain", &moto.endpoint(), &moto.credentials_file()), newest().major, EVERYDAY_TARGETS);
}
