//! A backup laid out from its manifest with nothing but the library's readers, for tests that judge its content.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use pitr::catalog::{BackupId, BackupInfo};
use pitr::manifest::{ManifestLine, ManifestStop};
use pitr::repository::{Repository, ServerRepository};
use pitr::storage::Directory;

use crate::compared::agrees_with_manifest;
use crate::harness::dir::chown_to_test_user;
use crate::harness::site::CLUSTER;
use crate::harness::{Postgres, Server, Site, TestDir};

/// The part of the site's repository that belongs to its server.
pub(crate) fn repository(site: &Site) -> ServerRepository {
    let storage = Arc::new(Directory::open(&site.repository()).expect("the repository's directory"));
    let repository = Repository::open(storage).expect("a repository");
    let cluster = repository.cluster(&CLUSTER.parse().expect("a cluster's name"));
    let servers = cluster.servers().expect("its servers");
    cluster.server(servers.last().expect("a server").system_identifier)
}

/// The only backup that counts.
pub(crate) fn only_backup(site: &Site) -> BackupInfo {
    let backups = repository(site).backups().expect("the list of backups");
    assert_eq!(backups.len(), 1, "{backups:?}");
    backups.into_iter().next().expect("just counted")
}

/// A backup as files.
pub(crate) struct Unpacked {
    /// The data directory.
    pub(crate) data: PathBuf,
    /// Where each tablespace lies now.
    pub(crate) tablespaces: BTreeMap<u32, PathBuf>,
    /// What the manifest says at its end.
    pub(crate) stop: ManifestStop,
    /// Configuration files from outside the data directory.
    pub(crate) configuration: BTreeMap<String, Vec<u8>>,
}

impl Unpacked {
    /// Lays the backup out in the site's directory `name`. Every chunk and the manifest are proved on the way.
    pub(crate) fn of(site: &Site, id: BackupId, name: &str) -> Unpacked {
        Unpacked::from(&repository(site), &site.dir, id, name)
    }

    /// Lays a backup of any repository out in the directory `name`.
    pub(crate) fn from(repository: &ServerRepository, dir: &TestDir, id: BackupId, name: &str) -> Unpacked {
        let mut manifest = repository.open_manifest(id).expect("the manifest");
        let header = manifest.header().clone();
        let data = dir.make_dir(name);
        let tablespaces: BTreeMap<u32, PathBuf> = header
            .tablespaces
            .iter()
            .map(|tablespace| (tablespace.oid, dir.make_dir(format!("{name}-{}", tablespace.oid))))
            .collect();
        let place = |tablespace: Option<u32>| tablespace.map_or(&data, |oid| &tablespaces[&oid]);
        let mut configuration = BTreeMap::new();
        let read = |chunks: &[pitr::chunk::ChunkRef]| -> Vec<u8> {
            let chunk = |chunk| repository.read_chunk(&header.pack_sources, chunk).expect("a proved chunk");
            chunks.iter().flat_map(chunk).collect()
        };
        for line in manifest.by_ref() {
            match line.expect("a good line") {
                ManifestLine::Directory(line) => {
                    let path = place(line.tablespace).join(line.path.as_path());
                    fs::create_dir_all(&path).expect("a directory");
                    fs::set_permissions(&path, fs::Permissions::from_mode(line.mode)).expect("its mode");
                    chown_to_test_user(&path);
                }
                ManifestLine::Symlink(line) => {
                    let oid: u32 = line.path.to_string().trim_start_matches("pg_tblspc/").parse().expect("an oid");
                    symlink(&tablespaces[&oid], data.join(line.path.as_path())).expect("a link");
                }
                ManifestLine::File(line) => {
                    let path = place(line.tablespace).join(line.path.as_path());
                    let mut content = if line.from > 0 { fs::read(&path).expect("its first part") } else { Vec::new() };
                    content.extend(read(&line.chunks));
                    fs::write(&path, &content).expect("a file");
                    fs::set_permissions(&path, fs::Permissions::from_mode(line.mode)).expect("its mode");
                    chown_to_test_user(&path);
                    if let (Some(crc), true) = (&line.crc32c, line.to() == line.size) {
                        assert_eq!(*crc, format!("{:08x}", crc32c::crc32c(&content)), "{}", line.path);
                        assert_eq!(content.len() as u64, line.size);
                    }
                }
                ManifestLine::Config(line) => {
                    configuration.insert(line.source, read(&line.chunks));
                }
            }
        }
        let stop = manifest.stop().expect("the manifest's end").clone();
        Unpacked { data, tablespaces, stop, configuration }
    }

    /// Compares the files with `backup_manifest`.
    pub(crate) fn verify(&self, postgres: &Postgres) {
        agrees_with_manifest(postgres, &self.data, &[]);
    }

    /// Starts a server on the files; it recovers from the archive to its end.
    pub(crate) fn start(&self, site: &Site, postgres: &Postgres) -> Server {
        // The copy of a standby brings this along, and it would win over recovery.signal.
        let _ = fs::remove_file(self.data.join("standby.signal"));
        fs::write(self.data.join("recovery.signal"), "").expect("recovery.signal");
        chown_to_test_user(&self.data.join("recovery.signal"));
        let name = self.data.file_name().and_then(|name| name.to_str()).expect("a plain name").to_owned();
        let mut copy = Server::adopt(&site.dir, postgres, &format!("{name}-server"), &self.data);
        copy.configure("restore_command", &site.fetch_command());
        copy.configure("archive_mode", "off");
        copy.start();
        crate::harness::wait_for("the end of recovery", || {
            (copy.ask("SELECT pg_is_in_recovery()") == "f").then_some(())
        });
        copy
    }
}
