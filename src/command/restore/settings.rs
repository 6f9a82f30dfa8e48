//! Settings of the restored server that are too low for the WAL that it will replay.
//!
//! A server that is to answer queries while it recovers (`hot_standby`, on by default) ends with "recovery aborted because of
//! insufficient parameter settings" where WAL comes from one with a higher setting (manual, "Hot Standby", administrator's
//! overview). That would be found out hours later, so it is looked at before.

use std::fs;

use serde::Serialize;

use super::resolve::Resolved;
use super::survey::{AUTO, CONTROL, MAIN, Survey};
use super::{Args, RestoreError};
use crate::pgdata::settings::{has_includes, integer};
use crate::wal::{CONTROL_FILE_READ_SIZE, ControlFile};

/// A setting that is too low.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Shortfall {
    /// The setting.
    pub(super) name: &'static str,
    /// What a server that replays this WAL needs at least.
    pub(super) needed: u32,
    /// What it would have.
    pub(super) configured: u32,
    /// The file that says so; `None` if none does, and the default counts.
    pub(super) file: Option<String>,
    /// The configuration includes further files, which were not read.
    pub(super) has_includes: bool,
}

/// What each setting is where no file says otherwise (manual, "Server Configuration").
fn default(name: &str) -> u32 {
    match name {
        "max_connections" => 100,
        "max_worker_processes" => 8,
        "max_wal_senders" => 10,
        "max_locks_per_transaction" => 64,
        _ => 0,
    }
}

/// The settings that are too low in the configuration that the restored server will have.
pub(super) fn too_low(args: &Args, resolved: &Resolved, survey: &Survey) -> Result<Vec<Shortfall>, RestoreError> {
    let control = survey.read.get(CONTROL).and_then(|bytes| bytes.get(..CONTROL_FILE_READ_SIZE));
    let control = control.and_then(|bytes| ControlFile::parse(bytes).ok()).map(|control| control.limits);
    let needed = match (control, resolved.plan.limits) {
        (Some(control), Some(wal)) => control.highest(wal),
        (Some(limits), None) | (None, Some(limits)) => limits,
        (None, None) => return Ok(Vec::new()),
    };
    // Read in this order, the last one wins.
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    if let Some(path) = &args.config_file {
        let content = fs::read(path).map_err(|source| RestoreError::Local { path: path.clone(), source })?;
        files.push((path.display().to_string(), content));
    } else if survey.has_configuration {
        files.extend(survey.read.get(MAIN).map(|content| (format!("the backup's {MAIN}"), content.clone())));
    } else if args.start {
        // The minimal configuration that is made then allows what is needed.
        return Ok(Vec::new());
    } else if let Some((source, content)) = survey.read.iter().find(|(path, _)| path.starts_with('/')) {
        files.push((format!("the backup's {source}"), content.clone()));
    } else {
        return Ok(Vec::new());
    }
    files.extend(survey.read.get(AUTO).map(|content| (format!("the backup's {AUTO}"), content.clone())));
    Ok(compare(&needed.named(), &files))
}

fn compare(needed: &[(&'static str, u32)], files: &[(String, Vec<u8>)]) -> Vec<Shortfall> {
    let has_includes = files.iter().any(|(_, content)| has_includes(content));
    let shortfalls = needed.iter().filter_map(|(name, needed)| {
        let said = files.iter().rev().find_map(|(file, content)| Some((integer(content, name)?, file)));
        let (configured, file) = said.map_or((default(name), None), |(value, file)| (value, Some(file.clone())));
        (configured < *needed).then_some(Shortfall { name, needed: *needed, configured, file, has_includes })
    });
    shortfalls.collect()
}

/// What the user should know about it.
pub(super) fn note(short: &Shortfall) -> String {
    let Shortfall { name, needed, configured, file, has_includes } = short;
    let place = file.as_ref().map_or_else(|| "by default".to_owned(), |file| format!("in {file}"));
    let unless = if *has_includes { " (unless a file that it includes says otherwise)" } else { "" };
    format!(
        "{name} is {configured} {place}{unless}, and this WAL needs at least {needed}: raise it, or the server aborts recovery \
         with \"insufficient parameter settings\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &str) -> (String, Vec<u8>) {
        (name.to_owned(), content.as_bytes().to_vec())
    }

    /// The last file that names a setting counts, the last line in it, and PostgreSQL's default where none does.
    #[test]
    fn the_last_word_counts() {
        let needed = [("max_connections", 200), ("max_wal_senders", 10), ("max_prepared_transactions", 5)];
        let main = file("main", "max_connections = 300\nMax_Connections 500 # more\n#max_prepared_transactions = 9\n");
        let auto = file("auto", "max_connections = '150'\n");
        let found = |files: &[(String, Vec<u8>)]| -> Vec<(&str, u32, Option<String>)> {
            let short = compare(&needed, files);
            short.into_iter().map(|short| (short.name, short.configured, short.file)).collect()
        };
        let prepared = ("max_prepared_transactions", 0, None);
        assert_eq!(found(std::slice::from_ref(&main)), std::slice::from_ref(&prepared));
        assert_eq!(found(&[main, auto]), [("max_connections", 150, Some("auto".to_owned())), prepared]);
    }

    /// What an included file says is not known, and the note says that.
    #[test]
    fn includes() {
        let short = compare(&[("max_connections", 101)], &[file("main", "include_dir 'conf.d'\n")]);
        assert!(short[0].has_includes && note(&short[0]).contains("unless a file that it includes"));
        let short = compare(&[("max_connections", 101)], &[file("main", "#include_dir 'conf.d'\n")]);
        assert!(!short[0].has_includes && !note(&short[0]).contains("unless"));
    }
}
