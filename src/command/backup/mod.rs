//! `pitr backup`: a base backup, stored in chunks.
//!
//! ```text
//! session ─► source (tar, cut) ─┬─► workers (identity, checksums, what is new, LZ4) ─► writer (packs, manifest lines) ─► repository
//! files ─► local (walk) ────────┘   (that read the files, too)
//! ```
//!
//! The server sends its files over the replication protocol ([`protocol`]), or they are read where they lie ([`local`]).
//!
//! Every backup is a full one to restore and an incremental one to store: what the latest backup has at the same place is referred to,
//! and of a chunk that changed a little only its changed pages are stored ([`earlier`], `chunk::change`).
//!
//! What is stored counts only once the manifest stands, and the manifest is published when everything else is durable: the packs,
//! the WAL that the copy needs ([`wal`], [`stream`]), the info. Whatever ends the program before leaves objects that
//! no reader looks at, and no server in backup mode: that state ends with the session.
//!
//! The first phases are here, the last in [`commit`]; [`pipeline`] has the threads, `report::backup` the advice.

mod admission;
mod ahead;
mod changed;
mod check;
mod commit;
mod config_files;
mod earlier;
mod error;
mod local;
mod own_manifest;
mod pages;
mod pipeline;
mod progress;
mod protocol;
mod rate;
mod result;
mod source;
mod stream;
mod wal;
mod worker;
mod writer;

use std::time::Duration;

pub use error::BackupError;
pub use rate::RateLimit;

use clap::ValueEnum;

use self::config_files::Found;
use self::local::Local;
use self::own_manifest::OwnManifest;
use self::pipeline::{Feed, Settings};
use self::progress::Progress;
use self::protocol::Protocol;
use self::source::Streamed;
use self::stream::{Slot, Streaming};
use self::writer::{FileKind, Writer, Written};
use super::server::{self, ServerFacts};
use super::{Context, Interrupt, host};
use crate::catalog::{self, BackupId, BackupInfo, PackId, Tablespace};
use crate::chunk::page::BLOCK_BYTES;
use crate::command::looking::RepositoryArg;
use crate::config::ClusterConfig;
use crate::manifest::{MANIFEST_FORMAT, ManifestHeader, ManifestWriter};
use crate::replication::{ConnInfo, Patience, Session, SessionKind};
use crate::report::{ExitStatus, Explain, Program, Severity};
use crate::repository::earlier::EarlierBackup;
use crate::repository::{Cluster, Repository, ServerRepository};
use crate::wal::{Lsn, PgTime, TimelineHistory, TimelineId};

/// Take a base backup
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
    /// Who reads the data: the server, which sends it over the replication protocol, or pitr itself, in the data directory on this
    /// host
    #[arg(long, value_enum, default_value_t = ReadBy::Protocol)]
    source: ReadBy,
    /// A name for people, stored with the backup
    #[arg(long, value_name = "TEXT", default_value = "pitr backup")]
    label: String,
    /// Threads that compress and check, and with --source local read, instead of the configured number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    jobs: Option<u32>,
    /// Ask the server to send (with --source local: read) no more than this a second, such as 50MB (32kB to 1GB)
    #[arg(long, value_name = "RATE")]
    rate_limit: Option<RateLimit>,
    /// Begin with a checkpoint at once (more I/O for a moment), or spread it out as the server is set (minutes until the
    /// first byte)
    #[arg(long, value_enum, default_value_t = Checkpoint::Fast)]
    checkpoint: Checkpoint,
    /// Where the WAL comes from that the backup needs: the server's archiving, or streamed along
    #[arg(long, value_enum, default_value_t = WalMode::Archive)]
    wal: WalMode,
    /// Store everything anew, instead of referring to what the latest backup has already
    #[arg(long)]
    full: bool,
    /// Read everything, though the server (PostgreSQL 17 and later with summarize_wal) or with --source local the WAL tells what has
    /// changed
    #[arg(long)]
    full_read: bool,
    /// How long to wait for that WAL, such as 5m [default: the setting wal_timeout]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    wal_timeout: Option<Duration>,
}

/// Who reads the server's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum ReadBy {
    /// The server, which sends them over the replication protocol.
    Protocol,
    /// This program, in the data directory.
    Local,
}

impl From<ReadBy> for catalog::ReadBy {
    fn from(source: ReadBy) -> Self {
        match source {
            ReadBy::Protocol => catalog::ReadBy::Protocol,
            ReadBy::Local => catalog::ReadBy::Local,
        }
    }
}

