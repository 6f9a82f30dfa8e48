//! What to tell when a call of one of the two small programs cannot begin.

use super::{ExitStatus, Explain, Report};
use crate::command::call::CallError;
use crate::wal::ControlFileError;

impl Explain for CallError {
    fn report(&self) -> Report {
        let nothing = "Nothing was stored or taken.";
        let (status, meaning, hint) = match self {
            CallError::Usage { .. } => (ExitStatus::Usage, nothing, "--help shows how it is used."),
            CallError::Config(error) => return error.report(),
            CallError::Repository(error) => return error.report(),
            CallError::ControlFileRead { .. } => (
                ExitStatus::Local,
                "Without it nothing tells whether the configured cluster is this one, so nothing was stored or taken.",
                "Run this as the user that the PostgreSQL server runs as, in the data directory.",
            ),
            CallError::ControlFile { source: ControlFileError::Version { .. }, .. } => {
                (ExitStatus::Unsupported, nothing, "PostgreSQL 13 to 18 on a little-endian machine are supported.")
            }
            CallError::ControlFile { .. } => (
                ExitStatus::Local,
                "Without it nothing tells whether the configured cluster is this one, so nothing was stored or taken.",
                "Does pg_controldata read it? If not, the data directory is damaged.",
            ),
            CallError::NoIdentity { .. } => (
                ExitStatus::Configuration,
                nothing,
                "PostgreSQL calls this program in its data directory. Elsewhere name the cluster with --cluster or PITR_CLUSTER, \
                 and put its system_identifier into the configuration as \"pitr init\" shows it.",
            ),
            CallError::Local { .. } => {
                (ExitStatus::Local, nothing, "Look at the limits and the free memory of this machine.")
            }
        };
        Report::new(status, self.to_string(), meaning, hint)
    }
}
