//! What `pitr init` shows: what is there now, and what is still missing. As text and as JSON.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::InitError;
use super::advice::{self, Road, ServerLine, Takes};
use crate::command::server::{Rights, ServerError};
use crate::config::settings::SETTINGS;
use crate::config::{ClusterConfig, Config, DEFAULT_PATH, Origin, RepositoryName};
use crate::durable::{self, Owner};
use crate::replication::ReplicationError;
use crate::wal::{ClusterName, SystemIdentifier};

/// Everything that a run has found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Outcome {
    pub(super) cluster: ClusterName,
    pub(super) system_identifier: SystemIdentifier,
    pub(super) postgres_version: String,
    pub(super) segment_size_bytes: u64,
    pub(super) page_checksums: bool,
    /// As it is configured.
    pub(super) repository: String,
    /// As it is told to people.
    #[serde(skip)]
    pub(super) place: String,
    /// What the store cannot promise.
    pub(super) repository_weakness: Option<&'static str>,
    pub(super) repository_made: bool,
    pub(super) server_added: bool,
    pub(super) repository_of_root: bool,
    /// Further repositories.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) mirrors: Vec<Mirror>,
    /// Lines that `postgresql.conf` lacks.
    pub(super) postgresql_conf: Vec<ServerLine>,
    /// What `pitr.toml` lacks.
    pub(super) configuration: Option<Addition>,
    /// What the role lacks.
    pub(super) access: Option<Access>,
    /// A command that makes the spool directory, if there is none.
    pub(super) spool: Option<String>,
}

/// One of the further repositories.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Mirror {
    pub(super) name: RepositoryName,
    /// As it is configured.
    pub(super) repository: String,
    /// As it is told to people.
    #[serde(skip)]
    pub(super) place: String,
    /// What the store cannot promise.
    pub(super) weakness: Option<&'static str>,
    pub(super) made: bool,
    pub(super) server_added: bool,
    pub(super) of_root: bool,
}

/// Lines for the configuration file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Addition {
    file: PathBuf,
    /// The table that the lines belong into; `None` for a whole new file.
    table: Option<String>,
    lines: String,
}

/// What helps the role.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Access {
    why: String,
    sql: Option<String>,
    pg_hba_conf: Option<String>,
}

/// The name that is suggested where a superuser is used so far.
const SUGGESTED_ROLE: &str = "pitr";

/// What `pitr.toml` lacks, if anything.
pub(super) fn configuration(
    cluster: &ClusterConfig,
    config: &Config,
    identifier: SystemIdentifier,
) -> Result<Option<Addition>, InitError> {
    if cluster.system_identifier == Some(identifier) {
        return Ok(None);
    }
    let file = config.path().unwrap_or(Path::new(DEFAULT_PATH)).to_owned();
    if config.cluster_names().any(|name| *name == cluster.name) {
        let table = Some(format!("[cluster.{}]", cluster.name));
        return Ok(Some(Addition { file, table, lines: format!("system_identifier = \"{identifier}\"") }));
    }
    let conninfo = cluster.conninfo.as_deref().unwrap_or("host=/var/run/postgresql dbname=postgres");
    if let Some(path) = cluster.repository.directory() {
        crate::pgdata::quote::path_text(path)?;
    }
    let repository = cluster.repository.to_string();
    // What reaches the bucket now, in this environment, must reach it from the archiver's too.
    let of_bucket = cluster.entries().iter().filter(|entry| SETTINGS.iter().any(|known| known.name == entry.name));
    let of_bucket = of_bucket.filter(|entry| entry.name.starts_with("s3_") && entry.origin != Origin::Default);
    let settings: Vec<_> = of_bucket.filter_map(|entry| Some((entry.name.as_ref(), entry.value.as_deref()?))).collect();
    let lines = advice::pitr_toml(cluster.name.as_str(), &repository, &settings, &identifier.to_string(), conninfo);
    Ok(Some(Addition { file, table: None, lines }))
}

/// What the role lacks, if anything. `refused` is why an ordinary connection could not be had.
pub(super) fn access(user: &str, road: Road, rights: Option<&Rights>, refused: Option<String>) -> Option<Access> {
    match rights {
        None => Some(Access {
            why: format!("role \"{user}\" may replicate but not look at the server ({})", refused.unwrap_or_default()),
            sql: None,
            pg_hba_conf: Some(advice::hba_lines(user, road)),
        }),
        Some(rights) if rights.superuser => Some(Access {
            why: format!("role \"{user}\" is a superuser; this one has the least rights that will do"),
            sql: Some(advice::role_sql(SUGGESTED_ROLE)),
            pg_hba_conf: Some(advice::hba_lines(SUGGESTED_ROLE, road)),
        }),
        Some(rights) if rights.read_settings && (rights.switch_wal || rights.in_recovery) => None,
        Some(_) => {
            let sql = advice::role_sql(user);
            let grants = sql.lines().filter(|line| line.starts_with("GRANT"));
            Some(Access {
                why: format!("role \"{user}\" lacks rights that pitr check and pitr backup need"),
                sql: Some(grants.collect::<Vec<_>>().join("\n")),
                pg_hba_conf: None,
            })
        }
    }
}

