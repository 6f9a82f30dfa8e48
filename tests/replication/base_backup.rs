//! Base backups of both protocol generations.

use pitr::replication::{BackupEnd, BackupMessage, BaseBackup, BaseBackupOptions, ReplicationError, Session};

use crate::harness::{Options, Server, TestDir, majors};
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
