//! Work that makes a server write records of every kind that it has without extensions.

use std::path::Path;

use super::harness::{Run, Server, TestDir};

/// Runs each line of `sql` by itself.
pub(super) fn lines(server: &Server, sql: &str) {
    let mut client = server.client();
    for line in sql.lines().map(str::trim).filter(|line| !line.is_empty()) {
        client.batch_execute(line).unwrap_or_else(|error| panic!("{line}: {error:?}"));
    }
}

/// `pgbench`, its tables included.
pub(super) fn pgbench(server: &Server, transactions: u32) {
    server.tool("pgbench").args(["-i", "-q", "-s", "1"]).run().ok();
    server.tool("pgbench").args(["-n", "-c", "4", "-j", "2", "-t", &transactions.to_string()]).run().ok();
}

/// Everything there is.
pub(super) fn everything(server: &Server, dir: &TestDir) {
    lines(server, TABLES);
    lines(server, INDEXES);
    lines(server, TRANSACTIONS);
    lines(server, LONG);
    places(server, &dir.make_dir("space"));
    shared_locks(server);
    lines(server, REST);
}

/// Tables, rows and sequences.
const TABLES: &str = "
    CREATE TABLE plain(i int PRIMARY KEY, t text)
    INSERT INTO plain SELECT i, repeat(md5(i::text), 3) FROM generate_series(1, 2000) i
    UPDATE plain SET t = t || 'x' WHERE i % 3 = 0
    DELETE FROM plain WHERE i % 5 = 0
    INSERT INTO plain SELECT i, 'again' FROM generate_series(1, 50) i ON CONFLICT (i) DO UPDATE SET t = 'conflict'
    VACUUM (FREEZE) plain
    ALTER TABLE plain ADD COLUMN more int DEFAULT 7
    ALTER TABLE plain ALTER COLUMN more TYPE bigint
    CREATE TABLE toasted(i int, t text)
    ALTER TABLE toasted ALTER COLUMN t SET STORAGE EXTERNAL
    INSERT INTO toasted SELECT i, repeat(md5(i::text), 300) FROM generate_series(1, 30) i
    CREATE TABLE wide(i int, t text)
    ALTER TABLE wide ALTER COLUMN t SET STORAGE PLAIN
    ALTER TABLE wide REPLICA IDENTITY FULL
    INSERT INTO wide SELECT i, repeat(i::text, 7000 / length(i::text)) FROM generate_series(1, 60) i
    UPDATE wide SET t = reverse(t)
    CREATE TABLE parts(i int) PARTITION BY RANGE (i)
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (100)
    CREATE UNLOGGED TABLE unlogged AS SELECT * FROM plain
    CREATE INDEX ON unlogged(i)
    ALTER TABLE unlogged SET LOGGED
    CREATE TEMPORARY TABLE temporary AS SELECT 1
    CREATE MATERIALIZED VIEW seen AS SELECT * FROM plain
    REFRESH MATERIALIZED VIEW seen
    CREATE SEQUENCE counter CACHE 5
    SELECT nextval('counter') FROM generate_series(1, 100)
    SELECT setval('counter', 5000)
    ALTER SEQUENCE counter RESTART
    CREATE TYPE mood AS ENUM ('good', 'bad')
    CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'
    CREATE VIEW look AS SELECT one()
    CREATE SCHEMA house CREATE TABLE room(i int)
    ALTER TABLE house.room RENAME TO chamber
    TRUNCATE plain, wide
    TRUNCATE toasted RESTART IDENTITY
    VACUUM FULL toasted
    SELECT lo_create(4711)
    SELECT lo_put(4711, 0, decode(repeat('ab', 5000), 'hex'))
    SELECT lo_unlink(4711)
    COMMENT ON TABLE plain IS 'a table'
    ANALYZE
";

/// Every access method, with pages split and emptied.
const INDEXES: &str = "
    CREATE TABLE keys(i int, t text, p point, b box, a int[])
    CREATE INDEX keys_btree ON keys(t)
    CREATE INDEX keys_hash ON keys USING hash(i)
    CREATE INDEX keys_gin ON keys USING gin(a)
    CREATE INDEX keys_gist ON keys USING gist(b)
    CREATE INDEX keys_spgist_text ON keys USING spgist(t)
    CREATE INDEX keys_spgist_point ON keys USING spgist(p)
    CREATE INDEX keys_brin ON keys USING brin(i) WITH (pages_per_range = 1, autosummarize = off)
    INSERT INTO keys SELECT i, md5(i::text), point(i * 7919 % 1000, i), box(point(i % 100, i), point(i % 100 + 2, i + 2)), ARRAY[i % 50, i % 7, i] FROM generate_series(1, 3000) i
    SELECT gin_clean_pending_list('keys_gin')
    SELECT brin_summarize_new_values('keys_brin')
    SELECT brin_desummarize_range('keys_brin', 1)
    DELETE FROM keys WHERE i % 2 = 0
    DELETE FROM keys WHERE i BETWEEN 500 AND 2000
    VACUUM keys
    INSERT INTO keys SELECT i, md5(i::text), point(i, i), box(point(i, i), point(i, i)), ARRAY[i] FROM generate_series(1, 500) i
    CREATE INDEX keys_later ON keys USING gin(a)
    CREATE INDEX CONCURRENTLY keys_meanwhile ON keys(i, t)
    REINDEX TABLE keys
    CLUSTER keys USING keys_btree
    DROP INDEX keys_spgist_text
";

