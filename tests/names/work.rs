//! DDL of every kind, and what SQL says after each step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use pitr::wal::{Lsn, RelationFile};
use postgres::{Client, NoTls};

use super::harness::Site;

/// What SQL tells of one relation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Told {
    pub(super) database: String,
    pub(super) schema: String,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) temporary: bool,
    pub(super) toast_of: Option<(String, String)>,
}

/// What SQL tells at one moment.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) after: String,
    pub(super) lsn: Lsn,
    pub(super) files: BTreeMap<RelationFile, Told>,
    pub(super) databases: BTreeMap<u32, String>,
    /// Those that could be connected to.
    pub(super) looked_into: BTreeSet<u32>,
}

/// A server that is worked on.
pub(super) struct Work<'a> {
    site: &'a Site,
    looks: Vec<Look>,
}

impl<'a> Work<'a> {
    pub(super) fn new(site: &'a Site) -> Self {
        Work { site, looks: Vec::new() }
    }

    pub(super) fn looks(self) -> Vec<Look> {
        self.looks
    }

    pub(super) fn major(&self) -> u32 {
        self.site.server.postgres.major
    }

    pub(super) fn client(&self, database: &str) -> Client {
        let conninfo = self.site.server.conninfo().replace("dbname=postgres", &format!("dbname={database}"));
        Client::connect(&conninfo, NoTls).unwrap_or_else(|error| panic!("{database}: {error}"))
    }

    /// Runs statements in a database, each line a transaction of its own, and looks.
    pub(super) fn run(&mut self, database: &str, sql: &str) {
        let mut client = self.client(database);
        for line in sql.lines().map(str::trim).filter(|line| !line.is_empty()) {
            client.batch_execute(line).unwrap_or_else(|error| panic!("{line}: {error:?}"));
            self.look(&format!("{database}: {line}"));
        }
    }

    /// Asks SQL for all names.
    pub(super) fn look(&mut self, after: &str) {
        let names: Vec<String> =
            self.site.server.ask_all("SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'template0'");
        let mut look = Look {
            after: after.to_owned(),
            lsn: Lsn(0),
            files: BTreeMap::new(),
            databases: BTreeMap::new(),
            looked_into: BTreeSet::new(),
        };
        for name in names {
            let mut client = self.client(&name);
            let rows = client.query(QUERY, &[]).expect("pg_class can be read");
            for row in rows {
                let database: u32 = row.get(0);
                look.looked_into.insert(database);
                let shared: bool = row.get(5);
                let file = RelationFile {
                    tablespace: row.get(4),
                    database: if shared { 0 } else { database },
                    relation: row.get(3),
                };
                let owner: Option<String> = row.get(8);
                look.files.insert(
                    file,
                    Told {
                        database: name.clone(),
                        schema: row.get(1),
                        name: row.get(2),
                        kind: kind(row.get::<_, i8>(6)),
                        temporary: row.get(7),
                        toast_of: owner.map(|schema| (schema, row.get(9))),
                    },
                );
            }
        }
        let mut client = self.client("postgres");
        for row in client.query("SELECT oid, datname::text FROM pg_database", &[]).expect("databases") {
            look.databases.insert(row.get(0), row.get(1));
        }
        let lsn: String = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).expect("an LSN").get(0);
        look.lsn = lsn.parse().expect("an LSN");
        self.looks.push(look);
    }

    /// What is there before the backup.
    pub(super) fn prepare(&mut self) {
        let mut client = self.client("postgres");
        client.batch_execute(PREPARED).expect("it is made");
        client.batch_execute("CREATE DATABASE other").expect("it is made");
        self.client("other").batch_execute(PREPARED).expect("it is made");
        // Rolled back and not vacuumed: rows of nobody.
        client
            .batch_execute("BEGIN; ALTER TABLE orders RENAME TO nothing; CREATE TABLE never(i int); ROLLBACK")
            .expect("done");
        client.batch_execute("BEGIN; ALTER TABLE lines RENAME TO lined; PREPARE TRANSACTION 'before'").expect("done");
        client.batch_execute("VACUUM FULL pg_namespace").expect("done");
    }
}

const PREPARED: &str = "
    CREATE TABLE orders(id serial PRIMARY KEY, note text);
    CREATE TABLE lines(id int PRIMARY KEY, note text);
    CREATE SCHEMA shop; CREATE TABLE shop.carts(id int, note text);
    CREATE VIEW shop.v AS SELECT * FROM shop.carts;
    CREATE MATERIALIZED VIEW shop.mv AS SELECT count(*) FROM orders;
    CREATE TABLE \"Odd \"\"name\"(id int);
    INSERT INTO orders(note) SELECT repeat('x', 1000) FROM generate_series(1, 100);
