//! What a server and the configuration still need, taken from the files in `pgconf/`. Pure: facts in, lines out.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::pgdata::quote;

const POSTGRESQL_CONF: &str = include_str!("../../../pgconf/postgresql.conf");
const PG_HBA_CONF: &str = include_str!("../../../pgconf/pg_hba.conf");
const ROLE_SQL: &str = include_str!("../../../pgconf/role.sql");
const PITR_TOML: &str = include_str!("../../../pgconf/pitr.toml");

/// What it takes for a changed setting to count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Takes {
    /// The server must be restarted.
    Restart,
    /// The server must read its configuration again.
    Reload,
}

/// A line of `postgresql.conf` that a server should have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ServerLine {
    /// The setting.
    pub name: String,
    /// The whole line, ready to be pasted.
    pub line: String,
    /// What the server has now.
    pub current: String,
    /// What it takes for the line to count.
    pub takes: Takes,
    /// Archiving works without it.
    pub optional: bool,
}

/// The lines of `pgconf/postgresql.conf` that a server with these settings lacks.
///
/// `settings` are the server's, as `SHOW` gives them; one that is not in it is not looked at.
pub fn missing_lines(settings: &BTreeMap<String, String>, archive_command: &str) -> Vec<ServerLine> {
    let lines = POSTGRESQL_CONF.lines().filter_map(|line| line.split_once(" = "));
    let lacking = lines.filter_map(|(name, value)| {
        let current = settings.get(name)?;
        if suffices(name, current, settings) {
            return None;
        }
        let value = value.replace("{archive_command}", &quote::setting(archive_command));
        let takes = match name {
            "archive_command" | "archive_timeout" | "full_page_writes" => Takes::Reload,
            _ => Takes::Restart,
        };
        let line = format!("{name} = {value}");
        let optional = name == "archive_timeout";
        Some(ServerLine { name: name.to_owned(), line, current: current.clone(), takes, optional })
    });
    let mut lacking: Vec<ServerLine> = lacking.collect();
    // A library wins over archive_command, and PostgreSQL 16 refuses to have both (`pgarch.c`).
    if let Some(library) = settings.get("archive_library").filter(|library| !library.is_empty()) {
        lacking.push(ServerLine {
            name: "archive_library".to_owned(),
            line: "archive_library = ''".to_owned(),
            current: library.clone(),
            takes: Takes::Reload,
            optional: false,
        });
    }
    lacking
}

/// Whether the server's value does what the line is for.
fn suffices(name: &str, current: &str, settings: &BTreeMap<String, String>) -> bool {
    match name {
        "wal_level" => ["replica", "logical"].contains(&current),
        "archive_mode" => ["on", "always"].contains(&current),
        // One walsender sends the backup, a second one its WAL; what is there beyond belongs to standbys.
        "max_wal_senders" => current.parse().is_ok_and(|count: u32| count >= 3),
        // The server shows an empty value, in words, while archiving is off (`show_archive_command`).
        "archive_command" if settings.get("archive_mode").is_some_and(|mode| mode == "off") => false,
        "archive_command" => is_push_command(current),
        "full_page_writes" => current == "on",
        "archive_timeout" => current != "0",
        _ => true,
    }
}

/// Whether an `archive_command` calls `pitr-wal-push`.
pub fn is_push_command(command: &str) -> bool {
    command.contains("pitr-wal-push") && command.contains("%p")
}

/// How the server is reached: a line of `pg_hba.conf` differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Road {
    /// Over the Unix socket.
    Socket,
    /// Over TCP.
    Tcp,
}

/// The lines of `pg_hba.conf` for a role.
pub(super) fn hba_lines(role: &str, road: Road) -> String {
    let (kind, address) = match road {
        Road::Socket => ("local", ""),
        Road::Tcp => ("hostssl", "  samenet"),
    };
    let role = if role.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        role.to_owned()
    } else {
        // In double quotes a role's name is taken as it is; a quote in it is doubled (manual, "The pg_hba.conf File").
        format!("\"{}\"", role.replace('"', "\"\""))
    };
    let lines = PG_HBA_CONF.lines().filter(|line| !line.starts_with('#'));
    let filled =
        lines.map(|line| line.replace("{type}", kind).replace("{role}", &role).replace("  {address}", address));
    filled.collect::<Vec<_>>().join("\n")
}

