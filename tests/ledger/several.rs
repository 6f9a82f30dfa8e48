//! The same with two repositories, a directory and a bucket, of which now and then one is away, while calls of pitr-wal-push are
//! killed: at the end each of the two alone brings every acknowledged row back.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::harness::process::{descendants, signal};
use super::harness::{
    Options, Random, Row, Run, Server, Site, Stop, Writer, major, majors, newest, seed, wait_for_within,
};
use super::s3_server::{BUCKET, S3Server};

const LONG: Duration = Duration::from_secs(120);
/// Rows written in each round, each with so much WAL.
const ROWS: usize = 40;
const PADDING_BYTES: usize = 20_000;

/// A site that archives into both. One that holds a file is enough for a while.
struct Both {
    site: Site,
    bucket: S3Server,
}

impl Both {
    fn new(postgres: u32) -> Both {
        let bucket = S3Server::start();
        let options = Options::default().segment_size_mib(1).set("autovacuum", "off");
        let mut site = Site::unprepared(&major(postgres), options, "");
        let mirror = format!("[cluster.main.mirror.bucket]\npath = \"s3://{BUCKET}/pg\"\n{}", in_bucket(&bucket));
        site.configure(&format!("push_policy = 1\n{mirror}"));
        site.pitr(&["init"]).run().ok();
        // A shell that tells of the death as of any failure: else the archiver dies too, and PostgreSQL starts it ten seconds later.
        site.server.configure("archive_command", &format!("{} || exit 1", site.push_command()));
        site.server.reload();
        Both { site, bucket }
    }

    /// Ends segments and kills the calls of pitr-wal-push that come for them, in the middle of their work, for so long.
    fn kill_pushes(&self, random: &mut Random, time: Duration) -> usize {
        let (until, mut killed) = (Instant::now() + time, 0);
        while Instant::now() < until {
            self.site.server.switch_wal();
            std::thread::sleep(Duration::from_millis(random.between(2, 30) as u64));
            let ours = descendants(self.site.server.pid());
            let is_push = |pid: &&u32| {
                fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("pitr-wal-push"))
            };
            if let Some(pid) = ours.iter().find(is_push) {
                signal(*pid, rustix::process::Signal::KILL);
                killed += 1;
            }
            std::thread::sleep(Duration::from_millis(random.between(0, 100) as u64));
        }
        killed
    }

    /// What did not answer is asked again from now on: a minute passes.
    fn forget_away(&self) {
        for folder in fs::read_dir(self.site.dir.join("spool")).into_iter().flatten().flatten() {
            for note in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                if note.file_name().to_string_lossy().starts_with("away.") {
                    let _ = fs::remove_file(note.path());
                }
            }
        }
    }

    /// Waits until neither lacks anything of the other.
    fn wait_for_both(&self) {
        wait_for_within(LONG, "both to hold all", || {
            self.forget_away();
            self.site.server.switch_wal();
            self.site.server.archive_all();
            let status = |name| self.site.pitr(&["status", "--repository", name]).run_within(LONG).stdout;
            ["first", "bucket"].iter().all(|name| status(name).contains("has all WAL")).then_some(())
        });
    }

    /// A configuration that knows one of them alone.
    fn alone(&self, name: &str) -> PathBuf {
        let text = fs::read_to_string(self.site.config()).expect("the configuration");
        let (one, _) = text.split_once("[cluster.main.mirror").expect("there is a mirror");
        let one = one.replace("push_policy = 1", "").replace("/spool\"", &format!("/spool-{name}\""));
        self.site.dir.make_dir(format!("spool-{name}"));
        let one = match name {
            "bucket" => format!("{one}repository = \"s3://{BUCKET}/pg\"\n{}", in_bucket(&self.bucket)),
            _ => one,
        };
        self.site.dir.write(format!("{name}.toml"), one)
    }

    /// Restores from one of them alone and compares.
    fn check(&self, name: &str, number: usize, target: &[&str], expected: &[Row]) {
        let config = self.alone(name);
        let place = self.site.dir.join(format!("{name}-{number}"));
        let mut restore = self.site.dir.pitr("pitr");
        restore.arg("--config").arg(config).args(["restore", "--yes", "--target"]).arg(&place).args(target);
        restore.run_within(LONG).ok();
        let mut server = Server::adopt(&self.site.dir, &self.site.server.postgres, &format!("{name}-{number}"), &place);
        server.start();
        wait_for_within(LONG, "the restored server to open", || {
            (server.ask("SELECT pg_is_in_recovery()") == "f").then_some(())
        });
        let found = server.ask_all("SELECT n || ' ' || xmin FROM ledger ORDER BY n");
        let expected: Vec<String> = expected.iter().map(|row| format!("{} {}", row.n, row.xid)).collect();
        assert!(found == expected, "{name} {target:?}: {} rows of {}\n{}", found.len(), expected.len(), server.log());
        server.stop(Stop::Immediate);
    }
}

