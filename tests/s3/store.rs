//! What every store must do, and what only a bucket does: parts, pages, conditions, counting.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use pitr::storage::{Put, S3, Storage, StorageErrorKind, conformance};

use super::s3_server::Fault;
use super::{S3Server, key, settings, store};

/// Promise: a bucket keeps all promises of a directory. The server checks the signature and the checksum of each object.
#[test]
fn conforms() {
    let server = S3Server::start();
    conformance::run(&store(&server));
    assert!(server.objects.names().iter().all(|name| name.starts_with("folder/")), "only below its folder");
}

/// Promise: without conditional writes it still refuses what is there already, and says what it cannot promise. Of writers
/// at the same moment it cannot refuse one, so the race of the suite is not for it.
#[test]
fn a_server_that_ignores_conditions() {
    let server = S3Server::start();
    assert!(store(&server).probe_conditional_writes().expect("a probe"));
    server.objects.ignore_conditions();
    let strict = store(&server);
    assert!(!strict.probe_conditional_writes().expect("a probe"));
    assert_eq!(strict.list(&key("probes")).expect("listed"), [], "the probe is removed");
    assert_eq!(strict.weakness(), None);
    // What would happen without the probe.
    strict.put(&key("a"), b"first").expect("put");
    assert_eq!(strict.put(&key("a"), b"second").expect("put"), Put::Created);

    let careful = S3::new(pitr::storage::S3Settings { conditional_writes: false, ..settings(&server) });
    assert!(careful.weakness().is_some());
    assert_eq!(careful.put(&key("a"), b"third").expect("put"), Put::Exists);
    assert_eq!(careful.get(&key("a"), 10).expect("get"), b"second");
    server.faults.take_seen();
    assert_eq!(careful.put(&key("b"), b"new").expect("put"), Put::Created);
    assert_eq!(server.faults.take_kinds(), ["GET", "PUT"], "one look more, no listing");
    let mut large = careful.create(&key("a")).expect("create");
    large.write_all(&vec![1; 18 << 20]).expect("written");
    assert_eq!(large.publish().expect("published"), Put::Exists);
    assert_eq!(server.objects.unfinished_uploads(), 0);
}

/// Promise: many objects are deleted in one request, what is refused is told by name and keeps nothing else from going, and a server that does
/// not know such requests is asked one by one.
#[test]
fn many_deletions() {
    let server = S3Server::start();
    let store = store(&server);
    let keys: Vec<_> = (0..1234).map(|n| key(&format!("many/{n}"))).collect();
    let fill = || keys.iter().for_each(|key| server.objects.insert(&format!("folder/{key}"), "x"));
    fill();
    assert!(store.delete_all(&keys).is_empty());
    assert_eq!(server.faults.take_kinds(), ["POST delete", "POST delete"]);
    assert_eq!((server.objects.count(), store.counts().delete), (0, 2));

    fill();
    server.objects.lock("folder/many/7");
    server.objects.lock("folder/many/1200");
    let refused = store.delete_all(&keys);
    let told: Vec<_> = refused.iter().map(|error| (error.key.as_str(), error.kind)).collect();
    assert_eq!(told, [("many/7", StorageErrorKind::Denied), ("many/1200", StorageErrorKind::Denied)]);
    assert!(refused[0].to_string().contains("it is locked (AccessDenied); it takes the right s3:DeleteObject"));
    assert_eq!(server.objects.count(), 2);

    // Whoever may not delete many may delete one; that may change, so it is tried again.
    server.faults.add("POST delete", "", 1, Fault::Refuse(403, "AccessDenied"));
    server.faults.take_seen();
    assert_eq!(store.delete_all(&keys[6..9]).len(), 1);
    assert_eq!(store.delete_all(&keys[6..9]).len(), 1);
    assert_eq!(server.faults.take_kinds(), ["POST delete", "DELETE", "DELETE", "DELETE", "POST delete"]);
    server.faults.add("POST delete", "", 9, Fault::Refuse(501, "NotImplemented"));
    assert!(store.delete_all(&keys[..3]).is_empty());
    assert!(store.delete_all(&keys[..2]).is_empty());
    let kinds = server.faults.take_kinds();
    assert_eq!(kinds.iter().filter(|kind| *kind == "DELETE").count(), 5);
    assert!(!kinds[kinds.len() - 2..].iter().any(|kind| kind.starts_with("POST")), "it is known now: {kinds:?}");

    // A server that does not answer is no refusal.
    let other = S3::new(pitr::storage::S3Settings { attempts: 1, ..settings(&server) });
    server.faults.clear();
    server.faults.add("POST delete", "", 1, Fault::Refuse(503, "SlowDown"));
    let errors = other.delete_all(&keys[..3]);
    assert!(errors.len() == 3 && errors.iter().all(|error| error.kind == StorageErrorKind::Throttled), "{errors:?}");
}

