//! Memory does not grow with the backup: manifests of half a terabyte.

use std::path::Path;
use std::sync::Arc;

use pitr::catalog::{BackupId, BackupInfo};
use pitr::chunk::{ChunkContent, ChunkId, ChunkRef, EntryPath, PageSet, Place};
use pitr::manifest::{FileEntry, ManifestLine, ManifestWriter};
use pitr::repository::{Repository, ServerRepository};
use pitr::storage::Directory;
use pitr::wal::PgTime;

use super::harness::site::CLUSTER;
use super::harness::{Run, Site, as_test_user, dir, newest};
use super::{backup, json};

/// Chunks in a gibibyte.
const CHUNKS: usize = 2048;
/// Gibibytes: a million chunks.
const FILES: u32 = 489;

fn server(site: &Site) -> ServerRepository {
    let storage = Arc::new(Directory::open(&site.repository()).expect("the repository's directory"));
    let cluster = Repository::open(storage).expect("a repository").cluster(&CLUSTER.parse().expect("a name"));
    let servers = cluster.servers().expect("its servers");
    cluster.server(servers.last().expect("a server").system_identifier)
}

/// Adds a backup that has all files of another one, and half a terabyte besides; `round` tells chunks apart.
fn enlarged(server: &ServerRepository, of: BackupId, round: u8, label: &str) {
    let info = server.backup_info(of).expect("readable").expect("there");
    let id = BackupId::new(PgTime(info.start_time.0 + 1_000_000 * i64::from(round)), u32::from(round));
    let mut old = server.open_manifest(of).expect("the manifest");
    let mut header = old.header().clone();
    header.id = id;
    header.pack_sources = vec![id, of];
    let mut new = ManifestWriter::new(server.create_manifest(id).expect("begun"), header).expect("written");
    let place = |source, offset| Place { source, pack: 0, offset, length: 100 };
    for line in old.by_ref() {
        let mut line = line.expect("a good line");
        let chunks = match &mut line {
            ManifestLine::File(file) => &mut file.chunks,
            ManifestLine::Config(file) => &mut file.chunks,
            _ => &mut Vec::new(),
        };
        for chunk in chunks {
            if let ChunkContent::Stored { base, .. } = &mut chunk.content {
                base.source = 1;
            }
        }
        new.write(line).expect("written");
    }
    for number in 0..FILES {
        // Every second chunk has page sets, of which the last is this round's.
        let chunk = |at: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&(u64::from(number) << 32 | at as u64).to_le_bytes());
            hash[8] = if at % 2 == 1 { round } else { 0 };
            let offset = at as u64 * 1000;
            let sets = if at % 2 == 1 { 2 + round } else { 0 };
            let sets =
                (0..sets).map(|set| PageSet { place: place(1, offset + 100 + u64::from(set)), pages: vec![set] });
            ChunkRef {
                crc32c: None,
                raw_length: 512 << 10,
                content: ChunkContent::Stored { id: ChunkId(hash), base: place(1, offset), sets: sets.collect() },
            }
        };
        new.write(ManifestLine::File(FileEntry {
            path: EntryPath::new(format!("base/5/900000.{}", number + 1).as_bytes()).expect("a path"),
            tablespace: None,
            mode: 0o600,
            size: 1 << 30,
            modified_at: 0,
            from: 0,
            chunks: (0..CHUNKS).map(chunk).collect(),
            crc32c: None,
        }))
        .expect("written");
    }
    let (object, _) = new.finish(old.stop().expect("its end").clone()).expect("written");
    server.put_backup_info(&BackupInfo { id, label: label.to_owned(), ..info }).expect("stored");
    server.publish_manifest(id, object).expect("stored");
}

/// What this test wrote belongs to whoever runs it.
fn hand_over(folder: &Path) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        dir::chown_to_test_user(&path);
        if path.is_dir() {
            hand_over(&path);
        }
    }
}

/// Promise: half a terabyte, a million chunks, is shown and compared in far less than 256 MiB; what changed is exact.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn a_million_chunks() {
    let site = super::site(&newest());
    backup(&site, "small");
    let shown = json(&site, &["show", "latest"]);
    let of = shown["id"].as_str().expect("an id").parse().expect("an id");
    let server = server(&site);
    enlarged(&server, of, 1, "large one");
    enlarged(&server, of, 2, "large two");
    hand_over(&site.repository());
    for words in [&["show", "large one"][..], &["show", "large two", "--files"], &["diff", "large one", "large two"]] {
        let mut limited = as_test_user("prlimit");
        limited.arg(format!("--data={}", 160 << 20)).arg("--").arg(site.dir.binary("pitr"));
        limited.arg("--config").arg(site.config()).args(words).arg("--json");
        let found = limited.run_within(std::time::Duration::from_secs(600)).ok();
        let found: serde_json::Value = serde_json::from_str(&found.stdout).expect("JSON");
        if words[0] == "diff" {
            let pages = u64::from(FILES) * (CHUNKS / 2) as u64;
            assert_eq!(found["changed"]["changed_bytes"], pages * 8192);
            assert_eq!(found["changed"]["perhaps_unchanged_bytes"], 0);
        } else {
            assert!(found["total"]["size_bytes"].as_u64() > Some(u64::from(FILES) << 30), "{}", found["total"]);
        }
    }
}
