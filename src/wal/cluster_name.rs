//! `ClusterName`: the name under which the user knows a cluster, in `pitr.toml`, on command lines, in the repository.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use super::NameError;

/// The user's name for one PostgreSQL cluster and all that descends from it by `pg_upgrade` and promotion.
///
/// 1 to 63 characters of `a-z`, `0-9`, `_` and `-`, the first one no `-`. It becomes a directory of the repository and an
/// argument in `archive_command`, so it must need no quoting anywhere and must not change meaning on a file system that
/// folds case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct ClusterName(String);

impl ClusterName {
    /// Longest name, in bytes: as PostgreSQL's own identifiers (`NAMEDATALEN` - 1).
    pub const MAX_BYTES: usize = 63;

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ClusterName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let letters = text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if letters && (1..=Self::MAX_BYTES).contains(&text.len()) && !text.starts_with('-') {
            Ok(ClusterName(text.to_owned()))
        } else {
            Err(NameError::Cluster(text.to_owned()))
        }
    }
}

impl<'de> Deserialize<'de> for ClusterName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cluster's name is safe as a directory, as an argument and on a file system that folds case.
    #[test]
    fn names() {
        for good in ["main", "15-main", "orders_eu", "0", &"a".repeat(63)] {
            assert_eq!(good.parse::<ClusterName>().expect(good).to_string(), good);
        }
        for wrong in ["", "-main", "Main", "a b", "a/b", "..", "a.b", "é", "a\0", &"a".repeat(64)] {
            assert!(wrong.parse::<ClusterName>().is_err(), "{wrong:?}");
        }
    }
}
