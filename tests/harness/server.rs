//! One running PostgreSQL cluster in a test's directory.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use postgres::{Client, NoTls};
use rustix::process::Signal;

use super::dir::{TestDir, chown_to_test_user};
use super::install::{Postgres, client_tool};
use super::process::{Run, as_test_user, kill_tree, signal, wait_until};
use super::{PATIENCE, wait_for};

/// How to make a cluster. The defaults are small and quick: no fsync, no TCP, 16 MiB segments, no page checksums.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the cluster's directories inside the test's; two clusters of one test need two names.
    pub name: String,
    /// `initdb --wal-segsize`: 1 to 1024.
    pub segment_size_mib: u32,
    /// `initdb --data-checksums`.
    pub page_checksums: bool,
    /// Lines for `postgresql.conf`, later ones win.
    pub settings: Vec<(String, String)>,
    /// Content of `pg_hba.conf`; unless given, everybody on the socket is trusted.
    pub hba: Option<String>,
    /// Whether to listen on a free port of 127.0.0.1 too.
    pub tcp: bool,
    /// Whether the server fsyncs; processes are killed in tests, machines are not.
    pub fsync: bool,
    /// `initdb --waldir`: WAL outside the data directory.
    pub waldir: Option<PathBuf>,
}

impl Options {
    /// The defaults, with a name.
    pub fn named(name: &str) -> Options {
        Options {
            name: name.to_owned(),
            segment_size_mib: 16,
            page_checksums: false,
            settings: Vec::new(),
            hba: None,
            tcp: false,
            fsync: false,
            waldir: None,
        }
    }

    /// Adds a setting.
    pub fn set(mut self, name: &str, value: impl ToString) -> Options {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    /// Sets the WAL segment size.
    pub fn segment_size_mib(mut self, size: u32) -> Options {
        self.segment_size_mib = size;
        self
    }

    /// Turns page checksums on.
    pub fn page_checksums(mut self) -> Options {
        self.page_checksums = true;
        self
    }

    /// Turns archiving on, with this command.
    pub fn archive_command(self, command: &str) -> Options {
        self.set("archive_mode", "on").set("archive_command", command)
    }

    /// Listens on TCP too.
    pub fn tcp(mut self) -> Options {
        self.tcp = true;
        self
    }
}

impl Default for Options {
    fn default() -> Options {
        Options::named("main")
    }
}

/// How to stop a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Wait for clients.
    Smart,
    /// Disconnect clients, write a checkpoint, archive what is left.
    Fast,
    /// No checkpoint: the next start recovers.
    Immediate,
}

/// A cluster. Ended for good, and quickly, when dropped.
#[derive(Debug)]
pub struct Server {
    /// Which PostgreSQL runs it.
    pub postgres: Postgres,
    name: String,
    data: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    port: u16,
    tcp: bool,
    /// Whether it fsyncs.
    pub(super) fsync: bool,
    /// How far its clock is from the machine's, in seconds.
    clock_offset_s: i64,
    process: Option<Child>,
}

impl Server {
    /// Makes a cluster with `initdb`; it does not run yet.
    pub fn init(dir: &TestDir, postgres: &Postgres, options: &Options) -> Server {
        let mut server = Server::adopt(dir, postgres, &options.name, &dir.join(&options.name));
        (server.tcp, server.fsync) = (options.tcp, options.fsync);
        if options.tcp {
            server.port = free_port();
        }
        let mut initdb = as_test_user(postgres.bin("initdb"));
        initdb.arg("--pgdata").arg(&server.data).args(["--username=postgres", "--auth=trust", "--no-sync"]);
        initdb.arg(format!("--wal-segsize={}", options.segment_size_mib));
        if options.page_checksums {
            initdb.arg("--data-checksums");
        } else if postgres.major >= 18 {
            initdb.arg("--no-data-checksums");
        }
        if let Some(waldir) = &options.waldir {
            initdb.arg("--waldir").arg(waldir);
        }
        initdb.run().ok();
        for (name, value) in SMALL {
            server.configure(name, value);
        }
        // Two segments at least are needed, whatever their size.
        server.configure("min_wal_size", &format!("{}MB", (2 * options.segment_size_mib).max(32)));
        server.configure("max_wal_size", &format!("{}MB", (4 * options.segment_size_mib).max(256)));
        for (name, value) in &options.settings {
            server.configure(name, value);
        }
        let hba = options.hba.clone().unwrap_or_else(|| {
            ["local all all trust", "local replication all trust", "host all all 127.0.0.1/32 trust"].join("\n")
                + "\nhost replication all 127.0.0.1/32 trust\n"
        });
        fs::write(server.data.join("pg_hba.conf"), hba).expect("could not write pg_hba.conf");
        server
    }

