//! `Environment`: the variables that this program looks at, taken once so that tests can give their own.

use std::collections::BTreeMap;

use super::bucket::CUSTOMER_KEY_VARIABLE;
use super::error::ConfigError;
use super::settings::SETTINGS;

/// Variables that are no setting of a cluster.
const OTHERS: [&str; 4] = ["PITR_CONFIG", "PITR_CLUSTER", "PITR_LOG", CUSTOMER_KEY_VARIABLE];

/// The variables whose names begin with `PITR_`. An empty one counts as not set.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process.
    ///
    /// # Errors
    /// A variable whose value is not UTF-8.
    pub fn of_process() -> Result<Environment, ConfigError> {
        let mut found = BTreeMap::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with("PITR_")) else { continue };
            match value.into_string() {
                Ok(value) => found.insert(name.to_owned(), value),
                Err(_) => return Err(ConfigError::NotText { name: name.to_owned() }),
            };
        }
        Ok(Environment(found))
    }

    /// The given variables.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Environment {
        Environment(pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The value of the variable `name`, if it is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Variables that begin like ours and are none. `PITR_TEST_…` and `PITR_FAULT…` belong to the tests.
    pub(super) fn unknown(&self) -> Vec<&str> {
        let known = |name: &str| {
            OTHERS.contains(&name)
                || SETTINGS.iter().any(|setting| setting.variable() == name)
                || name.starts_with("PITR_TEST_")
                || name.starts_with("PITR_FAULT")
        };
        self.0.keys().map(String::as_str).filter(|name| !known(name)).collect()
    }
}
