//! What is said with each request: storage class, encryption, tags, lock, payer, style of the address.

use std::io::Write;

use pitr::storage::{CustomerKey, Encryption, S3, S3Settings, Storage, Style};

use super::s3_server::Seen;
use super::{S3Server, key, settings};

/// Stores a small and a large object, reads the small one, and gives what the server saw.
fn requests(server: &S3Server, settings: S3Settings) -> Vec<Seen> {
    let store = S3::new(settings);
    server.faults.take_seen();
    store.put(&key("small"), b"x").expect("put");
    let mut large = store.create(&key("large")).expect("create");
    large.write_all(&vec![0; 17 << 20]).expect("written");
    large.publish().expect("published");
    store.get(&key("small"), 1).expect("get");
    store.list(&pitr::storage::Key::root()).expect("listed");
    server.faults.take_seen()
}

fn has(seen: &Seen, header: &str, value: &str) -> bool {
    seen.headers.get(header).is_some_and(|found| found == value)
}

/// Promise: what is set for new objects comes with each of them, in one request or in parts.
#[test]
fn of_new_objects() {
    let server = S3Server::start();
    let mut settings = settings(&server);
    settings.storage_class = Some("STANDARD_IA".parse().expect("a class"));
    settings.encryption = Encryption::Kms(Some("key-7".to_owned()));
    settings.tags = "app=pitr,env=test".parse().expect("tags");
    settings.object_lock = Some("governance:30d".parse().expect("a lock"));
    settings.request_payer = true;
    let seen = requests(&server, settings);
    for new in seen.iter().filter(|seen| ["PUT", "POST uploads"].contains(&seen.kind().as_str())) {
        assert!(has(new, "x-amz-storage-class", "STANDARD_IA"), "{new:?}");
        assert!(has(new, "x-amz-server-side-encryption", "aws:kms"), "{new:?}");
        assert!(has(new, "x-amz-server-side-encryption-aws-kms-key-id", "key-7"), "{new:?}");
        assert!(has(new, "x-amz-tagging", "app=pitr&env=test"), "{new:?}");
        assert!(has(new, "x-amz-object-lock-mode", "GOVERNANCE"), "{new:?}");
        let until = new.headers.get("x-amz-object-lock-retain-until-date").expect("a date");
        let days =
            until.parse::<jiff::Timestamp>().expect(until).duration_since(jiff::Timestamp::now()).as_hours() / 24;
        assert!((29..=30).contains(&days), "{until}");
    }
    assert!(seen.iter().any(|seen| seen.kind() == "PUT" && seen.headers.contains_key("content-md5")));
    assert!(seen.iter().all(|seen| has(seen, "x-amz-request-payer", "requester")), "{seen:?}");
}

/// Promise: the key of SSE-C comes with every request that needs it.
#[test]
fn customer_key() {
    let server = S3Server::start();
    let mut settings = settings(&server);
    settings.encryption = Encryption::Customer(CustomerKey::read(&[9; 32]).expect("a key"));
    for seen in requests(&server, settings).iter().filter(|seen| seen.kind() != "GET list-type") {
        assert!(has(seen, "x-amz-server-side-encryption-customer-algorithm", "AES256"), "{seen:?}");
        assert!(seen.headers.contains_key("x-amz-server-side-encryption-customer-key-md5"), "{seen:?}");
    }
}

/// Promise: the bucket's name stands in the path with an endpoint of one's own, and in the host without, unless told otherwise.
#[test]
fn styles() {
    let server = S3Server::start();
    let seen = requests(&server, settings(&server));
    assert!(seen.iter().all(|seen| seen.path.starts_with("/pitr-test")), "{seen:?}");
    let host = S3Settings { style: Some(Style::Host), region: Some("eu-central-1".to_owned()), ..settings(&server) };
    assert!(!host.uses_path_style());
    let amazon = S3Settings { endpoint: None, style: None, ..host };
    assert!(!amazon.uses_path_style() && !amazon.is_plain_http());
}
