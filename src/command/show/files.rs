//! Every file of a backup, listed as the manifest streams by: there may be millions.

use std::cell::RefCell;
use std::io::Write;

use serde::ser::{Error as _, SerializeSeq};
use serde::{Serialize, Serializer};

use super::super::contents::table::{Wanted, titled};
use super::super::contents::tally::Tally;
use super::super::contents::{ContentsError, Found, columns, read_manifest};
use super::Answer;
use crate::chunk::EntryPath;
use crate::chunk::relation_file::Fork;
use crate::command::{Context, Output};
use crate::manifest::place::{FileGroup, FileKind, FilePlace};
use crate::manifest::{FileEntry, ManifestLine};
use crate::repository::BackupCatalog;
use crate::wal::PgTime;

/// A list that is about to be written.
pub(super) struct Listing<'a> {
    found: &'a Found,
    catalog: &'a BackupCatalog,
    wanted: Wanted<'a>,
    context: &'a Context,
}

/// One file.
#[derive(Debug, Serialize)]
struct ShownFile {
    path: EntryPath,
    /// Oid of the tablespace below whose location the path is; absent for the data directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    tablespace: Option<u32>,
    #[serde(flatten)]
    total: Tally,
    /// As the server told; `backup_manifest` has none.
    modified_at: Option<PgTime>,
    crc32c: Option<String>,
    /// Which relation's it is, if that has a name.
    relation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fork: Option<Fork>,
    #[serde(skip_serializing_if = "Option::is_none")]
    segment: Option<u32>,
    /// What it is, if it is no relation's.
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<FileGroup>,
}

/// The whole document: what is shown otherwise, and the files.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    answer: &'a Answer,
    file_list: Files<'a>,
}

/// Reads the manifest while it is written. What fails is kept for the caller: a serializer's error has no room for it.
struct Files<'a> {
    listing: &'a Listing<'a>,
    failed: &'a RefCell<Option<ContentsError>>,
}

impl Serialize for Files<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        let mut unwritten = None;
        let outcome = self.listing.each(|file| match list.serialize_element(&file) {
            Ok(()) => Ok(()),
            Err(error) => {
                unwritten = Some(error);
                Err(ContentsError::Interrupted)
            }
        });
        match (unwritten, outcome) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => list.end(),
            (None, Err(error)) => {
                let told = S::Error::custom(&error);
                self.failed.replace(Some(error));
                Err(told)
            }
        }
    }
}

impl<'a> Listing<'a> {
    pub(super) fn new(
        found: &'a Found,
        catalog: &'a BackupCatalog,
        wanted: Wanted<'a>,
        context: &'a Context,
    ) -> Listing<'a> {
        Listing { found, catalog, wanted, context }
    }

    pub(super) fn json(&self, answer: &Answer, out: &mut Output) -> Result<(), ContentsError> {
        let failed = RefCell::new(None);
        let written = out.json(&Document { answer, file_list: Files { listing: self, failed: &failed } });
        failed.take().map_or(Ok(written?), Err)
    }

    pub(super) fn text(&self, out: &mut Output) -> Result<(), ContentsError> {
        columns::head(&["size", "stored", "earlier"], "modified (UTC)       CRC-32C   path", out)?;
        let mut total = Tally::default();
        self.each(|file| {
            total += file.total;
            Ok(file.write(out)?)
        })?;
        let Tally { files, size_bytes, stored_bytes, referenced_bytes } = total;
        let cells = [size_bytes, stored_bytes, referenced_bytes].map(columns::size);
        columns::line(&cells, format!("in {} files", indicatif::HumanCount(files)), out)?;
        Ok(())
    }

    /// Hands out each file once; later parts of a file are added to its first.
    fn each(&self, mut hand_out: impl FnMut(ShownFile) -> Result<(), ContentsError>) -> Result<(), ContentsError> {
        let mut open: Option<ShownFile> = None;
        read_manifest(&self.found.server, self.found.known.info.id, self.context, |line| {
            let ManifestLine::File(line) = line else { return Ok(()) };
            if line.from == 0 {
                open.take().map_or(Ok(()), &mut hand_out)?;
                open = self.shown(line);
            } else if let Some(file) = &mut open {
                file.total += Tally::of(&line, &mut Vec::new());
                file.crc32c = line.crc32c;
            }
            Ok(())
        })?;
        open.map_or(Ok(()), hand_out)
    }

    /// The file of a first line, if it is wanted.
    fn shown(&self, line: FileEntry) -> Option<ShownFile> {
        let place = FilePlace::of(&line.path, line.tablespace);
        let (belonging, fork, segment, kind) = match place.kind {
            FileKind::Relation { file, fork, segment } => {
                (self.catalog.relation_of(file), Some(fork), Some(segment), None)
            }
            FileKind::Other(group) => (None, None, None, Some(group)),
        };
        // What belongs to no database is not of the one that is asked for.
        let database = place.database.unwrap_or(0);
        self.wanted.holds(database, belonging.as_ref(), self.catalog).then(|| ShownFile {
            total: Tally::of(&line, &mut Vec::new()),
            path: line.path,
            tablespace: line.tablespace,
            modified_at: (line.modified_at != 0).then(|| PgTime::from_unix_seconds(line.modified_at)),
            crc32c: line.crc32c,
            relation: belonging.map(|of| titled(&of.name)),
            fork,
            segment,
            kind,
        })
    }
}

impl ShownFile {
    fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let Tally { size_bytes, stored_bytes, referenced_bytes, .. } = self.total;
        let time = self.modified_at.map(|time| time.to_timestamp().strftime("%Y-%m-%d %H:%M:%S").to_string());
        let (time, crc) = (time.unwrap_or_default(), self.crc32c.as_deref().unwrap_or_default());
        let folder = self.tablespace.map_or_else(String::new, |oid| format!("pg_tblspc/{oid}/"));
        let name = self.relation.as_ref().map_or_else(String::new, |relation| format!("  {relation}"));
        let cells = [size_bytes, stored_bytes, referenced_bytes].map(columns::size);
        columns::line(&cells, format!("{time:19}  {crc:8}  {folder}{}{name}", self.path), out)
    }
}
