//! What we read from WAL is what the server did: real servers of every major are the judge, and `pg_waldump` where it
//! exists for the major.
//!
//! `PITR_WRITE_FIXTURES=DIR` keeps what the servers wrote, with the truth as SQL tells it, as fixtures for the unit tests.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use harness::{Options, Postgres, Run, Server, Stop, TestDir, as_test_user, majors};
use pitr::wal::{
    Borders, Completeness, ControlFile, Event, EventKind, Joined, Lsn, PostgresMajor, SegmentEnding, SegmentName,
    SegmentScan, TimelineHistory, TimelineId, WalFileName, check_segment_header, scan_segment,
};
use postgres::Client;

const SEGMENT: u64 = 1 << 20;

/// A server with small segments that writes no page images, so that records and not pages fill the WAL.
fn server(dir: &TestDir, postgres: &Postgres, archive: &Path) -> Server {
    let options = Options::default()
        .segment_size_mib(1)
        .archive_command(&format!("cp %p {}/%f", archive.display()))
        .set("full_page_writes", "off")
        .set("autovacuum", "off")
        .set("bgwriter_lru_maxpages", 0)
        .set("max_prepared_transactions", 7);
    Server::running(dir, postgres, &options)
}

/// Archived segments from `first` on, in order.
fn archived(archive: &Path, first: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(archive).expect("the archive is there").map(|entry| entry.expect("an entry").path());
    let mut segments: Vec<_> = names
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            matches!(name.parse(), Ok(WalFileName::Segment(_))) && name >= first
        })
        .collect();
    segments.sort();
    segments
}

fn scan(path: &Path, completeness: Completeness) -> (PostgresMajor, SegmentScan) {
    let raw = fs::read(path).expect("the segment can be read");
    let file = path.file_name().and_then(|name| name.to_str()).expect("a plain name");
    let name: SegmentName = file[..24].parse().expect("a segment's name");
    let header = check_segment_header(&raw, name, raw.len() as u64).expect("the header fits the name");
    (header.major, scan_segment(&raw, &header, completeness))
}

/// All events of consecutive segments, those over borders too. Nothing may be damaged or unproved on the way.
fn events(paths: &[PathBuf], endings: &mut Vec<SegmentEnding>) -> Vec<Event> {
    let mut borders = Borders::new();
    let mut all = Vec::new();
    for (at, path) in paths.iter().enumerate() {
        let (major, scan) = scan(path, Completeness::Complete);
        assert_eq!((scan.damage, scan.unread), (None, 0), "{}", path.display());
        let whole_segment = scan.head.as_ref().is_some_and(|head| !head.is_last());
        match borders.pass(scan.head, scan.tail, major) {
            Joined::Nothing => {}
            Joined::Proved { event, .. } => all.extend(event),
            Joined::Incomplete => assert!(at == 0 || whole_segment, "{}", path.display()),
            other => panic!("{}: {other:?}", path.display()),
        }
        all.extend(scan.events);
        endings.push(scan.facts.ending);
    }
    assert!(all.windows(2).all(|pair| pair[0].end_lsn <= pair[1].lsn), "events come in LSN order, each once");
    all
}

/// Writes messages until the next record begins exactly `left` bytes before the segment's end.
fn fill_segment(client: &mut Client, left: u64) {
    loop {
        let at = insert_position(client);
        let rest = SEGMENT - at.0 % SEGMENT;
        let room = rest.saturating_sub(left);
        if rest > 8168 {
            // Up to the last page's beginning, page headers and the record's own left out.
            let text = rest - 2000 - rest / 8192 * 24;
            emit(client, text);
        } else if room >= 400 {
            // Header 24, main data header 5, the message's header 24, its prefix 2.
            emit(client, room - 55);
            return;
        } else {
            emit(client, rest);
        }
    }
}

fn insert_position(client: &mut Client) -> Lsn {
    let row = client.query_one("SELECT pg_current_wal_insert_lsn()::text", &[]).expect("a position");
    row.get::<_, String>(0).parse().expect("an LSN")
}

fn emit(client: &mut Client, bytes: u64) {
    let sql = format!("SELECT pg_logical_emit_message(false, 'f', repeat('x', {bytes}))");
    client.batch_execute(&sql).expect("a message is written");
}

