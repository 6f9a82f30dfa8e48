//! `pitr diff`: what changed between two backups.

use serde_json::Value;

use super::harness::{Options, Postgres, Run, Site, majors, newest};
use super::{LONG, Shows as _, backup, client, element, json, run, site, text};

const BEFORE: &str = "
    CREATE TABLE still AS SELECT n, repeat('s', 200) AS fill FROM generate_series(1, 20000) n
    CREATE TABLE touched WITH (fillfactor = 50) AS SELECT n, repeat('s', 200) AS fill FROM generate_series(1, 20000) n
    CREATE TABLE written (n int PRIMARY KEY, fill text)
    INSERT INTO written SELECT n, repeat('w', 200) FROM generate_series(1, 20000) n
    CREATE TABLE emptied AS SELECT n FROM generate_series(1, 20000) n
    CREATE TABLE old_name AS SELECT n FROM generate_series(1, 20000) n
    CREATE TABLE gone AS SELECT n, repeat('g', 500) AS fill FROM generate_series(1, 20000) n
    CREATE TABLE grows AS SELECT n, repeat('g', 500) AS fill FROM generate_series(1, 20000) n
    CREATE TABLE travels AS SELECT n FROM generate_series(1, 20000) n
    CREATE TABLE indexed AS SELECT n FROM generate_series(1, 20000) n
    CREATE INDEX indexed_old ON indexed (n)
    VACUUM (FREEZE)
";

const BETWEEN: &str = "
    UPDATE touched SET n = -n WHERE n = 10000
    DELETE FROM written WHERE n % 2 = 0
    VACUUM FULL written
    TRUNCATE emptied
    ALTER TABLE old_name RENAME TO new_name
    DROP TABLE gone
    INSERT INTO grows SELECT n, repeat('h', 500) FROM generate_series(1, 2000) n
    ALTER TABLE travels SET TABLESPACE elsewhere
    CREATE TABLE young AS SELECT n FROM generate_series(1, 50000) n
    DROP INDEX indexed_old
    CREATE INDEX indexed_new ON indexed (n)
";

/// Promise: each table is told as what became of it, with the sizes that SQL tells; what is the same is not told; databases, tablespaces
/// and configuration come and go by name.
#[test]
fn what_changed() {
    let majors = majors();
    let ends = [majors.first(), majors.last().filter(|_| majors.len() > 1)];
    ends.into_iter().flatten().for_each(changes);
}

/// The same on the majors between.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn what_changed_on_every_major() {
    let majors = majors();
    majors.iter().skip(1).take(majors.len().saturating_sub(2)).for_each(changes);
}

