//! What is stored is what PostgreSQL handed over, whatever kind of file and whatever size of segment.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};

use pitr::repository::wal::WalObjectName;
use pitr::wal::{EventKind, TimelineId};

use crate::harness::{Options, Run, Server, Site, Stop, majors, newest, small, wait_for, waiting};
use crate::{INSIDE_A_RECORD, peak_memory};

/// Promise: what the archiver of each major hands over comes back byte for byte, and what happened in it is known.
#[test]
fn segments_of_each_major() {
    for postgres in majors() {
        let site = Site::with(&postgres, small(), "");
        site.server.run("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n");
        site.server.run("SELECT pg_create_restore_point('here')");
        site.server.run("DROP TABLE t");
        let segment = site.server.switch_wal();
        let original = fs::read(site.pg_wal(&segment)).expect("it is still in pg_wal");
        site.server.wait_archived(&segment);
        assert!(
            site.archived_bytes(&segment).is_some_and(|stored| stored == original),
            "PostgreSQL {}",
            postgres.major
        );

        let name = WalObjectName::Segment(segment.parse().expect("a name"));
        let stored = site.archived().describe(name).expect("it is described");
        let facts = stored.footer.facts.expect("its records were read");
        assert!(facts.commits >= 2 && facts.restore_points == 1, "PostgreSQL {}: {facts:?}", postgres.major);
        let kinds: Vec<&EventKind> = stored.details.events.iter().map(|event| &event.kind).collect();
        assert!(kinds.iter().any(|kind| matches!(kind, EventKind::RestorePoint { name, .. } if name == "here")));
        assert!(kinds.iter().any(|kind| matches!(kind, EventKind::Commit(end) if !end.dropped.is_empty())));
        let plain = |kind: &&&EventKind| matches!(kind, EventKind::Commit(end) if end.dropped_count == 0);
        assert_eq!(kinds.iter().filter(plain).count(), 0, "ordinary commits are only counted");
        assert_eq!(stored.details.archived_by.source, site.server.data_dir().to_str().expect("text"));
        assert_eq!(site.server.ask("SELECT failed_count FROM pg_stat_archiver"), "0");
    }
}

/// Promise: on promotion the old timeline's `.partial`, the new one's `.history` and its segments are all archived under
/// names of their own, and a `.partial` is never served for the segment.
#[test]
fn promotion() {
    let site = Site::with(&newest(), small(), "");
    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", None);
    standby.configure("archive_command", &site.push_command());
    standby.start();
    site.server.run("CREATE TABLE t AS SELECT 1 AS n");
    wait_for("the standby to follow", || (standby.ask("SELECT to_regclass('t') IS NOT NULL") == "t").then_some(()));
    let last = site.server.ask("SELECT pg_walfile_name(pg_current_wal_lsn())");
    standby.promote();
    standby.run("CREATE TABLE u AS SELECT 2 AS n");
    let segment = standby.switch_wal();
    standby.wait_archived(&segment);

    let archive = site.archived();
    let history = archive.history(TimelineId(2)).expect("readable").expect("the history file is archived");
    assert_eq!(history.parent().expect("it has a parent").0, TimelineId(1));
    let objects = archive.wal_objects(TimelineId(1)).expect("listed");
    let partial = |name| matches!(name, WalObjectName::Partial(of, _) if of.to_string() == last);
    assert!(objects.iter().any(|object| partial(object.name)), "{last}.partial is not in {objects:?}");
    assert_eq!(site.archived_bytes(&last), None, "a .partial is not the segment");
    assert_eq!(site.archived_bytes(&format!("{last}.partial")), None);
    assert!(site.archived_bytes(&segment).is_some());
}

/// Promise: two promotions from one parent leave two different `.partial` files of one name; both are kept, the same one
/// again is success, and neither blocks the full segment that comes after.
#[test]
fn partial_files_never_block() {
    let (site, segments) = waiting(&newest(), small(), "", 1);
    let full = fs::read(site.pg_wal(&segments[0])).expect("readable");
    let name = format!("{}.partial", segments[0]);
    // A promotion leaves whatever an older use of the file left behind the last record.
    for (tail, objects) in [(0x11, 1), (0x22, 2), (0x11, 2)] {
        let mut partial = full.clone();
        let length = partial.len();
        partial[length - 8192..].fill(tail);
        site.dir.write(site.pg_wal(&name), &partial);
        site.push(&name).run().ok();
        assert_eq!(site.stored_wal().len(), objects, "{:?}", site.stored_wal());
    }
    site.push(&segments[0]).run().ok();
    site.assert_archived(&segments[0]);
}

