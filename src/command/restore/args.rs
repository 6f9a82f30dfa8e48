//! The command line of `pitr restore`.

use std::path::PathBuf;

use clap::ValueEnum;

use super::TargetArgs;
use crate::command::looking::RepositoryArg;
use crate::durable::Owner;
use crate::pgdata::TargetAction;

/// Bring a cluster back to a moment, in a directory of its own
///
/// Says first whether the moment can be reached, from which backup, along which timelines, and what the last commit
/// before it is; then asks; then writes. The living cluster is not touched: the result is a clone that does not archive,
/// unless --take-over says that it replaces the cluster. A restore that broke off is run again with the same words.
///
/// Times: 2026-03-02 14:25:03.123456+01, "2026-03-02 14:25 Europe/Berlin", "yesterday 14:25", 14:25, "5 min ago". A time
/// without a zone is in this host's; the plan shows it back in UTC.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to stop.
    #[command(flatten)]
    pub stop: TargetArgs,
    /// Which repository.
    #[command(flatten)]
    pub repository: RepositoryArg,

    /// Directory to restore into
    #[arg(long, value_name = "DIR", required_unless_present = "dry_run", help_heading = "Where to write")]
    pub target: Option<PathBuf>,
    /// Directory for pg_wal, outside the target
    #[arg(long, value_name = "DIR", help_heading = "Where to write")]
    pub waldir: Option<PathBuf>,
    /// Put the tablespace that was at OLD to NEW; may be given several times
    #[arg(long, value_name = "OLD=NEW", value_parser = mapping, help_heading = "Where to write")]
    pub tablespace: Vec<(String, PathBuf)>,
    /// Replace what the target, --waldir and tablespaces hold; what equals the backup is read and kept; a running server is refused
    /// all the same
    #[arg(long, visible_alias = "delta", help_heading = "Where to write")]
    pub overwrite: bool,
    /// With --overwrite: do not read files that have the length and time that the backup recorded. DANGEROUS: what changed a file
    /// and left both as they were stays changed, and nobody notices
    ///
    /// Only files of tables and indexes are trusted, that were last written well before the backup began, in a cluster of the same
    /// system identifier that was shut down cleanly or never started since it was restored. All others are read. A program that
    /// puts times back (touch, rsync, cp -p), a disk that rots, or a server with fsync = off makes files that deceive it.
    #[arg(long, requires = "overwrite", help_heading = "Where to write")]
    pub trust_times: bool,
    /// As root: user and group that own the files, instead of the owner of the directory above the target
    #[arg(long, value_name = "USER[:GROUP]", value_parser = owner, help_heading = "Where to write")]
    pub owner: Option<Owner>,
    /// Threads that write, instead of the configured number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64), help_heading = "Where to write")]
    pub jobs: Option<u32>,

    /// Bring the content of this database only, besides template0, template1 and postgres; may be given several times
    ///
    /// Nothing of the other databases is fetched: their files are holes, so that the WAL can be replayed. Nobody can connect to them.
    /// When recovery is over, remove them with DROP DATABASE; the plan and the last lines tell how. The result is always a clone.
    /// Names are those at the time of the base backup; a number that is no name is taken for an OID.
    #[arg(long, value_name = "NAME", help_heading = "What becomes of it")]
    pub only_database: Vec<String>,
    /// What the server does at the target
    #[arg(long, value_enum, default_value_t = Action::Promote, help_heading = "What becomes of it")]
    pub action: Action,
    /// The result takes the place of the cluster and archives on; without this it is a clone that does not
    #[arg(long, help_heading = "What becomes of it")]
    pub take_over: bool,
    /// The pitr-wal-fetch that the restored server calls, instead of the one beside this program
    #[arg(long, value_name = "FILE", help_heading = "What becomes of it")]
    pub wal_fetch: Option<PathBuf>,

    /// Show the plan and do nothing
    #[arg(long, help_heading = "How to run")]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long, help_heading = "How to run")]
    pub yes: bool,
    /// Start the server afterwards, follow it, and report where it stopped
    #[arg(long, help_heading = "How to run")]
    pub start: bool,
    /// With --start: directory of the server's binaries
    #[arg(long, value_name = "DIR", requires = "start", help_heading = "How to run")]
    pub pg_bin: Option<PathBuf>,
    /// The postgresql.conf of the restored server, where it is not in the data directory: its settings are checked, and --start uses
    /// it
    #[arg(long, value_name = "FILE", help_heading = "How to run")]
    pub config_file: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:  pitr restore --to \"5 min ago\" --target /var/lib/postgresql/restored --dry-run
           pitr restore --to \"2026-03-02 14:25:03+01\" --target /var/lib/postgresql/restored --start
           pitr restore --to-name before_migration --target /srv/clone --tablespace /fast/ts1=/srv/clone-ts1
           pitr restore --to latest --target /var/lib/postgresql/16/main --overwrite --take-over
           pitr restore --to \"yesterday 14:25\" --target /srv/clone --only-database shop --start";