";

const QUERY: &str = "
    SELECT d.oid, n.nspname::text, c.relname::text, pg_relation_filenode(c.oid),
           CASE WHEN c.relisshared THEN 1664::oid WHEN c.reltablespace = 0 THEN d.dattablespace ELSE c.reltablespace END,
           c.relisshared, c.relkind, c.relpersistence = 't', tn.nspname::text, t.relname::text
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_database d ON d.datname = current_database()
      LEFT JOIN pg_class t ON t.reltoastrelid = c.oid LEFT JOIN pg_namespace tn ON tn.oid = t.relnamespace
     WHERE pg_relation_filenode(c.oid) IS NOT NULL";

fn kind(relkind: i8) -> String {
    let name = match relkind as u8 {
        b'r' => "table",
        b'i' => "index",
        b'S' => "sequence",
        b't' => "TOAST table",
        b'm' => "materialized view",
        other => panic!("{} has a file", other as char),
    };
    name.to_owned()
}

/// A session that makes, renames and drops tables until it is dropped, some of them in vain.
pub(super) struct Churn {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Churn {
    pub(super) fn start(site: &Site, number: u32) -> Churn {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut client, seen) = (site.server.client(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for round in 0.. {
                let name = format!("churn_{number}_{round}");
                let end = if round % 3 == 0 { "ROLLBACK" } else { "COMMIT" };
                let steps = [
                    format!("CREATE TABLE {name}(i int, t text)"),
                    format!("BEGIN; ALTER TABLE {name} RENAME TO {name}_b; CREATE SCHEMA s_{name}; {end}"),
                    format!("BEGIN; SAVEPOINT a; DROP TABLE IF EXISTS {name}, {name}_b; ROLLBACK TO a; COMMIT"),
                    format!("DROP TABLE IF EXISTS {name}_b"),
                ];
                steps
                    .iter()
                    .for_each(|step| client.batch_execute(step).unwrap_or_else(|error| panic!("{step}: {error}")));
                if seen.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        Churn { stop, thread: Some(thread) }
    }
}

impl Drop for Churn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let outcome = self.thread.take().map(JoinHandle::join);
        assert!(outcome.is_none_or(|outcome| outcome.is_ok()) || std::thread::panicking(), "a session failed");
    }
}

/// DDL of every kind, with and without checkpoints between.
pub(super) fn ordinary(work: &mut Work<'_>, checkpoints: &str) {
    let checkpoint = if checkpoints == "fast" { "CHECKPOINT" } else { "" };
    work.run(
        "postgres",
        "
        CREATE TABLE a(i int PRIMARY KEY, t text)
        INSERT INTO a SELECT i, repeat('y', 3000) FROM generate_series(1, 50) i
        ALTER TABLE a RENAME TO b
        CREATE SCHEMA s1
        ALTER TABLE b SET SCHEMA s1
        ALTER SCHEMA s1 RENAME TO s2
        TRUNCATE s2.b
        VACUUM FULL s2.b
        CLUSTER s2.b USING a_pkey
        REINDEX TABLE s2.b
        ALTER TABLE s2.b ALTER COLUMN i TYPE bigint
        ANALYZE s2.b
        VACUUM pg_class
        VACUUM s2.b
    ",
    );
    work.run("postgres", checkpoint);
    work.run("postgres", "
        CREATE TABLE parts(i int, d date) PARTITION BY RANGE (i)
        CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10)
        CREATE TABLE parts2 PARTITION OF parts FOR VALUES FROM (10) TO (20)
        CREATE INDEX ON parts(d)
        ALTER TABLE parts DETACH PARTITION parts1
        ALTER INDEX parts_d_idx RENAME TO by_day
        CREATE SEQUENCE s2.seq
        ALTER SEQUENCE s2.seq RESTART WITH 7
        TRUNCATE orders RESTART IDENTITY
        REFRESH MATERIALIZED VIEW shop.mv
        CREATE TEMP TABLE temporary(i int, t text)
        CREATE TABLE moved AS SELECT * FROM s2.b
        BEGIN; DROP TABLE moved; CREATE TABLE moved(x int); COMMIT
        BEGIN; ALTER TABLE moved RENAME TO gone; DROP TABLE shop.carts CASCADE; ROLLBACK
        BEGIN; CREATE TABLE n1(i int); SAVEPOINT a; ALTER TABLE n1 RENAME TO n2; ROLLBACK TO a; CREATE TABLE n3(i int); COMMIT
        BEGIN; SAVEPOINT a; ALTER TABLE n1 RENAME TO n4; RELEASE a; SAVEPOINT b; ALTER TABLE n3 RENAME TO n5; COMMIT
        BEGIN; SAVEPOINT a; ALTER TABLE n4 RENAME TO never4; RELEASE a; ROLLBACK
        BEGIN; CREATE TABLE two(i int); SAVEPOINT a; ALTER TABLE n5 RENAME TO n6; RELEASE a; PREPARE TRANSACTION 'p1'
        BEGIN; CREATE TABLE three(i int); PREPARE TRANSACTION 'p2'
    ");
    work.run("postgres", checkpoint);
    work.run(
        "postgres",
        "
        COMMIT PREPARED 'p1'
        ROLLBACK PREPARED 'p2'
        COMMIT PREPARED 'before'
        DROP TABLE orders CASCADE
        DROP SCHEMA shop CASCADE
        CREATE ROLE owner
        CREATE TABLE owned(i int)
        ALTER TABLE owned OWNER TO owner
        DROP OWNED BY owner
        VACUUM FULL pg_class
        CREATE TABLE after_full(i int, t text)
        ALTER TABLE n6 RENAME TO n7
        DROP TABLE n4
        VACUUM FULL pg_namespace
        CREATE SCHEMA after_full
        ALTER SCHEMA s2 RENAME TO s3
        VACUUM FULL pg_database
        REINDEX TABLE pg_class
        CLUSTER pg_class USING pg_class_oid_index
        VACUUM pg_class
        ALTER TABLE after_full RENAME TO after_cluster
        VACUUM FULL
        GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC
        DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('CREATE TABLE many%s(i int, t text)', i); END LOOP; END $$
        DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('ALTER TABLE many%s RENAME TO more%s', i, i); END LOOP; END $$
        DO $$ BEGIN FOR i IN 1..250 LOOP EXECUTE format('DROP TABLE more%s', i); END LOOP; END $$
        VACUUM
    ",
    );
    work.run(
        "other",
        "
        ALTER TABLE orders RENAME TO other_orders
        CREATE TABLE only_here(i int PRIMARY KEY)
        VACUUM FULL pg_class
        DROP TABLE lines
        VACUUM
    ",
    );
    work.run(
        "postgres",
        "
        CREATE DATABASE third TEMPLATE other
        ALTER DATABASE third RENAME TO renamed
        CREATE DATABASE fourth
    ",
    );
    if work.major() >= 15 {
        work.run(
            "postgres",
            "
            CREATE DATABASE fifth TEMPLATE other STRATEGY file_copy
            CREATE DATABASE sixth TEMPLATE other STRATEGY wal_log
        ",
        );
        work.run("fifth", "ALTER TABLE other_orders RENAME TO fifth_orders");
        work.run("sixth", "ALTER TABLE other_orders RENAME TO sixth_orders");
    }
    work.run(
        "renamed",
        "
        DROP TABLE only_here
        CREATE TABLE in_renamed(i int)
        ALTER SCHEMA shop RENAME TO boutique
    ",
    );
    tablespaces(work);
    work.run(
        "postgres",
        "
        DROP DATABASE other
        DROP DATABASE fourth
    ",
    );
}

/// Relations and a database go to another tablespace and back.
fn tablespaces(work: &mut Work<'_>) {
    let side = work.site.dir.make_dir("side");
    work.run("postgres", &format!("CREATE TABLESPACE side LOCATION '{}'", side.display()));
    work.run(
        "postgres",
        "
        CREATE TABLE in_side(i int PRIMARY KEY, t text) TABLESPACE side
        ALTER TABLE s3.b SET TABLESPACE side
        ALTER INDEX s3.a_pkey SET TABLESPACE side
        ALTER TABLE s3.b RENAME TO b_in_side
        ALTER TABLE in_side SET TABLESPACE pg_default
        ALTER TABLE ALL IN TABLESPACE side SET TABLESPACE pg_default
        ALTER DATABASE fourth SET TABLESPACE side
        ALTER TABLESPACE side RENAME TO aside
    ",
    );
    work.run("fourth", "CREATE TABLE in_side(i int PRIMARY KEY)");
    work.run("postgres", "ALTER DATABASE fourth SET TABLESPACE pg_default");
    work.run("fourth", "DROP TABLE in_side");
}
