//! The server's `backup_manifest` of an incremental backup, made that of the full one which was put together from it.
//!
//! As pg_combinebackup does it (`write_manifest.c`): the files that were put together stand under their own names with the size and
//! checksum that they have now, everything else stays, and the manifest's own checksum is computed anew.

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::chunk::relation_file::{Fork, RelationFile};
use crate::chunk::to_hex;

/// A file that is other than the server sent it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MergedFile {
    /// Path below the data directory; UTF-8, since names of relation files are.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// CRC-32C of the content.
    pub crc32c: u32,
}

/// Rewrites a manifest line by line.
#[derive(Debug, Default)]
pub struct ManifestMerge {
    checksum: Sha256,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Last-Modified")]
    modified: Option<String>,
}

impl ManifestMerge {
    /// A line as it is to be, with its line feed. `merged` knows what files have become, by the path that the server knows.
    pub fn line(&mut self, line: &[u8], merged: impl Fn(&str) -> Option<MergedFile>) -> Vec<u8> {
        let text = line.trim_ascii();
        if text.starts_with(b"\"Manifest-Checksum\"") {
            let found = to_hex(&std::mem::take(&mut self.checksum).finalize());
            return format!("\"Manifest-Checksum\": \"{found}\"}}\n").into_bytes();
        }
        let new = rewritten(text, merged).unwrap_or_else(|| line.to_vec());
        self.checksum.update(&new);
        new
    }
}

/// A manifest for the server to go on from, by which it sends all visibility maps whole.
///
/// A record that clears bits of a visibility map does not name its block (`visibilitymap_clear` under `heap_xlog_delete` and others), so a
/// server's WAL summaries miss it: an incremental backup may bring along a map that calls pages visible to all that are not, and
/// index-only scans of the restored cluster return rows that were deleted. A server sends whole what it does not find in the manifest
/// (`GetFileBackupMethod` in `basebackup_incremental.c`), so the maps stand there under other names.
#[must_use]
pub fn with_whole_visibility_maps(manifest: &[u8]) -> Vec<u8> {
    let mut merge = ManifestMerge::default();
    let renamed = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let is_map = RelationFile::parse(name.as_bytes()).is_some_and(|file| file.fork == Fork::Visibility);
        is_map.then(|| MergedFile { path: format!("{path}.whole"), size: 0, crc32c: 0 })
    };
    manifest.split_inclusive(|byte| *byte == b'\n').flat_map(|line| merge.line(line, renamed)).collect()
}

fn rewritten(text: &[u8], merged: impl Fn(&str) -> Option<MergedFile>) -> Option<Vec<u8>> {
    if !text.starts_with(b"{ \"Path\": ") {
        return None;
    }
    let (object, comma) = text.strip_suffix(b",").map_or((text, ""), |object| (object, ","));
    let Line { path, modified } = serde_json::from_slice(object).ok()?;
    let file = merged(&path?)?;
    let path = serde_json::to_string(&file.path).ok()?;
    let modified = serde_json::to_string(&modified.unwrap_or_default()).ok()?;
    let crc = to_hex(&file.crc32c.to_le_bytes());
    let line = format!(
        "{{ \"Path\": {path}, \"Size\": {}, \"Last-Modified\": {modified}, \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \
         \"{crc}\" }}{comma}\n",
        file.size
    );
    Some(line.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::server::ServerManifest;
    use super::*;

    /// A line about a file.
    fn entry(path: &str, comma: &str) -> String {
        format!(
            "{{ \"Path\": \"{path}\", \"Size\": 12, \"Last-Modified\": \"2026-11-21 10:45:00 GMT\", \"Checksum-Algorithm\": \
             \"CRC32C\", \"Checksum\": \"0d0c0b0a\" }}{comma}\n"
        )
    }

    /// What comes out is a manifest that holds, with the new name, size and checksum, and nothing else changed.
    #[test]
    fn files_are_exchanged() {
        let mut lines = vec!["{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n".to_owned()];
        lines.push("\"System-Identifier\": 7123456789012345678,\n\"Files\": [\n".to_owned());
        lines.push(entry("base/5/INCREMENTAL.2619", ","));
        lines.push(entry("base/5/PG_VERSION", ""));
        lines.push("],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n".to_owned());
        lines.push("\"Manifest-Checksum\": \"whatever\"}\n".to_owned());
        let mut merge = ManifestMerge::default();
        let merged = |path: &str| {
            let file = MergedFile { path: "base/5/2619".to_owned(), size: 16_384, crc32c: 7 };
            (path == "base/5/INCREMENTAL.2619").then_some(file)
        };
        let all = lines.concat();
        let new: Vec<u8> = all.split_inclusive('\n').flat_map(|line| merge.line(line.as_bytes(), merged)).collect();
        let (mut reader, mut files) = (ServerManifest::default(), Vec::new());
        reader.push(&new, |file| files.push(file)).expect("a good manifest");
        assert_eq!(reader.finish().expect("whole").wal_ranges.len(), 1);
        assert_eq!((files[0].path.as_slice(), files[0].size, files[0].crc32c), (&b"base/5/2619"[..], 16_384, Some(7)));
        assert_eq!(
            (files[1].path.as_slice(), files[1].size, files[1].crc32c),
            (&b"base/5/PG_VERSION"[..], 12, Some(0x0a0b_0c0d))
        );
    }

    /// Visibility maps are not found under their names; everything else is, and the manifest holds.
    #[test]
    fn visibility_maps_are_hidden() {
        let mut lines =
            vec!["{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7,\n\"Files\": [\n".to_owned()];
        let maps = ["base/5/2619_vm", "pg_tblspc/16384/PG_17_202406281/5/2619_vm.1"];
        let others = ["base/5/2619", "base/5/2619_fsm", "base/5/notes_vm", "global/1262"];
        lines.extend(maps.iter().chain(&others[..3]).map(|path| entry(path, ",")));
        lines.push(entry(others[3], ""));
        lines.push("],\n\"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n".to_owned());
        lines.push("\"Manifest-Checksum\": \"whatever\"}\n".to_owned());
        let hidden = with_whole_visibility_maps(lines.concat().as_bytes());
        let (mut reader, mut files) = (ServerManifest::default(), Vec::new());
        reader.push(&hidden, |file| files.push(file)).expect("a good manifest");
        reader.finish().expect("its own checksum holds");
        let found: Vec<String> = files.iter().map(|file| String::from_utf8_lossy(&file.path).into_owned()).collect();
        let expected: Vec<String> =
            maps.iter().map(|path| format!("{path}.whole")).chain(others.map(str::to_owned)).collect();
        assert_eq!(found, expected);
    }
}
