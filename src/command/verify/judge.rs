//! From what was found to what is told.

use super::finding::{Finding, FindingKind, NotLooked, Severity};
use super::found::{BackupDamage, Found, PackDamage};
use super::meaning::{Meaning, told, wants};
use super::scope::Scope;
use crate::catalog::{BackupId, PackId};
use crate::recovery::{Hole, holes};
use crate::report::Explain;
use crate::repository::{SegmentFlaw, WalObjectName};
use crate::wal::{Lsn, SegmentName, SegmentNo, TimelineId};

/// Where a good copy may come from.
const COPIES: &str = "If another repository of the cluster has it whole, restore from that one (--repository NAME), or move the \
                      damaged object away and bring the good one with \"pitr copy\"";

/// Tells all findings of one server, the worst first.
pub(super) fn findings(scope: &Scope, found: &Found, meaning: &Meaning) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, damage) in &found.backups {
        findings.push(backup(scope, meaning, *id, damage));
    }
    for (id, missing) in &meaning.without_wal {
        findings.push(without_wal(meaning, *id, *missing));
    }
    for (pack, damage) in &found.packs {
        findings.push(self::pack(scope, found, *pack, damage));
    }
    for (name, flaws) in &found.segments {
        findings.push(segment(scope, meaning, *name, flaws));
    }
    findings.extend(holes(&scope.snapshot).iter().map(|hole| self::hole(scope, meaning, hole)));
    findings.extend(only_damaged(scope, meaning));
    findings.extend(gone_segments(scope));
    findings.extend(histories(scope));
    findings.extend(found.others.iter().map(|(key, why)| other(meaning, key, why)));
    findings.extend(gone_backups(scope, meaning));
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// What could not be looked at, each once.
pub(super) fn not_looked(found: &Found) -> Vec<NotLooked> {
    let told = |(object, error): &(String, crate::repository::RepositoryError)| NotLooked {
        object: object.clone(),
        why: error.report().what,
    };
    let mut all: Vec<NotLooked> = found.no_answers.iter().map(told).collect();
    all.dedup_by(|a, b| a.object == b.object);
    all
}

fn backup(scope: &Scope, meaning: &Meaning, id: BackupId, damage: &BackupDamage) -> Finding {
    let mut wrong: Vec<String> = Vec::new();
    wrong.extend(damage.manifest.clone());
    wrong.extend(damage.info.clone());
    wrong.extend(damage.tail.clone());
    if damage.file_count > 0 {
        let named: Vec<String> = damage.files.iter().map(|(path, why)| format!("{path}: {why}")).collect();
        wrong.push(format!("{} of its files cannot be restored ({})", damage.file_count, named.join("; ")));
    }
    let what = format!("backup {id}: {}", wrong.join("; "));
    let closing = closing(meaning, id);
    let help = format!("{COPIES}. Else take a new base backup now: \"pitr backup\".");
    let cannot = format!("backup {id} cannot be restored. {closing}");
    let mut finding = Finding::new(FindingKind::Backup, Severity::Damaged, what, cannot, help);
    finding.object = Some(match (&damage.manifest, &damage.info) {
        (None, Some(_)) => scope.server.info_object(id).to_string(),
        _ => scope.server.manifest_object(id).to_string(),
    });
    finding.backup = Some(id);
    finding.files = damage.files.clone().into_iter().collect();
    finding
}

/// What a backup that is lost takes with it.
fn closing(meaning: &Meaning, id: BackupId) -> String {
    meaning.closing().unwrap_or_else(|| match meaning.backups.iter().any(|other| other.id != id && other.restorable) {
        true => "Every moment can still be restored, from an earlier backup with more WAL to replay.".to_owned(),
        false => "Nothing can be restored.".to_owned(),
    })
}

fn without_wal(meaning: &Meaning, id: BackupId, missing: Option<SegmentName>) -> Finding {
    let lacks = missing.map_or_else(
        || "the WAL that makes it consistent is not there, or not good".to_owned(),
        |segment| format!("WAL segment {segment}, without which it is not consistent, is not there or not good"),
    );
    let what = format!("backup {id}: {lacks}");
    let text = format!("backup {id} cannot be restored. {}", closing(meaning, id));
    let help = "If another repository of the cluster has the WAL, bring it with \"pitr copy\"; if the server's pg_wal still has it, \
                archive it with pitr-wal-push. Else take a new base backup now: \"pitr backup\"."
        .to_owned();
    let mut finding = Finding::new(FindingKind::MissingWal, Severity::Missing, what, text, help);
    (finding.backup, finding.segment) = (Some(id), missing);
    finding
}

