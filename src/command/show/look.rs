//! Reading what is to be shown.

use std::collections::BTreeMap;

use super::super::contents::table::{Wanted, tables, titled};
use super::super::contents::tally::{Survey, Tally};
use super::super::contents::{ContentsError, Found, read_manifest};
use super::super::keeping::ShownBackup;
use super::{Answer, Bad, Configuration, Earlier, Group, Named, Reading};
use crate::catalog::{BackupId, Tablespace};
use crate::command::Context;
use crate::manifest::place::{DEFAULT_TABLESPACE, FileKind, FilePlace, GLOBAL_TABLESPACE};
use crate::manifest::{BadPages, ManifestLine};
use crate::repository::{BackupCatalog, ServerRepository};

/// Reads a backup's manifest and sums it up; the `top` largest of the wanted tables are told.
pub(super) fn look(
    found: &Found,
    catalog: &BackupCatalog,
    wanted: Wanted<'_>,
    top: usize,
    context: &Context,
) -> Result<Answer, ContentsError> {
    let info = &found.known.info;
    let mut survey = Survey::default();
    let mut configuration: Vec<Configuration> = Vec::new();
    let (header, stop) = read_manifest(&found.server, info.id, context, |line| {
        match line {
            ManifestLine::File(line) => survey.take(&line),
            ManifestLine::Config(mut file) => {
                // These frames count where they are stored, though not as files of the cluster.
                Tally::default().take(&std::mem::take(&mut file.chunks), &mut survey.sources);
                configuration.push(file.into());
            }
            ManifestLine::Directory(_) | ManifestLine::Symlink(_) => {}
        }
        Ok(())
    })?;
    let databases = databases(&survey, catalog);
    if let Some(name) = wanted.database.filter(|name| !databases.iter().any(|database| database.name == *name)) {
        return Err(ContentsError::NoDatabase { id: info.id, name: name.to_owned() });
    }
    let mut tables = tables(&survey, catalog, wanted);
    let tables_not_listed = tables.len().saturating_sub(top) as u64;
    tables.truncate(top);
    let groups = survey.groups.iter().map(|(kind, total)| Group { kind: *kind, total: *total });
    let Tally { size_bytes, stored_bytes, referenced_bytes, .. } = survey.total;
    // Shares need no more than the 52 bits that a float has.
    #[allow(clippy::cast_precision_loss)]
    let share = (stored_bytes + referenced_bytes) as f64 / size_bytes as f64;
    Ok(Answer {
        backup: ShownBackup::from(found.known.clone()),
        read: match (info.changed_only, info.parent) {
            (true, _) => Reading::ChangedOnly,
            (false, Some(_)) => Reading::Compared,
            (false, None) => Reading::Full,
        },
        total: survey.total,
        stored_share: (size_bytes > 0).then_some(share),
        earlier: earlier(&found.server, &header.pack_sources, &survey.sources)?,
        databases,
        by_tablespace: tablespaces(&survey.tablespaces, &header.tablespaces),
        tables,
        tables_not_listed,
        other_files: groups.collect(),
        bad_page_files: stop.bad_pages.into_iter().map(|pages| bad(pages, catalog)).collect(),
        configuration,
        remarks: catalog.notes(),
    })
}

/// The backups that are referred to.
fn earlier(server: &ServerRepository, sources: &[BackupId], bytes: &[u64]) -> Result<Vec<Earlier>, ContentsError> {
    let mut found = Vec::new();
    let referred = sources.iter().zip(bytes).skip(1).filter(|(_, bytes)| **bytes > 0);
    for (backup, referenced_bytes) in referred {
        let known = server.known_backup(*backup)?;
        found.push(Earlier {
            backup: *backup,
            referenced_bytes: *referenced_bytes,
            label: known.as_ref().map(|known| known.info.label.clone()),
            stop_time: known.as_ref().map(|known| known.info.stop_time),
            forgotten: known.is_some_and(|known| known.notes.forgotten.is_some()),
        });
    }
    found.sort_by_key(|earlier| std::cmp::Reverse(earlier.referenced_bytes));
    Ok(found)
}

/// What a database is called: by its name, or by its oid.
fn database_name(oid: Option<u32>, catalog: &BackupCatalog) -> String {
    match oid {
        None => "the cluster as a whole".to_owned(),
        Some(0) => "what all databases share".to_owned(),
        Some(oid) => catalog.database_name(oid).unwrap_or_else(|| format!("database {oid}, whose name cannot be told")),
    }
}

fn databases(survey: &Survey, catalog: &BackupCatalog) -> Vec<Named> {
    named(&survey.databases, |oid| database_name(oid, catalog))
}

fn tablespaces(tallies: &BTreeMap<Option<u32>, Tally>, known: &[Tablespace]) -> Vec<Named> {
    let mut tallies = tallies.clone();
    // Empty ones are there, too.
    for tablespace in known {
        tallies.entry(Some(tablespace.oid)).or_default();
    }
    named(&tallies, |oid| match oid {
        None => "the data directory outside of tablespaces".to_owned(),
        Some(DEFAULT_TABLESPACE) => "pg_default".to_owned(),
        Some(GLOBAL_TABLESPACE) => "pg_global".to_owned(),
        Some(oid) => {
            let location = known.iter().find(|tablespace| tablespace.oid == oid).map(|it| it.location.as_str());
            format!("{} (oid {oid})", location.unwrap_or("unknown place"))
        }
    })
}

/// The largest first.
fn named(tallies: &BTreeMap<Option<u32>, Tally>, name: impl Fn(Option<u32>) -> String) -> Vec<Named> {
    let mut named: Vec<Named> =
        tallies.iter().map(|(oid, total)| Named { oid: *oid, name: name(*oid), total: *total }).collect();
    named.sort_by_key(|named| (std::cmp::Reverse(named.total.size_bytes), named.oid));
    named
}

fn bad(pages: BadPages, catalog: &BackupCatalog) -> Bad {
    let relation = match FilePlace::of(&pages.path, pages.tablespace).kind {
        FileKind::Relation { file, .. } => catalog.relation_of(file).map(|of| titled(&of.name)),
        FileKind::Other(_) => None,
    };
    Bad { pages, relation }
}
