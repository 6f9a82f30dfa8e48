//! Retention rules, holds and annotations.

use serde_json::Value;

use super::harness::{Options, Run, Site, newest};
use super::{LONG, backup, expire, ids, json, rows, rows_of, up_to};

fn status(site: &Site) -> Value {
    json(&site.pitr(&["status", "--json"]).run_within(LONG).ok())["servers"][0].clone()
}

/// Promise: the rules keep what they say, a kept backup can be restored to its own end though the WAL around it is gone, what the
/// window holds can be restored, and what is gone is not called missing.
#[test]
fn days_and_counts() {
    let settings = "retention_days = 7\nretention_count = 2\n";
    let site = Site::with(&newest(), Options::default().segment_size_mib(1), settings);
    let made: Vec<String> = (1..=4).map(|n| backup(&site, n)).collect();
    site.server.run("INSERT INTO t VALUES (5)");
    site.server.archive_all();
    // All of them are young.
    let nothing = expire(&site, 0);
    assert_eq!(nothing["servers"][0]["forgets"], Value::Array(vec![]), "{nothing}");
    site.pitr(&["keep", &made[0]]).run().ok();
    site.pitr(&["forget", "--yes", &made[0]]).run_within(LONG).fails_with(1).says("is kept until it is released");
    // In ten days all are older than the window: two are counted, one is kept, one goes.
    let shown = site.pitr(&["expire", "--dry-run"]).run_within(LONG).ok();
    assert!(shown.stdout.contains("any moment of 7 days, and at least 2 base backups"), "{shown}");
    let before = status(&site);
    let marked = expire(&site, 10);
    let server = &marked["servers"][0];
    assert_eq!(server["forgets"][0]["id"], made[1].as_str(), "{marked}");
    let verdicts: Vec<_> = server["backups"].as_array().expect("a list").iter().map(|it| &it["verdict"]).collect();
    assert_eq!(verdicts, ["kept", "goes", "counted", "opens_window"], "{marked}");
    assert_eq!(ids(&site), [made[0].clone(), made[2].clone(), made[3].clone()]);
    // What is on its way out, and what is gone, is not missed by a verification.
    site.pitr(&["verify"]).run_within(LONG).ok();
    let removed = expire(&site, 14);
    site.pitr(&["verify"]).run_within(LONG).ok();
    assert!(removed["servers"][0]["done"]["removed"].as_array().is_some_and(|it| it.len() >= 2), "{removed}");
    // Of its packs those stay that later backups refer to: what is restored below proves it.
    let after = status(&site);
    let windows = after["windows"].as_array().expect("a list");
    assert_eq!((before["windows"].as_array().map(Vec::len), windows.len()), (Some(1), 2), "{after}");
    assert_eq!(windows[0]["backup"], made[0].as_str());
    assert_eq!(after["holes"], Value::Array(vec![]), "what retention removed is no hole: {after}");
    assert!(after["timelines"][0]["segments"].as_u64() < before["timelines"][0]["segments"].as_u64());
    assert_eq!(rows_of(&site, &made[0], 1), up_to(1));
    assert_eq!(rows_of(&site, &made[2], 2), up_to(3));
    assert_eq!(rows(&site, &["--to", "latest"], 3), up_to(5));
    let gone = site.pitr(&["forget", "--undo", &made[1]]).run().fails_with(1);
    gone.says("has no complete backup");
    site.pitr(&["keep", "--release", &made[0]]).run().ok();
    expire(&site, 20);
    expire(&site, 24);
    assert_eq!(ids(&site), made[2..]);
    assert_eq!(rows(&site, &["--to", "latest"], 4), up_to(5));
    for words in [["timelines", "--json"], ["reindex", "--json"], ["log", "--json"]] {
        site.pitr(&words).run_within(LONG).ok();
    }
    let idle = expire(&site, 30);
    assert_eq!(idle["servers"][0]["done"]["removed"], Value::Array(vec![]), "{idle}");
}

/// Promise: what people write beside a backup is shown, can be changed and taken away, and a forgotten backup that is remembered is
/// as it was.
#[test]
fn words_and_second_thoughts() {
    let site = Site::with(&newest(), Options::default().segment_size_mib(1), "");
    let made: Vec<String> = (1..=2).map(|n| backup(&site, n)).collect();
    site.pitr(&["annotate", &made[0], "ticket=4711", "before=migration", "--text", "old hardware"]).run().ok();
    site.pitr(&["annotate", &made[0], "before="]).run().ok();
    site.pitr(&["annotate", &made[0], "no pair"]).run().fails_with(2);
    site.pitr(&["annotate", "20261121T104500Z-1a2b3c4d", "a=b"]).run().fails_with(1).says("pitr list");
    let listed = json(&site.pitr(&["list", "--json"]).run().ok());
    assert_eq!(listed[0]["annotations"], serde_json::json!({"ticket": "4711"}));
    assert_eq!((&listed[0]["text"], &listed[0]["label"]), (&"old hardware".into(), &"pitr backup".into()));
    let text = site.pitr(&["list"]).run().ok().stdout;
    assert!(text.contains("ticket=4711") && text.contains("old hardware") && !text.contains("migration"), "{text}");

    // The first one opens the window: without it the window begins with the second.
    let shown = site.pitr(&["forget", "--dry-run", &made[0]]).run_within(LONG).ok().stdout;
    assert!(shown.contains("closes    timeline 1 from ") && !shown.contains("Forgotten"), "{shown}");
    let shown = site.pitr(&["forget", "--dry-run", &made[1]]).run_within(LONG).ok().stdout;
    assert!(shown.contains("closes    nothing"), "{shown}");
    site.pitr(&["forget", &made[0]]).run_within(LONG).fails_with(23).says("--yes");
    let done = json(&site.pitr(&["forget", "--yes", "--json", &made[0]]).run_within(LONG).ok());
    assert_eq!(done["closes"].as_array().map(Vec::len), Some(1), "{done}");
    assert_eq!(status(&site)["windows"][0]["backup"], made[1].as_str());
    assert!(site.pitr(&["list"]).run().ok().stdout.contains("FORGOTTEN"));
    site.pitr(&["forget", "--yes", &made[0]]).run_within(LONG).fails_with(1).says("was forgotten at");
    site.pitr(&["keep", &made[0]]).run_within(LONG).fails_with(1).says("was forgotten at");
    // Without rules, expire says so, and marks what was forgotten.
    let text = site.pitr(&["expire"]).run_within(LONG).ok().stdout;
    assert!(
        text.contains("No retention rule is set") && text.contains(&format!("marks    backup {}", made[0])),
        "{text}"
    );
    site.pitr(&["forget", "--undo", &made[0]]).run_within(LONG).ok();
    assert_eq!(status(&site)["windows"][0]["backup"], made[0].as_str());
    expire(&site, 9);
    assert_eq!(ids(&site), made);
    assert_eq!(rows_of(&site, &made[0], 1), up_to(1));
}
