//! A `backup_manifest` as the server writes it, for a backup whose files were not sent by the server.
//!
//! The same lines in the same form (`backup_manifest.c`), so that `pg_verifybackup` and `pg_combinebackup` read it, and a server of
//! PostgreSQL 17 and later takes it for its next incremental backup. Checksums are CRC-32C, as the server's are unless others are asked for.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::catalog::WalRange;
use crate::chunk::to_hex;
use crate::wal::{PostgresMajor, SystemIdentifier};

/// The first major version whose manifests name the cluster (version 2 of the manifest).
const FIRST_WITH_IDENTIFIER: u16 = 17;

/// Writes a `backup_manifest` piece by piece; whoever calls puts the pieces one after the other.
#[derive(Debug)]
pub struct ServerManifestWriter {
    checksum: Sha256,
    files: u64,
}

impl ServerManifestWriter {
    /// Begins a manifest, and gives its first bytes.
    #[must_use]
    pub fn begin(major: PostgresMajor, system_identifier: SystemIdentifier) -> (ServerManifestWriter, Vec<u8>) {
        let text = match major.0 >= FIRST_WITH_IDENTIFIER {
            true => format!(
                "{{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {system_identifier},\n\"Files\": ["
            ),
            false => "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [".to_owned(),
        };
        let mut writer = ServerManifestWriter { checksum: Sha256::new(), files: 0 };
        let bytes = writer.counted(text);
        (writer, bytes)
    }

    /// The bytes for a file: path below the data directory (files of tablespaces are `pg_tblspc/<oid>/…`), bytes, last modification in
    /// seconds since the Unix epoch, CRC-32C of the content.
    #[must_use]
    pub fn file(&mut self, path: &[u8], size: u64, modified_at: i64, crc32c: u32) -> Vec<u8> {
        let name = match std::str::from_utf8(path).ok().and_then(|path| serde_json::to_string(path).ok()) {
            Some(path) => format!("\"Path\": {path}"),
            None => format!("\"Encoded-Path\": \"{}\"", to_hex(path)),
        };
        let modified = Timestamp::from_second(modified_at).unwrap_or(Timestamp::UNIX_EPOCH);
        let (modified, crc) = (modified.strftime("%Y-%m-%d %H:%M:%S GMT"), to_hex(&crc32c.to_le_bytes()));
        let comma = if self.files == 0 { "" } else { "," };
        self.files += 1;
        self.counted(format!(
            "{comma}\n{{ {name}, \"Size\": {size}, \"Last-Modified\": \"{modified}\", \"Checksum-Algorithm\": \"CRC32C\", \
             \"Checksum\": \"{crc}\" }}"
        ))
    }

    /// The last bytes, with the WAL that is needed to become consistent. Nothing comes after them.
    #[must_use]
    pub fn finish(&mut self, ranges: &[WalRange]) -> Vec<u8> {
        let range = |range: &WalRange| {
            let WalRange { timeline, start_lsn, end_lsn } = range;
            format!("{{ \"Timeline\": {timeline}, \"Start-LSN\": \"{start_lsn}\", \"End-LSN\": \"{end_lsn}\" }}")
        };
        let ranges: Vec<String> = ranges.iter().map(range).collect();
        let mut bytes = self.counted(format!("\n],\n\"WAL-Ranges\": [\n{}\n],\n", ranges.join(",\n")));
        let checksum = to_hex(&std::mem::take(&mut self.checksum).finalize());
        bytes.extend(format!("\"Manifest-Checksum\": \"{checksum}\"}}\n").into_bytes());
        bytes
    }

    fn counted(&mut self, text: String) -> Vec<u8> {
        self.checksum.update(&text);
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::server::{ServerFile, ServerManifest};
    use super::*;
    use crate::wal::{Lsn, TimelineId};

    /// What is written is what the reader of servers' manifests reads, names that are not UTF-8 included, and byte for byte in the
    /// server's form.
    #[test]
    fn as_servers_write() {
        for (major, identifier) in [(16, None), (17, Some(SystemIdentifier(7_123_456_789_012_345_678)))] {
            let (mut writer, mut text) =
                ServerManifestWriter::begin(PostgresMajor(major), SystemIdentifier(7_123_456_789_012_345_678));
            text.extend(writer.file(b"backup_label", 227, 1_795_257_900, 0x0a0b_0c0d));
            text.extend(writer.file(b"\xff \"a", 0, 0, 0));
            text.extend(writer.file("b\"ü\\".as_bytes(), 1, 0, 7));
            let range = WalRange { timeline: TimelineId(1), start_lsn: Lsn(0x200_0028), end_lsn: Lsn(0x200_0100) };
            text.extend(writer.finish(&[range]));
            let line = "{ \"Path\": \"backup_label\", \"Size\": 227, \"Last-Modified\": \"2026-11-21 10:45:00 GMT\", \
                        \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"0d0c0b0a\" },\n";
            assert!(text.windows(line.len()).any(|part| part == line.as_bytes()), "{}", text.escape_ascii());
            let (mut reader, mut files) = (ServerManifest::default(), Vec::new());
            reader.push(&text, |file| files.push(file)).expect("a good manifest");
            let end = reader.finish().expect("it holds");
            assert_eq!((end.wal_ranges.as_slice(), end.system_identifier), (&[range][..], identifier));
            let file = |path: &[u8], size, crc| ServerFile { path: path.to_vec(), size, crc32c: Some(crc) };
            let expected = [file(b"backup_label", 227, 0x0a0b_0c0d), file(b"\xff \"a", 0, 0)];
            assert_eq!(files[..2], expected);
            assert_eq!(files[2], file("b\"ü\\".as_bytes(), 1, 7));
        }
    }
}
