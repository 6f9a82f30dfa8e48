//! What a bad network and an unwilling server do to the store, and what it makes of that.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use pitr::storage::{Put, S3, S3Settings, Storage, StorageErrorKind};

use super::s3_server::Fault;
use super::{S3Server, key, settings, store};

/// Promise: an object whose answer was lost was stored once, and its writer is told so.
#[test]
fn lost_answers() {
    let server = S3Server::start();
    let store = store(&server);
    server.faults.add("PUT", "small", 1, Fault::LoseAnswer);
    assert_eq!(store.put(&key("small"), b"mine").expect("put"), Put::Created, "it was this one that came first");
    assert!(store.counts().repeated >= 1);

    server.faults.add("POST uploadId", "large", 1, Fault::LoseAnswer);
    let mut object = store.create(&key("large")).expect("create");
    object.write_all(&vec![3; 17 << 20]).expect("written");
    assert_eq!(object.publish().expect("published"), Put::Created);
    assert_eq!(store.size(&key("large")).expect("size"), Some(17 << 20));
    assert_eq!(server.objects.unfinished_uploads(), 0);

    // Somebody else's object stays somebody else's, also after a lost answer.
    server.objects.insert("folder/theirs", "theirs");
    server.faults.add("PUT", "theirs", 1, Fault::Reset);
    assert_eq!(store.put(&key("theirs"), b"mine").expect("put"), Put::Exists);
}

/// Promise: what passes is tried again: broken connections, throttling, and a conflict with a request under way.
#[test]
fn passing_faults() {
    let server = S3Server::start();
    let store = store(&server);
    let faults = [
        Fault::Reset,
        Fault::Refuse(503, "SlowDown"),
        Fault::Refuse(500, "InternalError"),
        Fault::Refuse(409, "ConditionalRequestConflict"),
        Fault::Bare(502),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        let name = format!("passing-{number}");
        server.faults.add("PUT", &name, 2, fault.clone());
        assert_eq!(store.put(&key(&name), b"x").expect("put"), Put::Created, "{fault:?}");
    }
    assert_eq!(store.list(&pitr::storage::Key::root()).expect("listed").len(), 5);
}

/// Promise: a stream goes on where its connection broke, without losing or repeating a byte.
#[test]
fn broken_streams() {
    let server = S3Server::start();
    let store = store(&server);
    let bytes: Vec<u8> = (0..250_000_u32).flat_map(u32::to_le_bytes).collect();
    server.objects.insert("folder/a", bytes.clone());
    server.faults.add("GET", "/a", 1, Fault::Truncate(300_001));
    server.faults.add("GET", "/a", 1, Fault::Truncate(77));
    let mut read = Vec::new();
    store.open(&key("a")).expect("open").read_to_end(&mut read).expect("read");
    assert!(read == bytes);
    let kinds = server.faults.take_kinds();
    assert_eq!(kinds, ["GET", "GET", "GET"]);

    server.faults.add("GET", "/a", 1, Fault::Truncate(10));
    assert!(store.get_range(&key("a"), 5..1005).expect("range") == bytes[5..1005]);
}

/// Promise: an object that was replaced while it was read is an error, never a mixture.
#[test]
fn replaced_while_read() {
    let server = S3Server::start();
    let store = store(&server);
    server.objects.insert("folder/a", vec![1; 1 << 20]);
    server.faults.add("GET", "/a", 1, Fault::Truncate(200_000));
    let mut stream = store.open(&key("a")).expect("open");
    let mut first = [0; 100];
    stream.read_exact(&mut first).expect("read");
    server.objects.insert("folder/a", vec![2; 1 << 20]);
    let read = stream.read_to_end(&mut Vec::new());
    let error = read.expect_err(&format!("another object: {:?}", server.faults.take_seen()));
    assert!(error.to_string().contains("replaced"), "{error}");
}

