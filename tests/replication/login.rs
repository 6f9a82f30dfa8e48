//! Logging in: passwords and where they come from, lists of servers, and servers that do not answer.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use pitr::replication::{Patience, ReplicationError, Session, SessionKind};

use crate::harness::server::free_port;
use crate::harness::{Options, Server, TestDir, majors, newest};
use crate::{connect, parse_at_home};

const HBA: &str = "local all all trust\nlocal replication all trust\n\
    host all,replication by_md5 127.0.0.1/32 md5\n\
    host all,replication by_scram 127.0.0.1/32 scram-sha-256\n\
    host all,replication by_clear 127.0.0.1/32 password\n";

fn server_with_roles(dir: &TestDir, postgres: &crate::harness::Postgres) -> Server {
    let options = Options { hba: Some(HBA.to_owned()), ..Options::default().tcp() };
    let server = Server::running(dir, postgres, &options);
    server.run(
        "SET password_encryption = 'md5'; CREATE ROLE by_md5 LOGIN REPLICATION PASSWORD 'sesame: \\ é';
         SET password_encryption = 'scram-sha-256'; CREATE ROLE by_scram LOGIN REPLICATION PASSWORD 'sesame: \\ é';
         CREATE ROLE by_clear LOGIN REPLICATION PASSWORD 'sesame: \\ é'",
    );
    server
}

/// Promise: every way to prove a password works on every major, for both kinds of session, and a wrong or missing
/// password is told apart, without being shown.
#[test]
fn passwords() {
    for postgres in majors() {
        let dir = TestDir::new();
        let server = server_with_roles(&dir, &postgres);
        for role in ["by_md5", "by_scram", "by_clear"] {
            let conninfo = server.conninfo_tcp(role);
            for kind in [SessionKind::Physical, SessionKind::Sql] {
                let session = connect(&format!(r"{conninfo} password='sesame: \\ é'"), kind);
                assert!(!session.unwrap_or_else(|error| panic!("{role}: {error}")).is_encrypted());
            }
            let error = connect(&format!("{conninfo} password=sesame"), SessionKind::Physical).expect_err("wrong");
            assert_eq!(error.server_message().map(|message| message.sqlstate.as_str()), Some("28P01"), "{error}");
            assert!(error.is_permanent() && !error.to_string().contains("sesame"), "{error}");
            let error = connect(&conninfo, SessionKind::Physical).expect_err("none");
            assert!(matches!(error, ReplicationError::NoPassword { .. }), "{error}");
        }
        let error = connect(
            &format!("{} channel_binding=require password=x", server.conninfo_tcp("by_scram")),
            SessionKind::Sql,
        );
        assert!(error.expect_err("no TLS").to_string().contains("not encrypted"));
        let error = connect(
            &format!("{} channel_binding=require password=x", server.conninfo_tcp("by_clear")),
            SessionKind::Sql,
        );
        assert!(error.expect_err("no SCRAM").to_string().contains("does not ask for SCRAM"));
    }
}

/// Promise: the password file, the service file and the environment are used as libpq uses them; a password file that
/// others may read is not, and the error says so.
#[test]
fn files_and_environment() {
    let dir = TestDir::new();
    let server = server_with_roles(&dir, &newest());
    let home = || Some(dir.path().to_owned());
    let port = server.port();
    let line = format!("127.0.0.1:{port}:replication:by_scram:sesame\\: \\\\ é\n");
    let passfile = dir.write(".pgpass", format!("*:*:*:someone:wrong\n{line}"));
    std::fs::set_permissions(&passfile, PermissionsExt::from_mode(0o640)).unwrap();
    let attempt = |conninfo: &str, kind, variables: &[(&str, &str)]| {
        Session::connect(&parse_at_home(conninfo, home(), variables), kind, &Patience::default())
    };
    let conninfo = server.conninfo_tcp("by_scram");
    let error =
        attempt(&conninfo, SessionKind::Physical, &[]).expect_err("the file may be read by the group").to_string();
    assert!(error.contains("may be read by group or others"), "{error}");
    std::fs::set_permissions(&passfile, PermissionsExt::from_mode(0o600)).unwrap();
    attempt(&conninfo, SessionKind::Physical, &[]).expect("with the password file");
    attempt(&conninfo, SessionKind::Sql, &[]).expect_err("the file has no line for this database");
    let elsewhere = dir.write("elsewhere", "*:*:*:*:sesame\\: \\\\ é\n");
    std::fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o600)).unwrap();
    attempt(&conninfo, SessionKind::Sql, &[("PGPASSFILE", elsewhere.to_str().unwrap())]).expect("PGPASSFILE");
    attempt(&conninfo, SessionKind::Sql, &[("PGPASSWORD", "sesame: \\ é")]).expect("PGPASSWORD");

    dir.write(".pg_service.conf", format!("[prod]\nhost=127.0.0.1\nport={port}\nuser=by_scram\n"));
    attempt("service=prod", SessionKind::Physical, &[]).expect("the user's service file");
    attempt("", SessionKind::Physical, &[("PGSERVICE", "prod")]).expect("PGSERVICE");
    attempt(&format!("postgresql://by_scram@127.0.0.1:{port}/postgres"), SessionKind::Physical, &[]).expect("a URI");
    let variables = [("PGHOST", "127.0.0.1"), ("PGPORT", &port.to_string()), ("PGUSER", "by_scram")];
    attempt("", SessionKind::Physical, &variables).expect("all from the environment");
}

