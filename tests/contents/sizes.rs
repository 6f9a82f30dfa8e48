//! `pitr show`: what is in one backup.

use std::fs;
use std::os::unix::fs::FileExt;

use serde_json::Value;

use super::harness::{Postgres, Run, majors, newest};
use super::{LONG, Shows as _, backup, client, element, json, run, site, text};

const TABLES: &str = "
    CREATE SCHEMA \"Old Data\"
    CREATE TABLE orders (id int PRIMARY KEY, note text, n int)
    ALTER TABLE orders ALTER note SET STORAGE EXTERNAL
    INSERT INTO orders SELECT n, repeat(md5(n::text), 100), n FROM generate_series(1, 3000) n
    CREATE INDEX ON orders (n)
    CREATE TABLE far (n int PRIMARY KEY USING INDEX TABLESPACE pg_default) TABLESPACE elsewhere
    INSERT INTO far SELECT generate_series(1, 20000)
    CREATE TABLE \"Old Data\".\"Odd \"\"name\" AS SELECT generate_series(1, 5000) AS n
    CREATE TABLE parted (n int) PARTITION BY RANGE (n)
    CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10000)
    CREATE INDEX ON parted (n)
    INSERT INTO parted SELECT generate_series(1, 9999)
    CREATE SEQUENCE numbers
    CREATE MATERIALIZED VIEW seen AS SELECT n FROM orders
    VACUUM orders
    VACUUM far
";

/// What SQL tells of every table, by its name: total, indexes, and TOAST.
const SIZES: &str = "
    SELECT n.nspname::text, c.relname::text, pg_total_relation_size(c.oid), pg_indexes_size(c.oid),
           coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'm', 'S') AND NOT c.relisshared AND n.nspname <> 'pg_toast'";

/// Promise: every table, its indexes and its TOAST table have the sizes that SQL tells, by their names.
#[test]
fn as_sql_tells() {
    let majors = majors();
    let ends = [majors.first(), majors.last().filter(|_| majors.len() > 1)];
    ends.into_iter().flatten().for_each(sizes);
}

/// The same on the majors between.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn as_sql_tells_on_every_major() {
    let majors = majors();
    majors.iter().skip(1).take(majors.len().saturating_sub(2)).for_each(sizes);
}

fn sizes(postgres: &Postgres) {
    let site = site(postgres);
    run(&site.server, "shop", TABLES);
    backup(&site, "first");
    let shown = json(&site, &["show", "latest", "--top", "100000"]);
    let tables = shown["tables"].as_array().expect("tables");
    assert_eq!(
        (&shown["label"], &shown["read"], &shown["remarks"]),
        (&"first".into(), &"full".into(), &Value::Array(vec![]))
    );
    for database in ["postgres", "shop", "template1"] {
        let rows = client(&site.server, database).query(SIZES, &[]).expect("sizes");
        assert!(rows.len() > 50);
        for row in rows {
            let (schema, name): (String, String) = (row.get(0), row.get(1));
            // Statistics and such are written when sessions end.
            let told: [i64; 3] = [row.get(2), row.get(3), row.get(4)];
            let found = tables.iter().find(|table| {
                table["database"] == database && table["schema"] == schema.as_str() && table["name"] == name.as_str()
            });
            let size = |member: &str| found.map_or(0, |table| table[member].as_i64().expect("bytes"));
            let ours = [size("size_bytes"), size("index_bytes"), size("toast_bytes")];
            assert_eq!(ours, told, "{database}.{schema}.{name} of PostgreSQL {}: {found:?}", postgres.major);
        }
    }
    let name = |table: &Value| table["name"].as_str().map(str::to_owned);
    assert!(tables.iter().all(|table| name(table).is_some()), "every file has a name");
    assert_eq!(tables.iter().find(|table| table["database"] == "shop").and_then(name).as_deref(), Some("orders"));

    // Sums of databases and tablespaces are those of their files, and of all.
    let total = &shown["total"];
    for (list, member) in [("databases", "size_bytes"), ("by_tablespace", "stored_bytes")] {
        let sum: u64 =
            shown[list].as_array().expect("a list").iter().map(|one| one[member].as_u64().expect("bytes")).sum();
        assert_eq!(Some(sum), total[member].as_u64(), "{list}");
    }
    assert_eq!(total["size_bytes"], shown["raw_bytes"]);
    let database: i64 =
        client(&site.server, "shop").query_one("SELECT pg_database_size('shop')", &[]).expect("a size").get(0);
    let ours = element(&shown["databases"], "name", "shop")["size_bytes"].as_i64().expect("bytes");
    // Files that a backup leaves out (pg_internal.init) count there.
    assert!((database - ours).abs() < 1 << 18, "{ours} bytes and {database}");
    let place = shown["by_tablespace"]
        .as_array()
        .expect("a list")
        .iter()
        .find(|one| one["name"].as_str().expect("a name").contains("/elsewhere"));
    assert!(place.expect("the tablespace")["size_bytes"].as_u64().expect("bytes") > 500_000);

    let said =
        text(&site, &["show", "first"]).shows("shop.public.orders").shows("everything, without an earlier backup");
    let longest = said.stdout.lines().map(|line| line.chars().count()).max();
    assert!(longest.is_some_and(|longest| longest <= 120), "{said}");
    let one = text(&site, &["show", "latest", "--relation", "public.orders"]);
    let one = one.shows("orders_pkey (index, base/").shows("toast of public.orders (TOAST table");
    assert!(!one.stdout.contains("tablespaces"), "{one}");
    files(&site, total);
}

