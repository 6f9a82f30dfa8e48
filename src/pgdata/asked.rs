//! What a data directory is set to recover to, read back from its settings. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::settings::name_of;
use crate::recovery::moment::Surroundings;
use crate::recovery::{RecoveryTarget, TargetError, TargetKind};
use crate::wal::TimelineId;

/// What recovery is asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskedFor {
    /// Where to stop; the end of the WAL if no target is set.
    pub target: RecoveryTarget,
    /// `recovery_target_timeline`.
    pub timeline: AskedTimeline,
}

/// `recovery_target_timeline`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AskedTimeline {
    /// The newest that branched off; the default.
    Latest,
    /// The one that the data directory is on.
    Current,
    /// This one.
    Number(TimelineId),
}

impl AskedFor {
    /// From the settings by name.
    ///
    /// # Errors
    /// A target that PostgreSQL would refuse too, or a time that cannot be read without the server's time zone.
    pub fn of(settings: &BTreeMap<String, String>) -> Result<AskedFor, TargetError> {
        let set = |name: &str| settings.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let lookup = |name: &str| TimeZone::get(name).ok();
        let surroundings = Surroundings { now: Timestamp::UNIX_EPOCH, zone: TimeZone::UTC, lookup: &lookup };
        let kind = match (set("recovery_target_time"), set("recovery_target_lsn"), set("recovery_target_xid")) {
            (Some(time), ..) => TargetKind::parse_to(time, &surroundings)?,
            (_, Some(lsn), _) => TargetKind::parse_lsn(lsn)?,
            (_, _, Some(xid)) => TargetKind::parse_xid(xid)?,
            (None, None, None) => match (set("recovery_target_name"), set("recovery_target")) {
                (Some(name), _) => TargetKind::parse_name(name)?,
                (None, Some(_)) => TargetKind::Immediate,
                (None, None) => TargetKind::Latest,
            },
        };
        let off = |value: &str| ["off", "false", "no", "0"].contains(&value.to_ascii_lowercase().as_str());
        let exclusive = set("recovery_target_inclusive").is_some_and(off);
        let target = if exclusive {
            RecoveryTarget::exclusive(kind.clone()).unwrap_or_else(|_| RecoveryTarget::inclusive(kind))
        } else {
            RecoveryTarget::inclusive(kind)
        };
        let timeline = match set("recovery_target_timeline") {
            None | Some("latest") => AskedTimeline::Latest,
            Some("current") => AskedTimeline::Current,
            Some(number) => {
                number.parse().map_or(AskedTimeline::Latest, |number| AskedTimeline::Number(TimelineId(number)))
            }
        };
        Ok(AskedFor { target, timeline })
    }
}

/// Adds the settings of a configuration file; the last line of a name wins.
pub fn read_settings(file: &[u8], settings: &mut BTreeMap<String, String>) {
    for line in file.split(|byte| *byte == b'\n') {
        let line = line.trim_ascii();
        let Some(name) = name_of(line) else { continue };
        let rest = String::from_utf8_lossy(&line[name.len()..]).into_owned();
        let rest = rest.trim_start();
        let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
        settings.insert(name, value(rest));
    }
}

/// A value, without its quotes and what stands behind it.
fn value(text: &str) -> String {
    let Some(quoted) = text.strip_prefix('\'') else {
        return text.split([' ', '\t', '#']).next().unwrap_or_default().to_owned();
    };
    let mut value = String::new();
    let mut chars = quoted.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.peek() == Some(&'\'') => value.extend(chars.next()),
            '\'' => break,
            '\\' => value.extend(chars.next()),
            c => value.push(c),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::super::{FetchCommand, RecoverySettings, TargetAction};
    use super::*;
    use crate::wal::{Lsn, PgTime, Xid};

    fn read(files: &[&str]) -> AskedFor {
        let mut settings = BTreeMap::new();
        files.iter().for_each(|file| read_settings(file.as_bytes(), &mut settings));
        AskedFor::of(&settings).expect("it can be read")
    }

    /// What a restore writes is read back as what was asked for.
    #[test]
    fn what_restore_writes() {
        for kind in [
            TargetKind::Time(PgTime(800_000_000_123_456)),
            TargetKind::Lsn(Lsn(0x1_6B37_4D84)),
            TargetKind::Xid(Xid(731)),
            TargetKind::Name("it's a \\ name".to_owned()),
            TargetKind::Immediate,
            TargetKind::Latest,
        ] {
            let inclusive = RecoveryTarget::inclusive(kind.clone());
            for target in [Some(inclusive), RecoveryTarget::exclusive(kind).ok()].into_iter().flatten() {
                let fetch = FetchCommand { environment: Vec::new(), program: "/bin/f".into(), arguments: Vec::new() };
                let (timeline, action) = (TimelineId(11), TargetAction::Promote);
                let (take_over, read_ahead) = (false, false);
                let has_holes = false;
                let settings = RecoverySettings { target, timeline, action, fetch, take_over, read_ahead, has_holes };
                let asked = read(&[&settings.block().expect("a block")]);
                assert_eq!((asked.target, asked.timeline), (settings.target, AskedTimeline::Number(TimelineId(11))));
            }
        }
        assert_eq!(
            read(&[""]),
            AskedFor { target: RecoveryTarget::inclusive(TargetKind::Latest), timeline: AskedTimeline::Latest }
        );
        assert_eq!(
            read(&["Recovery_Target 'immediate'\nrecovery_target_timeline=current"]),
            AskedFor { target: RecoveryTarget::inclusive(TargetKind::Immediate), timeline: AskedTimeline::Current }
        );
        let name = read(&["recovery_target_name = 'it''s a \\\\ name' # x"]);
        assert_eq!(name.target.kind, TargetKind::Name("it's a \\ name".to_owned()));
    }
}
