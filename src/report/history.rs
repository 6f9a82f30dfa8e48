//! What to tell about failures of reading the history: `pitr log`, `pitr find`.

use super::{ExitStatus, Explain, Report};
use crate::command::history::HistoryError;

impl Explain for HistoryError {
    fn report(&self) -> Report {
        let what = self.to_string();
        match self {
            HistoryError::Config(error) => error.report(),
            HistoryError::Repository(error) => error.report(),
            HistoryError::Time(error) => error.report(),
            HistoryError::Reversed => Report::new(
                ExitStatus::Usage,
                what,
                "No moment lies in between.",
                "Exchange the two. Times without a zone are in this host's.",
            ),
            HistoryError::Timeline { .. } => Report::new(
                ExitStatus::Target,
                what,
                "Without its history nobody can tell which WAL leads to it.",
                "\"pitr timelines\" draws the timelines that there are.",
            ),
            HistoryError::Nothing { .. } => Report::new(
                ExitStatus::No,
                what,
                "There is no WAL to be read.",
                "Does the server archive? \"pitr check\" proves it; \"pitr status\" shows what is stored.",
            ),
            HistoryError::Interrupted => Report::new(
                ExitStatus::Interrupted,
                what,
                "What was shown so far is right, and not all.",
                "Run it again; --from and --to make it shorter.",
            ),
            HistoryError::Output(_) => super::command::output(what),
        }
    }
}
