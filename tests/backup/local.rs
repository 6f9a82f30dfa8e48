//! `pitr backup --source local`: the files are read where they lie, and what is stored is as good as what a server sends.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pitr::catalog::{BackupInfo, ReadBy};

use crate::harness::dir::chown_to_test_user;
use crate::harness::{Options, Postgres, Run, Server, Site, Stop, TestDir, Writer, majors, newest, traced, wait_for};
use crate::slow::{Slow, local_sessions};
use crate::unpacked::{Unpacked, only_backup, repository};
use crate::wal::back_up_a_standby;
use crate::{fill, judge};

const LOCAL: [&str; 3] = ["backup", "--source", "local"];

/// The backup that was taken last.
fn last(site: &Site) -> BackupInfo {
    let backups = repository(site).backups().expect("the list of backups");
    backups.into_iter().max_by_key(|info| info.stop_lsn).expect("a backup")
}

/// A digest of all rows of a table.
fn digest(server: &Server, table: &str) -> String {
    server.ask(&format!("SELECT count(*) || md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t"))
}

/// Promise: taken while rows are written, tables made, dropped, cut and moved, backup after backup comes back with every row, its
/// `backup_manifest` agrees with every byte, and what the server would not send is not in it.
#[test]
fn comes_back_from_under_load() {
    comes_back(&newest());
}

/// The same on every major.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn comes_back_on_every_major() {
    majors().iter().for_each(comes_back);
}

fn comes_back(postgres: &Postgres) {
    let waldir = TestDir::new();
    let options = Options { waldir: Some(waldir.join("wal")), ..Options::default().page_checksums() };
    let site = Site::with(postgres, options, "");
    let place = site.dir.make_dir("a place with spaces");
    site.server.run(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", place.display()));
    fill(&site.server);
    site.server.run("CREATE TABLE far TABLESPACE elsewhere AS SELECT n FROM generate_series(1, 50000) n");
    let data = site.server.data_dir();
    let odd = data.join(std::ffi::OsStr::from_bytes(b"\xff\xfe not utf-8"));
    fs::write(&odd, "here").expect("a file beside the server's");
    chown_to_test_user(&odd);
    // It leads out of the data directory: neither it nor what it leads to is taken.
    symlink("/etc/passwd", data.join("leads_out")).expect("a link");
    symlink("/etc", data.join("base/leads_out")).expect("a link");
    fs::write(data.join("backup_label.old"), "of long ago").expect("written");
    let mut keeps_temporary = site.server.client();
    keeps_temporary
        .batch_execute("CREATE TEMPORARY TABLE passing AS SELECT n FROM generate_series(1, 10000) n")
        .expect("a temporary table");
    let writer = Writer::start(&site.server, Duration::ZERO, 2_000);
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| change(&site.server, &over));
        let words = [&LOCAL[..], &["--rate-limit", "30MB", "--jobs", "3"]].concat();
        let taken = [(); 2].map(|()| site.pitr(&words).run());
        // Whoever fails below would wait for them for ever.
        over.store(true, Ordering::Relaxed);
        for said in taken {
            // What has changed in it, or all of it if there is a lot of WAL.
            assert!(said.ok().stdout.contains("data directory"), "it was read by another");
        }
        assert!(changing.join().expect("the statements run") > 0);
    });
    let mut infos = repository(&site).backups().expect("the list of backups");
    infos.sort_by_key(|info| info.stop_lsn);
    let rows = writer.stop();
    site.server.archive_all();
    assert_eq!((infos[0].read, infos[0].parent, infos[0].bad_pages), (ReadBy::Local, None, 0));
    assert_eq!((infos[1].parent, infos[1].bad_pages), (Some(infos[0].id), 0));
    assert!(infos[1].referenced_bytes > infos[0].stored_bytes / 2, "{infos:?}");
    for (number, info) in infos.iter().enumerate() {
        let unpacked = Unpacked::of(&site, info.id, &format!("copy-{number}"));
        unpacked.verify(postgres);
        let passing = keeps_temporary.query_one("SELECT pg_relation_filepath('passing')", &[]).expect("its path");
        let fleeting = site.server.ask("SELECT pg_relation_filepath('fleeting')");
        for absent in ["leads_out", "base/leads_out", "postmaster.pid", "postmaster.opts", "backup_label.old"] {
            assert!(fs::symlink_metadata(unpacked.data.join(absent)).is_err(), "{absent}");
        }
        assert!(!unpacked.data.join(passing.get::<_, String>(0)).exists(), "a temporary table's");
        assert!(!unpacked.data.join(&fleeting).exists() && unpacked.data.join(fleeting + "_init").exists());
        assert!(unpacked.data.join("pg_wal/archive_status").is_dir());
        assert_eq!(fs::read_dir(unpacked.data.join("pg_replslot")).expect("there").count(), 0);
        assert_eq!(fs::read(unpacked.data.join(odd.file_name().expect("its name"))).expect("it came along"), b"here");
        let mode = |path: &std::path::Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&unpacked.data.join("backup_label")), mode(&unpacked.data.join("pg_wal"))), (0o600, 0o700));
        let mut copy = unpacked.start(&site, postgres);
        judge(&copy);
        assert_eq!(copy.ask("SELECT count(*) FROM ledger"), rows.len().to_string());
        for table in ["ledger", "far", "cut", "moved", "big"] {
            assert_eq!(digest(&copy, table), digest(&site.server, table), "{table} of backup {number}");
        }
        copy.run("SET enable_seqscan = off; SELECT count(n) FROM big; REINDEX TABLE big");
        copy.stop(Stop::Fast);
    }
}

