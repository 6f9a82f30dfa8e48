//! WAL streams: the bytes are the server's own, timelines end where they end, and positions are reported.

use std::time::{Duration, Instant};

use pitr::replication::{ReplicationError, StreamEvent, WalStream};
use pitr::wal::{Lsn, TimelineId};

use crate::harness::{Options, PATIENCE, Server, Stop, TestDir, majors, newest, wait_for};
use crate::physical;

const MIB: u64 = 1 << 20;

/// Takes WAL until `end` is reached.
fn collect(stream: &mut WalStream<'_>, end: Lsn) -> Vec<u8> {
    let begun = Instant::now();
    let mut wal = Vec::new();
    while stream.position() < end {
        assert!(begun.elapsed() < PATIENCE, "no WAL up to {end}, only to {}", stream.position());
        match stream.next().expect("the stream goes on") {
            StreamEvent::Data { bytes, .. } => wal.extend_from_slice(&bytes),
            StreamEvent::Keepalive { .. } | StreamEvent::Idle => {}
            StreamEvent::EndOfTimeline { .. } => panic!("the timeline has not ended"),
        }
    }
    wal
}

fn lsn(server: &Server, sql: &str) -> Lsn {
    server.ask(sql).parse().expect("an LSN")
}

/// Promise: streamed bytes equal the segment on the server's disk, the slot follows what was reported as flushed, and
/// after a clean stop the session can be used again; on every major.
#[test]
fn bytes_are_the_servers_own() {
    for postgres in majors() {
        let dir = TestDir::new();
        let server = Server::running(&dir, &postgres, &Options::default().segment_size_mib(1));
        let mut session = physical(&server);
        session.create_temporary_slot("pitr_test").unwrap();
        let segment = server.switch_wal();
        server.run("CREATE TABLE t AS SELECT generate_series(1, 100)");
        let start = Lsn(lsn(&server, "SELECT pg_current_wal_lsn()").0 / MIB * MIB - MIB);
        let mut stream = WalStream::start(&mut session, Some("pitr_test"), start, TimelineId::FIRST).unwrap();
        let wal = collect(&mut stream, Lsn(start.0 + MIB));
        let on_disk = std::fs::read(server.data_dir().join("pg_wal").join(&segment)).unwrap();
        assert_eq!(wal[..on_disk.len()], on_disk, "{segment} of PostgreSQL {}", postgres.major);

        let flushed = Lsn(start.0 + MIB);
        stream.set_flushed(flushed);
        stream.report().unwrap();
        wait_for("the slot to follow", || {
            let slot = "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'pitr_test'";
            (lsn(&server, slot) == flushed).then_some(())
        });
        stream.stop().unwrap();
        session.identify_system().expect("the session can be used again");
        drop(session);
        wait_for("the temporary slot to go", || {
            (server.ask("SELECT count(*) FROM pg_replication_slots") == "0").then_some(())
        });
    }
}

/// Promise: where a timeline ends, the stream says which one goes on and where, while streaming and from its end; and
/// streaming goes on there in the same session.
#[test]
fn a_timeline_ends() {
    for postgres in majors() {
        let dir = TestDir::new();
        let primary = Server::running(&dir, &postgres, &Options::default().segment_size_mib(1));
        let mut standby = Server::standby_of(&dir, &primary, "standby", None);
        standby.start();
        let mut session = physical(&standby);
        let start = Lsn(lsn(&primary, "SELECT pg_current_wal_lsn()").0 / MIB * MIB);
        let mut stream = WalStream::start(&mut session, None, start, TimelineId::FIRST).unwrap();
        primary.run("CREATE TABLE t AS SELECT generate_series(1, 100)");
        let position = lsn(&primary, "SELECT pg_current_wal_lsn()");
        collect(&mut stream, position);
        standby.promote();
        let (next, switch) = loop {
            if let StreamEvent::EndOfTimeline { next, switch } = stream.next().unwrap() {
                break (next, switch);
            }
        };
        assert_eq!((next, switch), (TimelineId(2), stream.position()));
        assert!(matches!(stream.next(), Ok(StreamEvent::EndOfTimeline { .. })), "it stays ended");
        drop(stream);
        let history = session.timeline_history(next).unwrap();
        assert_eq!(history.name, "00000002.history");
        let text = String::from_utf8(history.content).unwrap();
        assert!(text.starts_with(&format!("1\t{switch}\t")), "{text}");

        // From the very end of the old timeline there is nothing to stream.
        let mut stream = WalStream::start(&mut session, None, switch, TimelineId::FIRST).unwrap();
        assert_eq!(stream.next().unwrap(), StreamEvent::EndOfTimeline { next, switch });
        stream.stop().unwrap();
        standby.run("INSERT INTO t VALUES (7)");
        let mut stream = WalStream::start(&mut session, None, switch, next).unwrap();
        let position = lsn(&standby, "SELECT pg_current_wal_lsn()");
        collect(&mut stream, position);
    }
}

/// Promise: an idle stream comes back every second, is not taken for a dead one, and a server that stops is told apart
/// from one that is silent.
#[test]
fn idle_and_stopped_servers() {
    let dir = TestDir::new();
    // The server says nothing by itself, and the standby that is silent is never given up.
    let mut server = Server::running(&dir, &newest(), &Options::default().set("wal_sender_timeout", "0"));
    let mut session = physical(&server);
    session.set_silence(Duration::from_secs(3));
    let start = session.identify_system().unwrap().flushed;
    let mut stream = WalStream::start(&mut session, None, start, TimelineId::FIRST).unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(5) {
        let event = stream.next().expect("asked, the server answers");
        assert!(!matches!(event, StreamEvent::EndOfTimeline { .. }));
    }
    // A server that stops waits until its last WAL is reported as flushed.
    std::thread::scope(|scope| {
        scope.spawn(|| server.stop(Stop::Fast));
        let error = loop {
            match stream.next() {
                Ok(_) => stream.set_flushed(stream.position()),
                Err(error) => break error,
            }
            assert!(begun.elapsed() < PATIENCE, "the server should have stopped");
        };
        assert!(matches!(error, ReplicationError::Closed { .. }), "{error}");
    });
}

/// Promise: WAL that the server no longer has, or never had, is its error and no hang.
#[test]
fn wal_that_is_not_there() {
    let dir = TestDir::new();
    let server = Server::running(&dir, &newest(), &Options::default());
    let mut session = physical(&server);
    for (start, timeline) in [(Lsn(1 << 40), TimelineId::FIRST), (Lsn(16 * MIB), TimelineId(9))] {
        let started = WalStream::start(&mut session, None, start, timeline);
        let error = started.and_then(|mut stream| stream.next()).expect_err("no such WAL");
        assert!(matches!(error, ReplicationError::Server(_)), "{error}");
    }
    session.identify_system().expect("the session can be used again");
}
