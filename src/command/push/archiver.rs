//! `Archiver`: a cluster's WAL files on their way into its repository.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::PushError;
use super::borders::{self, Before, Borders};
use super::memory::{Held, Memory};
use super::source::Source;
use super::targets::{Delivered, Targets};
use crate::codec::{Compression, DamageNote, Origin};
use crate::command::call::Server;
use crate::command::host;
use crate::repository::wal::{NewWalFile, ReadSegment};
use crate::repository::{RepositoryId, ServerRecord};
use crate::spool::{BorderNote, EntryNote, Spool};
use crate::wal::{Continuity, SegmentName, WalFileName};

/// Most bytes of segments that are in memory at a time on their way to a bucket or to several repositories: two of the default size
/// that do not compress. A third would fit beside them as long as nothing is compressed yet, but the process is to stay in 64 MiB.
const BYTES_IN_MEMORY: u64 = 46 << 20;

/// The repositories, and what is noted with each file that goes there.
#[derive(Debug)]
pub(super) struct Archiver {
    targets: Targets,
    compression: Compression,
    origin: Origin,
    /// Without it, nothing is known from earlier calls, and nothing is left for later ones.
    spool: Option<Spool>,
    borders: Arc<Borders>,
    memory: Arc<Memory>,
}

/// A file that was archived.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) remark: Option<Remark>,
    /// The repositories that hold it.
    pub(super) holders: Vec<RepositoryId>,
}

/// What a person has to know of a file that was archived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Remark {
    /// It is damaged, and was kept aside.
    Damaged(DamageNote),
    /// Its WAL is not that which follows this segment in the archive; both are whole.
    OtherHistory(SegmentName),
}

impl Archiver {
    /// For a cluster whose repositories were opened.
    pub(super) fn new(server: &Server, targets: Targets) -> Result<Archiver, PushError> {
        if let Some(directory) = &server.data_directory {
            for repository in Targets::directories(server) {
                check_outside(&repository, &directory.path)?;
            }
        }
        let directory = server.data_directory.as_ref().map(|found| found.path.display().to_string());
        let origin = Origin {
            host: host::host_name(),
            source: directory.unwrap_or_else(|| "no data directory".to_owned()),
            program: format!("pitr-wal-push {}", env!("CARGO_PKG_VERSION")),
        };
        let spool = server.make_spool();
        let borders = Arc::default();
        let memory = Memory::new(if targets.are_sent_from_memory() { BYTES_IN_MEMORY } else { u64::MAX });
        Ok(Archiver { targets, compression: server.config.compression, origin, spool, borders, memory })
    }

    /// What the repository knows about the cluster.
    pub(super) fn record(&self) -> &ServerRecord {
        self.targets.record()
    }

    /// Where files go.
    pub(super) fn targets(&self) -> &Targets {
        &self.targets
    }

    /// The notes of earlier calls.
    pub(super) fn spool(&self) -> Option<&Spool> {
        self.spool.as_ref()
    }

    /// What is known of the segments of this call and the one before them.
    pub(super) fn borders(&self) -> &Arc<Borders> {
        &self.borders
    }

    /// The memory that one segment takes, if it is free within this time.
    pub(super) fn hold(&self, patience: Duration) -> Option<Held> {
        self.memory.hold(self.record().segment_size_bytes.bytes(), patience)
    }

    /// Stores one file, in the memory that is held for it: it is durable in the repositories that are returned.
    pub(super) fn archive(&self, mut source: Source, held: Option<Held>) -> Result<Stored, PushError> {
        if let WalFileName::Segment(name) = source.file_name {
            return self.archive_segment(name, source, held);
        }
        let raw = source.read()?;
        let mut new = NewWalFile::new(source.file_name, &raw, self.origin.clone(), host::now());
        if let WalFileName::Partial(name) = source.file_name {
            new = new.with_records(&source.check_header(name, self.record())?);
        } else {
            source.check_text(&raw)?;
        }
        let stage = self.targets.stage();
        let archived = stage.archive(&new, self.compression)?;
        Ok(Stored { remark: None, holders: self.targets.deliver(&stage, archived)?.holders })
    }

