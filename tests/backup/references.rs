//! Backups after the first: full to restore, small to store.

use std::fs;

use pitr::catalog::{BackupId, BackupInfo};
use pitr::chunk::ChunkContent;
use pitr::manifest::ManifestLine;

use crate::harness::{Options, Postgres, Run, Server, Site, Stop, majors, newest};
use crate::unpacked::{Unpacked, repository};

/// All backups, oldest first.
fn backups(site: &Site) -> Vec<BackupInfo> {
    let mut backups = repository(site).backups().expect("the list of backups");
    backups.sort_by_key(|info| info.stop_lsn);
    backups
}

/// Rows scattered over a table of 64 MB, all of whose pages say in which round they were written last.
fn scatter(server: &Server, round: u32, one_in: u32) {
    let rows = one_in * 14;
    server.run(&format!("UPDATE big SET round = {round} WHERE n % {rows} = {}", (round * 14 * 7) % rows));
    server.run("VACUUM big");
}

fn state(server: &Server) -> String {
    server.ask("SELECT round || ':' || count(*) || ':' || sum(n) FROM big GROUP BY round ORDER BY round")
}

fn grown(postgres: &Postgres) -> Site {
    let site = Site::with(postgres, Options::default().page_checksums(), "");
    // Fourteen rows a page, and room for their new versions in it.
    site.server.run(
        "CREATE TABLE big (n int, round int, fill text) WITH (fillfactor = 92, autovacuum_enabled = off);
         INSERT INTO big SELECT n, 0, (SELECT string_agg(md5(n || ':' || i), '') FROM generate_series(1, 15) i) \
         FROM generate_series(1, 112000) n",
    );
    site.server.run("VACUUM FREEZE big");
    site
}

/// Promise: a backup after small changes stores about what changed, any of them is restored whole; and each says what it refers to.
#[test]
fn later_backups_store_what_changed() {
    store_what_changed(&[newest()]);
}

/// The same on every major, in both forms of the protocol.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn later_backups_of_every_major() {
    store_what_changed(&majors());
}

fn store_what_changed(versions: &[Postgres]) {
    for postgres in versions {
        let site = grown(postgres);
        site.backup();
        let mut states = vec![state(&site.server)];
        for round in 1..4 {
            scatter(&site.server, round, 50);
            states.push(state(&site.server));
            site.backup();
        }
        let all = backups(&site);
        let first = &all[0];
        assert_eq!((first.parent, first.referenced_bytes), (None, 0));
        for (earlier, info) in all.iter().zip(&all[1..]) {
            assert_eq!(info.parent, Some(earlier.id));
            assert!(info.referenced_bytes > first.stored_bytes / 2, "{info:?}");
            // 2 % of 8000 pages, hardly compressible, and what else a cluster writes.
            assert!(info.stored_bytes < first.stored_bytes / 10, "{} of {}", info.stored_bytes, first.stored_bytes);
        }
        assert!(has_sets(&site, all[3].id) > 100);
        for (info, expected) in all.iter().zip(&states).rev() {
            let unpacked = Unpacked::of(&site, info.id, &format!("copy-{}", info.id));
            unpacked.verify(postgres);
            let name = format!("restored-{}", info.id);
            let mut restored =
                site.restore(&name, &["--to", "immediate", "--backup", &info.id.to_string(), "--action", "promote"]);
            restored.start();
            assert_eq!(state(&restored), *expected);
            restored.stop(Stop::Immediate);
        }
    }
}

/// How many chunks of a backup are a base with page sets.
fn has_sets(site: &Site, id: BackupId) -> usize {
    let lines = repository(site).open_manifest(id).expect("the manifest");
    let files = lines.filter_map(|line| match line.expect("a good line") {
        ManifestLine::File(file) => Some(file.chunks),
        _ => None,
    });
    let chunks = files.flatten();
    chunks.filter(|chunk| matches!(&chunk.content, ChunkContent::Stored { sets, .. } if !sets.is_empty())).count()
}

