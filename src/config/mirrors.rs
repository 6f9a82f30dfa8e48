//! The further repositories of a cluster: tables `[cluster.NAME.mirror.NAME]`.

use super::bucket;
use super::error::ConfigError;
use super::settings::{ClusterConfig, Values};
use super::values::PushPolicy;
use crate::repository::RepositoryName;
use crate::storage::Location;

/// One of a cluster's repositories.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// What it is called.
    pub name: RepositoryName,
    /// Where it lies.
    pub location: Location,
}

impl ClusterConfig {
    /// All repositories of the cluster, the first one first.
    #[must_use]
    pub fn repositories(&self) -> Vec<Place> {
        let first = Place { name: self.repository_name.clone(), location: self.repository.clone() };
        [first].into_iter().chain(self.mirrors.iter().cloned()).collect()
    }

    /// Whether there is more than one.
    #[must_use]
    pub fn has_mirrors(&self) -> bool {
        !self.mirrors.is_empty()
    }

    /// The one of this name.
    ///
    /// # Errors
    /// [`ConfigError::UnknownRepository`].
    pub fn repository_named(&self, name: &RepositoryName) -> Result<Place, ConfigError> {
        let all = self.repositories();
        let known: Vec<_> = all.iter().map(|place| place.name.clone()).collect();
        let unknown = || ConfigError::UnknownRepository { cluster: self.name.clone(), name: name.clone(), known };
        all.into_iter().find(|place| place.name == *name).ok_or_else(unknown)
    }

    /// The same cluster, seen from another of its repositories: that one is the first one now.
    ///
    /// # Errors
    /// [`ConfigError::UnknownRepository`].
    pub fn seen_from(mut self, name: Option<&RepositoryName>) -> Result<ClusterConfig, ConfigError> {
        let Some(name) = name else { return Ok(self) };
        let Place { name, location } = self.repository_named(name)?;
        let others = self.repositories().into_iter().filter(|place| place.name != name).collect();
        (self.repository, self.repository_name, self.mirrors) = (location, name, others);
        Ok(self)
    }
}

/// Reads the tables of a cluster's mirrors; `first` is where its first repository lies.
pub(super) fn read(values: &mut Values<'_>, first: &Location) -> Result<Vec<Place>, ConfigError> {
    let tables = values.config.file.mirrors.get(values.name).map_or(&[][..], Vec::as_slice);
    let mut places: Vec<Place> = Vec::new();
    for table in tables {
        values.mirror = Some(table);
        let missing = || ConfigError::NoPath { cluster: values.name.clone(), mirror: table.0.clone() };
        let location = match values.optional("path", bucket::location)? {
            Some(Location::S3(place)) => Location::S3(Box::new(bucket::settings(*place, values)?)),
            Some(directory) => directory,
            None => return Err(missing()),
        };
        let name = table.0.clone();
        let same =
            |other: &Location| other.to_string() == location.to_string() && other.endpoint() == location.endpoint();
        let others = places.iter().map(|place| (&place.name, &place.location));
        let first_name = RepositoryName::first();
        if let Some((other, _)) = [(&first_name, first)].into_iter().chain(others).find(|(_, place)| same(place)) {
            return Err(ConfigError::SamePlace {
                cluster: values.name.clone(),
                first: other.clone(),
                second: name,
                place: location.to_string(),
            });
        }
        places.push(Place { name, location });
    }
    values.mirror = None;
    Ok(places)
}

/// Reads a policy for so many repositories: one that asks for more could never be kept.
pub(super) fn policy(text: &str, repositories: usize) -> Result<PushPolicy, &'static str> {
    match text.parse()? {
        PushPolicy::AtLeast(needed) if needed > repositories => Err("at most the number of the cluster's repositories"),
        policy => Ok(policy),
    }
}