/// How the backup's checkpoint is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Checkpoint {
    /// As fast as the server can.
    Fast,
    /// Spread over `checkpoint_completion_target` of `checkpoint_timeout`.
    Spread,
}

/// Where the needed WAL comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum WalMode {
    /// The server archives it; the backup waits for it.
    Archive,
    /// A second session streams it into the repository.
    Stream,
}

/// Takes a base backup.
///
/// # Errors
/// [`BackupError`]: there is no new backup then.
pub fn run(args: &Args, context: &Context) -> Result<ExitStatus, BackupError> {
    let config = context.cluster_config()?;
    let conninfo = server::conninfo(&config)?;
    let repository = Repository::open(config.repository.open()?)?;
    let patience = Patience { interrupt: context.interrupt.flag(), ..Patience::default() };
    let mut session = Session::connect(&conninfo, SessionKind::Physical, &patience)?;
    let task = Task::prepare(args, context, &config, conninfo, &repository, &mut session)?;
    let info = task.take(&mut session)?;
    result::tell(&info, context)?;
    roll_up(&repository.cluster(&config.name), &info);
    Ok(if info.bad_pages > 0 { ExitStatus::BadPages } else { ExitStatus::Success })
}

/// Makes roll-ups of what was archived meanwhile: what keeps plans quick. The backup is complete without them.
fn roll_up(cluster: &Cluster, info: &BackupInfo) {
    let made = cluster.server_record(info.system_identifier).and_then(|record| {
        let server = cluster.server(info.system_identifier);
        server.roll_up_complete(&record, info.stop_timeline)
    });
    if let Err(error) = made {
        let mut report = error.report();
        report.what = format!("could not make roll-ups of the stored WAL: {}", report.what);
        report.meaning = "The backup is complete. Plans and \"pitr status\" take longer without roll-ups.".to_owned();
        report.hint = "\"pitr reindex\" makes them.".to_owned();
        report.print(Program::Pitr, Severity::Warning);
    }
}

/// A backup about to be taken: everything that can be checked before has been.
struct Task<'a> {
    args: &'a Args,
    context: &'a Context,
    config: &'a ClusterConfig,
    conninfo: ConnInfo,
    facts: ServerFacts,
    path: TimelineHistory,
    block_size: u32,
    repository: ServerRepository,
    id: BackupId,
    random: u32,
    started_at: PgTime,
    /// What need not be stored again.
    earlier: Option<EarlierBackup>,
}

/// What is known when the server has begun to send.
struct Begun {
    lsn: Lsn,
    timeline: TimelineId,
    tablespaces: Vec<Tablespace>,
    estimate: Option<u64>,
}

/// A backup that has begun.
enum Origin<'s> {
    Protocol(Protocol<'s>),
    Local(Box<Local>),
}

/// What goes on beside the reading.
struct Reading<'a> {
    progress: &'a Progress,
    /// Without the WAL that it brings there is no use in going on.
    streaming: Option<&'a Streaming>,
}

/// What is known when everything has been read.
struct Received {
    streamed: Streamed,
    written: Written,
    stop_time: PgTime,
}

impl<'a> Task<'a> {
    fn prepare(
        args: &'a Args,
        context: &'a Context,
        config: &'a ClusterConfig,
        conninfo: ConnInfo,
        repository: &Repository,
        session: &mut Session,
    ) -> Result<Self, BackupError> {
        let facts = server::facts(session)?;
        config.check_identity(facts.system_identifier)?;
        let cluster = repository.cluster(&config.name);
        admission::check_record(&facts, &cluster.server_record(facts.system_identifier)?)?;
        if args.wal == WalMode::Archive {
            admission::check_archiving(session, &facts)?;
        }
        let block_size = session.show("block_size")?.parse().unwrap_or(0);
        let random = random()?;
        let started_at = host::now();
        let id = BackupId::new(started_at, random);
        let repository = cluster.server(facts.system_identifier);
        let path = wal::path(&repository, session, facts.timeline)?;
        let earlier = if args.full { None } else { earlier::latest(&repository, id, &path)? };
        Ok(Task {
            args,
            context,
            config,
            conninfo,
            facts,
            path,
            block_size,
            repository,
            id,
            random,
            started_at,
            earlier,
        })
    }

