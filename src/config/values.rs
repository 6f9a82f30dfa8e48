//! Values that settings can have, and how each is read from its text.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::codec::Compression;

/// What `pitr-wal-fetch` tells a standby when it cannot tell whether the archive has a file (`on_unreachable`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnUnreachable {
    /// "Not there", with a warning: the standby lives on, streams, and asks again.
    #[default]
    Wait,
    /// "Cannot tell": the standby stops.
    Stop,
}

impl fmt::Display for OnUnreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OnUnreachable::Wait => "wait",
            OnUnreachable::Stop => "stop",
        })
    }
}

impl FromStr for OnUnreachable {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "wait" => Ok(OnUnreachable::Wait),
            "stop" => Ok(OnUnreachable::Stop),
            _ => Err("\"wait\" or \"stop\""),
        }
    }
}

/// In how many of a cluster's repositories a WAL file must be durable before PostgreSQL is told so (`push_policy`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum PushPolicy {
    /// In all of them.
    #[default]
    All,
    /// In so many; the others are caught up later.
    AtLeast(usize),
}

impl PushPolicy {
    /// How many it takes of so many.
    #[must_use]
    pub fn needed(self, repositories: usize) -> usize {
        match self {
            PushPolicy::All => repositories,
            PushPolicy::AtLeast(needed) => needed.min(repositories),
        }
    }
}

impl FromStr for PushPolicy {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(PushPolicy::All),
            number => match number.parse() {
                Ok(needed) if (1..=64).contains(&needed) => Ok(PushPolicy::AtLeast(needed)),
                _ => Err("\"all\", or a number from 1 to that of the cluster's repositories"),
            },
        }
    }
}

/// How WAL and pages are compressed.
pub(super) fn compression(text: &str) -> Result<Compression, &'static str> {
    text.parse().map_err(|_| "\"lz4\", or \"zstd:LEVEL\" with a level from 1 to 19")
}

/// A path that means the same file wherever the program is started: PostgreSQL starts it in the data directory.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, &'static str> {
    let path = Path::new(text);
    let plain = path.is_absolute() && !path.components().any(|part| part == std::path::Component::ParentDir);
    if plain && !text.contains('\0') { Ok(path.to_owned()) } else { Err("an absolute path without \"..\"") }
}

/// A duration with its unit, from one second to one week.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    match humantime::parse_duration(text) {
        Ok(duration) if (1..=7 * 86_400).contains(&duration.as_secs()) => Ok(duration),
        _ => Err("a time with its unit from \"1s\" to \"7d\", such as \"50s\" or \"2m\""),
    }
}

/// Bytes a second. As in PostgreSQL's own settings, kB and MB are multiples of 1024.
pub(super) fn rate(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "a number of bytes a second with its unit, such as \"500kB\", \"20MB\" or \"1GB\"";
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match text[digits.len()..].trim() {
        "kB" => 1 << 10,
        "MB" => 1 << 20,
        "GB" => 1 << 30,
        _ => return Err(EXPECTED),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    bytes.filter(|bytes| *bytes > 0).ok_or(EXPECTED)
}

/// A count from `0` to 64.
pub(super) fn count(text: &str) -> Result<u32, &'static str> {
    text.parse().ok().filter(|count| *count <= 64).ok_or("a number from 0 to 64")
}

/// Days, at least one and at most a century.
pub(super) fn days(text: &str) -> Result<u32, &'static str> {
    text.parse().ok().filter(|days| (1..=36_500).contains(days)).ok_or("a number of days from 1 to 36500")
}

/// A number of backups, at least one.
pub(super) fn backups(text: &str) -> Result<u32, &'static str> {
    text.parse().ok().filter(|count| (1..=10_000).contains(count)).ok_or("a number from 1 to 10000")
}

/// Whether a connection string carries a password, as `password=…` or in a URI's user part or parameters.
pub(super) fn has_password(conninfo: &str) -> bool {
    let text = conninfo.trim_start();
    if let Some((_, rest)) = text.split_once("://") {
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        let user = authority.rsplit_once('@').map_or("", |(user, _)| user);
        return user.contains(':') || keyword(rest.split_once('?').map_or("", |(_, parameters)| parameters));
    }
    keyword(text)
}

/// Looks for `password` or `sslpassword` before an equals sign. A quoted value that looks the same is refused as well:
/// better one connection string too many than a password in a file that all may read.
fn keyword(text: &str) -> bool {
    text.match_indices("password").any(|(at, word)| text[at + word.len()..].trim_start().starts_with('='))
}
