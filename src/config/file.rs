//! Reading `pitr.toml`: into values as written, each with its line; unknown names are refused.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::ConfigError;
use super::settings::{SETTINGS, Scope};
use super::{Origin, Raw};
use crate::repository::RepositoryName;
use crate::wal::ClusterName;

/// The table in a cluster's that has its further repositories, each in a table of its own.
pub(super) const MIRROR: &str = "mirror";

/// Settings of one table by their names.
pub(super) type Table = BTreeMap<&'static str, Raw>;

/// The file, or what is used when there is none (the default value).
#[derive(Clone, Debug, Default)]
pub(super) struct ConfigFile {
    pub(super) path: Option<PathBuf>,
    pub(super) repository: Table,
    pub(super) defaults: Table,
    pub(super) clusters: BTreeMap<ClusterName, Table>,
    /// Further repositories of clusters, in the order of the file.
    pub(super) mirrors: BTreeMap<ClusterName, Vec<Mirror>>,
}

impl ConfigFile {
    /// Reads the file; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<ConfigFile>, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => parse(path, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }
}

/// Reads the text of the file `path`.
pub(super) fn parse(path: &Path, text: &str) -> Result<ConfigFile, ConfigError> {
    let reader = Reader { path, text };
    let tables = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
        path: path.to_owned(),
        line: reader.line(error.span().map_or(0, |span| span.start)),
        message: error.message().trim().replace('\n', ", "),
    })?;
    let mut file = ConfigFile { path: Some(path.to_owned()), ..ConfigFile::default() };
    for (name, value) in tables.get_ref() {
        match name.get_ref().as_ref() {
            "repository" => {
                let scope = |setting: Scope| matches!(setting, Scope::Repository | Scope::Store);
                file.repository = reader.settings("[repository]", name, value, scope)?;
            }
            "defaults" => file.defaults = reader.settings("[defaults]", name, value, |scope| scope == Scope::Any)?,
            "cluster" => (file.clusters, file.mirrors) = reader.clusters(name, value)?,
            _ => return Err(reader.unknown("the file", name, vec!["repository", "defaults", "cluster"])),
        }
    }
    Ok(file)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

/// A further repository as it was written.
type Mirror = (RepositoryName, Table);

/// The tables of all clusters, and those of their mirrors.
type Clusters = (BTreeMap<ClusterName, Table>, BTreeMap<ClusterName, Vec<Mirror>>);

type Name<'a> = Spanned<std::borrow::Cow<'a, str>>;

impl Reader<'_> {
    fn clusters(&self, name: &Name<'_>, value: &Spanned<DeValue<'_>>) -> Result<Clusters, ConfigError> {
        let (mut clusters, mut mirrors) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in self.table(name, value)? {
            let cluster: ClusterName = name.get_ref().parse().map_err(|_| ConfigError::InvalidValue {
                name: "cluster".to_owned(),
                value: name.get_ref().to_string(),
                origin: self.origin(name.span().start),
                expected: "1 to 63 of a-z, 0-9, _ and -, not beginning with -",
            })?;
            let place = format!("[cluster.{cluster}]");
            let table = self.settings(&place, name, value, |scope| scope != Scope::Repository)?;
            if let Some((key, tables)) = self.table(name, value)?.iter().find(|(key, _)| key.get_ref() == MIRROR) {
                mirrors.insert(cluster.clone(), self.mirrors(&cluster, key, tables)?);
            }
            clusters.insert(cluster, table);
        }
        Ok((clusters, mirrors))
    }

    /// The further repositories of a cluster.
    fn mirrors(
        &self,
        cluster: &ClusterName,
        key: &Name<'_>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Vec<Mirror>, ConfigError> {
        let mut tables: Vec<_> = self.table(key, value)?.iter().collect();
        tables.sort_by_key(|(name, _)| name.span().start);
        let read = |(name, value): (&Name<'_>, &Spanned<DeValue<'_>>)| {
            let invalid = |expected| ConfigError::InvalidValue {
                name: MIRROR.to_owned(),
                value: name.get_ref().to_string(),
                origin: self.origin(name.span().start),
                expected,
            };
            let mirror: RepositoryName = name.get_ref().parse().map_err(invalid)?;
            if mirror.is_first() {
                return Err(invalid("another name: \"first\" is the repository that is no mirror"));
            }
            let place = format!("[cluster.{cluster}.{MIRROR}.{mirror}]");
            let scope = |setting: Scope| matches!(setting, Scope::Repository | Scope::Store);
            Ok((mirror, self.settings(&place, name, value, scope)?))
        };
        tables.into_iter().map(read).collect()
    }

    /// The settings of one table; `allowed` says which belong into it.
    fn settings(
        &self,
        place: &str,
        name: &Name<'_>,
        value: &Spanned<DeValue<'_>>,
        allowed: impl Fn(Scope) -> bool,
    ) -> Result<Table, ConfigError> {
        let mut table = Table::new();
        for (key, value) in self.table(name, value)? {
            if key.get_ref() == MIRROR && allowed(Scope::Cluster) {
                continue;
            }
            let known = || SETTINGS.iter().filter(|setting| allowed(setting.scope)).map(|setting| setting.name);
            let Some(setting) = known().find(|known| *known == key.get_ref()) else {
                return Err(self.unknown(place, key, known().collect()));
            };
            table.insert(setting, Raw { text: self.scalar(key, value)?, origin: self.origin(value.span().start) });
        }
        Ok(table)
    }

    fn table<'v, 'i>(&self, name: &Name<'_>, value: &'v Spanned<DeValue<'i>>) -> Result<&'v DeTable<'i>, ConfigError> {
        value.get_ref().as_table().ok_or_else(|| self.wrong_kind(name, value, "a table"))
    }

    /// The text of a value. Numbers keep their digits: a system identifier may be written without quotes.
    fn scalar(&self, key: &Name<'_>, value: &Spanned<DeValue<'_>>) -> Result<String, ConfigError> {
        match value.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
            DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => Err(self.wrong_kind(key, value, "a text or a decimal number")),
        }
    }

    fn unknown(&self, table: &str, key: &Name<'_>, known: Vec<&'static str>) -> ConfigError {
        ConfigError::UnknownKey {
            path: self.path.to_owned(),
            line: self.line(key.span().start),
            table: table.to_owned(),
            key: key.get_ref().to_string(),
            known,
        }
    }

    fn wrong_kind(&self, key: &Name<'_>, value: &Spanned<DeValue<'_>>, expected: &'static str) -> ConfigError {
        let found = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) => "such a number",
            DeValue::Float(_) => "a number with a point",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let line = self.line(key.span().start);
        ConfigError::WrongKind { path: self.path.to_owned(), line, key: key.get_ref().to_string(), found, expected }
    }

    fn origin(&self, offset: usize) -> Origin {
        Origin::File { path: self.path.to_owned(), line: self.line(offset) }
    }

    /// The line, from 1, of a byte offset.
    fn line(&self, offset: usize) -> usize {
        self.text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count() + 1
    }
}
