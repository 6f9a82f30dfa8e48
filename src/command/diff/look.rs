//! Reading two backups against each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::contents::table::Wanted;
use super::super::contents::tally::{Survey, Tally};
use super::super::contents::{ContentsError, Found, read_manifest};
use super::before::{Before, Changed};
use super::group::group;
use super::relations::{Side, relations};
use super::{Answer, Args, ConfigurationChange, Ends, Fate, GroupChange, Holder, Wal};
use crate::catalog::{BackupInfo, Tablespace};
use crate::chunk::{ChunkContent, ChunkId, ChunkRef};
use crate::command::Context;
use crate::manifest::place::{DEFAULT_TABLESPACE, FileGroup, FileKind, FilePlace, GLOBAL_TABLESPACE};
use crate::manifest::{FileEntry, ManifestLine};
use crate::repository::{BackupCatalog, RepositoryError, ServerRepository};
use crate::wal::{RelationFile, TimelineHistory, TimelineId};

/// What makes the content of a small file: its size and the identities of its chunks.
type Content = (u64, Vec<Option<ChunkId>>);

/// Configuration files, inside and outside the data directory, by their paths. `None`: could not be read.
type Configuration = BTreeMap<String, Option<Content>>;

/// How much changed, by what it belongs to.
#[derive(Default)]
struct Sums {
    all: Changed,
    relations: HashMap<RelationFile, Changed>,
    databases: HashMap<Option<u32>, Changed>,
    tablespaces: HashMap<Option<u32>, Changed>,
    groups: HashMap<FileGroup, Changed>,
}

impl Sums {
    fn add(&mut self, place: FilePlace, changed: Changed) {
        self.all += changed;
        *self.databases.entry(place.database).or_default() += changed;
        *self.tablespaces.entry(place.tablespace).or_default() += changed;
        *match place.kind {
            FileKind::Relation { file, .. } => self.relations.entry(file).or_default(),
            FileKind::Other(group) => self.groups.entry(group).or_default(),
        } += changed;
    }
}

/// One backup, read.
struct Read {
    survey: Survey,
    catalog: BackupCatalog,
    configuration: Configuration,
}

/// Compares two backups of one server.
pub(super) fn look(before: &Found, after: &Found, args: &Args, context: &Context) -> Result<Answer, ContentsError> {
    let mut chunks = Before::default();
    let one = read(before, context, |line, info| chunks.take(line, info))?;
    let mut sums = Sums::default();
    let other = read(after, context, |line, sources| {
        let changed = chunks.compare(line, sources);
        sums.add(FilePlace::of(&line.path, line.tablespace), changed);
    })?;
    drop(chunks);

    let wanted = Wanted { database: args.database.as_deref(), relation: None };
    let known = |read: &Read| {
        let mut oids = read.survey.databases.keys().flatten();
        oids.any(|oid| read.catalog.database_name(*oid).as_deref() == wanted.database)
    };
    if let Some(name) = wanted.database.filter(|_| !known(&one) && !known(&other)) {
        return Err(ContentsError::NoDatabase { id: after.known.info.id, name: name.to_owned() });
    }
    let (databases_before, databases_after) = (oids(&one.survey), oids(&other.survey));
    // What is in a database that came or went is told as that database, unless it is asked for.
    let in_both = |oid: u32| databases_before.contains(&oid) && databases_after.contains(&oid);
    let told = |read: &Read, oid: u32, side: &Side| {
        (in_both(oid) || wanted.database.is_some()) && wanted.holds(oid, side.belonging.as_ref(), &read.catalog)
    };
    let sides = |read: &Read| -> Vec<Side> {
        let all = read.survey.relations.iter().map(|(file, tally)| Side {
            file: *file,
            size_bytes: tally.size_bytes,
            belonging: read.catalog.relation_of(*file),
        });
        all.filter(|side| told(read, side.file.database, side)).collect()
    };
    let (changes, unchanged_relations) = relations(sides(&one), sides(&other), &sums.relations);
    let mut tables = group(changes, &one.catalog, &other.catalog);
    let tables_not_listed = tables.len().saturating_sub(args.top) as u64;
    tables.truncate(args.top);

    let mut remarks: Vec<String> = Vec::new();
    for (found, read) in [(before, &one), (after, &other)] {
        remarks.extend(read.catalog.notes().iter().map(|note| format!("base backup {}: {note}", found.known.info.id)));
    }
    Ok(Answer {
        before: ends(before, one.survey.total),
        after: ends(after, other.survey.total),
        wal: wal(&after.server, &before.known.info, &after.known.info)?,
        changed: sums.all.into(),
        databases: databases(&one, &other, &sums),
        tablespaces: tablespaces(before, after, &one.survey, &other.survey, &sums),
        configuration: configuration(&one.configuration, &other.configuration),
        tables,
        tables_not_listed,
        unchanged_relations,
        other_files: groups(&one.survey, &other.survey, &sums),
        remarks,
    })
}

