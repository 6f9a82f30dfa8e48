//! The frame of every binary: a failure is told in three parts and ends with its documented status, a panic included.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::process::ExitCode;
use std::sync::Once;

use super::{ExitStatus, Explain, Program, Report, Severity};

/// Runs a program's body and turns its end into what PostgreSQL and people understand.
///
/// A Rust panic would end a process with 101: for `restore_command` that reads as "no such file" and opens the database
/// too early, so it must never come to that.
pub fn run_program<E: Explain>(program: Program, body: impl FnOnce() -> Result<ExitStatus, E>) -> ExitCode {
    static TOLD: Once = Once::new();
    std::panic::set_hook(Box::new(move |info| {
        // A panic in a thread is followed by a second one where it is joined; only the first tells the cause.
        TOLD.call_once(|| describe(info).print(program, Severity::Error));
    }));
    // The body is not looked at again after a panic: the process ends.
    let status = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => {
            let report = error.report();
            report.print(program, Severity::Error);
            report.status
        }
        Err(_) => ExitStatus::Internal,
    };
    ExitCode::from(status.number(program))
}

fn describe(info: &PanicHookInfo<'_>) -> Report {
    let message = info.payload_as_str().unwrap_or("no message");
    let place = info.location().map_or_else(String::new, |place| format!(" at {}:{}", place.file(), place.line()));
    Report::new(
        ExitStatus::Internal,
        format!("internal fault{place}: {message}"),
        "This is a mistake in the program. Nothing that was reported as done is affected, and nothing half-made counts.",
        "Run the command again; if it happens again, please report these lines with the version that \"pitr --version\" shows.",
    )
}
