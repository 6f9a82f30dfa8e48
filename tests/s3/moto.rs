//! The store against moto: an S3 server that shares no code with ours nor with that of the other tests, and knows conditional
//! writes, object lock and encryption with keys.

use std::io::{Read, Write};
use std::process::Command;

use pitr::storage::{CustomerKey, Encryption, Put, S3, S3Settings, Storage, StorageErrorKind, conformance};

use super::harness::install;
use super::key;
use super::moto_server::Moto;

/// The settings for a folder of one of its buckets.
fn settings(moto: &Moto, bucket: &str) -> S3Settings {
    let mut settings = S3Settings::new(bucket, key("folder"));
    settings.endpoint = Some(moto.endpoint());
    settings.credentials_file = Some(moto.credentials_file());
    settings
}

/// Promise: the store keeps its promises on a second server, the race of eight writers included; large objects, absence and
/// the probe as well.
#[test]
fn conforms() {
    let moto = Moto::start();
    let store = S3::new(settings(&moto, "plain"));
    conformance::run(&store);
    assert!(store.probe_conditional_writes().expect("a probe"));

    let bytes: Vec<u8> = (0..(33_u32 << 20) / 4).flat_map(u32::to_le_bytes).collect();
    for expected in [Put::Created, Put::Exists] {
        let mut object = store.create(&key("large")).expect("create");
        object.write_all(&bytes).expect("written");
        assert_eq!(object.publish().expect("published"), expected);
    }
    let mut read = Vec::new();
    store.open(&key("large")).expect("open").read_to_end(&mut read).expect("read");
    assert!(read == bytes);
    assert_eq!(store.sweep(std::time::Duration::ZERO).expect("swept"), 0, "nothing unfinished is left");
    store.put(&key("empty"), b"").expect("put");
    assert_eq!(store.get_suffix(&key("empty"), 9).expect("suffix").size, 0);

    let nowhere = S3::new(settings(&moto, "no-such-bucket"));
    assert!(nowhere.size(&key("a")).is_err_and(|error| error.kind == StorageErrorKind::NoBucket));
    assert!(nowhere.get(&key("a"), 1).is_err_and(|error| error.kind == StorageErrorKind::NoBucket));
}

/// Promise: a locked object is taken as such by a server that knows locks, and an encrypted one is read back.
#[test]
fn locked_and_encrypted() {
    let moto = Moto::start();
    let mut locked = settings(&moto, "locked");
    locked.object_lock = Some("governance:1d".parse().expect("a lock"));
    locked.tags = "app=pitr".parse().expect("tags");
    locked.storage_class = Some("STANDARD_IA".parse().expect("a class"));
    let store = S3::new(locked);
    assert_eq!(store.put(&key("a"), b"x").expect("put"), Put::Created);
    assert_eq!(store.put(&key("a"), b"y").expect("put"), Put::Exists);
    assert_eq!(store.get(&key("a"), 1).expect("get"), b"x");

    for encryption in
        [Encryption::S3, Encryption::Kms(None), Encryption::Customer(CustomerKey::read(&[5; 32]).expect("a key"))]
    {
        let store = S3::new(S3Settings {
            encryption: encryption.clone(),
            prefix: key("encrypted"),
            ..settings(&moto, "plain")
        });
        let name = match encryption {
            Encryption::Customer(_) => key("customer"),
            Encryption::Kms(_) => key("kms"),
            Encryption::S3 | Encryption::Bucket => key("s3"),
        };
        let mut large = store.create(&name).expect("create");
        large.write_all(&vec![7; 17 << 20]).expect("written");
        assert_eq!(large.publish().expect("published"), Put::Created);
        assert_eq!(store.get_range(&name, 1..3).expect("range"), [7, 7]);
        assert_eq!(store.size(&name).expect("size"), Some(17 << 20));
    }
}

/// Promise: a server whose certificate comes from an authority of one's own is trusted if the setting says so, and refused
/// otherwise. Over TLS the content is not signed again, and arrives whole all the same.
#[test]
fn own_authority() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=authority -days 2 &&
        openssl req -newkey rsa:2048 -nodes -keyout key.pem -out request.pem -subj /CN=127.0.0.1 \
            -addext subjectAltName=IP:127.0.0.1 &&
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -copy_extensions copy -out certificate.pem -days 2";
    let made = Command::new("sh").args(["-c", script]).current_dir(directory.path()).output().expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let path = |name: &str| directory.path().join(name).display().to_string();
    let moto = Moto::start_with(&["-c", &path("certificate.pem"), "-k", &path("key.pem")]);
    let mut settings = settings(&moto, "plain");
    settings.endpoint = Some(format!("https://127.0.0.1:{}", moto.port));
    settings.attempts = 1;
    let error = S3::new(settings.clone()).size(&key("a")).expect_err("not trusted");
    assert_eq!(error.kind, StorageErrorKind::Unreachable);
    assert!(error.reason.to_lowercase().contains("certificate"), "{error}");

    settings.ca_file = Some(directory.path().join("ca.pem"));
    let store = S3::new(settings);
    // The bucket is not there, and it is the server that says so.
    assert!(store.size(&key("a")).is_err_and(|error| error.kind == StorageErrorKind::NoBucket));
    let make = format!(
        "import ssl, http.client; c = http.client.HTTPSConnection('127.0.0.1', {}, context=ssl._create_unverified_context()); \
         c.request('PUT', '/plain', headers={{'Authorization': 'AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0'}}); \
         assert c.getresponse().status == 200",
        moto.port
    );
    assert!(Command::new(install::moto()).args(["-c", &make]).status().expect("python runs").success());
    assert_eq!(store.put(&key("a"), &[1; 100_000]).expect("put"), Put::Created);
    assert_eq!(store.put(&key("a"), &[2; 100_000]).expect("put"), Put::Exists);
    let mut large = store.create(&key("large")).expect("create");
    large.write_all(&vec![7; 17 << 20]).expect("written");
    assert_eq!(large.publish().expect("published"), Put::Created);
    assert!(store.get(&key("a"), 100_000).expect("get") == [1; 100_000]);
    assert_eq!(store.get_suffix(&key("large"), 2).expect("suffix").bytes, [7, 7]);
}