/// Makes the spool if that is allowed; else gives the command that does.
pub(super) fn spool(path: &Path, owner: Option<Owner>) -> Option<String> {
    if path.is_dir() || durable::create_directories(path, owner).is_ok() {
        return None;
    }
    let user = owner.map_or_else(|| rustix::process::geteuid().as_raw(), |owner| owner.user);
    Some(format!("install -d -o {user} -m 0700 {}", path.display()))
}

/// When the server does not let the role in: the SQL and the lines that would. Nothing for other failures.
pub(super) fn explain_access(error: &ServerError, user: &str, road: Road, out: &mut impl Write) -> io::Result<()> {
    let ServerError::Session(error) = error else { return Ok(()) };
    let refused = match error {
        ReplicationError::Server(message) => message.sqlstate.starts_with("28") || message.sqlstate == "42501",
        ReplicationError::NoPassword { .. } | ReplicationError::Authentication { .. } => true,
        _ => false,
    };
    if !refused {
        return Ok(());
    }
    writeln!(out, "The server does not let role \"{user}\" in. What lets it in:\n")?;
    indented(out, &advice::role_sql(user))?;
    writeln!(out, "\nand in pg_hba.conf:\n")?;
    indented(out, &advice::hba_lines(user, road))?;
    writeln!(out)?;
    out.flush()
}

impl Outcome {
    /// The text for people.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let checksums = if self.page_checksums { "on" } else { "off" };
        let size = self.segment_size_bytes >> 20;
        writeln!(out, "cluster:     {}", self.cluster)?;
        writeln!(
            out,
            "server:      PostgreSQL {}, system identifier {}, WAL segments of {size} MiB, page checksums {checksums}",
            self.postgres_version, self.system_identifier
        )?;
        let done = |made, added| match (made, added) {
            (true, _) => "made",
            (false, true) => "server added",
            (false, false) => "ready",
        };
        writeln!(out, "repository:  {}, {}", self.place, done(self.repository_made, self.server_added))?;
        if let Some(weakness) = self.repository_weakness {
            writeln!(out, "             {weakness}")?;
        }
        for mirror in &self.mirrors {
            writeln!(
                out,
                "mirror:      {}, {}, {}",
                mirror.name,
                mirror.place,
                done(mirror.made, mirror.server_added)
            )?;
            if let Some(weakness) = mirror.weakness {
                writeln!(out, "             {weakness}")?;
            }
        }
        for repository in self.of_root() {
            writeln!(out, "\nThe repository belongs to root. The server's user must own it, or archiving will fail:")?;
            writeln!(out, "\n    chown -R USER: {repository}")?;
        }
        self.write_server_lines(out)?;
        if let Some(addition) = &self.configuration {
            let file = addition.file.display();
            match &addition.table {
                Some(table) => writeln!(out, "\nPut this line into {table} of {file}:\n")?,
                None => writeln!(out, "\nPut this into {file}:\n")?,
            }
            indented(out, &addition.lines)?;
        }
        if let Some(command) = &self.spool {
            writeln!(out, "\nFor looking ahead, push and fetch need a directory of their own. Run as root:\n")?;
            indented(out, command)?;
        }
        if let Some(access) = &self.access {
            access.write(out)?;
        }
        let next = if self.is_complete() { "Nothing is missing." } else { "When this is done:" };
        writeln!(out, "\n{next} \"pitr check\" proves that archiving works, and \"pitr backup\" takes a base backup.")?;
        out.flush()
    }

    /// The repositories that belong to root.
    fn of_root(&self) -> impl Iterator<Item = &String> {
        let first = self.repository_of_root.then_some(&self.repository);
        let mirrors = self.mirrors.iter().filter(|mirror| mirror.of_root).map(|mirror| &mirror.repository);
        first.into_iter().chain(mirrors)
    }

    /// Whether nothing that archiving needs is missing.
    fn is_complete(&self) -> bool {
        !self.postgresql_conf.iter().any(|line| !line.optional)
            && self.configuration.is_none()
            && self.of_root().next().is_none()
    }

    fn write_server_lines(&self, out: &mut impl Write) -> io::Result<()> {
        let needed = |takes| self.postgresql_conf.iter().filter(move |line| !line.optional && line.takes == takes);
        let groups: [(&str, Vec<&ServerLine>); 3] = [
            ("Put this into postgresql.conf, and restart the server:", needed(Takes::Restart).collect()),
            ("Put this into postgresql.conf, and reload it:", needed(Takes::Reload).collect()),
            (
                "Suggested, so that an idle server hands over its last commits:",
                self.postgresql_conf.iter().filter(|line| line.optional).collect(),
            ),
        ];
        for (head, lines) in groups.iter().filter(|(_, lines)| !lines.is_empty()) {
            writeln!(out, "\n{head}\n")?;
            for line in lines {
                let now = if line.current.is_empty() { "empty" } else { &line.current };
                writeln!(out, "    {:<60} # now: {now}", line.line)?;
            }
        }
        Ok(())
    }
}

impl Access {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "\nRights: {}.", self.why)?;
        if let Some(sql) = &self.sql {
            writeln!(out)?;
            indented(out, sql)?;
        }
        if let Some(lines) = &self.pg_hba_conf {
            writeln!(out, "\nand in pg_hba.conf:\n")?;
            indented(out, lines)?;
        }
        Ok(())
    }
}

fn indented(out: &mut impl Write, text: &str) -> io::Result<()> {
    for line in text.lines() {
        writeln!(out, "{}", format!("    {line}").trim_end())?;
    }
    Ok(())
}
