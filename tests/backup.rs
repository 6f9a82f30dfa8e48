//! Base backups of real servers: what is stored is what the server has, and what is not whole does not count.

mod harness;

#[path = "backup/unpacked.rs"]
mod unpacked;

use harness::{Options, Server, Site, majors};
use unpacked::{Unpacked, only_backup};

/// Rows of several tables and files: enough for every fork, for chunks that are full, short and zero.
fn fill(server: &Server) {
    server.run("CREATE TABLE word AS SELECT 'apple'::text AS word");
    server.run("CREATE TABLE big AS SELECT n, repeat(md5(n::text), 8) AS text FROM generate_series(1, 20000) n");
    server.run("CREATE INDEX ON big (n); CREATE UNLOGGED TABLE fleeting AS SELECT 1 AS n");
    server.run("VACUUM big");
}

/// Promise: on every major, the backup holds every byte that the server sent, its own verification tool agrees, and a server
/// started from it with the archived WAL has the rows.
#[test]
fn every_major_backs_up_and_comes_back() {
    for postgres in majors() {
        let site = Site::with(&postgres, Options::default().page_checksums(), "");
        fill(&site.server);
        let finished = site.backup();
        assert!(finished.stdout.contains("is complete"), "{}", finished.stdout);
        let info = only_backup(&site);
        assert_eq!((info.postgres_major.0, info.bad_pages), (postgres.major as u16, 0));
        let unpacked = Unpacked::of(&site, info.id, "copy");
        unpacked.verify(&postgres);
        let mut copy = unpacked.start(&site, &postgres);
        assert_eq!(copy.ask("SELECT word FROM word"), "apple");
        assert_eq!(copy.ask("SELECT count(*) FROM big"), "20000");
        assert_eq!(copy.ask("SELECT count(*) FROM fleeting"), "0", "unlogged tables come back empty");
        copy.stop(harness::Stop::Fast);
    }
}