/// Promise: small objects take one request, and each request is counted.
#[test]
fn one_request_an_object() {
    let server = S3Server::start();
    let store = store(&server);
    store.put(&key("a"), &[7; 1000]).expect("put");
    assert_eq!(store.get(&key("a"), 1000).expect("get").len(), 1000);
    assert_eq!(store.get_suffix(&key("a"), 10).expect("suffix").size, 1000);
    assert_eq!(store.get_range(&key("a"), 5..7).expect("range").len(), 2);
    assert_eq!(store.size(&key("a")).expect("size"), Some(1000));
    assert_eq!(store.size(&key("b")).expect("size"), None);
    assert_eq!(server.faults.take_kinds(), ["PUT", "GET", "GET", "GET", "HEAD", "HEAD", "GET"]);
    let counts = store.counts();
    assert_eq!((counts.put, counts.get, counts.head, counts.requests()), (1, 4, 2, 7));
    assert_eq!((counts.sent_bytes, counts.received_bytes, counts.repeated), (1000, 1012, 0));
}

/// Promise: with a limit, a transfer takes at least the time that it must, by all threads together, and not much more.
#[test]
fn bandwidth_limits() {
    const LIMIT: u64 = 4 << 20;
    let server = S3Server::start();
    let limited = || {
        S3::new(pitr::storage::S3Settings {
            upload_limit: Some(LIMIT),
            download_limit: Some(LIMIT),
            ..settings(&server)
        })
    };
    let took = |work: &(dyn Fn(&S3, usize) + Sync)| {
        let (store, begun) = (limited(), Instant::now());
        std::thread::scope(|scope| {
            (0..4).for_each(|number| {
                drop(scope.spawn({
                    let store = &store;
                    move || work(store, number)
                }))
            })
        });
        begun.elapsed()
    };
    let must = Duration::from_secs(1)..Duration::from_secs(5);
    let name = |number: usize| key(&format!("object-{number}"));
    let sent =
        took(&|store, number| assert_eq!(store.put(&name(number), &vec![7; 1 << 20]).expect("put"), Put::Created));
    assert!(must.contains(&sent), "{sent:?}");
    let received = took(&|store, number| assert_eq!(store.get(&name(number), 1 << 20).expect("get").len(), 1 << 20));
    assert!(must.contains(&received), "{received:?}");
    let begun = Instant::now();
    let store = limited();
    let mut large = store.create(&key("large")).expect("create");
    large.write_all(&vec![1; 18 << 20]).expect("written");
    large.publish().expect("published");
    assert!(begun.elapsed() >= Duration::from_millis(4500), "parts are limited too: {:?}", begun.elapsed());
    let begun = Instant::now();
    store.size(&key("large")).expect("size");
    assert!(begun.elapsed() < Duration::from_secs(1), "what has no content waits for nothing");
}

/// Promise: a store that is only opened asks nothing and starts nothing.
#[test]
fn lazy() {
    let before = threads();
    let mut settings = pitr::storage::S3Settings::new("nowhere", key("x"));
    settings.ca_file = Some("/nonexistent".into());
    settings.endpoint = Some("https://192.0.2.1".to_owned());
    let store = S3::new(settings);
    assert!(store.describe().contains("s3://nowhere/x"));
    assert!(threads() <= before + 8, "other tests run beside this one");
    let error = store.get(&key("a"), 1).expect_err("no certificates");
    assert!(error.kind == StorageErrorKind::Unreachable && error.reason.contains("/nonexistent"), "{error}");
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").expect("this process").count()
}