fn pack(scope: &Scope, found: &Found, pack: PackId, damage: &PackDamage) -> Finding {
    let mut wrong: Vec<String> = Vec::new();
    if damage.missing {
        wrong.push("it is not there".to_owned());
    }
    wrong.extend(damage.index.clone());
    if let Some((offset, why)) = damage.frames.first_key_value() {
        wrong.push(format!("{} of its chunks are damaged, the first at byte {offset}: {why}", damage.frames.len()));
    }
    let key = scope.server.pack_object(pack).to_string();
    let what = format!("pack {pack}: {}", wrong.join("; "));
    let affected: Vec<String> = found
        .backups
        .iter()
        .filter(|(id, damage)| {
            damage.file_count > 0 && scope.sources.get(id).is_some_and(|sources| sources.contains(&pack.backup))
        })
        .map(|(id, _)| id.to_string())
        .collect();
    let (severity, meaning) = if !affected.is_empty() {
        (Severity::Damaged, format!("the backups that need what is damaged: {}.", affected.join(", ")))
    } else if damage.index.is_some() {
        let text = "every backup can be restored: restores do not read the index. The next backup stores anew what it would have found there.";
        (Severity::Damaged, text.to_owned())
    } else {
        (Severity::Damaged, "no backup needs what is damaged: every backup can be restored.".to_owned())
    };
    let mut finding = Finding::new(FindingKind::Pack, severity, what, meaning, format!("{COPIES}."));
    finding.object = Some(key);
    finding
}

fn segment(scope: &Scope, meaning: &Meaning, name: SegmentName, flaws: &[SegmentFlaw]) -> Finding {
    let size = scope.record.segment_size_bytes;
    let start = name.number(size).map_or(Lsn::INVALID, |number| number.start(size));
    let whys: Vec<(Lsn, String)> = flaws.iter().map(|flaw| told(flaw, start)).collect();
    let good_until = whys.iter().map(|(lsn, _)| *lsn).min().unwrap_or(start);
    let what: Vec<String> = whys.into_iter().map(|(_, why)| why).collect();
    let what = format!("WAL segment {name}: {}", what.join("; "));
    let key = scope.server.wal_object(WalObjectName::Segment(name)).to_string();
    let help = format!(
        "{COPIES}. A good copy in pg_wal of the server or a standby helps too: move the damaged object away and archive it with \
         pitr-wal-push. Else take a new base backup now: \"pitr backup\"."
    );
    let finding = Finding::new(FindingKind::Segment, Severity::Damaged, what, String::new(), help);
    // Whatever it is needed for: what rots once may rot elsewhere.
    let stop = Stop { timeline: name.timeline(), start, good_until, unwanted: Severity::Damaged };
    let mut finding = stop_at(scope, meaning, &stop, finding);
    (finding.object, finding.segment) = (Some(key), Some(name));
    finding
}

/// A place that no restore gets over.
struct Stop {
    timeline: TimelineId,
    /// Where the segment begins.
    start: Lsn,
    good_until: Lsn,
    /// How bad it is if no backup begins before it.
    unwanted: Severity,
}

/// Says what such a place means.
fn stop_at(scope: &Scope, meaning: &Meaning, stop: &Stop, mut finding: Finding) -> Finding {
    let Stop { timeline, start, good_until, unwanted } = *stop;
    let last = meaning.last_before(timeline, start.max(good_until));
    finding.meaning = match last {
        _ if !wants(&scope.snapshot.backups, timeline, start) => {
            finding.severity = unwanted;
            "no backup begins before it: nothing that could be restored is lost.".to_owned()
        }
        Some(window) => {
            let commit = window
                .last_commit
                .map_or_else(String::new, |commit| format!(", the commit of {}", commit.time.to_timestamp()));
            let closing = meaning.closing().map_or_else(String::new, |closing| format!(" {closing}"));
            let end = window.end_lsn;
            format!(
                "restores to moments after LSN {end}{commit} are not possible from backups taken before it.{closing}"
            )
        }
        None => {
            let closing = meaning.closing().unwrap_or_else(|| "Other moments are unaffected.".to_owned());
            format!("no backup taken before it can be restored over it. {closing}")
        }
    };
    (finding.timeline, finding.good_until) = (Some(timeline), Some(good_until));
    finding.last_commit = last.and_then(|window| window.last_commit);
    finding
}

