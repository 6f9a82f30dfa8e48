//! Disks that are full, read-only, broken or hang: a clear failure, nothing half-made, and the next attempt works.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::process::{signal, wait_until};
use crate::harness::{Run, as_test_user, newest, small, test_user, traced, waiting};

/// A small file system of its own. Only root may mount.
struct Mounted<'a>(&'a Path);

impl Mounted<'_> {
    fn new<'a>(path: &'a Path, size: &str) -> Mounted<'a> {
        let user = test_user();
        let options = format!("size={size},mode=700,uid={},gid={}", user.uid, user.gid);
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status();
        assert!(mounted.expect("mount runs").success());
        Mounted(path)
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.0).status();
        assert!(done.expect("mount runs").success());
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

/// Promise: a full repository is an error that says so; nothing half-made stays, and as soon as there is room, archiving goes
/// on by itself. A read-only one likewise.
#[test]
fn full_and_read_only_repository() {
    if !test_user().step_down {
        eprintln!("not run: only root can mount a small file system");
        return;
    }
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 0", 3);
    let noise: Vec<u8> = {
        // What cannot be compressed fills the file system.
        let mut noise = vec![0; 8 << 20];
        fs::File::open("/dev/urandom")
            .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut noise))
            .expect("read");
        noise
    };
    fs::remove_dir_all(site.repository()).expect("removed");
    let repository = site.dir.make_dir("repository");
    let mounted = Mounted::new(&repository, "1m");
    site.pitr(&["init"]).run().ok();
    fs::write(repository.join("filler"), &noise).expect_err("the file system is full");
    site.push(&segments[0]).run().fails_with(7).says("No space left").says("Make room in the repository");
    assert_eq!(site.stored_wal(), Vec::<String>::new());
    mounted.remount("size=16m");
    site.push(&segments[0]).run().ok();
    site.assert_archived(&segments[0]);
    mounted.remount("ro");
    site.push(&segments[1]).run().fails_with(8).says("Read-only file system");
    site.fetch(&segments[0]).run().ok();
    site.fetch("0000000100000000000000F0").run().fails_with(1);
    mounted.remount("rw");
    site.push(&segments[1]).run().ok();
}

/// Promise: a full spool makes archiving slower and nothing else.
#[test]
fn full_spool() {
    if !test_user().step_down {
        eprintln!("not run: only root can mount a small file system");
        return;
    }
    let (site, segments) = waiting(&newest(), small(), "", 4);
    let spool = site.dir.join("spool");
    let _mounted = Mounted::new(&spool, "64k");
    let _ = fs::write(spool.join("filler"), vec![1; 1 << 20]);
    for segment in &segments {
        assert_eq!(site.push(segment).run().ok().stderr, "");
        site.assert_archived(segment);
    }
}

/// Promise: a repository that this user may not write to is an error that says so.
#[test]
fn repository_without_rights() {
    let (site, segments) = waiting(&newest(), small(), "", 1);
    let folder = site.repository().join("main");
    let server = fs::read_dir(&folder).expect("readable").flatten().next().expect("the server's folder").path();
    fs::set_permissions(&server, fs::Permissions::from_mode(0o500)).expect("set");
    site.push(&segments[0]).run().fails_with(8).says("Permission denied").says("must belong to the user");
    fs::set_permissions(&server, fs::Permissions::from_mode(0o700)).expect("set");
    site.push(&segments[0]).run().ok();
}

/// Promise: whichever sync fails, of the object or of a folder, the call fails, since nobody knows what is on the disk; and the
/// same file again succeeds.
#[test]
fn failing_syncs() {
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 0", 1);
    let forget = || {
        let folder = site.stored_path(&segments[0]);
        fs::remove_dir_all(folder.ancestors().nth(3).expect("the WAL folder")).expect("removed");
    };
    // The first call makes the spool, whose syncs may fail: it holds nothing that is promised.
    site.push(&segments[0]).run().ok();
    forget();
    let mut failures = 0;
    for at in 1..30 {
        let inject = format!("inject=fsync:error=EIO:when={at}");
        let ended = traced(&site.push(&segments[0]), &["-e", "trace=fsync", "-e", &inject]).run();
        if ended.status.success() {
            break;
        }
        failures += 1;
        ended.fails_with(4).says("Input/output error");
        site.push(&segments[0]).run().ok();
        site.assert_archived(&segments[0]);
        assert_eq!(site.stored_wal().len(), 1, "no litter: {:?}", site.stored_wal());
        forget();
    }
    assert!(failures >= 3, "the object, its folder and a new folder are synced: {failures}");
}

/// Promise: writes that fail in the middle leave nothing.
#[test]
fn failing_writes() {
    let (site, segments) = waiting(&newest(), small(), "look_ahead = 0", 1);
    for error in ["ENOSPC", "EDQUOT", "EIO"] {
        let inject = format!("inject=write:error={error}:when=2");
        let ended = traced(&site.push(&segments[0]), &["-e", "trace=write", "-e", &inject]).run();
        let status = if error == "EIO" { 4 } else { 7 };
        ended.fails_with(status);
        assert_eq!(site.stored_wal(), Vec::<String>::new(), "{error}");
    }
    site.push(&segments[0]).run().ok();
}

/// Promise: storage that does not answer ends at the deadline with a failure that says what hung, never in a hang: when the
/// repository is opened, when a file is compared with what is stored, and when the file itself cannot be read.
#[test]
fn hanging_storage() {
    let (site, segments) = waiting(&newest(), small(), "push_timeout = \"1s\"\nlook_ahead = 0", 1);
    site.push(&segments[0]).run().ok();
    // Opening a FIFO that nobody writes to waits for ever, as a dead file server does.
    let rows = [
        (site.repository().join("pitr.json"), "could not open the repository"),
        (site.stored_path(&segments[0]), "could not store WAL file"),
        (site.pg_wal(&segments[0]), "could not read WAL file"),
    ];
    for (path, doing) in rows {
        let away = site.dir.join("away");
        fs::rename(&path, &away).expect("moved");
        as_test_user("mkfifo").arg(&path).run().ok();
        let ended = site.push(&segments[0]).run();
        assert!(ended.took < Duration::from_secs(10), "{ended}");
        ended.fails_with(18).says(doing).says("it took more than 1s").says("The file stays in pg_wal");
        fs::rename(&away, &path).expect("moved back");
    }
    site.push(&segments[0]).run().ok();
}

/// Promise: SIGTERM and SIGINT end a call within a second, as a failed attempt and not as a crash of the archiver's command, with
/// nothing half-made.
#[test]
fn signals() {
    let (site, segments) = waiting(&newest(), small(), "", 2);
    for kind in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        // Held in a read that never ends: a FIFO in the file's place.
        let fifo = site.pg_wal("0000000100000000000000F0");
        let made = as_test_user("mkfifo").arg(&fifo).run();
        made.ok();
        let mut push = site.push("0000000100000000000000F0");
        let mut child = push.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("started");
        crate::harness::wait_for("the call to open the file", || {
            let threads = fs::read_dir(format!("/proc/{}/task", child.id())).map(Iterator::count).unwrap_or(0);
            (threads >= 2).then_some(())
        });
        let begun = Instant::now();
        signal(child.id(), kind);
        let status = wait_until(&mut child, begun + Duration::from_secs(10)).expect("it ends");
        assert_eq!(status.code(), Some(24), "{status:?}");
        assert!(begun.elapsed() < Duration::from_secs(1));
        assert_eq!(site.stored_wal(), Vec::<String>::new());
        fs::remove_file(&fifo).expect("removed");
    }
    site.push(&segments[0]).run().ok();
}