/// Makes, drops, cuts, grows and moves relations until it is over; how often.
fn change(server: &Server, over: &AtomicBool) -> u32 {
    server.run("CREATE TABLE cut (n int, t text); CREATE TABLE moved AS SELECT n FROM generate_series(1, 20000) n");
    let mut client = server.client();
    for round in 1.. {
        let tablespace = if round % 2 == 0 { "pg_default" } else { "elsewhere" };
        let sql = [
            format!("CREATE TABLE made_{round} AS SELECT n, repeat('y', 100) AS t FROM generate_series(1, 5000) n"),
            format!(
                "TRUNCATE cut; INSERT INTO cut SELECT n, repeat('z', 300) FROM generate_series(1, {round} * 100) n"
            ),
            format!("ALTER TABLE moved SET TABLESPACE {tablespace}; UPDATE moved SET n = n + 1 WHERE n % 7 = 0"),
            format!("UPDATE big SET text = text || '.' WHERE n % 50 = {round} % 50"),
            "DELETE FROM cut WHERE n > 20".to_owned(),
            "VACUUM cut".to_owned(),
            format!("DROP TABLE made_{round}"),
        ];
        sql.iter().for_each(|sql| client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}")));
        if round % 3 == 0 {
            client.batch_execute("VACUUM FULL moved").expect("rewritten");
        }
        if over.load(Ordering::Relaxed) {
            return round;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    0
}

/// Promise: backups of both kinds refer to each other, and a server of 17 and later goes on incrementally from the manifest that was
/// made here.
#[test]
fn goes_along_with_the_protocol() {
    let postgres = newest();
    let options = Options::default().page_checksums();
    let options = if postgres.major >= 17 { options.set("summarize_wal", "on") } else { options };
    let site = Site::with(&postgres, options, "");
    fill(&site.server);
    site.pitr(&LOCAL).run().ok();
    let local = last(&site);
    site.server.run("UPDATE word SET word = 'pear'; CREATE TABLE later AS SELECT 1 AS n");
    let said = site.backup();
    let sent = last(&site);
    assert_eq!(
        (sent.parent, sent.changed_only, sent.read),
        (Some(local.id), postgres.major >= 17, ReadBy::Protocol),
        "{said}"
    );
    site.server.run("UPDATE word SET word = 'apple'");
    site.pitr(&LOCAL).run().ok();
    let again = last(&site);
    assert_eq!((again.parent, again.changed_only), (Some(sent.id), true));
    assert!(again.stored_bytes < local.stored_bytes / 4, "{} of {}", again.stored_bytes, local.stored_bytes);
    for (name, info) in [("sent", &sent), ("again", &again)] {
        Unpacked::of(&site, info.id, name).verify(&postgres);
    }
    let mut restored = site.restore("restored", &["--to", "immediate", "--action", "promote"]);
    restored.start();
    wait_for("the end of recovery", || (restored.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    judge(&restored);
    assert_eq!(restored.ask("SELECT n FROM later"), "1");
}

/// Promise: a standby's files make a backup, too.
#[test]
fn of_a_standby() {
    let all = majors();
    for postgres in [&all[0], &all[all.len() - 1]] {
        back_up_a_standby(postgres, &LOCAL);
    }
}

/// Promise: `--wal stream` goes along with it.
#[test]
fn with_its_wal() {
    let site = Site::unprepared(&newest(), Options::default(), "");
    site.pitr(&["init"]).run().ok();
    fill(&site.server);
    site.pitr(&[&LOCAL[..], &["--wal", "stream"]].concat()).run().ok();
    let mut restored = site.restore("restored", &["--to", "immediate", "--action", "promote"]);
    restored.start();
    wait_for("the end of recovery", || (restored.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    judge(&restored);
}

/// Promise: damaged pages are named by file and block, though no server complains of them.
#[test]
fn damaged_pages_are_named() {
    let mut site = Site::with(&newest(), Options::default().page_checksums(), "");
    fill(&site.server);
    let path = site.server.ask("SELECT pg_relation_filepath('big')");
    site.server.stop(Stop::Fast);
    let file = fs::OpenOptions::new().write(true).open(site.server.data_dir().join(&path)).expect("the table's file");
    for block in [3, 70] {
        file.write_all_at(b"rotten", block * 8192 + 4000).expect("a few bytes in a page");
    }
    site.server.start();
    let finished = site.pitr(&[&LOCAL[..], &["--json"]].concat()).run().fails_with(21);
    let info = only_backup(&site);
    let shown: serde_json::Value = serde_json::from_str(&finished.stdout).expect("JSON and nothing else");
    assert_eq!((shown["read"].as_str(), shown["bad_pages"].as_u64()), (Some("local"), Some(2)));
    let stop = Unpacked::of(&site, info.id, "copy").stop;
    let [bad] = stop.bad_pages.as_slice() else { panic!("{:?}", stop.bad_pages) };
    assert_eq!((bad.path.to_string(), bad.blocks.as_slice()), (path, &[3, 70][..]));
}

/// Promise: without the session there is no backup, and that is found out long before the end; a signal ends it as well. The next
/// one works.
#[test]
fn lost_on_the_way() {
    let site = Site::new(&newest());
    fill(&site.server);
    let slow = || Slow::begin(&site, &site.server, &LOCAL[1..], "1MB");
    let soon = Duration::from_secs(30);
    let backup = slow();
    let session = local_sessions(&site.server).remove(0);
    site.server.ask(&format!("SELECT pg_terminate_backend({session})"));
    let (status, stderr) = backup.ended(soon);
    assert!(matches!(status, Some(15 | 16)), "{status:?} {stderr}");
    assert!(stderr.contains("There is no new backup"), "{stderr}");
    let backup = slow();
    backup.signal(rustix::process::Signal::TERM);
    let (status, stderr) = backup.ended(soon);
    assert_eq!(status, Some(24), "{stderr}");
    assert_eq!(repository(&site).backups().expect("the list of backups"), []);
    site.pitr(&LOCAL).run().ok();
    judge(&Unpacked::of(&site, only_backup(&site).id, "copy").start(&site, &newest()));
}

/// Promise: what is missing is said with what helps: rights of the role, rights to the files, and the host. A role with the least rights
/// that the message names does.
#[test]
fn what_it_takes() {
    let site = Site::new(&newest());
    site.server.run("CREATE ROLE plain LOGIN REPLICATION");
    let config = fs::read_to_string(site.config()).expect("the configuration");
    site.dir.write("pitr.toml", config.replace(&site.server.conninfo(), &site.server.conninfo_as("plain")));
    site.pitr(&LOCAL).run().fails_with(16).says("GRANT pg_read_all_settings").says("There is no new backup");
    site.server.run("GRANT pg_read_all_settings TO plain");
    site.pitr(&LOCAL).run().fails_with(16).says("pg_backup_stop(boolean)");
    let functions = match newest().major {
        ..=14 => ["pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"],
        _ => ["pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"],
    };
    for function in functions {
        // That it may not end the backup is found out before it begins.
        site.pitr(&LOCAL).run().fails_with(16).says("permission denied for function");
        site.server.run(&format!("GRANT EXECUTE ON FUNCTION {function} TO plain"));
    }
    site.pitr(&LOCAL).run().ok();

    let data = site.server.data_dir();
    let secret = data.join("secret");
    fs::write(&secret, "nobody's").expect("written");
    chown_to_test_user(&secret);
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("closed");
    site.pitr(&LOCAL).run().fails_with(14).says("secret").says("--allow-group-access");
    fs::remove_file(&secret).expect("removed");

    let pid_file = data.join("postmaster.pid");
    let own = fs::read_to_string(&pid_file).expect("readable");
    let lines: Vec<&str> = own.lines().collect();
    let other = own.replacen(&format!("\n{}\n", lines[2]), "\n1000\n", 1);
    fs::write(&pid_file, other).expect("written");
    site.pitr(&LOCAL).run().fails_with(9).says("is not the data directory of the server").says("own host");
    fs::remove_file(&pid_file).expect("removed");
    site.pitr(&LOCAL).run().fails_with(9).says("own host");
    fs::write(&pid_file, &own).expect("written");
    chown_to_test_user(&pid_file);
    site.pitr(&LOCAL).run().ok();
}

/// Promise: the backup ends when everything has been read, and `pg_control` is read last: what is read later could hold what its WAL does not.
#[test]
fn ends_after_the_last_byte() {
    let site = Site::new(&newest());
    fill(&site.server);
    let trace = site.dir.join("trace");
    // The threads that read are held up, so that many chunks wait for them when all files are listed.
    let slow = "inject=pread64:delay_exit=20000";
    let options = ["-y", "-e", "trace=openat,pread64", "-e", slow, "-o", trace.to_str().expect("a plain path")];
    traced(&site.pitr(&[&LOCAL[..], &["--jobs", "16"]].concat()), &options).run().ok();
    let trace = fs::read_to_string(trace).expect("what strace wrote");
    let data = format!("<{}/", site.server.data_dir().display());
    let lines: Vec<&str> = trace.lines().collect();
    let control =
        lines.iter().rposition(|line| line.contains("openat(") && line.contains("\"pg_control\"")).expect("opened");
    let reads = |lines: &[&str]| -> Vec<String> {
        let reads = lines.iter().filter(|line| line.contains("pread64(") && line.contains(&data));
        reads.filter(|line| !line.contains("/global/pg_control>")).map(ToString::to_string).collect()
    };
    assert!(reads(&lines[..control]).len() > 500);
    assert_eq!(reads(&lines[control..]), Vec::<String>::new());
}
