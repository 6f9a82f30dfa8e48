//! Base backups of real servers: what is stored is what the server has, and what is not whole does not count.

mod harness;

#[path = "backup/broken_off.rs"]
mod broken_off;
#[path = "backup/compared.rs"]
mod compared;
#[path = "backup/contents.rs"]
mod contents;
#[path = "backup/local.rs"]
mod local;
#[path = "backup/pages.rs"]
mod pages;
#[path = "backup/promoted.rs"]
mod promoted;
#[path = "backup/references.rs"]
mod references;
#[path = "backup/slow.rs"]
mod slow;
#[path = "backup/together.rs"]
mod together;
#[path = "backup/unpacked.rs"]
mod unpacked;
#[path = "backup/unread.rs"]
mod unread;
#[path = "keeping/verbs.rs"]
mod verbs;
#[path = "backup/wal.rs"]
mod wal;

use harness::Server;

/// Rows of several tables and files: enough for every fork, for chunks that are full, short and zero.
fn fill(server: &Server) {
    server.run("CREATE TABLE word AS SELECT 'apple'::text AS word");
    server.run("CREATE TABLE big AS SELECT n, repeat(md5(n::text), 8) AS text FROM generate_series(1, 20000) n");
    server.run("CREATE INDEX ON big (n); CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS n");
    server.run("VACUUM big");
}

/// A copy that recovered has what [`fill`] made.
fn judge(copy: &Server) {
    assert_eq!(copy.ask("SELECT word FROM word"), "apple");
    assert_eq!(copy.ask("SELECT count(*) FROM big WHERE n > 0"), "20000");
    assert_eq!(copy.ask("SELECT count(*) FROM fleeting"), "0", "unlogged tables come back empty");
}
