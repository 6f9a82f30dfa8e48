//! The answers: delivered, certainly not there, cannot tell.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::hang;
use crate::harness::process::{signal, wait_until};
use crate::harness::{Run, Server, Site, newest, small, test_user, wait_for, waiting};

/// A site with these segments archived, in order.
fn archived(count: usize) -> (Site, Vec<String>) {
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 0\nfetch_timeout = \"3s\"", count);
    for segment in &segments {
        site.push(segment).run().ok();
    }
    (site, segments)
}

/// Promise: a file is delivered whole, for the server's user alone, in place of whatever lies there; a link there is replaced
/// and not followed; an absolute path works from elsewhere; nothing is said and no process stays behind.
#[test]
fn delivered() {
    let (site, segments) = archived(1);
    let original = fs::read(site.pg_wal(&segments[0])).expect("readable");
    let target = site.recovery_file();
    let victim = site.dir.write("victim", "not ours");
    for before in ["nothing", "an older file", "a link"] {
        let _ = fs::remove_file(&target);
        match before {
            "an older file" => drop(site.dir.write(&target, "older")),
            "a link" => symlink(&victim, &target).expect("linked"),
            _ => {}
        }
        let mut fetch = site.fetch(&segments[0]);
        let said = fetch.env("PITR_TEST_MARK", site.dir.path()).run().ok();
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""), "{before}");
        let metadata = fs::symlink_metadata(&target).expect("delivered");
        assert!(metadata.is_file() && fs::read(&target).expect("readable") == original, "{before}");
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{before}");
    }
    assert_eq!(fs::read(&victim).expect("readable"), b"not ours");
    let absolute = site.pg_wal("elsewhere");
    site.fetch_to(&segments[0], &absolute).current_dir("/").run().ok();
    assert!(fs::read(&absolute).expect("delivered") == original);

    let mark = format!("PITR_TEST_MARK={}", site.dir.path().display());
    let processes = fs::read_dir("/proc").expect("/proc is readable").flatten();
    let left: Vec<_> = processes
        .filter(|entry| {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        })
        .collect();
    assert!(left.is_empty(), "still running: {left:?}");
}

/// Promise: what the archive certainly does not have is answered with 1, quickly and silently: the next segment, a timeline
/// that nobody began, a `.partial` or `.backup` of old. Nothing is written for it.
#[test]
fn certainly_not_there() {
    let (site, segments) = archived(1);
    let partial = format!("{}.partial", segments[0]);
    let names = ["0000000100000000000000F0", "00000002.history", "0000000200000000000000F0", &partial];
    for name in
        names.into_iter().chain(["000000010000000000000001.00000028.backup", "0000000200000000000000F0.partial"])
    {
        let said = site.fetch(name).run().fails_with(1);
        assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("", ""), "{name}");
        assert!(said.took < Duration::from_secs(2), "{said}");
        assert!(!site.recovery_file().exists());
    }
}

/// Promise: names that PostgreSQL never asks for are refused, as "cannot tell".
#[test]
fn hostile_names() {
    let (site, _) = archived(0);
    let names =
        ["../../../etc/passwd", "", ".", "0000000100000000000000f0", "0000000100000000000000F0\n", "pitr.json", "-"];
    for name in
        names.into_iter().chain(["00000001/0000000000000001", "0000000100000000000000F0.gz", "00000000.history"])
    {
        site.fetch(name).run().fails_with(204).says("pitr-wal-fetch: ERROR:  ");
        assert!(!site.recovery_file().exists());
    }
    site.dir.pitr("pitr-wal-fetch").arg("00000002.history").run().fails_with(204).says("the argument PATH is missing");
    site.dir.pitr("pitr-wal-fetch").args(["--nonsense", "00000002.history", "x"]).run().fails_with(204);
    site.fetch_to("00000002.history", Path::new("..")).run().fails_with(204).says("is not a path of a file");
    assert!(site.dir.pitr("pitr-wal-fetch").arg("--help").run().ok().stdout.contains("pitr-wal-fetch %f %p"));
}

