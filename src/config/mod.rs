//! `pitr.toml` and the environment: which clusters there are, where their repository is, how to work.
//!
//! Layer 5. `pitr-wal-push` and `pitr-wal-fetch` read it for every segment, so reading is one small file, one pass and no
//! request. It leaves to others: looking at `pg_control` (the caller brings the system identifier), and everything that
//! the values are used for. Nothing in the file is a secret: passwords come from the password file or the environment,
//! and a connection string that carries one is refused, so the file may be readable by all.
//!
//! ```toml
//! [repository]
//! path = "/srv/pitr"             # or "s3://bucket/folder", with settings s3_region, s3_endpoint, ...
//!
//! [defaults]                     # for all clusters
//! compression = "zstd:3"
//!
//! [cluster.main]
//! system_identifier = "7445512345678901234"
//! conninfo = "host=/var/run/postgresql user=pitr"
//!
//! [cluster.main.mirror.west]     # a further repository, beside the first one
//! path = "s3://west/pitr"        # with settings s3_region, s3_endpoint, ... of its own
//! ```
//!
//! A value is taken from an option of the command line where a verb has one, else from the environment
//! (`PITR_COMPRESSION`), else from the cluster's table, else from `[defaults]`, else
//! it is the built-in one; [`ClusterConfig::entries`] tells which. See [`settings::SETTINGS`] for all names. What is said of a
//! mirror stands in its table only.

mod bucket;
mod environment;
mod error;
mod file;
mod mirrors;
pub mod settings;
mod values;

pub use environment::Environment;
pub use error::ConfigError;
pub use mirrors::Place;
pub use settings::{ClusterConfig, Entry};
pub use values::{OnUnreachable, PushPolicy};

pub use crate::codec::Compression;
pub use crate::repository::RepositoryName;
pub use crate::wal::ClusterName;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::wal::SystemIdentifier;
use file::ConfigFile;

