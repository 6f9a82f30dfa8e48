//! `pitr restore` on real servers. PostgreSQL is the judge: after each restore SQL says which rows are there.

mod databases;
#[path = "../harness/mod.rs"]
mod harness;
mod places;
mod trust;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Finished, Options, Postgres, Run, Server, Site, Stop, TestDir, majors, newest, test_user, wait_for};
use serde_json::Value;

/// A committed row of table `t`.
#[derive(Debug, Clone)]
struct Mark {
    xid: String,
    /// In UTC with six digits, as `--to` takes it.
    time: String,
    /// Where WAL went on behind the commit.
    lsn: String,
}

/// Commits the row `n`.
fn commit(server: &Server, n: i32) -> Mark {
    let mut client = server.client();
    let mut transaction = client.transaction().expect("begins");
    transaction.execute("INSERT INTO t VALUES ($1)", &[&n]).expect("inserts");
    let xid: String = transaction.query_one("SELECT pg_current_xact_id()::text", &[]).expect("has an id").get(0);
    transaction.commit().expect("commits");
    let time = format!(
        "SELECT to_char(pg_xact_commit_timestamp('{xid}'::xid) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00'"
    );
    Mark { time: server.ask(&time), lsn: server.ask("SELECT pg_current_wal_lsn()::text"), xid }
}

/// A site with a base backup before the first of four rows (the table `t` is in it), a restore point "middle" after the second,
/// and everything archived. Segments are small: most of the time of such a test would go into bytes that are zero.
fn four_rows(postgres: &Postgres, options: Options) -> (Site, Vec<Mark>) {
    let site = Site::with(postgres, options.segment_size_mib(1), "");
    site.server.run("CREATE TABLE t (n int)");
    site.backup();
    let mut marks = vec![commit(&site.server, 1), commit(&site.server, 2)];
    site.server.run("SELECT pg_create_restore_point('middle')");
    site.server.switch_wal();
    marks.extend([commit(&site.server, 3), commit(&site.server, 4)]);
    site.server.archive_all();
    (site, marks)
}

/// Waits until a restored server has left recovery, and counts the rows.
fn rows(server: &Server) -> String {
    wait_for("the restored server to open", || (server.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    server.ask("SELECT coalesce(string_agg(n::text, ' ' ORDER BY n), '') FROM t")
}

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"))
}

/// Stops a server that `--start` started.
fn stop(postgres: &Postgres, data: &Path) {
    let mut pg_ctl = harness::as_test_user(postgres.bin("pg_ctl"));
    pg_ctl.args(["stop", "-s", "-m", "immediate", "-D"]).arg(data).run().ok();
}

/// Promise: each kind of target, inclusive and exclusive, ends with exactly the rows committed up to it, on every major; the plan
/// names the last of them beforehand, and the result is a clone that does not archive.
#[test]
fn every_kind_of_target() {
    every_kind(&newest(), usize::MAX);
    every_kind(&majors()[0], 4);
}

/// The same with all of them on every other major.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn every_kind_on_every_major() {
    majors().iter().rev().skip(1).for_each(|postgres| every_kind(postgres, usize::MAX));
}