/// Promise: a segment that is missing where later ones are there is a gap: PostgreSQL would open the database in front of it.
#[test]
fn a_gap_is_not_the_end() {
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 0", 3);
    site.push(&segments[0]).run().ok();
    site.push(&segments[2]).run().ok();
    let said = site.fetch(&segments[1]).run().fails_with(202);
    said.says(&format!("\"{}\" is missing", segments[1])).says(&segments[2]).says("Recovery stops here");
    // A later `.partial` shows as well that WAL went on.
    fs::remove_file(site.stored_path(&segments[2])).expect("removed");
    site.fetch(&segments[1]).run().fails_with(1);
    let partial = format!("{}.partial", segments[2]);
    fs::copy(site.pg_wal(&segments[2]), site.pg_wal(&partial)).expect("copied");
    crate::harness::dir::chown_to_test_user(&site.pg_wal(&partial));
    site.push(&partial).run().ok();
    site.fetch(&segments[1]).run().fails_with(202);
}

/// Promise: a gap that closes at once, as one does that a push leaves by archiving ahead, is no failure.
#[test]
fn a_passing_gap() {
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 0", 2);
    site.push(&segments[1]).run().ok();
    let mut fetch = site.fetch(&segments[0]);
    let mut child = fetch.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    site.push(&segments[0]).run().ok();
    let status = wait_until(&mut child, Instant::now() + Duration::from_secs(20)).expect("it ends");
    assert_eq!(status.code(), Some(0));
}

/// Promise: recovery looks for a segment on the newest timeline first; where that timeline had not begun yet, there is no gap.
#[test]
fn before_a_timeline_began() {
    let site = Site::with(&newest(), small(), "");
    let before = site.server.archive_all();
    let mut standby = Server::standby_of(&site.dir, &site.server, "standby", None);
    standby.configure("archive_command", &site.push_command());
    standby.start();
    site.server.archive_all();
    let reached = site.server.ask("SELECT pg_current_wal_lsn()");
    wait_for("the standby to follow", || {
        (standby.ask(&format!("SELECT pg_last_wal_receive_lsn() >= '{reached}'")) == "t").then_some(())
    });
    standby.promote();
    let segment = standby.switch_wal();
    standby.wait_archived(&segment);
    site.fetch(&segment).run().ok();
    site.fetch(&before.replacen("00000001", "00000002", 1)).run().fails_with(1);
    site.fetch("00000002.history").run().ok();
    site.fetch("00000003.history").run().fails_with(1);
}

/// Promise: a repository that does not answer is asked again and again within the time that is set, and then it cannot be
/// told; one that is not mounted, is another's or is not configured is told at once. Never 1.
#[test]
fn cannot_tell() {
    let (site, segments) = archived(1);
    let away = site.dir.join("away");
    fs::rename(site.repository(), &away).expect("moved");
    site.fetch(&segments[0]).run().fails_with(206).says("Recovery stops here");
    let empty = site.dir.make_dir("repository");
    site.fetch("00000002.history").run().fails_with(206).says("is not a pitr repository");
    fs::remove_dir(&empty).expect("removed");
    site.dir.write("repository", "no directory");
    let said = site.fetch(&segments[0]).run().fails_with(200).says("; tried ").says("Recovery stops here");
    assert!(said.took > Duration::from_secs(1) && said.took < Duration::from_secs(10), "{said}");
    fs::remove_file(site.repository()).expect("removed");
    fs::rename(&away, site.repository()).expect("moved back");

    let moved = hang(&site.repository().join("pitr.json"));
    let said = site.fetch("00000002.history").run().fails_with(216).says("it took more than 3s");
    assert!(said.took < Duration::from_secs(10), "{said}");
    fs::rename(moved, site.repository().join("pitr.json")).expect("moved back");

    let server = fs::read_dir(site.repository().join("main")).expect("readable").flatten().next().expect("one").path();
    fs::set_permissions(&server, fs::Permissions::from_mode(0o000)).expect("set");
    site.fetch("00000002.history").run().fails_with(209);
    fs::set_permissions(&server, fs::Permissions::from_mode(0o700)).expect("set");
    fs::rename(&server, server.with_file_name("1234567")).expect("moved");
    site.fetch("00000002.history").run().fails_with(203);
    fs::rename(server.with_file_name("1234567"), &server).expect("moved back");
    site.fetch("00000002.history").args(["--cluster", "other"]).run().fails_with(205);
    site.fetch("00000002.history").current_dir("/").run().fails_with(205).says("there is no global/pg_control");
    let target = site.dir.join("elsewhere");
    site.fetch_to(&segments[0], &target).current_dir("/").args(["--cluster", "main"]).run().ok();
    let config = fs::read_to_string(site.config()).expect("readable");
    let at = config.find("system_identifier = \"").expect("it is set") + 21;
    site.dir.write("pitr.toml", format!("{}1111{}", &config[..at], &config[at + 4..]));
    site.fetch("00000002.history").run().fails_with(203);
    site.fetch("00000002.history").args(["--cluster", "main"]).run().fails_with(203);
}

