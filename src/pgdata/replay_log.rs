//! What a recovering server says in its log. Pure.
//!
//! The messages are those of `xlogrecovery.c` and `postmaster.c`, the same from 13 to 18 but for a hyphen. They are read rather
//! than asked for over a connection, because a restored cluster may let nobody in, and one that fails tells its reason here only.
//! The caller makes the server write them in English.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::recovery::moment::{self, Surroundings};
use crate::wal::{Lsn, PgTime, SegmentName, TimelineId, Xid};

/// What the log has said so far.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Replay {
    /// WAL segments that `restore_command` delivered.
    pub segments: u64,
    /// The last of them: the one that is replayed.
    #[serde(skip)]
    pub segment: Option<SegmentName>,
    /// The server's own words about where it stopped; `None` at the end of the WAL.
    pub stopped: Option<String>,
    /// Transaction at whose end it stopped.
    pub xid: Option<Xid>,
    /// Time of the record at which it stopped.
    pub time: Option<PgTime>,
    /// LSN at which it stopped, where the target is one; else the last record replayed.
    pub lsn: Option<Lsn>,
    /// The timeline that it opened.
    pub new_timeline: Option<TimelineId>,
    /// Prepared transactions that were open when it ended recovery: they hold their locks until somebody decides.
    pub prepared: Vec<Xid>,
    /// How often it passed over a page that is not as it should be (`ignore_invalid_pages`), by OID of the database; 0: shared.
    pub invalid_pages: BTreeMap<u32, u64>,
    /// It takes connections that only read.
    #[serde(skip)]
    pub readable: bool,
    /// It waits at the target.
    #[serde(skip)]
    pub paused: bool,
    /// It is open for writing.
    #[serde(skip)]
    pub open: bool,
    /// It waits before the target for somebody to change its settings.
    #[serde(skip)]
    pub stuck: bool,
    /// It shut down because the target was reached.
    #[serde(skip)]
    pub shut_down_at_target: bool,
    /// The last thing that it could not survive, with its hint.
    #[serde(skip)]
    pub fatal: Option<String>,
}

impl Replay {
    /// Takes in one line of the log.
    pub fn line(&mut self, line: &str) {
        if let Some((_, message)) = line.split_once("LOG:  ") {
            self.message(message.trim_end());
        } else if let Some((_, message)) = line.split_once("WARNING:  ") {
            if let Some(database) = database_of_page(message) {
                *self.invalid_pages.entry(database).or_default() += 1;
            }
        } else if let Some((_, message)) = line.split_once("FATAL:  ").or_else(|| line.split_once("PANIC:  ")) {
            // A client that came too early is no failure of the server.
            let of_clients = ["the database system is", "no pg_hba.conf entry", "role \"", "database \""];
            if !of_clients.iter().any(|start| message.starts_with(start)) {
                self.fatal = Some(message.trim_end().to_owned());
            }
        } else if let Some(fatal) = &mut self.fatal
            && let Some((_, more)) = line.split_once("DETAIL:  ").or_else(|| line.split_once("HINT:  "))
        {
            fatal.push_str(". ");
            fatal.push_str(more.trim_end().trim_end_matches('.'));
        }
    }

    fn message(&mut self, message: &str) {
        if let Some(file) = quoted(message, "restored log file ") {
            // History files are restored too.
            if let Ok(segment) = file.parse() {
                self.segments += 1;
                self.segment = Some(segment);
            }
        } else if message.starts_with("recovery stopping ") {
            self.stopped = Some(message.to_owned());
            self.lsn = quoted(message, "recovery stopping before WAL location (LSN) ")
                .or_else(|| quoted(message, "recovery stopping after WAL location (LSN) "))
                .and_then(|lsn| lsn.parse().ok());
            self.xid = after(message, " of transaction ").and_then(|xid| xid.parse().ok()).map(Xid);
            self.time = message.split_once(", time ").and_then(|(_, time)| read_time(time));
        } else if let Some(lsn) = after(message, "redo done at ") {
            self.lsn = self.lsn.or_else(|| lsn.parse().ok());
        } else if let Some(xid) = after(message, "recovering prepared transaction ") {
            self.prepared.extend(xid.parse().ok().map(Xid));
        } else if let Some(timeline) = after(message, "selected new timeline ID: ") {
            self.new_timeline = timeline.parse().ok().map(TimelineId);
        } else if message == "database system is ready to accept connections" {
            self.open = true;
        } else if message.starts_with("database system is ready to accept read") {
            self.readable = true;
        } else if message == "pausing at the end of recovery" {
            self.paused = true;
        } else if message == "shutdown at recovery target" {
            self.shut_down_at_target = true;
        } else if message.starts_with("recovery has paused") && self.stopped.is_none() {
            self.stuck = true;
            self.fatal
                .get_or_insert_with(|| "recovery has paused before the target: see the warnings in its log".to_owned());
        }
    }
}