/// The first `count` of all kinds.
fn every_kind(postgres: &Postgres, count: usize) {
    let (site, marks) = four_rows(postgres, Options::default());
    let [_, two, three, four] = &marks[..] else { panic!("four marks") };
    let cases: [(&[&str], &str); 11] = [
        (&["--to", &two.time], "1 2"),
        (&["--to-xid", &three.xid, "--exclusive"], "1 2"),
        (&["--to-name", "middle"], "1 2"),
        (&["--to", "immediate"], ""),
        (&["--to", &two.time, "--exclusive"], "1"),
        (&["--to", &four.time, "--exclusive"], "1 2 3"),
        (&["--to-lsn", &three.lsn], "1 2 3"),
        (&["--to-lsn", &three.lsn, "--exclusive"], "1 2 3"),
        (&["--to-xid", &three.xid], "1 2 3"),
        (&["--to", "latest"], "1 2 3 4"),
        (&["--to-xid", &four.xid, "--timeline", "1"], "1 2 3 4"),
    ];
    for (number, (words, expected)) in cases.iter().take(count).enumerate() {
        let plan = site.pitr(&["restore", "--json", "--dry-run"]).args(*words).run().ok();
        let last = json(&plan)["plan"]["last_commit"]["xid"].as_u64().map(|xid| xid.to_string());
        let expected_last = expected.split(' ').next_back().and_then(|n| n.parse::<usize>().ok());
        if let Some(n) = expected_last {
            assert_eq!(last.as_ref(), Some(&marks[n - 1].xid), "PostgreSQL {}, {words:?}", postgres.major);
        }
        let mut server = site.restore(&format!("restored-{number}"), words);
        server.start();
        assert_eq!(rows(&server), *expected, "PostgreSQL {}, {words:?}", postgres.major);
        assert_eq!(server.ask("SHOW archive_mode"), "off");
        server.stop(Stop::Immediate);
        fs::remove_dir_all(server.data_dir()).expect("removed");
    }
}

/// Promise: `--start` follows the server to its target, says where it stopped and that it is where it should be; pause and
/// shutdown are kept; the clone listens on a socket of its own only.
#[test]
fn started_and_followed() {
    for (postgres, actions) in [(newest(), &["promote", "pause", "shutdown"][..]), (majors().remove(0), &["pause"])] {
        let (site, marks) = four_rows(&postgres, Options::default());
        let bin = postgres.bin_dir().to_str().expect("UTF-8");
        for action in actions {
            let target = site.dir.join(action);
            let words = ["--to", &marks[1].time, "--start", "--pg-bin", bin, "--action", action, "--json"];
            let finished = site.try_restore(&target, &words).ok();
            let document = json(&finished);
            assert_eq!(document["reached"]["as_planned"], true, "{finished}");
            assert_eq!(
                document["reached"]["replay"]["xid"].as_u64().map(|xid| xid.to_string()).as_deref(),
                Some(&*marks[2].xid)
            );
            let socket = &document["reached"]["socket"][0];
            let conninfo = format!("host={} user=postgres dbname=postgres", socket.as_str().expect("a directory"));
            let client = postgres::Client::connect(&conninfo, postgres::NoTls);
            if *action == "shutdown" {
                assert!(client.is_err());
                continue;
            }
            let row = client
                .expect("connects")
                .query_one("SELECT count(*), pg_is_in_recovery(), current_setting('listen_addresses') FROM t", &[]);
            let row = row.expect("answers");
            assert_eq!(
                (row.get::<_, i64>(0), row.get::<_, bool>(1), row.get::<_, &str>(2)),
                (2, *action == "pause", "")
            );
            stop(&postgres, &target);
        }
    }
}

