//! What a backup holds: every byte, whatever the cluster looks like.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use crate::harness::dir::chown_to_test_user;
use crate::harness::{Options, Site, Stop, TestDir, majors, newest};
use crate::unpacked::{Unpacked, only_backup, repository};
use crate::{fill, judge};

/// Promise: on every major, the backup holds every byte that the server sent, its own verification tool agrees, and a server
/// started from it with the archived WAL has the rows.
#[test]
fn every_major_backs_up_and_comes_back() {
    for postgres in majors() {
        let site = Site::with(&postgres, Options::default().page_checksums(), "");
        fill(&site.server);
        let finished = site.backup();
        assert!(finished.stdout.contains("is complete"), "{}", finished.stdout);
        let info = only_backup(&site);
        assert_eq!((info.postgres_major.0, info.bad_pages), (postgres.major as u16, 0));
        let unpacked = Unpacked::of(&site, info.id, "copy");
        unpacked.verify(&postgres);
        let mut copy = unpacked.start(&site, &postgres);
        judge(&copy);
        copy.stop(Stop::Fast);
    }
}

/// Promise: tablespaces, WAL outside the data directory, the smallest and the largest usual segments, and names that are not
/// UTF-8 are all backed up, in both forms of the protocol.
#[test]
fn unusual_clusters() {
    let all = majors();
    for (postgres, segment_size_mib) in [(&all[0], 64), (&all[all.len() - 1], 1)] {
        let options = Options::default().segment_size_mib(segment_size_mib);
        let waldir = TestDir::new();
        let options = Options { waldir: Some(waldir.join("wal")), ..options };
        let site = Site::with(postgres, options, "");
        let place = site.dir.make_dir("a place with spaces");
        site.server.run(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", place.display()));
        fill(&site.server);
        site.server.run("CREATE TABLE far TABLESPACE elsewhere AS SELECT 'pear'::text AS word");
        let names = [&b"with space=and\\back\"quote'"[..], b"\xff\xfe not utf-8", "gr\u{fc}n".as_bytes()];
        for name in names {
            let path = site.server.data_dir().join(std::ffi::OsStr::from_bytes(name));
            fs::write(&path, name).expect("a file beside the server's");
            chown_to_test_user(&path);
        }
        site.backup();
        let unpacked = Unpacked::of(&site, only_backup(&site).id, "copy");
        assert_eq!(unpacked.tablespaces.len(), 1);
        unpacked.verify(postgres);
        for name in names {
            let path = unpacked.data.join(std::ffi::OsStr::from_bytes(name));
            assert_eq!(fs::read(path).expect("the file came along"), name);
        }
        let copy = unpacked.start(&site, postgres);
        judge(&copy);
        assert_eq!(copy.ask("SELECT word FROM far"), "pear");
    }
}

/// Promise: a file over 1 GiB comes in several manifest lines and back whole; zero bytes take no room.
#[test]
fn large_files_and_holes() {
    let site = Site::new(&newest());
    let path = site.server.data_dir().join("large");
    let file = fs::File::create(&path).expect("a file beside the server's");
    let size = (1 << 30) + (3 << 20) + 77;
    file.set_len(size).expect("a sparse file");
    file.write_all_at(b"here", (1 << 30) + 5).expect("a few bytes in it");
    chown_to_test_user(&path);
    site.backup();
    let info = only_backup(&site);
    assert!(info.raw_bytes > size && info.stored_bytes < 16 << 20, "{info:?}");
    let manifest = repository(&site).open_manifest(info.id).expect("the manifest");
    let lines: Vec<_> = manifest
        .map(|line| line.expect("a good line"))
        .filter_map(|line| match line {
            pitr::manifest::ManifestLine::File(file) if file.path.as_bytes() == b"large" => Some(file),
            _ => None,
        })
        .collect();
    assert_eq!(lines.iter().map(|line| line.from).collect::<Vec<_>>(), [0, 1 << 30]);
    assert!(lines[0].crc32c.is_none() && lines[1].crc32c.is_some());
    let stored = repository(&site).read_chunk(&[info.id], &lines[1].chunks[0]).expect("a proved chunk");
    assert_eq!(&stored[..10], b"\0\0\0\0\0here\0");
}

/// Promise: damaged pages are named by file and block, the backup is kept and marked, and its exit status says so; a sound
/// page beside them is not suspected.
#[test]
fn damaged_pages_are_named() {
    let all = majors();
    for postgres in [&all[0], &all[all.len() - 1]] {
        let mut site = Site::with(postgres, Options::default().page_checksums(), "");
        fill(&site.server);
        let path = site.server.ask("SELECT pg_relation_filepath('big')");
        site.server.stop(Stop::Fast);
        let file =
            fs::OpenOptions::new().write(true).open(site.server.data_dir().join(&path)).expect("the table's file");
        for block in [3, 70] {
            file.write_all_at(b"rotten", block * 8192 + 4000).expect("a few bytes in a page");
        }
        site.server.start();
        let finished = site.pitr(&["backup", "--json"]).output().expect("pitr runs");
        assert_eq!(finished.status.code(), Some(21), "{finished:?}");
        let info = only_backup(&site);
        assert_eq!(info.bad_pages, 2);
        let shown: pitr::catalog::BackupInfo = serde_json::from_slice(&finished.stdout).expect("JSON and nothing else");
        assert_eq!(shown, info);
        let stop = Unpacked::of(&site, info.id, "copy").stop;
        let [bad] = stop.bad_pages.as_slice() else { panic!("{:?}", stop.bad_pages) };
        assert_eq!((bad.path.to_string(), bad.blocks.as_slice()), (path, &[3, 70][..]));
    }
}

/// Promise: configuration outside the data directory is stored as far as the role may read it, and what is missing is said.
#[test]
fn configuration_elsewhere() {
    let mut site = Site::new(&newest());
    let hba = site.dir.write("elsewhere_hba.conf", "local all all trust\nlocal replication all trust\n");
    site.server.configure("hba_file", &hba.display().to_string());
    site.server.restart();
    let finished = site.backup();
    assert!(!finished.stdout.contains("not stored"), "{}", finished.stdout);
    let id = only_backup(&site).id;
    let unpacked = Unpacked::of(&site, id, "copy");
    assert_eq!(unpacked.configuration[&hba.display().to_string()], fs::read(&hba).expect("the file"));

    site.server.run("CREATE ROLE plain LOGIN REPLICATION");
    let config = fs::read_to_string(site.config()).expect("the configuration");
    let superuser = site.server.conninfo();
    site.dir.write("pitr.toml", config.replace(&superuser, &site.server.conninfo_as("plain")));
    let finished = site.backup();
    assert!(finished.stdout.contains("not stored"), "{}", finished.stdout);
    let infos = repository(&site).backups().expect("the list of backups");
    let info = infos.iter().find(|info| info.id != id).expect("the second backup");
    assert_eq!(info.configuration_missing.len(), 1, "{info:?}");
}
