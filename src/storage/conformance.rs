//! What every store must do, as one suite that each store's tests run.

use std::io::{Read, Write};

use super::{Key, Put, Storage, StorageErrorKind};

/// Runs the suite against an empty store.
///
/// # Panics
/// The store breaks a promise of [`Storage`].
pub fn run(storage: &dyn Storage) {
    write_once(storage);
    unpublished(storage);
    reading(storage);
    listing(storage);
    racing(storage);
}

fn key(text: &str) -> Key {
    Key::parse(text).expect("a key of the suite")
}

fn write_once(storage: &dyn Storage) {
    let name = key("once/a");
    assert_eq!(storage.put(&name, b"first").expect("put"), Put::Created);
    assert_eq!(storage.put(&name, b"second").expect("put again"), Put::Exists);
    assert_eq!(storage.get(&name, 5).expect("get"), b"first");
    storage.settle(&name).expect("settle");
    storage.delete(&name).expect("delete");
    storage.delete(&name).expect("delete what is gone");
    assert_eq!(storage.size(&name).expect("size"), None);
    let many: Vec<Key> = (0..5).map(|n| key(&format!("once/many-{n}"))).collect();
    for name in &many[1..] {
        storage.put(name, b"x").expect("put");
    }
    assert!(storage.deletes_at_once() > 0);
    assert!(storage.delete_all(&many[..4]).is_empty(), "one of them was not there");
    assert_eq!(storage.names(&key("once")).expect("list"), ["many-4"]);
    assert!(storage.delete_all(&[]).is_empty());
    storage.delete(&many[4]).expect("delete");
}

fn unpublished(storage: &dyn Storage) {
    let name = key("dropped/a");
    let mut object = storage.create(&name).expect("create");
    object.write_all(b"half").expect("write");
    assert_eq!(storage.size(&name).expect("size"), None, "seen before it was published");
    drop(object);
    assert!(storage.list(&key("dropped")).expect("list").is_empty(), "a dropped object left something");
}

fn reading(storage: &dyn Storage) {
    let name = key("read/a");
    storage.put(&name, b"0123456789").expect("put");
    assert_eq!(storage.size(&name).expect("size"), Some(10));
    assert_eq!(storage.get_range(&name, 2..5).expect("range"), b"234");
    let beyond = storage.get_range(&name, 8..11);
    assert!(beyond.is_err_and(|error| error.kind == StorageErrorKind::TooShort), "a range beyond the end");
    let suffix = storage.get_suffix(&name, 3).expect("suffix");
    assert_eq!((suffix.bytes.as_slice(), suffix.size), (b"789".as_slice(), 10));
    assert_eq!(storage.get_suffix(&name, 99).expect("suffix").bytes, b"0123456789");
    assert!(storage.get(&name, 9).is_err_and(|error| error.kind == StorageErrorKind::TooLarge));
    let mut text = String::new();
    storage.open(&name).expect("open").read_to_string(&mut text).expect("read");
    assert_eq!(text, "0123456789");
    let absent = key("read/b");
    assert!(storage.get(&absent, 9).is_err_and(|error| error.is_not_found()));
    assert!(storage.get_range(&absent, 0..1).is_err_and(|error| error.is_not_found()));
    assert!(storage.get_suffix(&absent, 1).is_err_and(|error| error.is_not_found()));
    assert!(storage.open(&absent).is_err_and(|error| error.is_not_found()));
    assert!(storage.settle(&absent).is_err());
}

fn listing(storage: &dyn Storage) {
    for name in ["list/b", "list/a", "list/c/d", "list2/x"] {
        storage.put(&key(name), b"xy").expect("put");
    }
    let found = storage.list(&key("list")).expect("list");
    let lines: Vec<_> = found.iter().map(|one| (one.name.as_str(), one.size, one.folder)).collect();
    assert_eq!(lines, [("a", 2, false), ("b", 2, false), ("c", 0, true)], "a prefix that is another's prefix");
    let mut names = storage.names(&key("list")).expect("names");
    names.sort_unstable();
    assert_eq!(names, ["a", "b"], "names of objects, not of folders");
    assert!(storage.list(&key("nowhere")).expect("list").is_empty());
    assert!(storage.names(&key("nowhere")).expect("names").is_empty());
}

fn racing(storage: &dyn Storage) {
    let name = key("race/a");
    let outcomes: Vec<Put> = std::thread::scope(|scope| {
        let put = |number: u8| storage.put(&name, &[number; 4096]).expect("put");
        let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || put(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(outcomes.iter().filter(|put| **put == Put::Created).count(), 1, "exactly one of eight wins");
    let bytes = storage.get(&name, 4096).expect("get");
    assert!(bytes.len() == 4096 && bytes.iter().all(|byte| *byte == bytes[0]), "the winner is whole");
}
