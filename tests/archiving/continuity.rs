//! Each segment is proved against the one before it: the record over their border is, too.

use std::fs;

use pitr::repository::wal::WalObjectName;
use pitr::wal::{Completeness, SegmentName, SegmentScan, TimelineId, check_segment_header, scan_segment};

use crate::clone;
use crate::harness::{Run, Server, Site, Stop, majors, newest, small, wait_for};

const PAGE: usize = 8192;

/// A site whose archiver waits, with at least `count` closed segments, all full of records of 100 kB: one lies over every border.
fn straddled(settings: &str, count: usize) -> (Site, Vec<String>) {
    straddled_of(&newest(), settings, count)
}

fn straddled_of(postgres: &crate::harness::Postgres, settings: &str, count: usize) -> (Site, Vec<String>) {
    let site = Site::unprepared(postgres, small(), settings);
    site.pitr(&["init"]).run().ok();
    write(&site.server, count);
    let segments = ready(&site.server);
    assert!(segments.len() >= count, "{segments:?}");
    (site, segments)
}

/// Fills that many segments.
fn write(server: &Server, segments: usize) {
    let mut client = server.client();
    for _ in 0..=segments {
        for _ in 0..11 {
            let sql = "SELECT pg_logical_emit_message(false, 'test', repeat(md5(random()::text), 3000))";
            client.batch_execute(sql).expect("a message is written");
        }
    }
}

/// Segments that wait to be archived, in order.
fn ready(server: &Server) -> Vec<String> {
    let entries = fs::read_dir(server.data_dir().join("pg_wal/archive_status")).expect("readable").flatten();
    let names = entries.filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".ready")?.to_owned()));
    let mut names: Vec<String> = names.filter(|name| name.len() == 24).collect();
    names.sort();
    names
}

fn scan(site: &Site, segment: &str) -> SegmentScan {
    let raw = fs::read(site.pg_wal(segment)).expect("readable");
    let name: SegmentName = segment.parse().expect("a name");
    let header = check_segment_header(&raw, name, raw.len() as u64).expect("a segment");
    scan_segment(&raw, &header, Completeness::Complete)
}

fn change(site: &Site, segment: &str, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let good = fs::read(site.pg_wal(segment)).expect("readable");
    let mut bad = good.clone();
    change(&mut bad);
    site.dir.write(site.pg_wal(segment), &bad);
    good
}

fn aside(site: &Site) -> Vec<WalObjectName> {
    let objects = site.archived().wal_objects(TimelineId(1)).expect("listed");
    objects.into_iter().map(|object| object.name).filter(|name| matches!(name, WalObjectName::Damaged(..))).collect()
}

fn borders(site: &Site) -> Vec<String> {
    let mut found = Vec::new();
    for cluster in fs::read_dir(site.dir.join("spool")).expect("readable").flatten() {
        for note in fs::read_dir(cluster.path()).expect("readable").flatten() {
            let name = note.file_name().into_string().expect("our names are text");
            found.extend(name.strip_suffix(".border").map(str::to_owned));
        }
    }
    found.sort();
    found
}

/// Promise: a healthy server's segments are archived without a word, each proved against the one before; only the last one's
/// border is kept.
#[test]
fn healthy() {
    for (settings, calls) in [("look_ahead = 0", 8), ("look_ahead = 4", 8)] {
        let (site, segments) = straddled(settings, calls);
        for segment in &segments {
            let said = site.push(segment).run().ok();
            assert_eq!(said.stderr, "", "{segment}");
        }
        let left = borders(&site);
        assert!(left.len() == 1 && left.first() >= segments.last(), "{settings}: {left:?}");
        assert_eq!(aside(&site), []);
        // An older one again, as after a crash of the archiver.
        for segment in &segments[2..4] {
            assert_eq!(site.push(segment).run().ok().stderr, "");
        }
    }
}

/// Promise: a flipped bit in the record over a border is found in whichever segment it is, in one call or in several; the later
/// one is kept aside with a warning that names both and the last good LSN, and a good copy takes its place.
#[test]
fn flipped_bit_over_a_border() {
    for settings in ["look_ahead = 0", "look_ahead = 3"] {
        let (site, segments) = straddled(settings, 4);
        let (one, two) = (&segments[1], &segments[2]);
        let start = scan(&site, one).tail.expect("a record over the border").start;
        let good = change(&site, two, |raw| raw[PAGE + 3000] ^= 4);
        assert_eq!(site.push(&segments[0]).run().ok().stderr, "");
        assert_eq!(site.push(one).run().ok().stderr, "");
        let said = site.push(two).run().ok().says("WARNING").says(&format!("does not go on where \"{one}\" ends"));
        assert!(said.stderr.contains(&format!("Everything before {start} is good")), "{said}");
        assert_eq!(aside(&site).len(), 1, "{settings}");
        assert_eq!(site.archived_bytes(two), None, "the true name stays free");
        site.fetch(two).run().fails_with(201).says(&format!("WAL is good up to {start}"));
        // Whatever comes behind it is archived as ever.
        assert_eq!(site.push(&segments[3]).run().ok().stderr, "");
        site.push(two).run().ok().says("WARNING");

        site.dir.write(site.pg_wal(two), &good);
        assert_eq!(site.push(two).run().ok().stderr, "", "the good copy");
        site.assert_archived(two);
    }
}

