//! `pitr init`: makes the repository, announces the server to it, and says what server and configuration still need.
//!
//! It changes the repository only, never the server or its configuration: those belong to whoever looks after them. Run
//! again, it changes nothing and shows what is still missing. Nothing is made before the server has said who it is.
//!
//! * [`place`]: where the repository may lie, and whose it must be.
//! * [`admit`]: whether the server may join the cluster in the repository.
//! * [`advice`]: the lines for the server and the configuration, from the files in `pgconf/`.
//! * [`outcome`]: what is shown, as text and as JSON.

mod admit;
mod advice;
mod outcome;
mod place;

pub use admit::AdmitError;
pub use advice::{Takes, is_push_command, missing_lines};
pub use place::PlaceError;

use std::io;
use std::path::{Path, PathBuf};

use super::server::{self, Rights, ServerError, ServerFacts};
use super::{Context, host};
use crate::config::{ClusterConfig, Config, ConfigError, DEFAULT_PATH, Place};
use crate::durable::Owner;
use crate::pgdata::quote::{self, UnquotablePath};
use crate::replication::conninfo::Endpoint;
use crate::replication::{ConnInfo, SessionKind};
use crate::report::ExitStatus;
use crate::repository::{Repository, RepositoryError, ServerRecord};
use crate::storage::{Location, StorageError};
use advice::Road;
use outcome::{Mirror, Outcome};

/// Make the repository, announce the server to it, and show what the server still needs
///
/// Connects to the server, makes the repository if there is none, and records the server in it. Then prints the lines
/// that postgresql.conf, pg_hba.conf and pitr.toml still lack, and the SQL for a role with the least rights that will do.
/// Changes nothing on the server. Run it again at any time to see what is still missing.
///
/// As root, the repository is given to the user that the PostgreSQL server runs as.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Directory of the repository, or s3://BUCKET/FOLDER, instead of the configured one
    #[arg(long, value_name = "DIR")]
    pub repository: Option<PathBuf>,
    /// How to connect to the server, as libpq writes it, instead of the configured way
    #[arg(long, value_name = "CONNINFO")]
    pub conninfo: Option<String>,
    /// The cluster went through pg_upgrade: add its new system identifier, keep what the old one has
    #[arg(long)]
    pub upgraded: bool,
}

const EXAMPLES: &str = "\
Example:  pitr init --cluster main --repository /srv/pitr --conninfo \"host=/var/run/postgresql user=postgres\"

Without a configuration file yet, it prints one to be put into /etc/pitr/pitr.toml. No passwords on the command line: they \
are read from the password file (~/.pgpass) or PGPASSWORD.";

