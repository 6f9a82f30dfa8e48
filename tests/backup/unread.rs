//! `--source local` reads only what the WAL does not prove unchanged, and what is stored is what a read of everything finds.
//!
//! Two backups of the same state are compared, the one that was put together and one in another repository for which all was read: all
//! relation files have to be there in both, every page of main forks equal but for hints (see [`crate::pages`]), all other forks byte by byte.
//! The free space map and the visibility map are always read whole; unlogged relations have no main fork in either.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pitr::catalog::BackupInfo;
use pitr::repository::{Repository, ServerRepository};
use pitr::storage::Directory;
use pitr::wal::Lsn;

use crate::harness::random::{Random, seed};
use crate::harness::site::CLUSTER;
use crate::harness::{Options, Postgres, Run, Site, Stop, majors, newest, wait_for};
use crate::pages::masked;
use crate::unpacked::{Unpacked, repository};
use crate::{fill, judge};

const LOCAL: [&str; 3] = ["backup", "--source", "local"];

/// What the program says if it cannot pass over anything.
const ALL: &str = "all files are read";

/// How a cluster treats hints.
#[derive(Clone, Copy, Debug)]
enum Hints {
    /// They are not in the WAL.
    Unlogged,
    /// `wal_log_hints`.
    Logged,
    /// Page checksums, which log them too.
    Checksums,
}

fn last(repository: &ServerRepository) -> BackupInfo {
    let backups = repository.backups().expect("the list of backups");
    backups.into_iter().max_by_key(|info| info.stop_lsn).expect("a backup")
}

fn site(postgres: &Postgres, hints: Hints) -> Site {
    let options = Options::default().segment_size_mib(1).set("autovacuum", "off").set("max_prepared_transactions", 5);
    let options = match hints {
        Hints::Unlogged => options,
        Hints::Logged => options.set("wal_log_hints", "on"),
        Hints::Checksums => options.page_checksums(),
    };
    Site::with(postgres, options, "")
}

/// A backup by WAL; `None` if the program says that it read all files.
fn by_wal(site: &Site) -> Option<BackupInfo> {
    let said = site.pitr(&LOCAL).run().ok();
    let info = last(&repository(site));
    assert_eq!(info.changed_only, info.parent.is_some() && !said.stderr.contains(ALL), "{said}");
    assert_eq!(info.changed_only, said.stdout.contains("by the WAL"), "{said}");
    info.changed_only.then_some(info)
}

/// Another repository of the same cluster, into which everything is read.
struct Plain {
    config: PathBuf,
    repository: PathBuf,
}

impl Plain {
    fn beside(site: &Site) -> Plain {
        let repository = site.dir.join("plain");
        let text = fs::read_to_string(site.config()).expect("the configuration");
        let text = text.replace(&format!("{}\"", site.repository().display()), &format!("{}\"", repository.display()));
        let config = site.dir.write("plain.toml", text.replace("/spool\"", "/spool-plain\""));
        site.dir.make_dir("spool-plain");
        let plain = Plain { config, repository };
        plain.pitr(site, &["init"]);
        plain
    }

    fn pitr(&self, site: &Site, words: &[&str]) {
        site.dir.pitr("pitr").arg("--config").arg(&self.config).args(words).run().ok();
    }

    fn unpacked(&self, site: &Site, name: &str) -> Unpacked {
        self.pitr(site, &[&LOCAL[..], &["--full", "--wal", "stream"]].concat());
        let storage = Arc::new(Directory::open(&self.repository).expect("the repository's directory"));
        let repository = Repository::open(storage).expect("a repository");
        let cluster = repository.cluster(&CLUSTER.parse().expect("a cluster's name"));
        let servers = cluster.servers().expect("its servers");
        let server = cluster.server(servers[0].system_identifier);
        Unpacked::from(&server, &site.dir, last(&server).id, name)
    }
}

