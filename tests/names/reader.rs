//! Reading the archive, and comparing at each place that SQL was asked at.

use std::collections::{BTreeMap, VecDeque};

use pitr::wal::names::{CatalogChange, CatalogChanges, RelationName, RelationNames};
use pitr::wal::{
    Borders, Completeness, Event, Lsn, RawRecord, RecordHeader, RecordVisitor, SegmentScanner, WalFileName,
    check_segment_header,
};

use super::harness::Site;
use super::work::{Look, Told};

/// What came out of the comparison.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    wrong: Vec<String>,
    missing: Vec<String>,
    known: usize,
    asked: usize,
    looks: usize,
    notes: Vec<String>,
}

impl Outcome {
    pub(super) fn assert_right(&self) {
        assert!(self.wrong.is_empty(), "{} wrong: {:#?}", self.wrong.len(), &self.wrong[..self.wrong.len().min(20)]);
        assert!(self.looks > 5, "only {} looks were compared", self.looks);
    }

    pub(super) fn assert_complete(&self) {
        let shown = &self.missing[..self.missing.len().min(20)];
        assert!(self.missing.is_empty(), "{} missing: {shown:#?}; {:?}", self.missing.len(), self.notes);
        assert!(self.notes.is_empty(), "{:?}", self.notes);
    }

    /// At least this part of all names is given.
    pub(super) fn assert_known(&self, part: f64) {
        let found = self.known as f64 / self.asked as f64;
        eprintln!("{} of {} names known, {:?}", self.known, self.asked, self.notes);
        assert!(found >= part, "{found:.3} of {}: {:?} {:#?}", self.asked, self.notes, self.missing.first());
    }
}

/// Reads all archived segments from `start` on, and compares at each look.
pub(super) fn read(site: &Site, start: Lsn, names: RelationNames, looks: Vec<Look>) -> Outcome {
    let mut judge = Judge { names, start, looks: looks.into(), shadow: None, outcome: Outcome::default() };
    let mut borders = Borders::new();
    let mut segments: Vec<String> =
        site.stored_wal().iter().map(|path| path.rsplit('/').next().unwrap_or_default().to_owned()).collect();
    segments.retain(|name| matches!(name.parse(), Ok(WalFileName::Segment(_))));
    segments.sort();
    for segment in segments {
        let raw = site.archived_bytes(&segment).expect("it was listed");
        let name = segment.parse().expect("a segment");
        let header = check_segment_header(&raw, name, raw.len() as u64).expect("a good header");
        if header.end() <= start {
            continue;
        }
        let mut scanner = SegmentScanner::new(&header, Completeness::Complete).after(borders.clone());
        scanner.feed_to(&raw, &mut judge);
        let scan = scanner.finish();
        assert_eq!(scan.damage, None, "{segment}");
        borders.pass(scan.head, scan.tail, header.major);
    }
    judge.pass(Lsn(u64::MAX));
    judge.outcome.notes = judge.names.notes().iter().map(ToString::to_string).collect();
    judge.outcome
}

/// Schema, name and file number of each relation by database and oid. A database that moves to another tablespace takes its relations
/// along without a change of each.
type Shadow = BTreeMap<(u32, u32), (String, String, Option<u32>)>;

/// Follows the WAL and compares with what SQL said.
struct Judge {
    names: RelationNames,
    start: Lsn,
    looks: VecDeque<Look>,
    /// What the changes alone make of the relations, from the first look on.
    shadow: Option<Shadow>,
    outcome: Outcome,
}

impl RecordVisitor for Judge {
    fn event(&mut self, event: Event) {
        if event.lsn >= self.start {
            self.pass(event.lsn);
            let changes = self.names.event(&event);
            self.apply(&changes);
        }
    }

    fn wants(&self, header: &RecordHeader) -> bool {
        self.names.wants(header)
    }

    fn record(&mut self, record: &RawRecord<'_>) {
        if record.lsn >= self.start {
            self.pass(record.lsn);
            self.names.record(record);
        }
    }
}

impl Judge {
    /// Compares at all looks before the next record.
    fn pass(&mut self, next: Lsn) {
        while self.looks.front().is_some_and(|look| look.lsn <= next) {
            let Some(look) = self.looks.pop_front() else { return };
            self.compare(&look);
        }
    }