/// Promise: absence is believed only when it is certain. A missing bucket, a proxy's 404 and a refusal are never "not there",
/// whichever way is asked.
#[test]
fn absence() {
    let server = S3Server::start();
    let store = store(&server);
    let absent = key("absent");
    assert!(store.get(&absent, 1).is_err_and(|error| error.is_not_found()));
    assert_eq!(store.size(&absent).expect("size"), None);
    assert!(store.settle(&absent).is_err_and(|error| error.is_not_found()));

    for kind in ["GET", "HEAD"] {
        server.faults.add(kind, "absent", 20, Fault::Bare(404));
    }
    assert!(store.get(&absent, 1).is_err_and(|error| error.kind == StorageErrorKind::Unreachable));
    assert!(store.size(&absent).is_err_and(|error| error.kind == StorageErrorKind::Unreachable));
    server.faults.clear();

    server.objects.rename_bucket("another");
    let expect = |kind: StorageErrorKind| assert_eq!(kind, StorageErrorKind::NoBucket);
    expect(store.get(&absent, 1).expect_err("no bucket").kind);
    expect(store.get_range(&absent, 0..1).expect_err("no bucket").kind);
    expect(store.get_suffix(&absent, 1).expect_err("no bucket").kind);
    expect(store.size(&absent).expect_err("no bucket").kind);
    expect(store.settle(&absent).expect_err("no bucket").kind);
    expect(store.list(&absent).expect_err("no bucket").kind);
    expect(store.put(&absent, b"x").expect_err("no bucket").kind);
    expect(store.delete(&absent).expect_err("no bucket").kind);
    assert!(store.open(&absent).is_err_and(|error| error.kind == StorageErrorKind::NoBucket));
}

/// Promise: a refusal says what is wrong, as a kind that has its own advice.
#[test]
fn kinds() {
    let server = S3Server::start();
    let store = S3::new(S3Settings { attempts: 1, ..settings(&server) });
    let rows = [
        (403, "AccessDenied", StorageErrorKind::Denied),
        (403, "RequestTimeTooSkewed", StorageErrorKind::ClockSkew),
        (400, "ExpiredToken", StorageErrorKind::Credentials),
        (403, "InvalidAccessKeyId", StorageErrorKind::Credentials),
        (503, "SlowDown", StorageErrorKind::Throttled),
        (301, "PermanentRedirect", StorageErrorKind::WrongRegion),
        (400, "AuthorizationHeaderMalformed", StorageErrorKind::WrongRegion),
        (403, "InvalidObjectState", StorageErrorKind::Frozen),
        (500, "InternalError", StorageErrorKind::Unreachable),
    ];
    for (status, code, kind) in rows {
        server.faults.add("GET", "x", 1, Fault::Refuse(status, code));
        let error = store.get(&key("x"), 1).expect_err(code);
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.reason.contains(code), "{error}");
    }
}

/// Promise: a wrong secret is found out by the server, and named as what it is.
#[test]
fn wrong_secret() {
    let server = S3Server::start();
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "[default]\naws_access_key_id = AKIAPITRTEST\naws_secret_access_key = wrong\n")
        .expect("written");
    let mut settings = settings(&server);
    settings.credentials_file = Some(file.path().to_owned());
    let error = S3::new(settings.clone()).get(&key("x"), 1).expect_err("refused");
    assert_eq!(error.kind, StorageErrorKind::Credentials, "{error}");
    assert!(!error.to_string().contains("wrong"), "a secret in a message: {error}");

    std::fs::write(file.path(), "").expect("written");
    let error = S3::new(settings).get(&key("x"), 1).expect_err("no credentials");
    assert_eq!(error.kind, StorageErrorKind::Credentials, "{error}");
}

/// Promise: silence ends: one try by its own limit, all of them by the call's.
#[test]
fn silence() {
    let server = S3Server::start();
    let settings = S3Settings {
        attempt_timeout: Duration::from_millis(500),
        call_timeout: Duration::from_secs(3),
        attempts: 64,
        ..settings(&server)
    };
    let store = S3::new(settings);
    server.faults.add("PUT", "quiet", 1, Fault::Silence);
    assert_eq!(store.put(&key("quiet"), b"x").expect("the second try"), Put::Created);
    server.faults.add("GET", "quiet", u32::MAX, Fault::Silence);
    let started = Instant::now();
    let error = store.get(&key("quiet"), 1).expect_err("silence");
    assert_eq!(error.kind, StorageErrorKind::Unreachable, "{error}");
    assert!(started.elapsed() < Duration::from_secs(6), "{:?}", started.elapsed());
}

/// Promise: nobody there is an error of its own, soon enough.
#[test]
fn nobody_there() {
    let server = S3Server::start();
    let settings = S3Settings { attempts: 2, endpoint: Some("http://127.0.0.1:9".to_owned()), ..settings(&server) };
    let error = S3::new(settings).get(&key("x"), 1).expect_err("nobody");
    assert_eq!(error.kind, StorageErrorKind::Unreachable, "{error}");
    assert!(error.reason.to_lowercase().contains("refused"), "{error}");
}