/// The database of a page that `report_invalid_page` names: "page 4 of relation base/16384/16385 is uninitialized".
fn database_of_page(message: &str) -> Option<u32> {
    let (_, path) = message.strip_prefix("page ")?.split_once(" of relation ")?;
    let path = path.split_once(" is uninitialized").or_else(|| path.split_once(" does not exist"))?.0;
    let parts: Vec<&str> = path.trim_matches('"').split('/').collect();
    match parts.as_slice() {
        ["global", _] => Some(0),
        ["base", database, _] | ["pg_tblspc", _, _, database, _] => database.parse().ok(),
        _ => None,
    }
}

/// What stands in double quotes right after some words.
fn quoted<'a>(message: &'a str, words: &str) -> Option<&'a str> {
    message.strip_prefix(words)?.strip_prefix('"')?.split('"').next()
}

/// The word right after some words, without what closes a clause.
fn after<'a>(message: &'a str, words: &str) -> Option<&'a str> {
    let (_, rest) = message.split_once(words)?;
    rest.split([' ', ',']).next()
}

/// A time as `timestamptz_to_str` writes it: with its offset.
fn read_time(text: &str) -> Option<PgTime> {
    let surroundings = Surroundings { now: Timestamp::UNIX_EPOCH, zone: TimeZone::UTC, lookup: &|_| None };
    moment::parse(text, &surroundings).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of every kind of stop, as servers of 13 and 18 wrote them.
    #[test]
    fn stops() {
        let read = |lines: &[&str]| {
            let mut replay = Replay::default();
            lines.iter().for_each(|line| replay.line(line));
            replay
        };
        let p = "2026-11-21 10:45:00.123 UTC [77] LOG:  ";
        let replay = read(&[
            &format!("{p}starting point-in-time recovery to 2026-11-21 10:44:00+00"),
            &format!("{p}restored log file \"00000002.history\" from archive"),
            &format!("{p}restored log file \"000000010000000000000003\" from archive"),
            &format!("{p}recovery stopping before commit of transaction 760, time 2026-11-21 11:44:00.000001+01"),
            &format!("{p}redo done at 0/3000148 system usage: CPU: user: 0.00 s, system: 0.00 s, elapsed: 0.01 s"),
            &format!("{p}last completed transaction was at log time 2026-11-21 10:43:59+00"),
            &format!("{p}selected new timeline ID: 12"),
            &format!("{p}recovering prepared transaction 758 from shared memory"),
            &format!("{p}recovering prepared transaction 759 of epoch 0 from shared memory"),
            &format!("{p}database system is ready to accept connections"),
        ]);
        assert_eq!((replay.segments, replay.xid, replay.lsn), (1, Some(Xid(760)), Some(Lsn(0x300_0148))));
        assert_eq!(replay.time.map(|time| time.to_string()).as_deref(), Some("2026-11-21T10:44:00.000001Z"));
        assert_eq!((replay.new_timeline, replay.open, replay.fatal), (Some(TimelineId(12)), true, None));
        assert_eq!(replay.prepared, [Xid(758), Xid(759)]);

        let replay = read(&[
            &format!("{p}recovery stopping after WAL location (LSN) \"0/5000028\""),
            &format!("{p}redo done at 0/5000028"),
            &format!("{p}pausing at the end of recovery"),
        ]);
        assert_eq!((replay.lsn, replay.paused, replay.open), (Some(Lsn(0x500_0028)), true, false));
        let replay =
            read(&[&format!("{p}recovery stopping at restore point \"a, time b\", time 2026-11-21 10:44:00+00")]);
        assert!(replay.stopped.is_some());
        assert!(read(&[&format!("{p}shutdown at recovery target")]).shut_down_at_target);
    }

    /// Pages that were passed over are counted for their database, wherever that lies.
    #[test]
    fn invalid_pages() {
        let mut replay = Replay::default();
        for text in [
            "page 4 of relation base/16384/16385 is uninitialized",
            "page 5 of relation base/16384/16385_vm does not exist",
            "page 0 of relation pg_tblspc/16390/PG_15_202209061/16391/2619 is uninitialized",
            "page 0 of relation global/1262 does not exist",
            "WAL contains references to invalid pages",
        ] {
            replay.line(&format!("x [1] WARNING:  {text}"));
            replay.line(&format!("x [1] DEBUG1:  {text}"));
        }
        assert_eq!(replay.invalid_pages, BTreeMap::from([(16384, 2), (16391, 1), (0, 1)]));
    }

    /// What a server could not survive is told with its hint; a client that came too early is none of it.
    #[test]
    fn failures() {
        let mut replay = Replay::default();
        replay.line("x [1] FATAL:  the database system is starting up");
        assert_eq!(replay.fatal, None);
        replay.line("x [1] FATAL:  recovery aborted because of insufficient parameter settings");
        replay.line("x [1] DETAIL:  max_connections = 10 is a lower setting than on the primary server.");
        assert!(replay.fatal.as_deref().is_some_and(|fatal| fatal.contains("max_connections = 10")), "{replay:?}");
    }
}