/// All relation files, by their path below the data directory.
fn relation_files(copy: &Unpacked) -> BTreeMap<String, PathBuf> {
    fn walk(above: &Path, name: &str, found: &mut BTreeMap<String, PathBuf>) {
        for entry in fs::read_dir(above).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = format!("{name}/{}", entry.file_name().to_string_lossy());
            let is_relation = entry.file_name().to_string_lossy().starts_with(|c: char| c.is_ascii_digit());
            if path.is_dir() {
                walk(&path, &name, found);
            } else if is_relation {
                found.insert(name, path);
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(&copy.data.join("base"), "base", &mut found);
    walk(&copy.data.join("global"), "global", &mut found);
    for (oid, place) in &copy.tablespaces {
        walk(place, &oid.to_string(), &mut found);
    }
    found
}

/// How many pages of main forks are the same to the byte, and how many but for hints. Fails where one is another.
fn compare(ours: &Unpacked, plain: &Unpacked, start: Lsn) -> (usize, usize) {
    let (ours, plain) = (relation_files(ours), relation_files(plain));
    assert_eq!(ours.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
    let (mut same, mut hinted) = (0, 0);
    for (name, path) in &ours {
        let (ours, plain) = (fs::read(path).expect("a file"), fs::read(&plain[name]).expect("a file"));
        assert_eq!(ours.len(), plain.len(), "{name}");
        if name.rsplit('/').next().expect("a name").contains('_') {
            assert!(ours == plain, "{name} differs");
            continue;
        }
        for (number, (ours, plain)) in ours.chunks(8192).zip(plain.chunks(8192)).enumerate() {
            if ours == plain {
                same += 1;
                continue;
            }
            hinted += 1;
            assert!(masked(ours) == masked(plain), "block {number} of {name} differs in more than hints");
            let lsn = |page: &[u8]| u64::from_le_bytes(page[..8].try_into().expect("eight bytes")).rotate_left(32);
            assert!(lsn(ours) == lsn(plain) || lsn(plain) >= start.0, "block {number} of {name} is of another time");
        }
    }
    (same, hinted)
}

/// Promise: over all that changes relations, in any order, with crashes between, what is put together equals what a read of everything
/// finds, page by page; and it is restored to the same rows.
#[test]
fn equals_a_read_of_everything() {
    let seed = seed();
    eprintln!("PITR_TEST_SEED={seed}");
    equals(&newest(), Hints::Checksums, 3, seed);
}

/// The same on every major, with hints treated in turn as they can be.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn equals_a_read_of_everything_on_every_major() {
    let seed = seed();
    eprintln!("PITR_TEST_SEED={seed}");
    let hints = [Hints::Unlogged, Hints::Logged, Hints::Checksums];
    for (number, postgres) in majors().iter().enumerate() {
        let hints = hints[(number + usize::try_from(seed % 3).expect("small")) % 3];
        eprintln!("PostgreSQL {}, {hints:?}", postgres.major);
        equals(postgres, hints, 4, seed);
    }
}

fn equals(postgres: &Postgres, hints: Hints, rounds: usize, seed: u64) {
    let mut site = site(postgres, hints);
    let mut work = Work::begin(&site, seed);
    let plain = Plain::beside(&site);
    assert_eq!(by_wal(&site), None, "there is no earlier backup");
    for round in 1..=rounds {
        under_load(&site, round);
        work.go_on(&mut site);
        let info = by_wal(&site).expect("the WAL tells what has changed");
        let ours = Unpacked::from(&repository(&site), &site.dir, info.id, &format!("ours-{round}"));
        let theirs = plain.unpacked(&site, &format!("plain-{round}"));
        let (same, hinted) = compare(&ours, &theirs, info.start_lsn);
        eprintln!("round {round}: {same} pages are the same, {hinted} but for hints; stored {}", info.stored_bytes);
        ours.verify(postgres);
        if round == rounds {
            let digests = work.digests(&site.server);
            site.server.archive_all();
            let mut copy = ours.start(&site, postgres);
            assert_eq!(work.digests(&copy), digests);
            copy.run("REINDEX DATABASE postgres");
            copy.stop(Stop::Fast);
        }
        for place in [&ours, &theirs] {
            fs::remove_dir_all(&place.data).expect("removed");
        }
    }
}

/// A backup while rows change that do not change otherwise: the next one refers to it, and has to see what changed after it began.
fn under_load(site: &Site, round: usize) {
    std::thread::scope(|scope| {
        let backup = scope.spawn(|| site.pitr(&[&LOCAL[..], &["--rate-limit", "8MB"]].concat()).run().ok());
        let begun = "SELECT 1 FROM pg_stat_activity WHERE query ~ 'SELECT pg_catalog.pg_(start_backup|backup_start)' AND state = 'idle'";
        wait_for("the backup to begin", || site.server.ask_all(begun).into_iter().next());
        site.server.run(&format!("UPDATE busy SET round = {round} WHERE n % 50 = {round}"));
        assert!(!backup.is_finished(), "it goes on");
        let said = backup.join().expect("the backup is taken");
        assert!(said.stdout.contains("by the WAL"), "{said}");
    });
}

/// What changes relations.
struct Work {
    random: Random,
    round: usize,
    databases: Vec<String>,
}

impl Work {
    fn begin(site: &Site, seed: u64) -> Work {
        let place = site.dir.make_dir("elsewhere");
        site.server.run(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", place.display()));
        site.server.run(
            "CREATE TABLE big (n int, round int, text text) WITH (fillfactor = 90);
             INSERT INTO big SELECT n, 0, repeat(md5(n::text), 8) FROM generate_series(1, 30000) n;
             CREATE TABLE idle AS SELECT n, repeat(md5(n::text), 12) AS text FROM generate_series(1, 20000) n;
             CREATE INDEX ON idle (n);
             -- So much that the work's WAL is worth reading.
             CREATE TABLE cold AS SELECT n, repeat(md5(n::text), 24) AS text FROM generate_series(1, 70000) n;
             CREATE TABLE busy AS SELECT n, 0 AS round, repeat(md5(n::text), 10) AS text FROM generate_series(1, 9000) n;
             CREATE TABLE cut (n int, text text); CREATE SEQUENCE numbers;
             CREATE TABLE moved AS SELECT n, md5(n::text) AS text FROM generate_series(1, 5000) n;
             CREATE TABLE toasted (n int, text text); ALTER TABLE toasted ALTER text SET STORAGE EXTERNAL;
             CREATE UNLOGGED TABLE fleeting AS SELECT n FROM generate_series(1, 3000) n;
             CREATE TABLE points AS SELECT n, point(n, n) AS at, ARRAY[n, n + 1] AS tags FROM generate_series(1, 5000) n",
        );
        site.server.run("VACUUM");
        Work { random: Random::new(seed), round: 0, databases: Vec::new() }
    }

    /// Some of the statements, at random.
    fn go_on(&mut self, site: &mut Site) {
        self.round += 1;
        for _ in 0..self.random.between(5, 9) {
            self.step(site);
        }
    }

    fn step(&mut self, site: &mut Site) {
        let round = self.round;
        let of = self.random.between(2, 300);
        let server = &mut site.server;
        let modern = server.postgres.major >= 15;
        match self.random.between(0, 17) {
            0 => server.run(&format!("UPDATE big SET round = {round} WHERE n % 500 = {of}")),
            1 => {
                server.run(&format!("DELETE FROM big WHERE n % 700 = {of}"));
                server.run("VACUUM big");
            }
            // The last blocks are free, and given back to the file system.
            2 => {
                server.run(&format!("INSERT INTO cut SELECT n, repeat('z', 400) FROM generate_series(1, {of} * 10) n"));
                server.run(&format!("DELETE FROM cut WHERE n > {of}"));
                server.run("VACUUM cut");
            }
            3 => server.run(&format!("TRUNCATE cut; INSERT INTO cut SELECT n, 'y' FROM generate_series(1, {of}) n")),
            4 => {
                let to = if self.random.coin() { "elsewhere" } else { "pg_default" };
                server.run(&format!("ALTER TABLE moved SET TABLESPACE {to}"));
                server.run(&format!("UPDATE moved SET text = 'x' WHERE n % 100 = {of} % 100"));
            }
            5 => {
                let name = format!("made_{}", self.databases.len());
                let strategy = match (modern, self.random.coin()) {
                    (true, true) => "STRATEGY wal_log",
                    (true, false) => "STRATEGY file_copy",
                    (false, _) => "",
                };
                server.run(&format!("CREATE DATABASE {name} {strategy}"));
                let other = server.conninfo().replace("dbname=postgres", &format!("dbname={name}"));
                let mut client = postgres::Client::connect(&other, postgres::NoTls).expect("the new database");
                client.batch_execute("CREATE TABLE inside AS SELECT generate_series(1, 1000) AS n").expect("a table");
                self.databases.push(name);
            }
            6 => match self.databases.pop() {
                Some(name) if self.random.coin() => server.run(&format!("DROP DATABASE {name}")),
                Some(name) => {
                    let to = if self.random.coin() { "elsewhere" } else { "pg_default" };
                    server.run(&format!("ALTER DATABASE {name} SET TABLESPACE {to}"));
                    self.databases.push(name);
                }
                None => {}
            },
            7 => {
                let kinds = [
                    "big (n)",
                    "big USING hash (text)",
                    "big USING brin (n)",
                    "points USING gist (at)",
                    "points USING spgist (at)",
                    "points USING gin (tags)",
                ];
                server.run(&format!("CREATE INDEX ON {}", kinds[self.random.between(0, kinds.len() - 1)]));
            }
            8 => server.run(&format!(
                "INSERT INTO points SELECT n, point(n, {of}), ARRAY[n, {of}] FROM generate_series(1, {of}) n; \
                 DELETE FROM points WHERE n % 400 = {of}"
            )),
            9 => ["points", "moved", "idle"].iter().for_each(|table| server.run(&format!("VACUUM {table}"))),
            // Hints.
            10 => server.run("SELECT count(*) FROM big; SELECT count(*) FROM points; SELECT count(*) FROM idle"),
            11 => {
                server.run("SELECT nextval('numbers') FROM generate_series(1, 40)");
            }
            12 => server.run(&format!(
                "BEGIN; UPDATE big SET round = -1 WHERE n % 900 = {of}; CREATE TABLE never AS SELECT * FROM moved; ROLLBACK"
            )),
            13 => {
                server.run(&format!("BEGIN; UPDATE moved SET text = 'p' WHERE n = {of}; PREPARE TRANSACTION 'p'"));
                server.run(if self.random.coin() { "COMMIT PREPARED 'p'" } else { "ROLLBACK PREPARED 'p'" });
            }
            14 => {
                server.run("CHECKPOINT");
                server.run(&format!("UPDATE big SET round = -{round} WHERE n % 300 = {of}"));
                server.stop(Stop::Immediate);
                server.start();
            }
            15 => server.run(&format!(
                "INSERT INTO toasted SELECT n, repeat(md5(n::text), 300) FROM generate_series(1, {of} / 10) n; \
                 DELETE FROM toasted WHERE n % 3 = 0"
            )),
            16 => {
                server.run(if self.random.coin() { "VACUUM FULL moved" } else { "CLUSTER idle USING idle_n_idx" });
            }
            _ => {
                let to = if self.random.coin() { "LOGGED" } else { "UNLOGGED" };
                server.run(&format!("ALTER TABLE moved SET {to}"));
            }
        }
    }

    /// A digest of the rows of every table; unlogged ones come back empty.
    fn digests(&self, server: &crate::harness::Server) -> Vec<String> {
        let unlogged = server.ask("SELECT relpersistence FROM pg_class WHERE relname = 'moved'") == "u";
        let tables = ["big", "idle", "cold", "busy", "cut", "moved", "toasted", "points"];
        let tables = tables.iter().filter(|table| !unlogged || **table != "moved");
        let digest = |table: &&str| {
            let sql = format!("SELECT count(*) || md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t");
            format!("{table}: {}", server.ask(&sql))
        };
        tables.map(digest).collect()
    }
}

/// Promise: what the WAL proves unchanged is not read: a page that rots on the disk meanwhile stays good in the backup. One in a chunk with
/// changes is seen.
#[test]
fn rot_on_the_disk_stays_out() {
    let site = site(&newest(), Hints::Checksums);
    fill(&site.server);
    site.server.run("CREATE TABLE idle AS SELECT n, repeat(md5(n::text), 8) AS text FROM generate_series(1, 20000) n");
    assert_eq!(by_wal(&site), None);
    let path = site.server.ask("SELECT pg_relation_filepath('idle')");
    let file = site.server.data_dir().join(&path);
    let good = fs::read(&file).expect("the table's file");
    assert!(good.len() > 3 << 20);
    let file = fs::OpenOptions::new().write(true).open(&file).expect("the table's file");
    file.write_all_at(b"rotten", 70 * 8192 + 4000).expect("a few bytes in a page");
    site.server.run("UPDATE word SET word = 'pear'");
    let info = by_wal(&site).expect("the WAL tells what has changed");
    let copy = Unpacked::from(&repository(&site), &site.dir, info.id, "copy");
    assert!(fs::read(copy.data.join(&path)).expect("the table's file") == good);
    copy.verify(&newest());

    site.pitr(&[&LOCAL[..], &["--full-read"]].concat()).run().fails_with(21);
    assert_eq!(last(&repository(&site)).bad_pages, 1);
    // The damage is known: everything is read until there is none.
    site.pitr(&LOCAL).run().fails_with(21).says("that one has damaged pages");
    file.write_all_at(&good[70 * 8192..71 * 8192], 70 * 8192).expect("the page as it was");
    assert_eq!(by_wal(&site), None);
    let healed = by_wal(&site).expect("the WAL tells what has changed");
    assert_eq!(healed.bad_pages, 0);
    let copy = Unpacked::from(&repository(&site), &site.dir, healed.id, "healed");
    assert!(fs::read(copy.data.join(&path)).expect("the table's file") == good);
}

/// Promise: where the WAL does not tell everything, everything is read, and the reason is given.
#[test]
fn everything_is_read_without_proof() {
    let mut site = site(&newest(), Hints::Unlogged);
    fill(&site.server);
    by_wal(&site);
    let says = |site: &Site, why: &str| {
        let said = site.pitr(&LOCAL).run().ok();
        assert!(said.stderr.contains(ALL) && said.stderr.contains(why), "{why}: {said}");
        assert!(!last(&repository(site)).changed_only);
        assert!(by_wal(site).is_some(), "from there on it is told again");
    };
    // What is changed without WAL.
    site.server.configure("wal_level", "minimal");
    site.server.configure("max_wal_senders", "0");
    site.server.configure("archive_mode", "off");
    site.server.restart();
    site.server.run("BEGIN; CREATE TABLE unlogged_load (n int); COPY unlogged_load FROM PROGRAM 'seq 1000'; COMMIT");
    site.server.configure("wal_level", "replica");
    site.server.configure("max_wal_senders", "10");
    site.server.configure("archive_mode", "on");
    site.server.restart();
    says(&site, "wal_level was minimal");

    // A segment is gone from the repository and from the server.
    site.server.run("UPDATE word SET word = 'apple'");
    let gone = site.server.archive_all();
    (0..3).for_each(|_| drop(site.server.archive_all()));
    site.server.run("CHECKPOINT");
    let folder = site.repository().join("main").join(last(&repository(&site)).system_identifier.to_string());
    let object = folder.join("wal").join(&gone[..8]);
    let object = fs::read_dir(&object).expect("groups").map(|group| group.expect("an entry").path().join(&gone));
    let object = object.into_iter().find(|path| path.exists()).expect("the segment");
    fs::remove_file(&object).expect("removed");
    let local = site.server.data_dir().join("pg_wal").join(&gone);
    if local.exists() {
        fs::remove_file(&local).expect("removed");
    }
    says(&site, &gone);

    // More WAL than it is worth.
    for _ in 0..16 {
        site.server.run("UPDATE big SET text = text || '.'");
    }
    says(&site, "reading the data is quicker");

    // Checksums are computed without WAL.
    site.server.stop(Stop::Fast);
    site.server.tool("pg_checksums").arg("--enable").arg("-D").arg(site.server.data_dir()).run().ok();
    site.server.start();
    says(&site, "page checksums were switched on or off");
    let info = last(&repository(&site));
    judge(&Unpacked::of(&site, info.id, "copy").start(&site, &newest()));
}
