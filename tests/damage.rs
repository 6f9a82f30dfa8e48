//! A table of damage: each row mutilates a repository in one way, and says which command must notice and in which words.
//!
//! Nothing damaged may ever come out as if it were good: not as a file of a restored cluster, and not as WAL.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use harness::{Options, Run, Site};

/// What is asked of the damaged repository.
enum Ask {
    /// A restore to the end of the archive.
    Restore,
    /// The plan of it only.
    Plan,
    /// The last segment, as a recovery would.
    Fetch,
}

struct Row {
    name: &'static str,
    damage: fn(&Found),
    ask: Ask,
    status: i32,
    says: &'static str,
}

/// Where the objects of one copy of the repository are.
struct Found {
    manifest: PathBuf,
    info: PathBuf,
    pack: PathBuf,
    /// All segments from the backup's start on, in order.
    segments: Vec<PathBuf>,
    record: PathBuf,
    marker: PathBuf,
}

const ROWS: &[Row] = &[
    Row {
        name: "flipped bit in a segment",
        damage: |found| flip(last(&found.segments), 5000),
        ask: Ask::Fetch,
        status: 201,
        says: "is not to be used",
    },
    Row {
        name: "segment cut short",
        damage: |found| cut(last(&found.segments), 3000),
        ask: Ask::Fetch,
        status: 201,
        says: "is not to be used",
    },
    Row {
        name: "empty segment",
        damage: |found| cut(last(&found.segments), 0),
        ask: Ask::Fetch,
        status: 201,
        says: "is not to be used",
    },
    Row {
        name: "segment under another's name",
        damage: |found| exchange(&found.segments[found.segments.len() - 2], last(&found.segments)),
        ask: Ask::Fetch,
        status: 201,
        says: "is not to be used",
    },
    Row {
        name: "description of a segment damaged",
        damage: |found| flip_from_end(last(&found.segments), 100),
        ask: Ask::Fetch,
        status: 201,
        says: "is not to be used",
    },
    Row {
        name: "missing segment",
        damage: |found| remove(&found.segments[found.segments.len() - 2]),
        ask: Ask::Plan,
        status: 19,
        says: "is missing between base backup",
    },
    Row {
        name: "flipped bit in a pack",
        damage: |found| flip(&found.pack, 10_000),
        ask: Ask::Restore,
        status: 11,
        says: "damaged",
    },
    Row {
        name: "pack cut short",
        damage: |found| cut(&found.pack, 100_000),
        ask: Ask::Restore,
        status: 11,
        says: "pack",
    },
    Row { name: "missing pack", damage: |found| remove(&found.pack), ask: Ask::Restore, status: 11, says: "pack" },
    Row {
        name: "flipped bit in a manifest",
        damage: |found| flip(&found.manifest, 2000),
        ask: Ask::Restore,
        status: 11,
        says: "manifest",
    },
    Row {
        name: "manifest cut short",
        damage: |found| cut(&found.manifest, 2000),
        ask: Ask::Restore,
        status: 11,
        says: "manifest",
    },
    Row {
        name: "manifest with a line less",
        damage: |found| edit_manifest(&found.manifest),
        ask: Ask::Restore,
        status: 11,
        says: "manifest",
    },
    Row {
        name: "missing manifest",
        damage: |found| remove(&found.manifest),
        ask: Ask::Plan,
        status: 19,
        says: "no base backup",
    },
    Row {
        name: "info that is not JSON",
        damage: |found| flip(&found.info, 0),
        ask: Ask::Plan,
        status: 11,
        says: "info",
    },
    Row {
        name: "record of the server that is not JSON",
        damage: |found| flip(&found.record, 0),
        ask: Ask::Plan,
        status: 11,
        says: "server.json",
    },
    Row {
        name: "missing marker: a mount point without its mount",
        damage: |found| remove(&found.marker),
        ask: Ask::Fetch,
        status: 206,
        says: "pitr.json",
    },
    Row {
        name: "a repository of a newer format",
        damage: |found| {
            let text = fs::read_to_string(&found.marker).expect("the marker is there");
            fs::write(&found.marker, text.replace("\"format\": 1", "\"format\": 2")).expect("written");
        },
        ask: Ask::Plan,
        status: 6,
        says: "format 2",
    },
];

