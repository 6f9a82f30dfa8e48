//! Clusters that lived, each in its own way, and the rows that they committed.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::harness::{Options, Postgres, Random, Row, Server, Site, Stop, Writer, wait_for};

/// WAL that each row brings along, so that segments of 1 MiB fill by themselves.
const PADDING_BYTES: usize = 6000;
/// Rows between two of the things that happen.
const ROWS: usize = 45;

/// A line of history.
pub struct Branch {
    pub timeline: u32,
    /// All rows that exist at its end, in commit order.
    pub rows: Vec<Row>,
    /// How many of them it shares with its parent; `0` for the first.
    pub shared: usize,
}

/// What was written, and the site that it was written at.
pub struct History {
    pub name: &'static str,
    pub site: Site,
    pub branches: Vec<Branch>,
    /// Names of restore points that were made.
    pub names: Vec<String>,
    /// Data directories as each backup's restore lays them out.
    pub bases: RefCell<BTreeMap<String, Option<PathBuf>>>,
    _second: Option<Server>,
}

impl History {
    fn new(name: &'static str, site: Site, rows: Vec<Row>) -> History {
        let one = Branch { timeline: 1, rows, shared: 0 };
        History {
            name,
            site,
            branches: vec![one],
            names: vec!["first".into(), "second".into()],
            bases: RefCell::default(),
            _second: None,
        }
    }

    /// The rows of all branches.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.branches.iter().flat_map(|branch| &branch.rows[branch.shared..])
    }
}

fn site(postgres: &Postgres) -> Site {
    Site::with(postgres, Options::default().segment_size_mib(1).set("autovacuum", "off"), "")
}

/// ```text
/// rows -- backup A -- rows -- rp "first" -- rows -- backup B -- rows -- rp "second" -- rows -- end
/// ```
pub fn busy(postgres: &Postgres, _: &mut Random) -> History {
    let (site, rows, _) = lived(postgres);
    History::new("busy", site, rows)
}

/// Such a life: the site, the rows, and one of the rows behind the first switch and behind the second backup.
fn lived(postgres: &Postgres) -> (Site, Vec<Row>, [Row; 2]) {
    let site = site(postgres);
    let writer = Writer::start(&site.server, Duration::from_millis(1), PADDING_BYTES);
    // Not compressed: the rows fill segments, and records lie across their borders.
    site.server.run("ALTER TABLE ledger ALTER note SET STORAGE EXTERNAL");
    writer.wait_for_more(ROWS);
    site.backup();
    writer.wait_for_more(ROWS);
    restore_point(&site.server, "first");
    site.server.switch_wal();
    let one = writer.wait_for_more(ROWS);
    site.backup();
    let two = writer.wait_for_more(ROWS);
    restore_point(&site.server, "second");
    site.server.switch_wal();
    writer.wait_for_more(ROWS / 2);
    let rows = writer.stop();
    site.server.archive_all();
    (site, rows, [one, two])
}

/// Few rows, and checkpoints between them: most times lie where nothing was committed, also behind the last row.
pub fn quiet(postgres: &Postgres, _: &mut Random) -> History {
    let site = site(postgres);
    let mut rows = Vec::new();
    few_rows(&site.server, &mut rows);
    site.backup();
    few_rows(&site.server, &mut rows);
    restore_point(&site.server, "first");
    pause();
    site.server.run("CHECKPOINT");
    site.backup();
    few_rows(&site.server, &mut rows);
    restore_point(&site.server, "second");
    pause();
    site.server.run("SELECT pg_logical_emit_message(false, 'test', 'idle')");
    site.server.run("CHECKPOINT");
    pause();
    site.server.archive_all();
    History::new("quiet", site, rows)
}

/// As the busy one, with a segment missing between the backups and one behind the second.
pub fn gapped(postgres: &Postgres, _: &mut Random) -> History {
    let (site, rows, lost) = lived(postgres);
    for row in lost {
        let segment = format!("{:08X}{:08X}{:08X}", 1, 0, row.lsn_after >> 20);
        std::fs::remove_file(site.stored_path(&segment)).expect("the segment can be lost");
    }
    History::new("gapped", site, rows)
}

/// A restore in the middle takes over, on a second timeline, with a backup of its own.
pub fn forked(postgres: &Postgres, random: &mut Random) -> History {
    let (site, rows, [after_backup, _]) = lived(postgres);
    let mut history = History::new("forked", site, rows);
    history.site.server.stop(Stop::Fast);
    let one = &history.branches[0].rows;
    let begin = one.iter().position(|row| row.n == after_backup.n).expect("a row of this history");
    let fork = random.between(begin, one.len() - 10);
    let xid = one[fork].xid.to_string();
    let mut second = history.site.restore("second", &["--to-xid", &xid, "--take-over"]);
    second.start();
    wait_for("the restored server to open", || (second.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
    let writer = Writer::start(&second, Duration::from_millis(1), PADDING_BYTES + 8);
    assert_eq!(writer.rows().len(), fork + 1, "the second timeline begins with the rows up to its fork");
    writer.wait_for_more(ROWS);
    let mut backup = history.site.pitr(&["backup"]);
    backup.env("PITR_CONNINFO", second.conninfo());
    super::harness::Run::run_within(&mut backup, Duration::from_secs(120)).ok();
    writer.wait_for_more(ROWS);
    restore_point(&second, "third");
    let mut rows = writer.stop();
    second.archive_all();
    // What was noted of the shared rows on the first timeline holds here too.
    rows[..=fork].copy_from_slice(&one[..=fork]);
    second.stop(Stop::Fast);
    history.branches.push(Branch { timeline: 2, rows, shared: fork + 1 });
    history.names.push("third".into());
    history._second = Some(second);
    history
}

/// The server's clock is set back by seconds and later forward by more: the same times come twice, and some never.
pub fn clock_stepped(postgres: &Postgres, _: &mut Random) -> History {
    let mut site = site(postgres);
    let mut rows = Vec::new();
    for (offset_s, backup, name) in
        [(0, true, Some("first")), (-3, false, None), (-2, true, Some("second")), (90, false, None)]
    {
        site.server.stop(Stop::Fast);
        site.server.set_clock(offset_s);
        site.server.start();
        let writer = Writer::start(&site.server, Duration::from_millis(1), PADDING_BYTES);
        writer.wait_for_more(ROWS / 2);
        if backup {
            site.backup();
        }
        writer.wait_for_more(ROWS / 2);
        if let Some(name) = name {
            restore_point(&site.server, name);
        }
        add_new(writer, &mut rows);
    }
    site.server.archive_all();
    History::new("clock-stepped", site, rows)
}

/// Three more rows, a while apart.
fn few_rows(server: &Server, rows: &mut Vec<Row>) {
    let writer = Writer::start(server, Duration::from_millis(30), PADDING_BYTES);
    writer.wait_for_more(3);
    add_new(writer, rows);
}

/// Takes the rows that are new: of those before it, a writer that begins anew does not know where they ended.
fn add_new(writer: Writer, rows: &mut Vec<Row>) {
    let seen = writer.stop();
    rows.extend_from_slice(&seen[rows.len()..]);
}

fn pause() {
    // A checkpoint's time is cut to the second.
    std::thread::sleep(Duration::from_millis(1200));
}

fn restore_point(server: &Server, name: &str) {
    server.run(&format!("SELECT pg_create_restore_point('{name}')"));
}
