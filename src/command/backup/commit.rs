//! The end of a backup: what came is held against what was announced, the WAL that it needs is brought, and info and manifest are written.

use std::time::Duration;

use super::progress::Progress;
use super::stream::{Streaming, Tail};
use super::{BackupError, Begun, Received, Task, pages, wal};
use crate::catalog::{BackupInfo, BackupWal, INFO_FORMAT, PackId, WalRange, WalTail};
use crate::chunk::ChunkId;
use crate::command::host;
use crate::manifest::ManifestStop;
use crate::replication::Session;
use crate::repository::earlier::EarlierBackup;
use crate::wal::{BackupSource, SegmentName};

impl Task<'_> {
    /// Holds what came against what was announced.
    pub(super) fn check(&self, begun: &Begun, received: &Received) -> Result<(), BackupError> {
        let Received { streamed, .. } = received;
        if streamed.stop_timeline != begun.timeline || streamed.label.start_timeline != begun.timeline {
            // A standby that has followed its primary begins at its last restartpoint, which may be on the timeline before.
            let start = begun.timeline.min(streamed.label.start_timeline);
            return Err(BackupError::TimelineChanged { start, stop: streamed.stop_timeline });
        }
        if streamed.label.start != begun.lsn {
            return Err(BackupError::LabelDiffers { label: streamed.label.start, server: begun.lsn });
        }
        match streamed.system_identifier {
            Some(found) if found != self.facts.system_identifier => {
                let reason = format!("it is of cluster {found}");
                Err(BackupError::FileDiffers { path: "backup_manifest".to_owned(), reason })
            }
            _ => Ok(()),
        }
    }

    /// Sees to it that the WAL which makes the copy consistent is stored.
    pub(super) fn bring_wal(
        &self,
        session: &mut Session,
        begun: &Begun,
        received: &Received,
        streaming: Option<Streaming>,
        progress: &Progress,
    ) -> Result<BackupWal, BackupError> {
        wal::history(&self.repository, session, begun.timeline, self.config.compression)?;
        let mut needed = wal::needed(&ranges(begun, received), self.facts.segment_size);
        let wal = match streaming {
            None => BackupWal::Archive,
            Some(streaming) => {
                let tail = streaming.finish(received.streamed.stop_lsn)?;
                BackupWal::Stream { tail: tail.map(|tail| self.keep_tail(&tail, &mut needed)).transpose()? }
            }
        };
        let deadline = self.args.wal_timeout.unwrap_or(self.config.wal_timeout);
        let standby = received.streamed.label.from == BackupSource::Standby;
        let say = |text: &str| progress.say(text);
        wal::wait(&self.repository, &needed, deadline, standby, &self.context.interrupt, say)?;
        Ok(wal)
    }

    fn keep_tail(&self, tail: &Tail, needed: &mut Vec<SegmentName>) -> Result<WalTail, BackupError> {
        let kept = WalTail { segment: tail.segment, bytes: tail.raw.len() as u64, content: ChunkId::of(&tail.raw) };
        self.repository.put_wal_tail(self.id, &kept, &tail.raw)?;
        needed.retain(|segment| *segment != tail.segment);
        Ok(kept)
    }

    /// Writes info and manifest, in this order. The backup exists from the last step on.
    pub(super) fn commit(
        &self,
        begun: Begun,
        received: Received,
        wal: BackupWal,
        configuration_missing: Vec<String>,
    ) -> Result<BackupInfo, BackupError> {
        if self.context.interrupt.requested() {
            return Err(BackupError::Interrupted);
        }
        let wal_ranges = ranges(&begun, &received);
        let Received { streamed, written, stop_time } = received;
        let (bad_pages, bad_count) = pages::confirmed(written.suspects, &streamed.judge);
        let source = streamed.label.from;
        let (stop_lsn, stop_timeline) = (streamed.stop_lsn, streamed.stop_timeline);
        let stop =
            ManifestStop { source, stop_lsn, stop_timeline, stop_time, wal_ranges: wal_ranges.clone(), bad_pages };
        let failed = |error| self.repository.manifest_failed(self.id, &error);
        let (manifest, counts) = written.manifest.finish(stop).map_err(failed)?;
        let info = BackupInfo {
            format: INFO_FORMAT,
            id: self.id,
            cluster: self.config.name.to_string(),
            system_identifier: self.facts.system_identifier,
            postgres_major: self.facts.major,
            postgres_version: self.facts.version.clone(),
            segment_size: self.facts.segment_size,
            label: self.args.label.clone(),
            source,
            start_lsn: begun.lsn,
            start_timeline: begun.timeline,
            start_time: self.started_at,
            stop_lsn,
            stop_timeline,
            stop_time,
            wal_ranges,
            tablespaces: begun.tablespaces,
            files: counts.files,
            raw_bytes: counts.raw_bytes,
            stored_bytes: written.stored_bytes,
            packs: written.packs,
            parent: self.earlier.as_ref().map(EarlierBackup::id),
            referenced_bytes: written.referenced_bytes,
            changed_only: streamed.changed_only,
            read: self.args.source.into(),
            compression: self.config.compression.to_string(),
            page_checksums: self.facts.page_checksums,
            bad_pages: bad_count,
            wal,
            configuration_missing,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        self.repository.put_backup_info(&info)?;
        // What a backup refers to may be removed once it has been marked for so long.
        let ran = Duration::from_micros(host::now().0.saturating_sub(self.started_at.0).try_into().unwrap_or(0));
        if ran >= self.config.undelete {
            return Err(BackupError::TooLong { ran, allowed: self.config.undelete });
        }
        let own = (0..info.packs).map(|number| PackId { backup: self.id, number });
        let others =
            self.earlier.iter().flat_map(|earlier| written.referenced.iter().filter_map(|pack| earlier.pack(*pack)));
        let packs = own.chain(others).collect();
        self.repository.commit_manifest(self.id, manifest, &packs, &host::host_name(), &host::now)?;
        Ok(info)
    }
}

/// The server's own list, which covers everything from start to stop; made from these two if it has none.
fn ranges(begun: &Begun, received: &Received) -> Vec<WalRange> {
    let listed = &received.streamed.wal_ranges;
    match listed.is_empty() {
        false => listed.clone(),
        true => {
            let (timeline, start_lsn, end_lsn) = (begun.timeline, begun.lsn, received.streamed.stop_lsn);
            vec![WalRange { timeline, start_lsn, end_lsn }]
        }
    }
}