/// Promise: a history file is stored once; the same again is success, another content is refused, and one that recovery
/// could not read is never stored.
#[test]
fn history_files() {
    let (site, _) = waiting(&newest(), small(), "", 0);
    let push = |content: &str| {
        site.dir.write(site.pg_wal("00000002.history"), content);
        site.push("00000002.history").run()
    };
    for garbage in ["", "1\t0/", "no history\n", "1\t0/3000060\tno recovery target specified", "2\t0/1\tx\n"] {
        push(garbage).fails_with(13).says("history of timeline 2");
        assert_eq!(site.stored_wal(), Vec::<String>::new());
    }
    let good = "1\t0/3000060\tno recovery target specified\n";
    push(good).ok();
    push(good).ok();
    push("1\t0/3000070\tno recovery target specified\n").fails_with(10).says("already in").says("on host");
    assert_eq!(site.archived_bytes("00000002.history").expect("it is there"), good.as_bytes());
}

/// Promise: a backup's history file is archived whatever is in it: refusing it would block all WAL behind it.
#[test]
fn backup_files() {
    let (site, segments) = waiting(&newest(), small(), "", 1);
    for (offset, content) in [("00000028", "START WAL LOCATION: 0/28 (file x)\n"), ("00000060", "")] {
        let name = format!("{}.{offset}.backup", segments[0]);
        site.dir.write(site.pg_wal(&name), content);
        site.push(&name).run().ok();
        assert_eq!(site.archived_bytes(&name).expect("it is there"), content.as_bytes());
    }
}

/// Promise: archiving works with the smallest and with larger segments, by real servers, with either compression; memory
/// stays below 64 MiB.
#[test]
fn sizes_and_compressions() {
    for (mib, setting) in [(1, "lz4"), (16, "zstd:3"), (16, "lz4"), (64, "lz4")] {
        let options = Options::default().segment_size_mib(mib);
        let settings = format!("compression = \"{setting}\"");
        let (site, segments) = waiting(&newest(), options, &settings, 4);
        let (memory, status) = peak_memory(&site.dir, &site.push(&segments[0]));
        assert_eq!(status, 0);
        assert!(memory < 64 << 20, "{mib} MiB with {setting}: {} MiB of memory", memory >> 20);
        site.assert_archived(&segments[0]);
        let magic = fs::read(site.stored_path(&segments[0])).expect("readable")[..4].to_vec();
        let expected = if setting == "lz4" { [0x04, 0x22, 0x4D, 0x18] } else { [0x28, 0xB5, 0x2F, 0xFD] };
        assert_eq!(magic, expected, "{setting}");
        let (memory, status) = peak_memory(&site.dir, &site.fetch(&segments[0]));
        assert_eq!(status, 0);
        assert!(memory < 64 << 20, "fetching {mib} MiB with {setting}: {} MiB of memory", memory >> 20);
        assert!(
            fs::read(site.recovery_file()).expect("delivered") == fs::read(site.pg_wal(&segments[0])).expect("there")
        );
    }
}

/// Promise: a segment of 1 GiB, the largest there is, needs no more memory than a small one, there and back, and an idle
/// segment's zeros cost next to nothing in the repository.
#[test]
fn one_gibibyte() {
    let options = Options::default().segment_size_mib(1024);
    let (site, segments) = waiting(&newest(), options, "push_timeout = \"5m\"\nfetch_timeout = \"5m\"", 1);
    let (memory, status) = peak_memory(&site.dir, &site.push(&segments[0]));
    assert_eq!(status, 0);
    assert!(memory < 64 << 20, "{} MiB of memory", memory >> 20);
    let stored = fs::metadata(site.stored_path(&segments[0])).expect("stored").len();
    assert!(stored < 64 << 20, "{stored} bytes for a nearly empty segment");
    let (memory, status) = peak_memory(&site.dir, &site.fetch(&segments[0]));
    assert_eq!(status, 0);
    assert!(memory < 64 << 20, "{} MiB of memory", memory >> 20);
    assert_eq!(fs::metadata(site.recovery_file()).expect("delivered").len(), 1 << 30);
}

/// Promise: a damaged segment does not stop the archiver, and no WAL is lost by it: it is kept with all its bytes, marked,
/// with a warning that names the last good LSN; and a good copy can be archived later.
#[test]
fn damaged_segments() {
    let (site, segments) = waiting(&newest(), small(), "", 2);
    let segment = &segments[1];
    let good = fs::read(site.pg_wal(segment)).expect("readable");
    let mut bad = good.clone();
    bad[INSIDE_A_RECORD] ^= 0xFF;
    site.dir.write(site.pg_wal(segment), &bad);
    let said = site.push(segment).run().ok().says("WARNING").says("is damaged on this server: at ");
    let lsn = said.stderr.split("damaged on this server: at ").nth(1).and_then(|rest| rest.split(',').next());
    let lsn = lsn.expect("the warning names an LSN").to_owned();
    assert!(said.stderr.contains(&format!("Everything before {lsn} is good")), "{said}");

    assert_eq!(site.archived_bytes(segment), None, "its true name stays free");
    let object = site.archived().wal_objects(TimelineId(1)).expect("listed")[0].name;
    let mut stored = Vec::new();
    site.archived().fetch_object(object, &mut stored).expect("readable");
    assert!(stored == bad, "all its bytes are kept");
    site.push(segment).run().ok().says("WARNING");
    site.fetch(segment).run().fails_with(201).says(&format!("WAL is good up to {lsn}"));
    assert!(!site.recovery_file().exists());

    site.dir.write(site.pg_wal(segment), &good);
    site.push(segment).run().ok();
    site.fetch(segment).run().ok();
}