fn read(
    found: &Found,
    context: &Context,
    mut each: impl FnMut(&FileEntry, &[crate::catalog::BackupId]),
) -> Result<Read, ContentsError> {
    let id = found.known.info.id;
    let catalog = found.server.catalog_of_backup(id)?;
    let mut survey = Survey::default();
    let mut configuration = Configuration::new();
    let sources = found.server.open_manifest(id)?.header().pack_sources.clone();
    read_manifest(&found.server, id, context, |line| {
        match line {
            ManifestLine::File(line) => {
                survey.take(&line);
                each(&line, &sources);
                let kind = FilePlace::of(&line.path, line.tablespace).kind;
                if kind == FileKind::Other(FileGroup::Configuration) {
                    let content = configuration.entry(line.path.to_string()).or_insert(Some((line.size, Vec::new())));
                    content.iter_mut().for_each(|(_, chunks)| chunks.extend(identities(&line.chunks)));
                }
            }
            ManifestLine::Config(file) => {
                let content = file.missing.is_none().then(|| (file.size, identities(&file.chunks)));
                configuration.insert(file.source, content);
            }
            ManifestLine::Directory(_) | ManifestLine::Symlink(_) => {}
        }
        Ok(())
    })?;
    Ok(Read { survey, catalog, configuration })
}

fn identities(chunks: &[ChunkRef]) -> Vec<Option<ChunkId>> {
    let identity = |chunk: &ChunkRef| match &chunk.content {
        ChunkContent::Zero => None,
        ChunkContent::Stored { id, .. } => Some(*id),
    };
    chunks.iter().map(identity).collect()
}

fn ends(found: &Found, total: Tally) -> Ends {
    let info = &found.known.info;
    Ends {
        backup: info.id,
        label: info.label.clone(),
        start_time: info.start_time,
        stop_time: info.stop_time,
        stop_lsn: info.stop_lsn,
        stop_timeline: info.stop_timeline,
        forgotten: found.known.notes.forgotten.is_some(),
        bad_pages: info.bad_pages,
        total,
    }
}

fn oids(survey: &Survey) -> BTreeSet<u32> {
    survey.databases.keys().flatten().copied().collect()
}

/// The WAL between the ends of two backups, if one leads to the other.
fn wal(server: &ServerRepository, before: &BackupInfo, after: &BackupInfo) -> Result<Wal, RepositoryError> {
    for (from, to, backwards) in [(before, after, false), (after, before, true)] {
        let history = match to.stop_timeline {
            TimelineId::FIRST => Some(TimelineHistory::first()),
            timeline => server.history(timeline)?,
        };
        let leads = |history: TimelineHistory| leads(&history, from, to);
        if history.is_some_and(leads) {
            return Ok(Wal { bytes: Some(to.stop_lsn.0 - from.stop_lsn.0), backwards });
        }
    }
    Ok(Wal { bytes: None, backwards: false })
}

/// Whether the end of one backup lies on the way to the end of another.
fn leads(history: &TimelineHistory, from: &BackupInfo, to: &BackupInfo) -> bool {
    let passes = |(timeline, until): (TimelineId, Option<crate::wal::Lsn>)| {
        timeline == from.stop_timeline && until.is_none_or(|until| from.stop_lsn <= until)
    };
    from.stop_lsn <= to.stop_lsn && history.path().any(passes)
}

/// What became of a thing with a name and bytes.
fn fate(before: Option<&String>, after: Option<&String>, sizes_differ: bool, changed: Changed) -> Fate {
    match (before, after) {
        (None, _) => Fate::Created,
        (Some(_), None) => Fate::Dropped,
        (Some(before), Some(after)) if before != after => Fate::Renamed,
        _ if changed.bytes > 0 || sizes_differ => Fate::Changed,
        _ => Fate::Same,
    }
}

