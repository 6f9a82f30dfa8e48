//! What to tell about a configuration that cannot be used.

use super::{ExitStatus, Explain, Report};
use crate::config::{ConfigError, DEFAULT_PATH};
use crate::wal::ClusterName;

impl Explain for ConfigError {
    fn report(&self) -> Report {
        let nothing = "Nothing was done.";
        let (status, meaning, hint) = match self {
            ConfigError::FileMissing { named_by, .. } => {
                (ExitStatus::Configuration, nothing.to_owned(), format!("Correct {named_by}, or make the file."))
            }
            ConfigError::Read { .. } => (
                ExitStatus::Configuration,
                nothing.to_owned(),
                "The file holds no secrets: let the PostgreSQL server's user and everyone who runs pitr read it.".to_owned(),
            ),
            ConfigError::Syntax { .. } => (
                ExitStatus::Configuration,
                nothing.to_owned(),
                "Correct this line; texts in TOML stand in double quotes. \"pitr config show\" checks the file.".to_owned(),
            ),
            ConfigError::UnknownKey { known, key, .. } => {
                (ExitStatus::Configuration, nothing.to_owned(), suggestion(key, known))
            }
            ConfigError::WrongKind { expected, .. } => {
                (ExitStatus::Configuration, nothing.to_owned(), format!("Write {expected} here."))
            }
            ConfigError::InvalidValue { expected, .. } => {
                (ExitStatus::Configuration, nothing.to_owned(), format!("Allowed is {expected}."))
            }
            ConfigError::Password { .. } => (
                ExitStatus::Configuration,
                "The configuration is read by several users and holds no secrets.".to_owned(),
                "Put the password into the password file (~/.pgpass, or passfile=… in the connection string) or into PGPASSWORD."
                    .to_owned(),
            ),
            ConfigError::NotText { .. } => {
                (ExitStatus::Configuration, nothing.to_owned(), "Set the variable anew, or unset it.".to_owned())
            }
            ConfigError::UnknownCluster { known, .. } => {
                (ExitStatus::Configuration, format!("The file has {}.", list(known)), "Is the name mistyped? A new cluster needs a table [cluster.NAME] in the file first.".to_owned())
            }
            ConfigError::NoCluster { path } => (ExitStatus::Configuration, place(path.as_ref()), no_cluster_hint()),
            ConfigError::SeveralClusters { known, .. } => (
                ExitStatus::Configuration,
                format!("It has {}.", list(known)),
                "Say which one is meant with --cluster NAME or PITR_CLUSTER.".to_owned(),
            ),
            ConfigError::UnknownIdentifier { path, system_identifier } => (
                ExitStatus::WrongCluster,
                format!("{} Nothing is stored for or taken from a cluster that nobody claims.", place(path.as_ref())),
                format!(
                    "Put system_identifier = \"{system_identifier}\" into the cluster's table, as \"pitr init\" shows it. \
                     After pg_upgrade run \"pitr init --upgraded\" first. A copy of a server must not archive at all."
                ),
            ),
            ConfigError::SameIdentifier { .. } => (
                ExitStatus::Configuration,
                "A primary and its standbys are one cluster and share one table.".to_owned(),
                "Remove one of the two.".to_owned(),
            ),
            ConfigError::WrongCluster { .. } => (
                ExitStatus::WrongCluster,
                "Nothing was stored or taken, so that two clusters do not mix.".to_owned(),
                "Is it the right --cluster, and the right server? After pg_upgrade run \"pitr init --upgraded\" and put the \
                 line that it prints into the configuration."
                    .to_owned(),
            ),
            ConfigError::NoPath { cluster, mirror } => (
                ExitStatus::Configuration,
                nothing.to_owned(),
                format!("Put path = \"/…\" or path = \"s3://BUCKET/FOLDER\" into [cluster.{cluster}.mirror.{mirror}]."),
            ),
            ConfigError::SamePlace { .. } => (
                ExitStatus::Configuration,
                "A repository that is its own mirror saves nothing.".to_owned(),
                "Give the mirror a place of its own, best in another building, or remove its table.".to_owned(),
            ),
            ConfigError::UnknownRepository { known, .. } => {
                let known: Vec<String> = known.iter().map(|name| format!("\"{name}\"")).collect();
                (
                    ExitStatus::Configuration,
                    nothing.to_owned(),
                    format!(
                        "It has {}. Further ones are tables [cluster.NAME.mirror.NAME] of the configuration file.",
                        known.join(", ")
                    ),
                )
            }
            ConfigError::NoRepository { .. } => (
                ExitStatus::Configuration,
                nothing.to_owned(),
                "Put path = \"/…\" or path = \"s3://BUCKET/FOLDER\" into [repository] of the configuration file, or set PITR_REPOSITORY.".to_owned(),
            ),
        };
        Report::new(status, self.to_string(), meaning, hint)
    }
}

fn no_cluster_hint() -> String {
    format!(
        "Write {DEFAULT_PATH} with a table [cluster.NAME], or set PITR_CLUSTER and PITR_REPOSITORY; \
         \"pitr init --help\" has an example."
    )
}

fn place(path: Option<&std::path::PathBuf>) -> String {
    match path {
        Some(path) => format!("The configuration file is \"{}\".", path.display()),
        None => format!("There is no configuration file \"{DEFAULT_PATH}\"."),
    }
}

fn list(names: &[ClusterName]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    match names.as_slice() {
        [] => "no cluster".to_owned(),
        [only] => format!("the cluster {only}"),
        several => format!("the clusters {}", several.join(", ")),
    }
}

/// The names that are allowed, and the one that was probably meant.
fn suggestion(key: &str, known: &[&'static str]) -> String {
    let nearest = known.iter().map(|name| (distance(key, name), name)).min();
    match nearest {
        Some((changes, name)) if changes <= 2 => format!("Is \"{name}\" meant?"),
        _ => format!("Known are {}.", known.join(", ")),
    }
}

/// How many characters have to be changed, added or removed to make one text of the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}
