//! `pitr check`: proves the road from the server to the repository and back.
//!
//! Looks at everything that archiving needs, then ends a WAL segment and watches it arrive. It goes on after a failure as
//! far as that makes sense, so that one run shows all that is wrong.
//!
//! * [`finding`]: what a step found, and how that is shown.
//! * [`road`]: the segment's way.

mod finding;
mod road;

use std::io;
use std::path::Path;
use std::time::Duration;

use super::init::{is_push_command, missing_lines};
use super::server::{self, ServerError, ServerFacts};
use super::status::look_at_mirrors;
use super::{Context, Interrupt};
use crate::config::{ClusterConfig, ConfigError, DEFAULT_PATH, Place};
use crate::replication::{Session, SessionKind};
use crate::report::{ExitStatus, Explain, Report};
use crate::repository::{Repository, RepositoryError, ServerRepository};
use crate::storage::{Location, Put, Storage, StorageError, StorageErrorKind};
use finding::{Finding, Findings};

/// Prove that archiving works: settings, repository, and a WAL segment on its way
///
/// Looks at the server's settings and at the repository, then ends the current WAL segment and watches it arrive in the
/// repository, where it is read back and verified. On a standby, or without the right to end a segment, it waits for the next
/// one. Ends with status 0 if all is well, and 1 if anything is not.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long to wait for the segment, such as "30s", instead of wal_timeout
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,
}

/// Why nothing could be checked. What a check finds wrong is no error but its result.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Standard output cannot be written to.
    #[error("could not write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Checks the cluster.
///
/// # Errors
/// See [`CheckError`].
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, CheckError> {
    let cluster = context.cluster_config()?;
    let mut findings = Findings::new(context)?;
    let place = context.config.path().map_or_else(|| "environment".to_owned(), |path| path.display().to_string());
    findings.add(Finding::ok("configuration", format!("{place}, cluster {}", cluster.name)))?;

    let repository = open_repository(&cluster.repository);
    findings.add_result("repository", repository.as_ref().map(|found| found.storage().describe()))?;
    let mirrors: Vec<_> = cluster.mirrors.iter().map(|place| (place, open_repository(&place.location))).collect();
    for (place, mirror) in &mirrors {
        let found = mirror.as_ref().map(|found| format!("{}: {}", place.name, found.storage().describe()));
        findings.add(Finding::of("mirror", found.map_err(|error| named(place, error))))?;
    }
    findings.add(spool(&cluster.spool))?;

    let server = Server::connect(&cluster, &context.interrupt);
    let facts = server.as_ref().map(|server| &server.facts);
    findings.add_result(
        "server",
        facts.map(|facts| format!("PostgreSQL {}, system identifier {}", facts.version, facts.system_identifier)),
    )?;
    if let Ok(server) = &server {
        findings.add(settings(&server.facts))?;
        if let Some(finding) = server.facts.settings.get("archive_command").and_then(|it| other_file(it, context)) {
            findings.add(finding)?;
        }
    }
    if let (Ok(repository), Ok(mut server)) = (repository, server) {
        for (place, mirror) in mirrors.iter().filter_map(|(place, mirror)| Some((place, mirror.as_ref().ok()?))) {
            store_in_mirror(place, mirror, &cluster, &server.facts, &mut findings)?;
        }
        for mirror in look_at_mirrors(&cluster, &repository) {
            // What cannot be opened was told above.
            if mirror.error.is_none() && !mirror.is_up_to_date() {
                findings.add(Finding::warning("mirror", &mirror.to_string(), CAUGHT_UP))?;
            }
        }
        let timeout = args.timeout.unwrap_or(cluster.wal_timeout);
        archive(&repository, &cluster, &mut server, timeout, context, &mut findings)?;
    }
    Ok(if context.interrupt.requested() { ExitStatus::Interrupted } else { findings.finish()? })
}

/// The part that needs both ends.
fn archive(
    repository: &Repository,
    cluster: &ClusterConfig,
    server: &mut Server,
    timeout: Duration,
    context: &Context,
    findings: &mut Findings<'_>,
) -> io::Result<()> {
    let identifier = server.facts.system_identifier;
    if let Err(error) = cluster.check_identity(identifier) {
        return findings.add(Finding::failed("identity", &error.report()));
    }
    let home = repository.cluster(&cluster.name);
    if let Err(error) = home.server_record(identifier) {
        return findings.add(Finding::failed("identity", &error.report()));
    }
    findings.add(Finding::ok("identity", "the repository knows this server"))?;
    let stored = home.server(identifier);
    findings
        .add_result("storing", probe(&stored).map(|()| "written, synced, read back; a second writer is refused"))?;
    if let Some(weakness) = stored.storage().weakness() {
        findings.add(Finding::warning("write once", weakness, ONE_AT_A_TIME))?;
    }
    let Some(sql) = server.sql.as_mut() else {
        let why = "no ordinary connection to the server: archiver and road cannot be watched";
        let hint = "\"pitr init\" prints the line of pg_hba.conf that is missing.";
        return findings.add(Finding::wrong("archiver", why, hint));
    };
    findings.add(road::archiver(sql))?;
    let sent = findings.are_good();
    if !sent {
        return findings.add(Finding::skipped("road", "not tried, since it cannot work yet"));
    }
    findings.add(road::road(sql, &server.facts, &stored, timeout, &context.interrupt))
}