fn hole(scope: &Scope, meaning: &Meaning, hole: &Hole) -> Finding {
    let size = scope.record.segment_size_bytes;
    let start = hole.first.number(size).map_or(Lsn::INVALID, |number| number.start(size));
    let Hole { timeline, first, last, segments, .. } = hole;
    let what = format!("WAL is missing on timeline {timeline}: {segments} segments, {first} to {last}");
    let help = "If another repository of the cluster has it, restore from that one (--repository NAME) or bring it with \"pitr copy\"; \
                if pg_wal of the server or a standby still has it, archive it with pitr-wal-push. Else take a new base backup, if \
                none was taken since."
        .to_owned();
    let finding = Finding::new(FindingKind::MissingWal, Severity::Missing, what, String::new(), help);
    let stop = Stop { timeline: *timeline, start, good_until: start, unwanted: Severity::Harmless };
    let mut finding = stop_at(scope, meaning, &stop, finding);
    finding.segment = Some(*first);
    finding
}

/// Segments of which only a damaged copy was archived.
fn only_damaged(scope: &Scope, meaning: &Meaning) -> Vec<Finding> {
    let size = scope.record.segment_size_bytes;
    let all =
        scope.snapshot.timelines.iter().flat_map(|(timeline, record)| {
            record.damaged.iter().map(move |(number, damage)| (*timeline, *number, damage))
        });
    all.map(|(timeline, number, damage)| {
        let what = format!("WAL segment {}: only a damaged copy was archived: {}", damage.segment, damage.why);
        let help = "A good copy in pg_wal of the server or a standby takes its place: archive it with pitr-wal-push (\"pitr status\" says \
                    whether pg_wal here has one). Else take a new base backup, if none was taken since."
            .to_owned();
        let start = number.start(size);
        let finding = Finding::new(FindingKind::Segment, Severity::Damaged, what, String::new(), help);
        let stop = Stop { timeline, start, good_until: damage.good_until, unwanted: Severity::Harmless };
        let mut finding = stop_at(scope, meaning, &stop, finding);
        finding.segment = Some(damage.segment);
        finding
    })
    .collect()
}

/// Segments at a timeline's end that were verified before and are not there now.
fn gone_segments(scope: &Scope) -> Vec<Finding> {
    let size = scope.record.segment_size_bytes;
    let gone = scope.verified.segments.iter().filter_map(|(timeline, spans)| {
        let record = scope.snapshot.timelines.get(timeline)?;
        let (stored, known) = (record.segments.last()?, spans.last()?);
        if known <= stored.0 || record.damaged.keys().any(|number| *number > stored) {
            return None;
        }
        let first = stored.next();
        // What a fork left behind expires when nothing can reach it.
        let left = scope.snapshot.timelines.values().filter_map(|other| other.history.as_ref()?.parent());
        let left = left.into_iter().any(|(parent, switch)| parent == *timeline && switch <= first.start(size));
        let name = |number| SegmentName::new(*timeline, number, size);
        let what = format!(
            "WAL segments {} to {} of timeline {timeline} were verified before, and are not there any more",
            name(first),
            name(SegmentNo(known))
        );
        let wanted = wants(&scope.snapshot.backups, *timeline, first.start(size)) && !left;
        let (severity, meaning) = match wanted {
            true => (
                Severity::Missing,
                format!("moments on timeline {timeline} after LSN {} cannot be restored; earlier ones are unaffected.", first.start(size)),
            ),
            false => (Severity::Harmless, "no backup leads there any more, so they may have expired.".to_owned()),
        };
        let help = "Who removes objects in the repository? If another repository of the cluster has them, bring them with \"pitr copy\"."
            .to_owned();
        let mut finding = Finding::new(FindingKind::MissingWal, severity, what, meaning, help);
        (finding.timeline, finding.segment, finding.good_until) = (Some(*timeline), Some(name(first)), Some(first.start(size)));
        Some(finding)
    });
    gone.collect()
}