/// Why a cluster could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A path given as an option does not exist in a form that can be made absolute, or is not UTF-8.
    #[error("cannot use \"{}\" as the directory of the repository: {reason}", path.display())]
    Path {
        /// As given.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The server does not let this role in: its advice has been printed already.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The repository cannot lie there.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The server may not join the cluster.
    #[error(transparent)]
    Admit(#[from] AdmitError),
    /// The repository failed.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A path that `postgresql.conf` cannot carry.
    #[error(transparent)]
    Quote(#[from] UnquotablePath),
    /// Standard output cannot be written to.
    #[error("could not write to standard output: {0}")]
    Output(#[from] io::Error),
}

impl From<StorageError> for InitError {
    fn from(error: StorageError) -> Self {
        InitError::Repository(error.into())
    }
}

/// Sets the cluster up as far as the repository is concerned.
///
/// # Errors
/// See [`InitError`]; nothing is half-made that a second run would not complete.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, InitError> {
    let config = with_options(args, &context.config)?;
    let cluster = config.select(context.cluster.as_ref(), None)?;
    for place in cluster.repositories() {
        if let Some(path) = place.location.directory() {
            place::refuse_inside_server(path)?;
        }
    }
    let info = server::conninfo(&cluster)?;
    let facts = match server::connect(&info, SessionKind::Physical, &context.interrupt) {
        Ok(mut session) => server::facts(&mut session)?,
        Err(error) => {
            if !context.json {
                outcome::explain_access(&error, &info.user, road(&info), &mut context.stdout())?;
            }
            return Err(error.into());
        }
    };
    if !args.upgraded {
        cluster.check_identity(facts.system_identifier)?;
    }
    let rights = server::connect(&info, SessionKind::Sql, &context.interrupt)
        .and_then(|mut session| server::rights(&mut session));

    let (repository, made) = repository(&cluster.repository, &info, &facts)?;
    let added = announce(&repository, &cluster, record(&facts), args.upgraded)?;
    let mirrors = mirrors(&cluster, &info, &facts, &repository, args.upgraded)?;
    let outcome = outcome(&cluster, &config, &facts, &info, rights, (&repository, made, added), mirrors)?;
    let mut out = context.stdout();
    if context.json {
        out.json(&outcome)?
    } else {
        outcome.write(&mut out)?
    }
    Ok(ExitStatus::Success)
}

/// The configuration with the options of this run.
fn with_options(args: &Args, config: &Config) -> Result<Config, InitError> {
    let mut config = config.clone();
    if let Some(path) = &args.repository {
        let refuse = |reason: String| InitError::Path { path: path.clone(), reason };
        let is_bucket = path.to_str().is_some_and(|text| text.starts_with("s3:"));
        let absolute = if is_bucket { Ok(path.clone()) } else { std::path::absolute(path) };
        let absolute = absolute.map_err(|error| refuse(error.to_string()))?;
        let text = absolute.to_str().ok_or_else(|| refuse("it is not UTF-8".to_owned()))?;
        config.set_option("repository", "--repository", text);
    }
    if let Some(conninfo) = &args.conninfo {
        config.set_option("conninfo", "--conninfo", conninfo);
    }
    Ok(config)
}

/// Opens the repository, or makes it in a directory that is missing or empty, or in an empty folder of a bucket. Tells
/// whether it was made.
fn repository(place: &Location, info: &ConnInfo, facts: &ServerFacts) -> Result<(Repository, bool), InitError> {
    let owner = servers_user(info, facts);
    match place {
        Location::Directory(path) => drop(place::make(path, owner)?),
        Location::S3(settings) => place::refuse_overwriting(settings)?,
    }
    match Repository::open(place.open()?) {
        Err(RepositoryError::NotARepository { .. }) => {
            // Looked at before the directory changes hands: what is not empty is not ours to give away.
            if let (Some(path), Some(owner)) = (place.directory(), owner)
                && place::is_empty(path)
            {
                place::give(path, owner)?;
            }
            Ok((Repository::create(place.open()?, host::now())?, true))
        }
        other => Ok((other?, false)),
    }
}

/// The user that the server runs as, if this process is root: the owner of its data directory or of its socket.
fn servers_user(info: &ConnInfo, facts: &ServerFacts) -> Option<Owner> {
    let data = facts.settings.get("data_directory").map(PathBuf::from);
    let sockets = info.endpoints.iter().filter_map(|endpoint| match endpoint {
        Endpoint::Unix { directory, port } => Some(directory.join(format!(".s.PGSQL.{port}"))),
        Endpoint::Tcp { .. } => None,
    });
    // A path of a server on another host may exist here too, but then it is no data directory of this cluster; taking
    // its owner is still right more often than leaving the repository to root.
    data.into_iter().chain(sockets).find_map(|path| place::owner_of(&path))
}

fn road(info: &ConnInfo) -> Road {
    let socket = info.endpoints.iter().any(|endpoint| matches!(endpoint, Endpoint::Unix { .. }));
    if socket { Road::Socket } else { Road::Tcp }
}

fn record(facts: &ServerFacts) -> ServerRecord {
    ServerRecord {
        system_identifier: facts.system_identifier,
        major: facts.major,
        segment_size_bytes: facts.segment_size,
        page_checksums: facts.page_checksums,
        created_at: host::now(),
        created_by: host::host_name(),
        upgraded_from: None,
    }
}

/// Opens or makes the further repositories, and announces the server there with the record that the first one has.
fn mirrors(
    cluster: &ClusterConfig,
    info: &ConnInfo,
    facts: &ServerFacts,
    first: &Repository,
    upgraded: bool,
) -> Result<Vec<Mirror>, InitError> {
    let home = first.cluster(&cluster.name);
    let record = home.server_record(facts.system_identifier)?;
    let set_up = |place: &Place| {
        let (repository, made) = repository(&place.location, info, facts)?;
        // What the cluster was before pg_upgrade may not have been copied there.
        let upgraded = upgraded && !repository.cluster(&cluster.name).servers()?.is_empty();
        let server_added = announce(&repository, cluster, record.clone(), upgraded)?;
        Ok(Mirror {
            name: place.name.clone(),
            repository: place.location.to_string(),
            place: repository.storage().describe(),
            weakness: repository.storage().weakness(),
            made,
            server_added,
            of_root: is_of_root(&place.location),
        })
    };
    cluster.mirrors.iter().map(set_up).collect()
}

fn is_of_root(place: &Location) -> bool {
    rustix::process::geteuid().is_root() && place.directory().is_some_and(place::belongs_to_root)
}

/// Writes the server's record, unless it is there. Tells whether it was written.
fn announce(
    repository: &Repository,
    cluster: &ClusterConfig,
    record: ServerRecord,
    upgraded: bool,
) -> Result<bool, InitError> {
    let known: Vec<_> = repository
        .clusters()?
        .into_iter()
        .map(|name| Ok((repository.cluster(&name).servers()?, name)))
        .collect::<Result<Vec<_>, RepositoryError>>()?;
    match admit::admit(&known, &cluster.name, record, upgraded)? {
        Some(record) => {
            repository.cluster(&cluster.name).add_server(&record)?;
            Ok(true)
        }
        None => Ok(false),
    }
}

fn outcome(
    cluster: &ClusterConfig,
    config: &Config,
    facts: &ServerFacts,
    info: &ConnInfo,
    rights: Result<Rights, ServerError>,
    (repository, repository_made, server_added): (&Repository, bool, bool),
    mirrors: Vec<Mirror>,
) -> Result<Outcome, InitError> {
    let (sql_refused, rights) = match rights {
        Ok(rights) => (None, Some(rights)),
        Err(error) => (Some(error.to_string()), None),
    };
    let archive_command = archive_command(config.path())?;
    let configuration = outcome::configuration(cluster, config, facts.system_identifier)?;
    Ok(Outcome {
        cluster: cluster.name.clone(),
        system_identifier: facts.system_identifier,
        postgres_version: facts.version.clone(),
        segment_size_bytes: facts.segment_size.bytes(),
        page_checksums: facts.page_checksums,
        repository: cluster.repository.to_string(),
        place: repository.storage().describe(),
        repository_weakness: repository.storage().weakness(),
        repository_made,
        server_added,
        repository_of_root: is_of_root(&cluster.repository),
        mirrors,
        postgresql_conf: missing_lines(&facts.settings, &archive_command),
        configuration,
        access: outcome::access(&info.user, road(info), rights.as_ref(), sql_refused),
        spool: outcome::spool(&cluster.spool, servers_user(info, facts)),
    })
}

/// `archive_command` with absolute paths: `pitr-wal-push` lies beside `pitr`.
fn archive_command(config: Option<&Path>) -> Result<String, InitError> {
    let push = std::env::current_exe()?.with_file_name("pitr-wal-push");
    let mut command = quote::command_word(quote::path_text(&push)?);
    if let Some(path) = config.filter(|path| *path != Path::new(DEFAULT_PATH)) {
        let absolute = std::path::absolute(path)?;
        command.push_str(&format!(" --config {}", quote::command_word(quote::path_text(&absolute)?)));
    }
    Ok(format!("{command} %p"))
}
