//! In a bucket: few requests, and silence of the store is never taken for damage.

use std::collections::BTreeMap;

use crate::harness::{Run, Site, newest, small};
use crate::s3_server::{Fault, S3Server};
use crate::{LONG, count, findings};
use serde_json::Value;

fn world(server: &S3Server) -> Site {
    let settings = server.settings() + "s3_attempts = \"2\"\ns3_attempt_timeout = \"3s\"\n";
    let site = Site::with(&newest(), small(), &settings);
    site.server.run("CREATE TABLE big AS SELECT n, md5(n::text) FROM generate_series(1, 20000) n");
    site.backup();
    for _ in 0..4 {
        site.server.run("UPDATE big SET md5 = md5(md5) WHERE n % 10 = 0");
        site.server.archive_all();
    }
    site
}

fn verify(site: &Site) -> (i32, Value, String) {
    let finished = site.pitr(&["verify", "--json"]).run_within(LONG);
    (finished.code(), serde_json::from_str(&finished.stdout).unwrap_or(Value::Null), finished.to_string())
}

/// Promise: a segment costs one request, a pack one for eight mebibytes and two for its index, a backup a handful; a writer that may not
/// delete can note what it verified.
#[test]
fn few_requests() {
    let server = S3Server::start();
    let site = world(&server);
    server.faults.add("DELETE", "/verified/", u32::MAX, Fault::Refuse(403, "AccessDenied"));
    server.faults.take_kinds();
    let (status, document, said) = verify(&site);
    assert_eq!((status, findings(&document)), (0, vec![]), "{said}");
    let mut kinds: BTreeMap<String, u64> = BTreeMap::new();
    for seen in server.faults.take_seen() {
        *kinds.entry(seen.kind()).or_default() += 1;
    }
    let [segments, packs, others] = ["segments", "packs", "others"].map(|name| count(&document, "verified", name));
    assert!(segments >= 5 && packs == 1, "{said}");
    // Marker, server, two for the backup's info and header and one for its manifest, windows at both ends.
    let most = segments + packs * 4 + others * 2 + 24;
    assert!(kinds["GET"] <= most, "{kinds:?}, at most {most} GET");
    assert!(kinds["PUT"] == 1 && kinds.get("HEAD").is_none_or(|count| *count <= 8), "{kinds:?}");
    assert!(kinds["GET list-type"] <= 16, "{kinds:?}");
    for _ in 0..16 {
        site.pitr(&["verify", "--for", "0s"]).run_within(LONG).ok();
    }
    let (_, document, said) = verify(&site);
    assert_eq!(document["servers"][0]["coverage"]["never_segments"], 0, "{said}");
    assert!(document["not_noted"].is_null(), "{said}");
    let ledger = server.objects.names().iter().filter(|name| name.contains("/verified/")).count();
    assert!(ledger > 16, "nothing could be deleted: {ledger}");
}

/// Promise: what the store does not give is told as not looked at, with another status than damage; where both are, damage wins and both
/// are told; and a store that is gone altogether ends the run at once.
#[test]
fn silence_is_no_damage() {
    let server = S3Server::start();
    let site = world(&server);
    server.faults.add("GET", "/packs/", u32::MAX, Fault::Refuse(503, "SlowDown"));
    let (status, document, said) = verify(&site);
    assert_eq!((status, findings(&document)), (4, vec![]), "{said}");
    assert!(document["servers"][0]["not_looked"].to_string().contains("/packs/"), "{said}");
    assert_eq!(document["servers"][0]["backups"][0]["restorable"], true, "{said}");
    // An answer that breaks off in the middle of a manifest is no damaged manifest.
    server.faults.clear();
    server.faults.add("GET", "/manifest", u32::MAX, Fault::Truncate(0));
    let (status, document, said) = verify(&site);
    assert_eq!((status, findings(&document)), (4, vec![]), "{said}");

    server.faults.clear();
    server.faults.add("GET", "/packs/", u32::MAX, Fault::Refuse(403, "AccessDenied"));
    let names = server.objects.names();
    let segment = names.iter().filter(|name| name.contains("/wal/00000001/")).nth(2).expect("a segment");
    server.objects.insert(segment, vec![7; 5000]);
    let (status, document, said) = verify(&site);
    assert_eq!(status, 11, "{said}");
    assert!(findings(&document)[0]["kind"] == "segment" && said.contains("not_looked"), "{said}");
    let text = site.pitr(&["verify"]).run_within(LONG).fails_with(11).stdout;
    assert!(text.contains("COULD NOT LOOK at ") && text.contains("DAMAGED: WAL segment "), "{text}");

    for kind in ["GET", "HEAD", "GET list-type"] {
        server.faults.add(kind, "", u32::MAX, Fault::Reset);
    }
    let (status, document, said) = verify(&site);
    assert!(status == 4 && document.is_null(), "{said}");
}