    /// [`Server::init`] and [`Server::start`].
    pub fn running(dir: &TestDir, postgres: &Postgres, options: &Options) -> Server {
        let mut server = Server::init(dir, postgres, options);
        server.start();
        server
    }

    /// A server for a data directory that exists or will exist: a restored one, a copied one. Its socket and log are the
    /// test's own, so it can run beside the one it was copied from.
    pub fn adopt(dir: &TestDir, postgres: &Postgres, name: &str, data: &Path) -> Server {
        Server {
            postgres: postgres.clone(),
            name: name.to_owned(),
            data: data.to_owned(),
            socket: dir.make_dir(format!("{name}-socket")),
            log: dir.join(format!("{name}.log")),
            port: 5432,
            tcp: false,
            fsync: false,
            clock_offset_s: 0,
            process: None,
        }
    }

    /// Adds a setting to `postgresql.auto.conf`, where the last line of a name wins over `postgresql.conf` too. It counts
    /// from the next start or [`Server::reload`] on.
    pub fn configure(&mut self, name: &str, value: &str) {
        let path = self.data.join("postgresql.auto.conf");
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).expect("could not open settings");
        writeln!(file, "{name} = '{}'", value.replace('\'', "''")).expect("could not write settings");
        chown_to_test_user(&path);
    }

    /// Sets the server's clock so many seconds before (or after) the machine's; counts from the next start on.
    pub fn set_clock(&mut self, offset_s: i64) {
        self.clock_offset_s = offset_s;
    }

    /// Starts the server and waits until it takes connections.
    pub fn start(&mut self) {
        self.spawn();
        let what = format!("server {} to start; its log:\n{}", self.name, self.log_path().display());
        wait_for(&what, || {
            if !self.is_running() {
                panic!("server {} did not start; its log:\n{}", self.name, self.log());
            }
            self.try_client().map(|_| ())
        });
    }

    /// Starts the server and waits for nothing: for one that is expected to refuse, or to stop in recovery.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "server {} was started already", self.name);
        let log = fs::OpenOptions::new().append(true).create(true).open(&self.log).expect("could not open the log");
        chown_to_test_user(&self.log);
        let mut command = self.command();
        command.arg("-D").arg(&self.data).arg("-k").arg(&self.socket).arg("-p").arg(self.port.to_string());
        let listen = if self.tcp { "listen_addresses=127.0.0.1" } else { "listen_addresses=" };
        command.args(["-c", listen, "-c", if self.fsync { "fsync=on" } else { "fsync=off" }]);
        command.args(["-c", "logging_collector=off", "-c", "log_destination=stderr"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor can be doubled")).stderr(log);
        self.process = Some(command.spawn().expect("could not start postgres"));
    }

    fn command(&self) -> Command {
        let program = self.postgres.bin("postgres");
        if self.clock_offset_s == 0 {
            return as_test_user(program);
        }
        assert!(Path::new(FAKE_CLOCK).exists(), "no {FAKE_CLOCK}: run scripts/install");
        // Through env: the library leaves a semaphore behind, which must not be root's.
        let mut command = as_test_user("/usr/bin/env");
        command.arg(format!("LD_PRELOAD={FAKE_CLOCK}")).arg(format!("FAKETIME={:+}s", self.clock_offset_s));
        // Intervals stay true: only what day and hour it is changes.
        command.arg("FAKETIME_DONT_FAKE_MONOTONIC=1").arg(program);
        command
    }

    /// Waits until the server has ended by itself, and tells whether with status 0.
    pub fn wait_for_end(&mut self) -> bool {
        let mut process = self.process.take().expect("the server was started");
        let status = wait_until(&mut process, Instant::now() + PATIENCE);
        let Some(status) = status else {
            self.process = Some(process);
            panic!("server {} should have ended by itself; its log:\n{}", self.name, self.log());
        };
        status.success()
    }

    /// Whether the postmaster lives.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|child| child.try_wait().expect("a child can be waited for").is_none())
    }

    /// The postmaster's process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server was started").id()
    }

    /// Stops the server and waits for its end.
    pub fn stop(&mut self, how: Stop) {
        let mut process = self.process.take().expect("the server was started");
        let with = match how {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        signal(process.id(), with);
        if wait_until(&mut process, Instant::now() + PATIENCE).is_none() {
            self.process = Some(process);
            panic!("server {} did not stop; its log:\n{}", self.name, self.log());
        }
    }

    /// Kills the postmaster and everything below it, archive commands too, as a crash of the machine would.
    pub fn kill9(&mut self) {
        let mut process = self.process.take().expect("the server was started");
        kill_tree(process.id());
        process.wait().expect("a killed child can be waited for");
    }

    /// Fast stop and start.
    pub fn restart(&mut self) {
        self.stop(Stop::Fast);
        self.start();
    }

    /// Makes the server read its settings again.
    pub fn reload(&self) {
        signal(self.pid(), Signal::HUP);
    }

    /// Connection string over the socket, as superuser.
    pub fn conninfo(&self) -> String {
        self.conninfo_as("postgres")
    }

    /// Connection string over the socket for a role.
    pub fn conninfo_as(&self, role: &str) -> String {
        format!("host={} port={} user={role} dbname=postgres", self.socket.display(), self.port)
    }

    /// Connection string over TCP, where [`Options::tcp`] asked for it.
    pub fn conninfo_tcp(&self, role: &str) -> String {
        assert!(self.tcp, "server {} does not listen on TCP", self.name);
        format!("host=127.0.0.1 port={} user={role} dbname=postgres", self.port)
    }

    /// Directory of the socket.
    pub fn socket_dir(&self) -> &Path {
        &self.socket
    }

    /// Port of the socket and of TCP.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new connection as superuser.
    pub fn client(&self) -> Client {
        Client::connect(&self.conninfo(), NoTls).unwrap_or_else(|error| {
            panic!("could not connect to server {}: {error}; its log:\n{}", self.name, self.log())
        })
    }

    /// A new connection, or none when the server does not take any (yet, any more).
    pub fn try_client(&self) -> Option<Client> {
        Client::connect(&self.conninfo(), NoTls).ok()
    }

    /// Runs statements that give no rows, on a connection of their own.
    pub fn run(&self, sql: &str) {
        self.client().batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The single value of a query, as text; empty for NULL.
    pub fn ask(&self, sql: &str) -> String {
        self.ask_all(sql).into_iter().next().unwrap_or_else(|| panic!("{sql}: no row"))
    }

    /// The first column of all rows of a query, as text.
    pub fn ask_all(&self, sql: &str) -> Vec<String> {
        let answer = self.client().simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let rows = answer.iter().filter_map(|message| match message {
            postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        rows.collect()
    }

    /// The data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Where the server's messages go.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All of the server's messages so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Ends the current WAL segment, in which it has written something, and gives its name.
    pub fn switch_wal(&self) -> String {
        let mut client = self.client();
        // An empty segment would not be switched.
        client.batch_execute("SELECT pg_logical_emit_message(false, 'test', 'switch')").expect("a message is written");
        let row = client.query_one("SELECT pg_walfile_name(pg_switch_wal())", &[]).expect("the segment is switched");
        row.get(0)
    }

    /// Waits until the archiver has done with a file, and everything before it.
    pub fn wait_archived(&self, file: &str) {
        let status = self.data.join("pg_wal/archive_status");
        let begun = Instant::now();
        loop {
            let ready = status.join(format!("{file}.ready")).exists();
            let done = status.join(format!("{file}.done")).exists();
            // A segment that was recycled has neither; then the statistics name a later one.
            let last = self.ask("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver");
            if !ready && (done || last.as_str() >= file) {
                return;
            }
            if begun.elapsed() > PATIENCE {
                let facts = self.ask("SELECT row_to_json(s)::text FROM pg_stat_archiver s");
                panic!("{file} is not archived (ready: {ready}, done: {done}), {facts}; the log:\n{}", self.log());
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Ends the current segment and waits for it to be archived; gives its name.
    pub fn archive_all(&self) -> String {
        let segment = self.switch_wal();
        self.wait_archived(&segment);
        segment
    }

    /// A client program of PostgreSQL 18, connected as superuser by the environment.
    pub fn tool(&self, program: &str) -> Command {
        let mut command = as_test_user(client_tool(program));
        command.env("PGHOST", &self.socket).env("PGPORT", self.port.to_string());
        command.env("PGUSER", "postgres").env("PGDATABASE", "postgres");
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(15).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            eprintln!("--- last messages of server {}\n{}\n---", self.name, last.join("\n"));
        }
        if let Some(mut process) = self.process.take() {
            // The quickest end that also removes the server's shared memory.
            signal(process.id(), Signal::QUIT);
            if wait_until(&mut process, Instant::now() + std::time::Duration::from_secs(10)).is_none() {
                kill_tree(process.id());
                let _ = process.wait();
            }
        }
    }
}

/// Debian's libfaketime.
const FAKE_CLOCK: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// What makes a server small and its tests telling.
const SMALL: [(&str, &str); 9] = [
    ("shared_buffers", "16MB"),
    ("max_connections", "20"),
    ("wal_level", "replica"),
    ("max_wal_senders", "5"),
    ("track_commit_timestamp", "on"),
    ("log_line_prefix", "%m [%p] "),
    ("restart_after_crash", "off"),
    ("dynamic_shared_memory_type", "posix"),
    ("timezone", "UTC"),
];

/// A port nobody listens on now.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("could not bind a port");
    listener.local_addr().expect("a bound socket has an address").port()
}
