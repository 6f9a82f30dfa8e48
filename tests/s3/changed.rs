//! Backups of what has changed since the one before, into a bucket.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pitr::catalog::BackupId;
use pitr::chunk::ChunkContent;
use pitr::manifest::ManifestLine;
use pitr::repository::{Repository, ServerRepository};
use pitr::storage::{S3, S3Settings};

use super::harness::{Options, Run, Site, newest, site::CLUSTER};
use super::road::site_with;
use super::{S3Server, key, settings};

const LONG: Duration = Duration::from_secs(120);

fn repository(server: &S3Server) -> ServerRepository {
    let settings = S3Settings { prefix: key("pg"), ..settings(server) };
    let repository = Repository::open(Arc::new(S3::new(settings))).expect("a repository");
    let cluster = repository.cluster(&CLUSTER.parse().expect("a cluster's name"));
    let servers = cluster.servers().expect("its servers");
    cluster.server(servers[0].system_identifier)
}

/// Takes a backup, and counts the requests that read packs. Gives what the backup is and whether the server told what had changed.
fn backup(site: &Site, server: &S3Server, words: &[&str]) -> (BackupId, bool, usize) {
    server.faults.take_seen();
    let taken = site.pitr(&[&["backup", "--json"], words].concat()).run_within(LONG).ok();
    let reads = server.faults.take_seen();
    let reads = reads.iter().filter(|seen| seen.method == "GET" && seen.path.contains("/packs/")).count();
    let document: serde_json::Value = serde_json::from_str(&taken.stdout).expect("JSON");
    let id = document["id"].as_str().expect("an id").parse().expect("an id");
    (id, document["changed_only"].as_bool().expect("a truth value"), reads)
}

/// What a backup says of each file: its checksum, and the identities of its chunks.
fn files(repository: &ServerRepository, id: BackupId) -> BTreeMap<String, (Option<String>, Vec<String>)> {
    let mut files: BTreeMap<String, (Option<String>, Vec<String>)> = BTreeMap::new();
    for line in repository.open_manifest(id).expect("the manifest") {
        let ManifestLine::File(file) = line.expect("a good line") else { continue };
        let (crc32c, chunks) = files.entry(file.path.to_string()).or_default();
        *crc32c = file.crc32c;
        chunks.extend(file.chunks.iter().map(|chunk| match &chunk.content {
            ChunkContent::Zero => format!("{} zero bytes", chunk.raw_length),
            ChunkContent::Stored { id, .. } => id.to_string(),
        }));
    }
    files
}

/// Promise: laying what the server says has changed over what the bucket has takes a request for some mebibytes, not one for each chunk or
/// each small file; and makes of every file what a full read makes of it. What has not changed is not read.
#[test]
fn few_requests_for_what_changed() {
    let postgres = newest();
    if postgres.major < 17 {
        return;
    }
    let server = S3Server::start();
    let options = Options::default().page_checksums().set("summarize_wal", "on").set("autovacuum", "off");
    let site = site_with(&server, &postgres, options.set("max_wal_size", "1GB"), "");
    // Fourteen rows a page, and room for their new versions in it.
    site.server.run(
        "CREATE TABLE big (n int, round int, fill text) WITH (fillfactor = 92);
         INSERT INTO big SELECT n, 0, repeat(md5(n::text), 15) FROM generate_series(1, 210000) n",
    );
    site.server.run("VACUUM FREEZE big");
    let file = site.server.ask("SELECT pg_relation_filepath('big')");
    let repository = repository(&server);
    let (first, changed_only, _) = backup(&site, &server, &[]);
    assert!(!changed_only);
    let chunks = files(&repository, first)[&file].1.len();
    assert!(chunks > 200, "{chunks}");

    // One page in forty, in every chunk; what the rows were before stays away from other pages.
    site.server.run("UPDATE big SET round = 1 WHERE n % 560 = 0");
    site.server.run("VACUUM FREEZE big");
    let (second, changed_only, reads) = backup(&site, &server, &[]);
    let (whole, read_whole, _) = backup(&site, &server, &["--full-read"]);
    assert!(changed_only && !read_whole);
    let (second, whole) = (files(&repository, second), files(&repository, whole));
    assert_eq!(second[&file], whole[&file]);
    assert_ne!(second[&file].1, files(&repository, first)[&file].1);
    for (path, file) in second.iter().filter(|(path, _)| path.starts_with("base/")) {
        assert_eq!(whole.get(path), Some(file), "{path}");
    }
    println!("{reads} requests for {chunks} chunks and all else");
    assert!(reads <= 30, "{reads} requests for {chunks} chunks and all else");

    // A file of which one chunk has changed, at its end and within it.
    site.server.run("UPDATE big SET round = 2 WHERE n IN (4711, 209000)");
    site.server.run("INSERT INTO big SELECT n, 3, '' FROM generate_series(1, 3000) n");
    let ((third, changed_only, reads), (whole, ..)) =
        (backup(&site, &server, &[]), backup(&site, &server, &["--full-read"]));
    assert_eq!(files(&repository, third)[&file], files(&repository, whole)[&file]);
    println!("{reads} requests for what changed at two places");
    assert!(changed_only && reads <= 30, "{reads} requests");

    // So does a restore of it, of which chunks come from three backups.
    server.faults.take_seen();
    site.try_restore(&site.dir.join("restored"), &["--to", "immediate"]).ok();
    let reads = server.faults.take_seen();
    let reads = reads.iter().filter(|seen| seen.method == "GET" && seen.path.contains("/packs/")).count();
    println!("{reads} requests for a restore");
    assert!(reads <= 45, "{reads} requests");
}
