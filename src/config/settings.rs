//! The table of settings, and the settings of one cluster put together from file, environment and defaults.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::Duration;

use super::bucket;
use super::error::ConfigError;
use super::file::{MIRROR, Table};
use super::mirrors::{self, Place};
use super::values::{self, OnUnreachable, PushPolicy};
use super::{Config, Origin, Raw};
use crate::codec::Compression;
use crate::recovery::Retention;
use crate::repository::RepositoryName;
use crate::storage::Location;
use crate::wal::{ClusterName, SystemIdentifier};

/// Where in the file a setting may stand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// Only in `[repository]`.
    Repository,
    /// Only in `[cluster.<name>]`: it belongs to one server.
    Cluster,
    /// In `[repository]`, or in `[cluster.<name>]` for a repository of the cluster's own: it says how that is reached.
    Store,
    /// In `[cluster.<name>]` or, for all clusters, in `[defaults]`.
    Any,
}

/// One setting as users meet it.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in the file.
    pub name: &'static str,
    /// Where it may stand.
    pub scope: Scope,
    /// The value when nobody sets it; empty for none.
    pub default: &'static str,
    /// What it is for, in one sentence.
    pub purpose: &'static str,
}

impl Setting {
    /// The environment variable that overrides it: `PITR_` and the name in capitals.
    #[must_use]
    pub fn variable(&self) -> String {
        // `[repository] path` and a cluster's `repository` are one thing, and so is their variable.
        let name = if self.scope == Scope::Repository { "repository" } else { self.name };
        format!("PITR_{}", name.to_ascii_uppercase())
    }
}

const fn setting(name: &'static str, scope: Scope, default: &'static str, purpose: &'static str) -> Setting {
    Setting { name, scope, default, purpose }
}

