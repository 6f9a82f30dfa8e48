//! `pitr-wal-fetch`: PostgreSQL's `restore_command`.
//!
//! Layer 5. One call delivers one file, whole and checked, or says why not; what it says decides whether a recovery goes
//! on, ends, or stops. `RestoreArchivedFile` (`xlogarchive.c`) reads every status from 1 to 125 as "no such file", and a
//! recovery without a target opens the database at the first segment that it is told so about. So 1 is said only when it
//! is certain, by a request of this very call; whatever else keeps the file from being delivered ends with 200 or more,
//! which stops the server with everything in place to start it again.
//!
//! A standby is another matter: a status above 125 would kill it, and waiting would keep it from streaming. There, if
//! `standby.signal` stands in the data directory, a passing fault is told as 1, soon, with a warning; the standby asks
//! again by itself. `on_unreachable = "stop"` asks for the hard way there too.
//!
//! SIGTERM keeps its default action: PostgreSQL takes death by it, or 143 from a shell, for its own fast shutdown and
//! ends quietly (`wait_result_is_signal` in `RestoreArchivedFile`); nothing half-made has a name that could stay behind.
//!
//! * [`delivery`]: one attempt.
//! * [`fall_over`]: the next repository, where there are several.
//! * [`ahead`]: the segments behind this one, fetched before they are asked for.

mod ahead;
mod delivery;
mod error;
mod fall_over;

pub use error::{Answer, FetchError};

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::command::call::{self, Arguments, Asked, CallError, Deadline, Expiry, Identity, Server};
use crate::command::cost::Cost;
use crate::config::OnUnreachable;
use crate::report::{self, ExitStatus, Explain, Program, Severity, run_program};
use crate::repository::RepositoryError;
use crate::spool::Spool;
use crate::wal::WalFileName;
use ahead::Ahead;
use delivery::{Delivery, Outcome};

const HELP: &str = "\
Delivers one WAL file out of the archive: PostgreSQL's restore_command.

Usage: pitr-wal-fetch [--config FILE] [--cluster NAME] FILE PATH

  restore_command = 'pitr-wal-fetch %f %p'