/// Databases or tablespaces of both backups, by oid, with what they are called in each.
fn holders(
    before: &BTreeMap<Option<u32>, (String, u64)>,
    after: &BTreeMap<Option<u32>, (String, u64)>,
    changed: &HashMap<Option<u32>, Changed>,
) -> Vec<Holder> {
    let oids: BTreeSet<Option<u32>> = before.keys().chain(after.keys()).copied().collect();
    let mut all = Vec::new();
    for oid in oids {
        let (was, is) = (before.get(&oid), after.get(&oid));
        let bytes = |side: Option<&(String, u64)>| side.map_or(0, |(_, bytes)| *bytes);
        let changed = changed.get(&oid).copied().unwrap_or_default();
        let (name_before, name_after) = (was.map(|(name, _)| name), is.map(|(name, _)| name));
        let what = fate(name_before, name_after, bytes(was) != bytes(is), changed);
        all.push(Holder {
            oid,
            name: name_after.or(name_before).cloned().unwrap_or_default(),
            was: name_before.filter(|_| what == Fate::Renamed).cloned(),
            what,
            before_bytes: bytes(was),
            after_bytes: bytes(is),
            changed: changed.into(),
        });
    }
    all.sort_by_key(|holder| (std::cmp::Reverse(holder.changed.changed_bytes), holder.oid));
    all
}

fn databases(one: &Read, other: &Read, sums: &Sums) -> Vec<Holder> {
    // A name that only one of them tells is no other name.
    let name = |read: &Read, oid: Option<u32>| match oid {
        None => "the cluster as a whole".to_owned(),
        Some(0) => "what all databases share".to_owned(),
        Some(oid) => {
            let other = if std::ptr::eq(read, one) { other } else { one };
            let told = read.catalog.database_name(oid).or_else(|| other.catalog.database_name(oid));
            told.unwrap_or_else(|| format!("database {oid}, whose name cannot be told"))
        }
    };
    let of = |read: &Read| {
        let all = read.survey.databases.iter();
        all.map(|(oid, tally)| (*oid, (name(read, *oid), tally.size_bytes))).collect()
    };
    holders(&of(one), &of(other), &sums.databases)
}

fn tablespaces(before: &Found, after: &Found, one: &Survey, other: &Survey, sums: &Sums) -> Vec<Holder> {
    let name = |known: &[Tablespace], oid: Option<u32>| match oid {
        None => "the data directory outside of tablespaces".to_owned(),
        Some(DEFAULT_TABLESPACE) => "pg_default".to_owned(),
        Some(GLOBAL_TABLESPACE) => "pg_global".to_owned(),
        Some(oid) => {
            known.iter().find(|it| it.oid == oid).map_or_else(|| format!("oid {oid}"), |it| it.location.clone())
        }
    };
    let of = |found: &Found, survey: &Survey| {
        let known = &found.known.info.tablespaces;
        let all = survey.tablespaces.iter().map(|(oid, tally)| (*oid, tally.size_bytes));
        let empty = known.iter().map(|tablespace| (Some(tablespace.oid), 0));
        empty.chain(all).map(|(oid, bytes)| (oid, (name(known, oid), bytes))).collect()
    };
    holders(&of(before, one), &of(after, other), &sums.tablespaces)
}

fn configuration(before: &Configuration, after: &Configuration) -> Vec<ConfigurationChange> {
    let paths: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut changes = Vec::new();
    for path in paths {
        let what = match (before.get(path), after.get(path)) {
            (None, _) => Fate::Created,
            (Some(_), None) => Fate::Dropped,
            (Some(was), Some(is)) if was == is => continue,
            _ => Fate::Changed,
        };
        let size = |side: &Configuration| side.get(path)?.as_ref().map(|(size, _)| *size);
        let (before_bytes, after_bytes) = (size(before), size(after));
        changes.push(ConfigurationChange { path: path.clone(), what, before_bytes, after_bytes });
    }
    changes
}

fn groups(before: &Survey, after: &Survey, sums: &Sums) -> Vec<GroupChange> {
    let kinds: BTreeSet<FileGroup> = before.groups.keys().chain(after.groups.keys()).copied().collect();
    let size = |survey: &Survey, kind| survey.groups.get(&kind).map_or(0, |tally| tally.size_bytes);
    let changes = kinds.into_iter().map(|kind| GroupChange {
        kind,
        before_bytes: size(before, kind),
        after_bytes: size(after, kind),
        changed: sums.groups.get(&kind).copied().unwrap_or_default().into(),
    });
    changes.filter(|group| group.changed.changed_bytes > 0 || group.before_bytes != group.after_bytes).collect()
}
