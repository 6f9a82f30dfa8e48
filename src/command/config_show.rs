//! `pitr config show`: each setting, its value, and where it comes from. Nothing in it is a secret.

use std::io::{self, Write};

use serde_json::json;

use super::Context;
use crate::config::settings::SETTINGS;
use crate::config::{ClusterConfig, ClusterName, ConfigError};
use crate::report::ExitStatus;

/// Show each setting, its value, and where it comes from
///
/// Shows all clusters of the configuration, or the one that --cluster names. Passwords are never part of the
/// configuration: they stand in the password file (~/.pgpass) or in PGPASSWORD.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Why the configuration could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum ConfigShowError {
    /// It cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Standard output cannot be written to.
    #[error("could not write to standard output: {0}")]
    Output(#[from] io::Error),
}

/// Prints the configuration.
///
/// # Errors
/// A setting that cannot be read; a cluster that is not configured.
pub fn run(_: &Args, context: &Context) -> Result<ExitStatus, ConfigShowError> {
    let names: Vec<ClusterName> = context.config.cluster_names().cloned().collect();
    let clusters = if context.cluster.is_some() || names.is_empty() {
        vec![context.cluster_config()?]
    } else {
        names.iter().map(|name| context.config.cluster(name)).collect::<Result<_, _>>()?
    };
    let mut out = context.stdout();
    if context.json {
        out.json(&document(context, &clusters))?
    } else {
        text(context, &clusters, &mut out)?
    }
    Ok(ExitStatus::Success)
}

fn document(context: &Context, clusters: &[ClusterConfig]) -> serde_json::Value {
    let cluster = |cluster: &ClusterConfig| {
        let settings: serde_json::Map<String, serde_json::Value> = cluster
            .entries()
            .iter()
            .map(|entry| (entry.name.to_string(), json!({"value": entry.value, "origin": entry.origin.to_string()})))
            .collect();
        json!({"name": cluster.name, "settings": settings})
    };
    json!({
        "config_file": context.config.path(),
        "clusters": clusters.iter().map(cluster).collect::<Vec<_>>(),
        "unknown_variables": context.config.unknown_variables(),
    })
}

fn text(context: &Context, clusters: &[ClusterConfig], out: &mut impl Write) -> io::Result<()> {
    match context.config.path() {
        Some(path) => writeln!(out, "configuration file: {}", path.display())?,
        None => writeln!(out, "configuration file: none")?,
    }
    for cluster in clusters {
        writeln!(out, "\ncluster {}", cluster.name)?;
        let width = cluster.entries().iter().map(|entry| entry.name.len()).fold(21, usize::max);
        for entry in cluster.entries() {
            let value = entry.value.as_deref().unwrap_or("-");
            writeln!(out, "  {:<width$} {value:<30} {}", entry.name, entry.origin)?;
            if context.stdout_is_terminal
                && let Some(setting) = SETTINGS.iter().find(|known| known.name == entry.name)
            {
                writeln!(out, "  {:<width$} {} ({})", "", setting.purpose, setting.variable())?;
            }
        }
    }
    for name in context.config.unknown_variables() {
        writeln!(out, "\n{name} is set in the environment, but there is no such setting")?;
    }
    out.flush()
}
