//! Backups that did not come to their end: nothing of them counts, nothing needs hands, the next one works.

use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::dir::chown_to_test_user;
use crate::harness::{Options, Run, Site, as_test_user, newest};
use crate::slow::{Slow, rid_of_sessions};
use crate::unpacked::{Unpacked, repository};
use crate::{fill, judge};

/// Time for a backup to end that has been told to.
const SOON: Duration = Duration::from_secs(20);

/// Nothing that counts is left.
pub(crate) fn no_backup(site: &Site) {
    assert_eq!(repository(site).backups().expect("the list of backups"), []);
}

/// The next backup works and comes back.
fn next_works(site: &Site) {
    site.backup();
    let backups = repository(site).backups().expect("the list of backups");
    let copy = Unpacked::of(site, backups[backups.len() - 1].id, "copy").start(site, &site.server.postgres);
    judge(&copy);
}

/// Promise: SIGTERM and SIGINT end a backup quickly, with a status of their own; the server is left as it was.
#[test]
fn signals_end_it() {
    let site = Site::new(&newest());
    fill(&site.server);
    for signal in [Signal::TERM, Signal::INT] {
        let backup = Slow::begin(&site, &site.server, &[], "1MB");
        backup.signal(signal);
        let (status, stderr) = backup.ended(SOON);
        assert_eq!(status, Some(24), "{stderr}");
        assert!(stderr.contains("There is no new backup"), "{stderr}");
        no_backup(&site);
    }
    rid_of_sessions(&site.server);
    next_works(&site);
}

/// Promise: a server that crashes meanwhile fails the backup at once, and the next one works after its recovery.
#[test]
fn the_server_crashes() {
    let mut site = Site::new(&newest());
    fill(&site.server);
    let backup = Slow::begin(&site, &site.server, &[], "1MB");
    site.server.kill9();
    let (status, stderr) = backup.ended(SOON);
    assert_eq!(status, Some(15), "{stderr}");
    no_backup(&site);
    site.server.start();
    next_works(&site);
}

/// Promise: killed at any system call, a backup leaves either nothing that counts or, after its very last step, a whole one.
#[test]
fn killed_anywhere() {
    let site = Site::with(&newest(), Options::default().segment_size_mib(1), "");
    fill(&site.server);
    let points = [
        ("openat", vec![40, 60, 70]),
        ("write", vec![1, 5, 40]),
        ("fsync,fdatasync", vec![1, 2, 3, 4, 6]),
        ("linkat,renameat2", vec![1, 2, 3]),
        ("mkdirat", vec![1, 2]),
        ("recvfrom,read", vec![30, 100]),
        ("sendto", vec![2, 8]),
        ("clone3,clone", vec![1, 3]),
        ("exit_group", vec![1]),
    ];
    let mut killed = 0;
    let mut proved = std::collections::BTreeSet::new();
    for (calls, whens) in points {
        for when in whens {
            let inject = format!("inject={calls}:signal=SIGKILL:when={when}");
            let mut command = as_test_user("strace");
            command.args(["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", &inject]);
            command.arg(site.dir.binary("pitr")).arg("--config").arg(site.config()).arg("backup");
            killed += i32::from(command.run().status.code().is_none());
            for info in repository(&site).backups().expect("the list of backups") {
                if !proved.insert(info.id) {
                    continue;
                }
                let mut manifest = repository(&site).open_manifest(info.id).expect("a manifest");
                manifest.verify_to_end().expect("a whole manifest");
                let sources = manifest.header().pack_sources.clone();
                for line in repository(&site).open_manifest(info.id).expect("a manifest") {
                    if let pitr::manifest::ManifestLine::File(file) = line.expect("a good line") {
                        let chunks = file.chunks.iter();
                        chunks.for_each(|chunk| drop(repository(&site).read_chunk(&sources, chunk).expect("proved")));
                    }
                }
            }
        }
    }
    assert!(killed >= 15, "only {killed} were killed: the points are not where they were thought to be");
    next_works(&site);
}

/// Promise: a full repository fails the backup with a clear message, leaves no half-written object behind, and the next backup
/// works when there is room.
#[test]
fn the_repository_is_full() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: only root can mount a small file system");
        return;
    }
    let mut site = Site::unprepared(&newest(), Options::default(), "");
    let mount = Mount::of(&site, "14m");
    site.pitr(&["init"]).run().ok();
    site.archive();
    fill(&site.server);
    let junk = site.server.data_dir().join("junk");
    let mut bytes = vec![0; 16 << 20];
    getrandom::fill(&mut bytes).expect("random bytes");
    std::fs::write(&junk, &bytes).expect("a file beside the server's");
    chown_to_test_user(&junk);
    let finished = site.pitr(&["backup"]).run();
    finished.fails_with(7).says("No space left on device").says("There is no new backup");
    no_backup(&site);
    std::fs::remove_file(&junk).expect("the file goes");
    next_works(&site);
    drop(site);
    drop(mount);
}

/// A small file system in memory under a site's repository.
struct Mount(std::path::PathBuf);

impl Mount {
    fn of(site: &Site, size: &str) -> Mount {
        let path = site.dir.make_dir("repository");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path).status();
        assert!(mounted.expect("mount runs").success());
        chown_to_test_user(&path);
        Mount(path)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazy: the site's directory, which goes after this, may still be in use.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
