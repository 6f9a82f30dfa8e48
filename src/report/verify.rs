//! What to tell when nothing could be verified.

use super::command::output;
use super::{ExitStatus, Explain, Report};
use crate::command::verify::VerifyError;

impl Explain for VerifyError {
    fn report(&self) -> Report {
        match self {
            VerifyError::Config(error) => error.report(),
            VerifyError::Repository(error) => {
                let Report { status, what, hint, meaning } = error.report();
                if status == ExitStatus::Damaged {
                    return Report { status, what, hint, meaning };
                }
                Report::new(
                    status,
                    what,
                    "Nothing was verified, and nothing was changed. This says nothing about what is stored.",
                    hint,
                )
            }
            VerifyError::Output(_) => output(self.to_string()),
            VerifyError::Since(_) => Report::new(
                ExitStatus::Usage,
                self.to_string(),
                "Nothing was verified.",
                "A time is given as \"2026-03-02 14:25:00+01\", \"yesterday 14:25\" or \"2 days ago\".",
            ),
            VerifyError::Nothing(_) => Report::new(
                ExitStatus::No,
                self.to_string(),
                "There is nothing to verify.",
                "Is it the right --cluster and the right repository? A new one is announced by \"pitr init\".",
            ),
            VerifyError::NoBackup(_) => Report::new(
                ExitStatus::No,
                self.to_string(),
                "Nothing was verified.",
                "\"pitr list\" shows the backups. One without a manifest was broken off and is none.",
            ),
        }
    }
}
