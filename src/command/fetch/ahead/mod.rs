//! Looking ahead: while PostgreSQL replays a segment, the next ones are fetched into the spool.
//!
//! A call that had to ask the repository itself leaves a process behind that goes on from there ([`fetcher`]), until the recovery
//! is over; the calls that follow find their segment in the spool, and move it to where PostgreSQL wants it. What is fetched ahead
//! went through the same checks as everything else. That there is no such file is never answered from here: a call that does not
//! find its segment asks the repository.
//!
//! Nothing is fetched ahead for a server that does not recover (`pg_rewind`, a call by hand), nor for one that is process 1 of a container: it
//! would become the parent of what is left behind, and takes the end of a child that it does not know for a crash.
//!
//! * [`course`]: which segment comes next, over forks too.
//! * [`detach`]: leaving PostgreSQL's call.

mod course;
mod detach;
mod fetcher;

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

pub(super) use fetcher::run;

use crate::command::call::{self, Arguments, Server};
use crate::spool::{AheadRoom, Spool};
use crate::wal::{SegmentName, SegmentNo, SegmentSize, WalFileName};

/// The option that makes a call the process that fetches ahead.
pub(super) const OPTION: &str = "--ahead";

/// How long a call waits for a segment that is being fetched already: a standby wants to be streaming again.
const PATIENCE: Duration = Duration::from_secs(20);
const PATIENCE_OF_A_STANDBY: Duration = Duration::from_secs(2);

/// How long it waits for one that is next: a new connection takes less.
const PATIENCE_BEFORE: Duration = Duration::from_secs(2);

/// What is, or may be, fetched ahead for a server that recovers.
#[derive(Debug)]
pub(super) struct Ahead<'a> {
    server: &'a Server,
    segment: SegmentName,
    size: SegmentSize,
    scope: String,
    recovering: Recovering,
}

impl Ahead<'_> {
    /// For a call; `None` where nothing is fetched ahead.
    pub(super) fn of(server: &Server, file: WalFileName) -> Option<Ahead<'_>> {
        let WalFileName::Segment(segment) = file else { return None };
        let directory = server.data_directory.as_ref()?;
        let recovering = Recovering::of(&directory.path).filter(|_| server.config.look_ahead > 0)?;
        let size = directory.control.segment_size;
        Some(Ahead { server, segment, size, scope: scope(server, &directory.path), recovering })
    }

    /// Moves the segment to where it is wanted, if it was fetched ahead, or is coming. What is in the way of that is in the way of
    /// fetching it too, which tells it.
    pub(super) fn take(&self, target: &Path) -> bool {
        let Ok(room) = self.spool().and_then(|spool| spool.ahead_room(&self.scope)) else { return false };
        // What is ready needs no further look.
        match room.hand_over(self.segment, self.size.bytes(), target) {
            Ok(false) => {}
            taken => return taken.unwrap_or(false),
        }
        let begun = Instant::now();
        let patience = if self.recovering.is_standby() { PATIENCE_OF_A_STANDBY } else { PATIENCE };
        loop {
            // In this order: what is next comes, and what is coming is there.
            let next = begun.elapsed() < PATIENCE_BEFORE && room.is_next(self.segment) && !self.is_left_behind(&room);
            let coming = next || room.is_coming(self.segment);
            match room.hand_over(self.segment, self.size.bytes(), target) {
                Ok(false) if coming && begun.elapsed() < patience => std::thread::sleep(Duration::from_millis(1)),
                taken => return taken.unwrap_or(false),
            }
        }
    }

    /// The segment before this one was not taken, so that there may be no room for this one.
    fn is_left_behind(&self, room: &AheadRoom) -> bool {
        let before = self.segment.number(self.size).ok().and_then(|number| number.0.checked_sub(1));
        before.is_some_and(|before| {
            let before = SegmentName::new(self.segment.timeline(), SegmentNo(before), self.size);
            room.holds(before, self.size.bytes())
        })
    }

    /// The segment was fetched by this call: lets those behind it be fetched ahead. Where that fails, the next call works alone.
    pub(super) fn go_on(&self, arguments: &Arguments) {
        if self.recovering.server_is_process_1() {
            return;
        }
        let Ok(number) = self.segment.number(self.size) else { return };
        let next = SegmentName::new(self.segment.timeline(), number.next(), self.size);
        let room = Spool::open_or_make(&self.server.config.spool, self.server.system_identifier)
            .and_then(|spool| spool.make_ahead_room(&self.scope));
        let Ok(room) = room else { return };
        if room.want(next).is_ok() && !room.is_filled() {
            let _ = self.start(arguments);
        }
    }

    fn start(&self, arguments: &Arguments) -> io::Result<()> {
        let mut words: Vec<OsString> = vec![OPTION.into()];
        for (name, value) in [
            ("--config", arguments.config.as_ref().map(|path| path.clone().into_os_string())),
            ("--cluster", arguments.cluster.as_ref().map(|name| name.to_string().into())),
        ] {
            words.extend(value.into_iter().flat_map(|value| [name.into(), value]));
        }
        words.extend(["--".into(), arguments.operands[0].clone(), arguments.operands[1].clone()]);
        let mut command = Command::new(std::env::current_exe()?);
        // It is not waited for: this process ends, and whoever takes up orphans waits for it.
        command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(drop)
    }

    fn spool(&self) -> io::Result<Spool> {
        Spool::open(&self.server.config.spool, self.server.system_identifier)
    }
}

/// What is fetched ahead belongs to one data directory, the repositories as they are configured, and one boot of the host.
fn scope(server: &Server, data_directory: &Path) -> String {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let parts = [boot.trim(), &call::places(server), server.config.name.as_str(), &data_directory.to_string_lossy()];
    blake3::hash(parts.join("\n").as_bytes()).to_hex()[..16].to_owned()
}

/// A data directory whose server recovers from the archive.
#[derive(Clone, Debug)]
struct Recovering {
    data_directory: PathBuf,
}

impl Recovering {
    fn of(data_directory: &Path) -> Option<Recovering> {
        let recovering = Recovering { data_directory: data_directory.to_owned() };
        recovering.goes_on().then_some(recovering)
    }

    /// `recovery.signal` and `standby.signal` are removed when recovery ends.
    fn goes_on(&self) -> bool {
        self.has("recovery.signal") || self.is_standby()
    }

    fn is_standby(&self) -> bool {
        self.has("standby.signal")
    }

    /// The server runs: `postmaster.pid` is there.
    fn server_runs(&self) -> bool {
        self.has("postmaster.pid")
    }

    /// The first line of `postmaster.pid` is the server's process id.
    fn server_is_process_1(&self) -> bool {
        let pid = fs::read_to_string(self.data_directory.join("postmaster.pid")).unwrap_or_default();
        pid.lines().next().map(str::trim) == Some("1")
    }

    fn has(&self, name: &str) -> bool {
        self.data_directory.join(name).exists()
    }
}
