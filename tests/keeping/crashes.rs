//! `pitr expire` killed at system calls on a real directory.

use super::harness::{Options, Run, Site, as_test_user, newest};
use super::{expire, full_backup, ids, rows_of, up_to};

/// Promise: killed anywhere, expire leaves what is kept as it was and nothing that needs hands; the next run finishes.
#[test]
fn killed_anywhere() {
    let site = Site::with(&newest(), Options::default().segment_size_mib(1), "retention_count = 1\n");
    let made: Vec<String> = (1..=3).map(|n| full_backup(&site, n)).collect();
    let mut killed = 0;
    // What is marked in the end of the first day's runs is due on the fourth.
    let points: [(i64, &str, &[u32]); 7] = [
        (0, "mkdirat", &[1]),
        (0, "linkat,renameat2", &[1, 2, 1]),
        (0, "fsync,fdatasync", &[1]),
        (4, "linkat,renameat2", &[1]),
        (4, "unlinkat", &[1, 2, 3, 4]),
        (4, "fsync,fdatasync", &[1, 3]),
        (4, "unlinkat", &[1, 2]),
    ];
    for (day, calls, whens) in points {
        if day == 4 && calls.starts_with("linkat") {
            expire(&site, 0);
        }
        let moment = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * day);
        for when in whens {
            let inject = format!("inject={calls}:signal=SIGKILL:when={when}");
            let mut command = as_test_user("strace");
            command.args(["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", &inject]);
            command.arg(site.dir.binary("pitr")).arg("--config").arg(site.config());
            command.args(["expire", "--as-of", &moment.to_string()]);
            killed += i32::from(command.run().status.code().is_none());
            assert!(ids(&site).contains(&made[2]));
        }
    }
    assert!(killed >= 10, "only {killed} were killed: the points are not where they were thought to be");
    expire(&site, 4);
    expire(&site, 8);
    assert_eq!(ids(&site), made[2..]);
    let repository = site.repository();
    let found = std::process::Command::new("find").arg(&repository).args(["-type", "f"]).output().expect("find runs");
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    let left: Vec<&str> = found.lines().filter(|line| line.contains(&made[0]) || line.contains("/doomed/")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(rows_of(&site, &made[2], 1), up_to(3));
    site.pitr(&["status"]).run_within(super::LONG).ok();
}