/// Ends of transactions as the server tells: xid, and the commit's time in µs since 2000 (none for an abort).
type Truth = BTreeMap<u32, Option<i64>>;

fn current_xid(client: &mut Client) -> u32 {
    let row = client.query_one("SELECT pg_current_xact_id()::text", &[]).expect("a transaction");
    row.get::<_, String>(0).parse().expect("a number")
}

/// One of each kind of end, then commits across segment borders. Returns the xids of commits and of aborts.
fn work(client: &mut Client) -> (Vec<u32>, Vec<u32>) {
    let (mut commits, mut aborts) = (Vec::new(), Vec::new());
    let run = |client: &mut Client, sql: &str| client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let mut transaction = |client: &mut Client, body: &str, end: &str| {
        run(client, "BEGIN");
        let xid = current_xid(client);
        run(client, body);
        run(client, end);
        if end.starts_with("ROLLBACK") {
            aborts.push(xid)
        } else {
            commits.push(xid)
        }
        xid
    };
    transaction(client, "CREATE TABLE t(i int)", "COMMIT");
    transaction(client, "SAVEPOINT a; INSERT INTO t VALUES (1); SAVEPOINT b; INSERT INTO t VALUES (2)", "COMMIT");
    transaction(client, "INSERT INTO t VALUES (3)", "ROLLBACK");
    transaction(client, "INSERT INTO t VALUES (4)", "PREPARE TRANSACTION 'p1'");
    run(client, "COMMIT PREPARED 'p1'");
    run(client, "BEGIN");
    let rolled_back = current_xid(client);
    run(client, "INSERT INTO t VALUES (5); PREPARE TRANSACTION 'p2'");
    run(client, "ROLLBACK PREPARED 'p2'");
    run(client, "SELECT pg_create_restore_point('before the drop')");
    transaction(client, "CREATE TABLE d(i serial PRIMARY KEY, t text)", "COMMIT");
    transaction(client, "DROP TABLE d", "COMMIT");
    for left in [8, 16, 24, 40] {
        run(client, "BEGIN");
        let xid = current_xid(client);
        run(client, "INSERT INTO t VALUES (6)");
        fill_segment(client, left);
        run(client, "COMMIT");
        commits.push(xid);
    }
    // More than two segments: one in the middle is nothing but head.
    emit(client, 2 * SEGMENT + SEGMENT / 2);
    aborts.push(rolled_back);
    (commits, aborts)
}

fn truth(client: &mut Client, commits: &[u32], aborts: &[u32]) -> Truth {
    let mut truth: Truth = aborts.iter().map(|xid| (*xid, None)).collect();
    for xid in commits {
        let sql = format!(
            "SELECT (extract(epoch FROM pg_xact_commit_timestamp('{xid}') - '2000-01-01 UTC'::timestamptz) * 1000000)::bigint"
        );
        let row = client.query_one(&sql, &[]).expect("a commit time");
        truth.insert(*xid, Some(row.get(0)));
    }
    truth
}

/// Promise: every commit and abort is found at its xid, with its time to the microsecond, on every major: plain, with
/// subtransactions, prepared, dropping tables, and cut by a segment border at every place of its header.
#[test]
fn commits_are_what_the_server_says() {
    for postgres in majors() {
        let dir = TestDir::new();
        let archive = dir.make_dir("archive");
        let server = server(&dir, &postgres, &archive);
        server.run("CHECKPOINT");
        let before = server.switch_wal();
        let mut client = server.client();
        let (commits, aborts) = work(&mut client);
        let truth = truth(&mut client, &commits, &aborts);
        let last = server.archive_all();

        let segments: Vec<_> = archived(&archive, &before).into_iter().skip(1).collect();
        let mut endings = Vec::new();
        let events = events(&segments, &mut endings);
        assert_eq!(endings.pop(), Some(SegmentEnding::Switch), "{last} was switched");
        assert!(endings.iter().all(|ending| *ending == SegmentEnding::Full), "{endings:?}");

        let found: Truth = events
            .iter()
            .filter_map(|event| match &event.kind {
                EventKind::Commit(end) => Some((event.xid.0, Some(end.time.0))),
                EventKind::Abort(_) => Some((event.xid.0, None)),
                _ => None,
            })
            .filter(|(xid, _)| truth.contains_key(xid))
            .collect();
        assert_eq!(found, truth, "PostgreSQL {}", postgres.major);
        check_details(&events, &commits);
        let over_borders = events.iter().filter(|event| matches!(event.kind, EventKind::Commit(_)));
        let over_borders =
            over_borders.filter(|event| event.lsn.0 / SEGMENT != (event.end_lsn.0 - 1) / SEGMENT).count();
        assert!(over_borders >= 3, "commits over segment borders: {over_borders}");
        compare_with_waldump(&postgres, &archive, &segments, &events);
        write_fixtures(&postgres, &segments, &truth, server.data_dir());
    }
}