/// What a mirror has to do.
fn store_in_mirror(
    place: &Place,
    mirror: &Repository,
    cluster: &ClusterConfig,
    facts: &ServerFacts,
    findings: &mut Findings<'_>,
) -> io::Result<()> {
    let home = mirror.cluster(&cluster.name);
    let stored = home.server(facts.system_identifier);
    let done = home.server_record(facts.system_identifier).and_then(|_| probe(&stored));
    let done = done.map(|()| format!("{}: it knows this server; written, synced, read back", place.name));
    findings.add(Finding::of("mirror", done.map_err(|error| named(place, &error))))?;
    match stored.storage().weakness() {
        Some(weakness) => {
            findings.add(Finding::warning("mirror", &format!("{}: {weakness}", place.name), ONE_AT_A_TIME))
        }
        None => Ok(()),
    }
}

/// An error of one of several repositories.
fn named(place: &Place, error: &RepositoryError) -> Report {
    let report = error.report();
    Report { what: format!("{}: {}", place.name, report.what), ..report }
}

/// What helps where a mirror is behind.
const CAUGHT_UP: &str = "Calls of pitr-wal-push catch it up if they noted it; \"pitr copy\" does whatever was noted.";

/// What helps where a store cannot keep two writers apart.
const ONE_AT_A_TIME: &str = "Let one server archive at a time, and keep it that way when another is promoted.";

/// Both sessions with the server.
struct Server {
    facts: ServerFacts,
    /// An ordinary session, where one can be had.
    sql: Option<Session>,
}

impl Server {
    fn connect(cluster: &ClusterConfig, interrupt: &Interrupt) -> Result<Server, ServerError> {
        let info = server::conninfo(cluster)?;
        let facts = server::facts(&mut server::connect(&info, SessionKind::Physical, interrupt)?)?;
        Ok(Server { facts, sql: server::connect(&info, SessionKind::Sql, interrupt).ok() })
    }
}

fn open_repository(place: &Location) -> Result<Repository, RepositoryError> {
    Repository::open(place.open()?)
}

fn spool(path: &Path) -> Finding {
    if path.is_dir() {
        return Finding::ok("spool", format!("directory \"{}\"", path.display()));
    }
    let what =
        format!("directory \"{}\" is missing: push and fetch work without looking ahead, slower", path.display());
    Finding::warning("spool", &what, "\"pitr init\" prints the command that makes it.")
}

fn settings(facts: &ServerFacts) -> Finding {
    let lines = missing_lines(&facts.settings, "");
    let wrong: Vec<String> = lines
        .iter()
        .filter(|line| !line.optional)
        .map(|line| format!("{} is \"{}\"", line.name, line.current))
        .collect();
    if wrong.is_empty() {
        return Finding::ok("settings", "archiving is on and calls pitr-wal-push");
    }
    let hint = "\"pitr init\" prints the lines for postgresql.conf.";
    Finding::wrong("settings", &wrong.join(", "), hint)
}

/// A warning if `archive_command` reads another configuration file than this check: what is proved here may not be what is
/// archived to. A server on another host may have the same file elsewhere.
fn other_file(command: &str, context: &Context) -> Option<Finding> {
    let ours = std::path::absolute(context.config.path()?).ok()?;
    let names_ours = command.contains(ours.to_str()?);
    let theirs = match command.split_once("--config") {
        Some(_) if names_ours => return None,
        Some((_, rest)) => {
            let rest = rest.trim_start_matches(['=', ' ']);
            rest.rsplit_once("%p").map_or(rest, |(before, _)| before).trim().trim_matches(['"', '\'']).to_owned()
        }
        None if ours == Path::new(DEFAULT_PATH) || !is_push_command(command) => return None,
        None => format!("{DEFAULT_PATH}, or what PITR_CONFIG of the server says"),
    };
    let what =
        format!("archive_command reads another configuration file ({theirs}) than this check ({})", ours.display());
    let hint = "If both are the same file on different hosts, all is well; else check with the file that archive_command reads.";
    Some(Finding::warning("settings", &what, hint))
}

/// Writes an object, twice, reads it back and removes it: what archiving a segment takes.
fn probe(server: &ServerRepository) -> Result<(), RepositoryError> {
    let storage = server.storage();
    let mut random = [0_u8; 8];
    let name = |random: [u8; 8]| format!("check-{:016x}", u64::from_be_bytes(random));
    let base = server.folder();
    let failed = |reason: &str| StorageError {
        storage: storage.describe(),
        key: base.to_string(),
        action: "rely on",
        kind: StorageErrorKind::Unreachable,
        reason: reason.to_owned(),
    };
    getrandom::fill(&mut random).map_err(|error| failed(&error.to_string()))?;
    let key = base.join(&name(random)).map_err(|error| failed(&error.to_string()))?;
    let result = probe_object(storage.as_ref(), &key, &random, &failed);
    // Also after a failure. A writer that may not delete is a good thing: the probe that stays is harmless, since no reader
    // takes it for anything.
    match storage.delete(&key) {
        Err(error) if error.kind == StorageErrorKind::Denied => {}
        other => other?,
    }
    Ok(result?)
}

fn probe_object(
    storage: &dyn Storage,
    key: &crate::storage::Key,
    content: &[u8],
    failed: &dyn Fn(&str) -> StorageError,
) -> Result<(), StorageError> {
    if storage.put(key, content)? != Put::Created {
        return Err(failed("a new name was taken already"));
    }
    if storage.put(key, b"other")? != Put::Exists {
        return Err(failed("it lets a second writer overwrite an object"));
    }
    storage.settle(key)?;
    if storage.get(key, 64)? != content {
        return Err(failed("what was read back is not what was written"));
    }
    Ok(())
}
