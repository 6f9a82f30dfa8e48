//! `pitr backup`: a base backup over the replication protocol, stored in chunks.
//!
//! ```text
//! session ─► source (tar, cut) ─► workers (identity, checksums, what is new, LZ4) ─► writer (packs, manifest lines) ─► repository
//! ```
//!
//! Every backup is a full one to restore and an incremental one to store: what the latest backup has at the same place is referred to,
//! and of a chunk that changed a little only its changed pages are stored ([`earlier`], `chunk::change`).
//!
//! What is stored counts only once the manifest stands, and the manifest is published when everything else is durable: the packs,
//! the WAL that the copy needs ([`wal`], [`stream`]), the info. Whatever ends the program before leaves objects that
//! no reader looks at, and no server in backup mode: that state ends with the session.
//!
//! The phases are here; [`pipeline`] has the threads, `report::backup` the advice.

mod admission;
mod changed;
mod check;
mod config_files;
mod earlier;
mod error;
mod pages;
mod pipeline;
mod progress;
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
use self::pipeline::{Feed, Settings};
use self::progress::Progress;
use self::source::{Source, Streamed};
use self::stream::{Slot, Streaming, Tail};
use self::writer::{FileKind, Writer, Written};
use super::server::{self, ServerFacts};
use super::{Context, Interrupt, host};
use crate::catalog::{BackupId, BackupInfo, BackupWal, INFO_FORMAT, PackId, Tablespace, WalRange, WalTail};
use crate::chunk::ChunkId;
use crate::chunk::page::BLOCK_BYTES;
use crate::command::looking::RepositoryArg;
use crate::config::ClusterConfig;
use crate::manifest::{MANIFEST_FORMAT, ManifestHeader, ManifestStop, ManifestWriter};
use crate::replication::{
    BackupEnd, BaseBackup, BaseBackupOptions, ConnInfo, Patience, ReplicationError, Session, SessionKind,
};
use crate::report::{ExitStatus, Explain, Program, Severity};
use crate::repository::earlier::EarlierBackup;
use crate::repository::{Cluster, Repository, ServerRepository};
use crate::wal::{BackupSource, Lsn, PgTime, SegmentName, TimelineId};

/// Take a base backup
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
    /// A name for people, stored with the backup
    #[arg(long, value_name = "TEXT", default_value = "pitr backup")]
    label: String,
    /// Ask the server to send no more than this a second, such as 50MB (32kB to 1GB)
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
    /// Have the server read and send everything, though it knows what has changed (PostgreSQL 17 and later with summarize_wal)
    #[arg(long)]
    full_read: bool,
    /// How long to wait for that WAL, such as 5m [default: the setting wal_timeout]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    wal_timeout: Option<Duration>,
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

/// The first version that keeps summaries of what its WAL changes.
const FIRST_WITH_SUMMARIES: u16 = 17;

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

