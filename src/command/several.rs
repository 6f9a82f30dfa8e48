//! What it takes to work with several repositories of a cluster at once: threads, patience, and what became of each.
//!
//! Nothing of this runs for a cluster with one repository.

use std::fmt;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::call::CallError;
use crate::report::{ExitStatus, Explain, Report};
use crate::repository::RepositoryName;

/// How long a repository that did not answer is left alone where the others will do.
pub(super) const AWAY_FOR: Duration = Duration::from_secs(60);

/// Does `work` with each item at the same time. When the answers so far are `enough`, the others are waited for only as long as
/// `patience`; whoever has not answered by then is `None`, and goes on without anybody listening.
pub(super) fn gather<T: Send + 'static, R: Send + 'static>(
    items: Vec<T>,
    work: impl Fn(T) -> R + Send + Sync + 'static,
    enough: impl Fn(&[Option<R>]) -> bool,
    patience: Duration,
) -> Vec<Option<R>> {
    let (said, heard) = mpsc::channel();
    let work = Arc::new(work);
    let mut answers: Vec<Option<R>> = items.iter().map(|_| None).collect();
    for (at, item) in items.into_iter().enumerate() {
        let (said, work) = (said.clone(), Arc::clone(&work));
        // Without a thread it does not answer.
        let _ = std::thread::Builder::new().spawn(move || said.send((at, work(item))));
    }
    drop(said);
    let mut until = None;
    while answers.iter().any(Option::is_none) {
        if until.is_none() && enough(&answers) {
            until = Some(Instant::now() + patience);
        }
        let answer = match until {
            None => heard.recv().ok(),
            Some(until) => heard.recv_timeout(until.saturating_duration_since(Instant::now())).ok(),
        };
        let Some((at, answer)) = answer else { break };
        answers[at] = Some(answer);
    }
    answers
}

/// Why one of several repositories did not do its part.
#[derive(Debug)]
pub struct Failure {
    /// What the configuration calls it.
    pub name: RepositoryName,
    /// Why; `None` if it did not answer in time.
    pub error: Option<Box<CallError>>,
}

impl Failure {
    pub(super) fn new(name: &RepositoryName, error: Option<CallError>) -> Failure {
        Failure { name: name.clone(), error: error.map(Box::new) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "{}: {error}", self.name),
            None => write!(f, "{}: no answer in time", self.name),
        }
    }
}

impl Explain for Failure {
    fn report(&self) -> Report {
        let hint = "Run \"pitr check\", and look at the disk or the network behind it.";
        match &self.error {
            Some(error) => Report { what: self.to_string(), ..error.report() },
            None => Report::new(ExitStatus::Unreachable, self.to_string(), "", hint),
        }
    }
}

/// Several failures in one line.
pub(super) fn list(failures: &[Arc<Failure>]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All answers are waited for until there are enough; then the rest has a moment.
    #[test]
    fn patience() {
        let sleep = |millis: u64| {
            std::thread::sleep(Duration::from_millis(millis));
            millis
        };
        let enough = |answers: &[Option<u64>]| answers.iter().flatten().count() >= 2;
        let moment = Duration::from_millis(50);
        assert_eq!(gather(vec![60, 1], sleep, |_| false, moment), [Some(60), Some(1)]);
        assert_eq!(gather(vec![9000, 60, 1], sleep, enough, moment), [None, Some(60), Some(1)]);
        assert_eq!(gather(vec![70, 60, 1], sleep, enough, Duration::from_secs(9)), [Some(70), Some(60), Some(1)]);
    }
}