/// The parts of a commit that SQL does not tell afterwards.
fn check_details(events: &[Event], commits: &[u32]) {
    let end = |xid: u32| {
        let end = events.iter().find_map(|event| match &event.kind {
            EventKind::Commit(end) if event.xid.0 == xid => Some(end),
            _ => None,
        });
        end.expect("the commit is among the events")
    };
    assert_eq!(end(commits[1]).subtransactions, 2);
    assert!(end(commits[2]).prepared && !end(commits[1]).prepared);
    // The table, its TOAST table, the index of that, the primary key's index, the sequence.
    let dropped = end(commits[4]);
    assert_eq!((dropped.dropped_count, dropped.dropped.len()), (5, 5));
    let name = events.iter().find_map(|event| match &event.kind {
        EventKind::RestorePoint { name, .. } => Some(name.as_str()),
        _ => None,
    });
    assert_eq!(name, Some("before the drop"));
    assert_eq!(events.iter().filter(|event| matches!(event.kind, EventKind::Prepare { .. })).count(), 2);
}

/// Where each transaction record begins, by PostgreSQL's own reader.
fn compare_with_waldump(postgres: &Postgres, archive: &Path, segments: &[PathBuf], events: &[Event]) {
    let Some(waldump) = postgres.waldump() else { return };
    let name = |path: &PathBuf| path.file_name().expect("a plain name").to_owned();
    let mut command = as_test_user(waldump);
    command.args(["--rmgr=Transaction", "--path"]).arg(archive);
    command.arg(name(&segments[0])).arg(name(segments.last().expect("there are segments")));
    // It ends with an error where the last segment was switched and the next is not there.
    let listed = command.run().stdout;
    let theirs: Vec<Lsn> = listed
        .lines()
        .filter(|line| ["desc: COMMIT", "desc: ABORT", "desc: PREPARE"].iter().any(|desc| line.contains(desc)))
        .map(|line| {
            let lsn = line.split("lsn: ").nth(1).and_then(|rest| rest.split(',').next()).expect("an LSN");
            lsn.parse().expect("an LSN")
        })
        .collect();
    let ours = events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Commit(_) | EventKind::Abort(_) | EventKind::Prepare { .. }));
    // The record that began before the first segment is not in their list, nor in ours.
    let ours: Vec<Lsn> = ours.map(|event| event.lsn).collect();
    assert!(!theirs.is_empty());
    assert_eq!(ours, theirs, "PostgreSQL {}", postgres.major);
}

fn write_fixtures(postgres: &Postgres, segments: &[PathBuf], truth: &Truth, data: &Path) {
    let Some(dir) = std::env::var_os("PITR_WRITE_FIXTURES") else { return };
    let dir = Path::new(&dir).join(postgres.major.to_string());
    fs::create_dir_all(&dir).expect("the directory can be made");
    let put = |name: &str, raw: &[u8]| {
        let packed = zstd::bulk::compress(raw, 19).expect("compression works");
        fs::write(dir.join(format!("{name}.zst")), packed).expect("the fixture can be written");
    };
    for segment in segments {
        put(&segment.file_name().expect("a name").to_string_lossy(), &fs::read(segment).expect("a segment"));
    }
    put("pg_control", &fs::read(data.join("global/pg_control")).expect("pg_control"));
    let lines: String = truth
        .iter()
        .map(|(xid, time)| format!("{xid} {}\n", time.map_or("abort".to_owned(), |t| t.to_string())))
        .collect();
    fs::write(dir.join("truth"), lines).expect("the truth can be written");
}