/// Promise: a new backup stores anew what earlier ones have lost, one whose manifest is damaged is passed over with a warning, and
/// `--full` refers to nothing.
#[test]
fn what_is_lost_is_stored_anew() {
    let site = grown(&newest());
    site.backup();
    let first = backups(&site).remove(0);
    let folder = site.repository().join("main").join(first.system_identifier.to_string());
    let packs = fs::read_dir(folder.join("packs")).expect("packs");
    let packs: Vec<_> = packs.map(|entry| entry.expect("an entry").path()).collect();
    let [pack] = packs.as_slice() else { panic!("{packs:?}") };
    // Its index cannot be read: which pages have changed is not known, and unchanged chunks need none.
    let mut bytes = fs::read(pack).expect("a pack");
    let end = bytes.len() - 20;
    bytes[end] ^= 1;
    fs::write(pack, &bytes).expect("written");
    site.server.run("UPDATE big SET round = 1 WHERE n < 1000");
    let said = site.backup();
    assert!(said.stderr.contains("are stored anew"), "{said}");
    bytes[end] ^= 1;
    fs::write(pack, &bytes).expect("written");
    let second = backups(&site).remove(1);
    assert_eq!((second.parent, has_sets(&site, second.id)), (Some(first.id), 0));
    assert!(second.stored_bytes < first.stored_bytes / 4, "{second:?}");
    Unpacked::of(&site, second.id, "second").verify(&newest());

    let manifest = folder.join("backups").join(second.id.to_string()).join("manifest");
    let good = fs::read(&manifest).expect("readable");
    fs::write(&manifest, &good[..good.len() / 2]).expect("written");
    let said = site.backup();
    assert!(said.stderr.contains("cannot refer to base backup") && said.stderr.contains("WARNING"), "{said}");
    assert_eq!(backups(&site)[2].parent, Some(first.id));
    fs::write(&manifest, good).expect("written");

    // It is gone, and with it all that the later ones refer to: the next one has no need of it.
    fs::remove_file(pack).expect("removed");
    site.backup();
    let healed = backups(&site).remove(3);
    assert!(healed.stored_bytes > first.stored_bytes / 2, "{healed:?}");
    Unpacked::of(&site, healed.id, "healed").verify(&newest());

    site.pitr(&["backup", "--full"]).run().ok();
    let full = backups(&site).remove(4);
    assert_eq!((full.parent, full.referenced_bytes), (None, 0));
    assert!(full.stored_bytes > 40 << 20, "{full:?}");
    let manifest = repository(&site).open_manifest(full.id).expect("the manifest");
    assert_eq!(manifest.header().pack_sources, [full.id]);
}

/// Promise: a server that knows what has changed (17 and later) is asked for that only; what is stored is the same as from a full read:
/// whole files, whole label, and a manifest that PostgreSQL's own tool agrees with. A server that cannot tell is read in full, and that
/// is said.
#[test]
fn only_what_changed_is_read() {
    read_what_changed(&[newest()], 2);
}

/// The same on every major that can, over more backups.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn only_what_changed_is_read_on_every_major() {
    read_what_changed(&majors(), 3);
}

