//! `ConfigError`: what can be wrong with the file, the environment, or the question which cluster is meant.

use std::io;
use std::path::PathBuf;

use super::Origin;
use crate::repository::RepositoryName;
use crate::wal::{ClusterName, SystemIdentifier};

/// The configuration cannot be used as it is. `report::config` has the advice for each.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file that was asked for by name does not exist.
    #[error("configuration file \"{}\" (named by {named_by}) does not exist", path.display())]
    FileMissing {
        /// The file.
        path: PathBuf,
        /// `--config` or `PITR_CONFIG`.
        named_by: &'static str,
    },
    /// The file exists but cannot be read.
    #[error("could not read configuration file \"{}\": {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no TOML.
    #[error("cannot parse {}:{line}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The parser's words.
        message: String,
    },
    /// A name in the file that means nothing.
    #[error("unknown name \"{key}\" in {table} at {}:{line}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The table it stands in, as `[cluster.main]`.
        table: String,
        /// The name.
        key: String,
        /// The names that this table may have.
        known: Vec<&'static str>,
    },
    /// A value of the wrong kind, such as a table where a text belongs.
    #[error("\"{key}\" at {}:{line} cannot be {found}", path.display())]
    WrongKind {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The name.
        key: String,
        /// What stands there, with its article.
        found: &'static str,
        /// What belongs there, with its article.
        expected: &'static str,
    },
    /// A value that its setting does not allow.
    #[error("setting \"{name}\" cannot be \"{value}\" ({origin})")]
    InvalidValue {
        /// The setting.
        name: String,
        /// The value; for a connection string without what follows its name.
        value: String,
        /// Where it stands.
        origin: Origin,
        /// What is allowed.
        expected: &'static str,
    },
    /// A connection string that carries a password.
    #[error("setting \"{name}\" cannot carry a password ({origin})")]
    Password {
        /// The setting.
        name: &'static str,
        /// Where it stands.
        origin: Origin,
    },
    /// An environment variable that is not UTF-8.
    #[error("environment variable {name} is not valid UTF-8")]
    NotText {
        /// The variable.
        name: String,
    },
    /// The cluster that was named is not in the file.
    #[error("cluster \"{name}\" is not in configuration file \"{}\"", path.display())]
    UnknownCluster {
        /// The name that was asked for.
        name: ClusterName,
        /// The file.
        path: PathBuf,
        /// The names it has.
        known: Vec<ClusterName>,
    },
    /// Nothing names a cluster and there is none to take.
    #[error("no cluster is configured")]
    NoCluster {
        /// The file that was read, if any.
        path: Option<PathBuf>,
    },
    /// Nothing names a cluster and there are several.
    #[error("configuration file \"{}\" has several clusters and none was named", path.display())]
    SeveralClusters {
        /// The file.
        path: PathBuf,
        /// The names it has.
        known: Vec<ClusterName>,
    },
    /// The server's system identifier belongs to no cluster of the file.
    #[error("no cluster with system identifier {system_identifier} is configured")]
    UnknownIdentifier {
        /// The file that was read, if any.
        path: Option<PathBuf>,
        /// What the server's `pg_control` says.
        system_identifier: SystemIdentifier,
    },
    /// Two clusters of the file claim one system identifier.
    #[error("clusters \"{first}\" and \"{second}\" have the same system identifier {system_identifier} in \"{}\"", path.display())]
    SameIdentifier {
        /// The file.
        path: PathBuf,
        /// What both say.
        system_identifier: SystemIdentifier,
        /// One of them.
        first: ClusterName,
        /// The other.
        second: ClusterName,
    },
    /// The cluster was named, and is configured for another server.
    #[error("cluster \"{name}\" has system identifier {configured} ({origin}), but this server has {found}")]
    WrongCluster {
        /// The cluster.
        name: ClusterName,
        /// What the configuration says.
        configured: SystemIdentifier,
        /// Where it says so.
        origin: Origin,
        /// What the server's `pg_control` says.
        found: SystemIdentifier,
    },
    /// A mirror without its place.
    #[error("mirror \"{mirror}\" of cluster \"{cluster}\" has no path")]
    NoPath {
        /// The cluster.
        cluster: ClusterName,
        /// The mirror.
        mirror: RepositoryName,
    },
    /// Two repositories of a cluster are the same one.
    #[error("repositories \"{first}\" and \"{second}\" of cluster \"{cluster}\" are the same place: {place}")]
    SamePlace {
        /// The cluster.
        cluster: ClusterName,
        /// One of them.
        first: RepositoryName,
        /// The other.
        second: RepositoryName,
        /// Where both lie.
        place: String,
    },
    /// The repository that was named is none of the cluster's.
    #[error("cluster \"{cluster}\" has no repository \"{name}\"")]
    UnknownRepository {
        /// The cluster.
        cluster: ClusterName,
        /// The name that was asked for.
        name: RepositoryName,
        /// The names it has.
        known: Vec<RepositoryName>,
    },
    /// Nothing says where the repository is.
    #[error("no repository is configured for cluster \"{name}\"")]
    NoRepository {
        /// The cluster.
        name: ClusterName,
    },
}
