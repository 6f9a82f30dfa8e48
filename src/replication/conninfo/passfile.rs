//! The password file, `~/.pgpass` (libpq's `passwordFromFile`, manual "The Password File").

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Secret;

/// What a password file had to say.
pub(super) enum Lookup {
    /// The first line that fits.
    Found(Secret),
    /// No file, or no line that fits.
    Nothing,
    /// The file must not be used, for the reason given; told to the user if a password turns out to be needed.
    Refused(String),
}

/// What a line must match.
pub(super) struct Wanted<'a> {
    /// Host name or address as given; `localhost` for the default socket directories.
    pub(super) host: &'a str,
    pub(super) port: u16,
    /// `replication` for physical replication.
    pub(super) database: &'a str,
    pub(super) user: &'a str,
}

/// Looks a password up. A file that others may read is not used, as by libpq.
pub(super) fn look_up(path: &Path, wanted: &Wanted<'_>) -> Lookup {
    let refused = |reason: String| Lookup::Refused(format!("password file \"{}\" {reason}", path.display()));
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Lookup::Nothing,
        Err(error) => return refused(format!("cannot be read: {error}")),
    };
    if !metadata.is_file() {
        return refused("is not a plain file".to_owned());
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        return refused("may be read by group or others; its permissions should be 0600 or less".to_owned());
    }
    match std::fs::read_to_string(path) {
        Ok(text) => text.lines().find_map(|line| matching(line, wanted)).map_or(Lookup::Nothing, Lookup::Found),
        Err(error) => refused(format!("cannot be read: {error}")),
    }
}

/// The password of one line, `host:port:database:user:password`, if the line fits.
fn matching(line: &str, wanted: &Wanted<'_>) -> Option<Secret> {
    let line = line.trim_end_matches('\r');
    if line.starts_with('#') {
        return None;
    }
    let mut fields = fields(line).into_iter();
    let port = wanted.port.to_string();
    for expected in [wanted.host, &port, wanted.database, wanted.user] {
        let (written, unescaped) = fields.next()?;
        // Only a bare star is a wildcard: "\*" is the character.
        if written != "*" && unescaped != expected {
            return None;
        }
    }
    let (_, password) = fields.next()?;
    (!password.is_empty()).then(|| Secret::new(password))
}

/// The fields, each as written and with `\:` and `\\` resolved.
fn fields(line: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let (mut written, mut unescaped) = (String::new(), String::new());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => found.push((std::mem::take(&mut written), std::mem::take(&mut unescaped))),
            '\\' => {
                written.push(c);
                if let Some(next) = chars.next() {
                    written.push(next);
                    unescaped.push(next);
                }
            }
            _ => {
                written.push(c);
                unescaped.push(c);
            }
        }
    }
    found.push((written, unescaped));
    found
}

/// The file to use: named, from `PGPASSFILE`, or the one in the home directory.
pub(super) fn path(named: Option<&str>, environment: &super::Environment) -> Option<PathBuf> {
    named.map(PathBuf::from).or_else(|| environment.in_home(".pgpass"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wildcards, escapes and order work as in libpq; a line for someone else gives nothing.
    #[test]
    fn lines() {
        let wanted = Wanted { host: "db:1", port: 5433, database: "replication", user: "pitr" };
        for (line, expected) in [
            ("*:*:*:*:secret", Some("secret")),
            (r"db\:1:5433:replication:pitr:a\:b\\c", Some(r"a:b\c")),
            ("*:5432:*:*:secret", None),
            (r"\*:*:*:*:secret", None),
            ("# *:*:*:*:secret", None),
            ("*:*:*:*:", None),
            ("*:*:*", None),
            ("*:*:*:pitr:secret\r", Some("secret")),
        ] {
            let found = matching(line, &wanted);
            assert_eq!(found.as_ref().map(Secret::reveal), expected, "{line}");
        }
    }
}