/// Promise: WAL is for the server's user alone, whatever umask and environment the server runs with; a silent success and
/// standard streams that are closed are no trouble.
#[test]
fn surroundings() {
    let (site, segments) = waiting(&newest(), small(), "", 6);
    for (segment, setting) in segments.iter().zip([
        "umask 000; unset HOME; unset PATH; exec",
        "umask 777; exec",
        "exec 0<&- 1>&- 2>&-; exec",
        "cd pg_wal && cd .. && exec",
        "LC_ALL=tr_TR.UTF-8 LANG=xx exec",
    ]) {
        let script = format!(
            "{setting} {} --config {} pg_wal/{segment}",
            site.dir.binary("pitr-wal-push").display(),
            site.config().display()
        );
        let mut shell = crate::harness::as_test_user("/bin/sh");
        shell.args(["-c", &script]).current_dir(site.server.data_dir());
        let said = shell.run().ok();
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""), "{setting}");
        let object = site.stored_path(segment);
        let modes = [&object, object.parent().expect("a folder")]
            .map(|path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777);
        assert_eq!(modes, [0o600, 0o700], "{setting}");
        site.assert_archived(segment);
    }
}

/// Promise: the archiver's shutdown round works, and segments of a crashed server are archived after it: the same file
/// handed over twice is success.
#[test]
fn after_a_crash_of_the_server() {
    let mut site = Site::with(&newest(), small(), "");
    let segment = site.server.archive_all();
    site.server.kill9();
    // The archiver's success was not made durable: it hands the file over again.
    let status = site.server.data_dir().join("pg_wal/archive_status");
    fs::rename(status.join(format!("{segment}.done")), status.join(format!("{segment}.ready"))).expect("renamed");
    site.server.start();
    site.server.wait_archived(&segment);
    assert!(!status.join(format!("{segment}.ready")).exists());
    assert_eq!(site.server.ask("SELECT failed_count FROM pg_stat_archiver"), "0");
    let last = site.server.switch_wal();
    site.server.stop(Stop::Fast);
    assert!(site.archived_bytes(&last).is_some(), "archived before the end");
}

/// Promise: a second push of the same bytes makes sure that they are durable, whoever wrote them: the first may have died
/// between giving the name and syncing.
#[test]
fn found_objects_are_synced() {
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 0", 1);
    site.push(&segments[0]).run().ok();
    let trace = site.dir.join("trace");
    let mut again = crate::harness::traced(&site.push(&segments[0]), &["-e", "trace=fsync,openat2"]);
    let arguments: Vec<_> = again.get_args().map(ToOwned::to_owned).collect();
    let mut replaced = std::process::Command::new(again.get_program());
    for argument in arguments {
        replaced.arg(if argument == "/dev/null" { trace.clone().into_os_string() } else { argument });
    }
    replaced.env_clear().envs(again.get_envs().filter_map(|(name, value)| Some((name, value?))));
    replaced.current_dir(again.get_current_dir().expect("set"));
    again = replaced;
    again.run().ok();
    let calls = fs::read_to_string(&trace).expect("traced");
    let after_the_find = calls.rsplit(&format!("{}\"", segments[0])).next().expect("it was opened");
    assert_eq!(after_the_find.matches("fsync(").count(), 2, "object and folder:\n{calls}");
}

/// Promise: a file that is read whole only if it stays as it is: one that grows while it is read is refused. (A server never
/// writes to a file that it hands over; something else that does must not get half a file archived.)
#[test]
fn short_and_long_files() {
    let (site, segments) = waiting(&newest(), small(), "", 1);
    let path = site.pg_wal(&segments[0]);
    let file = fs::File::options().write(true).open(&path).expect("writable");
    for length in [0, 20, 40, (1 << 20) - 1, (1 << 20) + 1, 2 << 20] {
        let good = {
            let mut bytes = vec![0; 40];
            fs::File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, 0)).map(|()| bytes)
        };
        file.set_len(length).expect("cut");
        site.push(&segments[0]).run().fails_with(13).says("The file was not archived");
        assert_eq!(site.stored_wal(), Vec::<String>::new(), "{length} bytes");
        file.write_all_at(&good.unwrap_or_default(), 0).expect("written");
    }
}