fn size(site: &Site, table: &str) -> u64 {
    let sql = format!("SELECT pg_relation_size('{table}')");
    let bytes: i64 = client(&site.server, "shop").query_one(&sql, &[]).expect("a size").get(0);
    bytes.cast_unsigned()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn changes(postgres: &Postgres) {
    let site = site(postgres);
    run(&site.server, "shop", BEFORE);
    site.server.run("CREATE DATABASE leaves");
    site.server.run("CREATE DATABASE called");
    let (gone, written) = (size(&site, "gone"), size(&site, "written"));
    backup(&site, "before");
    let lsn = "SELECT pg_current_wal_lsn() - '0/0'";
    let from: u64 = site.server.ask(lsn).parse().expect("a position");
    run(&site.server, "shop", BETWEEN);
    let place = site.dir.make_dir("new-place");
    site.server.run(&format!("CREATE TABLESPACE another LOCATION '{}'", place.display()));
    site.server.run("CREATE DATABASE comes");
    site.server.run("DROP DATABASE leaves");
    site.server.run("ALTER DATABASE called RENAME TO renamed");
    site.server.run("ALTER SYSTEM SET work_mem = '5MB'");
    backup(&site, "after");
    let to: u64 = site.server.ask(lsn).parse().expect("a position");

    let found = json(&site, &["diff", "before", "after", "--top", "1000"]);
    let tables = &found["tables"];
    assert_eq!(found["remarks"], Value::Array(vec![]));
    let events = |name: &str| element(tables, "name", name)["events"].clone();
    for (name, expected) in [
        ("touched", vec![]),
        ("written", vec!["rewritten"]),
        ("emptied", vec!["rewritten"]),
        ("new_name", vec!["renamed"]),
        ("gone", vec!["dropped"]),
        ("grows", vec![]),
        ("travels", vec!["rewritten", "moved"]),
        ("young", vec!["created"]),
    ] {
        assert_eq!(events(name), Value::from(expected), "{name} of PostgreSQL {}", postgres.major);
    }
    assert!(!tables.as_array().expect("tables").iter().any(|table| table["name"] == "still"), "{tables:#}");
    assert_eq!(element(tables, "name", "new_name")["was"], "public.old_name");
    // The part that is the table itself, by what SQL said then and says now.
    let own = |name: &str| element(&element(tables, "name", name)["parts"], "part", "itself").clone();
    assert_eq!((number(&own("gone")["before_bytes"]) >= gone, &own("gone")["after_bytes"]), (true, &Value::Null));
    assert!(number(&own("written")["before_bytes"]) >= written);
    for name in ["written", "young", "grows", "travels"] {
        let after = number(&own(name)["after_bytes"]);
        let main = size(&site, name);
        assert!((main..main + (64 << 10)).contains(&after), "{name}: {after} bytes, {main} of them rows");
    }
    // One page of rows in another: the chunk around it does not count.
    let touched = own("touched");
    assert!((8192..=5 * 8192).contains(&number(&touched["changed_bytes"])), "{touched:#}");
    assert_eq!(touched["perhaps_unchanged_bytes"], 0);
    let grows = own("grows");
    let grown = number(&grows["after_bytes"]) - number(&grows["before_bytes"]);
    assert!((grown..2 << 20).contains(&number(&grows["changed_bytes"])), "{grows:#}");
    // Indexes are part of their table.
    let indexed = element(tables, "name", "indexed");
    assert_eq!(indexed["events"], Value::Array(vec![]));
    assert_eq!(element(&indexed["parts"], "relation", "public.indexed_new")["events"][0], "created");
    assert_eq!(element(&indexed["parts"], "relation", "public.indexed_old")["events"][0], "dropped");

    let what = |list: &str, name: &str| element(&found[list], "name", name)["what"].clone();
    assert_eq!(what("databases", "comes"), "created");
    assert_eq!(what("databases", "leaves"), "dropped");
    assert_eq!(what("databases", "renamed"), "renamed");
    assert_eq!(element(&found["databases"], "name", "renamed")["was"], "called");
    assert_eq!(what("databases", "shop"), "changed");
    assert_eq!(what("tablespaces", &place.display().to_string()), "created");
    let changed: Vec<_> = found["configuration"].as_array().expect("files").iter().map(|file| &file["path"]).collect();
    assert_eq!(changed, ["postgresql.auto.conf"]);
    let wal = number(&found["wal"]["bytes"]);
    assert!(wal > 1 << 20 && wal <= to - from + (64 << 20), "{wal} of {from} to {to}");

    let said = text(&site, &["diff", "before", "after", "--database", "shop"]);
    said.shows("shop.public.gone  DROPPED")
        .shows("shop.public.new_name  RENAMED from public.old_name")
        .shows("  public.indexed_new  CREATED")
        .shows("postgresql.auto.conf  changed")
        .shows("comes  CREATED");
    text(&site, &["diff", "after", "before"]).shows("LATER").shows("shop.public.gone  CREATED");
    text(&site, &["diff", "before", "after", "--database", "leaves"]).shows("leaves.pg_catalog.pg_class  DROPPED");
}

/// Promise: backups of different clusters are not compared; and of branches that part, no WAL leads from one to the other.
#[test]
fn of_one_cluster_only() {
    let mut site = Site::new(&newest());
    backup(&site, "first");
    let restored = site.restore("copy", &["--to", "immediate", "--action", "promote", "--take-over"]);
    site.server.run("CREATE TABLE t AS SELECT 1 AS n");
    backup(&site, "old branch");
    site.server.stop(super::harness::Stop::Fast);
    let mut copy = restored;
    copy.start();
    super::harness::wait_for("the end of recovery", || (copy.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    std::mem::swap(&mut site.server, &mut copy);
    site.configure("");
    backup(&site, "new branch");
    assert_eq!(json(&site, &["diff", "old branch", "new branch"])["wal"]["bytes"], Value::Null);
    assert!(json(&site, &["diff", "first", "new branch"])["wal"]["bytes"].is_u64());
    text(&site, &["diff", "old branch", "new branch"]).shows("different branches");

    // The same name in the repository, but another cluster, as after pg_upgrade.
    let other = super::harness::Server::running(&site.dir, &newest(), &Options::named("other"));
    let mut left = std::mem::replace(&mut site.server, other);
    left.stop(super::harness::Stop::Immediate);
    site.configure("");
    site.pitr(&["init", "--upgraded"]).run_within(LONG).ok();
    site.pitr(&["backup", "--label", "other cluster", "--wal", "stream"]).run_within(LONG).ok();
    let refused = site.pitr(&["diff", "new branch", "other cluster"]).run().fails_with(2);
    refused.says("different clusters").says("system identifier");
}