/// Promise: without configuration in the data directory (Debian keeps it elsewhere) `--start` works with what `pg_control` asks
/// for, also where the source allowed more than the defaults; and the backup's copies of the configuration are at hand.
#[test]
fn configuration_elsewhere() {
    let postgres = newest();
    let dir = TestDir::new();
    let etc = dir.make_dir("etc");
    let options = Options::default().set("max_connections", 333).set("max_prepared_transactions", 7);
    let mut site = Site::unprepared(&postgres, options, "");
    site.server.stop(Stop::Fast);
    let data = site.server.data_dir().to_owned();
    for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        fs::rename(data.join(file), etc.join(file)).expect("moved");
    }
    let auto = data.join("postgresql.auto.conf");
    let more = format!("hba_file = '{0}/pg_hba.conf'\nident_file = '{0}/pg_ident.conf'\n", etc.display());
    fs::write(&auto, fs::read_to_string(&auto).expect("read") + &more).expect("written");
    // The harness starts servers with -D alone: a configuration file that includes the real one stands in for -c config_file.
    symlink(etc.join("postgresql.conf"), data.join("postgresql.conf")).expect("linked");
    site.server.start();
    site.pitr(&["init"]).run().ok();
    site.archive();
    site.server.run("CREATE TABLE t (n int)");
    site.backup();
    let mark = commit(&site.server, 1);
    site.server.archive_all();
    let target = site.dir.join("restored");
    let bin = postgres.bin_dir().to_str().expect("UTF-8");
    site.try_restore(&target, &["--to-xid", &mark.xid]).ok();
    // What BASE_BACKUP makes of the link differs; what counts is a data directory without configuration.
    fs::remove_dir_all(&target).expect("removed");
    let finished = site.try_restore(&target, &["--to-xid", &mark.xid, "--start", "--pg-bin", bin, "--json"]).ok();
    let socket = json(&finished)["reached"]["socket"][0].as_str().expect("a directory").to_owned();
    let conninfo = format!("host={socket} user=postgres dbname=postgres");
    let mut client = postgres::Client::connect(&conninfo, postgres::NoTls).expect("connects");
    let row = client.query_one("SELECT current_setting('max_connections'), count(*) FROM t", &[]).expect("answers");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, i64>(1)), ("333", 1));
    stop(&postgres, &target);
}

/// Promise: no directory that holds anything is touched unless the option names it, and one with a running server never is. An
/// overwritten cluster is exactly the backup afterwards.
#[test]
fn directories_that_are_not_free() {
    let postgres = newest();
    let (mut site, marks) = four_rows(&postgres, Options::default());
    let to = ["--to-xid", &marks[1].xid];
    let own = site.server.data_dir().to_owned();
    site.try_restore(&own, &to).fails_with(20).says("a server is running");
    site.try_restore(&own, &[&to[..], &["--overwrite"]].concat()).fails_with(20).says("a server is running");
    let foreign = site.dir.make_dir("letters");
    site.dir.write("letters/dear.txt", "x");
    site.try_restore(&foreign, &[&to[..], &["--overwrite"]].concat()).fails_with(20).says("dear.txt");
    site.try_restore(&site.repository().join("inside"), &to).fails_with(2).says("the repository");
    assert_eq!(fs::read_dir(&foreign).expect("there").count(), 1);

    site.server.stop(Stop::Fast);
    site.try_restore(&own, &to).fails_with(20).says("--overwrite");
    fs::write(own.join("base/leftover"), "x").expect("written");
    fs::write(own.join("pg_wal/000000010000000000000099"), "x").expect("written");
    site.try_restore(&own, &[&to[..], &["--overwrite"]].concat()).ok().says("");
    assert!(!own.join("base/leftover").exists() && !own.join("pg_wal/000000010000000000000099").exists());
    site.server.start();
    assert_eq!(rows(&site.server), "1 2");
}

/// Promise: a question is asked before anything is written; where nobody can answer, nothing is.
#[test]
fn nobody_to_ask() {
    let (site, marks) = four_rows(&newest(), Options::default());
    let target = site.dir.join("restored");
    let words = ["restore", "--to-xid", &marks[0].xid, "--target"];
    site.pitr(&words).arg(&target).run().fails_with(23).says("--yes");
    site.pitr(&words).arg(&target).arg("--dry-run").run().ok();
    assert!(!target.exists());
}

/// A restore that is killed at one of its system calls, unless it makes fewer of them. Nothing that it leaves starts by accident.
fn killed(site: &Site, target: &Path, words: &[&str], call: &str, when: u32) -> Finished {
    let mut pitr = harness::as_test_user("strace");
    pitr.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    pitr.args(["-e", &format!("inject={call}:signal=SIGKILL:when={when}")]).arg(site.dir.binary("pitr"));
    pitr.arg("--config").arg(site.config()).args(["restore", "--yes", "--target"]).arg(target).args(words);
    let finished = pitr.run();
    let starts = target.join("global/pg_control").exists() && !target.join("pitr.restore").exists();
    assert!(!starts || target.join("recovery.signal").exists(), "{call} {when}: {finished}");
    finished
}