/// Promise: what `pg_control` says is read as the server itself reads it.
#[test]
fn control_file_is_what_the_server_says() {
    for postgres in majors() {
        let dir = TestDir::new();
        let options = Options::default().segment_size_mib(64).page_checksums().set("max_prepared_transactions", 7);
        let mut server = Server::running(&dir, &postgres, &options);
        server.run("CHECKPOINT");
        let read = || {
            let bytes = fs::read(server.data_dir().join("global/pg_control")).expect("pg_control can be read");
            ControlFile::parse(&bytes).expect("pg_control can be parsed")
        };
        let control = read();
        let expect =
            |sql: &str, ours: String| assert_eq!(server.ask(sql), ours, "PostgreSQL {}: {sql}", postgres.major);
        expect("SELECT system_identifier FROM pg_control_system()", control.system_identifier.to_string());
        expect("SELECT pg_control_version FROM pg_control_system()", control.control_version.to_string());
        expect("SELECT catalog_version_no FROM pg_control_system()", control.catalog_version.to_string());
        expect("SELECT checkpoint_lsn FROM pg_control_checkpoint()", control.checkpoint.to_string());
        expect("SELECT redo_lsn FROM pg_control_checkpoint()", control.redo.to_string());
        expect("SELECT timeline_id FROM pg_control_checkpoint()", control.timeline.to_string());
        expect("SELECT prev_timeline_id FROM pg_control_checkpoint()", control.previous_timeline.to_string());
        let time = (control.checkpoint_time.0 + 946_684_800_000_000) / 1_000_000;
        expect("SELECT extract(epoch FROM checkpoint_time)::bigint FROM pg_control_checkpoint()", time.to_string());
        expect("SELECT bytes_per_wal_segment FROM pg_control_init()", control.segment_size.bytes().to_string());
        expect("SELECT wal_block_size FROM pg_control_init()", control.wal_page_size.to_string());
        expect("SELECT database_block_size FROM pg_control_init()", control.block_size.to_string());
        expect("SELECT blocks_per_segment FROM pg_control_init()", control.blocks_per_file.to_string());
        expect("SELECT data_page_checksum_version > 0 FROM pg_control_init()", "t".to_owned());
        assert!(control.data_checksums);
        let limits = control.limits;
        for (setting, ours) in [
            ("max_connections", limits.max_connections.to_string()),
            ("max_worker_processes", limits.max_worker_processes.to_string()),
            ("max_wal_senders", limits.max_wal_senders.to_string()),
            ("max_prepared_transactions", limits.max_prepared_transactions.to_string()),
            ("max_locks_per_transaction", limits.max_locks_per_transaction.to_string()),
            ("wal_level", format!("{:?}", limits.wal_level).to_lowercase()),
            ("track_commit_timestamp", if limits.track_commit_timestamp { "on" } else { "off" }.to_owned()),
            ("wal_log_hints", if limits.wal_log_hints { "on" } else { "off" }.to_owned()),
        ] {
            expect(&format!("SHOW {setting}"), ours);
        }
        assert_eq!(control.state, pitr::wal::ClusterState::InProduction);
        server.stop(Stop::Fast);
        let bytes = fs::read(server.data_dir().join("global/pg_control")).expect("pg_control can be read");
        let control = ControlFile::parse(&bytes).expect("pg_control can be parsed");
        assert_eq!(control.state, pitr::wal::ClusterState::ShutDown);
    }
}

