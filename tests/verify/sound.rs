//! Nothing is found where nothing is wrong.

use crate::harness::{Postgres, Run, Site, Stop, majors, small};
use crate::{LONG, backups, count, findings, objects, promote, standby, verify};

/// Promise: a whole repository is silent, on every major, with switched and idle segments, a crash, a streamed tail, a promotion with its
/// history file and `.partial`, and backups on both timelines; and everything that is stored was looked at.
#[test]
fn whole_repositories_are_silent() {
    silent_on(majors().into_iter().step_by(2));
}

/// The same on the others.
#[test]
#[ignore = "the same on further majors: run by scripts/test --torture"]
fn long_whole_repositories_are_silent() {
    silent_on(majors().into_iter().skip(1).step_by(2));
}

fn silent_on(majors: impl Iterator<Item = Postgres>) {
    for postgres in majors {
        let mut site = Site::with(&postgres, small(), "");
        site.server.run("CREATE TABLE words(word text)");
        let (status, document, said) = verify(&site, &[]);
        assert_eq!((status, findings(&document)), (0, vec![]), "before anything: {said}");
        site.backup();
        site.server.run("INSERT INTO words SELECT repeat(md5(n::text), 40) FROM generate_series(1, 5000) n");
        site.server.archive_all();
        site.server.archive_all();
        site.pitr(&["backup", "--wal", "stream"]).run_within(LONG).ok();
        site.server.run("SELECT pg_create_restore_point('here'); INSERT INTO words VALUES ('crash')");
        site.server.stop(Stop::Immediate);
        site.server.start();
        site.server.archive_all();
        let standby = standby(&site);
        promote(&mut site, &standby);
        let conninfo = standby.conninfo();
        site.pitr(&["backup"]).env("PITR_CONNINFO", &conninfo).run_within(LONG).ok();
        standby.archive_all();
        let (status, document, said) = verify(&site, &[]);
        assert_eq!((status, findings(&document)), (0, vec![]), "PostgreSQL {}: {said}", postgres.major);
        assert!(document["ok"] == true && document["complete"] == true, "{said}");
        let stored = objects(&site.repository());
        let those = |wanted: &dyn Fn(&str) -> bool| {
            stored.iter().filter(|path| wanted(&path.file_name().unwrap_or_default().to_string_lossy())).count() as u64
        };
        let all = ["backups", "packs", "segments", "others"].map(|name| count(&document, "verified", name));
        let expected = [
            backups(&site).len() as u64,
            stored.iter().filter(|path| path.to_string_lossy().contains("/packs/")).count() as u64,
            those(&|name| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit())),
            those(&|name| name.contains(".partial.") || name.ends_with(".history") || name.ends_with(".backup")),
        ];
        assert_eq!(all, expected, "{said}");
        assert!(count(&document, "verified", "files") > 1500, "{said}");
        assert_eq!(document["servers"][0]["coverage"]["never_segments"], 0, "{said}");
        let text = site.pitr(&["verify"]).run_within(LONG).ok();
        assert!(text.stdout.contains("nothing that was looked at is damaged or missing"), "{text}");
        let status = site.pitr(&["status"]).run_within(LONG).stdout;
        assert!(status.contains("  verified       all of it since "), "{status}");
    }
}

/// Promise: parts can be asked for; a sample reads less; what is asked wrongly is refused before anything is read.
#[test]
fn parts() {
    let site = Site::with(&crate::harness::newest(), small(), "");
    site.server
        .run("CREATE TABLE words AS SELECT n, repeat(md5(n::text), 40) AS word FROM generate_series(1, 20000) n");
    site.backup();
    let first = backups(&site).remove(0);
    for _ in 0..3 {
        site.server.run("UPDATE words SET word = word || 'x' WHERE n < 2000");
        site.server.archive_all();
    }
    site.backup();
    let counted = |words: &[&str]| {
        let (status, document, said) = verify(&site, words);
        assert_eq!(status, 0, "{said}");
        ["backups", "packs", "chunks", "segments"].map(|name| count(&document, "verified", name))
    };
    let [backups, packs, chunks, segments] = counted(&[]);
    assert_eq!((backups, packs), (2, 2));
    assert_eq!(counted(&["--wal"]), [0, 0, 0, segments]);
    let [one, pack, part, some] = counted(&["--backup", &first]);
    assert!(one == 1 && pack == 1 && part < chunks && some > 0 && some < segments, "{one} {pack} {part} {some}");
    assert_eq!(counted(&["--since", "1 day ago"]), [backups, packs, chunks, segments]);
    let [all, _, few, _] = counted(&["--sample", "1%"]);
    assert!(all == 2 && few < chunks, "{few} of {chunks}");
    site.pitr(&["verify", "--since", "soon"]).run().fails_with(2).says("soon");
    site.pitr(&["verify", "--sample", "0%"]).run().fails_with(2).says("a share such as 10%");
    site.pitr(&["verify", "--backup", "20200101T000000Z-00000000"]).run().fails_with(1).says("there is no backup");
}

/// Promise: the very first segment of a cluster, whose first record follows none, is as good as any other.
#[test]
fn the_very_first_segment() {
    let site = Site::with(&crate::harness::newest(), crate::harness::Options::default(), "");
    site.server.archive_all();
    assert!(site.stored_path("000000010000000000000001").exists());
    let (status, document, said) = verify(&site, &[]);
    assert_eq!((status, findings(&document)), (0, vec![]), "{said}");
}
