//! The living cluster: what happens in it on a day, and the backup in the evening.

use std::time::Duration;

use serde_json::Value;

use super::contents::{self, Contents};
use super::failover::Changed;
use super::harness::{Options, Postgres, Random, Row, Run, Site, Stop, Writer};
use super::s3_server::S3Server;
use super::verbs::json;

/// Between two rows of the ledger.
const PAUSE: Duration = Duration::from_millis(3);
/// WAL that each of them brings along.
const PADDING_BYTES: usize = 500;

/// A cluster that archives, with a ledger that is written all the time.
pub struct Cluster {
    pub site: Site,
    pub settings: String,
    pub writer: Option<Writer>,
    /// How many things were made so far: names are never used twice.
    made: usize,
    /// How many backups were taken.
    backups: usize,
    _bucket: Option<S3Server>,
}

/// A backup, and what must come back from it.
pub struct Taken {
    pub id: String,
    /// The how manyth it was.
    pub number: usize,
    /// Where its tablespaces lay.
    pub locations: Vec<String>,
    pub contents: Contents,
    /// So many rows of the ledger were committed when it began.
    pub rows_before: usize,
    /// All rows when it had ended.
    pub rows: Vec<Row>,
}

impl Cluster {
    pub fn new(postgres: &Postgres, bucket: Option<S3Server>, random: &mut Random) -> Cluster {
        let settings = bucket.as_ref().map(S3Server::settings).unwrap_or_default();
        let mut options = Options::named("server-0").segment_size_mib(1).set("max_wal_senders", 8);
        if random.coin() {
            options = options.page_checksums();
        }
        let site = Site::with(postgres, options, &settings);
        let mut cluster = Cluster { site, settings, writer: None, made: 0, backups: 0, _bucket: bucket };
        for _ in 0..3 {
            let table = cluster.new_table(&[], random);
            cluster.run("postgres", &table);
        }
        cluster.begin_to_write();
        cluster
    }

    /// The ledger goes on, on the server that the site has now.
    pub fn begin_to_write(&mut self) {
        self.writer = Some(Writer::start(&self.site.server, PAUSE, PADDING_BYTES));
    }

    /// Nothing is written to the ledger any more; its rows.
    pub fn stop_writing(&mut self) -> Vec<Row> {
        self.writer.take().expect("it writes").stop()
    }

    /// A number that nothing has in its name yet.
    pub fn number(&mut self) -> usize {
        self.made += 1;
        self.made
    }

    /// A day: so many things happen.
    pub fn work(&mut self, events: usize, random: &mut Random) {
        if self.site.server.postgres.major >= 17 {
            let summaries = if random.between(1, 6) > 1 { "on" } else { "off" };
            println!("summarize_wal = {summaries}");
            self.site.server.configure("summarize_wal", summaries);
            self.site.server.reload();
        }
        for _ in 0..events {
            match random.between(1, 14) {
                1 => self.new_database(),
                2 => self.drop_database(random),
                3 => self.new_tablespace(random),
                4 => self.crash(random),
                _ => self.change(random),
            }
        }
    }

    /// Takes a backup in one of all ways; the first one on another timeline refers to those before.
    pub fn back_up(&mut self, changed: Option<&Changed>, random: &mut Random) -> Taken {
        let mut words = vec!["backup", "--json"];
        words.extend(["--source", if random.coin() { "local" } else { "protocol" }]);
        match random.between(1, 6) {
            1 if changed.is_none() && self.backups > 0 => words.push("--full"),
            2 => words.push("--full-read"),
            _ => {}
        }
        let contents = contents::of(&self.site.server);
        let locations = contents::tablespaces(&self.site.server).into_iter().map(|(_, location)| location).collect();
        let writer = self.writer.as_ref().expect("it writes");
        let rows_before = writer.rows().len();
        let finished = self.site.pitr(&words).run_within(Duration::from_secs(120)).ok();
        let info = json(&finished);
        writer.wait_for_more(1);
        let rows = writer.rows();
        let id = info["id"].as_str().expect("an id").to_owned();
        println!("{words:?}: {}", told(&info));
        let referenced = info["referenced_bytes"].as_u64().expect("a number");
        let alone = self.backups == 0 || words.contains(&"--full");
        assert_eq!((info["parent"].is_null(), referenced == 0), (alone, alone), "{info}");
        if let Some(Changed::TakenBack(to)) = changed {
            assert_eq!(info["parent"], to.as_str(), "later ones are of a future that is none any more: {info}");
        }
        let number = self.backups;
        self.backups += 1;
        Taken { id, number, locations, contents, rows_before, rows }
    }