/// Ends of transactions.
const TRANSACTIONS: &str = "
    CREATE TABLE ends(i int)
    BEGIN; INSERT INTO ends VALUES (1); SAVEPOINT a; INSERT INTO ends VALUES (2); SAVEPOINT b; INSERT INTO ends VALUES (3); ROLLBACK TO a; COMMIT
    BEGIN; INSERT INTO ends VALUES (4); SAVEPOINT a; INSERT INTO ends VALUES (5); ROLLBACK
    DO $$ BEGIN FOR i IN 1..200 LOOP BEGIN INSERT INTO ends VALUES (i); EXCEPTION WHEN division_by_zero THEN NULL; END; END LOOP; END $$
    BEGIN; CREATE TABLE kept(i int); INSERT INTO kept VALUES (1); SAVEPOINT a; INSERT INTO kept VALUES (2); PREPARE TRANSACTION 'kept'
    COMMIT PREPARED 'kept'
    BEGIN; CREATE TABLE lost(i serial PRIMARY KEY, t text); PREPARE TRANSACTION 'lost'
    ROLLBACK PREPARED 'lost'
    BEGIN; DROP TABLE kept; PREPARE TRANSACTION 'dropped'
    COMMIT PREPARED 'dropped'
    BEGIN; CREATE TABLE never(i serial PRIMARY KEY, t text); ROLLBACK
    BEGIN; TRUNCATE ends; INSERT INTO ends VALUES (1); TRUNCATE ends; COMMIT
    SET synchronous_commit = off
    INSERT INTO ends VALUES (6)
    SET synchronous_commit = on
    SELECT pg_replication_origin_create('elsewhere')
    SELECT pg_replication_origin_session_setup('elsewhere')
    BEGIN; SELECT pg_replication_origin_xact_setup('0/1234ABCD', '2020-02-02 02:02:02.020202+00'); INSERT INTO ends VALUES (7); COMMIT
    BEGIN; DROP TABLE ends; CREATE TABLE ends(i int); COMMIT
    SELECT pg_replication_origin_session_reset()
    SELECT pg_replication_origin_drop('elsewhere')
    SELECT pg_create_restore_point('a mark')
";

/// Records over many pages: messages, commits that drop much, and copies of the pages beside their changes.
const LONG: &str = "
    SELECT pg_logical_emit_message(false, 'short', '')
    SELECT pg_logical_emit_message(true, 'long', repeat('x', 300000))
    SELECT pg_logical_emit_message(false, 'longer', repeat('y', 2000000))
    DO $$ BEGIN FOR i IN 1..150 LOOP EXECUTE format('CREATE TABLE many_%s(i serial PRIMARY KEY, t text)', i); END LOOP; END $$
    CREATE ROLE owner
    DO $$ BEGIN FOR i IN 1..75 LOOP EXECUTE format('ALTER TABLE many_%s OWNER TO owner', i); END LOOP; END $$
    DROP OWNED BY owner
    DO $$ BEGIN FOR i IN 76..150 LOOP EXECUTE format('DROP TABLE many_%s', i); END LOOP; END $$
    DROP ROLE owner
    CREATE TABLE columns AS SELECT 1 AS i
    DO $$ BEGIN FOR i IN 1..900 LOOP EXECUTE format('ALTER TABLE columns ADD COLUMN c%s int', i); END LOOP; END $$
    INSERT INTO columns SELECT 2 FROM generate_series(1, 10)
    CREATE TABLE checked(i int PRIMARY KEY, t text)
    SET wal_consistency_checking = 'all'
    INSERT INTO checked SELECT i, repeat('c', 100) FROM generate_series(1, 40) i
    INSERT INTO keys SELECT i, md5(i::text), point(i, i), box(point(i, i), point(i, i)), ARRAY[i] FROM generate_series(1, 40) i
    UPDATE checked SET t = 'd'
    RESET wal_consistency_checking
    DROP TABLE checked
";

/// The catalogs themselves, and the server's own records.
const REST: &str = "
    VACUUM FULL pg_class
    VACUUM FULL pg_database
    REINDEX TABLE pg_type
    VACUUM
    SELECT pg_backup_start('a backup', true)
    UPDATE keys SET i = i - 1
    SELECT pg_backup_stop(false)
    CHECKPOINT
    UPDATE keys SET i = i + 1
    SELECT txid_current()
";

/// Tablespaces, and databases made in both ways.
fn places(server: &Server, space: &Path) {
    lines(server, &format!("CREATE TABLESPACE space LOCATION '{}'", space.display()));
    lines(
        server,
        "
        CREATE TABLE there(i int PRIMARY KEY, t text) TABLESPACE space
        INSERT INTO there SELECT i, 'there' FROM generate_series(1, 500) i
        ALTER TABLE keys SET TABLESPACE space
        ALTER TABLE keys SET TABLESPACE pg_default
        CREATE DATABASE logged STRATEGY wal_log
        CREATE DATABASE copied STRATEGY file_copy
        ALTER DATABASE copied SET TABLESPACE space
        ALTER DATABASE logged RENAME TO renamed
        DROP DATABASE renamed
        DROP DATABASE copied
        DROP TABLE there
        DROP TABLESPACE space
        ",
    );
}

/// Rows that several transactions hold: multixacts.
fn shared_locks(server: &Server) {
    let (mut one, mut two) = (server.client(), server.client());
    lines(server, "CREATE TABLE shared(i int PRIMARY KEY)\nINSERT INTO shared SELECT generate_series(1, 20)");
    for client in [&mut one, &mut two] {
        client.batch_execute("BEGIN; SELECT * FROM shared FOR KEY SHARE").expect("rows can be shared");
    }
    two.batch_execute("UPDATE shared SET i = i WHERE i = 1; COMMIT").expect("a row can be updated");
    one.batch_execute("COMMIT").expect("the rows are let go");
}