/// Promise: killed at any of many points, a restore leaves nothing that starts, and the same command again completes it, keeping
/// what is right already.
#[test]
fn killed_and_repeated() {
    killed_at(&[("mkdirat", 3), ("pwrite64", 200), ("syncfs", 1), ("renameat,rename,renameat2", 2), ("fsync", 8)]);
}

/// The same at more points.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn killed_at_many_points() {
    let renames = [1, 2, 3, 4].map(|when| ("renameat,rename,renameat2", when));
    let others = [("openat2", 40), ("pwrite64", 1), ("unlinkat,unlink", 1), ("linkat", 1), ("fsync", 4), ("fsync", 6)];
    killed_at(&[&renames[..], &others].concat());
}

/// Calls of the restore that change the directory; each is its own point to die at.
fn killed_at(points: &[(&str, u32)]) {
    let postgres = newest();
    let (site, marks) = four_rows(&postgres, Options::default());
    let to = ["--to-xid", &marks[1].xid];
    let target = site.dir.join("restored");
    let mut died = 0;
    for (call, when) in points {
        if killed(&site, &target, &to, call, *when).status.success() {
            fs::remove_dir_all(&target).expect("removed");
            continue;
        }
        died += 1;
        let again = site.try_restore(&target, &[&to[..], &["--json"]].concat()).ok();
        assert!(json(&again)["written"]["files"].as_u64() > Some(100), "{again}");
        let mut server = Server::adopt(&site.dir, &postgres, "restored", &target);
        server.start();
        assert_eq!(rows(&server), "1 2", "{call} {when}");
        server.stop(Stop::Immediate);
        fs::remove_dir_all(&target).expect("removed");
    }
    assert!(died * 2 > points.len(), "{died} of {} calls were made", points.len());
}

/// Promise: a restore over what is there already writes only what differs.
#[test]
fn what_is_right_is_kept() {
    let (site, marks) = four_rows(&newest(), Options::default());
    let target = site.dir.join("restored");
    site.try_restore(&target, &["--to-xid", &marks[1].xid]).ok();
    let changed = target.join("base/1/1259");
    let length = fs::metadata(&changed).expect("there").len();
    fs::write(&changed, vec![7; usize::try_from(length).expect("small")]).expect("written");
    let again = site.try_restore(&target, &["--to-xid", &marks[1].xid, "--overwrite", "--json"]).ok();
    let written = &json(&again)["written"];
    let (bytes, kept) =
        (written["bytes"].as_u64().expect("a number"), written["kept_bytes"].as_u64().expect("a number"));
    assert!(bytes - kept < 600_000 && bytes - kept >= length, "{kept} of {bytes} were kept");
    let mut server = Server::adopt(&site.dir, &newest(), "restored", &target);
    server.start();
    assert_eq!(rows(&server), "1 2");
}

/// Promise: paths with blanks, quotes, percent signs, dollars and backslashes work all the way to `restore_command`.
#[test]
fn hostile_paths() {
    let postgres = newest();
    let (site, marks) = four_rows(&postgres, Options::default());
    let strange = site.dir.make_dir("it's 100% \"odd\" $HOME \\f;x");
    let config = strange.join("p%p.toml");
    fs::copy(site.config(), &config).expect("copied");
    let fetch = strange.join("pitr-wal-fetch");
    fs::copy(site.dir.binary("pitr-wal-fetch"), &fetch).expect("copied");
    harness::dir::chown_to_test_user(&config);
    let target = strange.join("data %f");
    let mut pitr = site.dir.pitr("pitr");
    pitr.arg("--config").arg(&config).args(["restore", "--yes", "--to-xid", &marks[1].xid, "--wal-fetch"]).arg(&fetch);
    pitr.arg("--target").arg(&target).args(["--start", "--pg-bin"]).arg(postgres.bin_dir()).arg("--json");
    let finished = pitr.run().ok();
    assert_eq!(json(&finished)["reached"]["as_planned"], true, "{finished}");
    stop(&postgres, &target);
}