fn in_bucket(server: &S3Server) -> String {
    format!(
        "s3_endpoint = \"{}\"\ns3_credentials_file = \"{}\"\ns3_attempt_timeout = \"2s\"\ns3_call_timeout = \"4s\"\n",
        server.endpoint(),
        server.credentials_file().display()
    )
}

fn run(postgres: u32, rounds: usize, targets: usize) {
    let seed = seed();
    println!("ledger in two repositories on PostgreSQL {postgres}: PITR_TEST_SEED={seed}");
    let mut random = Random::new(seed ^ u64::from(postgres));
    let both = Both::new(postgres);
    let site = &both.site;
    let writer = Writer::start(&site.server, Duration::from_millis(1), PADDING_BYTES);
    writer.wait_for_more(ROWS);
    for name in ["first", "bucket"] {
        site.pitr(&["backup", "--repository", name]).run_within(LONG).ok();
    }
    let first = writer.rows().len();
    let (directory, unmounted) = (site.repository(), site.dir.join("unmounted"));
    let mut killed = 0;
    for round in 0..rounds {
        let away = [Some("first"), Some("bucket"), None][(round + random.between(0, 1)) % 3];
        println!("round {round}: away {away:?}");
        match away {
            Some("first") => {
                fs::rename(&directory, &unmounted).expect("moved");
                fs::create_dir(&directory).expect("an empty mount point");
            }
            Some(_) => both.bucket.faults.set_away(true),
            None => {}
        }
        writer.wait_for_more(ROWS / 2);
        let time = Duration::from_millis(random.between(500, 2500) as u64);
        killed += both.kill_pushes(&mut random, time);
        println!("round {round}: {killed} calls killed so far");
        writer.wait_for_more(ROWS / 2);
        both.bucket.faults.set_away(false);
        if away == Some("first") {
            fs::remove_dir(&directory).expect("still empty");
            fs::rename(&unmounted, &directory).expect("moved back");
        }
        if random.coin() {
            both.forget_away();
        }
    }
    writer.wait_for_more(ROWS);
    let rows = writer.stop();
    assert!(killed > 0, "some call was killed in the middle");
    both.wait_for_both();
    for name in ["first", "bucket"] {
        // The other one is gone for good.
        match name {
            "first" => both.bucket.faults.set_away(true),
            _ => {
                both.bucket.faults.set_away(false);
                fs::rename(&directory, &unmounted).expect("moved");
            }
        }
        both.check(name, 0, &["--to", "latest"], &rows);
        for number in 1..=targets {
            let row = random.between(first + 1, rows.len() - 2);
            both.check(name, number, &["--to-xid", &rows[row].xid.to_string()], &rows[..=row]);
        }
    }
}

/// Whichever of two repositories is left, it brings every acknowledged row back.
#[test]
fn in_two_repositories() {
    run(newest().major, 3, 1);
}

/// The same for longer, on every second major.
#[test]
#[ignore = "takes minutes: run by scripts/test --torture"]
fn long_in_two_repositories() {
    for postgres in majors().iter().step_by(2) {
        run(postgres.major, 12, 4);
    }
}
