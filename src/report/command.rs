//! What to tell about failures of the verbs that set up and look.

use super::{ExitStatus, Explain, Report};
use crate::command::LookError;
use crate::command::check::CheckError;
use crate::command::config_show::ConfigShowError;
use crate::command::init::{AdmitError, InitError, PlaceError};
use crate::command::progress::ProgressError;
use crate::command::reindex::ReindexError;
use crate::command::server::ServerError;

/// Standard output that cannot be written to: a full disk behind a redirection, most likely.
pub(super) fn output(what: String) -> Report {
    Report::new(ExitStatus::Local, what, "The result is incomplete.", "Is the disk behind the redirection full?")
}

impl Explain for LookError {
    fn report(&self) -> Report {
        match self {
            LookError::Config(error) => error.report(),
            LookError::Repository(error) => error.report(),
            LookError::Output(_) => output(self.to_string()),
        }
    }
}

impl Explain for ConfigShowError {
    fn report(&self) -> Report {
        match self {
            ConfigShowError::Config(error) => error.report(),
            ConfigShowError::Output(_) => output(self.to_string()),
        }
    }
}

impl Explain for CheckError {
    fn report(&self) -> Report {
        match self {
            CheckError::Config(error) => error.report(),
            CheckError::Output(_) => output(self.to_string()),
        }
    }
}

impl Explain for ProgressError {
    fn report(&self) -> Report {
        match self {
            ProgressError::Config(error) => error.report(),
            ProgressError::Repository(error) => error.report(),
            ProgressError::Server(error) => error.report(),
            ProgressError::PgData(error) => Report::new(
                ExitStatus::Local,
                error.to_string(),
                "Nothing can be told about the server there.",
                "Is it a data directory, and may this user read it? Run this as the user that the server runs as, or as root.",
            ),
            ProgressError::Target(error) => Report::new(
                ExitStatus::Unsupported,
                format!("the server's recovery target cannot be understood: {error}"),
                "Its recovery goes on all the same.",
                "Look at recovery_target_* in its configuration.",
            ),
            ProgressError::Unreachable { .. } => Report::new(
                ExitStatus::Target,
                self.to_string(),
                "The server will stop before it, or wait for WAL that is not in the archive.",
                "\"pitr plan\" with the same target says what can be reached instead.",
            ),
            ProgressError::Output(_) => output(self.to_string()),
        }
    }
}

impl Explain for ReindexError {
    fn report(&self) -> Report {
        match self {
            ReindexError::Config(error) => error.report(),
            ReindexError::Repository(error) => error.report(),
            ReindexError::NoTimeline { .. } => Report::new(
                ExitStatus::No,
                self.to_string(),
                "Nothing was changed.",
                "\"pitr status\" shows the timelines that have WAL.",
            ),
            ReindexError::Output(_) => output(self.to_string()),
        }
    }
}

impl Explain for InitError {
    fn report(&self) -> Report {
        match self {
            InitError::Config(error) => error.report(),
            InitError::Path { .. } => {
                Report::new(ExitStatus::Usage, self.to_string(), "Nothing was made.", "Give an absolute path.")
            }
            InitError::Server(error) => error.report(),
            InitError::Place(error) => error.report(),
            InitError::Admit(error) => error.report(),
            InitError::Repository(error) => error.report(),
            InitError::Quote(_) => Report::new(
                ExitStatus::Configuration,
                self.to_string(),
                "The repository is ready, but archive_command cannot be written.",
                "Install pitr, and put its configuration file, under a path without such characters.",
            ),
            InitError::Output(_) => output(self.to_string()),
        }
    }
}

impl Explain for ServerError {
    fn report(&self) -> Report {
        match self {
            ServerError::Session(error) => error.report(),
            ServerError::Version { .. } => Report::new(
                ExitStatus::Unsupported,
                self.to_string(),
                "The WAL of other versions has another format; nothing was made or changed.",
                "Is there a newer pitr? \"pitr --version\" shows this one's.",
            ),
            ServerError::Setting { .. } | ServerError::Value(_) => Report::new(
                ExitStatus::Unsupported,
                self.to_string(),
                "Nothing was made or changed.",
                "Is it a PostgreSQL server, and no fork of it?",
            ),
        }
    }
}

impl Explain for PlaceError {
    fn report(&self) -> Report {
        match self {
            PlaceError::Inside { .. } => Report::new(
                ExitStatus::Configuration,
                self.to_string(),
                "Nothing was made. Every base backup would copy the repository, and what destroys the server would \
                 destroy it too.",
                "Choose a directory elsewhere, on another disk or another host's file system.",
            ),
            PlaceError::Overwrites { .. } => Report::new(
                ExitStatus::Configuration,
                self.to_string(),
                "No repository was made. Two servers that archive as one, after a promotion for example, could destroy each \
                 other's WAL there without anybody noticing.",
                "Use a server that honours If-None-Match. Or accept a weaker promise: with s3_conditional_writes = \"off\" each \
                 file is looked for before it is stored, and only writers at the same moment are not told apart.",
            ),
            PlaceError::Storage(error) => error.report(),
            PlaceError::Io { source, .. } => {
                let denied = source.kind() == std::io::ErrorKind::PermissionDenied;
                let status = if denied { ExitStatus::Denied } else { ExitStatus::Local };
                let hint = "Make the directory yourself, empty, and give it to the user that the PostgreSQL server runs \
                            as; or run \"pitr init\" as root, which does both.";
                Report::new(status, self.to_string(), "No repository was made.", hint)
            }
        }
    }
}

impl Explain for AdmitError {
    fn report(&self) -> Report {
        let (status, meaning, hint) = match self {
            AdmitError::Foreign { major, added, .. } => (
                ExitStatus::WrongCluster,
                format!(
                    "It was added {added}, with PostgreSQL {major}. Nothing was changed: WAL of two servers must not mix."
                ),
                "Give this server another name (--cluster) or another repository. If it is the same cluster after \
                 pg_upgrade, run \"pitr init --upgraded\".",
            ),
            AdmitError::OtherName { .. } => (
                ExitStatus::WrongCluster,
                "Nothing was changed.".to_owned(),
                "Use the name that it has, with --cluster or in pitr.toml.",
            ),
            AdmitError::NothingToUpgrade { .. } => (
                ExitStatus::WrongCluster,
                "Nothing was changed.".to_owned(),
                "Is it the right cluster and the right repository? A new cluster is added without --upgraded.",
            ),
            AdmitError::Downgrade { .. } => (
                ExitStatus::WrongCluster,
                "Nothing was changed.".to_owned(),
                "Is it the right server? Use another name for another cluster.",
            ),
            AdmitError::SegmentSize { .. } => (
                ExitStatus::Unsupported,
                "Segments of two sizes under one system identifier cannot be told apart. Nothing was changed."
                    .to_owned(),
                "Was pg_resetwal --wal-segsize used? Archive this server under a new cluster name, and take a base backup.",
            ),
        };
        Report::new(status, self.to_string(), meaning, hint)
    }
}
