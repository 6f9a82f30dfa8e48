//! `--only-database`: the named ones are whole, the others are holes that replay gets through, whatever the WAL does to them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use super::harness::{Options, Postgres, Run, Server, Site, Stop, majors, newest, wait_for};
use super::{commit, json, killed, stop};

/// Runs statements one after the other in a database.
fn run_in(server: &Server, database: &str, statements: &str) {
    let conninfo = server.conninfo().replace("dbname=postgres", &format!("dbname={database}"));
    let mut client = postgres::Client::connect(&conninfo, postgres::NoTls).expect("connects");
    for statement in statements.split(";\n").filter(|statement| !statement.trim().is_empty()) {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{database}: {statement}: {error:?}"));
    }
}

fn ask_in(server: &Server, database: &str, query: &str) -> Result<String, postgres::Error> {
    let conninfo = server.conninfo().replace("dbname=postgres", &format!("dbname={database}"));
    let row = postgres::Client::connect(&conninfo, postgres::NoTls)?.query_one(query, &[])?;
    Ok(row.get(0))
}

/// Tables with an index of every kind, and more that will be truncated, dropped, rewritten.
const BEFORE: &str = "
    CREATE TABLE big AS SELECT g AS id, md5(g::text) AS t, point(g, g) AS p, ARRAY[g % 50] AS a, 0 AS n
        FROM generate_series(1, 6000) g;
    CREATE INDEX ON big (id);
    CREATE INDEX ON big (t);
    CREATE INDEX ON big USING hash (t);
    CREATE INDEX ON big USING gin (a);
    CREATE INDEX ON big USING gist (p);
    CREATE INDEX ON big USING spgist (p);
    CREATE INDEX ON big USING brin (id);
    CREATE TABLE quiet AS SELECT g AS id, repeat('x', 100) AS t FROM generate_series(1, 6000) g;
    CREATE INDEX ON quiet USING hash (id);
    CREATE TABLE emptied AS SELECT * FROM big;
    CREATE TABLE dropped AS SELECT * FROM big;
    CREATE TABLE rewritten AS SELECT * FROM big;
    CREATE TABLE long AS SELECT g AS id, (SELECT string_agg(md5((g * i)::text), '') FROM generate_series(1, 300) i) AS t
        FROM generate_series(1, 50) g;
    CREATE UNLOGGED TABLE unlogged AS SELECT * FROM long;
    CREATE SEQUENCE s;
";

/// Everything that writes WAL about pages that were there when the backup was taken: changes without page images among them.
const AFTER: &str = "
    DELETE FROM quiet WHERE id % 7 = 0;
    VACUUM quiet;
    VACUUM (FREEZE) rewritten;
    VACUUM dropped;
    INSERT INTO big SELECT g, md5(g::text), point(g, -g), ARRAY[g % 50], 1 FROM generate_series(6001, 12000) g;
    UPDATE big SET n = n + 1 WHERE id % 3 = 0;
    UPDATE big SET t = md5(t) WHERE id % 5 = 0;
    DELETE FROM big WHERE id % 4 = 0;
    VACUUM (INDEX_CLEANUP ON) big;
    CHECKPOINT;
    UPDATE big SET n = n + 1 WHERE id % 7 = 0;
    DELETE FROM big WHERE id > 3000;
    VACUUM (INDEX_CLEANUP ON) big;
    TRUNCATE emptied;
    INSERT INTO emptied SELECT * FROM big;
    DROP TABLE dropped;
    VACUUM FULL rewritten;
    CLUSTER big USING big_id_idx;
    UPDATE long SET t = t || 'y';
    SELECT count(nextval('s')) FROM generate_series(1, 100);
    ALTER TABLE big ADD COLUMN more int DEFAULT 7;
    CREATE INDEX ON big (n);
    VACUUM FULL pg_class;
    VACUUM FULL pg_proc;
    REINDEX TABLE pg_attribute;
    ANALYZE;
    CHECKPOINT;
    SELECT count(*) FROM big;
    UPDATE big SET n = 0;
