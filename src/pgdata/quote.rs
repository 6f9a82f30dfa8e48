//! Quoting for `postgresql.conf` and for the shell command inside it. Pure.
//!
//! `restore_command` passes three readers: the configuration file's scanner (`guc-file.l`), the replacement of `%f`, `%p`
//! and `%%` (`BuildRestoreCommand`), and the shell. A path is quoted for all three, in the reverse order.

use std::path::Path;

/// A path that cannot stand in a configuration file.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("path {path:?} cannot be written into a setting: {reason}")]
pub struct UnquotablePath {
    /// The path, lossily.
    pub path: String,
    /// Why not.
    pub reason: &'static str,
}

/// A value as `postgresql.conf` and `postgresql.auto.conf` take it: in single quotes, with quotes and backslashes doubled
/// (`escape_single_quotes_ascii`, which `ALTER SYSTEM` uses).
#[must_use]
pub fn setting(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// One word of a POSIX shell's command line.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-+:,@=".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// One word of a command in `restore_command`: a shell word in which `%` stands for itself.
#[must_use]
pub fn command_word(word: &str) -> String {
    shell_word(word).replace('%', "%%")
}

/// A path as text for [`command_word`].
///
/// # Errors
/// Paths that are not UTF-8 or hold control characters: a line break would end the setting, and `ALTER SYSTEM` could no
/// longer rewrite the file.
pub fn path_text(path: &Path) -> Result<&str, UnquotablePath> {
    let refuse = |reason| UnquotablePath { path: path.to_string_lossy().into_owned(), reason };
    let text = path.to_str().ok_or_else(|| refuse("it is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(refuse("it holds control characters"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `guc-file.l` does when it reads a quoted value (`GUC_scanstr`), for values without escapes of its own.
    fn as_postgres_reads(quoted: &str) -> String {
        let inner = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).expect("quoted");
        let mut chars = inner.chars();
        let mut value = String::new();
        while let Some(c) = chars.next() {
            match c {
                '\'' | '\\' => value.push(chars.next().expect("doubled")),
                c => value.push(c),
            }
        }
        value
    }

    /// Blanks, quotes, percent signs and backslashes in paths reach the command unchanged, through all three readers.
    #[test]
    fn hostile_paths_survive() {
        for path in ["/a b/c", "/it's", "/100%/f%p", "/back\\slash", "/$HOME`id`", "/\"q\"", "/-x;y&z|*?~#", "/é", "''"]
        {
            let value = as_postgres_reads(&setting(&command_word(path)));
            let command = value.replace("%%", "%");
            let output = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {command}")])
                .output()
                .expect("a shell is there");
            assert_eq!(String::from_utf8_lossy(&output.stdout), path);
        }
    }

    /// A line break in a path would end the setting and begin another one.
    #[test]
    fn line_breaks_are_refused() {
        assert!(path_text(Path::new("/a\nrecovery_target='immediate'")).is_err());
        assert!(path_text(Path::new("/plain")).is_ok());
    }
}
