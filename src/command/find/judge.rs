//! Whether the moment just before a candidate can be reached, and what a restore to it keeps and loses.

use serde::Serialize;

use super::super::history::{History, HistoryError};
use super::sought::Candidate;
use crate::recovery::{Commit, PlanError, PlanRequest, RecoveryTarget, TargetKind, plan};

/// What a restore to a candidate would give.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Verdict {
    /// It can be reached.
    pub reachable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// The last commit that is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_commit: Option<Commit>,
    /// How many commits behind it are lost, the candidate's own among them.
    pub lost_commits: u64,
    /// All WAL behind it is there, so that there are no more.
    pub lost_complete: bool,
}

/// Plans a restore to a candidate: to its record, or to just before it.
pub(super) fn judge(history: &History, candidate: &Candidate, before: bool) -> Result<Verdict, HistoryError> {
    let target = RecoveryTarget { kind: TargetKind::Lsn(candidate.lsn), inclusive: !before };
    let request = PlanRequest { target, timeline: Some(candidate.timeline), backup: None };
    match plan(&history.snapshot, &request, &mut history.evidence()) {
        Ok(plan) => Ok(Verdict {
            reachable: true,
            why_not: None,
            last_commit: plan.last_commit,
            lost_commits: plan.lost.commits,
            lost_complete: plan.lost.complete,
        }),
        Err(PlanError::Unreachable(refusal)) => {
            let why_not = Some(refusal.why.to_string());
            Ok(Verdict { reachable: false, why_not, last_commit: None, lost_commits: 0, lost_complete: false })
        }
        Err(PlanError::Evidence(error)) => Err(error.into()),
    }
}
