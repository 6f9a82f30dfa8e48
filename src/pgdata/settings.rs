//! The settings that make a restored data directory recover to its target, as text. Pure.
//!
//! They go to the end of `postgresql.auto.conf`, which the server reads last, in a marked block; whatever the source
//! cluster had left of earlier recoveries is taken out first, because two different targets stop the server with
//! "multiple recovery targets specified". `recovery_target_timeline` is always said: its default, `latest`, could
//! lead past the target onto another branch.

use std::fmt::Write as _;
use std::path::PathBuf;

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::quote::{self, UnquotablePath};
use crate::recovery::{RecoveryTarget, TargetKind};
use crate::wal::{PgTime, TimelineId};

/// First line of the block.
const BEGIN: &str = "# Begin of the settings written by pitr restore";
/// Last line of the block.
const END: &str = "# End of the settings written by pitr restore";

/// Settings of an earlier life of the cluster that must not reach the restored one.
const STALE: [&str; 16] = [
    "archive_cleanup_command",
    "ignore_invalid_pages",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "recovery_min_apply_delay",
    "recovery_target",
    "recovery_target_action",
    "recovery_target_inclusive",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_timeline",
    "recovery_target_xid",
    "restore_command",
];

/// The settings that name a target. More than one, or one that is not ours, stops the server.
const TARGETS: [&str; 5] =
    ["recovery_target", "recovery_target_lsn", "recovery_target_name", "recovery_target_time", "recovery_target_xid"];

/// What the server does when it has reached the target (`recovery_target_action`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetAction {
    /// Open the database for writing, on a new timeline.
    Promote,
    /// Stay read-only and wait for `pg_wal_replay_resume()`.
    Pause,
    /// Shut down.
    Shutdown,
}

impl TargetAction {
    /// PostgreSQL's word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            TargetAction::Promote => "promote",
            TargetAction::Pause => "pause",
            TargetAction::Shutdown => "shutdown",
        }
    }
}

/// How `restore_command` calls `pitr-wal-fetch`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FetchCommand {
    /// Environment variables that it needs: the server has another environment than whoever restores.
    pub environment: Vec<(String, String)>,
    /// Absolute path of `pitr-wal-fetch`.
    pub program: PathBuf,
    /// Arguments before `%f` and `%p`.
    pub arguments: Vec<String>,
}

/// Everything the block says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RecoverySettings {
    /// Where to stop.
    pub target: RecoveryTarget,
    /// The timeline to follow.
    pub timeline: TimelineId,
    /// What to do there.
    pub action: TargetAction,
    /// Whence the WAL comes.
    pub fetch: FetchCommand,
    /// Whether the restored cluster takes the source's place and goes on archiving.
    pub take_over: bool,
    /// Whether the server may read WAL ahead of what it replays. It must not where WAL is missing behind the target: from 15 on it
    /// would ask for the missing segment before it has replayed up to the target, and be stopped there.
    pub read_ahead: bool,
    /// Databases are left out: replay meets pages of theirs that are holes, and passes over them with a warning each.
    pub has_holes: bool,
}

impl RecoverySettings {
    /// The block, from its first to its last line.
    ///
    /// # Errors
    /// A path of the fetch command that cannot be quoted.
    pub fn block(&self) -> Result<String, UnquotablePath> {
        let mut lines = vec![("restore_command", quote::setting(&self.fetch.command()?))];
        lines.extend(self.target_setting());
        if !self.target.inclusive {
            lines.push(("recovery_target_inclusive", "off".into()));
        }
        lines.push(("recovery_target_timeline", quote::setting(&self.timeline.to_string())));
        if self.target.kind != TargetKind::Latest {
            lines.push(("recovery_target_action", quote::setting(self.action.word())));
        }
        if self.action == TargetAction::Pause {
            // Without it a pause is a shutdown (manual, recovery_target_action).
            lines.push(("hot_standby", "on".into()));
        }
        if !self.read_ahead {
            lines.push(("recovery_prefetch", "off".into()));
        }
        if self.has_holes {
            // Otherwise a change without a page image, such as the visibility bit of a page or a lock on a hash bucket, is a PANIC
            // there (`log_invalid_page` in xlogutils.c). 13 and later have it.
            lines.push(("ignore_invalid_pages", "on".into()));
        }
        if !self.take_over {
            // A clone must neither archive among the source's WAL nor wait for the source's standbys at each commit.
            lines.push(("archive_mode", "off".into()));
            lines.push(("synchronous_standby_names", "''".into()));
        }
        let mut block = format!("{BEGIN}\n");
        for (name, value) in lines {
            let _ = writeln!(block, "{name} = {value}");
        }
        let _ = writeln!(block, "{END}");
        Ok(block)
    }