impl Args {
    /// A dry run without a target directory: what `pitr plan` asks for.
    #[must_use]
    pub fn plan(stop: TargetArgs, config_file: Option<PathBuf>) -> Args {
        Args {
            stop,
            repository: RepositoryArg::default(),
            target: None,
            waldir: None,
            tablespace: Vec::new(),
            overwrite: false,
            trust_times: false,
            owner: None,
            jobs: None,
            only_database: Vec::new(),
            action: Action::Promote,
            take_over: false,
            wal_fetch: None,
            dry_run: true,
            yes: false,
            start: false,
            pg_bin: None,
            config_file,
        }
    }
}

/// What the server does at the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Action {
    /// Open for writing, on a new timeline
    Promote,
    /// Stay read-only, until pg_wal_replay_resume()
    Pause,
    /// Shut down
    Shutdown,
}

impl From<Action> for TargetAction {
    fn from(action: Action) -> TargetAction {
        match action {
            Action::Promote => TargetAction::Promote,
            Action::Pause => TargetAction::Pause,
            Action::Shutdown => TargetAction::Shutdown,
        }
    }
}

/// `OLD=NEW`; a backslash before `=` makes it part of a path, as for `pg_basebackup`.
fn mapping(text: &str) -> Result<(String, PathBuf), String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek() == Some(&'=') => parts.last_mut().into_iter().for_each(|part| part.push('=')),
            '=' => parts.push(String::new()),
            c => parts.last_mut().into_iter().for_each(|part| part.push(c)),
        }
        if c == '\\' && chars.peek() == Some(&'=') {
            chars.next();
        }
    }
    match &parts[..] {
        [old, new] if old.starts_with('/') && new.starts_with('/') => {
            let old = if old.len() > 1 { old.trim_end_matches('/') } else { old };
            Ok((old.to_owned(), PathBuf::from(new)))
        }
        _ => Err("two absolute paths are needed, OLD=NEW (\"\\=\" for a = in a path)".into()),
    }
}

/// `USER`, `USER:GROUP`, in names or numbers.
fn owner(text: &str) -> Result<Owner, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user_id = account("passwd", user, 2).ok_or_else(|| format!("there is no user \"{user}\""))?;
    let group_id = match group {
        Some(group) => account("group", group, 2).ok_or_else(|| format!("there is no group \"{group}\""))?,
        None => account("passwd", user, 3).ok_or_else(|| format!("the group of user \"{user}\" is not known"))?,
    };
    Ok(Owner { user: user_id, group: group_id })
}

/// A number out of the host's accounts, asked as all programs ask for them: they may come from a directory service.
fn account(database: &str, name: &str, field: usize) -> Option<u32> {
    let output = std::process::Command::new("getent").args([database, name]).output().ok()?;
    let line = String::from_utf8(output.stdout).ok()?;
    let found = line.lines().next().and_then(|line| line.split(':').nth(field)?.parse().ok());
    // A number that no account has is still a number.
    found.or_else(|| if field == 2 { name.parse().ok() } else { None })
}

/// The account that servers run under on this host: what a directory of root's is given to.
pub(super) fn server_account() -> Option<Owner> {
    owner("postgres").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths with = in them can be mapped; anything but two absolute paths is refused.
    #[test]
    fn mappings() {
        assert_eq!(mapping("/a/=/b"), Ok(("/a".into(), "/b".into())));
        assert_eq!(mapping("/a\\=1=/b\\=2"), Ok(("/a=1".into(), "/b=2".into())));
        assert_eq!(mapping("/a\\b=/c"), Ok(("/a\\b".into(), "/c".into())));
        for wrong in ["/a", "/a=b", "a=/b", "/a=/b=/c", "="] {
            assert!(mapping(wrong).is_err(), "{wrong}");
        }
    }
}
