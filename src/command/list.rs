//! `pitr list`: the base backups of a cluster.

use std::io::{self, Write};

use indicatif::HumanBytes;

use super::looking::{LookError, RepositoryArg};
use super::{Context, looking};
use crate::catalog::BackupInfo;
use crate::report::ExitStatus;

/// List the base backups
///
/// Shows each complete base backup, oldest first: when and from where it was taken, how large it is, and whether the server's
/// pages were found damaged in it. What can be restored with them is shown by "pitr status".
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
    let cluster = repository.cluster(&config.name);
    let mut backups = Vec::new();
    for record in cluster.servers()? {
        let mut found = cluster.server(record.system_identifier).backups()?;
        // Clocks may be wrong and ids carry their time; LSNs are not.
        found.sort_by_key(|info| (info.stop_timeline, info.stop_lsn, info.id));
        backups.extend(found);
    }
    let mut out = context.stdout();
    if context.json {
        out.json(&backups)?
    } else {
        text(&backups, &mut out)?
    }
    Ok(ExitStatus::Success)
}

fn text(backups: &[BackupInfo], out: &mut impl Write) -> io::Result<()> {
    if backups.is_empty() {
        writeln!(out, "There is no base backup yet: take one with \"pitr backup\".")?;
    }
    for info in backups {
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
        for file in &info.configuration_missing {
            writeln!(out, "  missing   configuration file {file}")?;
        }
    }
    out.flush()
}