/// Promise: the same if the bit was flipped in the earlier segment, which nobody could know when that one was archived: the
/// border is not passed in silence.
#[test]
fn flipped_bit_before_a_border() {
    for settings in ["look_ahead = 0", "look_ahead = 3"] {
        let (site, segments) = straddled(settings, 4);
        let (one, two) = (&segments[1], &segments[2]);
        change(&site, one, |raw| {
            let length = raw.len();
            raw[length - 100] ^= 4;
        });
        for segment in &segments[..2] {
            assert_eq!(site.push(segment).run().ok().stderr, "");
        }
        site.push(two).run().ok().says("either may be the bad one").says(one);
        assert_eq!(aside(&site).len(), 1);
        // Recycled, the earlier file can no longer be looked at; the records alone tell that they are of one history.
        fs::remove_file(site.pg_wal(one)).expect("removed");
        site.push(two).run().ok().says("either may be the bad one");
    }
}

/// Promise: pages of zeros are found: in the middle of a segment at once, at its end as soon as the next segment comes.
#[test]
fn zeroed_pages() {
    let (site, segments) = straddled("look_ahead = 0", 6);
    change(&site, &segments[1], |raw| raw[20 * PAGE..21 * PAGE].fill(0));
    let last = scan(&site, &segments[3]).facts.last_record.expect("a record");
    change(&site, &segments[3], |raw| raw[(last.0 % (1 << 20)) as usize..].fill(0));
    assert_eq!(site.push(&segments[0]).run().ok().stderr, "");
    site.push(&segments[1]).run().ok().says("is damaged on this server");
    assert_eq!(site.push(&segments[2]).run().ok().stderr, "", "behind damage the proof begins anew");
    assert_eq!(site.push(&segments[3]).run().ok().stderr, "", "it may be the end");
    site.push(&segments[4]).run().ok().says("does not go on where").says("no record, though WAL goes on behind");
}

/// Promise: a server that was set back writes other WAL under the same names: it is told, and nothing is called damaged.
#[test]
fn set_back() {
    let (mut site, _) = straddled("look_ahead = 0", 1);
    let other = clone(&mut site, "other");
    write(&site.server, 4);
    let mut other = other;
    other.start();
    write(&other, 4);
    let segments = ready(&site.server);
    let count = segments.len();
    assert_eq!(ready(&other)[..count - 1], segments[..count - 1]);
    for segment in &segments[..count - 2] {
        assert_eq!(site.push(segment).run().ok().stderr, "");
    }
    // The archive has the one history's segments; the other goes on from its own.
    let next = other.data_dir().join("pg_wal").join(&segments[count - 2]);
    site.push_path(&next).run().ok().says("is not what followed the archived");
    assert_eq!(aside(&site), []);
}

/// Promise: notes that were torn or damaged, and those of another repository, are not used: nothing is proved by them, and
/// nothing called damaged.
#[test]
fn damaged_notes() {
    let (site, segments) = straddled("look_ahead = 0", 3);
    change(&site, &segments[1], |raw| raw[PAGE + 3000] ^= 4);
    let note = || {
        let cluster = fs::read_dir(site.dir.join("spool")).expect("readable").flatten().next().expect("a cluster");
        cluster.path().join(format!("{}.border", segments[0]))
    };
    site.push(&segments[0]).run().ok();
    let whole = fs::read(note()).expect("a note");
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for bad in [&whole[..whole.len() - 1], &whole[..20], &[], &flipped] {
        fs::write(note(), bad).expect("written");
        assert_eq!(site.push(&segments[1]).run().ok().stderr, "");
    }
}

/// Promise: no false alarm on a healthy server, whatever happens to it: killed while it writes records over borders, restarted
/// with a backlog, switched, promoted with and without `archive_mode = always`.
#[test]
fn no_false_alarm() {
    no_false_alarm_on(&[majors().remove(0), newest()]);
}

/// The same on the majors between.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn no_false_alarm_on_every_major() {
    no_false_alarm_on(&majors().split_last().map_or(Vec::new(), |(_, rest)| rest.iter().skip(1).cloned().collect()));
}

