//! The judge: what PostgreSQL does with a target, beside what the plan said.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pitr::recovery::{RecoveryTarget, RestorePlan, TargetKind};
use pitr::wal::TimelineId;
use serde_json::Value;

use super::harness::{Run, Server, Stop, wait_for};
use super::history::{Branch, History};
use super::targets::Target;

/// What PostgreSQL says when it has read its settings and knows where to go. How it fails to get there differs: the end of the
/// WAL, a gap, a backup of another branch.
const UNDER_WAY: &str = "starting point-in-time recovery to";

/// How many targets of each kind of verdict were seen.
#[derive(Debug, Default)]
pub struct Tally {
    reached: usize,
    refused: usize,
}

impl Tally {
    pub fn count(&mut self, reached: bool) {
        if reached { self.reached += 1 } else { self.refused += 1 }
    }
}

/// What PostgreSQL did.
enum Outcome {
    /// It stopped at a target; the rows, each with its xid.
    Stopped(Vec<String>),
    /// It ended; the log.
    Failed(String),
}

/// Compares verdict and outcome; tells whether the target can be reached.
pub fn check(history: &History, number: usize, target: &Target) -> bool {
    let (status, document) = ask(history, &target.words);
    if status == 0 {
        assert_eq!(document["reachable"], true, "{document:#}");
        reached(history, number, target, &document);
        return true;
    }
    assert_eq!((status, &document["reachable"]), (19, &Value::Bool(false)), "{document:#}");
    refused(history, number, target, &document);
    false
}

/// The verdict.
fn ask(history: &History, words: &[String]) -> (i32, Value) {
    let finished = history.site.pitr(&["plan", "--json"]).args(words).run();
    let document = serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"));
    (finished.code(), document)
}

fn plan_in(document: &Value) -> RestorePlan {
    serde_json::from_value(document["plan"].clone()).unwrap_or_else(|error| panic!("{error}: {document:#}"))
}

fn branch(history: &History, timeline: TimelineId) -> &Branch {
    history.branches.iter().find(|branch| branch.timeline == timeline.0).expect("a timeline of this history")
}

/// The plan's promise, row by row.
fn reached(history: &History, number: usize, target: &Target, document: &Value) {
    let plan = plan_in(document);
    let name = format!("try-{number}");
    let mut server = if plan.lay.is_empty() {
        let base = base(history, &plan.backup.id).expect("the plan's own backup can be restored");
        copy(history, &name, &base, &plan.recovery_target, plan.timeline.0)
    } else {
        let words: Vec<&str> = target.words.iter().map(String::as_str).chain(["--action", "pause"]).collect();
        history.site.restore(&name, &words)
    };
    let found = match follow(&mut server) {
        Outcome::Stopped(rows) => rows,
        Outcome::Failed(log) => panic!("{:?} was promised: {plan:#?}\n{log}", target.words),
    };
    let rows = &branch(history, plan.timeline).rows;
    let context = format!("{:?}: {} rows, {:?} last, {plan:#?}", target.words, found.len(), found.last());
    let kept = found.len();
    let expected: Vec<String> = rows.iter().take(kept).map(|row| format!("{} {}", row.n, row.xid)).collect();
    assert_eq!(found, expected, "{context}");
    assert!(kept > 0, "the first backup holds rows: {context}");
    let last = plan.last_commit.unwrap_or_else(|| panic!("no last commit: {context}"));
    assert_eq!((last.xid.0, last.time.0), (rows[kept - 1].xid, rows[kept - 1].committed_at), "{context}");
    assert!(is_right(&target.target, rows, kept, plan.backup.start_lsn.0), "not what was asked for: {context}");
    let lost = branch(history, plan.lost.timeline).rows.len() - kept;
    assert!(!plan.lost.complete || plan.lost.commits == lost as u64, "{lost} rows are lost: {context}");
    assert!(plan.lost.complete || plan.lost.commits <= lost as u64, "{lost} rows are lost: {context}");
}

/// Whether the first `kept` rows are what a target means to PostgreSQL when it begins at `start_lsn`.
fn is_right(target: &RecoveryTarget, rows: &[super::harness::Row], kept: usize, start_lsn: u64) -> bool {
    let next = rows.get(kept);
    match &target.kind {
        TargetKind::Time(_) => {
            let past = |row: &super::harness::Row| target.is_past(pitr::wal::PgTime(row.committed_at)) == Some(true);
            let replayed = rows[..kept].iter().filter(|row| row.lsn_after > start_lsn);
            { replayed }.all(|row| !past(row)) && next.is_none_or(past)
        }
        TargetKind::Lsn(lsn) => {
            let must = rows.iter().filter(|row| row.lsn_after <= lsn.0).count();
            // The row behind one that ended beyond the LSN has other records before its commit.
            let may = rows.iter().position(|row| row.lsn_after > lsn.0).map_or(rows.len(), |row| row + 1);
            (must..=may).contains(&kept)
        }
        TargetKind::Xid(xid) if target.inclusive => rows[kept - 1].xid == xid.0,
        TargetKind::Xid(xid) => next.is_some_and(|row| row.xid == xid.0),
        TargetKind::Name(_) | TargetKind::Immediate | TargetKind::Latest => true,
    }
}

