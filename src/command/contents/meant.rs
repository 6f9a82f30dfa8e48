//! Which base backup is meant: by its id, by a label that no other has, or the latest.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use super::ContentsError;
use crate::catalog::BackupId;
use crate::command::list;
use crate::repository::{Cluster, KnownBackup, ServerRepository};

/// A base backup as it is named on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Meant {
    /// By its id.
    Id(BackupId),
    /// The latest that is not forgotten.
    Latest,
    /// By its label.
    Label(String),
}

impl FromStr for Meant {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text.parse() {
            Ok(id) => Meant::Id(id),
            Err(_) if text == "latest" => Meant::Latest,
            Err(_) => Meant::Label(text.to_owned()),
        })
    }
}

impl fmt::Display for Meant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Meant::Id(id) => id.fmt(f),
            Meant::Latest => f.write_str("yet"),
            Meant::Label(label) => write!(f, "with the id or label \"{label}\""),
        }
    }
}

/// A base backup, and where it lies.
#[derive(Debug)]
pub(in crate::command) struct Found {
    pub(in crate::command) server: ServerRepository,
    pub(in crate::command) known: KnownBackup,
}

/// Finds a backup among those of all system identifiers of a cluster.
pub(in crate::command) fn find(meant: &Meant, cluster: &Cluster) -> Result<Found, ContentsError> {
    let none = || ContentsError::NoBackup { meant: meant.to_string(), cluster: cluster.name().clone() };
    if let Meant::Id(id) = meant {
        for record in cluster.servers()? {
            let server = cluster.server(record.system_identifier);
            if let Some(known) = server.known_backup(*id)? {
                return Ok(Found { server, known });
            }
        }
        return Err(none());
    }
    let mut all = list::known(cluster)?;
    if let Meant::Label(label) = meant {
        all.retain(|known| known.info.label == *label);
        if all.len() > 1 {
            let ids = all.iter().map(|known| known.info.id).collect();
            return Err(ContentsError::SeveralBackups { label: label.clone(), ids });
        }
    } else {
        all.retain(|known| known.notes.forgotten.is_none());
    }
    let known = all.pop().ok_or_else(none)?;
    Ok(Found { server: cluster.server(known.info.system_identifier), known })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Promise: an id is an id, one word stands for the latest, and all else is a label.
    #[test]
    fn forms() {
        let read = |text: &str| text.parse::<Meant>().ok();
        let id = "20261121T104500Z-1a2b3c4d";
        assert_eq!(read(id), id.parse().ok().map(Meant::Id));
        assert_eq!(read("latest"), Some(Meant::Latest));
        assert_eq!(read("Latest"), Some(Meant::Label("Latest".to_owned())));
    }
}