/// Promise: large objects go in parts, whole and once; a name that was taken meanwhile is not touched.
#[test]
fn parts() {
    let server = S3Server::start();
    let store = store(&server);
    let bytes: Vec<u8> = (0..(35_u32 << 20) / 4).flat_map(u32::to_le_bytes).collect();
    let mut object = store.create(&key("large")).expect("create");
    object.write_all(&bytes).expect("written");
    assert_eq!(store.size(&key("large")).expect("size"), None);
    assert_eq!(object.publish().expect("published"), Put::Created);
    let kinds = server.faults.take_kinds();
    let count = |kind: &str| kinds.iter().filter(|seen| *seen == kind).count();
    assert_eq!((count("POST uploads"), count("PUT uploadId"), count("POST uploadId")), (1, 3, 1), "{kinds:?}");
    let mut read = Vec::new();
    store.open(&key("large")).expect("open").read_to_end(&mut read).expect("read");
    assert!(read == bytes);

    let mut second = store.create(&key("large")).expect("create");
    second.write_all(&vec![0; 20 << 20]).expect("written");
    assert_eq!(second.publish().expect("published"), Put::Exists);
    assert_eq!(store.get_range(&key("large"), 4..8).expect("range"), 1_u32.to_le_bytes());
    assert_eq!(server.objects.unfinished_uploads(), 0, "what was refused is given up");
}

/// Promise: an upload that is dropped leaves nothing; one whose writer was killed is swept, and a younger one is not.
#[test]
fn dropped_and_swept() {
    let server = S3Server::start();
    let store = store(&server);
    let begin = |name: &str| {
        let mut object = store.create(&key(name)).expect("create");
        object.write_all(&vec![0; 18 << 20]).expect("written");
        object
    };
    drop(begin("dropped"));
    assert_eq!(server.objects.unfinished_uploads(), 0);
    std::mem::forget(begin("killed"));
    assert_eq!(store.sweep(Duration::from_secs(3600)).expect("swept"), 0, "it may still be at work");
    server.objects.age_uploads(Duration::from_secs(7200));
    let young = begin("young");
    assert_eq!(store.sweep(Duration::from_secs(3600)).expect("swept"), 1);
    assert_eq!(young.publish().expect("published"), Put::Created);
    assert_eq!(server.objects.unfinished_uploads(), 0);
}

/// Promise: a listing is complete however many pages it takes, and shows nothing that is not ours.
#[test]
fn pages() {
    let server = S3Server::start();
    let store = store(&server);
    for number in 0..25 {
        server.objects.insert(&format!("folder/many/{number:03}"), "x");
        server.objects.insert(&format!("folder/many/f{number:03}/deep"), "x");
    }
    server.objects.insert("folder/many/", "");
    server.objects.insert("folder/many/not ours", "");
    server.objects.set_page(7);
    server.faults.take_seen();
    let found = store.list(&key("many")).expect("listed");
    assert_eq!(found.iter().filter(|one| one.folder).count(), 25);
    assert_eq!(found.iter().filter(|one| !one.folder).count(), 25);
    assert!(found.is_sorted_by(|one, other| one.name < other.name));
    assert_eq!(server.faults.take_kinds().len(), 8);
}

/// Promise: an object without bytes is an object.
#[test]
fn empty_objects() {
    let server = S3Server::start();
    let store = store(&server);
    store.put(&key("empty"), b"").expect("put");
    assert_eq!(store.get(&key("empty"), 0).expect("get"), b"");
    let suffix = store.get_suffix(&key("empty"), 5).expect("suffix");
    assert_eq!((suffix.bytes.len(), suffix.size), (0, 0));
    assert_eq!(store.get_range(&key("empty"), 0..0).expect("range"), b"");
    assert_eq!(store.size(&key("empty")).expect("size"), Some(0));
    assert_eq!(store.list(&pitr::storage::Key::root()).expect("listed").len(), 1);
}

/// Promise: threads do not wait for each other's requests.
#[test]
fn in_parallel() {
    let server = S3Server::start();
    let store = store(&server);
    store.put(&key("warm"), b"x").expect("put");
    server.faults.set_latency(Duration::from_millis(300));
    let started = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let store = &store;
            scope.spawn(move || store.put(&key(&format!("p/{number}")), b"x").expect("put"));
        }
    });
    let took = started.elapsed();
    assert!(took < Duration::from_millis(1500), "eight requests of 0.3 s each took {took:?}");
}
