//! Looking ahead: segments lie ready before they are asked for, and nothing that lies there can be wrong, short, or left over.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::harness::dir::chown_to_test_user;
use crate::harness::{Options, Run, Server, Site, Stop, as_test_user, client_tool, newest, small, wait_for, waiting};

/// Rooms of recoveries in the site's spool.
fn rooms(site: &Site) -> Vec<PathBuf> {
    let clusters = fs::read_dir(site.dir.join("spool")).expect("the spool").flatten();
    let inside = clusters.flat_map(|cluster| fs::read_dir(cluster.path()).into_iter().flatten().flatten());
    let rooms = inside.map(|entry| entry.path());
    rooms.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("ahead."))).collect()
}

/// Whole segments that lie ready in all rooms.
fn ready(site: &Site) -> Vec<String> {
    let files = rooms(site).into_iter().flat_map(|room| fs::read_dir(room).into_iter().flatten().flatten());
    let mut names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.len() == 24);
    names.sort();
    names
}

/// Processes that fetch ahead with this site's configuration.
fn fetchers(site: &Site) -> Vec<i32> {
    let config = site.config().display().to_string();
    let is_one = |pid: i32| {
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.contains("\0--ahead\0") && words.contains(&config)
    };
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| is_one(*pid)).collect()
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// A site with archived segments, and a folder that looks like the data directory of a recovering server that runs.
fn recovering(settings: &str, count: usize, signal: &str) -> (Site, Vec<String>, PathBuf) {
    let (site, segments) = waiting(&newest(), small(), settings, count);
    for segment in &segments {
        site.push(segment).run().ok();
    }
    let data = data_directory(&site, "data", signal);
    (site, segments, data)
}

fn data_directory(site: &Site, name: &str, signal: &str) -> PathBuf {
    let data = site.dir.make_dir(name);
    for folder in ["global", "pg_wal"] {
        site.dir.make_dir(format!("{name}/{folder}"));
    }
    let control = fs::read(site.server.data_dir().join("global/pg_control")).expect("there");
    site.dir.write(format!("{name}/global/pg_control"), control);
    site.dir.write(format!("{name}/postmaster.pid"), format!("{}\n", std::process::id()));
    site.dir.write(format!("{name}/{signal}"), "");
    data
}

/// Fetches a segment as recovery does, and compares it with what was archived.
fn fetch(site: &Site, data: &PathBuf, segment: &str) {
    site.fetch(segment).current_dir(data).run().ok();
    let delivered = fs::read(data.join("pg_wal/RECOVERYXLOG")).expect("delivered");
    assert!(Some(delivered) == site.archived_bytes(segment), "{segment}: other bytes were delivered");
}

