//! Whether a server may join a cluster of the repository. Pure.

use crate::repository::ServerRecord;
use crate::wal::{ClusterName, PostgresMajor, SystemIdentifier};

/// Why a server may not join.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AdmitError {
    /// The cluster's name is taken by another server.
    #[error(
        "cluster \"{cluster}\" in the repository belongs to the server with system identifier {theirs}, not {ours}"
    )]
    Foreign {
        /// The cluster.
        cluster: ClusterName,
        /// The server that it belongs to.
        theirs: SystemIdentifier,
        /// That server's version.
        major: PostgresMajor,
        /// Where and when it was added.
        added: String,
        /// The server that wants to join.
        ours: SystemIdentifier,
    },
    /// The server is there already, under another name.
    #[error(
        "the server with system identifier {system_identifier} is cluster \"{known_as}\" in the repository, not \"{cluster}\""
    )]
    OtherName {
        /// The server.
        system_identifier: SystemIdentifier,
        /// The name it has there.
        known_as: ClusterName,
        /// The name that was asked for.
        cluster: ClusterName,
    },
    /// `--upgraded` for a cluster that has nothing to be upgraded from.
    #[error("cluster \"{cluster}\" has no earlier server in the repository that could have been upgraded")]
    NothingToUpgrade {
        /// The cluster.
        cluster: ClusterName,
    },
    /// `--upgraded` with an older version than before.
    #[error("cluster \"{cluster}\" cannot be upgraded from PostgreSQL {from} to {to}")]
    Downgrade {
        /// The cluster.
        cluster: ClusterName,
        /// The version in the repository.
        from: PostgresMajor,
        /// The server's version.
        to: PostgresMajor,
    },
    /// The server's WAL segments have another size than before (`pg_resetwal --wal-segsize`).
    #[error(
        "the server with system identifier {system_identifier} has WAL segments of {found} bytes now, but had {recorded}"
    )]
    SegmentSize {
        /// The server.
        system_identifier: SystemIdentifier,
        /// What the repository has.
        recorded: u64,
        /// What the server says.
        found: u64,
    },
}

/// The record to be added for `server`, or `None` if the repository has it.
///
/// `known` are all clusters of the repository with their servers, oldest first.
///
/// # Errors
/// See [`AdmitError`].
pub(super) fn admit(
    known: &[(Vec<ServerRecord>, ClusterName)],
    cluster: &ClusterName,
    server: ServerRecord,
    upgraded: bool,
) -> Result<Option<ServerRecord>, AdmitError> {
    let identifier = server.system_identifier;
    let home = known.iter().find_map(|(records, name)| {
        records.iter().find(|record| record.system_identifier == identifier).map(|record| (record, name))
    });
    if let Some((record, name)) = home {
        if name != cluster {
            let (known_as, cluster) = (name.clone(), cluster.clone());
            return Err(AdmitError::OtherName { system_identifier: identifier, known_as, cluster });
        }
        let (recorded, found) = (record.segment_size_bytes.bytes(), server.segment_size_bytes.bytes());
        if recorded != found {
            return Err(AdmitError::SegmentSize { system_identifier: identifier, recorded, found });
        }
        return Ok(None);
    }
    let newest = known.iter().find(|(_, name)| name == cluster).and_then(|(records, _)| records.last());
    match (newest, upgraded) {
        (None, false) => Ok(Some(server)),
        (None, true) => Err(AdmitError::NothingToUpgrade { cluster: cluster.clone() }),
        (Some(newest), false) => Err(AdmitError::Foreign {
            cluster: cluster.clone(),
            theirs: newest.system_identifier,
            major: newest.major,
            added: format!("by host \"{}\" at {}", newest.created_by, newest.created_at),
            ours: identifier,
        }),
        (Some(newest), true) if server.major < newest.major => {
            Err(AdmitError::Downgrade { cluster: cluster.clone(), from: newest.major, to: server.major })
        }
        (Some(newest), true) => Ok(Some(ServerRecord { upgraded_from: Some(newest.system_identifier), ..server })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::{PgTime, SegmentSize};

    fn record(identifier: u64, major: u16) -> ServerRecord {
        ServerRecord {
            system_identifier: SystemIdentifier(identifier),
            major: PostgresMajor(major),
            segment_size_bytes: SegmentSize::try_from(16 << 20).expect("a size"),
            page_checksums: true,
            created_at: PgTime(0),
            created_by: "host".to_owned(),
            upgraded_from: None,
        }
    }

    /// Two servers never share a cluster unless one came from the other by pg_upgrade, and one server has one name.
    #[test]
    fn who_may_join() {
        let name = |text: &str| text.parse::<ClusterName>().expect(text);
        let known = [(vec![record(1, 15), record(2, 16)], name("main")), (vec![record(5, 16)], name("other"))];
        let try_to = |cluster: &str, server, upgraded| admit(&known, &name(cluster), server, upgraded);

        assert_eq!(try_to("new", record(9, 18), false), Ok(Some(record(9, 18))));
        assert_eq!(try_to("main", record(2, 16), false), Ok(None));
        assert_eq!(try_to("main", record(2, 16), true), Ok(None), "a second run changes nothing");
        let upgraded = ServerRecord { upgraded_from: Some(SystemIdentifier(2)), ..record(9, 18) };
        assert_eq!(try_to("main", record(9, 18), true), Ok(Some(upgraded)));

        assert!(
            matches!(try_to("main", record(9, 16), false), Err(AdmitError::Foreign { theirs, .. }) if theirs.0 == 2)
        );
        assert!(matches!(try_to("main", record(5, 16), true), Err(AdmitError::OtherName { .. })));
        assert!(matches!(try_to("new", record(9, 18), true), Err(AdmitError::NothingToUpgrade { .. })));
        assert!(matches!(try_to("main", record(9, 14), true), Err(AdmitError::Downgrade { .. })));
        let small = SegmentSize::try_from(1 << 20).expect("a size");
        let resized = ServerRecord { segment_size_bytes: small, ..record(2, 16) };
        assert!(matches!(try_to("main", resized, false), Err(AdmitError::SegmentSize { .. })));
    }
}
