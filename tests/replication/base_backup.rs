//! Base backups of both protocol generations.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use pitr::replication::{BackupEnd, BackupMessage, BaseBackup, BaseBackupOptions, ReplicationError, Session};

use crate::harness::{Options, Server, TestDir, majors, newest};
use crate::physical;

/// What a base backup brought, in memory: test clusters are small.
struct Received {
    archives: Vec<Vec<u8>>,
    manifest: Vec<u8>,
    progress: Vec<u64>,
    end: BackupEnd,
}

fn receive(session: &mut Session, options: &BaseBackupOptions) -> Result<Received, ReplicationError> {
    let mut backup = BaseBackup::start(session, options)?;
    let (mut archives, mut manifest, mut progress) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(message) = backup.next()? {
        match message {
            BackupMessage::ArchiveBegin { tablespace } => {
                assert_eq!(tablespace, archives.len());
                archives.push(Vec::new());
            }
            BackupMessage::Data(bytes) => archives.last_mut().expect("an archive has begun").extend_from_slice(&bytes),
            BackupMessage::ManifestBegin => assert!(manifest.is_empty()),
            BackupMessage::ManifestData(bytes) => manifest.extend_from_slice(&bytes),
            BackupMessage::Progress(done) => progress.push(done),
        }
    }
    Ok(Received { archives, manifest, progress, end: backup.finish()? })
}

/// Names of the members of a tar archive, with the kind of each.
fn members(tar: &[u8]) -> Vec<(String, char)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches(['\0', ' ']).to_owned();
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(header) = tar.get(at..at + 512).filter(|header| header[0] != 0) {
        let size = u64::from_str_radix(&text(&header[124..136]), 8).expect("a size in octal");
        found.push((text(&header[..100]), char::from(header[156])));
        let kind_has_data = header[156] == b'0';
        at += 512 + if kind_has_data { usize::try_from(size).expect("a size").next_multiple_of(512) } else { 0 };
    }
    found
}

/// Promise: on every major, tablespaces come in the order announced, the main one last and in it `global/pg_control`
/// last, then the manifest; the positions are the server's, and the session can be used again.
#[test]
fn every_major_with_two_tablespaces() {
    for postgres in majors() {
        let dir = TestDir::new();
        let server = Server::running(&dir, &postgres, &Options::default());
        for name in ["one", "two"] {
            let location = dir.make_dir(format!("space {name}"));
            server.run(&format!("CREATE TABLESPACE {name} LOCATION '{}'", location.display()));
            server.run(&format!("CREATE TABLE in_{name} TABLESPACE {name} AS SELECT generate_series(1, 1000)"));
        }
        let before = server.ask("SELECT pg_current_wal_lsn()").parse().unwrap();
        let mut session = physical(&server);
        let options = BaseBackupOptions { label: "it's one".into(), progress: true, ..Default::default() };
        let backup = BaseBackup::start(&mut session, &options).unwrap();
        let (start, timeline) = (backup.start_lsn(), backup.timeline());
        assert!(start > before && timeline.0 == 1);
        let spaces = backup.tablespaces().to_vec();
        assert_eq!(spaces.len(), 3);
        assert!(spaces.iter().all(|space| space.size_bytes.is_some()));
        assert_eq!(spaces[2].oid, None, "the main one is the last");
        assert!(spaces[..2].iter().any(|space| space.location == Some(dir.join("space one").display().to_string())));
        drop(backup);

        // A backup that is given up spoils its session, and nothing on the server.
        let error = session.query("IDENTIFY_SYSTEM").expect_err("in the middle of a backup");
        assert!(matches!(error, ReplicationError::Protocol { .. }), "{error}");
        let mut session = physical(&server);
        let received = receive(&mut session, &options).unwrap();
        assert_eq!(received.archives.len(), 3);
        let main = members(&received.archives[2]);
        assert_eq!(main.first().unwrap().0, "backup_label");
        assert_eq!(main.last().unwrap().0, "global/pg_control");
        let links = main.iter().filter(|(name, kind)| name.starts_with("pg_tblspc/") && *kind == '2').count();
        assert_eq!(links, 2, "links, not a tablespace_map");
        let oid = spaces[0].oid.unwrap();
        assert!(members(&received.archives[0]).iter().all(|(name, _)| !name.contains(&oid.to_string())));
        let manifest = String::from_utf8(received.manifest).unwrap();
        assert!(manifest.contains("\"CRC32C\"") && manifest.trim_end().ends_with('}'), "{manifest}");
        assert!(received.end.stop_lsn > start);
        assert_eq!((received.end.timeline, received.end.damage), (timeline, None));
        assert_eq!(received.progress.is_empty(), postgres.major < 15);
        assert!(received.progress.is_sorted());
        session.identify_system().expect("the session can be used again");
    }
}

/// A cluster with a table of about eight MB.
fn with_a_table(dir: &TestDir, postgres: &crate::harness::Postgres, options: &Options) -> Server {
    let server = Server::running(dir, postgres, options);
    server.run("CREATE TABLE t AS SELECT g, repeat('x', 1000) AS filler FROM generate_series(1, 8000) g; CHECKPOINT");
    server
}

