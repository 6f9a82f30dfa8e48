//! Our reader of the WAL and `pg_waldump` tell the same, record by record: length, transaction, place, the record before,
//! every block reference and its page image, and of the records of interest also what they say.
//!
//! Servers write records of every kind, crash, lose the end of a record, recover, and go to a new timeline. 15, 16 and 18 are the majors whose
//! `pg_waldump` can be had; Debian's 15 is built with LZ4 and Zstandard.
//!
//! `PITR_WRITE_SEEDS=DIR` keeps a record of each kind as a seed for the fuzz target `wal_record`.

mod compare;
#[path = "../harness/mod.rs"]
mod harness;
mod ours;
mod pages;
mod record;
mod seeds;
mod theirs;
mod work;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use harness::{Options, Postgres, Server, Stop, TestDir, debian, majors};
use pitr::wal::WalFileName;

/// Servers whose WAL a `pg_waldump` can read; for 15 Debian's, which has more compressions.
fn judged() -> Vec<Postgres> {
    majors().into_iter().map(with_most_methods).filter(|postgres| postgres.waldump().is_some()).collect()
}

fn with_most_methods(postgres: Postgres) -> Postgres {
    if postgres.major == 15 { debian().unwrap_or(postgres) } else { postgres }
}

/// How a server writes its WAL.
#[derive(Clone, Debug)]
struct Manner {
    compression: String,
    wal_level: &'static str,
    segment_size_mib: u32,
    page_checksums: bool,
}

impl Manner {
    fn options(&self, archive: &Path) -> Options {
        let options = Options::default()
            .segment_size_mib(self.segment_size_mib)
            .archive_command(&format!("cp %p {}/%f", archive.display()))
            .set("wal_compression", &self.compression)
            .set("wal_level", self.wal_level)
            .set("autovacuum", "off")
            .set("max_prepared_transactions", 7)
            // What nobody flushes is lost in a crash.
            .set("wal_writer_delay", 10_000)
            // Nothing is there but what the server itself has.
            .set("restore_command", "false");
        if self.page_checksums { options.page_checksums() } else { options }
    }
}

/// Every way to compress page images that the server's build has.
fn compressions(postgres: &Postgres) -> Vec<String> {
    let dir = TestDir::new();
    let server = Server::running(&dir, postgres, &Options::default());
    let all = server.ask_all("SELECT unnest(enumvals) FROM pg_settings WHERE name = 'wal_compression'");
    if all.is_empty() {
        // 13 and 14 have one method.
        return vec!["on".to_owned(), "off".to_owned()];
    }
    all.into_iter().filter(|method| method != "on").collect()
}

/// Segments of a timeline, in order.
fn segments(archive: &Path, timeline: u32) -> Vec<PathBuf> {
    let names = fs::read_dir(archive).expect("the archive is there").map(|entry| entry.expect("an entry").path());
    let mut segments: Vec<PathBuf> = names
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            matches!(name.parse(), Ok(WalFileName::Segment(_))) && name.starts_with(&format!("{timeline:08X}"))
        })
        .collect();
    segments.sort();
    segments
}

/// What was archived of a timeline's last segment at the change to the next gets a segment's name.
fn rename_partial(archive: &Path) {
    for entry in fs::read_dir(archive).expect("the archive is there") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "partial") {
            fs::rename(&path, path.with_extension("")).expect("it can be renamed");
        }
    }
}

/// Work of every kind, two crashes, and a recovery to a new timeline.
fn live(server: &mut Server, dir: &TestDir, transactions: u32) {
    work::everything(server, dir);
    work::pgbench(server, transactions);
    let mut client = server.client();
    let message = "SELECT pg_logical_emit_message(false, 'lost', repeat('z', 3000000))";
    client.batch_execute(message).expect("a message is written");
    server.kill9();
    server.start();
    // What is not archived when an archive recovery begins may be recycled at its end.
    server.archive_all();
    work::lines(server, "CREATE TABLE after_crash AS SELECT i FROM generate_series(1, 100) i");
    server.stop(Stop::Immediate);
    dir.write("main/standby.signal", "");
    server.start();
    server.promote();
    work::lines(server, "CREATE TABLE on_new_timeline AS SELECT i FROM generate_series(1, 100) i");
    server.archive_all();
}

/// Lets a server live, and compares what the readers say of its WAL.
fn compare(postgres: &Postgres, manner: &Manner, transactions: u32) {
    let dir = TestDir::new();
    let archive = dir.make_dir("archive");
    let mut server = Server::running(&dir, postgres, &manner.options(&archive));
    live(&mut server, &dir, transactions);
    rename_partial(&archive);
    let (mut words, mut managers) = (BTreeSet::new(), BTreeSet::new());
    for timeline in [1, 2] {
        let what = format!("PostgreSQL {}, timeline {timeline}, {manner:?}", postgres.major);
        let segments = segments(&archive, timeline);
        let name = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let (first, last) =
            (segments.first().expect("there are segments"), segments.last().expect("there are segments"));
        let theirs = theirs::read(postgres, &archive, &name(first), &name(last));
        let ours = ours::read(&segments, false).records;
        compare::same(&ours, &theirs, &what);
        seeds::write(postgres, &segments);
        words.extend(compare::event_words(&theirs));
        managers.extend(ours.iter().map(|read| read.record.manager));
        eprintln!("{what}: {} records agree", ours.len());
        assert!(ours.len() > if timeline == 1 { 20_000 } else { 200 }, "{what}: {} records", ours.len());
    }
    let mut expected = compare::all_event_words();
    if manner.wal_level != "logical" {
        expected.remove("TRUNCATE");
    }
    assert_eq!(words, expected, "every event happened");
    // A page of the commit log needs more transactions than these, and generic records an extension.
    let expected: BTreeSet<u8> = (0..=21).filter(|manager| ![3, 20].contains(manager)).collect();
    assert!(managers.is_superset(&expected), "every resource manager wrote: {managers:?}");
}

/// Promise: what we read from WAL is what PostgreSQL's own reader says, for records of every kind.
#[test]
fn every_record_is_what_pg_waldump_says() {
    // Logical WAL in small segments; larger ones with what the build compresses best.
    for (at, postgres) in judged().iter().enumerate() {
        let best = compressions(postgres).into_iter().rfind(|method| method != "off").expect("there is a method");
        let compression = if at == 1 { "off".to_owned() } else { best };
        let (wal_level, segment_size_mib) = if at == 1 { ("replica", 16) } else { ("logical", 1) };
        compare(postgres, &Manner { compression, wal_level, segment_size_mib, page_checksums: at == 0 }, 100);
    }
}

/// Promise: the same with every compression, at both WAL levels, with segments small and large.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn every_record_in_every_manner() {
    for postgres in judged() {
        for compression in compressions(&postgres) {
            for (wal_level, segment_size_mib, page_checksums) in
                [("replica", 1, true), ("replica", 16, false), ("logical", 1, false), ("logical", 64, true)]
            {
                let manner = Manner { compression: compression.clone(), wal_level, segment_size_mib, page_checksums };
                compare(&postgres, &manner, 1000);
            }
        }
    }
}
