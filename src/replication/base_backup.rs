//! `BASE_BACKUP`: a base backup as a stream of messages, the same for both generations of the protocol.
//!
//! PostgreSQL 13 and 14 send one copy stream a tablespace and one for the manifest; 15 and later send a single one, whose
//! messages say what they carry. Either way the caller sees archives (tar), one after another in the order of
//! [`BaseBackup::tablespaces`] (the main one, which ends with `global/pg_control`, is the last), and then the manifest:
//!
//! ```text
//! ArchiveBegin, Data…, ArchiveBegin, Data…, ManifestBegin, ManifestData…, None → finish()
//! ```
//!
//! WAL is never part of the stream, and the server does not wait for its archiver: that the WAL arrives is the
//! caller's care. The server checks page checksums as it reads and reports damage twice: a warning a file at once, and an
//! error after the last byte ([`BackupEnd::damage`]).

use bytes::Bytes;
use postgres_protocol::message::backend::Message;

use crate::wal::{Lsn, TimelineId};

use super::backup_command::{BaseBackupOptions, command};
use super::copy_data::{BackupCopyData, parse_backup};
use super::error::{ReplicationError, ServerMessage};
use super::frames::{Frame, out_of_step};
use super::identify::{field, timeline};
use super::session::{QueryResult, Session};

const STARTING: &str = "starting a base backup";
const STREAMING: &str = "receiving a base backup";
const ENDING: &str = "ending a base backup";

/// `ERRCODE_DATA_CORRUPTED`: what the server raises after the last byte if checksums failed.
const DATA_CORRUPTED: &str = "XX001";

/// A tablespace in a base backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackupTablespace {
    /// Its oid; `None` for the data directory itself.
    pub oid: Option<u32>,
    /// Where it lies on the server; `None` for the data directory itself.
    pub location: Option<String>,
    /// Estimated size in bytes, if progress was asked for.
    pub size_bytes: Option<u64>,
}

/// One step of a base backup.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BackupMessage {
    /// The tar archive of a tablespace begins; its end-of-archive blocks may be missing (13 and 14).
    ArchiveBegin {
        /// Index into [`BaseBackup::tablespaces`].
        tablespace: usize,
    },
    /// Bytes of the archive that began last; at most 32 KiB from sound servers. A view into a larger receive block.
    Data(Bytes),
    /// The manifest begins.
    ManifestBegin,
    /// Bytes of the manifest.
    ManifestData(Bytes),
    /// Bytes that the server has sent of all archives, now and then (15 and later, if asked for).
    Progress(u64),
}

/// How a base backup ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackupEnd {
    /// WAL up to here is needed to use the backup.
    pub stop_lsn: Lsn,
    /// The timeline of that WAL.
    pub timeline: TimelineId,
    /// Warnings that came with the data, such as one for each file with a failed page checksum.
    pub warnings: Vec<ServerMessage>,
    /// The server's error if page checksums failed. The backup is complete even so: it holds the damaged pages.
    pub damage: Option<ServerMessage>,
}

/// A base backup under way.
pub struct BaseBackup<'s> {
    session: &'s mut Session,
    start_lsn: Lsn,
    timeline: TimelineId,
    tablespaces: Vec<BackupTablespace>,
    /// 13 and 14: a copy stream for each archive.
    separate_streams: bool,
    /// How many archives have begun.
    archives: usize,
    place: Place,
}

/// A base backup that the server has begun.
#[derive(Debug)]
pub struct BegunBackup {
    start_lsn: Lsn,
    timeline: TimelineId,
    tablespaces: Vec<BackupTablespace>,
    separate_streams: bool,
}

impl BegunBackup {
    /// The backup, in the session that it was begun in.
    #[must_use]
    pub fn on(self, session: &mut Session) -> BaseBackup<'_> {
        let BegunBackup { start_lsn, timeline, tablespaces, separate_streams } = self;
        BaseBackup { session, start_lsn, timeline, tablespaces, separate_streams, archives: 0, place: Place::Outside }
    }
}

