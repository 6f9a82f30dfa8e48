//! `Deadline`: the end of a call that something keeps from ending.
//!
//! A file system that does not answer holds the thread that asked it in the kernel, so the end must come from another
//! one. Objects have no name before they are whole, so ending in the middle leaves nothing behind. (A thread in
//! uninterruptible sleep delays even the process's end; nothing in user space can help there.)

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::report::{ExitStatus, Program, Report, Severity};

/// How long the last words may take: standard error may be what hangs.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is told, made of the limit and of what was being done.
type LastWords = dyn Fn(Duration, &str) -> Report + Send + Sync;

/// What becomes of the call when the time is over.
#[derive(Clone)]
pub(in crate::command) struct Expiry {
    status: ExitStatus,
    severity: Severity,
    report: Arc<LastWords>,
}

impl Expiry {
    /// Ends with `status`, and tells what `report` makes of the limit and of what was being done.
    pub(in crate::command) fn new(
        status: ExitStatus,
        severity: Severity,
        report: impl Fn(Duration, &str) -> Report + Send + Sync + 'static,
    ) -> Expiry {
        Expiry { status, severity, report: Arc::new(report) }
    }
}

impl fmt::Debug for Expiry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expiry").field(&self.status).finish()
    }
}

/// A thread that ends the process when the time is over.
#[derive(Clone, Debug)]
pub(in crate::command) struct Deadline(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    program: Program,
    begun: Instant,
    changed: Condvar,
    state: Mutex<State>,
}

#[derive(Clone, Debug)]
struct State {
    limit: Duration,
    doing: String,
    expiry: Expiry,
}

impl Deadline {
    /// Starts the clock.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(in crate::command) fn start(program: Program, limit: Duration, expiry: Expiry) -> std::io::Result<Deadline> {
        let state = Mutex::new(State { limit, doing: "read the configuration".to_owned(), expiry });
        let shared = Arc::new(Shared { program, begun: Instant::now(), changed: Condvar::new(), state });
        let watching = Arc::clone(&shared);
        std::thread::Builder::new().stack_size(128 << 10).spawn(move || watching.watch())?;
        Ok(Deadline(shared))
    }

    /// Sets how long the whole call may take, counted from its start, and what happens then.
    pub(in crate::command) fn set(&self, limit: Duration, expiry: Expiry) {
        let mut state = self.0.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.limit, state.expiry) = (limit, expiry);
        self.0.changed.notify_one();
    }

    /// Notes what is being done, as a verb with its object: if it hangs, the user is told so.
    pub(in crate::command) fn doing(&self, what: impl Into<String>) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).doing = what.into();
    }

    /// Time that is left; zero if none is.
    pub(in crate::command) fn left(&self) -> Duration {
        let limit = self.0.state.lock().unwrap_or_else(PoisonError::into_inner).limit;
        limit.saturating_sub(self.0.begun.elapsed())
    }
}

impl Shared {
    fn watch(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = state.limit.saturating_sub(self.begun.elapsed());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        self.end(state.clone());
    }

    fn end(&self, State { limit, doing, expiry }: State) {
        let (told, heard) = mpsc::channel();
        let program = self.program;
        let status = expiry.status.number(program);
        let speaker = std::thread::Builder::new().spawn(move || {
            (expiry.report)(limit, &doing).print(program, expiry.severity);
            // Nobody listens any more if this took too long.
            let _ = told.send(());
        });
        if speaker.is_ok() {
            let _ = heard.recv_timeout(LAST_WORDS);
        }
        // Not std::process::exit: what it runs at exit could wait for the thread that hangs.
        signal_hook::low_level::exit(i32::from(status));
    }
}