/// Promise: a recovery finds its segments ready, the room is kept full and not fuller, and is gone soon after the recovery; the rows are
/// all there.
#[test]
fn a_recovery_is_served() {
    let site = Site::with(&newest(), small(), "look_ahead = 5");
    site.server.run("CREATE TABLE t (n int)");
    let mut copy = Server::adopt(&site.dir, &newest(), "copy", &site.dir.join("copy"));
    let mut backup = as_test_user(client_tool("pg_basebackup"));
    backup.arg("--pgdata").arg(copy.data_dir()).arg("--dbname").arg(site.server.conninfo());
    backup.args(["--wal-method=none", "--checkpoint=fast", "--no-sync"]).run().ok();
    for n in 1..=30 {
        site.server.run(&format!("INSERT INTO t VALUES ({n})"));
        if n == 15 {
            site.server.run("SELECT pg_create_restore_point('half')");
        }
        site.server.switch_wal();
    }
    site.server.archive_all();
    copy.configure("restore_command", &site.fetch_command());
    copy.configure("archive_mode", "off");
    // The server would read on through segments that are almost empty.
    copy.configure("recovery_prefetch", "off");
    copy.configure("recovery_target_name", "half");
    copy.configure("recovery_target_action", "pause");
    site.dir.write("copy/recovery.signal", "");
    copy.start();
    wait_for("the pause", || (copy.ask("SELECT pg_get_wal_replay_pause_state()") == "paused").then_some(()));
    assert_eq!(copy.ask("SELECT count(*) FROM t"), "15");
    wait_for("a full room", || (ready(&site).len() == 5).then_some(()));
    let wanted = fs::read_to_string(rooms(&site)[0].join("wanted")).expect("the first call left it");
    let first = ready(&site).remove(0);
    assert!(wanted < first, "only the first calls asked the repository: from {wanted}, now {first}");
    assert_eq!(fetchers(&site).len(), 1);
    // Killed, it is missed by nobody.
    fetchers(&site).into_iter().for_each(kill);
    copy.run("SELECT pg_wal_replay_resume()");
    wait_for("the end of recovery", || (copy.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    assert!(!copy.log().contains("pitr-wal-fetch:"), "{}", copy.log());
    copy.stop(Stop::Fast);

    // To the end of the archive: by a fetcher that lives.
    let mut whole = Server::adopt(&site.dir, &newest(), "whole", &site.dir.join("whole"));
    site.backup();
    site.server.run("INSERT INTO t VALUES (31)");
    for _ in 0..12 {
        site.server.switch_wal();
        site.server.run("INSERT INTO t VALUES (0)");
    }
    site.server.archive_all();
    site.try_restore(whole.data_dir(), &["--to", "latest"]).ok();
    whole.start();
    wait_for("the end of recovery", || (whole.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    assert_eq!(whole.ask("SELECT count(*) FROM t WHERE n > 0"), "31");
    wait_for("an empty spool", || fetchers(&site).is_empty().then_some(()));
    assert!(rooms(&site).len() <= 1, "only the room of the one that was killed may be left: {:?}", rooms(&site));
}

/// Promise: what lies ready is used only if it is whole; a process that was killed holds nothing up; where the recovery jumps to another
/// place, the look-ahead follows; when it ends, everything is removed.
#[test]
fn nothing_wrong_is_handed_over() {
    let (site, segments, data) = recovering("look_ahead = 3", 12, "recovery.signal");
    fetch(&site, &data, &segments[0]);
    wait_for("three segments", || (ready(&site) == segments[1..4]).then_some(()));
    // Cut short, as by a crash of the host.
    let room = rooms(&site).remove(0);
    fs::File::options().write(true).open(room.join(&segments[1])).expect("there").set_len(4096).expect("cut");
    fetch(&site, &data, &segments[1]);
    wait_for("segments from there on", || (ready(&site) == segments[2..5]).then_some(()));
    // Taken: the place is filled.
    fetch(&site, &data, &segments[2]);
    wait_for("the next one", || (ready(&site) == segments[3..6]).then_some(()));
    assert_eq!(fs::read_to_string(room.join("wanted")).expect("there"), segments[2], "the call took what was ready");
    // Elsewhere.
    fetch(&site, &data, &segments[8]);
    wait_for("segments from there on", || (ready(&site) == segments[9..12]).then_some(()));
    // Killed, with a sign that something is coming.
    fetchers(&site).into_iter().for_each(kill);
    wait_for("its end", || fetchers(&site).is_empty().then_some(()));
    fs::write(room.join(format!("{}.coming", segments[5])), "").expect("written");
    let finished = site.fetch(&segments[5]).current_dir(&data).run().ok();
    assert!(finished.took < Duration::from_secs(5), "{finished}");
    wait_for("a new one", || (fetchers(&site).len() == 1).then_some(()));
    // The end of the archive is told by the repository.
    fetch(&site, &data, &segments[11]);
    let next = site.server.switch_wal();
    site.fetch(&next).current_dir(&data).run().fails_with(1);
    fs::remove_file(data.join("recovery.signal")).expect("recovery ends");
    wait_for("an empty spool", || (rooms(&site).is_empty() && fetchers(&site).is_empty()).then_some(()));
}

/// Promise: what outlives the call holds nothing of the server's: no open file, not its session, not its data directory.
#[test]
fn nothing_of_the_server_is_held() {
    let (site, segments, data) = recovering("", 3, "recovery.signal");
    // As a server before 16 leaves its files open for its commands.
    let held = site.dir.write("held", "a dropped table");
    let mut shell = as_test_user("sh");
    let words = format!(
        "exec 7<'{}' 8>>'{}' && exec '{}' --config '{}' {} pg_wal/RECOVERYXLOG",
        held.display(),
        site.dir.join("log").display(),
        site.dir.binary("pitr-wal-fetch").display(),
        site.config().display(),
        segments[0]
    );
    chown_to_test_user(site.dir.path());
    shell.args(["-c", &words]).current_dir(&data).run().ok();
    wait_for("a process", || (fetchers(&site).len() == 1 && ready(&site).len() == 2).then_some(()));
    let pid = fetchers(&site)[0];
    let open: Vec<PathBuf> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors")
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect();
    let inherited = |path: &PathBuf| *path == held || *path == site.dir.join("log");
    assert!(!open.iter().any(inherited), "{open:?}");
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).expect("its directory"), PathBuf::from("/"));
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its state");
    let session = stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(3)).expect("a session");
    assert_eq!(session, pid.to_string(), "a session of its own");
    fs::remove_file(data.join("postmaster.pid")).expect("the server ends");
    wait_for("its end", || fetchers(&site).is_empty().then_some(()));
}

/// Promise: a full spool costs the look-ahead and nothing else; a standby whose disk takes no file is told so mildly, though the
/// segment lies ready.
#[test]
fn full_disks() {
    let (site, segments, data) = recovering("", 6, "standby.signal");
    if rustix::process::geteuid().is_root() {
        let spool = site.dir.make_dir("small");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1500k,mode=0777", "tmpfs"]).arg(&spool);
        assert!(mount.status().expect("mount runs").success());
        for segment in &segments {
            let finished = site.fetch(segment).env("PITR_SPOOL", &spool).current_dir(&data).run().ok();
            assert_eq!(finished.stderr, "");
            let delivered = fs::read(data.join("pg_wal/RECOVERYXLOG")).expect("delivered");
            assert!(Some(delivered) == site.archived_bytes(segment), "{segment}");
        }
        fs::rename(data.join("standby.signal"), data.join("away")).expect("moved");
        wait_for("its end", || fetchers(&site).is_empty().then_some(()));
        fs::rename(data.join("away"), data.join("standby.signal")).expect("moved");
        assert!(std::process::Command::new("umount").arg("-l").arg(&spool).status().expect("umount runs").success());
    }
    fetch(&site, &data, &segments[0]);
    wait_for("segments", || ready(&site).contains(&segments[1]).then_some(()));
    let nowhere = PathBuf::from("nowhere/RECOVERYXLOG");
    site.fetch_to(&segments[1], &nowhere).current_dir(&data).run().fails_with(1).says("WARNING").says("nowhere");
    fetch(&site, &data, &segments[1]);
    fs::remove_file(data.join("postmaster.pid")).expect("the server ends");
    wait_for("its end", || fetchers(&site).is_empty().then_some(()));
}

/// Promise: nothing is left behind for a server that does not recover, for one that is process 1, where it is switched off, and when the
/// server is gone.
#[test]
fn only_for_recoveries() {
    let (site, segments, data) = recovering("", 4, "recovery.signal");
    fs::write(data.join("postmaster.pid"), "1\n/data\n").expect("written");
    fetch(&site, &data, &segments[0]);
    assert!(rooms(&site).is_empty() && fetchers(&site).is_empty(), "process 1 would become its parent");
    fs::write(data.join("postmaster.pid"), "77\n/data\n").expect("written");
    fs::rename(data.join("recovery.signal"), data.join("away")).expect("moved");
    fetch(&site, &data, &segments[0]);
    assert!(rooms(&site).is_empty() && fetchers(&site).is_empty(), "pg_rewind takes a few files");
    fs::rename(data.join("away"), data.join("recovery.signal")).expect("moved");
    site.fetch(&segments[0]).env("PITR_LOOK_AHEAD", "0").current_dir(&data).run().ok();
    assert!(rooms(&site).is_empty() && fetchers(&site).is_empty());
    fetch(&site, &data, &segments[0]);
    wait_for("segments", || (!ready(&site).is_empty()).then_some(()));
    fs::remove_file(data.join("postmaster.pid")).expect("the server ends");
    wait_for("an empty spool", || (rooms(&site).is_empty() && fetchers(&site).is_empty()).then_some(()));
}

/// Promise: two recoveries on one host do not take each other's segments, and a spool on another file system serves as well.
#[test]
fn two_at_once_and_another_file_system() {
    let place = tempfile::Builder::new().prefix("pitr-spool-").tempdir_in("/dev/shm").expect("a file system in memory");
    chown_to_test_user(place.path());
    let (site, segments, one) = recovering("look_ahead = 4", 8, "recovery.signal");
    let other = data_directory(&site, "other", "standby.signal");
    let fetch = |data: &PathBuf, segment: &str| {
        site.fetch(segment).env("PITR_SPOOL", place.path()).current_dir(data).run().ok();
        let delivered = fs::read(data.join("pg_wal/RECOVERYXLOG")).expect("delivered");
        assert!(Some(delivered) == site.archived_bytes(segment), "{segment}: other bytes were delivered");
    };
    let rooms = || {
        let clusters = fs::read_dir(place.path()).expect("the spool").flatten();
        clusters.flat_map(|cluster| fs::read_dir(cluster.path()).expect("readable").flatten()).count()
    };
    for segment in &segments {
        fetch(&one, segment);
        fetch(&other, segment);
    }
    assert_eq!(rooms(), 2);
    for data in [&one, &other] {
        fs::remove_file(data.join("postmaster.pid")).expect("the server ends");
    }
    wait_for("an empty spool", || (rooms() == 0).then_some(()));
}

/// Promise: the way leads over forks.
#[test]
fn over_a_fork() {
    let mut site = Site::with(&newest(), Options::default().segment_size_mib(1), "look_ahead = 6");
    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", None);
    standby.configure("archive_command", &site.push_command());
    standby.start();
    let first = site.server.switch_wal();
    for _ in 0..2 {
        site.server.run("SELECT pg_logical_emit_message(true, 'a', 'b')");
        site.server.archive_all();
    }
    site.server.run("CREATE TABLE t (n int)");
    wait_for("the standby", || (standby.ask("SELECT coalesce(to_regclass('t')::text, '')") == "t").then_some(()));
    standby.promote();
    for _ in 0..2 {
        standby.run("SELECT pg_logical_emit_message(true, 'a', 'b')");
        standby.archive_all();
    }
    site.server.stop(Stop::Immediate);
    let data = data_directory(&site, "data", "recovery.signal");
    fetch(&site, &data, &first);
    wait_for("segments of both timelines", || {
        let ready = ready(&site);
        (ready.iter().any(|name| name.starts_with("00000001"))
            && ready.iter().filter(|name| name.starts_with("00000002")).count() >= 2)
            .then_some(())
    });
    fs::remove_file(data.join("recovery.signal")).expect("recovery ends");
    wait_for("an empty spool", || rooms(&site).is_empty().then_some(()));
}
