//! What to tell about failures of the verbs that set up and look.

use super::{ExitStatus, Explain, Report};
use crate::command::config_show::ConfigShowError;

/// Standard output that cannot be written to: a full disk behind a redirection, most likely.
fn output(what: String) -> Report {
    Report::new(ExitStatus::Local, what, "The result is incomplete.", "Is the disk behind the redirection full?")
}

impl Explain for ConfigShowError {
    fn report(&self) -> Report {
        match self {
            ConfigShowError::Config(error) => error.report(),
            ConfigShowError::Output(_) => output(self.to_string()),
        }
    }
}
