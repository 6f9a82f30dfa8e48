//! `RepositoryName`: what the user calls one of the several repositories of a cluster.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::wal::ClusterName;

/// The name of one of a cluster's repositories, as in `[cluster.main.mirror.west]`. It becomes part of file names in the spool, so
/// it is made like the name of a cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct RepositoryName(String);

impl RepositoryName {
    /// What a name must be like.
    pub const EXPECTED: &str = "1 to 63 of a-z, 0-9, _ and -, not beginning with -";

    /// The one that is not a mirror: it needs no name of the user's.
    #[must_use]
    pub fn first() -> RepositoryName {
        RepositoryName("first".to_owned())
    }

    /// Whether it is [`RepositoryName::first`].
    #[must_use]
    pub fn is_first(&self) -> bool {
        *self == RepositoryName::first()
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RepositoryName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.parse::<ClusterName>().map_err(|_| RepositoryName::EXPECTED)?;
        Ok(RepositoryName(name.to_string()))
    }
}