/// PostgreSQL tries from every backup, on the timeline asked for or on each, and must not get to the right state; what the verdict
/// offers instead must be within reach.
fn refused(history: &History, number: usize, target: &Target, document: &Value) {
    let why = document["refusal"]["why"].as_str().unwrap_or_else(|| panic!("no reason: {document:#}"));
    for part in ["error", "detail", "hint"] {
        assert!(document[part].as_str().is_some_and(|text| !text.is_empty()), "{part} is missing: {document:#}");
    }
    for side in ["before", "after"] {
        let Some(option) = document["refusal"][side]["option"].as_str() else { continue };
        let words: Vec<String> = option.split(' ').map(str::to_owned).collect();
        let (status, offered) = ask(history, &words);
        assert_eq!(status, 0, "{option} was offered: {offered:#}");
        assert_eq!(offered["plan"]["last_commit"], document["refusal"][side]["commit"], "{option}");
    }
    let timelines: Vec<u32> = match target.timeline {
        Some(timeline) => vec![timeline],
        None => history.branches.iter().map(|branch| branch.timeline).collect(),
    };
    // Both sides of a fork can be meant there: the verdict asks which.
    if why == "between_branches" {
        return;
    }
    for (at, id) in backups(history).iter().enumerate() {
        let Some(base) = base(history, id) else { continue };
        for timeline in &timelines {
            let mut server = copy(history, &format!("try-{number}-{at}-{timeline}"), &base, &target.target, *timeline);
            match follow(&mut server) {
                Outcome::Failed(log) => assert!(log.contains(UNDER_WAY), "{log}"),
                Outcome::Stopped(found) => {
                    let rows = &branch(history, TimelineId(*timeline)).rows;
                    // A backup that holds commits past a time leads PostgreSQL to a stop, but not to the state of that time.
                    let right = match target.target.kind {
                        TargetKind::Time(_) => is_right(&target.target, rows, found.len(), 0),
                        _ => true,
                    };
                    assert!(
                        !right,
                        "{:?} was refused, and backup {id} leads to {:?}: {document:#}",
                        target.words,
                        found.last()
                    );
                }
            }
        }
    }
}

fn backups(history: &History) -> Vec<String> {
    let finished = history.site.pitr(&["list", "--json"]).run().ok();
    let document: Value = serde_json::from_str(&finished.stdout).expect("JSON");
    let backups = document.as_array().unwrap_or_else(|| panic!("no backups: {document:#}"));
    backups.iter().map(|backup| backup["id"].as_str().expect("an id").to_owned()).collect()
}

/// A backup's data directory, laid out once; `None` if its own WAL is missing.
fn base(history: &History, id: &str) -> Option<PathBuf> {
    let mut bases = history.bases.borrow_mut();
    let made = bases.entry(id.to_owned()).or_insert_with(|| {
        let target = history.site.dir.join(format!("base-{id}"));
        let finished = history.site.try_restore(&target, &["--to", "immediate", "--backup", id]);
        finished.status.success().then_some(target)
    });
    made.clone()
}

/// A copy of a laid-out directory that recovers to a target and pauses there.
fn copy(history: &History, name: &str, base: &Path, target: &RecoveryTarget, timeline: u32) -> Server {
    let site = &history.site;
    let data = site.dir.join(name);
    Command::new("cp").args(["-a", "--reflink=auto"]).arg(base).arg(&data).run().ok();
    let path = data.join("postgresql.auto.conf");
    let settings = fs::read_to_string(&path).expect("settings are text");
    let mut settings: String =
        settings.lines().filter(|line| !line.starts_with("recovery_target")).map(|line| format!("{line}\n")).collect();
    let (setting, value) = match &target.kind {
        TargetKind::Time(time) => ("recovery_target_time", time.to_string().replace('T', " ").replace('Z', "+00")),
        TargetKind::Lsn(lsn) => ("recovery_target_lsn", lsn.to_string()),
        TargetKind::Xid(xid) => ("recovery_target_xid", xid.to_string()),
        TargetKind::Name(name) => ("recovery_target_name", name.clone()),
        TargetKind::Immediate => ("recovery_target", "immediate".to_owned()),
        TargetKind::Latest => panic!("not drawn"),
    };
    let inclusive = if target.inclusive { "on" } else { "off" };
    settings.push_str(&format!(
        "{setting} = '{value}'\nrecovery_target_inclusive = {inclusive}\nrecovery_target_timeline = '{timeline}'\n\
         recovery_target_action = pause\n"
    ));
    fs::write(&path, settings).expect("settings can be written");
    Server::adopt(&site.dir, &site.server.postgres, name, &data)
}

/// Starts it, waits until it has stopped at its target or ended, and removes it.
fn follow(server: &mut Server) -> Outcome {
    server.spawn();
    let stopped = wait_for("the server to stop at its target or to end", || {
        if !server.is_running() {
            return Some(false);
        }
        let paused = server.log().contains("pausing at the end of recovery");
        (paused && server.try_client().is_some()).then_some(true)
    });
    let outcome = if stopped {
        let rows = server.ask_all("SELECT n || ' ' || xmin FROM ledger ORDER BY n");
        server.stop(Stop::Immediate);
        Outcome::Stopped(rows)
    } else {
        server.wait_for_end();
        Outcome::Failed(server.log())
    };
    fs::remove_dir_all(server.data_dir()).expect("the copy can be removed");
    outcome
}