";

/// Files below a directory, if it is there, that occupy disk, besides what becomes of empty ones.
fn with_content(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if !directory.exists() {
        return found;
    }
    for entry in fs::read_dir(directory).expect("there") {
        let path = entry.expect("read").path();
        let metadata = fs::metadata(&path).expect("there");
        if metadata.is_dir() {
            found.extend(with_content(&path));
        } else if metadata.blocks() > 0 {
            found.push(path);
        }
    }
    found
}

/// A site with the databases shop, other and far (in a tablespace), a base backup, much that happens in each, and a row of shop.
fn busy(postgres: &Postgres, options: Options, full_page_writes: bool) -> Site {
    let site = Site::with(postgres, options, "");
    let space = site.dir.make_dir("space");
    site.server.run(&format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
    for name in ["CREATE DATABASE shop", "CREATE DATABASE other", "CREATE DATABASE far TABLESPACE space"] {
        site.server.run(name);
    }
    site.server.run("CREATE DATABASE \"odd \"\"one\"\"\"");
    for name in ["shop", "other", "far"] {
        run_in(&site.server, name, BEFORE);
    }
    site.backup();
    if !full_page_writes {
        site.server.run("ALTER SYSTEM SET full_page_writes = off");
        site.server.reload();
        wait_for("the setting", || (site.server.ask("SHOW full_page_writes") == "off").then_some(()));
    }
    for name in ["shop", "other", "far"] {
        run_in(&site.server, name, AFTER);
    }
    let strategies: &[&str] = if postgres.major >= 15 { &[" STRATEGY file_copy", " STRATEGY wal_log"] } else { &[""] };
    for (number, strategy) in strategies.iter().enumerate() {
        site.server.run(&format!("CREATE DATABASE copy{number} TEMPLATE other{strategy}"));
        site.server.run(&format!("CREATE DATABASE fresh{number} TEMPLATE shop{strategy}"));
        run_in(&site.server, &format!("copy{number}"), "UPDATE big SET n = 1;\nVACUUM quiet");
        run_in(&site.server, &format!("fresh{number}"), "CREATE TABLE mine AS SELECT 1 AS n");
    }
    site.server.run("CREATE DATABASE gone");
    site.server.run("DROP DATABASE gone");
    site.server.run("ALTER DATABASE far SET TABLESPACE pg_default");
    run_in(&site.server, "far", "UPDATE big SET n = 2;\nVACUUM");
    run_in(&site.server, "shop", "INSERT INTO long VALUES (4711, 'last')");
    site.server.archive_all();
    site
}

const SUM: &str = "SELECT (SELECT md5(string_agg(big::text, ',' ORDER BY id, n)) FROM big) || (SELECT count(*) FROM quiet)
    || (SELECT md5(string_agg(long::text, ',' ORDER BY id)) FROM long) || (SELECT count(*) FROM emptied WHERE a @> ARRAY[3])";

/// Restores shop only and asks about everything.
fn shop_only(postgres: &Postgres, options: Options, full_page_writes: bool) {
    let has_checksums = options.page_checksums;
    let site = busy(postgres, options, full_page_writes);
    let oid = |name: &str| site.server.ask(&format!("SELECT oid FROM pg_database WHERE datname = '{name}'"));
    let (other, far) = (oid("other"), oid("far"));
    let mapping = format!("{}={}", site.dir.join("space").display(), site.dir.join("space-of-clone").display());
    let words = ["--to", "latest", "--only-database", "shop", "--tablespace", &mapping];

    let plan = site.pitr(&["restore", "--dry-run", "--target"]).arg(site.dir.join("a")).args(words).run().ok();
    let plan = plan.stdout;
    for told in ["LEFT OUT", "other (", "far (", "odd \"one\" (", "CANNOT BE USED", "comes whole", "postgres, shop"] {
        assert!(plan.contains(told), "{told}: {plan}");
    }
    let mut restored = site.restore("restored", &words);
    let data = restored.data_dir().to_owned();
    assert_eq!(with_content(&data.join("base").join(&other)), Vec::<PathBuf>::new(), "nothing of it is fetched");
    assert_eq!(with_content(&site.dir.join("space-of-clone")), Vec::<PathBuf>::new(), "nor of the one in a tablespace");
    assert!(!with_content(&data.join("base").join(oid("shop"))).is_empty());

    restored.start();
    wait_for("the restored server to open", || (restored.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    let expected = ask_in(&site.server, "shop", SUM).expect("the source answers");
    assert_eq!(ask_in(&restored, "shop", SUM).expect("shop answers"), expected);
    run_in(&restored, "shop", "REINDEX DATABASE shop;\nVACUUM;\nINSERT INTO long VALUES (1, 'goes on')");
    let from_left_out = if postgres.major >= 15 { vec!["copy0"] } else { vec!["copy0", "nothing"] };
    for name in ["other", "far", "odd \"one\""].iter().chain(from_left_out.iter().take(1)) {
        let refused = ask_in(&restored, &name.replace(' ', "\\ "), "SELECT 1::text").expect_err("nobody can connect");
        let told = refused.as_db_error().map(|error| error.message().to_owned()).unwrap_or_default();
        assert!(told.contains("is not a valid data directory"), "{name}: {refused:?}");
    }
    // What the WAL made from a whole database is whole, and so is what it brought page by page.
    let whole: &[&str] = if postgres.major >= 15 { &["fresh0", "fresh1", "copy1"] } else { &["fresh0"] };
    for name in whole {
        let query = "SELECT count(*)::text FROM quiet";
        assert_eq!(
            ask_in(&restored, name, query).expect("answers"),
            ask_in(&site.server, name, query).expect("answers"),
            "{name}"
        );
    }
    assert_eq!(ask_in(&restored, "fresh0", "SELECT n::text FROM mine").expect("answers"), "1");
    // A crash and its recovery pass too, and then what the last lines tell.
    restored.kill9();
    restored.start();
    let in_list = site.server.ask(
        "SELECT string_agg(oid::text, ', ' ORDER BY oid) FROM pg_database \
        WHERE datname IN ('other', 'far', 'odd \"one\"', 'copy0')",
    );
    let select = format!("SELECT format('DROP DATABASE %I', datname) FROM pg_database WHERE oid IN ({in_list})");
    let again = site.try_restore(
        &site.dir.join("b"),
        &[&words[..4], &["--tablespace", &mapping.replace("of-clone", "of-b")]].concat(),
    );
    let again = again.ok();
    assert!(again.stdout.contains(&format!("{select} \\gexec")), "{again}");
    for drop in restored.ask_all(&select) {
        restored.run(&drop);
    }
    restored.run("ALTER SYSTEM RESET ignore_invalid_pages");
    restored.restart();
    assert_eq!(restored.ask("SHOW ignore_invalid_pages"), "off");
    assert!(!data.join("base").join(&other).exists() && !data.join("base").join(&far).exists());
    assert!(ask_in(&restored, "shop", "SELECT t FROM long WHERE id = 4711").expect("answers") == "last");
    run_in(&restored, "shop", "DROP TABLE emptied");
    restored.stop(Stop::Fast);

    // Without the setting that passes over holes the server could not have come here: the proof that this test asks something.
    if !has_checksums {
        let mut plain = Server::adopt(&site.dir, postgres, "b", &site.dir.join("b"));
        plain.configure("ignore_invalid_pages", "off");
        plain.spawn();
        plain.wait_for_end();
        assert!(plain.log().contains("WAL contains references to invalid pages"), "{}", plain.log());
    }
}

/// Promise: the named database is exactly right on every major, and replay gets through all that happens to the others.
#[test]
fn replay_passes_over_holes() {
    shop_only(&newest(), Options::default(), true);
}

/// The same on the oldest major.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn holes_of_the_oldest_major() {
    shop_only(&majors().remove(0), Options::default(), true);
}

/// Promise: the same with page checksums, which a page of zero bytes passes.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn holes_pass_checksums() {
    shop_only(&newest(), Options::default().page_checksums(), true);
}

/// Promise: the same where the source wrote no page images after the backup.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn holes_without_page_images() {
    shop_only(&majors().remove(0), Options::default(), false);
}

