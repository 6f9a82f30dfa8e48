//! What SQL shows of a cluster: databases, tables, indexes, where they lie, and a digest of the rows of each table.

use std::collections::BTreeMap;

use postgres::{Client, NoTls, SimpleQueryMessage};

use super::harness::Server;

/// Lines by database. The ledger, which is written all the time, is not in it; of unlogged tables neither, which come back empty.
pub type Contents = BTreeMap<String, Vec<String>>;

/// Tables and indexes of users.
const RELATIONS: &str = "SELECT c.relkind::text || ' ' || c.relname || ' in ' || coalesce(s.spcname, '-') FROM pg_class c \
     LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace WHERE c.relnamespace = 'public'::regnamespace \
     AND c.relkind IN ('r', 'i') AND c.relpersistence = 'p' AND c.relname !~ '^ledger' ORDER BY 1";

/// Reads all of it.
pub fn of(server: &Server) -> Contents {
    let mut all = Contents::new();
    for database in databases(server) {
        let mut client = client(server, &database);
        let mut lines = ask(&mut client, RELATIONS);
        for table in tables(&mut client) {
            let rows = format!(
                "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {table} t"
            );
            lines.push(format!("{table}: {}", ask(&mut client, &rows).concat()));
        }
        all.insert(database, lines);
    }
    all.insert("tablespaces".to_owned(), tablespaces(server).into_iter().map(|(name, _)| name).collect());
    all
}

/// All databases but the templates.
pub fn databases(server: &Server) -> Vec<String> {
    server.ask_all("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")
}

/// Name and location of each tablespace that was made.
pub fn tablespaces(server: &Server) -> Vec<(String, String)> {
    let found =
        "SELECT spcname || '=' || pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname !~ '^pg_' ORDER BY 1";
    let split = |line: String| line.split_once('=').map(|(name, location)| (name.to_owned(), location.to_owned()));
    server.ask_all(found).into_iter().map(|line| split(line).expect("a name and a location")).collect()
}

/// The tables of users in one database, without the ledger.
pub fn tables(client: &mut Client) -> Vec<String> {
    ask(
        client,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relpersistence = 'p' \
         AND relname !~ '^ledger' ORDER BY 1",
    )
}

/// A connection to a database.
pub fn client(server: &Server, database: &str) -> Client {
    let conninfo = server.conninfo().replace("dbname=postgres", &format!("dbname={database}"));
    Client::connect(&conninfo, NoTls).unwrap_or_else(|error| panic!("{database}: {error}"))
}

/// The first column of all rows.
pub fn ask(client: &mut Client, sql: &str) -> Vec<String> {
    let answer = client.simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let rows = answer.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
        _ => None,
    });
    rows.collect()
}
