//! Several repositories of one cluster: a directory, a second directory, a bucket in the test's process; with real servers.

mod fetching;
#[path = "../harness/mod.rs"]
mod harness;
mod pushing;
#[path = "../s3_server/mod.rs"]
mod s3_server;

use std::fs;
use std::path::PathBuf;

use harness::Site;
use s3_server::{BUCKET, S3Server};

/// The table of a mirror in a directory of the test's own.
fn west(site_dir: &harness::TestDir) -> String {
    format!("[cluster.main.mirror.west]\npath = \"{}\"\n", site_dir.join("west").display())
}

/// The table of a mirror in a bucket.
fn bucket(server: &S3Server) -> String {
    format!(
        "[cluster.main.mirror.bucket]\npath = \"s3://{BUCKET}/pg\"\ns3_endpoint = \"{}\"\ns3_credentials_file = \"{}\"\n",
        server.endpoint(),
        server.credentials_file().display(),
    )
}

/// Takes a repository in a directory away, as an unmounted file system is, and gives what brings it back.
fn take_away(path: PathBuf) -> impl FnOnce() {
    let kept = path.with_extension("unmounted");
    fs::rename(&path, &kept).expect("moved");
    fs::create_dir(&path).expect("an empty mount point");
    move || {
        fs::remove_dir(&path).expect("still empty");
        fs::rename(&kept, &path).expect("moved back");
    }
}

/// The WAL objects in a directory, by name.
fn wal_in(repository: &std::path::Path) -> Vec<String> {
    fn walk(path: &std::path::Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(name) }
        }
    }
    let mut found = Vec::new();
    for cluster in fs::read_dir(repository.join("main")).into_iter().flatten().flatten() {
        walk(&cluster.path().join("wal"), &mut found);
    }
    found.sort();
    found
}

/// The stored WAL of the first repository.
fn first(site: &Site) -> Vec<String> {
    wal_in(&site.repository())
}

/// What is noted in the spool, by the names of the notes.
fn notes(site: &Site) -> Vec<String> {
    let folders = fs::read_dir(site.dir.join("spool")).into_iter().flatten().flatten();
    let notes = folders.flat_map(|folder| fs::read_dir(folder.path()).into_iter().flatten().flatten());
    notes.map(|note| note.file_name().to_string_lossy().into_owned()).collect()
}

/// A minute passes: what did not answer is asked again.
fn forget_away(site: &Site) {
    for folder in fs::read_dir(site.dir.join("spool")).into_iter().flatten().flatten() {
        for note in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            if note.file_name().to_string_lossy().starts_with("away.") {
                fs::remove_file(note.path()).expect("removed");
            }
        }
    }
}