/// Promise: damaged pages are reported, by file and at the end, and the backup is complete all the same: with the damaged
/// page as it is, the manifest and the stop position.
#[test]
fn damaged_pages_are_no_failure() {
    for postgres in majors() {
        let dir = TestDir::new();
        let mut server = with_a_table(&dir, &postgres, &Options::default().page_checksums());
        let path = server.ask("SELECT pg_relation_filepath('t')");
        server.stop(crate::harness::Stop::Fast);
        let file =
            std::fs::OpenOptions::new().write(true).open(server.data_dir().join(&path)).expect("the table's file");
        file.write_all_at(b"not what was there", 5 * 8192 + 4000).expect("a damaged page");
        server.start();
        let mut session = physical(&server);
        let received = receive(&mut session, &BaseBackupOptions::default()).unwrap();
        let damage = received.end.damage.expect("the server's error");
        assert_eq!(damage.sqlstate, "XX001", "{damage}");
        let names_it = |warning: &pitr::replication::ServerMessage| {
            warning.message.contains(&path) && warning.message.contains("block 5")
        };
        assert!(received.end.warnings.iter().any(names_it), "{:?}", received.end.warnings);
        assert!(members(&received.archives[0]).iter().any(|(name, _)| *name == path));
        assert!(received.manifest.ends_with(b"}\n"));

        // Unasked, the server does not look; and the session has survived its error.
        let options = BaseBackupOptions { verify_checksums: false, ..Default::default() };
        let received = receive(&mut session, &options).unwrap();
        assert_eq!((received.end.damage, received.end.warnings), (None, Vec::new()));
    }
}

/// Promise: a standby can be backed up.
#[test]
fn from_a_standby() {
    for postgres in majors() {
        let dir = TestDir::new();
        let primary = with_a_table(&dir, &postgres, &Options::default());
        let mut standby = Server::standby_of(&dir, &primary, "standby", None);
        standby.start();
        let received = receive(&mut physical(&standby), &BaseBackupOptions::default()).unwrap();
        let label = String::from_utf8_lossy(&received.archives[0][512..1024]).into_owned();
        assert!(label.contains("BACKUP FROM: standby"), "{label}");
        assert_eq!(members(&received.archives[0]).last().unwrap().0, "global/pg_control");
    }
}

/// Promise: a server that crashes in the middle is an error, told from silence, and never the end of a backup.
#[test]
fn a_server_killed_in_the_middle() {
    for postgres in [majors().remove(0), newest()] {
        let dir = TestDir::new();
        let mut server = with_a_table(&dir, &postgres, &Options::default());
        let mut session = physical(&server);
        // Slow enough to be in the middle: 1 MB a second of some thirty.
        let options = BaseBackupOptions { rate_limit_kib: Some(1024), ..Default::default() };
        let mut backup = BaseBackup::start(&mut session, &options).unwrap();
        while !matches!(backup.next().unwrap(), Some(BackupMessage::Data(_))) {}
        server.kill9();
        let error = loop {
            match backup.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the backup cannot have an end"),
                Err(error) => break error,
            }
        };
        let expected = matches!(error, ReplicationError::Closed { .. } | ReplicationError::Lost { .. });
        assert!(expected && !error.is_permanent(), "{error}");
        backup.finish().expect_err("nor does it end well if asked");
    }
}

/// Promise: the rate limit reaches the server in both forms of the command.
#[test]
fn rate_limit() {
    for postgres in [majors().remove(0), newest()] {
        let dir = TestDir::new();
        let server = with_a_table(&dir, &postgres, &Options::default());
        let options = BaseBackupOptions { rate_limit_kib: Some(16 * 1024), ..Default::default() };
        let begun = Instant::now();
        let received = receive(&mut physical(&server), &options).unwrap();
        let bytes: usize = received.archives.iter().map(Vec::len).sum();
        let least = Duration::from_secs_f64(bytes as f64 / (16.0 * 1024.0 * 1024.0) * 0.8);
        assert!(begun.elapsed() > least, "{bytes} bytes in {:?}, {least:?} at least", begun.elapsed());
    }
}

/// Promise: a file name that the tar format cannot carry is the server's error (it refuses the backup) and not a hang.
#[test]
fn a_name_too_long_for_tar() {
    for postgres in [majors().remove(0), newest()] {
        let dir = TestDir::new();
        let server = Server::running(&dir, &postgres, &Options::default());
        let name = format!("{}/{}", server.data_dir().display(), "n".repeat(150));
        std::fs::write(&name, "x").expect("a file with a long name");
        crate::harness::dir::chown_to_test_user(name.as_ref());
        let mut session = physical(&server);
        let error = receive(&mut session, &BaseBackupOptions::default()).err().expect("no such tar member");
        let message = error.server_message().unwrap_or_else(|| panic!("{error}"));
        assert!(message.message.contains("too long"), "{message}");
        session.identify_system().expect("the session can be used again");
    }
}

/// Promise: a backup that is given up ends on the server too, and a server that is stopped in the middle says so.
#[test]
fn given_up_and_stopped() {
    for postgres in [majors().remove(0), newest()] {
        let dir = TestDir::new();
        let mut server = with_a_table(&dir, &postgres, &Options::default());
        let options = BaseBackupOptions { rate_limit_kib: Some(1024), ..Default::default() };
        let running = "SELECT count(*) FROM pg_stat_progress_basebackup";
        let mut session = physical(&server);
        BaseBackup::start(&mut session, &options).unwrap().next().expect("the first message");
        assert_eq!(server.ask(running), "1");
        drop(session);
        crate::harness::wait_for("the backup to end", || (server.ask(running) == "0").then_some(()));

        let mut session = physical(&server);
        let mut backup = BaseBackup::start(&mut session, &options).unwrap();
        server.stop(crate::harness::Stop::Fast);
        let error = loop {
            match backup.next() {
                Ok(message) => assert!(message.is_some(), "the backup cannot have an end"),
                Err(error) => break error,
            }
        };
        let message = error.server_message().unwrap_or_else(|| panic!("{error}"));
        assert!(message.severity == "FATAL" && !error.is_permanent(), "{message}");
    }
}