/// Every setting there is. `[repository] path` comes first, then those of a cluster.
pub const SETTINGS: &[Setting] = &[
    setting(
        "path",
        Scope::Repository,
        "",
        "Directory of the repository, or \"s3://BUCKET/FOLDER\", for all clusters that name no other.",
    ),
    setting(
        "system_identifier",
        Scope::Cluster,
        "",
        "The server's system identifier, by which push and fetch know it.",
    ),
    setting("conninfo", Scope::Cluster, "", "How to connect to the server, as libpq writes it, without a password."),
    setting("repository", Scope::Cluster, "", "Directory of this cluster's repository, or \"s3://BUCKET/FOLDER\"."),
    setting("s3_endpoint", Scope::Store, "", "URL of the S3 server; without it Amazon's of the region."),
    setting(
        "s3_region",
        Scope::Store,
        "",
        "Region of the bucket; without it what the environment and the profile say.",
    ),
    setting("s3_style", Scope::Store, "", "Where URLs name the bucket: \"path\" (with an endpoint) or \"host\"."),
    setting("s3_ca_file", Scope::Store, "", "Certificates (PEM) to trust instead of the system's."),
    setting("s3_profile", Scope::Store, "", "Profile of the AWS configuration files."),
    setting(
        "s3_credentials_file",
        Scope::Store,
        "",
        "Credentials as in ~/.aws/credentials, instead of all other sources.",
    ),
    setting("s3_storage_class", Scope::Store, "", "Storage class of new objects, such as \"STANDARD_IA\"."),
    setting(
        "s3_encryption",
        Scope::Store,
        "bucket",
        "\"bucket\", \"sse-s3\", \"sse-kms\", \"sse-kms:KEY\" or \"sse-c\".",
    ),
    setting("s3_customer_key_file", Scope::Store, "", "File with the key of sse-c, 32 bytes or base64."),
    setting("s3_request_payer", Scope::Store, "off", "\"on\": whoever asks pays for requests."),
    setting("s3_tags", Scope::Store, "", "Tags of new objects, such as \"app=pitr,env=prod\"."),
    setting(
        "s3_object_lock",
        Scope::Store,
        "",
        "Lock of new objects, such as \"governance:30d\" or \"compliance:30d\".",
    ),
    setting("s3_conditional_writes", Scope::Store, "on", "\"off\" for a server that ignores If-None-Match."),
    setting("s3_attempt_timeout", Scope::Store, "30s", "When one try of a request is given up."),
    setting("s3_call_timeout", Scope::Store, "2m", "When a request is given up with all its tries."),
    setting("s3_attempts", Scope::Store, "10", "Tries of a request, the first one included."),
    setting("s3_upload_limit", Scope::Store, "", "Most bytes that one process sends a second, such as \"20MB\"."),
    setting("s3_download_limit", Scope::Store, "", "Most bytes that one process receives a second."),
    setting("compression", Scope::Any, "lz4", "\"lz4\", or \"zstd:LEVEL\" (smaller, slower)."),
    setting(
        "spool",
        Scope::Any,
        "/var/spool/pitr",
        "Local directory for looking ahead; without it each call works alone.",
    ),
    setting("look_ahead", Scope::Any, "64", "Segments that push and fetch handle ahead of being asked; 0 for none."),
    setting(
        "push_policy",
        Scope::Any,
        "all",
        "How many of the cluster's repositories must hold a WAL file: \"all\", or a number.",
    ),
    setting("push_timeout", Scope::Any, "60s", "When pitr-wal-push gives up, for PostgreSQL to try again."),
    setting("fetch_timeout", Scope::Any, "60s", "When pitr-wal-fetch gives up; on a standby after 5 s at the latest."),
    setting("on_unreachable", Scope::Any, "wait", "A standby whose archive does not answer: \"wait\" or \"stop\"."),
    setting("wal_timeout", Scope::Any, "5m", "How long backup and check wait for WAL to arrive in the repository."),
    setting("jobs", Scope::Any, "0", "Threads of backup and restore; 0 for one a processor, at most 8."),
    setting(
        "retention_days",
        Scope::Any,
        "",
        "\"pitr expire\" keeps what it takes to restore to any moment of so many days.",
    ),
    setting("retention_count", Scope::Any, "", "\"pitr expire\" keeps at least so many base backups."),
    setting(
        "undelete_days",
        Scope::Any,
        "3",
        "How long what is to go stays; no backup, restore or copy may take longer.",
    ),
    setting("pg_bin", Scope::Any, "", "Directory of the server's binaries, for \"pitr restore --start\"."),
];

/// One setting of one cluster, with where it came from: a line of `pitr config show`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The setting's name; that of a mirror's begins with `mirror.NAME.`.
    pub name: Cow<'static, str>,
    /// Its value in normal form; `None` if it has none.
    pub value: Option<String>,
    /// Where the value came from.
    pub origin: Origin,
}

/// All that is configured for one cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// The user's name for it.
    pub name: ClusterName,
    /// The server's system identifier, if configured.
    pub system_identifier: Option<SystemIdentifier>,
    /// How to connect, without a password; `None` for libpq's defaults.
    pub conninfo: Option<String>,
    /// Where the repository lies, the first one if there are several.
    pub repository: Location,
    /// What the first one is called.
    pub repository_name: RepositoryName,
    /// The others, in order.
    pub mirrors: Vec<Place>,
    /// How many of them must hold a WAL file before it counts as archived.
    pub push_policy: PushPolicy,
    /// How to compress what is stored.
    pub compression: Compression,
    /// Local directory for what push and fetch prepare ahead, absolute. It need not exist: then each call works alone.
    pub spool: PathBuf,
    /// Segments that push and fetch handle ahead, 0 to 64.
    pub look_ahead: u32,
    /// When `pitr-wal-push` gives up.
    pub push_timeout: Duration,
    /// When `pitr-wal-fetch` gives up in recovery.
    pub fetch_timeout: Duration,
    /// What a standby is told when the repository cannot be asked.
    pub on_unreachable: OnUnreachable,
    /// How long a backup or a check waits for a segment to arrive.
    pub wal_timeout: Duration,
    /// Threads of backup and restore, 1 to 64.
    pub jobs: u32,
    /// Which backups go by themselves.
    pub retention: Retention,
    /// How long what is to go stays.
    pub undelete: Duration,
    /// Directory of the server's binaries, if configured.
    pub pg_bin: Option<PathBuf>,
    entries: Vec<Entry>,
}