FILE is the name of the WAL file, PATH where to put it. Ends with 0 when it is there, with 1 only if the archive certainly
has no such file, and with 200 or more if that cannot be told: recovery then stops instead of opening the database too early.

  --config FILE    configuration (else PITR_CONFIG, else /etc/pitr/pitr.toml)
  --cluster NAME   which cluster of it (else PITR_CLUSTER, else the one with the server's system identifier)
  --stats          say on standard error what it cost: time, requests to the store, bytes
  --help, --version

As the first word, --ahead is this program's own: it fetches what follows FILE into the spool until the recovery is over.
";

/// How long a call may take before the configuration is read and says something else.
const LIMIT_AT_FIRST: Duration = Duration::from_secs(60);

/// A standby wants to be streaming again: the whole call, and how long of it may be waiting for a better answer.
const STANDBY_LIMIT: Duration = Duration::from_millis(4500);
const STANDBY_PATIENCE: Duration = Duration::from_secs(2);

/// How long a repository that did not answer is asked but once, and how long that may take.
const REMEMBERED_FOR: Duration = Duration::from_secs(30);
const LIMIT_WHEN_NOTED: Duration = Duration::from_secs(1);

/// How long a gap may last that a push leaves by archiving ahead.
const GAP_PATIENCE: Duration = Duration::from_secs(2);

/// The program `pitr-wal-fetch`.
#[must_use]
pub fn main() -> ExitCode {
    run_program(Program::Fetch, || run(std::env::args_os().skip(1)))
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<ExitStatus, FetchError> {
    let mut arguments = arguments.into_iter().peekable();
    let for_ahead = arguments.next_if(|first| first == ahead::OPTION).is_some();
    let arguments = match Asked::read(arguments, &["FILE", "PATH"])? {
        Asked::Work(arguments) => arguments,
        Asked::Help => return Ok(call::print(HELP)),
        Asked::Version => return Ok(call::print(&call::version(Program::Fetch))),
    };
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let begun = Instant::now();
    let outcome = fetch(&arguments, for_ahead);
    if arguments.stats && !for_ahead {
        Cost::since(begun).print(Program::Fetch, false);
    }
    outcome
}

fn fetch(arguments: &Arguments, for_ahead: bool) -> Result<ExitStatus, FetchError> {
    let target = Path::new(&arguments.operands[1]);
    if for_ahead {
        let done = ahead::run(|| Server::find(arguments, target, Identity::PresentOrEarlier));
        return Ok(if done { ExitStatus::Success } else { ExitStatus::No });
    }
    let deadline = Deadline::start(
        Program::Fetch,
        LIMIT_AT_FIRST,
        Expiry::new(ExitStatus::Timeout, Severity::Error, report::fetch::expired),
    )
    .map_err(|source| CallError::Local { action: "start a thread".to_owned(), source })?;
    let file: WalFileName = arguments.operands[0].to_string_lossy().parse()?;
    let server = Arc::new(Server::find(arguments, target, Identity::PresentOrEarlier)?);
    let spared = is_standby(&server) && server.config.on_unreachable == OnUnreachable::Wait;
    let doing = format!("fetch WAL file \"{file}\" from {}", call::places(&server));
    deadline.doing(doing);
    let delivery = Arc::new(Delivery::new(&server, file, target)?);
    let ahead = Ahead::of(&server, file);
    if ahead.as_ref().is_some_and(|ahead| ahead.take(target)) {
        return Ok(ExitStatus::Success);
    }
    let outcome = if spared {
        for_standby(&delivery, &server, &deadline)?
    } else {
        deadline.set(
            server.config.fetch_timeout,
            Expiry::new(ExitStatus::Timeout, Severity::Error, report::fetch::expired),
        );
        persist(&delivery, &deadline, server.config.fetch_timeout)?
    };
    match outcome {
        Outcome::Delivered => {
            if let Some(ahead) = ahead {
                ahead.go_on(arguments);
            }
            Ok(ExitStatus::Success)
        }
        Outcome::Absent => Ok(ExitStatus::No),
    }
}

/// The standby is answered soon, and told of no fault that may pass. That the repository did not answer is noted in the
/// spool, so that the calls that follow (for another timeline, for the next segment) do not all wait for it again.
fn for_standby(delivery: &Arc<Delivery>, server: &Server, deadline: &Deadline) -> Result<Outcome, FetchError> {
    let spool = || Spool::open_or_make(&server.config.spool, server.system_identifier);
    let noted = Spool::open(&server.config.spool, server.system_identifier)
        .ok()
        .filter(|spool| spool.unreachable_since().is_some_and(|age| age < REMEMBERED_FOR));
    let (limit, patience) =
        if noted.is_some() { (LIMIT_WHEN_NOTED, Duration::ZERO) } else { (STANDBY_LIMIT, STANDBY_PATIENCE) };
    let timeout = server.config.fetch_timeout;
    let (spool_path, identifier) = (server.config.spool.clone(), server.system_identifier);
    let expired = move |limit, doing: &str| {
        // Without the note the next call waits as long as this one.
        let _ = Spool::open_or_make(&spool_path, identifier).and_then(|spool| spool.note_unreachable());
        report::fetch::expired_on_standby(limit, doing)
    };
    deadline.set(limit.min(timeout), Expiry::new(ExitStatus::No, Severity::Warning, expired));
    let error = match persist(delivery, deadline, patience.min(timeout)) {
        Err(error) if error.spares_a_standby() => error,
        answered => {
            if let Some(spool) = noted {
                spool.note_reachable();
            }
            return answered;
        }
    };
    if error.is_passing() {
        let _ = spool().and_then(|spool| spool.note_unreachable());
    }
    report::fetch::on_standby(error.report()).print(Program::Fetch, Severity::Warning);
    Ok(Outcome::Absent)
}

/// `standby.signal` wins over `recovery.signal` (`readRecoverySignalFile` in `xlogrecovery.c`).
fn is_standby(server: &Server) -> bool {
    server.data_directory.as_ref().is_some_and(|directory| directory.path.join("standby.signal").exists())
}

/// Asks again where a better answer may come: a store that does not answer, bytes that do not fit, a passing gap.
fn persist(delivery: &Arc<Delivery>, deadline: &Deadline, patience: Duration) -> Result<Outcome, FetchError> {
    let begun = Instant::now();
    let mut pause = Duration::from_millis(50);
    let mut damaged_before = false;
    for tries in 1.. {
        let error = match fall_over::attempt(delivery) {
            Err(error) => error,
            answered => return answered,
        };
        let left = patience.saturating_sub(begun.elapsed()).min(deadline.left());
        let out_of_time = left < pause * 2;
        let again = match error.deciding() {
            passing if passing.is_passing() => !out_of_time,
            FetchError::Repository(RepositoryError::Damaged { .. }) => !std::mem::replace(&mut damaged_before, true),
            FetchError::Gap { .. } => begun.elapsed() < GAP_PATIENCE && !out_of_time,
            _ => false,
        };
        if !again {
            return Err(error.after(tries, begun.elapsed()));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(5));
    }
    Ok(Outcome::Absent)
}