/// Promise: a recovery's new timeline reads whole from its first segment on, although that begins with the parent's
/// pages; the parent's `.partial` is no damage; the history file says where.
#[test]
fn a_new_timeline_reads_whole() {
    for postgres in majors() {
        let dir = TestDir::new();
        let archive = dir.make_dir("archive");
        let mut server = server(&dir, &postgres, &archive);
        server.run("CREATE TABLE t AS SELECT 1 AS i");
        server.stop(Stop::Fast);
        let copied = dir.join("copied");
        as_test_user("cp").arg("-a").arg(server.data_dir()).arg(&copied).run().ok();
        server.start();
        server.run("SELECT pg_create_restore_point('fork')");
        server.run("INSERT INTO t VALUES (2)");
        // The last segment is only in pg_wal, as after a crash whose last WAL came along.
        server.stop(Stop::Immediate);
        as_test_user("cp").arg("-a").arg(server.data_dir().join("pg_wal")).arg(&copied).run().ok();

        let mut copy = Server::adopt(&dir, &postgres, "copy", &copied);
        copy.configure("restore_command", &format!("cp {}/%f %p", archive.display()));
        copy.configure("recovery_target_name", "fork");
        copy.configure("recovery_target_action", "promote");
        dir.write("copied/recovery.signal", "");
        copy.start();
        harness::wait_for("the end of the recovery", || (copy.ask("SELECT pg_is_in_recovery()") == "f").then_some(()));
        copy.run("INSERT INTO t VALUES (3)");
        copy.archive_all();

        let text = fs::read(archive.join("00000002.history")).expect("the history is archived");
        let history = TimelineHistory::parse(TimelineId(2), &text).expect("the history can be read");
        assert_eq!(history.to_string().as_bytes(), text, "PostgreSQL {}", postgres.major);
        let (parent, switch) = history.parent().expect("it has a parent");
        assert_eq!(parent, TimelineId(1));

        let segments = archived(&archive, "00000002");
        let mut endings = Vec::new();
        let events = events(&segments, &mut endings);
        let fork = events.iter().find(|event| matches!(event.kind, EventKind::RestorePoint { .. })).expect("the mark");
        assert_eq!(fork.end_lsn, switch);
        let begins = events.iter().find_map(|event| match event.kind {
            EventKind::EndOfRecovery { timeline, previous_timeline, .. }
            | EventKind::Checkpoint { timeline, previous_timeline, .. }
                if timeline.0 == 2 =>
            {
                Some((event.lsn, previous_timeline))
            }
            _ => None,
        });
        assert_eq!(begins, Some((switch, TimelineId(1))), "PostgreSQL {}", postgres.major);

        let partial = fs::read_dir(&archive).expect("the archive").map(|entry| entry.expect("an entry").path());
        let partial = partial.into_iter().find(|path| path.extension().is_some_and(|end| end == "partial"));
        let (_, scan) = scan(&partial.expect("the parent's last segment is archived"), Completeness::MayEnd);
        assert_eq!((scan.damage, scan.facts.ending), (None, SegmentEnding::Unfinished));
        assert!(scan.facts.end > switch, "the abandoned row is in the partial segment");
    }
}

/// Promise: where a crash cut a record off at a segment's end, the pieces say that it was overwritten: no damage.
#[test]
fn a_broken_record_that_was_overwritten() {
    for postgres in majors() {
        let dir = TestDir::new();
        let archive = dir.make_dir("archive");
        let mut server = server(&dir, &postgres, &archive);
        server.run("CREATE TABLE t AS SELECT 1 AS i");
        let mut client = server.client();
        fill_segment(&mut client, 64);
        let cut = insert_position(&mut client);
        emit(&mut client, 1000);
        // A commit flushes what is before it.
        client.batch_execute("INSERT INTO t VALUES (2)").expect("a row is inserted");
        let lost = server.ask("SELECT pg_walfile_name(pg_current_wal_insert_lsn())");
        drop(client);
        server.stop(Stop::Immediate);
        let lost_path = server.data_dir().join("pg_wal").join(&lost);
        fs::remove_file(&lost_path).expect("the segment is there");
        server.start();
        server.run("INSERT INTO t VALUES (3)");
        server.archive_all();

        let segments = archived(&archive, "0");
        let at = segments.iter().position(|path| path.ends_with(&lost)).expect("the lost segment was written anew");
        let (major, before) = scan(&segments[at - 1], Completeness::Complete);
        let (_, after) = scan(&segments[at], Completeness::Complete);
        assert_eq!((before.damage, after.damage), (None, None), "PostgreSQL {}", postgres.major);
        assert_eq!(before.tail.as_ref().map(|tail| tail.start), Some(cut));
        let mut borders = Borders::new();
        borders.pass(before.head, before.tail, major);
        assert_eq!(borders.pass(after.head, after.tail, major), Joined::Overwritten, "PostgreSQL {}", postgres.major);
        let overwritten = after.events.iter().find_map(|event| match event.kind {
            EventKind::OverwriteContrecord { overwritten, .. } => Some(overwritten),
            _ => None,
        });
        assert_eq!(overwritten, Some(cut), "PostgreSQL {}", postgres.major);
    }
}
