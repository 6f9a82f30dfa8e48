//! Writing: the data directory, the WAL that nobody serves, the settings, and `pg_control` last.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::databases::Databases;
use super::ground::Ground;
use super::resolve::Resolved;
use super::survey::Survey;
use super::trust::Trust;
use super::{Args, RestoreError, progress};
use crate::catalog::BackupId;
use crate::command::Context;
use crate::config::{ClusterConfig, Config, Origin};
use crate::pgdata::layout::{self, Layout, Options, Progress};
use crate::pgdata::marker::Marker;
use crate::pgdata::settings::{self, RecoverySettings};
use crate::pgdata::{FetchCommand, PgDataError};
use crate::recovery::WalCopy;
use crate::repository::RepositoryError;
use crate::wal::{PostgresMajor, ServerLimits};

/// The first version that reads WAL ahead in recovery (`recovery_prefetch`).
const FIRST_WITH_READ_AHEAD: PostgresMajor = PostgresMajor(15);

/// What was written.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Written {
    /// Files written or kept.
    pub(super) files: u64,
    /// Bytes written or kept.
    pub(super) bytes: u64,
    /// Bytes that were there already.
    pub(super) kept_bytes: u64,
    /// Those of them that were not read, but trusted by length and time.
    pub(super) trusted_bytes: u64,
    /// What a server has to allow to run on the result.
    #[serde(skip)]
    pub(super) limits: ServerLimits,
}

/// What is written otherwise than plainly.
#[derive(Clone, Copy)]
pub(super) struct Choice<'a> {
    /// Which databases; `None`: all.
    pub(super) databases: Option<&'a Databases>,
    /// Which files are trusted; `None`: none.
    pub(super) trust: Option<&'a Trust>,
}

/// Writes everything.
pub(super) fn write(
    args: &Args,
    context: &Context,
    resolved: &Resolved,
    survey: &Survey,
    ground: &Ground,
    choice: Choice<'_>,
) -> Result<Written, RestoreError> {
    let left_out = choice.databases.map(Databases::left_out_oids).unwrap_or_default();
    let settings = recovery_settings(args, context, resolved, !left_out.is_empty())?;
    let block = settings.block().map_err(PgDataError::from)?;
    let marker = Marker {
        system_identifier: resolved.info.system_identifier,
        backup: resolved.info.id.to_string(),
        outside: ground.places.outside().cloned().collect(),
    };
    let manifest = resolved.server.open_manifest(resolved.info.id)?;
    let sources: Vec<BackupId> = manifest.header().pack_sources.clone();
    let progress = Progress::default();
    let flag = context.interrupt.flag();
    let options = Options {
        jobs: args.jobs.unwrap_or(resolved.cluster.jobs) as usize,
        owner: ground.owner,
        over: ground.over,
        trusted_before: choice.trust.and_then(Trust::before),
        left_out: &left_out,
        read: &|chunks| resolved.server.fetch_frames(&sources, chunks.iter().copied()),
        interrupt: &flag,
        progress: &progress,
    };
    let layout = progress::shown(context.stderr_is_terminal, survey.bytes, &progress, || {
        layout::write(&ground.places, &marker, manifest, options)
    });
    let layout = layout.map_err(|error| name_manifest(error, resolved))?;
    lay_wal(resolved, &layout)?;
    settle_settings(&layout, &block)?;
    let limits = layout.limits();
    layout.finish()?;
    Ok(Written {
        files: progress.files.load(Ordering::Relaxed),
        bytes: progress.bytes.load(Ordering::Relaxed),
        kept_bytes: progress.kept_bytes.load(Ordering::Relaxed),
        trusted_bytes: progress.trusted_bytes.load(Ordering::Relaxed),
        limits,
    })
}

/// A damaged manifest is told with its place.
fn name_manifest(error: PgDataError, resolved: &Resolved) -> RestoreError {
    match error {
        PgDataError::Manifest(error) => resolved.server.manifest_error(resolved.info.id, error).into(),
        other => other.into(),
    }
}

/// Segments that `pitr-wal-fetch` does not serve, as the plan says.
fn lay_wal(resolved: &Resolved, layout: &Layout) -> Result<(), RestoreError> {
    let segment_bytes = resolved.record.segment_size_bytes.bytes();
    for laid in &resolved.plan.lay {
        layout.lay_segment(&laid.name.to_string(), segment_bytes, |out| read(resolved, &laid.copy, out))?;
    }
    Ok(())
}

fn read(resolved: &Resolved, copy: &WalCopy, out: &mut dyn std::io::Write) -> Result<(), RepositoryError> {
    resolved.server.read_copy(copy, out)
}

/// Settings, and the signal that makes the server recover.
fn settle_settings(layout: &Layout, block: &str) -> Result<(), RestoreError> {
    const AUTO: &str = "postgresql.auto.conf";
    const MAIN: &str = "postgresql.conf";
    layout.put(AUTO, &settings::rewrite(&layout.get(AUTO)?, block))?;
    // A target left in postgresql.conf would stop the server with "multiple recovery targets specified", or too early.
    if let Some(quiet) = settings::without_targets(&layout.get(MAIN)?) {
        layout.put(MAIN, &quiet)?;
    }
    Ok(layout.put("recovery.signal", b"")?)
}

fn recovery_settings(
    args: &Args,
    context: &Context,
    resolved: &Resolved,
    has_holes: bool,
) -> Result<RecoverySettings, RestoreError> {
    Ok(RecoverySettings {
        target: resolved.plan.recovery_target.clone(),
        timeline: resolved.plan.timeline,
        action: args.action.into(),
        fetch: fetch_command(args, &context.config, &resolved.cluster)?,
        take_over: args.take_over,
        has_holes,
        read_ahead: resolved.plan.lost.complete || resolved.info.postgres_major < FIRST_WITH_READ_AHEAD,
    })
}

/// How the server will call `pitr-wal-fetch`: it knows neither this process's environment nor its options.
fn fetch_command(args: &Args, config: &Config, cluster: &ClusterConfig) -> Result<FetchCommand, RestoreError> {
    let program = match &args.wal_fetch {
        Some(program) => std::path::absolute(program),
        None => std::env::current_exe().map(|own| own.with_file_name("pitr-wal-fetch")),
    };
    let program = program.map_err(|source| RestoreError::Local { path: PathBuf::from("pitr-wal-fetch"), source })?;
    if !program.is_file() {
        return Err(RestoreError::NoFetchProgram { path: program });
    }
    let mut arguments = Vec::new();
    if let Some(path) = config.path() {
        let path = absolute_text(path)?;
        arguments.extend(["--config".to_owned(), path]);
    }
    arguments.extend(["--cluster".to_owned(), cluster.name.to_string()]);
    let environment = cluster.entries().iter().filter_map(|entry| match &entry.origin {
        Origin::Environment(name) => Some((name.clone(), entry.value.clone()?)),
        Origin::File { .. } | Origin::Option(_) | Origin::Default => None,
    });
    Ok(FetchCommand { environment: environment.collect(), program, arguments })
}

fn absolute_text(path: &Path) -> Result<String, RestoreError> {
    let absolute = std::path::absolute(path).map_err(|source| RestoreError::Local { path: path.to_owned(), source })?;
    Ok(crate::pgdata::quote::path_text(&absolute).map_err(PgDataError::from)?.to_owned())
}
