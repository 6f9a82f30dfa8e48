//! Compares the files that arrived with the server's `backup_manifest`.
//!
//! The server adds a file to its manifest when it has sent it, so both come in the same order; what is kept of each file
//! until then is 24 bytes.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::BackupError;
use crate::manifest::server::ServerFile;

/// What arrived of one file.
#[derive(Clone, Copy, Debug)]
struct Seen {
    path_hash: u64,
    size: u64,
    crc32c: u32,
}

/// All files that arrived, to be compared one by one.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    files: Vec<Seen>,
    compared: usize,
    last_good: String,
}

impl Arrived {
    /// Notes a file that arrived whole. Files of a tablespace are known below `pg_tblspc/<oid>`.
    pub(super) fn note(&mut self, path: &[u8], tablespace: Option<u32>, size: u64, crc32c: u32) {
        let path_hash = match tablespace {
            Some(oid) => hash(&[format!("pg_tblspc/{oid}/").as_bytes(), path].concat()),
            None => hash(path),
        };
        self.files.push(Seen { path_hash, size, crc32c });
    }

    /// Compares the next file of the server's manifest.
    pub(super) fn compare(&mut self, claim: &ServerFile) -> Result<(), BackupError> {
        let path = String::from_utf8_lossy(&claim.path).into_owned();
        let differs = |path: &str, reason: String| Err(BackupError::FileDiffers { path: path.to_owned(), reason });
        let claimed = hash(&claim.path);
        let Some(seen) = self.files.get(self.compared).filter(|seen| seen.path_hash == claimed) else {
            let later = self.files[self.compared.min(self.files.len())..].iter().any(|seen| seen.path_hash == claimed);
            return match later {
                true => differs(&self.last_good, "the file that was sent after it is not in backup_manifest".into()),
                false => differs(&path, "it is in the server's backup_manifest, but was not sent".into()),
            };
        };
        if seen.size != claim.size {
            return differs(&path, format!("{} bytes arrived, the server says it sent {}", seen.size, claim.size));
        }
        if let Some(crc32c) = claim.crc32c.filter(|&crc32c| crc32c != seen.crc32c) {
            let found = seen.crc32c;
            return differs(
                &path,
                format!("its CRC-32C is {found:08X} as it arrived, and {crc32c:08X} as it was sent"),
            );
        }
        self.compared += 1;
        self.last_good = path;
        Ok(())
    }

    /// After the server's last file: nothing else may have arrived.
    pub(super) fn finish(&self) -> Result<(), BackupError> {
        if self.compared == self.files.len() {
            return Ok(());
        }
        let reason = "the file that was sent after it is not in backup_manifest".to_owned();
        Err(BackupError::FileDiffers { path: self.last_good.clone(), reason })
    }
}

fn hash(path: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(path: &str, size: u64, crc32c: u32) -> ServerFile {
        ServerFile { path: path.into(), size, crc32c: Some(crc32c) }
    }

    fn compare(claims: &[ServerFile]) -> Result<(), String> {
        let mut arrived = Arrived::default();
        arrived.note(b"PG_16_1/5/1", Some(7), 10, 1);
        arrived.note(b"backup_label", None, 20, 2);
        arrived.note(b"base/1", None, 30, 3);
        claims
            .iter()
            .try_for_each(|claim| arrived.compare(claim))
            .and_then(|()| arrived.finish())
            .map_err(|e| e.to_string())
    }

    /// A file that is missing, too much, of another length or with other content is named: the copy is not what the server
    /// believes to have sent.
    #[test]
    fn differences_are_named() {
        let good = [claim("pg_tblspc/7/PG_16_1/5/1", 10, 1), claim("backup_label", 20, 2), claim("base/1", 30, 3)];
        assert_eq!(compare(&good), Ok(()));
        let with = |at: usize, claim: ServerFile| {
            let mut claims = good.to_vec();
            claims[at] = claim;
            compare(&claims).expect_err("they differ")
        };
        assert!(with(1, claim("backup_label", 21, 2)).contains("\"backup_label\""));
        assert!(with(2, claim("base/1", 30, 4)).contains("CRC-32C"));
        assert!(with(2, claim("base/2", 30, 3)).contains("\"base/2\""));
        assert!(compare(&good[..2]).expect_err("too much").contains("after it"));
        assert!(compare(&[good[0].clone(), good[2].clone()]).expect_err("too much").contains("after it"));
        let more = [good.as_slice(), &[claim("base/9", 1, 1)]].concat();
        assert!(compare(&more).expect_err("missing").contains("\"base/9\""));
    }
}