/// Where in the stream we are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// No copy stream is open.
    Outside,
    /// The only copy stream is open, nothing has begun in it.
    Opened,
    InArchive,
    InManifest,
    /// All copy streams are done.
    Done,
}

impl<'s> BaseBackup<'s> {
    /// Starts a base backup and waits for the server's checkpoint.
    ///
    /// # Errors
    /// [`ReplicationError`]; options that the server could not take are refused before anything is sent.
    pub fn start(session: &'s mut Session, options: &BaseBackupOptions) -> Result<Self, ReplicationError> {
        Ok(BaseBackup::begin(session, options)?.on(session))
    }

    /// As [`BaseBackup::start`], leaving the session free after an error of the server's: another backup can be started then.
    ///
    /// # Errors
    /// As for [`BaseBackup::start`].
    pub fn begin(session: &mut Session, options: &BaseBackupOptions) -> Result<BegunBackup, ReplicationError> {
        let major = session.server_major()?;
        let command = command(options, major)?;
        // Warnings of earlier commands are not this backup's.
        session.take_notices();
        session.send_query(&command, STARTING)?;
        let usual = session.set_silence(options.checkpoint_wait);
        let started = result(session, STARTING);
        session.set_silence(usual);
        let (start_lsn, timeline) = position(&started?, STARTING)?;
        let tablespaces = tablespaces(&result(session, STARTING)?)?;
        Ok(BegunBackup { start_lsn, timeline, tablespaces, separate_streams: major < 15 })
    }

    /// WAL from here on is needed to use the backup.
    #[must_use]
    pub fn start_lsn(&self) -> Lsn {
        self.start_lsn
    }

    /// The timeline that the backup starts on.
    #[must_use]
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// What is going to be sent, in this order.
    #[must_use]
    pub fn tablespaces(&self) -> &[BackupTablespace] {
        &self.tablespaces
    }

    /// The next step; `None` after the last byte of the manifest.
    ///
    /// # Errors
    /// [`ReplicationError`]; the backup cannot be continued.
    #[expect(clippy::should_implement_trait, reason = "an iterator of results would go on after an error")]
    pub fn next(&mut self) -> Result<Option<BackupMessage>, ReplicationError> {
        while self.place != Place::Done {
            let step = match self.session.receive(STREAMING)? {
                Frame::CopyData(body) => self.data(body)?,
                Frame::Message(Message::CopyOutResponse(_)) => self.stream_begins()?,
                Frame::Message(Message::CopyDone) => {
                    self.stream_ends()?;
                    None
                }
                _ => return Err(self.session.unexpected(STREAMING, "something else than backup data")),
            };
            if step.is_some() {
                return Ok(step);
            }
        }
        Ok(None)
    }

    /// After [`BaseBackup::next`] has said `None`: where the backup ends, and whether pages in it are damaged.
    ///
    /// # Errors
    /// [`ReplicationError`]: the backup is not complete.
    pub fn finish(self) -> Result<BackupEnd, ReplicationError> {
        if self.place != Place::Done {
            return Err(out_of_step(ENDING, "the backup's data has not been received yet".to_owned()));
        }
        let (stop_lsn, timeline) = position(&result(self.session, ENDING)?, ENDING)?;
        let damage = match completed(self.session) {
            Ok(()) => None,
            Err(ReplicationError::Server(error)) if error.sqlstate == DATA_CORRUPTED => Some(*error),
            Err(error) => return Err(error),
        };
        let mut warnings = self.session.take_notices();
        warnings.retain(|notice| notice.severity == "WARNING");
        Ok(BackupEnd { stop_lsn, timeline, warnings, damage })
    }

    fn stream_begins(&mut self) -> Result<Option<BackupMessage>, ReplicationError> {
        match (self.place, self.separate_streams) {
            (Place::Outside, false) => {
                self.place = Place::Opened;
                Ok(None)
            }
            (Place::Outside, true) if self.archives < self.tablespaces.len() => self.archive_begins(self.archives),
            (Place::Outside, true) => Ok(self.manifest_begins()),
            _ => Err(self.session.unexpected(STREAMING, "a copy stream inside another")),
        }
    }

