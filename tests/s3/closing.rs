//! Roll-ups that archiving writes by itself: one request more for each group of segments.

use std::fs;

use pitr::repository::{Repository, ServerRepository};
use pitr::storage::{Key, S3, S3Settings};
use pitr::wal::TimelineId;
use serde_json::Value;

use super::S3Server;
use super::harness::{Run, Site, newest, small, wait_for};
use super::road::site_with;
use super::s3_server::BUCKET;

/// The archive as the library sees it.
fn archive(server: &S3Server) -> ServerRepository {
    let settings = S3Settings {
        endpoint: Some(server.endpoint()),
        credentials_file: Some(server.credentials_file()),
        ..S3Settings::new(BUCKET, Key::parse("pg").expect("a key"))
    };
    let repository = Repository::open(std::sync::Arc::new(S3::new(settings))).expect("it is a repository");
    let cluster = repository.cluster(&"main".parse().expect("a name"));
    let record = cluster.servers().expect("records").pop().expect("one server");
    cluster.server(record.system_identifier)
}

/// Entries of the roll-ups, by group.
fn entries(server: &S3Server) -> Vec<u16> {
    let names = archive(server).roll_ups(TimelineId(1)).expect("listed");
    names.values().map(|name| name.count).collect()
}

/// Switches to the next segment until the group is full and the next one has begun; everything is archived then.
fn fill_group(site: &Site) {
    let group = |name: &str| name[..22].to_owned();
    let begun = site.server.switch_wal();
    let mut last = begun.clone();
    while group(&last) == group(&begun) {
        last = site.server.switch_wal();
    }
    site.server.archive_all();
}

fn reindex(site: &Site) -> (u64, u64) {
    let shown = site.pitr(&["reindex", "--json"]).run_within(std::time::Duration::from_secs(60)).ok().stdout;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    let timeline = &shown["timelines"][0];
    (timeline["groups"].as_u64().expect("a number"), timeline["written"].as_u64().expect("a number"))
}

/// Promise: archiving a group of segments costs one request for each and one for all, and afterwards its roll-up tells what reading
/// all of them would: there is nothing for `pitr reindex` to do but the group that is still growing. A spool that is lost
/// in between costs entries, never an answer, and the next base backup makes that good.
#[test]
fn one_more_request_for_a_group() {
    let server = S3Server::start();
    let site = site_with(&server, &newest(), small(), "look_ahead = 4\n");
    site.server.archive_all();
    let before = server.objects.count();
    server.faults.take_seen();
    fill_group(&site);
    let stored = server.objects.count() - before;
    let kinds = server.faults.take_kinds();
    assert_eq!(kinds.len(), stored, "every request stored an object: {kinds:?}");
    assert!(stored >= 200 && kinds.iter().all(|kind| kind == "PUT"));
    let first = entries(&server);
    assert_eq!(first.len(), 1, "the growing group has none");
    assert_eq!(reindex(&site), (2, 1));
    let listed = archive(&server).listing(TimelineId(1)).expect("listed");
    assert_eq!(u64::from(first[0]), listed[0].count());

    // The notes of the group that is growing now are lost with the spool.
    for cluster in fs::read_dir(site.dir.join("spool")).expect("the spool").flatten() {
        fs::remove_dir_all(cluster.path()).expect("removed");
    }
    fill_group(&site);
    let listed = archive(&server).listing(TimelineId(1)).expect("listed");
    let told = u64::from(entries(&server)[1]);
    assert!((200..listed[1].count()).contains(&told), "{told} of {}", listed[1].count());
    let status = || site.pitr(&["status", "--json"]).run().stdout;
    let windows = |text: &str| serde_json::from_str::<Value>(text).expect("JSON")["servers"][0]["windows"].clone();
    site.backup();
    let with = windows(&status());
    let full = wait_for("a full roll-up", || entries(&server).get(1).copied());
    assert_eq!(u64::from(full), listed[1].count(), "the base backup made it whole");
    for name in server.objects.names().iter().filter(|name| name.contains("/catalog/")) {
        server.objects.remove(name);
    }
    assert_eq!(windows(&status()), with, "the same without any roll-up");
}