    /// The one setting that names the target; none for the end of the WAL.
    fn target_setting(&self) -> Option<(&'static str, String)> {
        Some(match &self.target.kind {
            TargetKind::Time(time) => ("recovery_target_time", quote::setting(&server_time(*time))),
            TargetKind::Lsn(lsn) => ("recovery_target_lsn", quote::setting(&lsn.to_string())),
            TargetKind::Xid(xid) => ("recovery_target_xid", quote::setting(&xid.to_string())),
            TargetKind::Name(name) => ("recovery_target_name", quote::setting(name)),
            TargetKind::Immediate => ("recovery_target", quote::setting("immediate")),
            TargetKind::Latest => return None,
        })
    }
}

impl FetchCommand {
    /// The value of `restore_command`.
    ///
    /// # Errors
    /// A path that cannot be quoted.
    pub fn command(&self) -> Result<String, UnquotablePath> {
        let mut command = String::new();
        for (name, value) in &self.environment {
            command.push_str(&format!("{name}={} ", quote::command_word(quote::path_text(value.as_ref())?)));
        }
        command.push_str(&quote::command_word(quote::path_text(&self.program)?));
        for argument in &self.arguments {
            command.push(' ');
            command.push_str(&quote::command_word(quote::path_text(argument.as_ref())?));
        }
        command.push_str(" %f \"%p\"");
        Ok(command)
    }
}

/// A moment for `recovery_target_time`: in UTC with its offset, so that no `timezone` setting can shift it, and with all six
/// digits.
#[must_use]
pub fn server_time(time: PgTime) -> String {
    time.to_timestamp().to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()
}

/// A `postgresql.auto.conf` for the restored cluster: what the source had, without its earlier recoveries, then the block.
///
/// Works on bytes: names of databases or paths in the file may be in any encoding.
#[must_use]
pub fn rewrite(existing: &[u8], block: &str) -> Vec<u8> {
    let mut kept = Vec::with_capacity(existing.len() + block.len() + 1);
    // A block that lost its last line is taken for lines like any other, or all that follows would go with it.
    let closed = existing.split(|byte| *byte == b'\n').any(|line| line.trim_ascii() == END.as_bytes());
    let mut in_block = false;
    for line in existing.split_inclusive(|byte| *byte == b'\n') {
        let text = line.trim_ascii();
        if closed && text == BEGIN.as_bytes() {
            in_block = true;
        }
        let stale = in_block || name_of(text).is_some_and(|name| STALE.contains(&name.as_str()));
        if text == END.as_bytes() {
            in_block = false;
        }
        if !stale {
            kept.extend_from_slice(line);
        }
    }
    if !kept.is_empty() && !kept.ends_with(b"\n") {
        kept.push(b'\n');
    }
    kept.extend_from_slice(block.as_bytes());
    kept
}

/// A `postgresql.conf` whose recovery targets are commented out; `None` if it sets none. Ours is in `postgresql.auto.conf`, and
/// a second one stops the server.
#[must_use]
pub fn without_targets(file: &[u8]) -> Option<Vec<u8>> {
    let mut found = false;
    let mut quiet = Vec::with_capacity(file.len() + 64);
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        if name_of(line.trim_ascii()).is_some_and(|name| TARGETS.contains(&name.as_str())) {
            found = true;
            quiet.extend_from_slice(b"# Commented out by pitr restore: ");
        }
        quiet.extend_from_slice(line);
    }
    found.then_some(quiet)
}

/// The name of the setting on a line: letters, digits, underscores and dots before `=` or a blank. Names have no case.
pub(super) fn name_of(line: &[u8]) -> Option<String> {
    let end = line.iter().position(|b| !(b.is_ascii_alphanumeric() || b"_.".contains(b))).unwrap_or(line.len());
    let name = std::str::from_utf8(&line[..end]).ok()?;
    if name.is_empty() { None } else { Some(name.to_ascii_lowercase()) }
}

/// The number that a configuration file gives a setting, the last time that it names it.
#[must_use]
pub fn integer(file: &[u8], name: &str) -> Option<u32> {
    let lines = file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let said = lines.filter(|line| name_of(line).is_some_and(|found| found == name));
    let mut numbers = said.filter_map(|line| {
        let value = std::str::from_utf8(&line[name.len()..]).ok()?;
        let value = value.split('#').next().unwrap_or(value).trim();
        value.strip_prefix('=').unwrap_or(value).trim().trim_matches('\'').trim().parse().ok()
    });
    numbers.next_back()
}

