//! Collection that dies, or is answered wrongly, at every step of the store.

use std::sync::Arc;

use super::tests::{BEGIN, DAY, all_keys, author, backup, forget, open, prove, put_pack, put_wal, record, rules};
use super::*;
use crate::catalog::Saying;
use crate::repository::ServerRepository;
use crate::storage::{Fault, Faulty, Key, Listed, Memory, NewObject, Storage, StorageError, StorageErrorKind, Suffix};

/// Days after the beginning on which a collection runs.
const RUNS: [i64; 4] = [6, 8, 10, 12];

/// A store with all there is to collect: backups to go by rule and by hand, one that builds on another, a kept one, a leftover.
fn world() -> (Memory, ServerRepository, BackupId) {
    let storage = Memory::default();
    let server = open(Arc::new(storage.clone()));
    put_wal(&server, 1..=45);
    let (a, place) = backup(&server, BEGIN, 5, &[]);
    let (b, _) = backup(&server, BEGIN + DAY, 15, &[]);
    let (kept, _) = backup(&server, BEGIN + 2 * DAY, 20, &[]);
    backup(&server, BEGIN + 3 * DAY, 25, &[(a, place)]);
    backup(&server, BEGIN + 4 * DAY, 35, &[]);
    put_pack(&server, super::tests::id(BEGIN, 77)).expect("a leftover");
    forget(&server, b, BEGIN + 5 * DAY);
    let notes = server.backup_notes(kept).expect("notes");
    server.add_note(kept, &notes, &author(BEGIN + 5 * DAY), Saying::Kept { until: None }).expect("kept");
    (storage, server, kept)
}

/// One run as a process of its own does it.
fn run(storage: Arc<dyn Storage>, day: i64) -> Result<Collected, crate::repository::RepositoryError> {
    let repository = crate::repository::Repository::open(storage)?;
    let server = repository.cluster(&"main".parse().expect("a name")).server(SystemIdentifier(7));
    let rules = rules(BEGIN + day * DAY, Some(2));
    let plan = server.plan_collection(&record(), &rules)?;
    server.collect(&plan, &|| rules.now, &|| true, &mut |_| {})
}

/// Keys without what chance or time puts into them.
fn settled(storage: &dyn Storage) -> Vec<String> {
    let plain = |key: String| {
        if key.contains("/expired/") || key.contains("/doomed/") || key.contains("/notes/") {
            key.rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned())
        } else {
            key
        }
    };
    let mut keys: Vec<_> = all_keys(storage).into_iter().map(plain).collect();
    keys.dedup();
    keys
}

/// Promise: whatever step a collection dies at, nothing that is kept is hurt, no half-removed backup looks complete, and the runs
/// after it end where they would have ended without.
#[test]
fn dies_at_every_step() {
    let (storage, _, kept) = world();
    for day in RUNS {
        run(Arc::new(storage.clone()), day).expect("no fault");
    }
    let expected = settled(&storage);
    for fault in [Fault::Die, Fault::LoseAnswer, Fault::Refuse(StorageErrorKind::Unreachable)] {
        for hit in 0..RUNS.len() {
            let mut step = 0;
            loop {
                let (storage, server, _) = world();
                for day in &RUNS[..hit] {
                    run(Arc::new(storage.clone()), *day).expect("no fault");
                }
                let faulty = Faulty::new(Arc::new(storage.clone()), step, fault);
                let broken = run(Arc::new(faulty.clone()), RUNS[hit]);
                let through = faulty.steps() <= step;
                assert!(prove(&server).contains(&kept));
                for known in server.known_backups().expect("listed") {
                    super::tests::read_through(&server, known.info.id).expect("what looks complete is");
                }
                let after = RUNS[hit..].iter().skip(usize::from(broken.is_ok()));
                for day in after.chain(&[13, 16, 20]) {
                    run(Arc::new(storage.clone()), *day).expect("no fault any more");
                }
                assert_eq!(settled(&storage), expected, "{fault:?} at step {step} of run {hit}");
                if through {
                    assert!(broken.is_ok());
                    break;
                }
                step += 1;
            }
            assert!(step > 20, "{step} steps are too few");
        }
    }
}

/// Promise: a store that refuses to delete loses nothing, tells it, and keeps the marks; with the right, the next run finishes.
#[test]
fn refused_deletions() {
    let (storage, server, _) = world();
    run(Arc::new(storage.clone()), RUNS[0]).expect("no fault");
    let before = prove(&server);
    let marks = server.doomed().expect("read").marks.len();
    let done = run(Arc::new(NoDelete(storage.clone())), RUNS[2]).expect("goes on");
    assert!(done.refused > 3 && done.refusal.is_some() && done.removed.is_empty(), "{done:?}");
    assert_eq!(prove(&server), before);
    assert!(server.doomed().expect("read").marks.len() >= marks);
    let done = run(Arc::new(storage), RUNS[2]).expect("goes on");
    assert!(done.refused == 0 && done.removed.len() > 3, "{done:?}");
}

/// A store whose credentials do not allow to delete.
#[derive(Debug)]
struct NoDelete(Memory);

impl Storage for NoDelete {
    fn describe(&self) -> String {
        self.0.describe()
    }
    fn create(&self, key: &Key) -> Result<Box<dyn NewObject>, StorageError> {
        self.0.create(key)
    }
    fn get(&self, key: &Key, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        self.0.get(key, limit_bytes)
    }
    fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Vec<u8>, StorageError> {
        self.0.get_range(key, range)
    }
    fn get_suffix(&self, key: &Key, bytes: u64) -> Result<Suffix, StorageError> {
        self.0.get_suffix(key, bytes)
    }
    fn open(&self, key: &Key) -> Result<Box<dyn std::io::Read + Send>, StorageError> {
        self.0.open(key)
    }
    fn size(&self, key: &Key) -> Result<Option<u64>, StorageError> {
        self.0.size(key)
    }
    fn list(&self, folder: &Key) -> Result<Vec<Listed>, StorageError> {
        self.0.list(folder)
    }
    fn settle(&self, key: &Key) -> Result<(), StorageError> {
        self.0.settle(key)
    }
    fn delete(&self, key: &Key) -> Result<(), StorageError> {
        let mut failed = self.failed("delete", key, &std::io::ErrorKind::PermissionDenied.into());
        failed.kind = StorageErrorKind::Denied;
        Err(failed)
    }
}

/// Asked to stop, a collection stops, and the next one finishes.
#[test]
fn interrupted() {
    let (storage, server, _) = world();
    run(Arc::new(storage.clone()), RUNS[0]).expect("no fault");
    let plan = server.plan_collection(&record(), &rules(BEGIN + RUNS[2] * DAY, Some(2))).expect("planned");
    let left = std::cell::Cell::new(4);
    let go_on = || {
        left.set(left.get() - 1);
        left.get() > 0
    };
    let done = server.collect(&plan, &|| PgTime(BEGIN + RUNS[2] * DAY), &go_on, &mut |_| {}).expect("stops in order");
    assert!(done.interrupted && !server.doomed().expect("read").marks.is_empty());
    let done = run(Arc::new(storage), RUNS[2]).expect("finishes");
    assert!(!done.interrupted && !done.removed.is_empty());
}