    /// One pass: proof of the records, checksum and compression see each piece while it is in the cache.
    fn archive_segment(
        &self,
        name: SegmentName,
        mut source: Source,
        mut held: Option<Held>,
    ) -> Result<Stored, PushError> {
        let header = source.check_header(name, self.record())?;
        let (lead, stage) = (self.targets.lead(), self.targets.stage());
        let mut new = stage.begin_segment(&header, self.compression)?;
        source.pieces(|piece| Ok(new.write(piece)?))?;
        if let Some(held) = &mut held {
            held.shrink_to(new.stored_bytes());
        }
        let previous = borders::previous(name, header.segment_size);
        let before = previous.and_then(|name| self.borders.before(name, self.spool.as_ref(), &lead.id));
        let mut read = new.finish(before.as_ref().map(Before::border), self.origin.clone());
        let proved = matches!(read.continuity(), Continuity::Proved { .. });
        let other_history = before.and_then(|before| self.look_back(&mut read, &before, &source));
        let border = read.border().cloned();
        self.borders.leave(name, border.clone());
        let stored = read.publish(host::now(), source.again()?)?;
        let Delivered { holders, as_staged } = self.targets.deliver(&stage, stored.archived)?;
        if let (Some(spool), Some(entry)) = (&self.spool, stored.entry) {
            // Without the note, whoever needs it reads the segment.
            let _ = spool.note_entry(&EntryNote { entry, repositories: as_staged });
        }
        if let (Some(spool), Some(border)) = (&self.spool, border) {
            let note = BorderNote { border, repository: lead.id.clone(), raw_crc: stored.raw_crc };
            self.borders.note(&note, spool);
            if let Some(previous) = previous.filter(|_| proved) {
                self.borders.pass(previous, spool);
            }
        }
        let remark = stored.damage.map(Remark::Damaged).or(other_history.map(Remark::OtherHistory));
        Ok(Stored { remark, holders })
    }

    /// Sets a segment aside that certainly does not go on where the one before ends. Returns that one, if the two are of
    /// different histories.
    fn look_back(&self, read: &mut ReadSegment<'_>, before: &Before, source: &Source) -> Option<SegmentName> {
        let segment = before.border().segment();
        match read.continuity().clone() {
            Continuity::Proved { .. } | Continuity::NotProved => None,
            Continuity::OtherHistory => Some(segment),
            Continuity::Broken { damage, same_history } => {
                if !borders::is_certain(before, same_history, &self.targets.lead().server, &source.beside(segment)) {
                    return Some(segment);
                }
                read.set_aside(damage, segment);
                None
            }
        }
    }
}

/// A repository inside the data directory or one of its tablespaces would be lost together with it, and would be part of
/// every base backup.
fn check_outside(repository: &Path, data_directory: &Path) -> Result<(), PushError> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let repository_is = real(repository);
    let tablespaces = std::fs::read_dir(data_directory.join("pg_tblspc")).into_iter().flatten().flatten();
    let inside = [data_directory.to_owned()].into_iter().chain(tablespaces.map(|entry| entry.path()));
    match inside.into_iter().find(|directory| repository_is.starts_with(real(directory))) {
        Some(directory) => Err(PushError::InsideDataDirectory { repository: repository.to_owned(), directory }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository in the data directory or in a tablespace is found also behind a symbolic link; one beside it with a
    /// similar name is not.
    #[test]
    fn repository_inside_the_data_directory() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let data = directory.path().join("data");
        std::fs::create_dir_all(data.join("repository")).expect("made");
        std::fs::create_dir_all(data.join("pg_tblspc")).expect("made");
        std::fs::create_dir_all(directory.path().join("space/deep")).expect("made");
        std::os::unix::fs::symlink(directory.path().join("space"), data.join("pg_tblspc/16400")).expect("linked");
        std::os::unix::fs::symlink(data.join("repository"), directory.path().join("link")).expect("linked");
        for inside in ["data", "data/repository", "data/not-there", "link", "space", "space/deep"] {
            assert!(check_outside(&directory.path().join(inside), &data).is_err(), "{inside}");
        }
        for outside in ["data2", "", "other", "spaces"] {
            assert!(check_outside(&directory.path().join(outside), &data).is_ok(), "{outside}");
        }
    }
}