/// Each damage is noticed by whoever meets it, in words that name it, and nothing damaged is delivered.
#[test]
fn table() {
    let site = Site::with(&harness::newest(), Options::default().segment_size_mib(1), "");
    site.backup();
    for number in 0..3 {
        site.server.run(&format!("CREATE TABLE t{number} AS SELECT g, md5(g::text) FROM generate_series(1, 20000) g"));
        site.server.archive_all();
    }
    let mut wrong = Vec::new();
    for row in ROWS {
        let copy = site.dir.join("damaged");
        harness::as_test_user("cp").arg("-a").arg(site.repository()).arg(&copy).run().ok();
        let found = find(&copy);
        (row.damage)(&found);
        if let Err(what) = check(&site, row, &copy, &found) {
            wrong.push(format!("{}: {what}", row.name));
        }
        fs::remove_dir_all(&copy).expect("the copy can be removed");
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n\n"));
}

fn check(site: &Site, row: &Row, repository: &Path, found: &Found) -> Result<(), String> {
    let target = site.dir.join("target");
    let mut command = match row.ask {
        Ask::Restore => site.pitr(&["restore", "--to", "latest", "--yes", "--target"]),
        Ask::Plan => site.pitr(&["restore", "--to", "latest", "--dry-run", "--target"]),
        Ask::Fetch => {
            let name = last(&found.segments).file_name().expect("an object has a name").to_owned();
            let mut command = site.dir.pitr("pitr-wal-fetch");
            command.arg("--config").arg(site.config()).args(["--cluster", "main"]).arg(name);
            command
        }
    };
    let finished = command.arg(&target).env("PITR_REPOSITORY", repository).run_within(Duration::from_secs(60));
    let startable = target.join("global/pg_control").exists() || target.is_file();
    let _ = fs::remove_dir_all(&target);
    let _ = fs::remove_file(&target);
    let (code, said) = (finished.code(), finished.stderr);
    if code != row.status || !said.contains(row.says) || startable {
        return Err(format!("ended with {code}, not {}; startable: {startable}; said\n{said}", row.status));
    }
    let parts = ["ERROR:  ", "DETAIL:  ", "HINT:  "];
    if parts.iter().any(|part| !said.contains(part)) {
        return Err(format!("the message lacks a part:\n{said}"));
    }
    Ok(())
}

fn find(repository: &Path) -> Found {
    let mut all = Vec::new();
    collect(repository, &mut all);
    all.sort();
    let one = |wanted: &str| all.iter().find(|path| path.ends_with(wanted)).expect(wanted).clone();
    let folder = |path: &Path| path.parent().and_then(Path::file_name).unwrap_or_default().to_owned();
    let mut segments: Vec<PathBuf> = all.iter().filter(|path| folder(path).len() == 14).cloned().collect();
    segments.retain(|path| path.extension().is_none());
    let pack = all.iter().find(|path| folder(path) == "packs").expect("a pack").clone();
    Found {
        manifest: one("manifest"),
        info: one("info"),
        pack,
        segments,
        record: one("server.json"),
        marker: one("pitr.json"),
    }
}

fn collect(directory: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the repository can be read") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { collect(&path, all) } else { all.push(path) }
    }
}

fn last(segments: &[PathBuf]) -> &Path {
    segments.last().expect("segments were archived")
}

fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("the object is there");
    change(&mut bytes);
    fs::write(path, bytes).expect("the object can be damaged");
}

fn flip(path: &Path, at: usize) {
    rewrite(path, |bytes| bytes[at] ^= 0x41);
}

fn flip_from_end(path: &Path, at: usize) {
    rewrite(path, |bytes| {
        let at = bytes.len() - at;
        bytes[at] ^= 0x41;
    });
}

fn cut(path: &Path, length: usize) {
    rewrite(path, |bytes| bytes.truncate(length));
}

fn exchange(from: &Path, to: &Path) {
    fs::copy(from, to).expect("the object can be overwritten by another");
}

fn remove(path: &Path) {
    fs::remove_file(path).expect("the object can be removed");
}

/// A manifest that unpacks well and lacks one file.
fn edit_manifest(path: &Path) {
    let text = harness::as_test_user("lz4").arg("-dcq").arg(path).run().ok().stdout;
    let without = text.lines().filter(|line| !line.contains("PG_VERSION")).collect::<Vec<_>>().join("\n") + "\n";
    let mut frame = Vec::new();
    pitr::codec::Compression::Lz4.write_frame(without.as_bytes(), &mut frame).expect("memory can be written");
    fs::write(path, frame).expect("the manifest can be edited");
}