/// Whether a configuration file includes others.
#[must_use]
pub fn has_includes(file: &[u8]) -> bool {
    let mut lines = file.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.any(|line| {
        name_of(line).is_some_and(|name| ["include", "include_if_exists", "include_dir"].contains(&name.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::{Lsn, Xid};

    fn settings(target: RecoveryTarget) -> RecoverySettings {
        RecoverySettings {
            target,
            timeline: TimelineId(10),
            action: TargetAction::Promote,
            fetch: FetchCommand {
                environment: vec![("PITR_SPOOL".into(), "/a b".into())],
                program: "/opt/it's 100%/pitr-wal-fetch".into(),
                arguments: vec!["--config".into(), "/etc/a b\\c.toml".into()],
            },
            take_over: false,
            read_ahead: true,
            has_holes: false,
        }
    }

    /// Each kind of target becomes exactly one setting, in the form that every version from 13 to 18 reads; the time keeps
    /// its microseconds and carries its offset.
    #[test]
    fn one_target_setting_each() {
        let cases = [
            (TargetKind::Time(PgTime(0)), Some("recovery_target_time = '2000-01-01 00:00:00.000000+00'")),
            (TargetKind::Time(PgTime(1)), Some("recovery_target_time = '2000-01-01 00:00:00.000001+00'")),
            (TargetKind::Lsn(Lsn(0x16_B374_D848)), Some("recovery_target_lsn = '16/B374D848'")),
            (TargetKind::Xid(Xid(731)), Some("recovery_target_xid = '731'")),
            (TargetKind::Name("it's \\ here".into()), Some("recovery_target_name = 'it''s \\\\ here'")),
            (TargetKind::Immediate, Some("recovery_target = 'immediate'")),
            (TargetKind::Latest, None),
        ];
        for (kind, expected) in cases {
            let block = settings(RecoveryTarget::inclusive(kind)).block().expect("quotable");
            let targets = block.lines().filter_map(|line| name_of(line.as_bytes()));
            let targets = targets.filter(|name| TARGETS.contains(&name.as_str())).count();
            assert_eq!(targets, usize::from(expected.is_some()), "{block}");
            assert!(expected.is_none_or(|line| block.lines().any(|found| found == line)), "{block}");
            assert!(block.contains("recovery_target_timeline = '10'\n"), "{block}");
            assert!(!block.contains("inclusive"), "{block}");
        }
    }

    /// A clone does not archive; what takes the source's place keeps the source's setting.
    #[test]
    fn only_a_take_over_archives() {
        let mut settings = settings(RecoveryTarget::inclusive(TargetKind::Latest));
        assert!(settings.block().expect("quotable").contains("archive_mode = off\n"));
        settings.take_over = true;
        assert!(!settings.block().expect("quotable").contains("archive_mode"));
    }

    /// Reading ahead is turned off only where it is asked for: 13 and 14 do not know the setting.
    #[test]
    fn reading_ahead() {
        let mut settings = settings(RecoveryTarget::inclusive(TargetKind::Latest));
        assert!(!settings.block().expect("quotable").contains("recovery_prefetch"));
        settings.read_ahead = false;
        assert!(settings.block().expect("quotable").contains("recovery_prefetch = off\n"));
    }

    /// Quotes, blanks, percent signs and backslashes in paths are quoted for the file, the server and the shell at once.
    #[test]
    fn restore_command() {
        let block = settings(RecoveryTarget::inclusive(TargetKind::Latest)).block().expect("quotable");
        let expected = r#"restore_command = 'PITR_SPOOL=''/a b'' ''/opt/it''\\''''s 100%%/pitr-wal-fetch'' --config ''/etc/a b\\c.toml'' %f "%p"'"#;
        assert!(block.lines().any(|line| line == expected), "{block}");
    }

    /// A target in `postgresql.conf` would be a second one; lines that only look like one stay as they are.
    #[test]
    fn targets_in_the_main_file() {
        let file =
            b"port = 5432\n#recovery_target_lsn = '1/2'\n recovery_target_xid='7'\nrecovery_target_action = pause";
        let quiet = without_targets(file).expect("one target");
        let expected = "port = 5432\n#recovery_target_lsn = '1/2'\n\
            # Commented out by pitr restore:  recovery_target_xid='7'\nrecovery_target_action = pause";
        assert_eq!(String::from_utf8_lossy(&quiet), expected);
        assert_eq!(without_targets(&quiet), None);
    }

    /// Nothing of an earlier recovery survives, neither what this program wrote nor what others did; all else does.
    #[test]
    fn earlier_recoveries_are_stripped() {
        let target = RecoveryTarget::exclusive(TargetKind::Xid(Xid(9))).expect("xids can be exclusive");
        let block = settings(target).block().expect("quotable");
        let existing = b"# Do not edit\nwork_mem = '4MB'\nRecovery_Target_Time = 'x'\nrestore_command 'cp'\n\
            recovery_target_name='a'\nprimary_conninfo = 'host=a'\nlc_messages = '\xff'";
        let once = rewrite(existing, &block);
        let expected = [b"# Do not edit\nwork_mem = '4MB'\nlc_messages = '\xff'\n", block.as_bytes()].concat();
        assert_eq!(String::from_utf8_lossy(&once), String::from_utf8_lossy(&expected));
        assert_eq!(rewrite(&once, &block), once, "writing them again changes nothing");
        assert!(block.contains("recovery_target_inclusive = off\n"), "{block}");
    }
}
