//! What the steps of a check found, shown as they go, or as one JSON document at the end.

use std::io::{self, Write};

use serde::Serialize;

use crate::command::{Context, Output};
use crate::report::{ExitStatus, Explain, Report};

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    Ok,
    Warning,
    Failed,
    Skipped,
}

/// What one step found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) verdict: Verdict,
    pub(super) message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) hint: String,
}

impl Finding {
    fn new(check: &'static str, verdict: Verdict, message: &str, hint: &str) -> Finding {
        Finding { check, verdict, message: message.to_owned(), hint: hint.to_owned() }
    }

    pub(super) fn ok(check: &'static str, message: impl AsRef<str>) -> Finding {
        Finding::new(check, Verdict::Ok, message.as_ref(), "")
    }

    pub(super) fn skipped(check: &'static str, message: &str) -> Finding {
        Finding::new(check, Verdict::Skipped, message, "")
    }

    pub(super) fn warning(check: &'static str, message: &str, hint: &str) -> Finding {
        Finding::new(check, Verdict::Warning, message, hint)
    }

    pub(super) fn wrong(check: &'static str, message: &str, hint: &str) -> Finding {
        Finding::new(check, Verdict::Failed, message, hint)
    }

    /// What came of a step.
    pub(super) fn of<E: Explain>(check: &'static str, result: Result<impl AsRef<str>, E>) -> Finding {
        match result {
            Ok(message) => Finding::ok(check, message),
            Err(error) => Finding::failed(check, &error.report()),
        }
    }

    pub(super) fn failed(check: &'static str, report: &Report) -> Finding {
        Finding::new(check, Verdict::Failed, &report.what, &report.hint)
    }
}

/// All findings so far.
pub(super) struct Findings<'a> {
    context: &'a Context,
    out: Output,
    all: Vec<Finding>,
}

impl<'a> Findings<'a> {
    pub(super) fn new(context: &'a Context) -> io::Result<Findings<'a>> {
        Ok(Findings { context, out: context.stdout(), all: Vec::new() })
    }

    /// Takes a finding in, and shows it at once to people: the next step may take minutes.
    pub(super) fn add(&mut self, finding: Finding) -> io::Result<()> {
        if !self.context.json {
            let verdict = match finding.verdict {
                Verdict::Ok => "ok",
                Verdict::Warning => "WARNING",
                Verdict::Failed => "FAILED",
                Verdict::Skipped => "skipped",
            };
            writeln!(self.out, "{verdict:<8} {:<14} {}", finding.check, finding.message)?;
            if !finding.hint.is_empty() {
                writeln!(self.out, "{:<23} HINT:  {}", "", finding.hint)?;
            }
            self.out.flush()?;
        }
        self.all.push(finding);
        Ok(())
    }

    pub(super) fn add_result<E: Explain>(
        &mut self,
        check: &'static str,
        result: Result<impl AsRef<str>, E>,
    ) -> io::Result<()> {
        self.add(Finding::of(check, result))
    }

    /// Nothing has failed so far.
    pub(super) fn are_good(&self) -> bool {
        self.all.iter().all(|finding| finding.verdict != Verdict::Failed)
    }

    /// Shows the document, where one is wanted, and tells the exit status.
    pub(super) fn finish(mut self) -> io::Result<ExitStatus> {
        let ok = self.are_good();
        if self.context.json {
            self.out.json(&serde_json::json!({"ok": ok, "checks": self.all}))?;
        } else if ok {
            writeln!(self.out, "\nArchiving works.")?;
        } else {
            writeln!(self.out, "\nArchiving is not proved: see what failed above.")?;
        }
        self.out.flush()?;
        Ok(if ok { ExitStatus::Success } else { ExitStatus::No })
    }
}

impl<E: Explain> Explain for &E {
    fn report(&self) -> Report {
        (*self).report()
    }
}