    /// It was taken last.
    pub fn is_latest(&self, taken: &Taken) -> bool {
        taken.number + 1 == self.backups
    }

    fn run(&self, database: &str, statements: &[String]) {
        let mut client = contents::client(&self.site.server, database);
        for sql in statements {
            println!("{database}: {sql}");
            client.batch_execute(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        }
    }

    fn new_database(&mut self) {
        let known = contents::databases(&self.site.server).len();
        if known < 4 {
            let sql = format!("CREATE DATABASE d{}", self.number());
            self.run("postgres", &[sql]);
        }
    }

    fn drop_database(&mut self, random: &mut Random) {
        let known = contents::databases(&self.site.server);
        let database = &known[random.between(0, known.len() - 1)];
        if database != "postgres" {
            self.run("postgres", &[format!("DROP DATABASE {database}")]);
        }
    }

    fn new_tablespace(&mut self, random: &mut Random) {
        if contents::tablespaces(&self.site.server).len() < 3 {
            let name = format!("s{}", self.number());
            let location = self.site.dir.make_dir(&name);
            self.run("postgres", &[format!("CREATE TABLESPACE {name} LOCATION '{}'", location.display())]);
            let table = self.new_table(&[name], random);
            self.run("postgres", &table);
        }
    }

    /// An end without a checkpoint; the writer goes on when the server has recovered.
    fn crash(&mut self, random: &mut Random) {
        println!("a crash");
        match random.coin() {
            true => self.site.server.stop(Stop::Immediate),
            false => self.site.server.kill9(),
        }
        self.site.server.start();
    }

    /// Something happens in some database.
    fn change(&mut self, random: &mut Random) {
        let databases = contents::databases(&self.site.server);
        let database = &databases[random.between(0, databases.len() - 1)];
        let tables = contents::tables(&mut contents::client(&self.site.server, database));
        let tablespaces = contents::tablespaces(&self.site.server);
        let mut tablespaces: Vec<String> = tablespaces.into_iter().map(|(name, _)| name).collect();
        tablespaces.push("pg_default".to_owned());
        let kind = random.between(0, 11);
        if tables.is_empty() || kind == 0 {
            let sql = self.new_table(&tablespaces, random);
            return self.run(database, &sql);
        }
        let table = &tables[random.between(0, tables.len() - 1)];
        let tablespace = &tablespaces[random.between(0, tablespaces.len() - 1)];
        let (number, k) = (self.number(), random.between(2, 20));
        let sql = match kind {
            1 => format!("INSERT INTO {table} {}", rows(number, random)),
            2 | 3 => format!("UPDATE {table} SET round = {number}, fill = reverse(fill) WHERE n % {k} = 1"),
            4 => format!("DELETE FROM {table} WHERE n % {k} = 0"),
            5 => format!("DROP TABLE {table}"),
            6 => format!("TRUNCATE {table}"),
            7 => format!("VACUUM FULL {table}"),
            8 => format!("CREATE INDEX i{number} ON {table} (round, n) TABLESPACE {tablespace}"),
            9 => format!("ALTER TABLE {table} SET TABLESPACE {tablespace}"),
            10 => format!("VACUUM FREEZE {table}"),
            _ => format!("CREATE UNLOGGED TABLE u{number} AS SELECT * FROM {table}"),
        };
        self.run(database, &[sql]);
    }

    fn new_table(&mut self, tablespaces: &[String], random: &mut Random) -> Vec<String> {
        let number = self.number();
        let place = match tablespaces {
            [] => String::new(),
            _ => format!(" TABLESPACE {}", tablespaces[random.between(0, tablespaces.len() - 1)]),
        };
        vec![
            format!("CREATE TABLE t{number} (n int, round int, fill text) WITH (fillfactor = 80){place}"),
            format!("CREATE INDEX i{number} ON t{number} (n)"),
            format!("INSERT INTO t{number} {}", rows(number, random)),
        ]
    }
}

/// New rows of a table.
fn rows(number: usize, random: &mut Random) -> String {
    let count = random.between(100, 4000);
    format!(
        "SELECT n, {number}, (SELECT string_agg(md5(n || ':' || i || ':{number}'), '') FROM generate_series(1, 8) i) \
         FROM generate_series(1, {count}) n"
    )
}

/// What matters of a new backup, in a line.
fn told(info: &Value) -> String {
    let part = |name: &str| info[name].to_string();
    format!(
        "{} on timeline {}, refers to {} ({} of {} bytes), of what had changed: {}",
        part("id"),
        part("start_timeline"),
        part("parent"),
        part("referenced_bytes"),
        part("raw_bytes"),
        part("changed_only"),
    )
}
