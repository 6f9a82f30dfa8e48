//! The server's `backup_manifest` of an incremental backup, made that of the full one which was put together from it.
//!
//! As pg_combinebackup does it (`write_manifest.c`): the files that were put together stand under their own names with the size and
//! checksum that they have now, everything else stays, and the manifest's own checksum is computed anew.

use serde::Deserialize;
use sha2::{Digest, Sha256};

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

    /// What comes out is a manifest that holds, with the new name, size and checksum, and nothing else changed.
    #[test]
    fn files_are_exchanged() {
        let entry = |path: &str, comma: &str| {
            format!(
                "{{ \"Path\": \"{path}\", \"Size\": 12, \"Last-Modified\": \"2026-11-21 10:45:00 GMT\", \"Checksum-Algorithm\": \
                 \"CRC32C\", \"Checksum\": \"0d0c0b0a\" }}{comma}\n"
            )
        };
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
}