/// Promise: of a list of servers the one asked for is found, dead ones are passed over, and if none will do each says why.
#[test]
fn lists_of_servers() {
    for postgres in [majors().remove(0), newest()] {
        let dir = TestDir::new();
        let primary = Server::running(&dir, &postgres, &Options::default());
        let mut standby = Server::standby_of(&dir, &primary, "standby", None);
        standby.start();
        let (first, second) = (primary.socket_dir().display(), standby.socket_dir().display());
        let dead = free_port();
        let list = format!("host=127.0.0.1,{first},{second} port={dead},5432,5432 user=postgres dbname=postgres");
        for kind in [SessionKind::Physical, SessionKind::Sql] {
            for (target, expected) in [
                ("any", primary.socket_dir()),
                ("primary", primary.socket_dir()),
                ("read-write", primary.socket_dir()),
                ("standby", standby.socket_dir()),
                ("prefer-standby", standby.socket_dir()),
            ] {
                let session = connect(&format!("{list} target_session_attrs={target}"), kind).expect(target);
                assert!(session.server().contains(expected.to_str().unwrap()), "{target}: {}", session.server());
            }
        }
        let nobody = format!(
            "host=127.0.0.1,{first} port={dead},5432 user=postgres dbname=postgres target_session_attrs=standby"
        );
        let error = connect(&nobody, SessionKind::Physical).expect_err("no standby");
        let text = error.to_string();
        assert!(text.contains("refused") && text.contains("is not a standby"), "{text}");
        assert!(!error.is_permanent());
    }
}

/// Promise: a server that accepts and says nothing, at whatever step, costs `connect_timeout` and no more.
#[test]
fn a_hung_server() {
    for (answer, settings) in
        [("", "sslmode=disable"), ("", "sslmode=prefer"), ("S", "sslmode=require"), ("N", "sslmode=prefer")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let hung = std::thread::spawn(move || {
            use std::io::Write;
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            // Until the client gives up.
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap_or_default();
        });
        let begun = Instant::now();
        let conninfo = format!("host=127.0.0.1 port={port} user=x connect_timeout=1 {settings}");
        let error = connect(&conninfo, SessionKind::Physical).expect_err("a hung server");
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert!(error.to_string().contains("within 1 s") && !error.is_permanent(), "{settings}: {error}");
        hung.join().unwrap();
    }
}

/// Promise: a command that is not answered ends with the session's patience, or at once when the program is told to stop.
#[test]
fn patience_and_interruption() {
    let dir = TestDir::new();
    let server = Server::running(&dir, &newest(), &Options::default());
    let mut session = connect(&server.conninfo(), SessionKind::Sql).unwrap();
    session.set_silence(Duration::from_secs(1));
    let begun = Instant::now();
    let error = session.query("SELECT pg_sleep(600)").expect_err("silence");
    assert!(matches!(error, ReplicationError::Silent { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(session.query("SELECT 1").is_err(), "the answer to the first command may still come");

    let patience = Patience::default();
    let info = parse_at_home(&server.conninfo(), None, &[]);
    let mut session = Session::connect(&info, SessionKind::Sql, &patience).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| session.query("SELECT pg_sleep(600)").expect_err("interrupted"));
        crate::harness::wait_for("the command to run", || {
            let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            (server.ask(running).parse::<u32>().unwrap() >= 2).then_some(())
        });
        let begun = Instant::now();
        patience.interrupt.store(true, Ordering::Relaxed);
        assert!(matches!(waiting.join().unwrap(), ReplicationError::Interrupted));
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    });
    let error = Session::connect(&info, SessionKind::Sql, &patience).expect_err("told to stop");
    assert!(matches!(error, ReplicationError::Interrupted), "{error}");
}