/// Promise: as root, everything belongs to the server's user and the server runs as it.
#[test]
fn as_root() {
    if !test_user().step_down {
        return;
    }
    let postgres = newest();
    let (site, marks) = four_rows(&postgres, Options::default());
    let target = site.dir.make_dir("above").join("data");
    let mut pitr = Command::new(site.dir.binary("pitr"));
    pitr.arg("--config").arg(site.config()).args(["restore", "--yes", "--to-xid", &marks[1].xid, "--json", "--target"]);
    let finished = pitr.arg(&target).args(["--start", "--pg-bin"]).arg(postgres.bin_dir()).run().ok();
    assert_eq!(json(&finished)["reached"]["as_planned"], true, "{finished}");
    let mut left: Vec<PathBuf> = vec![target.clone()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path).expect("there");
        assert_eq!(metadata.uid(), test_user().uid, "{}", path.display());
        if metadata.is_dir() {
            assert_eq!(metadata.mode() & 0o077, 0, "{}", path.display());
            left.extend(fs::read_dir(&path).expect("read").map(|entry| entry.expect("read").path()));
        }
    }
    stop(&postgres, &target);
}

/// Promise: a transaction that was prepared before the target and finished after it is still prepared.
#[test]
fn prepared_transactions() {
    let (site, _) = four_rows(&newest(), Options::default().set("max_prepared_transactions", 5));
    site.server.run("BEGIN; INSERT INTO t VALUES (5); PREPARE TRANSACTION 'five'");
    let mark = commit(&site.server, 6);
    site.server.run("COMMIT PREPARED 'five'");
    site.server.archive_all();
    for (name, words) in [("time", ["--to", &mark.time]), ("xid", ["--to-xid", &mark.xid])] {
        let planned = site.pitr(&["plan"]).args(words).run().ok();
        assert!(planned.stdout.contains("prepared transaction"), "{planned}");
        let mut server = site.restore(name, &words);
        server.start();
        assert_eq!(rows(&server), "1 2 3 4 6");
        assert_eq!(server.ask("SELECT gid FROM pg_prepared_xacts"), "five");
        server.run("COMMIT PREPARED 'five'");
        assert_eq!(rows(&server), "1 2 3 4 5 6");
        server.stop(Stop::Immediate);
    }
    let planned = site.pitr(&["plan", "--to", "latest"]).run().ok();
    assert!(!planned.stdout.contains("prepared transaction"), "{planned}");
    // The server itself tells of all, when it opens.
    let target = site.dir.join("started");
    let postgres = newest();
    let bin = postgres.bin_dir().to_str().expect("UTF-8");
    let done = site.try_restore(&target, &["--start", "--pg-bin", bin, "--to", &mark.time]).ok();
    assert!(done.stdout.contains("NOTE: prepared transaction "), "{done}");
    stop(&postgres, &target);
}

