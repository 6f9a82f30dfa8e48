//! A writer of numbered rows: the ledger against which restores are judged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

use super::{PATIENCE, Server, wait_for};

/// One committed row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its number, counted from 1 without holes.
    pub n: i64,
    /// The transaction that wrote this row and nothing else.
    pub xid: u32,
    /// Commit time as the WAL has it: microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    /// Where WAL went on after the commit record: at or behind its end, and before any record of the next row.
    pub lsn_after: u64,
}

/// A thread that commits one numbered row after the other, and remembers each with its time, xid and LSN.
///
/// It outlives a crash of the server: it connects again, finds out whether the row whose answer was lost is there, and goes on.
/// The server needs `track_commit_timestamp = on`, which is the harness's default.
#[derive(Debug)]
pub struct Writer {
    rows: Arc<Mutex<Vec<Row>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Makes the table `ledger(n, note)` where it is missing and begins to write, `pause` apart, continuing behind the
    /// last row. Each row brings `padding_bytes` of WAL along.
    pub fn start(server: &Server, pause: Duration, padding_bytes: usize) -> Writer {
        server.run("CREATE TABLE IF NOT EXISTS ledger (n bigint PRIMARY KEY, note text)");
        let mut client = server.client();
        let rows = Arc::new(Mutex::new(known_rows(&mut client)));
        let stop = Arc::new(AtomicBool::new(false));
        let job = Job {
            conninfo: server.conninfo(),
            rows: Arc::clone(&rows),
            stop: Arc::clone(&stop),
            pause,
            note: "x".repeat(padding_bytes),
        };
        let thread = std::thread::spawn(move || job.run(client));
        Writer { rows, stop, thread: Some(thread) }
    }

    /// All rows known to be committed so far.
    pub fn rows(&self) -> Vec<Row> {
        self.rows.lock().expect("the writer does not panic").clone()
    }

    /// Waits until `count` more rows than now are committed; gives the last.
    pub fn wait_for_more(&self, count: usize) -> Row {
        let wanted = self.rows().len() + count;
        wait_for("the writer to commit rows", || {
            let rows = self.rows();
            if rows.len() >= wanted { rows.last().copied() } else { None }
        })
    }

    /// Ends the thread after its current row and gives all rows.
    pub fn stop(mut self) -> Vec<Row> {
        self.end();
        self.rows()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let outcome = thread.join();
            assert!(outcome.is_ok() || std::thread::panicking(), "the writer failed: see its message above");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

struct Job {
    conninfo: String,
    rows: Arc<Mutex<Vec<Row>>>,
    stop: Arc<AtomicBool>,
    pause: Duration,
    note: String,
}

impl Job {
    fn run(&self, mut client: Client) {
        while !self.stop.load(Ordering::Relaxed) {
            let n = self.rows.lock().expect("nobody panics with the lock").last().map_or(1, |row| row.n + 1);
            match commit_row(&mut client, n, &self.note) {
                Ok(row) => self.rows.lock().expect("nobody panics with the lock").push(row),
                Err(_) => match self.reconnect() {
                    Some(again) => client = again,
                    None => return,
                },
            }
            if !self.pause.is_zero() {
                std::thread::sleep(self.pause);
            }
        }
    }

    /// Connects to the server that crashed or restarted, and learns whether the last row was committed after all.
    fn reconnect(&self) -> Option<Client> {
        let begun = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            if let Ok(mut client) = Client::connect(&self.conninfo, NoTls) {
                let mut rows = self.rows.lock().expect("nobody panics with the lock");
                let last = rows.last().map_or(0, |row| row.n);
                if let Ok(Some(row)) = lost_row(&mut client, last + 1) {
                    rows.push(row);
                }
                return Some(client);
            }
            assert!(begun.elapsed() < PATIENCE, "the writer's server does not come back");
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }
}

/// An LSN, and a commit time in the form the server sends it: both exact, neither through a float.
const WHERE_AND_WHEN: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, \
     ('x' || encode(timestamptz_send(pg_xact_commit_timestamp($1::text::xid)), 'hex'))::bit(64)::bigint";

fn commit_row(client: &mut Client, n: i64, note: &str) -> Result<Row, postgres::Error> {
    let insert = "INSERT INTO ledger (n, note) VALUES ($1, $2) RETURNING (txid_current() & 4294967295)::bigint";
    let xid: i64 = client.query_one(insert, &[&n, &note])?.get(0);
    seen_row(client, n, xid)
}

fn seen_row(client: &mut Client, n: i64, xid: i64) -> Result<Row, postgres::Error> {
    let answer = client.query_one(WHERE_AND_WHEN, &[&xid.to_string()])?;
    let (lsn, committed_at): (i64, i64) = (answer.get(0), answer.get(1));
    let xid = u32::try_from(xid).expect("an xid has 32 bits");
    Ok(Row { n, xid, committed_at, lsn_after: lsn.cast_unsigned() })
}

/// The row `n`, if it is committed though its writer did not hear of it.
fn lost_row(client: &mut Client, n: i64) -> Result<Option<Row>, postgres::Error> {
    match client.query_opt("SELECT xmin::text::bigint FROM ledger WHERE n = $1", &[&n])? {
        Some(row) => seen_row(client, n, row.get(0)).map(Some),
        None => Ok(None),
    }
}

/// Rows that an earlier writer left; their LSN is not known any more, only that it is behind us.
fn known_rows(client: &mut Client) -> Vec<Row> {
    let query = "SELECT n, xmin::text::bigint FROM ledger ORDER BY n";
    let found = client.query(query, &[]).expect("the table can be read");
    let rows = found.iter().map(|row| seen_row(client, row.get(0), row.get(1)));
    rows.collect::<Result<_, _>>().expect("commit times are tracked")
}
