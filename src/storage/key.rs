//! `Key`: the name of a stored object, safe in a path and in a URL.

use std::fmt;

/// The name of an object or folder: parts joined by `/`.
///
/// Invariants, established by the constructors: every part is 1 to 200 characters of `A-Z a-z 0-9 . _ -`, and none
/// is `.` or `..` or begins with a dot. So a key can neither leave the repository nor need escaping anywhere.
/// The root is the key without parts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(String);

/// A text that cannot be part of an object's name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("\"{0}\" cannot be the name of a stored object")]
pub struct KeyError(pub String);

impl Key {
    /// The key without parts: the repository itself.
    #[must_use]
    pub fn root() -> Key {
        Key::default()
    }

    /// Reads a key such as `main/7312/wal`.
    ///
    /// # Errors
    /// A part breaks the rules above.
    pub fn parse(text: &str) -> Result<Key, KeyError> {
        text.split('/').try_fold(Key::root(), |key, part| key.join(part))
    }

    /// The key with one more part.
    ///
    /// # Errors
    /// The part breaks the rules above.
    pub fn join(&self, part: &str) -> Result<Key, KeyError> {
        if !Key::is_part(part) {
            return Err(KeyError(part.to_owned()));
        }
        Ok(Key(if self.0.is_empty() { part.to_owned() } else { format!("{}/{part}", self.0) }))
    }

    /// Whether a text can be a part of a key.
    #[must_use]
    pub fn is_part(text: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        (1..=200).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(plain)
    }

    /// The key as text; empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Folder and last part; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(&str, &str)> {
        if self.0.is_empty() { None } else { Some(self.0.rsplit_once('/').unwrap_or(("", &self.0))) }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No text from outside can name anything beyond the repository.
    #[test]
    fn hostile_names() {
        for wrong in ["", ".", "..", "a/../b", "/a", "a/", "a//b", ".hidden", "a b", "a\0", "ä", "a\\b", "%2e"] {
            assert!(Key::parse(wrong).is_err(), "{wrong:?}");
        }
        let key = Key::parse("main/7312/wal").unwrap();
        assert_eq!(key.split(), Some(("main/7312", "wal")));
        assert_eq!(key.join("x-1_2.y").unwrap().as_str(), "main/7312/wal/x-1_2.y");
    }
}