    fn compare(&mut self, look: &Look) {
        self.names.pass(look.lsn);
        self.outcome.looks += 1;
        for (file, told) in &look.files {
            self.outcome.asked += 1;
            match self.names.name_of(*file) {
                Some(name) if same(&name, told) => self.outcome.known += 1,
                Some(name) => self.outcome.wrong.push(format!("{}: {file:?} is {told:?}, not {name:?}", look.after)),
                None => self.outcome.missing.push(format!("{}: {file:?} is {told:?}", look.after)),
            }
        }
        for database in self.names.databases().collect::<Vec<_>>() {
            let Some(_) = look.databases.get(&database) else { continue };
            for name in self.names.relations(database).collect::<Vec<_>>() {
                let Some(file) = name.file else { continue };
                if !look.files.contains_key(&file) && look.looked_into.contains(&database) {
                    self.outcome.wrong.push(format!("{}: there is no {name:?}", look.after));
                }
            }
        }
        for (oid, told) in &look.databases {
            match self.names.database_name(*oid) {
                Some(name) if name == *told => {}
                Some(name) => self.outcome.wrong.push(format!("{}: database {oid} is {told}, not {name}", look.after)),
                None => self.outcome.missing.push(format!("{}: database {oid} is {told}", look.after)),
            }
        }
        self.compare_shadow(look);
    }

    /// What the changes add up to is what is there.
    fn compare_shadow(&mut self, look: &Look) {
        let now = self.shadow_of_names(None);
        let Some(shadow) = &self.shadow else {
            self.shadow = Some(now);
            return;
        };
        if !self.names.notes().is_empty() {
            return;
        }
        for (key, value) in &now {
            if shadow.get(key) != Some(value) {
                self.outcome.wrong.push(format!(
                    "{}: changes make {key:?} {:?}, not {value:?}",
                    look.after,
                    shadow.get(key)
                ));
            }
        }
        for (key, value) in shadow {
            if !now.contains_key(key) {
                self.outcome.wrong.push(format!("{}: changes make {key:?} {value:?}, it is not there", look.after));
            }
        }
        self.shadow = Some(now);
    }

    fn shadow_of_names(&self, of: Option<u32>) -> Shadow {
        let databases = self.names.databases().filter(|oid| of.is_none_or(|of| of == *oid));
        let all = databases.flat_map(|database| self.names.relations(database).map(move |name| (database, name)));
        all.map(|(database, name)| ((database, name.oid), value(&name))).collect()
    }

    fn apply(&mut self, changes: &CatalogChanges) {
        let Some(mut shadow) = self.shadow.take() else { return };
        for change in &changes.changes {
            match change {
                CatalogChange::RelationCreated(name) => {
                    shadow.insert((name.database_oid, name.oid), value(name));
                }
                CatalogChange::RelationDropped(name) => {
                    shadow.remove(&(name.database_oid, name.oid));
                }
                CatalogChange::RelationRenamed { after, .. } | CatalogChange::RelationRewritten { after, .. } => {
                    shadow.insert((after.database_oid, after.oid), value(after));
                }
                CatalogChange::SchemaRenamed { before, after } => {
                    let inside = shadow
                        .iter_mut()
                        .filter(|((database, _), value)| *database == before.database_oid && value.0 == before.name);
                    inside.for_each(|(_, value)| value.0.clone_from(&after.name));
                }
                CatalogChange::DatabaseCreated(name) => shadow.extend(self.shadow_of_names(Some(name.oid))),
                CatalogChange::DatabaseDropped(name) => shadow.retain(|(database, _), _| *database != name.oid),
                CatalogChange::SchemaCreated(_)
                | CatalogChange::SchemaDropped(_)
                | CatalogChange::DatabaseRenamed { .. } => {}
            }
        }
        self.shadow = Some(shadow);
    }
}

fn value(name: &RelationName) -> (String, String, Option<u32>) {
    (name.schema.clone(), name.name.clone(), name.file.map(|file| file.relation))
}

fn same(name: &RelationName, told: &Told) -> bool {
    let database_right = name.database.as_ref().is_none_or(|database| *database == told.database);
    let right_owner = name.toast_of.as_ref().is_none_or(|owner| Some(owner) == told.toast_of.as_ref());
    (&name.schema, &name.name, name.kind.to_string().as_str()) == (&told.schema, &told.name, told.kind.as_str())
        && database_right
        && right_owner
        && name.temporary == told.temporary
}