/// Promise: after pg_upgrade, what was archived and backed up before stays restorable, though `pitr.toml` names the new server.
#[test]
fn before_an_upgrade() {
    let (site, marks) = four_rows(&majors().remove(0), Options::default());
    let new = Server::running(&site.dir, &newest(), &Options::named("new"));
    site.pitr(&["init", "--upgraded", "--conninfo", &new.conninfo()]).run().ok();
    let old_identifier = site.server.ask("SELECT system_identifier FROM pg_control_system()");
    let new_identifier = new.ask("SELECT system_identifier FROM pg_control_system()");
    let text = fs::read_to_string(site.config()).expect("the configuration is there");
    site.dir.write("pitr.toml", text.replace(&old_identifier, &new_identifier));
    drop(new);

    let mut server = site.restore("restored", &["--to-xid", &marks[1].xid]);
    server.start();
    wait_for("the restored server to open", || (server.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    assert_eq!(rows(&server), "1 2");
}

/// Promise: a restore that takes over begins a new timeline in the same archive, a second one from the same parent the next free
/// one; the newest is followed by default, and each stays reachable.
#[test]
fn timelines_fork_twice() {
    let postgres = newest();
    // The archive: timeline 1 with rows 1 to 4.
    let (mut site, marks) = four_rows(&postgres, Options::default());
    site.server.stop(Stop::Fast);
    let mut branches = BTreeMap::new();
    for (name, at, row) in [("second", &marks[2], 12), ("third", &marks[1], 13)] {
        let mut server = site.restore(name, &["--to-xid", &at.xid, "--timeline", "1", "--take-over"]);
        server.start();
        rows(&server);
        let mark = commit(&server, row);
        server.archive_all();
        branches.insert(name, mark);
        server.stop(Stop::Fast);
    }
    // Now timeline 2 forks off after row 3 and has row 12, timeline 3 forks off after row 2 and has row 13.
    for (words, expected) in [
        (vec!["--to", "latest"], "1 2 13"),
        (vec!["--to", "latest", "--timeline", "2"], "1 2 3 12"),
        (vec!["--to", "latest", "--timeline", "1"], "1 2 3 4"),
        (vec!["--to-xid", &branches["third"].xid], "1 2 13"),
        (vec!["--to-xid", &branches["second"].xid, "--timeline", "2"], "1 2 3 12"),
        // Row 4 was committed on timeline 1 while 3, which forked off before, did not exist yet.
        (vec!["--to", &marks[3].time, "--exclusive"], "1 2 3"),
        (vec!["--to", &marks[1].time], "1 2"),
    ] {
        let mut server = site.restore("check", &words);
        server.start();
        assert_eq!(rows(&server), expected, "{words:?}");
        server.stop(Stop::Immediate);
        fs::remove_dir_all(server.data_dir()).expect("removed");
    }
    let next = site.restore("next", &["--to", "immediate"]);
    drop(next);
}

/// Promise: when the target's disk is full, the error says so, nothing starts there, and after making room the same command
/// completes it.
#[test]
fn a_full_disk() {
    if !test_user().step_down {
        return;
    }
    let postgres = newest();
    let (site, marks) = four_rows(&postgres, Options::default());
    let disk = site.dir.make_dir("disk");
    let mount =
        |options: &str| Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&disk).run().ok();
    mount("size=12m,mode=0777");
    let unmount = Unmount(disk.clone());
    let target = disk.join("data");
    site.try_restore(&target, &["--to-xid", &marks[1].xid]).fails_with(14).says("not enough space");
    // Half of the cluster fits; the space that is checked beforehand is there, and then taken by somebody else.
    mount_again(&disk, "size=60m");
    fs::write(disk.join("somebody-elses"), vec![1; 45 << 20]).expect("written");
    let blocked =
        site.pitr(&["restore", "--yes", "--to-xid", &marks[1].xid, "--overwrite", "--target"]).arg(&target).run();
    assert_eq!(blocked.code(), 14, "{blocked}");
    fs::remove_file(disk.join("somebody-elses")).expect("removed");
    mount_again(&disk, "size=300m");
    site.try_restore(&target, &["--to-xid", &marks[1].xid]).ok();
    let mut server = Server::adopt(&site.dir, &postgres, "full", &target);
    server.start();
    assert_eq!(rows(&server), "1 2");
    server.stop(Stop::Immediate);
    drop(unmount);
}

/// Unmounts when the test ends, however it ends.
struct Unmount(PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount_again(disk: &Path, options: &str) {
    Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(disk).run().ok();
}
