//! Processes of the tests: as the unprivileged user, with a clean environment, and with a deadline.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// Who servers and `pitr` run as in the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TestUser {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Whether the tests run as root and have to step down to this user.
    pub step_down: bool,
}

/// As root `postgres`, where there is one, else `nobody`: PostgreSQL refuses to run as root. Otherwise whoever runs the tests.
pub fn test_user() -> TestUser {
    static USER: OnceLock<TestUser> = OnceLock::new();
    *USER.get_or_init(|| {
        let uid = rustix::process::geteuid();
        if !uid.is_root() {
            return TestUser { uid: uid.as_raw(), gid: rustix::process::getegid().as_raw(), step_down: false };
        }
        let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
        let ids = |name: &str| {
            let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut fields = line.split(':').skip(2).map(|field| field.parse::<u32>());
            Some((fields.next()?.ok()?, fields.next()?.ok()?))
        };
        let (uid, gid) = ids("postgres").or_else(|| ids("nobody")).expect("there is a user postgres or nobody");
        TestUser { uid, gid, step_down: true }
    })
}

/// A command that runs as the test user, with an environment as short as the one PostgreSQL's archiver may have.
/// It leads a process group of its own, so that a deadline ends its children too.
pub fn as_test_user(program: impl AsRef<OsStr>) -> Command {
    let user = test_user();
    let mut command = if user.step_down {
        let mut command = Command::new("/usr/bin/setpriv");
        command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
        command.arg("--clear-groups").arg("--").arg(program);
        command
    } else {
        Command::new(program)
    };
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C.UTF-8").env("TZ", "UTC");
    command.current_dir("/").process_group(0);
    command
}

/// A process that has ended, and what it said.
#[derive(Debug, Clone)]
pub struct Finished {
    /// The command line.
    pub command: String,
    /// Exit status, or the signal that ended it.
    pub status: ExitStatus,
    /// Standard output, as text.
    pub stdout: String,
    /// Standard error, as text.
    pub stderr: String,
    /// How long it ran.
    pub took: Duration,
}

impl Finished {
    /// The exit status; panics when a signal ended the process.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("ended by signal {:?}: {self}", self.status.signal()))
    }

    /// Panics unless the status is 0; otherwise passes on what was finished.
    pub fn ok(self) -> Finished {
        assert!(self.status.success(), "should have succeeded: {self}");
        self
    }

    /// Panics unless the status is `code`; otherwise passes on what was finished.
    pub fn fails_with(self, code: i32) -> Finished {
        assert!(self.status.code() == Some(code), "should have ended with status {code}: {self}");
        self
    }

    /// Panics unless standard error contains `text`; otherwise passes on what was finished.
    pub fn says(self, text: &str) -> Finished {
        assert!(self.stderr.contains(text), "should have said {text:?}: {self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{} after {:?}", self.command, self.status, self.took)?;
        write!(f, "\n--- stdout\n{}--- stderr\n{}---", self.stdout, self.stderr)
    }
}

/// Running a command to its end, but never for ever.
pub trait Run {
    /// Runs the command and gives what it said; kills it with all its children, and panics, after [`super::PATIENCE`].
    fn run(&mut self) -> Finished;

    /// As [`Run::run`] with a deadline of the caller's.
    fn run_within(&mut self, deadline: Duration) -> Finished;
}

impl Run for Command {
    fn run(&mut self) -> Finished {
        self.run_within(super::PATIENCE)
    }

    fn run_within(&mut self, deadline: Duration) -> Finished {
        let shown = format!("{self:?}");
        let begun = Instant::now();
        self.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.spawn().unwrap_or_else(|error| panic!("could not start {shown}: {error}"));
        let stdout = read_apart(child.stdout.take().expect("stdout is piped"));
        let stderr = read_apart(child.stderr.take().expect("stderr is piped"));
        let Some(status) = wait_until(&mut child, begun + deadline) else {
            kill_tree(child.id());
            child.wait().expect("a killed child can be waited for");
            let (stdout, stderr) = (stdout.recv().unwrap_or_default(), stderr.recv().unwrap_or_default());
            panic!("still running after {deadline:?}: {shown}\n--- stdout\n{stdout}--- stderr\n{stderr}---");
        };
        let took = begun.elapsed();
        // A process left behind that holds the output open would make the caller (the server, a shell) wait for it.
        let rest = Duration::from_secs(5);
        let stdout = stdout.recv_timeout(rest).unwrap_or_else(|_| panic!("a child still holds stdout of {shown}"));
        let stderr = stderr.recv_timeout(rest).unwrap_or_else(|_| panic!("a child still holds stderr of {shown}"));
        Finished { command: shown, status, stdout, stderr, took }
    }
}

fn read_apart(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What could be read before an error is still worth showing.
        let _ = from.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// Waits for a child until `deadline`; `None` when it still runs then.
pub fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sends a signal to one process; one that has ended meanwhile is fine.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id is positive");
    let _ = rustix::process::kill_process(pid, signal);
}

/// `kill -9` for a process and all that descend from it, as a machine's crash would. PostgreSQL's children lead process
/// groups of their own, so a group kill would miss them.
pub fn kill_tree(pid: u32) {
    // Stopped first, so that it starts no children while they are being counted.
    signal(pid, Signal::STOP);
    let family = descendants(pid);
    signal(pid, Signal::KILL);
    for child in &family {
        signal(*child, Signal::KILL);
    }
    super::wait_for("killed processes to be gone", || family.iter().all(|child| is_gone(*child)).then_some(()));
}

/// All processes below `pid`, from `/proc`.
pub fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .expect("/proc is readable")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|child: u32| Some((child, stat_field(child, 1)?.parse().ok()?)))
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while next < family.len() {
        let parent = family[next];
        family.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| *child));
        next += 1;
    }
    family.remove(0);
    family
}

/// Gone, or a zombie whose parent has not looked yet.
fn is_gone(pid: u32) -> bool {
    stat_field(pid, 0).is_none_or(|state| state == "Z" || state == "X")
}

/// A field of `/proc/PID/stat`, counted from the state; the command's name before it may hold anything.
fn stat_field(pid: u32, index: usize) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(index).map(str::to_owned)
}