fn no_false_alarm_on(majors: &[crate::harness::Postgres]) {
    for postgres in majors {
        let mut site = Site::with(postgres, small(), "look_ahead = 3");
        for round in 0..4 {
            let mut client = site.server.client();
            let writer = std::thread::spawn(move || {
                // Ends with the server.
                let sql = "SELECT pg_logical_emit_message(false, 'test', repeat(md5(random()::text), 12000))";
                while client.batch_execute(sql).is_ok() {}
            });
            std::thread::sleep(std::time::Duration::from_millis(150 + 130 * round));
            site.server.kill9();
            writer.join().expect("the writer ends");
            site.server.start();
            site.server.switch_wal();
        }
        site.server.stop(Stop::Immediate);
        site.server.start();
        let mut standby = Server::standby_of(&site.dir, &site.server, "standby", None);
        standby.configure("archive_command", &site.push_command());
        standby.configure("archive_mode", "always");
        standby.start();
        write(&site.server, 3);
        let last = site.server.archive_all();
        wait_for("the standby to archive", || {
            (standby.ask("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver") >= last).then_some(())
        });
        write(&site.server, 1);
        standby.promote();
        write(&standby, 3);
        standby.archive_all();
        write(&site.server, 2);
        site.server.archive_all();
        let logs = [site.server.log(), standby.log()].concat();
        for alarm in ["does not go on", "is damaged", "is not what followed"] {
            assert!(!logs.contains(alarm), "PostgreSQL {}: {}", postgres.major, lines_with(&logs, "pitr-wal-push"));
        }
        for timeline in site.archived().timelines().expect("listed") {
            let objects = site.archived().wal_objects(timeline).expect("listed");
            assert!(!objects.iter().any(|object| matches!(object.name, WalObjectName::Damaged(..))), "{objects:?}");
        }
    }
}

fn lines_with(log: &str, word: &str) -> String {
    log.lines().filter(|line| line.contains(word)).collect::<Vec<_>>().join("\n")
}

/// Promise: records that span several small segments are proved like all others.
#[test]
fn records_over_several_segments() {
    let (site, _) = straddled("look_ahead = 2", 1);
    let mut client = site.server.client();
    for _ in 0..3 {
        let sql = "SELECT pg_logical_emit_message(false, 'test', repeat(md5(random()::text), 120000))";
        client.batch_execute(sql).expect("a message is written");
    }
    write(&site.server, 1);
    let segments = ready(&site.server);
    let middle = segments.iter().position(|name| scan(&site, name).head.is_some_and(|head| !head.is_last()));
    let middle = middle.expect("a segment that is all head");
    change(&site, &segments[middle], |raw| raw[50 * PAGE + 500] ^= 1);
    let end = (middle..segments.len()).find(|at| scan(&site, &segments[*at]).head.is_some_and(|head| head.is_last()));
    let end = end.expect("the record ends");
    for (at, segment) in segments.iter().enumerate() {
        let said = site.push(segment).run().ok();
        assert_eq!(said.stderr.contains("WARNING"), at == end, "{at} of {middle} to {end}: {said}");
    }
}

/// Promise: a damaged segment is told as what it is, everywhere: by status with the last good LSN and whether pg_wal may help, by
/// the plan, by fetch; and when the good copy comes, all of them are content.
#[test]
fn told_everywhere() {
    let mut site = Site::with(&newest(), small(), "look_ahead = 0");
    site.backup();
    site.server.archive_all();
    site.server.configure("archive_command", "");
    site.server.reload();
    wait_for("the archiver to wait", || {
        ["", "(disabled)"].contains(&site.server.ask("SHOW archive_command").as_str()).then_some(())
    });
    // The archiver may take one more before it has read its settings.
    write(&site.server, 5);
    let segments = ready(&site.server);
    for segment in &segments[..2] {
        assert_eq!(site.push(segment).run().ok().stderr, "");
    }
    site.pitr(&["status"]).run().ok();
    let (one, two) = (&segments[1], &segments[2]);
    let start = scan(&site, one).tail.expect("a record over the border").start;
    let good = change(&site, two, |raw| raw[2 * PAGE + 999] ^= 0x20);
    site.push(two).run().ok().says("WARNING");

    let target = site.dir.join("restored").display().to_string();
    let plan = ["restore", "--to", "latest", "--dry-run", "--target", &target];
    // Nothing of it is taken for the end of the archive, with or without WAL behind it.
    for last in [2, 3] {
        site.push(&segments[last]).run().ok();
        let said = site.pitr(&["status"]).run();
        assert_eq!(said.code(), 1, "{said}");
        for part in [two.as_str(), one, "IS DAMAGED", &format!("good up to {start}"), "holds the same damaged bytes"] {
            assert!(said.stdout.contains(part), "{part}: {said}");
        }
        site.pitr(&plan).run().fails_with(19).says(&format!("WAL is good up to {start}")).says(one);
        site.fetch(two).run().fails_with(201).says(&format!("WAL is good up to {start}"));
    }
    site.dir.write(site.pg_wal(two), &good);
    let said = site.pitr(&["status"]).run();
    assert!(said.code() == 1 && said.stdout.contains("HOLDS OTHER BYTES now"), "{said}");
    site.push(two).run().ok();
    let said = site.pitr(&["status"]).run().ok();
    assert!(!said.stdout.contains("DAMAGED"), "{said}");
    site.pitr(&plan).run().ok();
    site.fetch(two).run().ok();
}
