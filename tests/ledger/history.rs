//! One cluster's life: two backups, a crash, a restore that takes over on a second timeline, and every row of it noted.

use std::time::Duration;

use super::harness::{Options, Postgres, Random, Row, Server, Site, Stop, Writer, wait_for};
use super::targets::Target;

/// Rows between two of the things that happen.
const ROWS: usize = 60;
/// WAL that each row brings along, so that segments of 1 MiB fill by themselves.
const PADDING_BYTES: usize = 6000;

/// A restore point, and how many rows were committed when it was made.
#[derive(Debug, Clone)]
pub struct RestorePoint {
    pub name: String,
    pub rows: usize,
}

/// A line of history: all rows that exist at its end, in commit order.
#[derive(Debug, Clone)]
pub struct Branch {
    pub timeline: u32,
    pub rows: Vec<Row>,
    /// The first row that can be asked for: those before it were committed before the branch's first usable backup ended.
    pub first: usize,
    /// How many of the rows it shares with its parent.
    pub shared: usize,
    pub restore_points: Vec<RestorePoint>,
}

/// What was written, and the site that it was written at.
pub struct History {
    pub site: Site,
    pub branches: Vec<Branch>,
    _second: Server,
}

impl History {
    /// Lives through it; `settings` say where the repository is, if not in the usual directory.
    ///
    /// ```text
    /// timeline 1:  backup A -- rows -- rp1 -- kill -9 -- rows -- rp2 -- backup B -- rows -- end
    ///                                            \ a moment between, chosen at random
    /// timeline 2:                                 \-- rows -- backup C -- rows -- rp3 -- rows -- end
    /// ```
    pub fn write(postgres: &Postgres, random: &mut Random, settings: &str) -> History {
        let options = Options::default().segment_size_mib(1).set("autovacuum", "off");
        let mut site = Site::with(postgres, options, settings);
        let writer = Writer::start(&site.server, Duration::from_millis(1), PADDING_BYTES);
        writer.wait_for_more(ROWS / 2);
        site.backup();
        let first = writer.rows().len();
        writer.wait_for_more(ROWS);
        let mut restore_points = vec![restore_point(&site.server, "first")];
        writer.wait_for_more(ROWS / 2);
        site.server.kill9();
        site.server.start();
        writer.wait_for_more(ROWS);
        restore_points.push(restore_point(&site.server, "second"));
        site.backup();
        writer.wait_for_more(ROWS);
        let rows = writer.stop();
        site.server.archive_all();
        // The old primary is gone when the new one begins: both would write timelines into one archive otherwise.
        site.server.stop(Stop::Fast);
        let one = Branch { timeline: 1, rows, first, shared: 0, restore_points };

        let fork = random.between(first + 1, one.rows.len() - 2);
        let target = Target::Xid { timeline: None, row: fork, inclusive: true };
        let mut second = restore(&site, "second", &target, &one, &["--take-over"]);
        second.start();
        wait_for("the restored server to open", || (second.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
        let two = second_branch(&site, &second, &one, fork);
        second.stop(Stop::Fast);
        History { site, branches: vec![one, two], _second: second }
    }

    /// Restores to a target and compares what SQL shows with what was noted.
    pub fn check(&self, number: usize, target: &Target) {
        let branch = self.branch_of(target);
        let mut server = restore(&self.site, &format!("restored-{number}"), target, branch, &[]);
        server.start();
        wait_for("the restored server to open", || (server.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
        let query = "SELECT n || ' ' || xmin FROM ledger ORDER BY n";
        let found = server.ask_all(query);
        let expected: Vec<String> =
            branch.rows[..target.expected_rows(branch)].iter().map(|row| format!("{} {}", row.n, row.xid)).collect();
        assert!(
            found == expected,
            "{target:?}: {} rows with {:?} last, expected {} with {:?} last; the log:\n{}",
            found.len(),
            found.last(),
            expected.len(),
            expected.last(),
            server.log(),
        );
        assert_eq!(server.ask("SHOW archive_mode"), "off", "a restore is a clone unless it takes over");
        server.stop(Stop::Immediate);
        std::fs::remove_dir_all(server.data_dir()).expect("the restored cluster can be removed");
    }

    /// The branch whose rows a target is about.
    fn branch_of(&self, target: &Target) -> &Branch {
        let timeline = target.timeline().unwrap_or(2);
        self.branches.iter().find(|branch| branch.timeline == timeline).expect("a timeline of this history")
    }
}

fn second_branch(site: &Site, second: &Server, one: &Branch, fork: usize) -> Branch {
    let writer = Writer::start(second, Duration::from_millis(1), PADDING_BYTES + 8);
    assert_eq!(writer.rows().len(), fork + 1, "the second timeline begins with the rows up to its fork");
    writer.wait_for_more(ROWS);
    let conninfo = second.conninfo();
    let mut backup = site.pitr(&["backup"]);
    backup.env("PITR_CONNINFO", conninfo);
    super::harness::Run::run_within(&mut backup, Duration::from_secs(120)).ok();
    writer.wait_for_more(ROWS);
    let restore_points = vec![restore_point(second, "third")];
    writer.wait_for_more(ROWS / 2);
    let mut rows = writer.stop();
    second.archive_all();
    // What was noted of the shared rows on the first timeline holds here too.
    rows[..=fork].copy_from_slice(&one.rows[..=fork]);
    let shared_points = one.restore_points.iter().filter(|point| point.rows <= fork + 1).cloned();
    let restore_points = shared_points.chain(restore_points).collect();
    Branch { timeline: 2, rows, first: one.first, shared: fork + 1, restore_points }
}

/// Makes a restore point while no row is being written, so that it is known which ones come before it.
fn restore_point(server: &Server, name: &str) -> RestorePoint {
    let mut client = server.client();
    let mut transaction = client.transaction().expect("a transaction begins");
    transaction.batch_execute("LOCK TABLE ledger IN EXCLUSIVE MODE").expect("the writer pauses");
    let rows: i64 = transaction.query_one("SELECT count(*) FROM ledger", &[]).expect("rows are counted").get(0);
    transaction.query("SELECT pg_create_restore_point($1)", &[&name]).expect("a restore point is made");
    transaction.commit().expect("the writer goes on");
    RestorePoint { name: name.to_owned(), rows: usize::try_from(rows).expect("a count") }
}

/// Restores to a target into a new directory; the server is not started yet.
fn restore(site: &Site, name: &str, target: &Target, branch: &Branch, more: &[&str]) -> Server {
    let words = target.words(branch);
    let words: Vec<&str> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
    site.restore(name, &words)
}