/// What is known when the server has sent everything.
struct Received {
    streamed: Streamed,
    written: Written,
    end: BackupEnd,
    stop_time: PgTime,
    changed_only: bool,
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
        let earlier = if args.full { None } else { earlier::latest(&repository, id)? };
        Ok(Task { args, context, config, conninfo, facts, block_size, repository, id, random, started_at, earlier })
    }

    fn take(self, session: &mut Session) -> Result<BackupInfo, BackupError> {
        let slot = match self.args.wal {
            WalMode::Stream => Some(Slot::reserve(&self.conninfo, self.random, &self.context.interrupt)?),
            WalMode::Archive => None,
        };
        let configuration = config_files::read(&self.conninfo, &self.context.interrupt);
        let missing = configuration.iter().filter_map(Found::why_missing).collect();
        let changed_only = self.hand_over_manifest(session)?;
        let (mut backup, changed_only) = self.start(session, changed_only)?;
        let begun = Begun::of(&backup);
        let size = self.facts.segment_size;
        let mut streaming = slot
            .map(|slot| slot.stream(self.repository.clone(), begun.lsn, begun.timeline, size, self.config.compression));
        let progress = Progress::begin(self.context.stderr_is_terminal, begun.estimate);
        let received = self.receive(&mut backup, &begun, changed_only, configuration, &progress, streaming.as_ref());
        progress.finish();
        let (streamed, written) = match (received, streaming) {
            // The reader stopped because the WAL stream did; that one knows why.
            (Err(BackupError::Broken), Some(failed)) if failed.has_ended() => return Err(failed.cause()),
            (received, still) => {
                streaming = still;
                received?
            }
        };
        let end = backup.finish()?;
        let received = Received { streamed, written, end, stop_time: host::now(), changed_only };
        self.check(&begun, &received)?;
        let wal = self.bring_wal(session, &begun, &received, streaming, &progress)?;
        self.commit(begun, received, wal, missing)
    }

    /// Hands the earlier backup's manifest to a server that can tell what has changed since. Whether it took it.
    fn hand_over_manifest(&self, session: &mut Session) -> Result<bool, BackupError> {
        let Some(earlier) = self.earlier.as_ref().filter(|earlier| earlier.is_whole() && !self.args.full_read) else {
            return Ok(false);
        };
        if session.server_major()? < FIRST_WITH_SUMMARIES || session.show("summarize_wal")? != "on" {
            return Ok(false);
        }
        let Some(manifest) = earlier.server_manifest()? else { return Ok(false) };
        match session.upload_manifest(&manifest) {
            Ok(()) => Ok(true),
            Err(ReplicationError::Server(why)) => {
                tell_full_read(&why.message);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Starts the backup, with everything if the server cannot tell what has changed. Whether it sends only that.
    fn start<'s>(&self, session: &'s mut Session, changed_only: bool) -> Result<(BaseBackup<'s>, bool), BackupError> {
        if changed_only {
            match BaseBackup::begin(session, &self.options(true)) {
                Ok(begun) => return Ok((begun.on(session), true)),
                Err(ReplicationError::Server(why)) => tell_full_read(&why.message),
                Err(error) => return Err(error.into()),
            }
        }
        Ok((BaseBackup::start(session, &self.options(false))?, false))
    }

    fn options(&self, incremental: bool) -> BaseBackupOptions {
        BaseBackupOptions {
            label: self.args.label.clone(),
            fast_checkpoint: self.args.checkpoint == Checkpoint::Fast,
            rate_limit_kib: self.args.rate_limit.map(|rate| rate.0),
            verify_checksums: self.facts.page_checksums,
            progress: true,
            incremental,
            ..BaseBackupOptions::default()
        }
    }

    /// Runs the pipeline until the server has sent the last byte and all packs are durable.
    fn receive(
        &self,
        backup: &mut BaseBackup<'_>,
        begun: &Begun,
        changed_only: bool,
        configuration: Vec<Found>,
        progress: &Progress,
        streaming: Option<&Streaming>,
    ) -> Result<(Streamed, Written), BackupError> {
        let (jobs, compression, earlier) = (self.config.jobs, self.config.compression, self.earlier.as_ref());
        let settings = Settings { jobs, compression, start: begun.lsn, earlier };
        let object = self.repository.create_manifest(self.id)?;
        let manifest = ManifestWriter::new(object, self.header(begun))
            .map_err(|error| self.repository.manifest_failed(self.id, &error))?;
        let first_pack = PackId { backup: self.id, number: 0 };
        let check_pages = self.facts.page_checksums && self.block_size as usize == BLOCK_BYTES;
        pipeline::run(
            &self.repository,
            &settings,
            |publisher| Writer::new(&self.repository, first_pack, manifest, publisher, compression),
            |feed: &Feed| {
                let streamed = Source::new(feed, progress, check_pages, earlier, streaming)
                    .changed_only(changed_only.then_some(self.block_size))
                    .read(backup)?;
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

    /// Holds what came against what was announced.
    fn check(&self, begun: &Begun, received: &Received) -> Result<(), BackupError> {
        let Received { streamed, end, .. } = received;
        if end.timeline != begun.timeline || streamed.label.start_timeline != begun.timeline {
            return Err(BackupError::TimelineChanged { start: begun.timeline, stop: end.timeline });
        }
        if streamed.label.start != begun.lsn {
            return Err(BackupError::LabelDiffers { label: streamed.label.start, server: begun.lsn });
        }
        match streamed.manifest.system_identifier {
            Some(found) if found != self.facts.system_identifier => {
                let reason = format!("it is of cluster {found}");
                Err(BackupError::FileDiffers { path: "backup_manifest".to_owned(), reason })
            }
            _ => Ok(()),
        }
    }

    /// Sees to it that the WAL which makes the copy consistent is stored.
    fn bring_wal(
        &self,
        session: &mut Session,
        begun: &Begun,
        received: &Received,
        streaming: Option<Streaming>,
        progress: &Progress,
    ) -> Result<BackupWal, BackupError> {
        wal::history(&self.repository, session, begun.timeline, self.config.compression)?;
        let mut needed = wal::needed(&ranges(begun, received), self.facts.segment_size);
        let wal = match streaming {
            None => BackupWal::Archive,
            Some(streaming) => {
                let tail = streaming.finish(received.end.stop_lsn)?;
                BackupWal::Stream { tail: tail.map(|tail| self.keep_tail(&tail, &mut needed)).transpose()? }
            }
        };
        let deadline = self.args.wal_timeout.unwrap_or(self.config.wal_timeout);
        let standby = received.streamed.label.from == BackupSource::Standby;
        let say = |text: &str| progress.say(text);
        wal::wait(&self.repository, &needed, deadline, standby, &self.context.interrupt, say)?;
        Ok(wal)
    }

    fn keep_tail(&self, tail: &Tail, needed: &mut Vec<SegmentName>) -> Result<WalTail, BackupError> {
        let kept = WalTail { segment: tail.segment, bytes: tail.raw.len() as u64, content: ChunkId::of(&tail.raw) };
        self.repository.put_wal_tail(self.id, &kept, &tail.raw)?;
        needed.retain(|segment| *segment != tail.segment);
        Ok(kept)
    }

    /// Writes info and manifest, in this order. The backup exists from the last step on.
    fn commit(
        &self,
        begun: Begun,
        received: Received,
        wal: BackupWal,
        configuration_missing: Vec<String>,
    ) -> Result<BackupInfo, BackupError> {
        if self.context.interrupt.requested() {
            return Err(BackupError::Interrupted);
        }
        let wal_ranges = ranges(&begun, &received);
        let Received { streamed, written, end, stop_time, changed_only } = received;
        let (bad_pages, bad_count) = pages::confirmed(written.suspects, &end);
        let source = streamed.label.from;
        let (stop_lsn, stop_timeline) = (end.stop_lsn, end.timeline);
        let stop =
            ManifestStop { source, stop_lsn, stop_timeline, stop_time, wal_ranges: wal_ranges.clone(), bad_pages };
        let failed = |error| self.repository.manifest_failed(self.id, &error);
        let (manifest, counts) = written.manifest.finish(stop).map_err(failed)?;
        let info = BackupInfo {
            format: INFO_FORMAT,
            id: self.id,
            cluster: self.config.name.to_string(),
            system_identifier: self.facts.system_identifier,
            postgres_major: self.facts.major,
            postgres_version: self.facts.version.clone(),
            segment_size: self.facts.segment_size,
            label: self.args.label.clone(),
            source,
            start_lsn: begun.lsn,
            start_timeline: begun.timeline,
            start_time: self.started_at,
            stop_lsn,
            stop_timeline,
            stop_time,
            wal_ranges,
            tablespaces: begun.tablespaces,
            files: counts.files,
            raw_bytes: counts.raw_bytes,
            stored_bytes: written.stored_bytes,
            packs: written.packs,
            parent: self.earlier.as_ref().map(EarlierBackup::id),
            referenced_bytes: written.referenced_bytes,
            changed_only,
            compression: self.config.compression.to_string(),
            page_checksums: self.facts.page_checksums,
            bad_pages: bad_count,
            wal,
            configuration_missing,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.repository.put_backup_info(&info)?;
        // What a backup refers to may be removed once it has been marked for so long.
        let ran = Duration::from_micros(host::now().0.saturating_sub(self.started_at.0).try_into().unwrap_or(0));
        if ran >= self.config.undelete {
            return Err(BackupError::TooLong { ran, allowed: self.config.undelete });
        }
        let own = (0..info.packs).map(|number| PackId { backup: self.id, number });
        let others =
            self.earlier.iter().flat_map(|earlier| written.referenced.iter().filter_map(|pack| earlier.pack(*pack)));
        let packs = own.chain(others).collect();
        self.repository.commit_manifest(self.id, manifest, &packs, &host::host_name(), &host::now)?;
        Ok(info)
    }
}

/// Says that a server which could have told what has changed did not.
fn tell_full_read(why: &str) {
    eprintln!(
        "pitr: NOTE:  the server cannot tell what has changed since the latest base backup ({why}): it reads and sends everything"
    );
}

impl Begun {
    fn of(backup: &BaseBackup<'_>) -> Begun {
        let tablespaces = backup.tablespaces();
        let named = tablespaces
            .iter()
            .filter_map(|tablespace| Some(Tablespace { oid: tablespace.oid?, location: tablespace.location.clone()? }));
        Begun {
            lsn: backup.start_lsn(),
            timeline: backup.timeline(),
            tablespaces: named.collect(),
            estimate: tablespaces.iter().map(|tablespace| tablespace.size_bytes).sum(),
        }
    }
}

/// The server's own list, which covers everything from start to stop; made from these two if it has none.
fn ranges(begun: &Begun, received: &Received) -> Vec<WalRange> {
    let listed = &received.streamed.manifest.wal_ranges;
    match listed.is_empty() {
        false => listed.clone(),
        true => {
            let (timeline, start_lsn, end_lsn) = (begun.timeline, begun.lsn, received.end.stop_lsn);
            vec![WalRange { timeline, start_lsn, end_lsn }]
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