impl ClusterConfig {
    /// Each setting with its value and where that came from, in the order of [`SETTINGS`].
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Where the setting `name` came from.
    #[must_use]
    pub fn origin(&self, name: &str) -> Origin {
        self.entries.iter().find(|entry| entry.name == name).map_or(Origin::Default, |entry| entry.origin.clone())
    }

    /// Compares the server's system identifier with the configured one, if there is one.
    ///
    /// A cluster chosen by name may be the wrong one; its archive must not get another server's WAL.
    ///
    /// # Errors
    /// [`ConfigError::WrongCluster`] if they differ.
    pub fn check_identity(&self, found: SystemIdentifier) -> Result<(), ConfigError> {
        match self.system_identifier {
            Some(configured) if configured != found => Err(ConfigError::WrongCluster {
                name: self.name.clone(),
                configured,
                origin: self.origin("system_identifier"),
                found,
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn resolve(name: ClusterName, config: &Config) -> Result<ClusterConfig, ConfigError> {
        let mut values = Values { name: &name, config, mirror: None, entries: Vec::new() };
        let system_identifier = values.optional("system_identifier", system_identifier)?;
        let conninfo = values.optional("conninfo", |text| Ok::<_, &'static str>(text.to_owned()))?;
        if conninfo.as_deref().is_some_and(values::has_password) {
            return Err(ConfigError::Password { name: "conninfo", origin: values.last_origin() });
        }
        let repository = values.optional("repository", bucket::location)?;
        let repository = match repository.ok_or_else(|| ConfigError::NoRepository { name: name.clone() })? {
            Location::S3(place) => Location::S3(Box::new(bucket::settings(*place, &mut values)?)),
            directory => directory,
        };
        let mirrors = mirrors::read(&mut values, &repository)?;
        let push_policy = values.required("push_policy", |text| mirrors::policy(text, mirrors.len() + 1))?;
        let config = ClusterConfig {
            system_identifier,
            conninfo,
            repository,
            repository_name: RepositoryName::first(),
            mirrors,
            push_policy,
            compression: values.required("compression", values::compression)?,
            spool: values.required("spool", values::absolute_path)?,
            look_ahead: values.required("look_ahead", values::count)?,
            push_timeout: values.required("push_timeout", values::duration)?,
            fetch_timeout: values.required("fetch_timeout", values::duration)?,
            on_unreachable: values.required("on_unreachable", str::parse)?,
            wal_timeout: values.required("wal_timeout", values::duration)?,
            jobs: jobs(values.required("jobs", values::count)?),
            retention: Retention {
                days: values.optional("retention_days", values::days)?,
                count: values.optional("retention_count", values::backups)?,
            },
            undelete: Duration::from_secs(86_400 * u64::from(values.required("undelete_days", values::days)?)),
            pg_bin: values.optional("pg_bin", values::absolute_path)?,
            entries: Vec::new(),
            name: name.clone(),
        };
        Ok(ClusterConfig { entries: values.entries, ..config })
    }
}

/// 0 stands for one thread a processor; more than 8 gain nothing from one disk or one network, unless asked for.
fn jobs(configured: u32) -> u32 {
    let processors = || std::thread::available_parallelism().map_or(2, |count| count.get().min(8));
    if configured == 0 { u32::try_from(processors()).unwrap_or(2) } else { configured }
}

fn system_identifier(text: &str) -> Result<SystemIdentifier, &'static str> {
    text.parse().map_err(|_| "a decimal number as \"pitr init\" or pg_controldata shows it")
}

/// Reads a `system_identifier` as it was written.
pub(super) fn read_system_identifier(raw: &Raw) -> Result<SystemIdentifier, ConfigError> {
    system_identifier(&raw.text).map_err(|expected| invalid("system_identifier", raw, expected))
}

pub(super) fn invalid(name: &str, raw: &Raw, expected: &'static str) -> ConfigError {
    let (name, value) = (name.to_owned(), raw.text.clone());
    ConfigError::InvalidValue { name, value, origin: raw.origin.clone(), expected }
}

/// Looks settings up one after the other and notes where each was found.
pub(super) struct Values<'a> {
    pub(super) name: &'a ClusterName,
    pub(super) config: &'a Config,
    /// The mirror that settings are looked up for; `None` for the cluster itself.
    pub(super) mirror: Option<&'a (RepositoryName, Table)>,
    entries: Vec<Entry>,
}

impl Values<'_> {
    fn find(&self, setting: &Setting) -> Option<Raw> {
        let built_in = || {
            let built_in = Raw { text: setting.default.to_owned(), origin: Origin::Default };
            (!setting.default.is_empty()).then_some(built_in)
        };
        if let Some((_, table)) = self.mirror {
            return table.get(setting.name).cloned().or_else(built_in);
        }
        let Config { file, environment, options } = self.config;
        if let Some(raw) = options.get(setting.name) {
            return Some(raw.clone());
        }
        let variable = setting.variable();
        if let Some(text) = environment.get(&variable) {
            return Some(Raw { text: text.to_owned(), origin: Origin::Environment(variable) });
        }
        let own = file.clusters.get(self.name).and_then(|table| table.get(setting.name));
        let shared = file.defaults.get(setting.name);
        let repository = match setting.scope {
            Scope::Cluster if setting.name == "repository" => file.repository.get("path"),
            // How the shared repository is reached says nothing about one of the cluster's own.
            Scope::Store if !self.has_own_repository() => file.repository.get(setting.name),
            Scope::Repository | Scope::Cluster | Scope::Store | Scope::Any => None,
        };
        own.or(shared).or(repository).cloned().or_else(built_in)
    }

    fn has_own_repository(&self) -> bool {
        self.config.file.clusters.get(self.name).is_some_and(|table| table.contains_key("repository"))
    }

    /// A variable that is no setting.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.config.environment.get(name).filter(|_| self.mirror.is_none())
    }

    /// The name of a setting as the user meets it.
    fn name_of(&self, setting: &'static str) -> Cow<'static, str> {
        match self.mirror {
            Some((mirror, _)) => format!("{MIRROR}.{mirror}.{setting}").into(),
            None => setting.into(),
        }
    }

    pub(super) fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub(super) fn optional<T, E: Into<&'static str>>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ConfigError> {
        let setting =
            SETTINGS.iter().find(|setting| setting.name == name).expect("every name asked for is in SETTINGS");
        let raw = self.find(setting);
        let name = self.name_of(name);
        let value = match &raw {
            Some(raw) => Some(read(&raw.text).map_err(|expected| invalid(&name, raw, expected.into()))?),
            None => None,
        };
        let (value_text, origin) = raw.map_or((None, Origin::Default), |raw| (Some(raw.text), raw.origin));
        self.entries.push(Entry { name, value: value_text, origin });
        Ok(value)
    }

    pub(super) fn required<T, E: Into<&'static str>>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        let value = self.optional(name, read)?;
        Ok(value.expect("every setting that is required has a default in SETTINGS"))
    }

    pub(super) fn last_name(&self) -> Cow<'static, str> {
        self.entries.last().map_or("".into(), |entry| entry.name.clone())
    }

    pub(super) fn last_origin(&self) -> Origin {
        self.entries.last().map_or(Origin::Default, |entry| entry.origin.clone())
    }
}
