//! What to tell about a copy between repositories that could not be made, or not as a whole.

use super::command::output;
use super::{ExitStatus, Explain, Report};
use crate::command::copy::CopyError;

impl Explain for CopyError {
    fn report(&self) -> Report {
        let (status, meaning, hint) = match self {
            CopyError::Config(error) => return error.report(),
            CopyError::Place(error) => return error.report(),
            CopyError::Repository(error) => return error.report(),
            CopyError::Output(_) => return output(self.to_string()),
            CopyError::Same(_) => (
                ExitStatus::Usage,
                "Nothing was copied.",
                "Name two repositories; \"pitr config show\" has their names.".to_owned(),
            ),
            CopyError::Nothing { .. } => (
                ExitStatus::No,
                "Nothing was copied.",
                "Is it the right --cluster, and are --from and --to the right way round?".to_owned(),
            ),
            CopyError::Incomplete { first, .. } => {
                let Report { status, hint, .. } = first.report();
                let meaning = "Nothing was overwritten, and all else that could be copied was; a backup is there whole or not at all. The \
                               same words go on from here.";
                (status, meaning, hint)
            }
        };
        Report::new(status, self.to_string(), meaning, hint)
    }
}