/// The SQL that makes the role, with its comments.
pub(super) fn role_sql(role: &str) -> String {
    ROLE_SQL.replace("{role}", &format!("\"{}\"", role.replace('"', "\"\""))).trim_end().to_owned()
}

/// A whole `pitr.toml` for one cluster, with settings for `[repository]`.
pub(super) fn pitr_toml(
    cluster: &str,
    repository: &str,
    settings: &[(&str, &str)],
    system_identifier: &str,
    conninfo: &str,
) -> String {
    let settings = settings.iter().map(|(name, value)| format!("\n{name} = {}", toml_text(value)));
    let repository = std::iter::once(toml_text(repository)).chain(settings).collect::<String>();
    PITR_TOML
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n")
        .replace("{repository}", &repository)
        .replace("{cluster}", cluster)
        .replace("{system_identifier}", &toml_text(system_identifier))
        .replace("{conninfo}", &toml_text(conninfo))
        .trim()
        .to_owned()
}

/// A text as TOML writes it.
fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: &str = "/usr/bin/pitr-wal-push %p";

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let fresh = [
            ("wal_level", "replica"),
            ("archive_mode", "off"),
            ("archive_command", "(disabled)"),
            ("archive_library", ""),
            ("archive_timeout", "0"),
            ("max_wal_senders", "10"),
            ("full_page_writes", "on"),
        ];
        let all = fresh.iter().chain(pairs);
        all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn lines(pairs: &[(&str, &str)]) -> Vec<String> {
        missing_lines(&settings(pairs), COMMAND).into_iter().map(|line| line.line).collect()
    }

    /// A fresh server needs archiving turned on and nothing that it has already.
    #[test]
    fn fresh_server() {
        let needed = ["archive_mode = on", "archive_command = '/usr/bin/pitr-wal-push %p'", "archive_timeout = 60s"];
        assert_eq!(lines(&[]), needed);
    }

    /// A server that is set up needs nothing; each thing that spoils archiving is found.
    #[test]
    fn each_setting() {
        let done = [
            ("archive_mode", "on"),
            ("archive_command", "/opt/pitr-wal-push --config /x %p"),
            ("archive_timeout", "1min"),
        ];
        assert_eq!(lines(&done), Vec::<String>::new());
        let rows = [
            ("wal_level", "minimal", "wal_level = replica"),
            ("max_wal_senders", "0", "max_wal_senders = 10"),
            ("archive_command", "/bin/true", "archive_command = '/usr/bin/pitr-wal-push %p'"),
            ("archive_command", "", "archive_command = '/usr/bin/pitr-wal-push %p'"),
            ("archive_library", "basic_archive", "archive_library = ''"),
            ("full_page_writes", "off", "full_page_writes = on"),
        ];
        for (name, value, line) in rows {
            let mut pairs = done.to_vec();
            pairs.push((name, value));
            assert_eq!(lines(&pairs), [line]);
        }
    }

    /// Every placeholder of the files is filled, and names that need quoting get it.
    #[test]
    fn nothing_is_left_in_braces() {
        let toml = pitr_toml("main", "/srv/a \"b\"", &[("s3_region", "x")], "7", "host=/tmp user='x y'");
        let role = "o'brien \"x\"";
        for text in [&toml, &role_sql(role), &hba_lines(role, Road::Socket), &hba_lines(role, Road::Tcp)] {
            assert!(!text.contains(['{', '}']), "{text}");
        }
        let read: toml::Table = toml.parse().expect(&toml);
        assert_eq!(read["repository"]["path"].as_str(), Some("/srv/a \"b\""));
        assert_eq!(read["repository"]["s3_region"].as_str(), Some("x"));
        assert!(role_sql(role).contains("CREATE ROLE \"o'brien \"\"x\"\"\" WITH LOGIN REPLICATION;"));
        assert_eq!(hba_lines("pitr", Road::Socket), "local  postgres,replication  pitr  scram-sha-256");
        assert_eq!(hba_lines("a-b", Road::Tcp), "hostssl  postgres,replication  \"a-b\"  samenet  scram-sha-256");
    }
}