/// Where the file is looked for when neither `--config` nor `PITR_CONFIG` names one.
pub const DEFAULT_PATH: &str = "/etc/pitr/pitr.toml";

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A line of the configuration file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// An option of the command line, as `--repository`.
    Option(&'static str),
    /// The program's own default.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment variable {name}"),
            Origin::Option(name) => write!(f, "option {name}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// A value as it was written, not yet read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Raw {
    pub(crate) text: String,
    pub(crate) origin: Origin,
}

/// The whole configuration: the file, if there is one, under the environment.
#[derive(Clone, Debug)]
pub struct Config {
    file: ConfigFile,
    environment: Environment,
    /// Settings that options of the command line give, by name.
    options: BTreeMap<&'static str, Raw>,
}

impl Config {
    /// Reads the file named by `option` (`--config`), else by `PITR_CONFIG`, else [`DEFAULT_PATH`] if it exists.
    ///
    /// # Errors
    /// A named file that is not there; a file that cannot be read, is no TOML, or holds an unknown name.
    pub fn load(option: Option<&Path>) -> Result<Config, ConfigError> {
        Self::load_with(option, Environment::of_process()?)
    }

    /// As [`Config::load`], in the given environment.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_with(option: Option<&Path>, environment: Environment) -> Result<Config, ConfigError> {
        let named = match option {
            Some(path) => Some((path.to_owned(), "--config")),
            None => environment.get("PITR_CONFIG").map(|path| (PathBuf::from(path), "PITR_CONFIG")),
        };
        let file = match named {
            Some((path, named_by)) => ConfigFile::read(&path)?.ok_or(ConfigError::FileMissing { path, named_by })?,
            None => ConfigFile::read(Path::new(DEFAULT_PATH))?.unwrap_or_default(),
        };
        Ok(Config { file, environment, options: BTreeMap::new() })
    }

    /// Lets an option of the command line, such as `--repository`, win over what is configured for `setting`.
    pub fn set_option(&mut self, setting: &'static str, option: &'static str, value: &str) {
        self.options.insert(setting, Raw { text: value.to_owned(), origin: Origin::Option(option) });
    }

    /// The file that was read, if any.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.path.as_deref()
    }

    /// The clusters of the file, in alphabetical order.
    pub fn cluster_names(&self) -> impl Iterator<Item = &ClusterName> {
        self.file.clusters.keys()
    }

    /// Environment variables that look like settings of this program and are none: mistyped names, most likely.
    #[must_use]
    pub fn unknown_variables(&self) -> Vec<&str> {
        self.environment.unknown()
    }

    /// Whether `PITR_CLUSTER` names a cluster.
    #[must_use]
    pub fn names_cluster(&self) -> bool {
        self.environment.get("PITR_CLUSTER").is_some()
    }

    /// The settings of the cluster that is meant.
    ///
    /// That is the one named by `name` (`--cluster`), else by `PITR_CLUSTER`; else, if the caller knows the server's
    /// system identifier, the one that the file gives it to; else, for a person at a terminal, the only one there is.
    /// A cluster that is chosen by name is not compared with `system_identifier` here: see
    /// [`ClusterConfig::check_identity`].
    ///
    /// # Errors
    /// No cluster or several that fit, a name that the file does not know, a setting that cannot be read, no repository.
    pub fn select(
        &self,
        name: Option<&ClusterName>,
        system_identifier: Option<SystemIdentifier>,
    ) -> Result<ClusterConfig, ConfigError> {
        let named = match (name, self.environment.get("PITR_CLUSTER")) {
            (Some(name), _) => Some(name.clone()),
            (None, Some(text)) => Some(text.parse().map_err(|_| ConfigError::InvalidValue {
                name: "cluster".to_owned(),
                value: text.to_owned(),
                origin: Origin::Environment("PITR_CLUSTER".to_owned()),
                expected: "1 to 63 of a-z, 0-9, _ and -, not beginning with -",
            })?),
            (None, None) => None,
        };
        let chosen = match (named, system_identifier) {
            (Some(name), _) => name,
            (None, Some(identifier)) => self.by_system_identifier(identifier)?,
            (None, None) => self.only_cluster()?,
        };
        self.cluster(&chosen)
    }

    /// The settings of the cluster `name`. Without a file, the environment alone may describe any cluster.
    ///
    /// # Errors
    /// A name that the file does not know, a setting that cannot be read, no repository.
    pub fn cluster(&self, name: &ClusterName) -> Result<ClusterConfig, ConfigError> {
        if self.file.path.is_some() && !self.file.clusters.is_empty() && !self.file.clusters.contains_key(name) {
            return Err(ConfigError::UnknownCluster {
                name: name.clone(),
                path: self.file.path.clone().unwrap_or_default(),
                known: self.cluster_names().cloned().collect(),
            });
        }
        ClusterConfig::resolve(name.clone(), self)
    }

    fn only_cluster(&self) -> Result<ClusterName, ConfigError> {
        let mut names = self.cluster_names();
        match (names.next(), names.next()) {
            (Some(only), None) => Ok(only.clone()),
            (None, _) => Err(ConfigError::NoCluster { path: self.file.path.clone() }),
            (Some(_), Some(_)) => Err(ConfigError::SeveralClusters {
                path: self.file.path.clone().unwrap_or_default(),
                known: self.cluster_names().cloned().collect(),
            }),
        }
    }

    fn by_system_identifier(&self, wanted: SystemIdentifier) -> Result<ClusterName, ConfigError> {
        let mut found: Option<&ClusterName> = None;
        for (name, table) in &self.file.clusters {
            let Some(raw) = table.get("system_identifier") else { continue };
            if settings::read_system_identifier(raw)? != wanted {
                continue;
            }
            if let Some(first) = found {
                return Err(ConfigError::SameIdentifier {
                    path: self.file.path.clone().unwrap_or_default(),
                    system_identifier: wanted,
                    first: first.clone(),
                    second: name.clone(),
                });
            }
            found = Some(name);
        }
        found
            .cloned()
            .ok_or_else(|| ConfigError::UnknownIdentifier { path: self.file.path.clone(), system_identifier: wanted })
    }
}

#[cfg(test)]
mod tests;