fn read_what_changed(versions: &[Postgres], rounds: u32) {
    for postgres in versions.iter().filter(|postgres| postgres.major >= 17) {
        let options = Options::default().page_checksums().set("summarize_wal", "on");
        let mut site = Site::with(postgres, options, "");
        let place = site.dir.make_dir("elsewhere");
        site.server.run(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", place.display()));
        site.server.run(
            "CREATE TABLE big (n int, round int, fill text) WITH (fillfactor = 92, autovacuum_enabled = off);
             INSERT INTO big SELECT n, 0, (SELECT string_agg(md5(n || ':' || i), '') FROM generate_series(1, 15) i) \
             FROM generate_series(1, 42000) n;
             CREATE TABLE shrinks AS SELECT n, repeat('x', 500) AS t FROM generate_series(1, 20000) n;
             CREATE TABLE rewritten AS SELECT n FROM generate_series(1, 20000) n;
             CREATE TABLE far TABLESPACE elsewhere AS SELECT n FROM generate_series(1, 50000) n;
             CREATE TABLE dropped AS SELECT 1 AS n; CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS n; CREATE INDEX ON big (n)",
        );
        site.server.run("VACUUM FREEZE big");
        let said = site.backup();
        assert!(!said.stdout.contains("WAL summaries"), "{said}");
        for round in 1..=rounds {
            scatter(&site.server, round, 20);
            site.server.run(&format!(
                "DELETE FROM shrinks WHERE n > 20000 - {round} * 6000; INSERT INTO rewritten VALUES ({round});
                 UPDATE far SET n = -n WHERE n % 40000 = {round}; CREATE TABLE new_{round} AS SELECT {round} AS n"
            ));
            site.server.run("VACUUM shrinks");
            match round {
                1 => ["DROP TABLE dropped", "CREATE DATABASE other"].iter().for_each(|sql| site.server.run(sql)),
                2 => site.server.run("VACUUM FULL rewritten"),
                _ => site.server.run("TRUNCATE rewritten; INSERT INTO rewritten VALUES (7)"),
            }
            let said = site.backup();
            assert!(said.stdout.contains("by the server's WAL summaries"), "PostgreSQL {}: {said}", postgres.major);
            let last = backups(&site).pop().expect("a backup");
            assert!(last.changed_only && last.parent.is_some(), "{last:?}");
            // The same moment, read in full: nothing is written in between but what a checkpoint does.
            let everything = "SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM";
            let name = format!("copy-{round}");
            let moved = format!("{}={}", place.display(), site.dir.join(format!("moved-{round}")).display());
            let id = last.id.to_string();
            let words = ["--to", "immediate", "--backup", &id, "--action", "promote", "--tablespace", &moved];
            let mut copy = site.restore(&name, &words);
            let label = std::fs::read_to_string(site.dir.join(&name).join("backup_label")).expect("the label");
            assert!(label.contains("START WAL LOCATION") && !label.contains("INCREMENTAL"), "{label}");
            Unpacked::of(&site, last.id, &format!("files-{round}")).verify(postgres);
            copy.start();
            for table in ["big", "shrinks", "rewritten", "far", &format!("new_{round}")] {
                let sql = format!("{everything} (SELECT * FROM {table}) t");
                assert_eq!(copy.ask(&sql), site.server.ask(&sql), "{table} in round {round}");
            }
            copy.run("SELECT pg_catalog.pg_relation_size('big'); REINDEX TABLE big");
            copy.stop(Stop::Immediate);
        }
        let said = site.pitr(&["backup", "--full-read"]).run().ok();
        assert!(!said.stdout.contains("WAL summaries") && said.stdout.contains("refers to"), "{said}");
        // What has changed cannot be laid over what has rotted: that is told, with what helps, and it does help.
        let first = backups(&site).remove(0);
        let folder = site.repository().join("main").join(first.system_identifier.to_string()).join("packs");
        let pack = folder.join(format!("{}.000000", first.id));
        let good = fs::read(&pack).expect("the first pack");
        let mut bad = good.clone();
        bad.iter_mut().step_by(10_000).for_each(|byte| *byte ^= 0x10);
        fs::write(&pack, bad).expect("written");
        scatter(&site.server, 9, 20);
        let said = site.pitr(&["backup"]).run().fails_with(11);
        said.says("cannot put the base backup together with the earlier one").says("--full-read");
        site.pitr(&["backup", "--full-read"]).run().ok();
        fs::write(&pack, good).expect("written");
        // Without the summaries since, it cannot tell.
        site.server.configure("summarize_wal", "off");
        site.server.reload();
        site.server.archive_all();
        crate::harness::wait_for("the summarizer to end", || {
            let running = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsummarizer'";
            (site.server.ask(running) == "0").then_some(())
        });
        let said = site.backup();
        assert!(!said.stdout.contains("WAL summaries"), "{said}");
    }
}

/// Promise: rows that were deleted stay deleted in index-only scans, although the server's WAL summaries do not know that their pages are
/// no longer visible to all.
#[test]
fn visibility_maps_come_whole() {
    for postgres in majors().iter().filter(|postgres| postgres.major >= 17) {
        let options = Options::default().set("summarize_wal", "on").set("autovacuum", "off");
        let site = Site::with(postgres, options, "");
        site.server.run("CREATE TABLE t AS SELECT n, repeat('x', 100) AS f FROM generate_series(1, 100000) n");
        site.server.run("CREATE INDEX ON t (n)");
        site.server.run("VACUUM t");
        site.backup();
        site.server.run("DELETE FROM t WHERE n % 1000 = 0");
        site.server.run("CHECKPOINT");
        let said = site.backup();
        assert!(said.stdout.contains("by the server's WAL summaries"), "{said}");
        let mut copy = site.restore("copy", &["--to", "immediate", "--action", "promote"]);
        copy.start();
        let scan = "SET enable_seqscan = off; SET enable_bitmapscan = off;";
        let mut client = copy.client();
        client.batch_execute(scan).expect("settings");
        let plan = client.query("EXPLAIN SELECT count(n) FROM t WHERE n > 0", &[]).expect("a plan");
        assert!(plan.iter().any(|row| row.get::<_, &str>(0).contains("Index Only Scan")));
        let found: i64 = client.query_one("SELECT count(n) FROM t WHERE n > 0", &[]).expect("a count").get(0);
        assert_eq!(found, 99_900, "PostgreSQL {}", postgres.major);
    }
}
