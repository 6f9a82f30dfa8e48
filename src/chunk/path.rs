//! Names of what a backup contains: relative paths that cannot lead out of the directory they are laid into.
//!
//! They come from the server's tar stream and later from a manifest; both are foreign input. The rules are enforced
//! once, here; whoever holds an [`EntryPath`] may join it to a directory. (That no component is a symbolic link is for
//! whoever writes to see to.)

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::relation_file;

/// The longest path accepted, in bytes: `PATH_MAX` without its terminator.
const MAX_BYTES: usize = 4095;

/// A relative path below a data directory or tablespace: no empty, `.` or `..` component, no NUL, at most 4095 bytes.
///
/// The bytes are those of the file system; in JSON a path that is not UTF-8 is `{"hex":"…"}`, any other a string.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryPath(Vec<u8>);

/// A path that a backup must not contain.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{}\" is not a path inside a data directory", .0.escape_ascii())]
pub struct PathError(pub Vec<u8>);

impl EntryPath {
    /// Checks a path.
    ///
    /// # Errors
    /// A path that breaks one of the rules above.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        let good = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.contains(&0);
        if bytes.len() <= MAX_BYTES && bytes.split(|&b| b == b'/').all(good) {
            Ok(EntryPath(bytes.to_vec()))
        } else {
            Err(PathError(bytes.to_vec()))
        }
    }

    /// The path's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The OID of the database in whose directory this lies, and the name in that directory. `in_tablespace`: the path is one below a
    /// tablespace, not below the data directory.
    #[must_use]
    pub fn in_database(&self, in_tablespace: bool) -> Option<(u32, &[u8])> {
        let mut parts = self.0.splitn(3, |byte| *byte == b'/');
        let (above, name, rest) = (parts.next()?, parts.next()?, parts.next()?);
        Some((relation_file::database(above, name, in_tablespace)?, rest))
    }

    /// The path as the operating system takes it.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text {
    Plain(String),
    Hex { hex: String },
}

impl Serialize for EntryPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => Text::Hex { hex: to_hex(&self.0) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for EntryPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let bytes = match Text::deserialize(deserializer)? {
            Text::Plain(text) => text.into_bytes(),
            Text::Hex { hex } => from_hex(&hex).ok_or_else(|| D::Error::custom("a path's hex is not hexadecimal"))?,
        };
        EntryPath::new(&bytes).map_err(D::Error::custom)
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of an even number of hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| (b as char).to_digit(16);
    digits.chunks(2).map(|pair| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name from a hostile server or an edited manifest cannot lead out of the directory being restored.
    #[test]
    fn hostile_names_are_refused() {
        let long = vec![b'a'; MAX_BYTES + 1];
        let hostile: [&[u8]; 10] =
            [b"", b"/", b"/etc/passwd", b"..", b"a/../b", b"a//b", b"./a", b"a/", b"a\0b", long.as_slice()];
        for name in hostile {
            assert!(EntryPath::new(name).is_err(), "{}", name.escape_ascii());
            let json = serde_json::to_string(&String::from_utf8_lossy(name)).expect("a string");
            assert!(serde_json::from_str::<EntryPath>(&json).is_err());
        }
    }

    /// Every name PostgreSQL may use survives the manifest, those that are not UTF-8 too.
    #[test]
    fn names_survive() {
        for name in [&b"base/1/1259"[..], b"a b=\\\"'", "ü".as_bytes(), b"\xff\xfe/x", b"...", b"a..b"] {
            let path = EntryPath::new(name).expect("a good name");
            let json = serde_json::to_string(&path).expect("serialises");
            assert_eq!(serde_json::from_str::<EntryPath>(&json).expect("reads back"), path, "{json}");
        }
    }
}