/// Promise: a repository that nobody may write to serves as well as any: several restores share it.
#[test]
fn a_repository_without_write_access() {
    let (site, segments) = archived(2);
    let chmod = |mode: &str| {
        let done = std::process::Command::new("chmod").args(["-R", mode]).arg(site.repository()).status();
        assert!(done.expect("chmod runs").success());
    };
    chmod("a-w");
    let fetches: Vec<_> = (0..6)
        .map(|number| {
            let target = site.dir.join(format!("target{number}"));
            let mut fetch = site.fetch_to(&segments[number % 2], &target);
            (fetch.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started"), target)
        })
        .collect();
    for (number, (mut child, target)) in fetches.into_iter().enumerate() {
        assert!(child.wait().expect("ended").success());
        assert!(fs::read(target).expect("delivered") == fs::read(site.pg_wal(&segments[number % 2])).expect("there"));
    }
    site.fetch("00000002.history").run().fails_with(1);
    chmod("u+w");
}

/// Promise: a full disk under the data directory is told as that, above 125, and leaves no half file.
#[test]
fn full_target() {
    if !test_user().step_down {
        eprintln!("not run: only root can mount a small file system");
        return;
    }
    let (site, segments) = archived(1);
    let small = site.dir.make_dir("small");
    let user = test_user();
    let options = format!("size=512k,mode=700,uid={},gid={}", user.uid, user.gid);
    let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&small).status();
    assert!(mount.expect("mount runs").success());
    let said = site.fetch_to(&segments[0], &small.join("RECOVERYXLOG")).run();
    let left = fs::read_dir(&small).expect("readable").count();
    let unmount = std::process::Command::new("umount").arg("-l").arg(&small).status();
    assert!(unmount.expect("umount runs").success());
    said.fails_with(212).says("No space left").says("The archive is not at fault");
    assert_eq!(left, 0);
}

/// Promise: SIGTERM ends a call at once, by that very signal, which PostgreSQL takes for its own shutdown; nothing is left.
#[test]
fn stopped_by_the_server() {
    let (site, segments) = archived(1);
    hang(&site.stored_path(&segments[0]));
    let mut fetch = site.fetch(&segments[0]);
    let mut child = fetch.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
    wait_for("the call to be under way", || {
        let threads = fs::read_dir(format!("/proc/{}/task", child.id())).map(Iterator::count).unwrap_or(0);
        (threads >= 2).then_some(())
    });
    signal(child.id(), rustix::process::Signal::TERM);
    let status = wait_until(&mut child, Instant::now() + Duration::from_secs(10)).expect("it ends");
    assert_eq!(status.signal(), Some(15));
    assert!(!site.recovery_file().exists());
}