    fn stream_ends(&mut self) -> Result<(), ReplicationError> {
        self.place = match self.place {
            Place::InArchive if self.separate_streams => Place::Outside,
            Place::InManifest => Place::Done,
            _ => return Err(self.session.unexpected(STREAMING, "the end of the data before the manifest")),
        };
        Ok(())
    }

    fn archive_begins(&mut self, tablespace: usize) -> Result<Option<BackupMessage>, ReplicationError> {
        self.archives += 1;
        self.place = Place::InArchive;
        Ok(Some(BackupMessage::ArchiveBegin { tablespace }))
    }

    fn manifest_begins(&mut self) -> Option<BackupMessage> {
        self.place = Place::InManifest;
        Some(BackupMessage::ManifestBegin)
    }

    fn data(&mut self, body: Bytes) -> Result<Option<BackupMessage>, ReplicationError> {
        let parsed = match self.separate_streams {
            true => BackupCopyData::Data(body),
            false => parse_backup(body).map_err(|error| self.session.unexpected(STREAMING, &error.to_string()))?,
        };
        match (parsed, self.place) {
            (BackupCopyData::Data(bytes), Place::InArchive) => Ok(Some(BackupMessage::Data(bytes))),
            (BackupCopyData::Data(bytes), Place::InManifest) => Ok(Some(BackupMessage::ManifestData(bytes))),
            (BackupCopyData::Progress(done), _) => Ok(Some(BackupMessage::Progress(done))),
            (BackupCopyData::Archive { name, .. }, Place::Opened | Place::InArchive) => {
                // Archives come in the order announced; the name has to agree, or files would go to the wrong place.
                let expected = self.tablespaces.get(self.archives).map(|tablespace| match tablespace.oid {
                    Some(oid) => format!("{oid}.tar"),
                    None => "base.tar".to_owned(),
                });
                match expected == Some(name) {
                    true => self.archive_begins(self.archives),
                    false => Err(self.session.unexpected(STREAMING, "an archive that was not announced")),
                }
            }
            (BackupCopyData::Manifest, Place::InArchive) if self.archives == self.tablespaces.len() => {
                Ok(self.manifest_begins())
            }
            _ => Err(self.session.unexpected(STREAMING, "backup messages in the wrong order")),
        }
    }
}

/// One of the results around the data.
fn result(session: &mut Session, doing: &'static str) -> Result<QueryResult, ReplicationError> {
    let raw = session.receive_result(doing)?.ok_or_else(|| out_of_step(doing, "no result".to_owned()))?;
    raw.into_text(doing)
}

/// Reads up to the end of the command.
fn completed(session: &mut Session) -> Result<(), ReplicationError> {
    while session.receive_result(ENDING)?.is_some() {}
    Ok(())
}

fn position(result: &QueryResult, doing: &'static str) -> Result<(Lsn, TimelineId), ReplicationError> {
    let lsn = field(result, 0, doing)?
        .parse()
        .map_err(|error: crate::wal::NameError| out_of_step(doing, error.to_string()))?;
    Ok((lsn, timeline(field(result, 1, doing)?, doing)?))
}

fn tablespaces(result: &QueryResult) -> Result<Vec<BackupTablespace>, ReplicationError> {
    let wrong = || out_of_step(STARTING, "a list of tablespaces that cannot be read".to_owned());
    let mut found: Vec<BackupTablespace> = Vec::new();
    for row in &result.rows {
        let [oid, location, size_kib] = row.as_slice() else { return Err(wrong()) };
        let oid = oid.as_deref().map(str::parse).transpose().map_err(|_| wrong())?;
        if oid.is_some() != location.is_some() || found.iter().any(|other| other.oid == oid) {
            return Err(wrong());
        }
        let size_kib: Option<u64> = size_kib.as_deref().map(str::parse).transpose().map_err(|_| wrong())?;
        let size_bytes = size_kib.map(|size| size.saturating_mul(1024));
        found.push(BackupTablespace { oid, location: location.clone(), size_bytes });
    }
    match found.iter().any(|tablespace| tablespace.oid.is_none()) {
        true => Ok(found),
        false => Err(wrong()),
    }
}
