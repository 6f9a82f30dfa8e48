//! No lock-in: what is stored can be restored with coreutils, lz4, zstd and jq alone, for ever.

mod harness;

use harness::{Options, Run, Server, Site, as_test_user, wait_for};

fn script() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/restore-without-pitr.sh")
}

/// Restores the site's cluster by the script, with these settings, and starts a server on it.
fn restore(site: &Site, name: &str, settings: &[&str]) -> Server {
    // The checkout may lie where the test user cannot reach.
    let copy = site.dir.write("restore-without-pitr.sh", std::fs::read(script()).expect("the script is there"));
    let target = site.dir.join(name);
    let mut command = as_test_user("bash");
    command.arg(copy).arg(site.repository()).args(["main", "latest"]).arg(&target).args(settings);
    command.run().ok();
    let mut server = Server::adopt(&site.dir, &site.server.postgres, name, &target);
    server.start();
    wait_for("the restored server to open", || (server.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    server
}

/// A cluster with a tablespace comes back whole, to its end and to a restore point, whatever it was compressed with.
fn comes_back(compression: &str) {
    let options = Options::default().segment_size_mib(1).page_checksums();
    let site = Site::with(&harness::newest(), options, &format!("compression = \"{compression}\""));
    let place = site.dir.make_dir("space");
    site.server.run(&format!("CREATE TABLESPACE space LOCATION '{}'", place.display()));
    site.server.run(
        "CREATE TABLE elsewhere TABLESPACE space AS SELECT g, md5(g::text) FROM generate_series(1, 20000) g; \
         CREATE TABLE zeros (t text); ALTER TABLE zeros ALTER t SET STORAGE EXTERNAL; \
         INSERT INTO zeros SELECT repeat('0', 1000000)",
    );
    // The second backup refers to chunks of the first, and lays pages over some.
    site.backup();
    site.server.run("UPDATE elsewhere SET md5 = 'new' WHERE g = 19000");
    site.backup();
    site.server.run("INSERT INTO elsewhere SELECT g, 'later' FROM generate_series(1, 1000) g");
    site.server.ask("SELECT pg_create_restore_point('here')");
    site.server.run("INSERT INTO elsewhere SELECT g, 'too late' FROM generate_series(1, 7) g");
    site.server.archive_all();

    let sum = "SELECT count(*) || ' ' || sum(hashtext(md5)::bigint) FROM elsewhere";
    let restored = restore(&site, "to-the-end", &[]);
    assert_eq!(restored.ask(sum), site.server.ask(sum));
    assert_eq!(restored.ask("SELECT length(t) FROM zeros"), "1000000");
    let links = "SELECT count(*) FROM pg_tablespace WHERE pg_tablespace_location(oid) LIKE '%to-the-end.tablespaces%'";
    assert_eq!(restored.ask(links), "1", "the living cluster's tablespace is not touched");
    drop(restored);

    let restored = restore(&site, "to-a-name", &["recovery_target_name = 'here'"]);
    assert_eq!(restored.ask("SELECT count(*) FROM elsewhere"), "21000");
}

/// With LZ4, the default.
#[test]
fn lz4() {
    comes_back("lz4");
}

/// With Zstandard.
#[test]
fn zstd() {
    comes_back("zstd:3");
}

/// A manifest that lost or changed a line is refused by the script too, before anything is written.
#[test]
fn damaged_manifest() {
    let site = Site::new(&harness::newest());
    site.backup();
    let manifest = as_test_user("find").arg(site.repository()).args(["-name", "manifest"]).run().ok().stdout;
    let path = std::path::Path::new(manifest.trim());
    let lines = as_test_user("lz4").arg("-dcq").arg(path).run().ok().stdout;
    let without = lines.lines().filter(|line| !line.contains("PG_VERSION")).collect::<Vec<_>>().join("\n") + "\n";
    let plain = site.dir.write("edited", without);
    as_test_user("lz4").arg("-zfq").arg(&plain).arg(path).run().ok();
    let copy = site.dir.write("restore-without-pitr.sh", std::fs::read(script()).expect("the script is there"));
    let mut command = as_test_user("bash");
    command.arg(copy).arg(site.repository()).args(["main", "latest"]).arg(site.dir.join("target"));
    command.run().fails_with(1).says("is damaged");
    assert!(!site.dir.join("target").exists(), "nothing was written");
}
