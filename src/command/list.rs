//! `pitr list`: the base backups of a cluster.

use std::io::{self, Write};

use indicatif::HumanBytes;

use super::keeping::ShownBackup;
use super::looking::{LookError, RepositoryArg};
use super::{Context, looking};
use crate::report::ExitStatus;
use crate::repository::{Cluster, KnownBackup, RepositoryError};

/// List the base backups
///
/// Shows each complete base backup, oldest first: when and from where it was taken, how large it is, and whether the server's
/// pages were found damaged in it; what was said about it ("pitr annotate", "pitr keep"), and whether it is forgotten. What can be restored with them is shown by "pitr status".
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,
}

/// Lists the backups of all system identifiers of the cluster, the oldest server first, in the order of their stop LSN.
///
/// # Errors
/// See [`LookError`].
pub fn run(_: &Args, context: &Context) -> Result<ExitStatus, LookError> {
    let (config, repository) = looking::open(context)?;
    let backups = known(&repository.cluster(&config.name))?;
    let backups: Vec<_> = backups.into_iter().map(ShownBackup::from).collect();
    let mut out = context.stdout();
    if context.json {
        out.json(&backups)?
    } else {
        text(&backups, &mut out)?
    }
    Ok(ExitStatus::Success)
}

/// The backups of all system identifiers of a cluster, the oldest server first, in the order of their stop LSN.
pub(super) fn known(cluster: &Cluster) -> Result<Vec<KnownBackup>, RepositoryError> {
    let mut backups = Vec::new();
    for record in cluster.servers()? {
        let mut found = cluster.server(record.system_identifier).known_backups()?;
        // Clocks may be wrong and ids carry their time; LSNs are not.
        found.sort_by_key(|known| (known.info.stop_timeline, known.info.stop_lsn, known.info.id));
        backups.extend(found);
    }
    Ok(backups)
}

/// What people wrote must not drive the terminal, nor look like a line of ours.
pub(super) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn text(backups: &[ShownBackup], out: &mut impl Write) -> io::Result<()> {
    if backups.is_empty() {
        writeln!(out, "There is no base backup yet: take one with \"pitr backup\".")?;
    }
    backups.iter().try_for_each(|backup| describe(backup, out))?;
    out.flush()
}

/// All that is known of a backup without reading its manifest.
pub(super) fn describe(ShownBackup { info, notes }: &ShownBackup, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}  {}", info.id, info.label)?;
    writeln!(out, "  time      {} to {}", info.start_time, info.stop_time)?;
    let (from, to) = (info.start_timeline, info.stop_timeline);
    let timeline = if from == to { from.to_string() } else { format!("{from} to {to}") };
    writeln!(out, "  WAL       {} to {}, timeline {timeline}", info.start_lsn, info.stop_lsn)?;
    writeln!(
        out,
        "  size      {} in {} files, stored as {} ({})",
        HumanBytes(info.raw_bytes),
        info.files,
        HumanBytes(info.stored_bytes),
        info.compression
    )?;
    let source = serde_json::to_value(info.source).ok().and_then(|name| Some(name.as_str()?.to_owned()));
    let (version, source) = (&info.postgres_version, source.unwrap_or_default());
    writeln!(out, "  server    PostgreSQL {version}, {source}, system identifier {}", info.system_identifier)?;
    if info.bad_pages > 0 {
        writeln!(out, "  DAMAGED   {} pages have a wrong checksum on the server", info.bad_pages)?;
    }
    if let Some(keep) = &notes.kept {
        let until = keep.until.map_or_else(|| "until it is released".to_owned(), |until| format!("until {until}"));
        writeln!(out, "  kept      {until} (said at {} on {})", keep.since, keep.host)?;
    }
    if let Some(forgotten) = &notes.forgotten {
        let (since, host, why) = (forgotten.since, &forgotten.host, &forgotten.why);
        let how = if forgotten.removing.is_some() { "BEING REMOVED" } else { "FORGOTTEN" };
        writeln!(out, "  {how}  at {since} on {host}: {why}; nothing is restored from it")?;
    }
    for (key, value) in &notes.annotations {
        writeln!(out, "  note      {key}={}", one_line(value))?;
    }
    if let Some(text) = &notes.text {
        writeln!(out, "  note      {}", one_line(text))?;
    }
    for file in &info.configuration_missing {
        writeln!(out, "  missing   configuration file {file}")?;
    }
    Ok(())
}
