//! What `pitr plan` prints, for people and for programs.

use serde_json::Value;

use super::harness::{Finished, Options, Run, Server, Site, newest};

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

/// Commits a row, and gives its xid.
fn commit(server: &Server, n: i32) -> String {
    let insert = format!("INSERT INTO t VALUES ({n}) RETURNING (txid_current() & 4294967295)::bigint");
    server.ask(&insert)
}

/// Promise: `pitr plan` needs no directory and says what `restore --dry-run` says, in text and in JSON; a target out of reach ends
/// with 19, a JSON verdict on standard output and the three parts on standard error; --before-xid is --to-xid without that
/// transaction; and settings that are too low for the WAL on the way are named with what they are and what is needed.
#[test]
fn plan_and_dry_run() {
    let postgres = newest();
    let mut site = Site::with(&postgres, Options::default().segment_size_mib(1).set("max_connections", 21), "");
    site.server.run("CREATE TABLE t (n int)");
    site.backup();
    let xids: Vec<String> = (1..=3).map(|n| commit(&site.server, n)).collect();
    site.server.configure("max_connections", "57");
    site.server.configure("max_prepared_transactions", "3");
    site.server.restart();
    let last = commit(&site.server, 4);
    site.server.archive_all();

    let words = ["--before-xid", &xids[1]];
    let plan = json(&site.pitr(&["plan", "--json"]).args(words).run().ok());
    assert_eq!((&plan["reachable"], &plan["plan"]["lost"]["commits"]), (&true.into(), &3.into()), "{plan:#}");
    assert_eq!(plan["plan"]["last_commit"]["xid"].to_string(), xids[0]);
    assert_eq!(plan["settings"], Value::Array(Vec::new()), "the change lies behind the stop");
    let dry = json(&site.pitr(&["restore", "--dry-run", "--json"]).args(words).run().ok());
    assert_eq!(plan, dry);
    let same = ["--to-xid", &*xids[1], "--exclusive"];
    assert_eq!(plan, json(&site.pitr(&["plan", "--json"]).args(same).run().ok()));
    let text = site.pitr(&["plan"]).args(words).run().ok().stdout;
    assert_eq!(text, site.pitr(&["restore", "--dry-run"]).args(words).run().ok().stdout);
    assert!(text.contains("3 commits between "), "{text}");

    // Everything after the restart needs the higher settings, which the backup's own configuration does not have.
    let latest = json(&site.pitr(&["plan", "--json", "--to-xid", &last]).run().ok());
    let short = |name: &str| {
        let found = latest["settings"].as_array().expect("a list").iter().find(|it| it["name"] == name);
        found.map(|it| (it["configured"].as_u64(), it["needed"].as_u64()))
    };
    assert_eq!(short("max_connections"), Some((Some(21), Some(57))), "{latest:#}");
    assert_eq!(short("max_prepared_transactions"), Some((Some(0), Some(3))), "{latest:#}");
    assert_eq!(short("max_wal_senders"), None, "{latest:#}");
    let enough = site.dir.write("enough.conf", "max_connections = 100\n");
    let checked = site.pitr(&["plan", "--json", "--to-xid", &last, "--config-file"]).arg(enough).run().ok();
    assert_eq!(json(&checked)["settings"].as_array().map(Vec::len), Some(2), "the backup's auto.conf wins: {checked}");

    for verb in [&["plan"][..], &["restore", "--dry-run"]] {
        let refused =
            site.pitr(verb).args(["--to", "now", "--json"]).run().fails_with(19).says("DETAIL:  ").says("HINT:  ");
        let verdict = json(&refused);
        assert_eq!(
            (&verdict["reachable"], &verdict["refusal"]["why"]),
            (&false.into(), &"after_end".into()),
            "{refused}"
        );
        assert_eq!(verdict["refusal"]["before"]["commit"]["xid"].to_string(), last, "{refused}");
        let option = verdict["refusal"]["before"]["option"].as_str().expect("an option");
        assert!(refused.stderr.contains(option), "{refused}");
    }
}
