//! The question before something that cannot easily be undone.

use std::io::{BufRead, Write};

use super::Context;

/// It was not answered with yes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Declined {
    /// There was a person to ask.
    pub asked: bool,
}

/// Asks a person; fails where there is none. The question is one for yes or no.
///
/// # Errors
/// [`Declined`].
pub(super) fn ask(context: &Context, question: &str) -> Result<(), Declined> {
    if !context.stdin_is_terminal {
        return Err(Declined { asked: false });
    }
    // Standard output may carry JSON.
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    let yes = read.is_ok() && ["y", "yes"].contains(&answer.trim().to_lowercase().as_str());
    if yes { Ok(()) } else { Err(Declined { asked: true }) }
}
