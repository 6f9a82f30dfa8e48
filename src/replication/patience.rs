//! How long to wait, and when to stop waiting because the program was told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::ReplicationError;

/// Longest time a blocked system call may go without a look at the interrupt flag and the clock.
pub(super) const SLICE: Duration = Duration::from_millis(200);

/// Limits on waiting, so that no call to a server can hang for ever.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Longest silence of the server (or refusal to take what is sent) that is borne while an answer is due.
    pub silence: Duration,
    /// Set by a signal handler to stop every wait within half a second.
    pub interrupt: Arc<AtomicBool>,
}

impl Default for Patience {
    /// Two minutes, and a flag of its own that nobody sets.
    fn default() -> Self {
        Patience { silence: Duration::from_secs(120), interrupt: Arc::default() }
    }
}

impl Patience {
    /// Fails if the program was told to stop.
    pub(super) fn check_interrupt(&self) -> Result<(), ReplicationError> {
        if self.interrupt.load(Ordering::Relaxed) { Err(ReplicationError::Interrupted) } else { Ok(()) }
    }
}

/// One wait, from its beginning.
pub(super) struct Wait<'a> {
    patience: &'a Patience,
    doing: &'static str,
    limit: Duration,
    since: Instant,
}

impl<'a> Wait<'a> {
    /// Starts to wait for at most `limit`.
    pub(super) fn begin(patience: &'a Patience, limit: Duration, doing: &'static str) -> Self {
        Wait { patience, doing, limit, since: Instant::now() }
    }

    /// To be called after each slice without progress.
    pub(super) fn go_on(&self) -> Result<(), ReplicationError> {
        self.patience.check_interrupt()?;
        if self.since.elapsed() < self.limit {
            return Ok(());
        }
        Err(ReplicationError::Silent { doing: self.doing, waited: self.limit })
    }
}
