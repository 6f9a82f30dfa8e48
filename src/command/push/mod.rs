//! `pitr-wal-push`: PostgreSQL's `archive_command`.
//!
//! Layer 5. One call archives one file: checked against its name and its cluster, read once, stored once, durable before
//! it ends with 0. PostgreSQL recycles the file after a 0, so nothing less may be called success; after 1 to 125 it keeps
//! the file and calls again (`shell_archive.c`, `pgarch.c`). How files are stored is `repository`'s business.
//!
//! * [`source`]: the file that is handed over, and the proof that it is what its name says.
//! * [`archiver`]: how it gets there, with what is noted.
//! * [`targets`]: the repositories that it goes to.
//! * [`catch_up`]: what one of them lacks is brought from another.
//! * [`borders`]: whether it goes on where the segment before it ends.
//! * [`ahead`]: what waits behind it.
//! * [`memory`]: how much of all that is in memory.
//! * [`closing`]: the roll-up of a group whose last segment was archived.

mod ahead;
mod archiver;
mod borders;
mod catch_up;
mod closing;
mod error;
mod memory;
mod source;
mod targets;

pub use error::PushError;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::command::call::{self, Arguments, Asked, CallError, Deadline, Expiry, Identity, Server};
use crate::command::cost::Cost;
use crate::report::{self, ExitStatus, Program, Severity, run_program};
use crate::spool::Spool;
use crate::wal::WalFileName;
use ahead::Ahead;
use archiver::{Archiver, Remark};
use source::Source;
use targets::Targets;

const HELP: &str = "\
Archives one WAL file: PostgreSQL's archive_command.

Usage: pitr-wal-push [--config FILE] [--cluster NAME] PATH

  archive_command = 'pitr-wal-push %p'

PATH is a file in pg_wal, absolute or relative to the working directory. Ends with 0 only when the file is durable in
the repository, and with 1 to 125 otherwise; PostgreSQL then keeps the file and tries again.

  --config FILE    configuration (else PITR_CONFIG, else /etc/pitr/pitr.toml)
  --cluster NAME   which cluster of it (else PITR_CLUSTER, else the one with the server's system identifier)
  --stats          say on standard error what it cost: time, requests to the store, bytes
  --help, --version
";

/// How long a call may take before the configuration is read and says something else.
const LIMIT_AT_FIRST: Duration = Duration::from_secs(60);

/// The program `pitr-wal-push`.
#[must_use]
pub fn main() -> ExitCode {
    run_program(Program::Push, || run(std::env::args_os().skip(1)))
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<ExitStatus, PushError> {
    let arguments = match Asked::read(arguments, &["PATH"])? {
        Asked::Work(arguments) => arguments,
        Asked::Help => return Ok(call::print(HELP)),
        Asked::Version => return Ok(call::print(&call::version(Program::Push))),
    };
    let begun = Instant::now();
    let outcome = push(&arguments);
    if arguments.stats {
        Cost::since(begun).print(Program::Push, false);
    }
    outcome
}

fn push(arguments: &Arguments) -> Result<ExitStatus, PushError> {
    let deadline = begin()?;
    let path = Path::new(&arguments.operands[0]);
    let file = Source::name(path)?;
    let server = Arc::new(Server::find(arguments, path, Identity::Present)?);
    deadline.set(server.config.push_timeout, expiry());

    deadline.doing(format!("open the repository {}", call::places(&server)));
    let spool = Spool::open(&server.config.spool, server.system_identifier).ok();
    let noted = spool.filter(|spool| spool.has_note_for(file));
    let targets = Targets::open(&server)?;
    if let Some(spool) = noted
        && is_archived(&spool, path, file, &targets)?
    {
        return Ok(ExitStatus::Success);
    }
    archive(&server, targets, path, &deadline)
}

/// Whether an earlier call archived exactly this file into exactly these repositories. The note is used up either way.
fn is_archived(spool: &Spool, path: &Path, file: WalFileName, targets: &Targets) -> Result<bool, PushError> {
    let metadata = path.metadata().map_err(|source| PushError::Read { path: path.to_owned(), source })?;
    let acknowledged = targets.are_vouched_for(spool, file, &metadata);
    spool.forget(file);
    Ok(acknowledged)
}

fn archive(server: &Server, targets: Targets, path: &Path, deadline: &Deadline) -> Result<ExitStatus, PushError> {
    let archiver = Arc::new(Archiver::new(server, targets)?);
    deadline.doing(format!("read WAL file \"{}\"", path.display()));
    let source = Source::open(path)?;
    let file = source.file_name;
    deadline.doing(format!("store WAL file \"{file}\" in {}", archiver.targets().describe()));
    let segment = match file {
        WalFileName::Segment(segment) => Some(segment),
        WalFileName::Partial(_) | WalFileName::History(_) | WalFileName::Backup { .. } => None,
    };
    // Before others may take it; nobody has yet.
    let held = archiver.hold(Duration::ZERO);
    let reading = segment.map(|segment| archiver.borders().begin(segment));
    let ahead = segment
        .filter(|_| server.config.look_ahead > 0)
        .and_then(|segment| Ahead::start(&archiver, segment, path, server.config.look_ahead));
    let stored = archiver.archive(source, held)?;
    drop(reading);
    match stored.remark {
        Some(Remark::Damaged(damage)) => {
            report::push::damaged(file, &damage).print(Program::Push, Severity::Warning);
        }
        Some(Remark::OtherHistory(before)) => {
            report::push::other_history(file, before).print(Program::Push, Severity::Warning);
        }
        None => {}
    }
    let last = ahead.map(|ahead| ahead.finish(deadline.left())).or(segment);
    if let Some(last) = last {
        closing::close(&archiver, last, deadline.left());
    }
    let targets = archiver.targets();
    if let Some(spool) = archiver.spool() {
        catch_up::catch_up(targets, spool, deadline.left());
    }
    for warning in targets.warnings() {
        warning.print(Program::Push, Severity::Warning);
    }
    Ok(ExitStatus::Success)
}

/// What holds for the whole call.
fn begin() -> Result<Deadline, CallError> {
    let local = |action: &str| {
        let action = action.to_owned();
        move |source| CallError::Local { action, source }
    };
    // WAL holds all data of the cluster: nobody else may read what is made here.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    // Dying of the signal would make the archiver process end with FATAL (wait_result_is_any_signal in pgarch.c): an
    // exit status is a failed attempt. Objects have no name before they are whole, so ending at once leaves nothing.
    let at_once = Arc::new(AtomicBool::new(true));
    let status = i32::from(ExitStatus::Interrupted.number(Program::Push));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&at_once))
            .map_err(local("listen to signals"))?;
    }
    Deadline::start(Program::Push, LIMIT_AT_FIRST, expiry()).map_err(local("start a thread"))
}

fn expiry() -> Expiry {
    Expiry::new(ExitStatus::Timeout, Severity::Error, report::push::expired)
}