    fn take(self, session: &mut Session) -> Result<BackupInfo, BackupError> {
        let slot = match self.args.wal {
            WalMode::Stream => Some(Slot::reserve(&self.conninfo, self.random, &self.context.interrupt)?),
            WalMode::Archive => None,
        };
        let configuration = config_files::read(&self.conninfo, &self.context.interrupt);
        let missing = configuration.iter().filter_map(Found::why_missing).collect();
        let origin = match self.args.source {
            ReadBy::Protocol => Origin::Protocol(Protocol::start(&self, session)?),
            ReadBy::Local => Origin::Local(Box::new(Local::start(&self)?)),
        };
        let begun = match &origin {
            Origin::Protocol(protocol) => protocol.begun(),
            Origin::Local(local) => local.begun(),
        };
        let size = self.facts.segment_size;
        let mut streaming = slot
            .map(|slot| slot.stream(self.repository.clone(), begun.lsn, begun.timeline, size, self.config.compression));
        let progress = Progress::begin(self.context.stderr_is_terminal, begun.estimate);
        let reading = Reading { progress: &progress, streaming: streaming.as_ref() };
        let received = self.receive(origin, &begun, configuration, &reading);
        progress.finish();
        let (streamed, written) = match (received, streaming) {
            // The reader stopped because the WAL stream did; that one knows why.
            (Err(BackupError::Broken), Some(failed)) if failed.has_ended() => return Err(failed.cause()),
            (received, still) => {
                streaming = still;
                received?
            }
        };
        let received = Received { streamed, written, stop_time: host::now() };
        self.check(&begun, &received)?;
        let wal = self.bring_wal(session, &begun, &received, streaming, &progress)?;
        self.commit(begun, received, wal, missing)
    }

    /// Runs the pipeline until everything has been read and all packs are durable.
    fn receive(
        &self,
        origin: Origin<'_>,
        begun: &Begun,
        configuration: Vec<Found>,
        reading: &Reading<'_>,
    ) -> Result<(Streamed, Written), BackupError> {
        let (jobs, compression) = (self.args.jobs.unwrap_or(self.config.jobs), self.config.compression);
        let settings = Settings { jobs, compression, start: begun.lsn, earlier: self.earlier.as_ref() };
        let object = self.repository.create_manifest(self.id)?;
        let manifest = ManifestWriter::new(object, self.header(begun))
            .map_err(|error| self.repository.manifest_failed(self.id, &error))?;
        let first_pack = PackId { backup: self.id, number: 0 };
        let own = match origin {
            Origin::Protocol(_) => None,
            Origin::Local(_) => Some(OwnManifest::begin(self.facts.major, self.facts.system_identifier)),
        };
        pipeline::run(
            &self.repository,
            &settings,
            |publisher| {
                Writer::new(&self.repository, first_pack, manifest, publisher, compression).with_own_manifest(own)
            },
            |feed: &Feed| {
                let streamed = match origin {
                    Origin::Protocol(protocol) => protocol.read(self, feed, reading)?,
                    Origin::Local(local) => local.read(self, feed, reading)?,
                };
                for Found { source, content } in configuration {
                    let (content, missing) = match content {
                        Ok(content) => (content, None),
                        Err(why) => (Vec::new(), Some(why)),
                    };
                    feed.small_file(FileKind::Config(source, missing), content)?;
                }
                Ok(streamed)
            },
        )
    }

    /// Data pages have checksums that are looked at.
    fn check_pages(&self) -> bool {
        self.facts.page_checksums && self.block_size as usize == BLOCK_BYTES
    }

    fn header(&self, begun: &Begun) -> ManifestHeader {
        ManifestHeader {
            format: MANIFEST_FORMAT,
            id: self.id,
            cluster: self.config.name.to_string(),
            system_identifier: self.facts.system_identifier,
            postgres_major: self.facts.major,
            postgres_version: self.facts.version.clone(),
            segment_size: self.facts.segment_size,
            block_size: self.block_size,
            page_checksums: self.facts.page_checksums,
            label: self.args.label.clone(),
            start_lsn: begun.lsn,
            start_timeline: begun.timeline,
            start_time: self.started_at,
            tablespaces: begun.tablespaces.clone(),
            compression: self.config.compression.to_string(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            pack_sources: self.earlier.as_ref().map_or_else(|| vec![self.id], |earlier| earlier.sources().to_vec()),
        }
    }
}

fn random() -> Result<u32, BackupError> {
    let mut bytes = [0; 4];
    let failed = |error: getrandom::Error| BackupError::Local {
        action: "draw a random number",
        source: std::io::Error::other(error.to_string()),
    };
    getrandom::fill(&mut bytes).map_err(failed)?;
    Ok(u32::from_le_bytes(bytes))
}