/// Every file once, with its checksum; those of one relation, if they are asked for.
fn files(site: &super::Site, total: &Value) {
    let all = json(site, &["show", "latest", "--files"]);
    let list = all["file_list"].as_array().expect("files");
    let sum: u64 = list.iter().map(|file| file["size_bytes"].as_u64().expect("bytes")).sum();
    assert_eq!((Some(list.len() as u64), Some(sum)), (total["files"].as_u64(), total["size_bytes"].as_u64()));
    assert!(list.iter().all(|file| file["crc32c"].as_str().is_some_and(|crc| crc.len() == 8)));
    let control = element(&all["file_list"], "path", "global/pg_control");
    assert!(control["modified_at"].is_string() && control["kind"] == "control");

    let path = |sql: &str| -> String { client(&site.server, "shop").query_one(sql, &[]).expect("a path").get(0) };
    let main = path("SELECT pg_relation_filepath('orders')");
    let orders = json(site, &["show", "latest", "--files", "--database", "shop", "--relation", "orders"]);
    let found = element(&orders["file_list"], "path", &main);
    assert_eq!((&found["fork"], &found["relation"]), (&"main".into(), &"shop.public.orders".into()));
    element(&orders["file_list"], "path", &format!("{main}_vm"));
    element(&orders["file_list"], "path", &path("SELECT pg_relation_filepath('orders_n_idx')"));
    let toast = path("SELECT pg_relation_filepath(reltoastrelid) FROM pg_class WHERE relname = 'orders'");
    element(&orders["file_list"], "path", &toast);
    assert!(orders["file_list"].as_array().is_some_and(|files| files.len() < 12), "{orders:#}");
    text(site, &["show", "latest", "--files"]).shows("global/pg_control").shows(&format!("{main}  shop.public.orders"));
}

/// Promise: what cannot be shown is refused with words, and a backup is found by its id and by a label of its own only.
#[test]
fn which_backup() {
    let site = site(&newest());
    site.pitr(&["show", "latest"]).run().fails_with(1).says("no complete base backup yet");
    backup(&site, "same");
    let id = json(&site, &["show", "latest"])["id"].as_str().expect("an id").to_owned();
    assert_eq!(json(&site, &["show", "same"])["id"], id.as_str());
    assert_eq!(json(&site, &["show", &id])["id"], id.as_str());
    site.pitr(&["show", "latest", "--database", "shops"]).run().fails_with(1).says("has no database \"shops\"");
    site.pitr(&["diff", "same", "latest"]).run().fails_with(2).says("both are base backup");
    run(&site.server, "shop", "CREATE TABLE t AS SELECT repeat('x', 100) AS t FROM generate_series(1, 1000)");
    backup(&site, "same");
    site.pitr(&["show", "same"]).run().fails_with(2).says("2 base backups have the label").says(&id);
    site.pitr(&["show", "other"]).run().fails_with(1).says("with the id or label \"other\"");

    // A later backup refers to the first one, also when that is forgotten.
    let shown = json(&site, &["show", "latest"]);
    let earlier = element(&shown["earlier"], "backup", &id);
    assert_eq!(
        (&shown["read"], &earlier["referenced_bytes"]),
        (&"compared".into(), &shown["total"]["referenced_bytes"])
    );
    assert!(earlier["referenced_bytes"].as_u64() > shown["total"]["stored_bytes"].as_u64(), "{shown:#}");
    site.pitr(&["forget", &id, "--yes"]).run_within(LONG).ok();
    text(&site, &["show", "latest"]).shows(&format!("{id}  same, ended")).shows("FORGOTTEN");
}

/// Promise: where the catalog of one database is damaged, on the server or in the store, its relations go by their files, the reason is
/// told, and the others keep their names.
#[test]
fn catalogs_that_cannot_be_read() {
    let mut site = site(&newest());
    run(&site.server, "shop", "CREATE TABLE orders AS SELECT generate_series(1, 100000) AS n");
    site.server.run("CREATE TABLE well AS SELECT generate_series(1, 100000) AS n");
    let ask = |sql: &str| -> String { client(&site.server, "shop").query_one(sql, &[]).expect("a path").get(0) };
    let (catalog, orders) =
        (ask("SELECT pg_relation_filepath('pg_class')"), ask("SELECT pg_relation_filepath('orders')"));
    site.server.run("CHECKPOINT");
    site.server.stop(super::harness::Stop::Fast);
    let file =
        fs::OpenOptions::new().read(true).write(true).open(site.server.data_dir().join(&catalog)).expect("pg_class");
    for block in 0..file.metadata().expect("a size").len() / 8192 {
        // Not the header: only the checksum says that the page is damaged.
        let mut bytes = [0; 64];
        file.read_exact_at(&mut bytes, block * 8192 + 8000).expect("readable");
        file.write_all_at(&bytes.map(|byte| byte ^ 0x55), block * 8192 + 8000).expect("written");
    }
    site.server.start();
    site.pitr(&["backup", "--label", "bad"]).run_within(LONG).fails_with(21);
    let said = text(&site, &["show", "bad"]).shows(&orders).shows("postgres.public.well").shows("DAMAGED");
    let said =
        said.shows(&format!("{catalog}: blocks 0, 1")).shows("a part of the catalog of database").shows("(shop)");
    assert!(!said.stdout.contains("shop.public.orders"), "{said}");

    // A pack that is gone takes the names that were in it, and nothing else.
    let packs =
        site.repository().join("main").join(site.server.ask("SELECT system_identifier FROM pg_control_system()"));
    for pack in fs::read_dir(packs.join("packs")).expect("packs") {
        fs::remove_file(pack.expect("an entry").path()).expect("removed");
    }
    text(&site, &["show", "bad"]).shows(&orders).shows("note: ").shows("pg_default");
}