/// History files that are damaged or missing.
fn histories(scope: &Scope) -> Vec<Finding> {
    let damaged = scope.history_flaws.iter().map(|(timeline, why)| {
        let what = format!("history file of timeline {timeline}: {why}");
        let meaning = format!(
            "without it, timeline {timeline} and what branched off from it cannot be restored; backups and WAL of other timelines are \
             unaffected. But as long as the damaged file lies there, \"pitr status\", plans and restores of this cluster refuse, rather \
             than take a wrong branch."
        );
        let help = format!(
            "Move the damaged object away. {} has the file in its pg_wal: archive that one with pitr-wal-push; or bring it from another \
             repository with \"pitr copy\".",
            "A server that is or was on that timeline"
        );
        let mut finding = Finding::new(FindingKind::History, Severity::Damaged, what, meaning, help);
        finding.timeline = Some(*timeline);
        finding.object = Some(scope.server.history_object(*timeline).to_string());
        finding
    });
    let missing = scope.snapshot.timelines.iter().filter(|(timeline, record)| {
        **timeline != TimelineId::FIRST
            && record.history.is_none()
            && !record.segments.is_empty()
            && !scope.broken_histories.contains(timeline)
    });
    let missing = missing.map(|(timeline, _)| {
        let what = format!("history file of timeline {timeline} is missing, and its WAL is there");
        let meaning = format!("timeline {timeline} cannot be restored; other timelines are unaffected.");
        let help = "A server that is or was on that timeline has the file in its pg_wal: archive it with pitr-wal-push; or bring it from \
                    another repository with \"pitr copy\"."
            .to_owned();
        let mut finding = Finding::new(FindingKind::History, Severity::Missing, what, meaning, help);
        finding.timeline = Some(*timeline);
        finding.object = Some(scope.server.history_object(*timeline).to_string());
        finding
    });
    damaged.chain(missing).collect()
}

fn other(meaning: &Meaning, key: &str, why: &str) -> Finding {
    let name = key.rsplit('/').next().unwrap_or(key);
    let kind = if name.ends_with(".history") { FindingKind::History } else { FindingKind::OtherWal };
    let (severity, text) = if name.contains(".partial.") {
        let closing = meaning.closing().unwrap_or_else(|| "Every moment can still be restored without it.".to_owned());
        (Severity::Damaged, format!("the incomplete last segment cannot be used. {closing}"))
    } else if name.contains(".damaged.") {
        (
            Severity::Damaged,
            "the copy was damaged when it was archived, and nobody restores from it: nothing more is lost.".to_owned(),
        )
    } else if name.ends_with(".history") {
        let text = "its content is good, and recoveries can use it; who archived it cannot be told any more.";
        (Severity::Damaged, text.to_owned())
    } else {
        (Severity::Damaged, "restores do not need it: every moment can still be restored.".to_owned())
    };
    let what = format!("WAL file {name}: {why}");
    let mut finding = Finding::new(kind, severity, what, text, format!("{COPIES}."));
    finding.object = Some(key.to_owned());
    finding
}

/// Backups without a manifest that had one when they were verified, or that are there with all but that.
fn gone_backups(scope: &Scope, left: &Meaning) -> Vec<Finding> {
    let broken_off = scope.backups.iter().filter(|backup| !backup.complete && backup.info.is_ok());
    let gone = broken_off.map(|backup| {
        let id = backup.id;
        let known = scope.verified.backups.get(&id);
        let (severity, what, meaning) = match known {
            Some(known) => (
                Severity::Damaged,
                format!("backup {id}: its manifest was there at {:.0}, and is not there any more", known.at.to_timestamp()),
                format!("backup {id} does not exist any more: it cannot be restored. {}", closing(left, id)),
            ),
            None => (
                Severity::Harmless,
                format!("backup {id} has no manifest: it was broken off before its last step, or somebody removed the manifest"),
                "it does not count as a backup, and nobody restores from it.".to_owned(),
            ),
        };
        let help = "Did somebody remove it? If another repository of the cluster has it, bring it with \"pitr copy\".".to_owned();
        let mut finding = Finding::new(FindingKind::BackupGone, severity, what, meaning, help);
        (finding.backup, finding.object) = (Some(id), Some(scope.server.manifest_object(id).to_string()));
        finding
    });
    gone.collect()
}
