//! `Context`: what every verb of `pitr` is given beside its own arguments.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};

use super::Output;
use crate::config::{ClusterConfig, ClusterName, Config, ConfigError, RepositoryName};
use crate::report::{ExitStatus, Report};

/// Whether the user, or whoever started the program, asked it to stop.
///
/// The first SIGINT or SIGTERM sets it, so that a verb can end in order; a second one kills the process, so that a verb
/// that does not look cannot hold the user.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Listens to SIGINT and SIGTERM from now on.
    ///
    /// # Errors
    /// The operating system refuses to set a signal's action.
    pub fn on_signals() -> std::io::Result<Interrupt> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: on the second signal the flag is already set, and the default action follows.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Interrupt(flag))
    }

    /// Whether to stop.
    #[must_use]
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// The flag itself, for code of lower layers that only knows a flag.
    #[must_use]
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// The surroundings of a verb.
#[derive(Debug)]
pub struct Context {
    /// The whole configuration.
    pub config: Config,
    /// `--cluster`, if given.
    pub cluster: Option<ClusterName>,
    /// `--repository`, if given.
    pub repository: Option<RepositoryName>,
    /// `--json`: standard output carries one JSON document and nothing else.
    pub json: bool,
    /// Set when the program is asked to stop.
    pub interrupt: Interrupt,
    /// A person can answer a question.
    pub stdin_is_terminal: bool,
    /// Standard output is read by a person.
    pub stdout_is_terminal: bool,
    /// Progress may be drawn on standard error.
    pub stderr_is_terminal: bool,
}

impl Context {
    pub(super) fn new(
        config: Config,
        cluster: Option<ClusterName>,
        repository: Option<RepositoryName>,
        json: bool,
    ) -> Result<Context, Report> {
        let interrupt = Interrupt::on_signals().map_err(|error| {
            Report::new(ExitStatus::Local, format!("could not listen to signals: {error}"), "Nothing was done.", "")
        })?;
        let stdin_is_terminal = std::io::stdin().is_terminal();
        let stdout_is_terminal = std::io::stdout().is_terminal();
        let stderr_is_terminal = std::io::stderr().is_terminal();
        Ok(Context {
            config,
            cluster,
            repository,
            json,
            interrupt,
            stdin_is_terminal,
            stdout_is_terminal,
            stderr_is_terminal,
        })
    }

    /// The settings of the cluster that is meant: `--cluster`, `PITR_CLUSTER`, or the only one there is. Its first repository is the
    /// one that `--repository` names.
    ///
    /// # Errors
    /// As [`Config::select`]; the cluster has no such repository.
    pub fn cluster_config(&self) -> Result<ClusterConfig, ConfigError> {
        self.config.select(self.cluster.as_ref(), None)?.seen_from(self.repository.as_ref())
    }

    /// Standard output.
    #[must_use]
    pub fn stdout(&self) -> Output {
        Output::stdout()
    }
}
