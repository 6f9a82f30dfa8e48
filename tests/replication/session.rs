//! Sessions: what a server says about itself, errors, and that a session survives them.

use pitr::replication::{ReplicationError, SessionKind};
use pitr::wal::TimelineId;

use crate::harness::{Options, Server, TestDir, majors};
use crate::{connect, physical};

/// Promise: on every major a physical session tells who the server is, as SQL would, and reads settings.
#[test]
fn servers_identify_themselves() {
    for postgres in majors() {
        let dir = TestDir::new();
        let server = Server::running(&dir, &postgres, &Options::default().segment_size_mib(1));
        let mut session = physical(&server);
        assert_eq!(u32::from(session.server_major().unwrap()), postgres.major);
        let identity = session.identify_system().unwrap();
        let expected = server.ask("SELECT system_identifier FROM pg_control_system()");
        assert_eq!(identity.system_identifier.to_string(), expected);
        assert_eq!((identity.timeline, identity.dbname), (TimelineId::FIRST, None));
        assert_eq!(session.show("wal_segment_size").unwrap(), "1MB");
        assert_eq!(session.show("data_checksums").unwrap(), "off");
        assert_eq!(session.show("block_size").unwrap(), "8192");
        assert_eq!(session.show("server_version_num").unwrap(), server.ask("SHOW server_version_num"));

        // An error leaves the session usable.
        let error = session.show("no_such_setting").expect_err("an unknown setting");
        assert_eq!(error.server_message().expect("the server's error").sqlstate, "42704");
        let error = session.timeline_history(TimelineId(7)).expect_err("no such timeline");
        assert!(matches!(error, ReplicationError::Server(_)), "{error}");
        assert_eq!(session.show("wal_level").unwrap(), "replica");
    }
}

/// Promise: ordinary SQL runs with several results, NULLs, notices and errors told apart.
#[test]
fn sql_sessions() {
    for postgres in majors() {
        let dir = TestDir::new();
        let server = Server::running(&dir, &postgres, &Options::default());
        let mut session = connect(&server.conninfo(), SessionKind::Sql).unwrap();
        let results =
            session.query("SELECT 1 AS a, NULL AS b; CREATE TABLE t (x int); SELECT 'ä' WHERE false").unwrap();
        assert_eq!(results[0].columns, ["a", "b"]);
        assert_eq!(results[0].rows, [[Some("1".to_owned()), None]]);
        assert_eq!(
            results.iter().map(|result| result.tag.as_str()).collect::<Vec<_>>(),
            ["SELECT 1", "CREATE TABLE", "SELECT 0"]
        );
        session.query("DO $$ BEGIN RAISE WARNING 'careful' USING HINT = 'step'; END $$").unwrap();
        let notices = session.take_notices();
        assert_eq!((notices[0].severity.as_str(), notices[0].message.as_str()), ("WARNING", "careful"));
        assert_eq!(notices[0].hint.as_deref(), Some("step"));
        let error = session.query("SELECT 1/0").expect_err("division by zero");
        assert_eq!(error.server_message().unwrap().sqlstate, "22012");
        assert_eq!(session.query("SHOW application_name").unwrap()[0].rows, [[Some("pitr".to_owned())]]);
    }
}
