//! The files of a backup, laid out by whomever, against its `backup_manifest`.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::harness::{Postgres, Run, as_test_user, client_tool};

/// Compares every file with the size and checksum that `backup_manifest` has of it, and lets PostgreSQL's own tool do the same where there
/// is one that reads this version's, which finds files too much as well. `changed` are files that whoever laid them out may change.
pub(crate) fn agrees_with_manifest(postgres: &Postgres, data: &Path, changed: &[&str]) {
    let manifest = fs::read(data.join("backup_manifest")).expect("the server's manifest");
    let mut reader = pitr::manifest::server::ServerManifest::default();
    let mut files = Vec::new();
    reader.push(&manifest, |file| files.push(file)).expect("a good manifest");
    reader.finish().expect("it holds");
    assert!(files.len() > 900, "{} files", files.len());
    for file in files.iter().filter(|file| !changed.iter().any(|name| name.as_bytes() == file.path)) {
        // Those of tablespaces come through the links in pg_tblspc.
        let path = data.join(std::ffi::OsStr::from_bytes(&file.path));
        assert!(!path.to_string_lossy().contains("INCREMENTAL"), "{}", path.display());
        let content = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let found = (content.len() as u64, file.crc32c.map(|_| crc32c::crc32c(&content)));
        assert_eq!(found, (file.size, file.crc32c), "{}", path.display());
    }
    if postgres.major <= 16 {
        let mut tool = as_test_user(client_tool("pg_verifybackup"));
        tool.args(changed.iter().flat_map(|name| ["--ignore", name]));
        tool.arg("--no-parse-wal").arg(data).run().ok();
    }
}