/// Promise: names are those of the backup; an unknown one lists them. It is a clone, in the words of every target, resumed and written
/// over like any other restore, and a later whole restore over it brings the rest.
#[test]
fn words_and_repetition() {
    let postgres = newest();
    let site = Site::new(&postgres);
    for name in ["CREATE DATABASE shop", "CREATE DATABASE other"] {
        site.server.run(name);
    }
    run_in(&site.server, "other", "CREATE TABLE t AS SELECT generate_series(1, 9999) AS n");
    site.server.run("CREATE TABLE t (n int)");
    site.backup();
    site.server.run("ALTER DATABASE shop RENAME TO store");
    let mark = commit(&site.server, 1);
    site.server.run("SELECT pg_create_restore_point('here')");
    commit(&site.server, 2);
    site.server.archive_all();

    let target = site.dir.join("restored");
    let only = ["--only-database", "shop", "--to"];
    let unknown = site.try_restore(&target, &["--only-database", "store", "--to", "latest"]).fails_with(2);
    unknown.says("other").says("shop");
    let words = ["--only-database", "shop", "--to", "latest", "--take-over"];
    site.try_restore(&target, &words).fails_with(2).says("cannot take over");
    assert!(!target.exists());
    for (at, to) in
        [&["--to", &mark.time][..], &["--to-name", "here"], &["--to-lsn", &mark.lsn], &["--to", "immediate"]]
            .iter()
            .enumerate()
    {
        let mut server = site.restore(&format!("to-{at}"), &[&only[..2], to].concat());
        server.start();
        wait_for("it to open", || (server.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
        assert_eq!(server.ask("SELECT count(*) FROM t"), if at == 3 { "0" } else { "1" });
        server.stop(Stop::Immediate);
    }
    // Whole, then some, then whole again: what lies there never passes for something else.
    let other = site.server.ask("SELECT oid FROM pg_database WHERE datname = 'other'");
    let base = target.join("base").join(other);
    site.try_restore(&target, &["--to", "latest"]).ok();
    let finished = site.try_restore(&target, &["--only-database", "shop", "--to", "latest", "--delta", "--json"]).ok();
    assert_eq!(with_content(&base), Vec::<PathBuf>::new());
    assert!(!base.join("PG_VERSION").exists());
    let document = json(&finished);
    assert_eq!(document["databases"]["left_out"][0]["name"], "other", "{finished}");
    let bytes = |part: &str| document[part]["bytes"].as_u64().expect("a number");
    assert_eq!(bytes("files") - bytes("written"), 8192, "all but pg_control is counted: {finished}");
    assert!(document["files"]["left_out_bytes"].as_u64() > Some(1_000_000), "{finished}");
    site.try_restore(&target, &["--to", "latest", "--delta", "--trust-times"]).ok();
    let mut server = Server::adopt(&site.dir, &postgres, "restored", &target);
    server.start();
    wait_for("it to open", || (server.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    assert_eq!(ask_in(&server, "other", "SELECT count(*)::text FROM t").expect("answers"), "9999");
    assert_eq!(server.ask("SHOW ignore_invalid_pages"), "off");
}

/// Promise: killed on its way, it leaves nothing that starts; the same command again completes it, with the named database whole and nothing of
/// the others; and a whole restore over what was left brings them too.
#[test]
fn killed_and_continued() {
    let postgres = newest();
    let site = Site::new(&postgres);
    for name in ["CREATE DATABASE shop", "CREATE DATABASE other"] {
        site.server.run(name);
    }
    for name in ["shop", "other"] {
        run_in(&site.server, name, "CREATE TABLE t AS SELECT n, md5(n::text) AS t FROM generate_series(1, 9999) n");
    }
    site.backup();
    for name in ["shop", "other"] {
        run_in(&site.server, name, "DELETE FROM t WHERE n % 3 = 0;\nINSERT INTO t VALUES (0, 'later')");
    }
    site.server.archive_all();
    let other = site.server.ask("SELECT oid FROM pg_database WHERE datname = 'other'");
    let sum = "SELECT md5(string_agg(t::text, ',' ORDER BY n)) FROM t";
    let expected = ask_in(&site.server, "shop", sum).expect("answers");

    let target = site.dir.join("restored");
    let only = ["--to", "latest", "--only-database", "shop"];
    for (call, when, words) in
        [("pwrite64", 60, &only[..]), ("renameat,rename,renameat2", 1, &only), ("pwrite64", 120, &only[..2])]
    {
        let died = killed(&site, &target, &only, call, when);
        assert!(died.status.signal().is_some(), "{call} {when}: {died}");
        assert!(!target.join("global/pg_control").exists(), "{call} {when}");
        let written = with_content(&target.join("base")).len();
        assert!(call != "pwrite64" || written > 0, "it was in the middle");
        assert_eq!(with_content(&target.join("base").join(&other)), Vec::<PathBuf>::new());
        site.try_restore(&target, words).ok();
        let is_whole = words.len() < only.len();
        assert_eq!(with_content(&target.join("base").join(&other)).is_empty(), !is_whole);
        let mut server = Server::adopt(&site.dir, &postgres, "restored", &target);
        server.start();
        wait_for("it to open", || (server.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
        assert_eq!(ask_in(&server, "shop", sum).expect("answers"), expected, "{call} {when}");
        match ask_in(&server, "other", sum) {
            Ok(found) => assert!(is_whole && found == expected, "{call} {when}: {found}"),
            Err(refused) => assert!(!is_whole, "{call} {when}: {refused:?}"),
        }
        server.stop(Stop::Immediate);
        fs::remove_dir_all(&target).expect("removed");
    }
}

/// Promise: a named database that is dropped before the target is told.
#[test]
fn dropped_on_the_way() {
    let site = Site::new(&newest());
    site.server.run("CREATE DATABASE shop");
    site.backup();
    site.server.run("DROP DATABASE shop");
    site.server.archive_all();
    let plan = site.pitr(&["restore", "--dry-run", "--only-database", "shop", "--to", "latest"]).run().ok();
    assert!(plan.stdout.contains("database shop is DROPPED before the target"), "{plan}");
}

/// Promise: passing over holes hides nothing of the database that is wanted: with --start, an invalid page there is an error.
#[test]
fn invalid_pages_of_the_wanted_database() {
    let postgres = majors().remove(0);
    let site = Site::new(&postgres);
    site.server.run("CREATE DATABASE shop");
    run_in(
        &site.server,
        "shop",
        "CREATE TABLE quiet AS SELECT g, repeat('x', 100) AS t FROM generate_series(1, 2000) g",
    );
    let file = ask_in(&site.server, "shop", "SELECT pg_relation_filepath('quiet')").expect("answers");
    site.server.run("CREATE DATABASE other");
    site.backup();
    run_in(&site.server, "shop", "VACUUM quiet");
    site.server.archive_all();
    // A server that loses a file before it starts.
    let target = site.dir.join("restored");
    let bin = site.dir.make_dir("bin");
    let script = format!(
        "#!/bin/sh\nif test \"$1\" = -D; then truncate -s 0 '{0}/{file}'; truncate -s 1M '{0}/{file}'; fi\nexec '{1}' \"$@\"\n",
        target.display(),
        postgres.bin("postgres").display()
    );
    site.dir.write("bin/postgres", script);
    fs::set_permissions(bin.join("postgres"), fs::Permissions::from_mode(0o755)).expect("changed");
    let words = ["--only-database", "shop", "--to", "latest", "--start", "--pg-bin", bin.to_str().expect("UTF-8")];
    site.try_restore(&target, &words).fails_with(22).says("invalid pages").says("OID");
    stop(&postgres, &target);
}
