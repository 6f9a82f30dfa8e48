//! What the user is told: every error in three parts, and the exit status that goes with it.
//!
//! Layer 5. Each error type of the layers below gets its three parts here, in a submodule per area, by a `match` without
//! wildcard: a new failure cannot ship without its advice. The grammar is PostgreSQL's own ("Error Message Style
//! Guide", `doc/src/sgml/sources.sgml`), because these lines stand in the server's log between the server's own.
//!
//! * [`ExitStatus`] is the only place of exit statuses; `docs/EXIT_CODES.md` is checked against it.
//! * [`Report`] is one error told; [`Explain`] turns an error into one.
//! * [`run_program`] is the frame of every binary: it prints what went wrong, catches panics, and chooses the status.

mod backup;
mod call;
mod command;
mod config;
mod contents;
mod copy;
pub mod fetch;
mod history;
mod keeping;
mod panic;
pub mod push;
mod replication;
mod repository;
mod restore;
mod status;
mod storage;
mod unreachable;
mod verify;

pub use panic::run_program;
pub use status::{ExitStatus, Program};

use std::fmt;
use std::io::Write;

/// How bad it is, in the words of PostgreSQL's log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Severity {
    /// Something failed and a person may have to act.
    Error,
    /// Something was survived.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "ERROR",
            Severity::Warning => "WARNING",
        })
    }
}

/// One failure as the user reads it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// What happened: lower case, no period, kind and name of the object, always the reason.
    /// "could not" if it may succeed next time, "cannot" if it never will.
    pub what: String,
    /// What it means: is data at risk, does the server go on. Full sentences.
    pub meaning: String,
    /// What to do next: a command to run, or a question to answer. Full sentences; may be empty for a warning.
    pub hint: String,
    /// The exit status of a program that ends because of it.
    pub status: ExitStatus,
}

impl Report {
    /// Puts the parts together.
    pub fn new(
        status: ExitStatus,
        what: impl Into<String>,
        meaning: impl Into<String>,
        hint: impl Into<String>,
    ) -> Report {
        Report { what: what.into(), meaning: meaning.into(), hint: hint.into(), status }
    }

    /// The lines for the log: `pitr: ERROR:  …`, `DETAIL:  …`, `HINT:  …`, each ended by a newline.
    #[must_use]
    pub fn render(&self, program: Program, severity: Severity) -> String {
        let mut text = format!("{program}: {severity}:  {}\n", one_line(&self.what));
        for (label, part) in [("DETAIL", &self.meaning), ("HINT", &self.hint)] {
            if !part.is_empty() {
                text.push_str(&format!("{label}:  {}\n", one_line(part)));
            }
        }
        text
    }

    /// Writes the lines to standard error in one piece, so that parallel processes do not mix theirs into it.
    ///
    /// A standard error that cannot be written to is passed over: there is nowhere left to say so.
    pub fn print(&self, program: Program, severity: Severity) {
        let _ = std::io::stderr().lock().write_all(self.render(program, severity).as_bytes());
    }
}

/// An error that can be told to the user.
pub trait Explain {
    /// The three parts and the status.
    fn report(&self) -> Report;
}

impl Explain for Report {
    fn report(&self) -> Report {
        self.clone()
    }
}

/// Control characters from file names and server messages must not forge lines of the server's log or move the
/// terminal's cursor. A line break stays one, but the next line begins with a tab, as in PostgreSQL's log.
fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' => out.push_str("\n\t"),
            '\t' => out.push('\t'),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The grammar is the one of the server's log, and hostile text in it can neither forge a line nor drive a terminal.
    #[test]
    fn grammar() {
        let report = Report::new(
            ExitStatus::Unreachable,
            "could not open \"a\u{1b}[2J\nb\"",
            "Nothing is lost.",
            "Run \"pitr check\".",
        );
        assert_eq!(
            report.render(Program::Push, Severity::Error),
            "pitr-wal-push: ERROR:  could not open \"a\\u{1b}[2J\n\tb\"\nDETAIL:  Nothing is lost.\nHINT:  Run \"pitr check\".\n"
        );
        let warning = Report::new(ExitStatus::Success, "w", "", "");
        assert_eq!(warning.render(Program::Pitr, Severity::Warning), "pitr: WARNING:  w\n");
    }
}
