//! What to tell where the contents of a base backup could not be told: `pitr show`, `pitr diff`.

use super::{ExitStatus, Explain, Report};
use crate::command::contents::ContentsError;

impl Explain for ContentsError {
    fn report(&self) -> Report {
        let what = self.to_string();
        match self {
            ContentsError::Look(error) => error.report(),
            ContentsError::NoBackup { .. } => Report::new(
                ExitStatus::No,
                what,
                "There is nothing to be shown.",
                "\"pitr list\" shows the backups of a cluster with their ids and labels.",
            ),
            ContentsError::SeveralBackups { ids, .. } => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                Report::new(
                    ExitStatus::Usage,
                    what,
                    format!("Which one is meant cannot be told: {}.", ids.join(", ")),
                    "Name it by its id, or say \"latest\".",
                )
            }
            ContentsError::NoDatabase { .. } => Report::new(
                ExitStatus::No,
                what,
                "Of a database whose catalog cannot be read the name is not known.",
                "Without --database all databases are shown.",
            ),
            ContentsError::Same(_) => Report::new(
                ExitStatus::Usage,
                what,
                "There is nothing to compare.",
                "Name two backups, the earlier one first. \"pitr list\" shows them; \"pitr show\" tells about one.",
            ),
            ContentsError::Clusters { .. } => Report::new(
                ExitStatus::Usage,
                what,
                "They have no history in common, so that nothing in one is a changed form of something in the other. \
                 pg_upgrade, too, makes a new cluster.",
                "Compare two backups of one system identifier: \"pitr list\" shows which each has.",
            ),
            ContentsError::Interrupted => Report::new(
                ExitStatus::Interrupted,
                what,
                "What was shown so far, if anything, is not all.",
                "Run it again.",
            ),
        }
    }
}
